"""The programs of a scene: a bitcoind on regtest, Ambra beside it, and the client."""

import base64
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
from pathlib import Path

from patience import PATIENCE_SECONDS, wait

ROOT = Path(__file__).resolve().parents[2]
# Another program may take a free port before ours does; so often others are tried.
ATTEMPTS = 3
# For a client to end in good order; what is left then is killed.
GRACE_SECONDS = 15


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


class Ended(Exception):
    """A program that ended before it was up."""


class Program:
    """Something that is started, comes up, and is stopped. What is below `command` and `is_up` is the same for all."""

    process = None

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.log = folder / "log"

    def start(self):
        """On ports of its own, until it is up."""
        for attempt in range(1, ATTEMPTS + 1):
            self.choose_ports()
            try:
                return self.start_again()
            except Ended:
                if attempt == ATTEMPTS:
                    raise

    def start_again(self):
        """On the same ports."""
        self.since = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            # A session of its own: Ctrl-C is for the scene, which stops its programs in their order.
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        wait(f"{type(self).__name__} is up", self.is_up_or_ended)

    def is_up_or_ended(self):
        if self.process.poll() is not None:
            said = self.said().decode(errors="replace")[-2000:]
            raise Ended(f"{type(self).__name__} ended with {self.process.returncode}: {said}")
        return self.is_up()

    def said(self):
        """Since it was started last."""
        return self.log.read_bytes()[self.since :]

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Node(Program):
    def __init__(self, folder):
        super().__init__(folder)
        self.program = os.environ.get("BITCOIND") or subprocess.run(
            [ROOT / "contrib/bitcoind.sh"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()

    def choose_ports(self):
        self.rpc_port, self.zmq_port = free_port(), free_port()

    def command(self):
        zmq = f"tcp://127.0.0.1:{self.zmq_port}"
        return [
            self.program, "-regtest", f"-datadir={self.folder}", f"-rpcport={self.rpc_port}", "-printtoconsole=0",
            "-server=1", "-listen=0", "-dnsseed=0", "-connect=0", "-txindex=0", "-rest=1",
            "-fallbackfee=0.0001", "-acceptnonstdtxn=1", "-par=1", "-dbcache=16",
            f"-zmqpubhashblock={zmq}", f"-zmqpubsequence={zmq}",
        ]

    def is_up(self):
        try:
            return self.rpc("getmempoolinfo")["loaded"]
        except (OSError, ValueError, Refused, http.client.HTTPException):
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


class Ambra(Program):
    SCHEMES = ["tcp", "tls", "ws", "wss"]

    def __init__(self, node, folder):
        super().__init__(folder)
        self.node = node

    def choose_ports(self):
        self.ports = {scheme: free_port() for scheme in self.SCHEMES}

    def command(self):
        words = [
            os.environ.get("AMBRA") or str(ROOT / "target/release/ambra"),
            "--network", "regtest", "--daemon-dir", str(self.node.folder),
            "--daemon-rpc-url", f"http://127.0.0.1:{self.node.rpc_port}", "--db-dir", str(self.folder / "db"),
            # Several scenes may run at once.
            "--admin-listen", "off",
        ]
        for scheme, port in self.ports.items():
            words += ["--listen", f"{scheme}://127.0.0.1:{port}"]
        # Tests of others' own start it with settings of theirs.
        return words + os.environ.get("AMBRA_ARGUMENTS", "").split()

    def is_up(self):
        return self.said().count(b"listening on ") >= len(self.ports)

    def is_in_step(self):
        return b"in step with the node" in self.said()

    def certificate(self):
        return re.search(r"TLS certificate ([^,]+),", self.log.read_text()).group(1)

    def complaints(self):
        """What it logged as wrong."""
        lines = self.log.read_text(errors="replace").splitlines()
        lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
        lines = [line for line in lines if re.search(r"\b(WARN|ERROR)\b|panicked", line)]
        # Where the repository lies deep, the socket for `ambra address` has too long a name for the system: no fault of a life.
        return [line for line in lines if "SUN_LEN" not in line]


class Client:
    """The command of a life. Whatever it starts ends with it, daemons too."""

    def __init__(self, command, environment):
        self.mark = f"SCENE={environment['SCENE']}".encode()
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def wait(self, seconds):
        """Its exit code; None if it was not over by then."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def others(self):
        """What it left behind: processes with this scene in their environment. Nobody, where there is no /proc."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)
            except OSError:
                continue

    def stop(self):
        self.signal(signal.SIGTERM)
        try:
            wait("the client is gone", lambda: self.process.poll() is not None and not list(self.others()), GRACE_SECONDS)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def signal(self, how):
        targets = list(self.others())
        try:
            if self.process.poll() is None:
                os.killpg(self.process.pid, how)
            for target in targets:
                os.kill(target, how)
        except ProcessLookupError:
            pass
