"""Waiting: the one way in which the scene and the clients in Python do it."""

import time

# Longest wait for whatever is to be seen: steps that take five seconds took over a hundred beside thirty busy programs.
PATIENCE_SECONDS = 300
# Between two looks.
LOOK_SECONDS = 0.03


def wait(what, ask, patience=PATIENCE_SECONDS):
    """Asks until the answer is a yes, and returns it."""
    deadline = time.monotonic() + patience
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience} s")
        time.sleep(LOOK_SECONDS)
