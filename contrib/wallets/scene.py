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
    SCENE_DIR            an empty folder for the client's own files

It asks by lines of JSON, {"do": NAME, ...}, and each is answered by a line {"result": ...} or
{"error": "words"}. What may be asked are the methods do_... of `Scene`. `BITCOIND` and `AMBRA` name the programs;
without them they are contrib/bitcoind.sh's and target/release/ambra. Only Python's own library is used.
"""

import base64
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "target/wallets"
# Longest wait for a program to come up or to go, on a busy machine.
PATIENCE_SECONDS = 120
# Coins must be this deep before a reward can be spent, and a few rewards are wanted.
FIRST_BLOCKS = 120
# A life of a wallet, in order. A client may tell of more; these are the columns of docs/wallets.md.
LIFE = ["connect", "restore", "sync", "receive", "confirm", "send", "replace", "reorg", "restart"]
OUTCOMES = ["ok", "failed", "not offered"]


def until(what, ask, patience=PATIENCE_SECONDS):
    """Asks again and again until there is an answer."""
    deadline = time.monotonic() + patience
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience} s")
        time.sleep(0.02)


def free_port():
    """A port that nobody listens on, outside the range from which the system takes ports by itself."""
    while True:
        port = random.randrange(16_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Refused(Exception):
    """What bitcoind said no to."""


class Node:
    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.program = os.environ.get("BITCOIND") or subprocess.run(
            [ROOT / "contrib/bitcoind.sh"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()
        self.rpc_port = free_port()
        zmq = f"tcp://127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            [
                self.program, "-regtest", f"-datadir={folder}", f"-rpcport={self.rpc_port}",
                "-server=1", "-listen=0", "-dnsseed=0", "-connect=0", "-txindex=0", "-rest=1",
                "-fallbackfee=0.0001", "-acceptnonstdtxn=1", "-par=1", "-dbcache=16",
                f"-zmqpubhashblock={zmq}", f"-zmqpubsequence={zmq}",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        until("bitcoind answers", self.answers)

    def answers(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"bitcoind ended with {self.process.returncode}")
        try:
            return self.rpc("getmempoolinfo")["loaded"]
        except (OSError, Refused, http.client.HTTPException):
            return False

    def rpc(self, method, *params, wallet=None):
        cookie = (self.folder / "regtest/.cookie").read_bytes()
        connection = http.client.HTTPConnection("127.0.0.1", self.rpc_port, timeout=PATIENCE_SECONDS)
        body = json.dumps({"id": 0, "method": method, "params": params})
        headers = {"Authorization": "Basic " + base64.b64encode(cookie).decode()}
        try:
            connection.request("POST", f"/wallet/{wallet}" if wallet else "/", body, headers)
            reply = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if reply["error"] is not None:
            raise Refused(f"{method}: {reply['error']['message']}")
        return reply["result"]

    def stop(self):
        stop(self.process, signal.SIGTERM)


class Ambra:
    def __init__(self, node, folder):
        self.folder = folder
        folder.mkdir()
        self.ports = {scheme: free_port() for scheme in ["tcp", "tls", "ws", "wss"]}
        self.command = [
            os.environ.get("AMBRA") or str(ROOT / "target/release/ambra"),
            "--network", "regtest", "--daemon-dir", str(node.folder),
            "--daemon-rpc-url", f"http://127.0.0.1:{node.rpc_port}", "--db-dir", str(folder / "db"),
            # Several scenes may run at once.
            "--admin-listen", "off",
        ]
        for scheme, port in self.ports.items():
            self.command += ["--listen", f"{scheme}://127.0.0.1:{port}"]
        # Tests of others' own start it with settings of theirs.
        self.command += os.environ.get("AMBRA_ARGUMENTS", "").split()
        self.log = folder / "ambra.log"
        self.start()
        self.certificate = re.search(r"TLS certificate ([^,]+),", self.log.read_text()).group(1)

    def start(self):
        since = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

        def listens():
            if self.process.poll() is not None:
                raise RuntimeError(f"Ambra ended with {self.process.returncode}: {self.log.read_text()}")
            return self.log.read_bytes()[since:].count(b"listening on ") >= len(self.ports)

        until("Ambra listens", listens)

    def is_in_step(self):
        return b"in step with the node" in self.log.read_bytes()

    def stop(self):
        stop(self.process, signal.SIGTERM)

    def complaints(self):
        """What it logged as wrong."""
        lines = self.log.read_text(errors="replace").splitlines()
        lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
        return [line for line in lines if re.search(r"\b(WARN|ERROR)\b|panicked", line)]


def stop(process, how):
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Scene:
    """What a client may ask for: do_NAME is {"do": "NAME"}, its parameters are the members beside it."""

    def __init__(self, name):
        self.name = name
        self.folder = TARGET / "scenes" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.node = Node(self.folder / "node")
        self.about = {"client": name, "version": "", "protocol": "", "transport": ""}
        self.steps = []
        self.lock = threading.Lock()
        try:
            # The bank pays and mines; the purse holds the keys of clients that have none.
            for wallet in ["bank", "purse"]:
                self.node.rpc("createwallet", wallet)
            self.node.rpc("generatetoaddress", FIRST_BLOCKS, self.do_address())
            self.ambra = Ambra(self.node, self.folder / "ambra")
            until("Ambra is in step with the node", self.ambra.is_in_step)
        except BaseException:
            self.node.stop()
            raise

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
        outputs = until("the purse knows of it", lambda: self.knows(txid))["decoded"]["vout"]
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
        self.ambra.start()

    def do_stop_ambra(self):
        self.ambra.stop()

    def do_start_ambra(self):
        self.ambra.start()

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
        failed = [step["name"] for step in self.steps if step["outcome"] == "failed"]
        told = {step["name"] for step in self.steps}
        missing = [name for name in LIFE if name not in told] if self.about.get("life", True) else []
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


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    name, command = sys.argv[1], sys.argv[2:]
    # So that bitcoind and Ambra are ended too when someone ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scene = Scene(name)
    try:
        server = serve(scene)
        own = scene.folder / "client"
        own.mkdir()
        environment = dict(
            os.environ,
            SCENE="%s:%d" % server.server_address,
            SCENE_HOST="127.0.0.1",
            SCENE_CERTIFICATE=scene.ambra.certificate,
            SCENE_DIR=str(own),
            PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            **{"SCENE_" + scheme.upper(): str(port) for scheme, port in scene.ambra.ports.items()},
        )
        began = time.monotonic()
        code = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode
        result = scene.result(code, time.monotonic() - began)
    finally:
        scene.close()
    results = TARGET / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    line = f"{name}: " + ("ok" if result["ok"] else "FAILED")
    for word in ["failed", "missing", "complaints"]:
        if result[word]:
            line += f"; {word}: " + ", ".join(result[word])
    if code:
        line += f"; the client ended with {code}"
    if result["ok"]:
        shutil.rmtree(scene.folder, ignore_errors=True)
    else:
        line += f"; files in {scene.folder.relative_to(ROOT)}"
    print(line, f"({result['seconds']} s)", flush=True)
    sys.exit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
