#!/usr/bin/env python3
"""result.py LOG NAME JSON: what `cargo test` said, as a result for the table.

Exit code 1 where a test failed that KNOWN does not explain: such a failure is Ambra's until somebody looks.
"""

import json
import re
import sys
from pathlib import Path

# Why these fail, now or always, as far as reading them tells; not by an answer of the server that is wrong.
EARLY = "takes any header that was pushed since it last looked for the newest, and asks too early; fails at times"
KNOWN = {
    "test_check_fee_calculation": "counts the inputs that bitcoind's wallet chose, before the server is asked anything; "
    "newer nodes choose others",
    "test_sync": EARLY,
    "test_sync_reorg_remined_at_same_height": EARLY,
    "tx_can_become_unconfirmed_after_reorg": EARLY,
}


def main():
    log, name, path = sys.argv[1:]
    lock = (Path(__file__).parent / f"{name}.lock").read_text()
    version = re.search(rf'name = "{name}"\nversion = "([^"]+)"', lock).group(1)
    steps, unexplained = [], []
    for test, outcome in re.findall(r"^test (\S+) \.\.\. (ok|FAILED)", Path(log).read_text(), re.M):
        is_ok = outcome == "ok"
        if not is_ok and test not in KNOWN:
            unexplained.append(test)
        detail = "" if is_ok else KNOWN.get(test, "")
        steps.append({"name": test, "outcome": "ok" if is_ok else "failed", "seconds": 0, "detail": detail})
    result = {"client": f"{name}'s own tests", "version": version, "protocol": "", "transport": "tcp", "life": False}
    Path(path).write_text(json.dumps({**result, "steps": steps}, indent=1) + "\n")
    passed = sum(step["outcome"] == "ok" for step in steps)
    print(f"{name}: {passed} of {len(steps)} tests passed; unexplained: {', '.join(unexplained) or 'none'}")
    sys.exit(bool(unexplained) or not steps)


main()
