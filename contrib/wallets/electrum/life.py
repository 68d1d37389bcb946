#!/usr/bin/env python3
"""The life of the Electrum wallet, by its daemon and its command line, without its windows.

    ELECTRUM="the program, in words" life.py tcp|tls

Over TLS the certificate is pinned: --serverfingerprint has its SHA-256, and no other is taken.
"""

import ast
import base64
import hashlib
import http.client
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import stage
from patience import PATIENCE_SECONDS, wait
from stage import do, not_offered, step

PROGRAM = shlex.split(os.environ["ELECTRUM"])
COIN = 100_000_000


class Electrum:
    def __init__(self, name):
        self.dir = Path(stage.DIR) / name
        self.dir.mkdir(parents=True)
        self.log = self.dir / "daemon.log"
        self.daemon = None

    def command(self, words):
        return [*PROGRAM, *words, "--regtest", "-D", str(self.dir)]

    def environment(self):
        # It must not look for a screen, nor for the user's own wallets.
        environment = dict(os.environ, HOME=str(self.dir))
        environment.pop("DISPLAY", None)
        environment.pop("PYTHONPATH", None)
        return environment

    def run(self, *words):
        done = subprocess.run(
            self.command(words), env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PATIENCE_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"{words[0]}: {done.stdout.strip()} {done.stderr.strip()[-300:]}")
        try:
            return json.loads(done.stdout)
        except ValueError:
            return done.stdout.strip()

    def offline(self, *words):
        return self.run(*words, "--offline")

    def start(self, server, *options):
        with open(self.log, "ab") as log:
            self.daemon = subprocess.Popen(
                self.command(["daemon", "--oneserver", "--server", server, "-v", *options]),
                env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )

        def answers():
            try:
                return self.ask("getinfo")
            except (OSError, ValueError, SyntaxError, KeyError, http.client.HTTPException):
                return None

        wait("the daemon answers", answers)

    def ask(self, method, **params):
        """The same by the daemon's own port: for what is asked often, since Python starts slowly."""
        # Newer ones say the kind of socket first.
        *_, address, _ = ast.literal_eval((self.dir / "regtest/daemon").read_text())
        config = json.loads((self.dir / "regtest/config").read_text())
        login = f"{config['rpcuser']}:{config['rpcpassword']}".encode()
        if isinstance(address, tuple):
            connection = http.client.HTTPConnection(*address, timeout=PATIENCE_SECONDS)
        else:
            connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_SECONDS)
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(address)
        body = json.dumps({"id": 0, "method": method, "params": params})
        headers = {"Authorization": "Basic " + base64.b64encode(login).decode()}
        connection.request("POST", "/", body, headers)
        reply = json.loads(connection.getresponse().read())
        connection.close()
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']}")
        return reply["result"]

    def said(self, pattern):
        return re.findall(pattern, self.log.read_text(errors="replace"))

    def is_connected(self):
        """To the server, and at the node's tip."""
        info = self.ask("getinfo")
        height = do("tip")["height"]
        return info["connected"] and info["blockchain_height"] == height == info["server_height"]

    def balance(self):
        """In satoshis: confirmed, unconfirmed."""
        told = self.ask("getbalance")
        return tuple(round(float(told.get(name, 0)) * COIN) for name in ["confirmed", "unconfirmed"])

    def wait_for_balance(self, confirmed, unconfirmed=0):
        last = None

        def reached():
            nonlocal last
            last = self.balance()
            return last == (confirmed, unconfirmed)

        try:
            wait("balance", reached)
        except TimeoutError:
            raise TimeoutError(f"balance {last}, not {(confirmed, unconfirmed)}") from None

    def transactions(self):
        """txid: confirmations, by the wallet's history."""
        history = self.ask("onchain_history")
        entries = history["transactions"] if isinstance(history, dict) else history
        return {entry["txid"]: entry["confirmations"] for entry in entries}

    def stop(self):
        if self.daemon and self.daemon.poll() is None:
            try:
                self.run("stop")
                self.daemon.wait(PATIENCE_SECONDS)
            except (RuntimeError, subprocess.TimeoutExpired):
                self.daemon.kill()
                self.daemon.wait()


def fingerprint():
    pem = Path(stage.CERTIFICATE).read_text()
    body = pem.split("-----BEGIN CERTIFICATE-----")[1].split("-----END")[0]
    return hashlib.sha256(base64.b64decode(body)).hexdigest()


REPLACING_TAKEN_OUT = "RBF is disabled in this version of Electrum"


def live(wallet, transport):
    tls = transport == "tls"
    server = f"{stage.HOST}:{stage.TLS}:s" if tls else f"{stage.HOST}:{stage.TCP}:t"
    options = ["--serverfingerprint", fingerprint()] if tls else []
    version = wallet.offline("version")
    do("about", client="Electrum", version=version, transport=transport)

    # 0. A wallet with a past: two payments and the words of its seed.
    seed = wallet.offline("make_seed")
    wallet.offline("restore", seed, "-w", str(wallet.dir / "past"))
    addresses = wallet.offline("listaddresses", "-w", str(wallet.dir / "past"))
    for address in addresses[:2]:
        do("pay", address=address, sats=COIN)
    do("mine")
    confirmed = 2 * COIN

    if tls:
        with step("refuse another certificate"):
            stranger = Electrum("stranger")
            try:
                stranger.start(server, "--serverfingerprint", "00" * 32)
                refusal = r"(?i)(?:fingerprint|certificate).{0,40}mismatch|mismatch.{0,40}fingerprint|Untrusted"
                wait("it says why", lambda: stranger.said(refusal))
                if stranger.ask("getinfo")["connected"]:
                    raise RuntimeError("it is connected")
            finally:
                stranger.stop()

    with step("restore"):
        wallet.offline("restore", seed)

    with step("connect") as words:
        wallet.start(server, *options)
        wait("connected", wallet.is_connected)
        name, protocol = wallet.said(r"connection established. version: \['([^']*)', '([^']*)'\]")[0]
        do("about", protocol=protocol)
        words.append(f"{name}, protocol {protocol}")

    with step("sync") as words:
        wallet.run("load_wallet")
        wallet.wait_for_balance(confirmed)
        words.append("2 payments of before")

    with step("receive") as words:
        address = wallet.run("getunusedaddress")
        paid = do("pay", address=address, sats=COIN // 2)["txid"]
        wallet.wait_for_balance(confirmed, COIN // 2)
        if wallet.transactions()[paid] != 0:
            raise RuntimeError("not unconfirmed")

    with step("receive a replaced one"):
        replaced, paid = paid, do("bump", txid=paid)["txid"]

        def is_replaced():
            now = wallet.transactions()
            return paid in now and replaced not in now

        wait("the new one is there, the old one is not", is_replaced)
        wallet.wait_for_balance(confirmed, COIN // 2)

    with step("confirm"):
        do("mine")
        confirmed += COIN // 2
        wallet.wait_for_balance(confirmed)

    with step("send"):
        to = do("address")
        signed = wallet.run("payto", to, "0.3", "--feerate", "2")
        sent = wallet.run("broadcast", signed)
        wait("the node has it", lambda: sent in do("rpc", method="getrawmempool"))
        wait("the wallet sees its own", lambda: wallet.transactions().get(sent) == 0)

    # Debian's security update of 4.3.4 has replacing taken out. Whatever else a wallet says to it fails the life.
    try:
        signed = wallet.run("bumpfee", signed, "20")
        replaces = True
    except RuntimeError as error:
        if REPLACING_TAKEN_OUT not in str(error):
            raise
        not_offered("replace", "this version's security update has replacing by fee taken out")
        replaces = False

    with step("replace" if replaces else "confirm what was sent") as words:
        last = wallet.run("broadcast", signed) if replaces else sent
        wait("the node has it", lambda: last in do("rpc", method="getrawmempool"))
        if replaces:
            pool = do("rpc", method="getrawmempool")
            if sent in pool or sent == last:
                raise RuntimeError("nothing was replaced")
            wait("the wallet knows", lambda: wallet.transactions().get(last) == 0 and sent not in wallet.transactions())
        fees = do("rpc", method="getmempoolentry", params=[last])
        words.append(f"{fees['fees']['base'] * COIN / fees['vsize']:.0f} sat/vB")
        spent = round((0.3 + fees["fees"]["base"]) * COIN)
        do("mine")
        confirmed -= spent
        wallet.wait_for_balance(confirmed)

    with step("reorg"):
        tip = do("reorg", depth=1)
        wait("at the new branch", wallet.is_connected)
        wait("unconfirmed again", lambda: wallet.transactions().get(last) == 0)
        do("mine")
        wait("confirmed again", lambda: wallet.transactions().get(last) == 1)
        wallet.wait_for_balance(confirmed)
        if do("rpc", method="getblockhash", params=[tip["height"]]) != tip["hash"]:
            raise RuntimeError("the chain is another one")

    with step("restart"):
        do("restart")
        do("pay", address=wallet.run("createnewaddress"), sats=COIN)
        wait("connected again", wallet.is_connected)
        wallet.wait_for_balance(confirmed, COIN)
        do("mine")
        wallet.wait_for_balance(confirmed + COIN)


def main():
    wallet = Electrum("wallet")
    try:
        live(wallet, sys.argv[1])
    finally:
        wallet.stop()


main()
