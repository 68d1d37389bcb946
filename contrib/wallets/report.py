#!/usr/bin/env python3
"""Writes docs/wallets.md from target/wallets/results."""

import json
from pathlib import Path

from scene import LIFE, ROOT, TARGET

HEAD = """# Wallets

Real clients, each living a wallet's life with Ambra and a bitcoind on regtest. Written by `contrib/wallets/run-all.sh`,
which installs each client from its own registry under `target/wallets`, and runs it again for everyone:

```sh
contrib/wallets/run-all.sh            # all of it; writes this page anew
contrib/wallets/run-all.sh node       # one folder of contrib/wallets
```

The suite runs the quick ones too (`contrib/test.sh`, step *wallets*). A client that cannot be installed is skipped
aloud there.

| step | what must be seen |
|---|---|
| connect | the client connects, negotiates a version, and has the node's tip |
| restore | a wallet with payments of before comes back from its seed, its descriptor or its scripts |
| sync | balance, history and coins are what they should be |
| receive | a payment, unconfirmed |
| confirm | the same payment in a block |
| send | a payment of its own goes out through Ambra and is in the node's mempool |
| replace | the same with a higher fee; the first is gone |
| reorg | its block is taken away by a longer branch: the payment is unconfirmed again, then confirmed in another |
| restart | Ambra stops and starts; the client is there again and sees what happened next |

"""


def cell(result, name):
    step = next((step for step in result["steps"] if step["name"] == name), None)
    if step is None:
        return "–" if not result.get("life", True) else "**missing**"
    if step["outcome"] == "ok":
        return f"{step['seconds']:.1f}"
    return "**failed**" if step["outcome"] == "failed" else "not offered"


def table(results):
    lines = ["| client | version | protocol | transport | " + " | ".join(LIFE) + " |"]
    lines.append("|" + "---|" * (len(LIFE) + 4))
    for result in results:
        words = [result["client"], result["version"], result["protocol"], result["transport"]]
        words += [cell(result, name) for name in LIFE]
        lines.append("| " + " | ".join(words) + " |")
    return "\n".join(lines) + "\n"


def more(results):
    """Steps beside the life, what was not offered and why, and what was said of steps."""
    lines = []
    for result in results:
        for step in result["steps"]:
            if step["name"] in LIFE and not step["detail"]:
                continue
            who = f"{result['client']} {result['version']}, {result['transport']}"
            outcome = f"{step['outcome']}, {step['seconds']:.1f} s" if step["outcome"] == "ok" else step["outcome"]
            detail = step["detail"].replace("|", "\\|")
            lines.append(f"| {who} | {step['name']} | {outcome} | {detail} |")
    return "| client | step | | |\n|---|---|---|---|\n" + "\n".join(lines) + "\n"



def main():
    folder = TARGET / "results"
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    skipped = {path.stem: path.read_text().strip() for path in sorted(folder.glob("*.skipped"))}
    lives = [result for result in results if result.get("life", True)]
    others = [result for result in results if not result.get("life", True)]
    text = HEAD
    text += "## The matrix\n\nNumbers are seconds: the step went well and took so long (much of it the client's own start, and the "
    text += "node's mining). Where Ambra's log had a warning or an error, the life counts as failed too.\n\n"
    text += table(lives)
    text += "\n## What else was seen\n\n" + more(lives)
    if others:
        text += "\n## Test suites that others wrote\n\n"
        text += "Run from the sources that their registries hold; nothing of them is in this repository.\n\n"
        text += "| suite | version | transport | test | outcome | |\n|---|---|---|---|---|---|\n"
        for result in others:
            for step in result["steps"]:
                text += f"| {result['client']} | {result['version']} | {result['transport']} | {step['name']} | "
                text += f"{step['outcome']} | {step['detail']} |\n"
    if skipped:
        text += "\n## Not run here\n\n"
        text += "".join(f"- `{name}`: {why}\n" for name, why in skipped.items())
    text += (ROOT / "contrib/wallets/notes.md").read_text()
    (ROOT / "docs/wallets.md").write_text(text)
    print("docs/wallets.md: %d lives, %d suites, %d skipped" % (len(lives), len(others), len(skipped)))


if __name__ == "__main__":
    main()
