"""lwk is a wallet of Liquid: of a Bitcoin chain it can read nothing, not even a header. What is seen here is how far it
comes: it connects, agrees on a version and asks for the tip; it is told the node's; it cannot read that and gives up.
"""

import json
import socket
from importlib.metadata import version

import lwk
import stage
from patience import wait
from relay import Relay
from stage import do, not_offered, step


def mine_until_nonce(wanted):
    """A Bitcoin header whose nonce is 2 happens to be a whole header of Liquid's: its last four bytes are read as
    two lengths. With another nonce bytes are left over."""
    while True:
        tip = do("tip")
        if wanted(do("rpc", method="getblockheader", params=[tip["hash"]])["nonce"]):
            return tip
        do("mine")


def give_up(port, tls):
    """lwk's own words."""
    try:
        # With TLS it wants a name.
        lwk.ElectrumClient(f"localhost:{port}", tls, False)
    except lwk.LwkError as error:
        return str(error)
    raise RuntimeError("it takes a Bitcoin header for one of Liquid's")


def tip_of_ambra():
    with socket.create_connection((stage.HOST, stage.TCP)) as client:
        client.sendall(b'{"id":0,"method":"blockchain.headers.subscribe"}\n')
        return json.loads(client.makefile().readline())["result"]["height"]


def main():
    do("about", client="lwk", version=version("lwk"), transport="tcp")
    with step("connect") as words:
        tip = mine_until_nonce(lambda nonce: nonce == 0)
        # Ambra hears of it a moment later, and lwk asks once.
        wait("the tip", lambda: tip_of_ambra() == tip["height"])
        relay = Relay(stage.TCP)
        told = give_up(relay.listener.getsockname()[1], False)
        if "ElementsEncode" not in told:
            raise RuntimeError(told)
        exchange = wait("the exchange", lambda: len(found := relay.exchange()) >= 2 and found)
        answers = dict(exchange)
        do("about", protocol=answers["server.version"][1])
        if answers["blockchain.headers.subscribe"]["height"] != tip["height"]:
            raise RuntimeError(f"told {answers}, not {tip}")
        words.append("it said " + ", ".join(method for method, _ in exchange))
        words.append(f"was told Bitcoin's tip, and gave up: {told}")
    why = "it reads the tip as a header of Liquid's when it connects; no further on a Bitcoin chain"
    for name in ["restore", "sync", "receive", "confirm", "send", "replace", "reorg", "restart"]:
        not_offered(name, why)
    told = give_up(stage.TLS, True)
    with step("ping"):
        tip = mine_until_nonce(lambda nonce: nonce == 2)
        wait("the tip", lambda: tip_of_ambra() == tip["height"])
        client = lwk.ElectrumClient(f"localhost:{stage.TCP}", False, False)
        client.ping()
    not_offered("TLS", f"a certificate of our own, with validate_domain=False: {told}")


main()
