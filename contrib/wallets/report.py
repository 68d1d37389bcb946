#!/usr/bin/env python3
"""Writes docs/wallets.md from target/wallets/results, head.md and notes.md.

Exit code 1 where a client or a transport is missing and nobody says why: no gap is silent.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from scene import LIFE, ROOT, TARGET

HERE = Path(__file__).resolve().parent
TRANSPORTS = ["tcp", "tls", "ws", "wss"]
NO_WEB = "the client has no WebSocket"
# Each client, the folder that runs it, and why it does not live by a transport; "" if it does.
CLIENTS = {
    "Electrum": ("electrum", {"tcp": "", "tls": "", "ws": NO_WEB, "wss": NO_WEB}),
    "electrum-client": ("rust", {"tcp": "", "tls": "", "ws": NO_WEB, "wss": NO_WEB}),
    "bdk_electrum": ("rust", {"tcp": "", "tls": "", "ws": NO_WEB, "wss": NO_WEB}),
    "electrum_streaming_client": (
        "rust",
        {"tcp": "", "tls": "it takes any stream, and makes none itself", "ws": NO_WEB, "wss": NO_WEB},
    ),
    "bdkpython": ("python", {"tcp": "", "tls": "", "ws": NO_WEB, "wss": NO_WEB}),
    "lwk": ("python", {"tcp": "", "tls": "it takes no certificate of our own", "ws": NO_WEB, "wss": NO_WEB}),
    "electrumjs": ("node", {"tcp": "", "tls": "", "ws": NO_WEB, "wss": NO_WEB}),
    "npm's electrum-client": ("node", {"tcp": "", "tls": "", "ws": NO_WEB, "wss": NO_WEB}),
    "@mempool/electrum-client": ("node", {"tcp": "", "tls": "", "ws": NO_WEB, "wss": NO_WEB}),
    "@electrum-cash/network": ("node", {"tcp": "", "tls": "", "ws": "", "wss": ""}),
    "electrum-cash": ("node", {"tcp": "", "tls": "", "ws": "", "wss": ""}),
    "@codewarriorr/electrum-client-js": ("node", {"tcp": "", "tls": "its TLS cannot be begun with today's Node", "ws": "", "wss": ""}),
    "@samouraiwallet/electrum-client": ("node", {"tcp": "", "tls": "", "ws": NO_WEB, "wss": NO_WEB}),
    "electrum-client-js": ("node", {"tcp": "", "tls": "", "ws": NO_WEB, "wss": NO_WEB}),
    "rn-electrum-client": (
        "node",
        {"tcp": "", "tls": "its TLS is made for React Native's sockets, and comes to no end with Node's", "ws": NO_WEB, "wss": NO_WEB},
    ),
}
MATRIX = """Numbers are seconds: the step went well and took so long (much of it the client's own start, and the node's mining,
on a busy machine with two lives at once). A life counts as failed too where Ambra's log had a warning or an error.
What – stands for is told below.

"""


def row(*words):
    return "| " + " | ".join(str(word).replace("|", "\\|") for word in words) + " |\n"


def cell(result, name):
    step = next((step for step in result["steps"] if step["name"] == name), None)
    if step is None:
        return "**missing**"
    if step["outcome"] == "ok":
        return f"{step['seconds']:.1f}"
    return "**failed**" if step["outcome"] == "failed" else "–"


def matrix(lives):
    text = row("client", "version", "protocol", "transport", *LIFE)
    text += "|" + "---|" * (len(LIFE) + 4) + "\n"
    for life in lives:
        words = [life[name] for name in ["client", "version", "protocol", "transport"]]
        text += row(*words, *(cell(life, name) for name in LIFE))
    return text


def gaps(lives, skipped):
    """Why a client does not live by a transport; and those that say nothing."""
    seen = {(life["client"], life["transport"]) for life in lives}
    reasons, silent = {}, []
    for client, (folder, transports) in CLIENTS.items():
        for transport, why in transports.items():
            if (client, transport) in seen:
                continue
            why = why or skipped.get(folder, "")
            if why:
                reasons.setdefault((why, transport), []).append(client)
            else:
                silent.append(f"{client} by {transport}")
    for life in lives:
        if life["client"] not in CLIENTS:
            silent.append(f"what {life['client']} is")
    text = row("transport", "clients that do not live by it", "because") + "|---|---|---|\n"
    for (why, transport), clients in reasons.items():
        text += row(transport, ", ".join(clients), why)
    return text, silent


def more(lives):
    """Steps beside the life, what was not offered and why, and what was said of steps; alike ones in one row."""
    rows = {}
    for life in lives:
        for step in life["steps"]:
            if step["name"] in LIFE and (not step["detail"] or step["name"] == "connect" and step["outcome"] == "ok"):
                continue
            who = f"{life['client']} {life['version']}"
            outcome = "–" if step["outcome"] == "not offered" else step["outcome"]
            found = rows.setdefault((who, outcome, step["detail"]), ([], []))
            for words, word in zip(found, [life["transport"], step["name"]]):
                if word not in words:
                    words.append(word)
    text = row("client", "transport", "step", "", "") + "|---|---|---|---|---|\n"
    for (who, outcome, detail), (transports, steps) in rows.items():
        text += row(who, ", ".join(transports), ", ".join(steps), outcome, detail)
    return text


def whole(results):
    """Parts of one suite that ran side by side, as one."""
    found = {}
    for result in results:
        suite = found.setdefault((result["client"], result["version"]), {**result, "steps": []})
        suite["steps"] += sorted(result["steps"], key=lambda step: step["name"])
    return list(found.values())


def suites(results):
    text = row("suite", "version", "passed", "not passed, and why") + "|---|---|---|---|\n"
    for result in results:
        passed = [step for step in result["steps"] if step["outcome"] == "ok"]
        others = {}
        for step in result["steps"]:
            if step["outcome"] == "failed":
                others.setdefault(step["detail"] or "**not explained**", []).append(step["name"])
        late = [f"`{step['name']}` passed {step['detail']}" for step in passed if step["detail"]]
        why = [", ".join(f"`{name}`" for name in names) + f": {detail}" for detail, names in others.items()]
        words = "; ".join(why + late) or "–"
        # Its authors leave some out themselves.
        ran = [step for step in result["steps"] if step["outcome"] != "not offered"]
        text += row(result["client"], result["version"], f"{len(passed)} of {len(ran)}", words)
    return text


def beside(folder):
    """The answers beside another server's, as answers/answers.py left them."""
    path = folder / "answers.beside"
    if not path.exists():
        return ""
    result = json.loads(path.read_text())
    rows = result["questions"]
    asked, same = (sum(question[word] for question in rows) for word in ["asked", "same"])
    text = (HERE / "answers/head.md").read_text()
    text += (
        f"\nThis time, beside electrs {result['electrs']}: {asked} questions, of {result['scripts']} scripts at the end; {same} answers "
        "are the same\nto the last word, and of the others each is explained:\n\n"
    )
    text += row("asked", "times", "the same", "what differs, and why") + "|---|---|---|---|\n"
    # What was asked once, in words, is told in words.
    once = {}
    for question in rows:
        method, _, more = question["name"].partition(" ")
        why = "; ".join(f"{count}: {why}" for why, count in question["whys"].items())
        if "." in method:
            name = f"`{method.rstrip(',')}` {more}".strip()
            text += row(name, question["asked"], question["same"], why or "–")
        else:
            once.setdefault("; ".join(question["whys"]) or "the same to the last word", []).append(question["name"])
    text += "\nAnd what cannot be answered, or is asked in another way, once each:\n\n"
    return text + "".join(f"- {'; '.join(names)}: **{why}**.\n" for why, names in once.items())


def programs():
    """What it ran with."""

    def told(*command):
        if not command[0] or not shutil.which(command[0]):
            return ""
        return subprocess.run(command, capture_output=True, text=True).stdout

    ambra = told(os.environ.get("AMBRA", ""), "--version").splitlines()
    format = [line for line in ambra if line.startswith("index format")]
    words = [f"{ambra[0]} ({', '.join(format)})"] if ambra else []
    words += [line.split(" version ")[0].replace(" daemon", "") + " " + line.split(" version ")[-1]
              for line in told(os.environ.get("BITCOIND", ""), "-version").splitlines()[:1]]
    words += ["Node " + line for line in told("node", "--version").splitlines()]
    return "Made with " + ", ".join([*words, "Python " + platform.python_version()]) + ".\n\n"


def main():
    folder = TARGET / "results"
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    skipped = {path.stem: path.read_text().strip() for path in sorted(folder.glob("*.skipped"))}
    for result in results:
        # Two libraries have one name.
        if result["client"] == "electrum-client" and result["name"].startswith("npm-"):
            result["client"] = "npm's electrum-client"
    lives = [result for result in results if result.get("life", True)]
    others = whole([result for result in results if not result.get("life", True)])
    absent, silent = gaps(lives, skipped)
    text = (HERE / "head.md").read_text()
    text += "\n## The matrix\n\n" + programs() + MATRIX + matrix(lives) + "\n" + absent
    text += "\n## What else was seen\n\n" + more(lives)
    text += "\n## Test suites that others wrote\n\n"
    text += "Run from the sources that their registries hold, Electrum's from these or from a folder (`ELECTRUM_SOURCE`); nothing of\n"
    text += "them is in this repository.\n\n"
    text += suites(others)
    text += (HERE / "notes.md").read_text()
    text += beside(folder)
    if skipped:
        text += "\n## Not run here\n\n"
        text += "".join(f"- `{name}`: {why}\n" for name, why in skipped.items())
    (ROOT / "docs/wallets.md").write_text(text)
    print(f"docs/wallets.md: {len(lives)} lives, {len(others)} suites, {len(skipped)} skipped")
    if silent:
        print("nothing is said of " + ", ".join(silent))
        sys.exit(1)


if __name__ == "__main__":
    main()
