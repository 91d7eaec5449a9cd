"""Thieves: who holds custody keys of a quorum, and spends the reserve's coins without the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import Custody, quorum_witness
from bridge.state import Coin
from federation.signing_plan import plan_signing


def stolen(
    coins: Sequence[Coin], custody: Custody, keys: Mapping[int, bytes], script: Script, fee_sats: int = 10_000
) -> Transaction:
    """A transaction that every Bitcoin node takes. keys: custody secrets by member, exactly a quorum of them."""
    value_sats = sum(coin.value_sats for coin in coins) - fee_sats
    inputs = tuple(TxIn(coin.outpoint, sequence=0xFFFFFFFD) for coin in coins)
    plan = plan_signing(Transaction(2, inputs, (TxOut(value_sats, script),)), coins, custody)
    witnesses = [
        quorum_witness(
            planned.reserve,
            [
                schnorr_sign(keys[index], planned.digest32, bytes(32)) if index in keys else None
                for index in range(len(planned.reserve.policy.member_keys))
            ],
        )
        for planned in plan.inputs
    ]
    signed = tuple(replace(txin, witness=witness) for txin, witness in zip(inputs, witnesses, strict=True))
    return replace(plan.transaction, inputs=signed)
