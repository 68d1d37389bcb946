#!/usr/bin/env python3
"""What a suite of others' own said, as a result for docs/wallets.md.

    result.py to-file SUITE VERSION LOG...
    result.py in-scene SUITE VERSION LOG...     tells the scene that it is called in

LOG is what `cargo test` or Python's unittest printed; where a test was run again, a later outcome counts.
Exit code 1 where a test failed that KNOWN does not explain: such a failure is Ambra's until somebody looks.
"""

import json
import re
import sys
from pathlib import Path

from programs import ROOT

KNOWN = json.loads((Path(__file__).parent / "known.json").read_text())
# What a test prints stands between its name and its outcome.
CARGO = re.compile(r"^test (\S+) \.\.\. (?:.*?\s)??(ok|FAILED|ignored)(?:, [^\n]*)?$", re.M | re.S)
UNITTEST = re.compile(r"^(test_\w+) \(([\w.]+)\)[^\n]*? \.\.\. .*?(?:^|\s)(ok|FAIL|ERROR|skipped[^\n]*)$", re.M | re.S)
OK = {"ok": "ok", "FAILED": "failed", "FAIL": "failed", "ERROR": "failed"}


def outcomes(logs):
    """test: its outcomes, in the order of the runs."""
    found = {}
    for log in logs:
        text = Path(log).read_text(errors="replace")
        for name, outcome in CARGO.findall(text):
            found.setdefault(name.split("::")[-1], []).append(OK.get(outcome, "not offered"))
        for name, place, outcome in UNITTEST.findall(text):
            words = [word for word in place.split(".") if word.startswith("Test")]
            found.setdefault(".".join([*words, name]), []).append(OK.get(outcome, "not offered"))
    return found


def main():
    where, suite, version, *logs = sys.argv[1:]
    known = KNOWN.get(suite, {})
    steps, unexplained = [], []
    for name, runs in outcomes(logs).items():
        outcome = runs[-1]
        words = []
        failed_first = outcome == "ok" and "failed" in runs
        if failed_first:
            words.append(f"in run {len(runs)}")
        if outcome != "ok" or failed_first:
            words.append(known.get(name, ""))
        if outcome == "failed" and name not in known:
            unexplained.append(name)
        steps.append({"name": name, "outcome": outcome, "seconds": 0.0, "detail": ": ".join(filter(None, words))})
    about = {"client": suite, "version": version, "protocol": "", "transport": "tcp", "life": False}
    if where == "in-scene":
        import stage

        stage.do("about", **about)
        for step in steps:
            stage.do("step", **step)
    else:
        path = ROOT / "target/wallets/results" / f"suite-{re.sub(r'[^a-z0-9]+', '-', suite.lower())}.json"
        path.write_text(json.dumps({**about, "steps": steps}, indent=1) + "\n")
    passed = sum(step["outcome"] == "ok" for step in steps)
    print(f"{suite} {version}: {passed} of {len(steps)} tests passed; unexplained: {', '.join(unexplained) or 'none'}")
    sys.exit(bool(unexplained) or not steps)


main()
