"""The life of a wallet of bdkpython, kept in step by its ElectrumClient.

    bdk_life.py tcp|tls
"""

import sys
from importlib.metadata import version

import bdkpython as bdk
import stage
from patience import wait
from relay import Relay
from stage import do, step

SATS = 1_000_000
ADDRESSES = 60
STOP_GAP = 25
BATCH = 20
# Keys from BDK's own examples: nobody's.
KEY = "tprv8ZgxMBicQKsPdy6LMhUtFHAgpocR8GC6QmwMSFpZs7h6Eziw3SpThFfczTDh5rW2krkqffa11UpX3XkeTTB2FvzZKWXqPY54Y6Rq4AQ5R8L"
REGTEST = bdk.Network.REGTEST
EXTERNAL = bdk.KeychainKind.EXTERNAL


def new_wallet():
    kind = bdk.NetworkKind.TEST if hasattr(bdk, "NetworkKind") else REGTEST
    descriptors = [bdk.Descriptor(f"tr({KEY}/86'/1'/0'/{keychain}/*)", kind) for keychain in (0, 1)]
    return bdk.Wallet(*descriptors, REGTEST, bdk.Persister.new_in_memory())


def connect(transport):
    scheme, port = ("ssl", stage.TLS) if transport == "tls" else ("tcp", stage.TCP)
    # It checks a certificate by the web's authorities, or not at all.
    return bdk.ElectrumClient(f"{scheme}://{stage.HOST}:{port}", retry=0, validate_domain=False)


def agreed():
    """The protocol's version, which the library does not tell; seen on a connection in the clear."""
    relay = Relay(stage.TCP)
    bdk.ElectrumClient(f"tcp://{stage.HOST}:{relay.listener.getsockname()[1]}", retry=0)
    return wait("the versions", lambda: dict(relay.exchange()).get("server.version"))[1]


class Life:
    def __init__(self, transport):
        self.transport = transport
        self.client = None
        self.wallet = new_wallet()

    def sync(self):
        request = self.wallet.start_sync_with_revealed_spks().build()
        self.wallet.apply_update(self.client.sync(request, BATCH, False))

    def height_of(self, txid):
        """None if the wallet does not have it, 0 if it is unconfirmed."""
        found = self.wallet.get_tx(bdk.Txid.from_string(txid))
        if found is None:
            return None
        position = found.chain_position
        return position.confirmation_block_time.block_id.height if position.is_confirmed() else 0

    def sync_until(self, txid, height):
        """Syncs until the transaction is at this height and the tip is the node's."""

        def reached():
            self.sync()
            return str(self.wallet.latest_checkpoint().hash) == do("tip")["hash"] and self.height_of(txid) == height

        wait("the wallet has it", reached)

    def send(self, psbt):
        self.wallet.sign(psbt)
        transaction = psbt.extract_tx()
        txid = str(self.client.transaction_broadcast(transaction))
        if txid not in do("rpc", method="getrawmempool"):
            raise RuntimeError("the node does not have it")
        return txid

    def pay(self):
        address = str(self.wallet.reveal_next_address(EXTERNAL).address)
        return do("pay", address=address, sats=SATS)["txid"]


def same(found, expected, what):
    if found != expected:
        raise RuntimeError(f"{what}: {found}, not {expected}")


def main():
    life = Life(sys.argv[1])
    do("about", client="bdkpython", version=version("bdkpython"), transport=life.transport)

    # 0. Another copy of the wallet was used before.
    addresses = [str(info.address) for info in new_wallet().reveal_addresses_to(EXTERNAL, ADDRESSES - 1)]
    do("pay_many", addresses=addresses, sats=SATS)
    do("mine")
    total = ADDRESSES * SATS

    with step("connect") as words:
        life.client = connect(life.transport)
        features = life.client.server_features()
        tip = life.client.block_headers_subscribe()
        if tip.height < do("tip")["height"]:
            # Its pushes come out when something is read.
            wait("the last block", lambda: life.client.ping() or life.client.block_headers_pop())
        do("about", protocol=agreed())
        words.append(features.server_version)

    with step("restore") as words:
        def scanned():
            request = life.wallet.start_full_scan().build()
            life.wallet.apply_update(life.client.full_scan(request, STOP_GAP, BATCH, False))
            return life.wallet.balance().confirmed.to_sat() == total

        wait("all is found", scanned)
        same(life.wallet.derivation_index(EXTERNAL), ADDRESSES - 1, "the last used address")
        words.append(f"full scan of {ADDRESSES} used addresses")

    with step("sync"):
        life.sync()
        same(life.wallet.balance().total.to_sat(), total, "balance")

    with step("receive"):
        paid = life.pay()
        life.sync_until(paid, 0)
        same(life.wallet.balance().untrusted_pending.to_sat(), SATS, "pending")

    with step("receive a replaced one"):
        first, paid = paid, do("bump", txid=paid)["txid"]
        life.sync_until(paid, 0)
        same(life.height_of(first), None, "the first")
        same(life.wallet.balance().untrusted_pending.to_sat(), SATS, "pending")

    with step("confirm"):
        life.sync_until(paid, do("mine")["height"])
        same(life.wallet.balance().confirmed.to_sat(), total + SATS, "balance")

    with step("send"):
        to = bdk.Address(do("address"), REGTEST).script_pubkey()
        builder = bdk.TxBuilder().add_recipient(to, bdk.Amount.from_sat(5 * SATS))
        sent = life.send(builder.fee_rate(bdk.FeeRate.from_sat_per_vb(2)).finish(life.wallet))
        life.sync_until(sent, 0)

    with step("replace"):
        first = sent
        builder = bdk.BumpFeeTxBuilder(bdk.Txid.from_string(sent), bdk.FeeRate.from_sat_per_vb(20))
        sent = life.send(builder.finish(life.wallet))
        same(do("rpc", method="getrawmempool"), [sent], "the node's mempool")
        life.sync_until(sent, 0)
        same(life.height_of(first), None, "the first")

    with step("reorg"):
        life.sync_until(sent, do("mine")["height"])
        do("reorg")
        life.sync_until(sent, 0)
        life.sync_until(sent, do("mine")["height"])

    with step("restart"):
        do("restart")
        try:
            life.client.ping()
        except bdk.ElectrumError:
            pass
        else:
            raise RuntimeError("the old connection has not ended")
        life.client = connect(life.transport)
        paid = life.pay()
        life.sync_until(paid, 0)
        life.sync_until(paid, do("mine")["height"])


main()
