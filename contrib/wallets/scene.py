#!/usr/bin/env python3
"""A scene for a wallet: a bitcoind on regtest, Ambra beside it, and someone who does what happens on a chain.

    scene.py NAME COMMAND...

starts both in a folder of their own under target/wallets/scenes/NAME, runs the command (a client that lives
its life), prints a line for each step that the client tells of, and writes what came out to
target/wallets/results/NAME.json. Exit code 0 if the command ended well and no step failed.

The command finds in its environment

    SCENE                HOST:PORT, where it asks for things to happen (below)
    SCENE_HOST           127.0.0.1
    SCENE_TCP, SCENE_TLS, SCENE_WS, SCENE_WSS     Ambra's ports
    SCENE_CERTIFICATE    the certificate that Ambra made for itself (PEM)
    SCENE_NODE, SCENE_RPC_PORT                    bitcoind's folder, with its cookie, and its port for calls
    SCENE_DIR            an empty folder for the client's own files

It asks by lines of JSON, {"do": NAME, ...}, and each is answered by a line {"result": ...} or
{"error": "words"}. What may be asked are the methods do_... of `Scene`. `BITCOIND` and `AMBRA` name the programs;
without them they are contrib/bitcoind.sh's and target/release/ambra. Only Python's own library is used.
"""

import json
import os
import shutil
import signal
import socketserver
import sys
import threading
import time
from pathlib import Path

from patience import wait
from programs import ROOT, Ambra, Client, Node, Refused

TARGET = ROOT / "target/wallets"
# A command that takes longer hangs, and is ended: the waits in it are over long before. SCENE_SECONDS has another limit for
# whole suites.
LIFE_SECONDS = 3600
# Coins must be this deep before a reward can be spent, and a few rewards are wanted.
FIRST_BLOCKS = 120
# A life of a wallet, in order. A client may tell of more; these are the columns of docs/wallets.md.
LIFE = ["connect", "restore", "sync", "receive", "confirm", "send", "replace", "reorg", "restart"]
OUTCOMES = ["ok", "failed", "not offered"]


class Scene:
    """What a client may ask for: do_NAME is {"do": "NAME"}, its parameters are the members beside it."""

    def __init__(self, name):
        self.name = name
        self.folder = TARGET / "scenes" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.node = Node(self.folder / "node")
        self.ambra = Ambra(self.node, self.folder / "ambra")
        self.about = {"client": name, "version": "", "protocol": "", "transport": ""}
        self.steps = []
        self.lock = threading.Lock()

    def open(self):
        self.node.start()
        # The bank pays and mines; the purse holds the keys of clients that have none.
        for wallet in ["bank", "purse"]:
            self.node.rpc("createwallet", wallet)
        self.node.rpc("generatetoaddress", FIRST_BLOCKS, self.do_address())
        self.ambra.start()
        wait("Ambra is in step with the node", self.ambra.is_in_step)

    def close(self):
        self.ambra.stop()
        self.node.stop()

    # --- the chain

    def do_rpc(self, method, params=()):
        """Anything that bitcoind can be asked."""
        return self.node.rpc(method, *params)

    def do_tip(self):
        hash = self.node.rpc("getbestblockhash")
        return {"height": self.node.rpc("getblockcount"), "hash": hash}

    def do_mine(self, blocks=1):
        self.node.rpc("generatetoaddress", blocks, self.do_address())
        return self.do_tip()

    def do_reorg(self, depth=1):
        """Takes the last blocks away; a longer branch without a payment comes instead. Payments are
        unconfirmed again."""
        height = self.node.rpc("getblockcount")
        self.node.rpc("invalidateblock", self.node.rpc("getblockhash", height - depth + 1))
        for _ in range(depth + 1):
            self.node.rpc("generateblock", self.do_address(), [])
        return self.do_tip()

    # --- payments

    def do_address(self, kind="bech32"):
        """Where the bank is paid."""
        return self.node.rpc("getnewaddress", "", kind, wallet="bank")

    def do_pay(self, address, sats):
        """Unconfirmed, and replaceable by do_bump."""
        amount = f"{sats / 100_000_000:.8f}"
        options = {"address": address, "amount": amount, "replaceable": True, "fee_rate": 5}
        names = ["address", "amount", "comment", "comment_to", "subtractfeefromamount", "replaceable"]
        params = [options.get(name, "" if "comment" in name else False) for name in names]
        return {"txid": self.node.rpc("sendtoaddress", *params, wallet="bank")}

    def do_pay_many(self, addresses, sats):
        """One payment to all of them."""
        amounts = {address: f"{sats / 100_000_000:.8f}" for address in addresses}
        return {"txid": self.node.rpc("sendmany", "", amounts, wallet="bank")}

    def do_bump(self, txid):
        """The bank's payment, replaced by one with a higher fee."""
        bumped = self.node.rpc("bumpfee", txid, {"fee_rate": 50}, wallet="bank")
        return {"txid": bumped["txid"]}

    # --- the purse: keys for clients that carry bytes and sign nothing

    def do_purse_address(self, kind="bech32"):
        address = self.node.rpc("getnewaddress", "", kind, wallet="purse")
        script = self.node.rpc("getaddressinfo", address, wallet="purse")["scriptPubKey"]
        return {"address": address, "script": script}

    def do_purse_spend(self, script, address, sats):
        """A signed payment from a coin of this script, not sent. Its change goes back to the script."""
        coins = self.node.rpc("listunspent", 0, wallet="purse")
        coin = next(coin for coin in coins if coin["scriptPubKey"] == script)
        inputs = [{"txid": coin["txid"], "vout": coin["vout"]}]
        outputs = [{address: f"{sats / 100_000_000:.8f}"}]
        options = {"fee_rate": 2, "replaceable": True, "add_inputs": False, "changeAddress": coin["address"]}
        funded = self.node.rpc("walletcreatefundedpsbt", inputs, outputs, 0, options, wallet="purse")
        return self.signed(funded["psbt"])

    def do_purse_bump(self, txid):
        """A replacement with a higher fee, signed, not sent."""
        # The node's wallet hears of its own payment from the mempool, a moment later.
        outputs = wait("the purse knows of it", lambda: self.knows(txid))["decoded"]["vout"]
        addresses = [output["scriptPubKey"]["address"] for output in outputs]
        own = [self.node.rpc("getaddressinfo", address, wallet="purse")["ismine"] for address in addresses]
        # The change went to an address of before, which the node takes for a recipient unless told. Then the
        # higher fee would come from another coin.
        options = {"fee_rate": 20, "original_change_index": own.index(True)}
        psbt = self.node.rpc("psbtbumpfee", txid, options, wallet="purse")["psbt"]
        return self.signed(psbt)

    def knows(self, txid):
        try:
            return self.node.rpc("gettransaction", txid, True, True, wallet="purse")
        except Refused:
            return None

    def signed(self, psbt):
        psbt = self.node.rpc("walletprocesspsbt", psbt, wallet="purse")["psbt"]
        hex = self.node.rpc("finalizepsbt", psbt)["hex"]
        return {"hex": hex, "txid": self.node.rpc("decoderawtransaction", hex)["txid"]}

    # --- the server

    def do_restart(self):
        """Ambra stops in good order and starts again on the same ports."""
        self.ambra.stop()
        self.ambra.start_again()

    def do_stop_ambra(self):
        self.ambra.stop()

    def do_start_ambra(self):
        self.ambra.start_again()

    # --- what the client tells

    def do_about(self, **words):
        """client, version, protocol, transport."""
        self.about.update(words)

    def do_step(self, name, outcome, seconds=0.0, detail=""):
        if outcome not in OUTCOMES:
            raise ValueError(f"outcome {outcome}")
        step = {"name": name, "outcome": outcome, "seconds": round(seconds, 1), "detail": detail}
        self.steps.append(step)
        print(f"  {self.name:28} {name:22} {outcome:12} {seconds:6.1f} s  {detail}".rstrip(), flush=True)

    # ---

    def answer(self, line):
        try:
            request = json.loads(line)
            do = getattr(self, "do_" + request.pop("do"))
            with self.lock:
                return {"result": do(**request)}
        except Exception as error:  # Whatever it is, the client is told, and fails its step by it.
            return {"error": f"{type(error).__name__}: {error}"}

    def result(self, code, seconds):
        failed, missing = [], []
        # Of a suite of others' own the exit code says whether a failure is explained.
        if self.about.get("life", True):
            failed = [step["name"] for step in self.steps if step["outcome"] == "failed"]
            told = {step["name"] for step in self.steps}
            missing = [name for name in LIFE if name not in told]
        complaints = self.ambra.complaints()
        return {
            "name": self.name,
            **self.about,
            "steps": self.steps,
            "seconds": round(seconds, 1),
            "ok": code == 0 and not failed and not missing and not complaints,
            "exit code": code,
            "failed": failed,
            "missing": missing,
            "complaints": complaints,
        }


def serve(scene):
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            for line in self.rfile:
                self.wfile.write(json.dumps(scene.answer(line)).encode() + b"\n")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def environment(scene, server):
    own = scene.folder / "client"
    own.mkdir()
    path = [str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return dict(
        os.environ,
        SCENE="%s:%d" % server.server_address,
        SCENE_HOST="127.0.0.1",
        SCENE_CERTIFICATE=scene.ambra.certificate(),
        SCENE_NODE=str(scene.node.folder),
        SCENE_RPC_PORT=str(scene.node.rpc_port),
        SCENE_DIR=str(own),
        PYTHONPATH=os.pathsep.join(filter(None, path)),
        **{"SCENE_" + scheme.upper(): str(port) for scheme, port in scene.ambra.ports.items()},
    )


def live(scene, command):
    """Runs the command in the scene, and gives the result. Whatever was started is stopped, however it ends."""
    client = None
    limit = int(os.environ.get("SCENE_SECONDS", LIFE_SECONDS))
    try:
        scene.open()
        client = Client(command, environment(scene, serve(scene)))
        began = time.monotonic()
        code = client.wait(limit)
        if code is None:
            print(f"{scene.name}: not over within {limit} s, and ended", flush=True)
        return scene.result(code, time.monotonic() - began)
    finally:
        on_signals(signal.SIG_IGN)
        if client:
            client.stop()
        scene.close()


def on_signals(how):
    for sign in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]:
        signal.signal(sign, how)


def end(sign, _):
    # Another signal must not interrupt the end: programs would be left behind.
    on_signals(signal.SIG_IGN)
    sys.exit(128 + sign)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    name, command = sys.argv[1], sys.argv[2:]
    on_signals(end)
    scene = Scene(name)
    result = live(scene, command)
    results = TARGET / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    line = f"{name}: " + ("ok" if result["ok"] else "FAILED")
    for word in ["failed", "missing", "complaints"]:
        if result[word]:
            line += f"; {word}: " + ", ".join(result[word])
    if result["exit code"]:
        line += f"; the client ended with {result['exit code']}"
    if result["ok"]:
        shutil.rmtree(scene.folder, ignore_errors=True)
    else:
        line += f"; files in {scene.folder.relative_to(ROOT)}"
    print(line, f"({result['seconds']} s)", flush=True)
    sys.exit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
