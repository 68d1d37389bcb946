"""The scene as a client in Python sees it."""

import contextlib
import json
import os
import socket
import sys
import time
import traceback

HOST = os.environ["SCENE_HOST"]
TCP, TLS, WS, WSS = (int(os.environ["SCENE_" + scheme]) for scheme in ["TCP", "TLS", "WS", "WSS"])
CERTIFICATE = os.environ["SCENE_CERTIFICATE"]
DIR = os.environ["SCENE_DIR"]

_host, _port = os.environ["SCENE"].split(":")
_stream = socket.create_connection((_host, int(_port))).makefile("rw")


def do(what, /, **members):
    """Asks the scene to do something."""
    _stream.write(json.dumps({"do": what, **members}) + "\n")
    _stream.flush()
    reply = json.loads(_stream.readline())
    if "error" in reply:
        raise RuntimeError(f"{what}: {reply['error']}")
    return reply["result"]


@contextlib.contextmanager
def step(name):
    """A step of the life. What fails ends the life: the next steps stand on it. The body may append words
    to the list that it is given."""
    began = time.monotonic()
    words = []
    try:
        yield words
    except Exception as error:
        traceback.print_exc()
        do("step", name=name, outcome="failed", seconds=time.monotonic() - began, detail=str(error)[:300])
        sys.exit(1)
    do("step", name=name, outcome="ok", seconds=time.monotonic() - began, detail="; ".join(words))


def not_offered(name, why):
    do("step", name=name, outcome="not offered", detail=why)
