"""Users' coins on the sidechain, each spent over and over, a part of it burned now and then.

A payment is offered to one member after another until one of them calls it final; only then is the next one made from
its change. So what a killed member forgot is offered again, and what was ever called final is written down.
"""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final

from bridge.bitcoin.addresses import encode_address
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid, hash_from_hex, hash_to_hex
from bridge.bitcoin.script import ScriptType
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.withdrawals import Burn, encode_burn
from pegnode.rpc.client import RpcClient, RpcRefused
from pegnode.rpc.results import DepositReply
from tests.support.federation import SIDECHAIN
from tests.support.mini_wallet import Coin, MiniWallet

BURN_SATS: Final = 20_000
MAX_L1_FEE_SATS: Final = 8_000
FEE_SATS: Final = 500
BURN_SHARE: Final = 0.08
"""Of the payments, those that also burn."""
LEAST_SATS: Final = 100_000
"""A purse with less is not paid from any more."""
OFFER_AGAIN_S: Final = 4.0
L1_SCRIPT: Final = Script(b"\x00\x14" + bytes(19) + b"\x01")


@dataclass(slots=True)
class Record:
    """What users know to have happened. final: txids of what some member has called final, in that order."""

    final: list[Txid] = field(default_factory=list)
    burns: list[OutPoint] = field(default_factory=list)


class Purse:
    """One coin, from the deposit that it comes from to the last payment. name: makes its key."""

    def __init__(self, name: str, random: Random, l1_genesis_hash: BlockHash, claim_fee_sats: int) -> None:
        self._wallet = MiniWallet(name)
        self._random = random
        self._l1_genesis_hash = l1_genesis_hash
        self._claim_fee_sats = claim_fee_sats
        self._script = self._wallet.script(random.choice(list(ScriptType)))
        self._coin: Coin | None = None
        self._waiting: Transaction | None = None
        self._offered_s = 0.0
        self.claim_address = encode_address(self._script, SIDECHAIN)

    @property
    def is_filled(self) -> bool:
        """Whether its deposit was claimed."""
        return self._coin is not None

    @property
    def is_spent(self) -> bool:
        """Whether so little is left that nothing more is paid from it."""
        return self._coin is not None and self._waiting is None and self._coin[1].value_sats < LEAST_SATS

    def take_turn(self, client: RpcClient, record: Record) -> None:
        """Go one step on through one member. Raises RpcClientError when that member does not answer."""
        if self._coin is None:
            self._look_for_claim(client, record)
        elif self.is_spent:
            return
        elif self._waiting is None:
            self._waiting = self._next_payment(self._coin)
            self._offer(client, self._waiting)
        elif is_final(client, self._waiting.txid):
            self._note_final(self._waiting, record)
        elif time.monotonic() > self._offered_s + OFFER_AGAIN_S:
            self._offer(client, self._waiting)

    def _look_for_claim(self, client: RpcClient, record: Record) -> None:
        for deposit in client.ask(list[DepositReply], "listdeposits", [self.claim_address]):
            if deposit.status == "claimed" and deposit.claim_txid is not None:
                txid = Txid(hash_from_hex(deposit.claim_txid))
                credited_sats = deposit.value_sats - self._claim_fee_sats
                self._coin = (OutPoint(txid, 0), TxOut(credited_sats, self._script))
                record.final.append(txid)
                return

    def _next_payment(self, coin: Coin) -> Transaction:
        outpoint, output = coin
        rest_sats = output.value_sats - FEE_SATS
        outputs = []
        if self._random.random() < BURN_SHARE:
            burn = Burn(L1_SCRIPT, MAX_L1_FEE_SATS, self._script)
            outputs.append(TxOut(BURN_SATS, encode_burn(self._l1_genesis_hash, burn)))
            rest_sats -= BURN_SATS
        return self._wallet.spend([(outpoint, output)], [TxOut(rest_sats, self._script), *outputs])

    def _offer(self, client: RpcClient, payment: Transaction) -> None:
        self._offered_s = time.monotonic()
        with suppress(RpcRefused):  # final meanwhile, or this member has yet to catch up with what it spends
            client.call("sendrawtransaction", payment.serialize().hex())

    def _note_final(self, payment: Transaction, record: Record) -> None:
        record.final.append(payment.txid)
        record.burns.extend(payment.outpoint(vout) for vout in range(1, len(payment.outputs)))
        self._coin, self._waiting = (payment.outpoint(0), payment.outputs[0]), None


def is_final(client: RpcClient, txid: Txid) -> bool:
    """Whether a member has a transaction in a final block. Raises RpcClientError when it does not answer."""
    try:
        return "confirmations" in client.call("getrawtransaction", hash_to_hex(txid), 1)
    except RpcRefused:
        return False
