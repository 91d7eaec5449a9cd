"""Transfers for tests of whole federations: a wallet that pays itself, over members of one's choice."""

import time
from dataclasses import dataclass

from bridge.bitcoin.addresses import encode_address
from bridge.bitcoin.identifiers import hash_to_hex
from bridge.bitcoin.script import ScriptType
from bridge.bitcoin.transaction import Transaction, TxOut
from tests.support.federation import CONFIRMATIONS, SIDECHAIN, FederationUnderTest
from tests.support.mini_wallet import Coin, MiniWallet, coins_of

SMALL_SATS = 1_000
FEE_SATS_PER_OUTPUT = 200
"""An output of this wallet has 43 bytes, its input 58 virtual bytes."""
POLL_S = 0.01


@dataclass
class Traffic:
    """The wallet. coin: the newest of it, which the next transfer spends."""

    federation: FederationUnderTest
    wallet: MiniWallet
    coin: Coin

    @classmethod
    def start(cls, federation: FederationUnderTest, value_sats: int = 100_000_000) -> "Traffic":
        """Deposit so much, and wait until it is claimed."""
        wallet = MiniWallet("traffic")
        address = encode_address(wallet.script(ScriptType.P2TR), SIDECHAIN)
        federation.pay({federation.deposit_address(address): value_sats})
        federation.mine(CONFIRMATIONS)
        [claimed] = federation.await_claimed([address], 1)
        with federation.client() as client:
            claim = Transaction.parse(bytes.fromhex(client.ask(str, "getrawtransaction", claimed.claim_txid)))
        return cls(federation, wallet, coins_of(claim)[0])

    def submit(self, name: str, outputs: int = 1) -> str:
        """A transfer through a member, to so many outputs, the last of which is spent next; its txid."""
        script = self.wallet.script(ScriptType.P2TR)
        rest_sats = self.coin[1].value_sats - outputs * (SMALL_SATS + FEE_SATS_PER_OUTPUT)
        paid = [TxOut(SMALL_SATS, script)] * (outputs - 1) + [TxOut(rest_sats, script)]
        transfer = self.wallet.spend([self.coin], paid)
        with self.federation.client(name) as client:
            client.ask(str, "sendrawtransaction", transfer.serialize().hex())
        self.coin = coins_of(transfer)[-1]
        return hash_to_hex(transfer.txid)

    def seconds_to_finality(self, name: str) -> float:
        """Of one transfer, as the member sees it that took it."""
        began = time.monotonic()
        txid_hex = self.submit(name)
        with self.federation.client(name) as client:
            while "confirmations" not in client.call("getrawtransaction", txid_hex, 1):
                time.sleep(POLL_S)
        return time.monotonic() - began
