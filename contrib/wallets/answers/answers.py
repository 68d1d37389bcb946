#!/usr/bin/env python3
"""Asks Ambra and electrs, beside one bitcoind, the same questions over a chain made by chance, and holds the answers
against each other. What differs must be in known.json with its reason, or this fails.

    ELECTRS=program answers.py

The result is target/wallets/results/answers.json, for docs/wallets.md. Only Python's own library is used.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from patience import PATIENCE_SECONDS, wait
from programs import ROOT, Ambra, Node, Program, Refused, free_port

TARGET = ROOT / "target/wallets"
KNOWN = json.loads((Path(__file__).parent / "known.json").read_text())
BANK = "bank"
KINDS = ["legacy", "p2sh-segwit", "bech32", "bech32m"]
# Coins must be this deep before a reward can be spent.
FIRST_BLOCKS = 130
ROUNDS = 60
REORG_DEPTH_MAX = 4
# Both speak it.
PROTOCOL = "1.4"


class PeerNode(Node):
    """electrs reads blocks as a peer."""

    def choose_ports(self):
        super().choose_ports()
        self.peer_port = free_port()

    def command(self):
        words = [word for word in super().command() if not word.startswith(("-listen=", "-connect="))]
        return [*words, f"-bind=127.0.0.1:{self.peer_port}"]


class Electrs(Program):
    def __init__(self, node, folder):
        super().__init__(folder)
        self.node = node

    def choose_ports(self):
        self.port, self.monitor = free_port(), free_port()

    def command(self):
        return [
            os.environ["ELECTRS"], "--skip-default-conf-files", "--network", "regtest",
            "--daemon-dir", str(self.node.folder), "--db-dir", str(self.folder / "db"),
            "--daemon-rpc-addr", f"127.0.0.1:{self.node.rpc_port}",
            "--daemon-p2p-addr", f"127.0.0.1:{self.node.peer_port}",
            "--electrum-rpc-addr", f"127.0.0.1:{self.port}",
            "--monitoring-addr", f"127.0.0.1:{self.monitor}", "--log-filters", "INFO",
        ]

    def is_up(self):
        return b"serving Electrum RPC" in self.said()

    def look(self):
        """It looks for blocks and payments every ten seconds, and when it is sent this."""
        self.process.send_signal(signal.SIGUSR1)


class Session:
    def __init__(self, port):
        self.stream = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS).makefile("rw")
        self.id = 0

    def line(self, text):
        """A line as it is; the answer to it."""
        self.stream.write(text + "\n")
        self.stream.flush()
        while True:
            reply = self.stream.readline()
            if not reply:
                raise ConnectionError(f"closed after {text[:200]}")
            reply = json.loads(reply)
            # What it pushes meanwhile is no answer.
            if isinstance(reply, list) or "method" not in reply:
                return reply

    def ask(self, method, params):
        self.id += 1
        return self.line(json.dumps({"jsonrpc": "2.0", "id": self.id, "method": method, "params": params}))


def script_hash(script):
    return hashlib.sha256(bytes.fromhex(script)).digest()[::-1].hex()


class Chain:
    """What happens on the node, by chance."""

    def __init__(self, node, chance):
        self.node = node
        self.chance = chance
        self.addresses = []

    def bank(self, method, *params):
        return self.node.rpc(method, *params, wallet=BANK)

    def address(self):
        """A new one, or one of before."""
        if self.addresses and self.chance.random() < 0.4:
            return self.chance.choice(self.addresses)
        self.addresses.append(self.bank("getnewaddress", "", self.chance.choice(KINDS)))
        return self.addresses[-1]

    def begin(self):
        self.node.rpc("createwallet", BANK)
        for _ in range(FIRST_BLOCKS // 10):
            self.node.rpc("generatetoaddress", 10, self.address())

    def pay(self):
        """To a few, with words beside now and then; and from unconfirmed coins too."""
        sats = [self.chance.randrange(1_000, 50_000_000) for _ in range(self.chance.randrange(1, 6))]
        outputs = [{self.address(): f"{value / 1e8:.8f}"} for value in sats]
        outputs = list({tuple(output): output for output in outputs}.values())
        if self.chance.random() < 0.2:
            outputs.append({"data": self.chance.randbytes(20).hex()})
        options = {"fee_rate": self.chance.randrange(2, 40), "replaceable": True}
        options["minconf"] = self.chance.randrange(2)
        # The wallet spends its own unconfirmed change by itself: heights of -1.
        return self.bank("send", outputs, None, "unset", None, options)["txid"]

    def replace(self):
        pool = [txid for txid in self.node.rpc("getrawmempool") if not self.entry(txid)["depends"]]
        if pool:
            self.bank("bumpfee", self.chance.choice(pool), {"fee_rate": self.chance.randrange(60, 90)})

    def entry(self, txid):
        return self.node.rpc("getmempoolentry", txid)

    def mine(self):
        self.node.rpc("generatetoaddress", self.chance.randrange(1, 3), self.address())

    def reorg(self):
        depth = self.chance.randrange(1, REORG_DEPTH_MAX + 1)
        height = self.node.rpc("getblockcount")
        self.node.rpc("invalidateblock", self.node.rpc("getblockhash", height - depth + 1))
        for _ in range(depth + 1):
            # Some leave a part of the mempool out.
            if self.chance.random() < 0.5:
                self.node.rpc("generateblock", self.address(), [])
            else:
                self.node.rpc("generatetoaddress", 1, self.address())

    def step(self):
        acts = [(self.pay, 12), (self.replace, 3), (self.mine, 4), (self.reorg, 1)]
        act = self.chance.choices([act for act, _ in acts], [weight for _, weight in acts])[0]
        try:
            act()
        except Refused as refused:
            # Some of what chance proposes cannot be: a replacement that pays too little.
            return str(refused)

    def scripts(self):
        """All that were ever paid and are in a block or in the mempool."""
        found = {}
        for height in range(self.node.rpc("getblockcount") + 1):
            for transaction in self.node.rpc("getblock", self.node.rpc("getblockhash", height), 2)["tx"]:
                found.update((output["scriptPubKey"]["hex"], None) for output in transaction["vout"])
        for txid in self.node.rpc("getrawmempool"):
            for output in self.node.rpc("getrawtransaction", txid, 2)["vout"]:
                found[output["scriptPubKey"]["hex"]] = None
        return list(found)


class Comparison:
    def __init__(self, node, ambra, electrs):
        self.node, self.ambra, self.electrs = node, ambra, electrs
        self.sessions = [Session(ambra.ports["tcp"]), Session(electrs.port)]
        # question: [asked, the same]; and what differed, with its reason.
        self.asked, self.different, self.unexplained = {}, {}, []

    def both(self, method, params):
        return [session.ask(method, params) for session in self.sessions]

    def wait_until_in_step(self, scripts):
        """Both at the node's tip, and both know the node's mempool."""
        tip = self.node.rpc("getblockheader", self.node.rpc("getbestblockhash"), False)
        pool = set(self.node.rpc("getrawmempool"))
        hashes = [script_hash(script) for script in scripts]

        def in_step():
            self.electrs.look()
            if any(reply["result"]["hex"] != tip for reply in self.both("blockchain.headers.subscribe", [])):
                return False
            for session in self.sessions:
                known = set()
                for each in hashes:
                    entries = session.ask("blockchain.scripthash.get_history", [each])["result"]
                    known.update(entry["tx_hash"] for entry in entries if entry["height"] <= 0)
                if known != pool:
                    return False
            return True

        wait("both are in step with the node", in_step)

    def compare(self, name, question, replies):
        """`name` is what it is called in the table."""
        counts = self.asked.setdefault(name, [0, 0])
        counts[0] += 1
        ours, theirs = replies
        if ours == theirs:
            counts[1] += 1
            return
        for known in KNOWN:
            if re.fullmatch(known["question"], name) and known["kind"] == kind_of(ours, theirs):
                self.different.setdefault(name, {}).setdefault(known["why"], [0, question, ours, theirs])[0] += 1
                return
        self.unexplained.append((name, question, ours, theirs))

    def ask(self, method, params, name=None):
        self.compare(name or method, params, self.both(method, params))

    def ask_line(self, name, text):
        self.compare(name, text, [session.line(text) for session in self.sessions])

    def greet(self):
        # electrs has no answers until its first look is over.
        probe = Session(self.electrs.port)
        wait("electrs answers", lambda: "result" in probe.ask("server.ping", []))
        for session, name in zip(self.sessions, ["Ambra", "electrs"]):
            reply = session.ask("server.version", ["answers", PROTOCOL])
            if reply["result"][1] != PROTOCOL:
                raise RuntimeError(f"{name}: {reply}")
        self.ask("server.ping", [])
        for method in ["server.banner", "server.features", "server.donation_address", "server.peers.subscribe"]:
            self.ask(method, [])

    def ask_of_scripts(self, scripts):
        for script in [*scripts, "6a", "51"]:
            for part in ["get_balance", "get_history", "listunspent", "subscribe"]:
                method = f"blockchain.scripthash.{part}"
                name = f"{method} of what cannot be spent" if script.startswith("6a") else method
                self.ask(method, [script_hash(script)], name)

    def ask_of_headers(self, tip):
        for height in range(tip + 1):
            self.ask("blockchain.block.header", [height])
        self.ask("blockchain.block.headers", [0, tip + 1])
        self.ask("blockchain.block.headers", [tip // 2, 10])
        self.ask("blockchain.block.headers", [tip, 10])
        self.ask("blockchain.block.headers", [0, 0])
        self.ask("blockchain.headers.subscribe", [])

    def ask_of_transactions(self, tip):
        for height in range(tip + 1):
            hash = self.node.rpc("getblockhash", height)
            for place, txid in enumerate(self.node.rpc("getblock", hash)["tx"]):
                self.ask("blockchain.transaction.get_merkle", [txid, height])
                self.ask("blockchain.transaction.id_from_pos", [height, place])
                self.ask("blockchain.transaction.id_from_pos", [height, place, True], "blockchain.transaction.id_from_pos with its proof")
                if height:
                    self.ask("blockchain.transaction.get", [txid])
                    self.ask("blockchain.transaction.get", [txid, True], "blockchain.transaction.get, verbose")
        for txid in self.node.rpc("getrawmempool"):
            self.ask("blockchain.transaction.get", [txid])
            self.ask("blockchain.transaction.get", [txid, True], "blockchain.transaction.get, verbose")

    def ask_of_the_node(self):
        for blocks in [1, 2, 6, 25, 144, 1008]:
            self.ask("blockchain.estimatefee", [blocks])
        self.ask("blockchain.relayfee", [])
        self.ask("mempool.get_fee_histogram", [])

    def ask_what_cannot_be(self, tip, coinbase):
        nobody = "00" * 32
        for name, method, params in [
            ("a method that nobody has", "blockchain.nothing", []),
            ("a header above the tip", "blockchain.block.header", [tip + 1]),
            ("headers above the tip", "blockchain.block.headers", [tip + 1, 1]),
            ("a negative height", "blockchain.block.header", [-1]),
            ("a height in words", "blockchain.block.header", ["one"]),
            ("a height with a fraction", "blockchain.block.header", [1.5]),
            ("no parameters where there must be some", "blockchain.block.header", []),
            ("a parameter too much", "blockchain.block.header", [1, 0, 0]),
            ("a script hash that is too short", "blockchain.scripthash.get_history", ["00"]),
            ("a script hash that is no hexadecimal", "blockchain.scripthash.get_history", ["zz" * 32]),
            ("a transaction that nobody has", "blockchain.transaction.get", [nobody]),
            ("a transaction that nobody has, verbose", "blockchain.transaction.get", [nobody, True]),
            ("a proof of what is in no block", "blockchain.transaction.get_merkle", [nobody, 1]),
            ("a proof in another block", "blockchain.transaction.get_merkle", [coinbase, 1]),
            ("a proof above the tip", "blockchain.transaction.get_merkle", [coinbase, tip + 1]),
            ("a place that a block does not have", "blockchain.transaction.id_from_pos", [tip, 100_000]),
            ("a place above the tip", "blockchain.transaction.id_from_pos", [tip + 1, 0]),
            ("a transaction cut in half", "blockchain.transaction.broadcast", ["0200"]),
            ("a transaction that is no hexadecimal", "blockchain.transaction.broadcast", ["words"]),
            ("an end of a subscription that is none", "blockchain.scripthash.unsubscribe", [nobody]),
            ("a second version", "server.version", ["again", PROTOCOL]),
        ]:
            self.ask(method, params, name)
        for name, text in [
            ("no JSON", "{nothing"),
            ("JSON that is no request", "7"),
            ("a request without a method", '{"jsonrpc":"2.0","id":1}'),
            ("an empty batch", "[]"),
            ("a batch of two", '[{"id":1,"method":"server.ping"},{"id":2,"method":"blockchain.relayfee"}]'),
            ("a batch with a wrong one", '[{"id":1,"method":"server.ping","params":[]},{"id":2,"method":"blockchain.nothing","params":[]}]'),
            ("parameters by name", '{"jsonrpc":"2.0","id":1,"method":"blockchain.block.header","params":{"height":1}}'),
            ("an id of words", '{"jsonrpc":"2.0","id":"seven","method":"server.ping","params":[]}'),
            ("an id of null", '{"jsonrpc":"2.0","id":null,"method":"server.ping","params":[]}'),
            ("a request without parameters", '{"jsonrpc":"2.0","id":1,"method":"server.ping"}'),
            ("an older JSON-RPC", '{"id":1,"method":"server.ping","params":[]}'),
        ]:
            self.ask_line(name, text)

    def send(self, chain):
        """What the node refuses, and then a payment by each."""
        coin = next(coin for coin in chain.bank("listunspent", 1) if coin["amount"] > 1)
        inputs = [{"txid": coin["txid"], "vout": coin["vout"]}]

        def signed(sats):
            raw = self.node.rpc("createrawtransaction", inputs, {chain.address(): f"{sats / 1e8:.8f}"})
            return chain.bank("signrawtransactionwithwallet", raw)["hex"]

        whole = round(coin["amount"] * 1e8)
        self.ask("blockchain.transaction.broadcast", [signed(whole)], "a payment without a fee")
        unsigned = self.node.rpc("createrawtransaction", inputs, {chain.address(): 1})
        self.ask("blockchain.transaction.broadcast", [unsigned], "a payment without a signature")
        self.ask("blockchain.transaction.broadcast", [signed(whole - 10_000)])
        self.ask("blockchain.transaction.broadcast", [signed(whole - 1_000_000)], "the same coin spent again for more")


def kind_of(ours, theirs):
    """In one word, how two answers differ."""
    if isinstance(ours, list) or isinstance(theirs, list):
        return "other"
    if "error" in ours and "error" in theirs:
        same = isinstance(theirs["error"], dict) and ours["error"]["code"] == theirs["error"]["code"]
        return "words" if same else "code"
    if "error" in ours:
        return "only Ambra refuses"
    if "error" in theirs:
        return "only electrs refuses"
    ours, theirs = ours["result"], theirs["result"]
    if isinstance(ours, list) and isinstance(theirs, list):
        told = [sorted(json.dumps(entry, sort_keys=True) for entry in answer) for answer in (ours, theirs)]
        if told[0] == told[1]:
            return "order"
    return "result"


def main():
    seed = int(os.environ.get("CHANCE") or random.randrange(10**9))
    print(f"CHANCE={seed}", flush=True)
    folder = TARGET / "scenes/answers"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    node = PeerNode(folder / "node")
    ambra, electrs = Ambra(node, folder / "ambra"), Electrs(node, folder / "electrs")
    try:
        node.start()
        chain = Chain(node, random.Random(seed))
        chain.begin()
        ambra.start()
        electrs.start()
        comparison = Comparison(node, ambra, electrs)
        comparison.greet()
        scripts = []
        # Three moments: after a while, after a reorganization, and with all in blocks.
        for act in [lambda: [chain.step() for _ in range(ROUNDS)], chain.reorg, chain.mine]:
            act()
            scripts = chain.scripts()
            comparison.wait_until_in_step(scripts)
            tip = node.rpc("getblockcount")
            comparison.ask_of_scripts(scripts)
            comparison.ask_of_headers(tip)
            comparison.ask_of_transactions(tip)
            comparison.ask_of_the_node()
        comparison.ask_what_cannot_be(tip, node.rpc("getblock", node.rpc("getblockhash", tip))["tx"][0])
        comparison.send(chain)
    finally:
        ambra.stop()
        electrs.stop()
        node.stop()
    version = subprocess.run([os.environ["ELECTRS"], "--version"], capture_output=True, text=True).stdout.strip()
    end(comparison, version.removeprefix("v"), len(scripts), seed, folder)


def end(comparison, version, scripts, seed, folder):
    rows = []
    for name, (asked, same) in comparison.asked.items():
        whys = comparison.different.get(name, {})
        rows.append({"name": name, "asked": asked, "same": same, "whys": {why: found[0] for why, found in whys.items()}})
        for why, (count, question, ours, theirs) in whys.items():
            print(f"  {name}: {count} differ: {why}")
    # The first of each sort.
    sorts = {}
    for name, question, ours, theirs in comparison.unexplained:
        sorts.setdefault((name, kind_of(ours, theirs)), []).append((question, ours, theirs))
    for (name, kind), found in sorts.items():
        question, ours, theirs = found[0]
        print(f"NOT EXPLAINED, {len(found)} times: {name}, {kind}: {str(question)[:150]}")
        print(f"  Ambra:   {json.dumps(ours)[:1500]}\n  electrs: {json.dumps(theirs)[:1500]}")
    asked = sum(asked for asked, _ in comparison.asked.values())
    same = sum(same for _, same in comparison.asked.values())
    complaints = comparison.ambra.complaints()
    print(f"answers beside electrs {version}: {asked} asked of {scripts} scripts, {same} the same to the last word, "
          f"{len(comparison.unexplained)} not explained; complaints: {', '.join(complaints) or 'none'}")
    ok = not comparison.unexplained and not complaints
    result = {"electrs": version, "chance": seed, "scripts": scripts, "questions": rows, "ok": ok}
    (TARGET / "results").mkdir(parents=True, exist_ok=True)
    (TARGET / "results/answers.beside").write_text(json.dumps(result, indent=1) + "\n")
    if ok:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(not ok)


main()
