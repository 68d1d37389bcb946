"""To hear what a client and Ambra say to each other, for clients that do not tell."""

import json
import socket
import threading

from stage import HOST


class Relay:
    """Stands between a client and Ambra, and notes what both say."""

    def __init__(self, port):
        self.port = port
        self.said = {"client": b"", "server": b""}
        self.listener = socket.create_server((HOST, 0))
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection((HOST, self.port))
            for name, one, other in [("client", client, server), ("server", server, client)]:
                threading.Thread(target=self.pump, args=(name, one, other), daemon=True).start()

    def pump(self, name, one, other):
        while data := one.recv(65536):
            self.said[name] += data
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)

    def exchange(self):
        """(method, result) of each request."""
        requests = {m["id"]: m["method"] for m in self.messages("client")}
        replies = (m for m in self.messages("server") if "id" in m)
        return [(requests[m["id"]], m.get("result", m.get("error"))) for m in replies]

    def messages(self, who):
        """Whole lines only."""
        lines, _, _ = self.said[who].rpartition(b"\n")
        return [json.loads(line) for line in lines.splitlines()]
