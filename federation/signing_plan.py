"""What there is to sign of one unsigned L1 transaction that spends reserve coins.      (pure)"""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.bitcoin.taproot import script_path_sighash
from bridge.bitcoin.transaction import WITNESS_SCALE_FACTOR, Transaction, TxOut
from bridge.custody import Custody, ReserveScript, quorum_input_weight, reserve_script
from bridge.state import Coin

UNSIGNED_INPUT_SIZE = 32 + 4 + 1 + 4
"""Bytes of an input without witness: outpoint, length of an empty script, sequence."""
SEGWIT_MARKER_WEIGHT = 2
"""Weight units of the marker and flag of a transaction with witnesses. Source: BIP144."""


@dataclass(frozen=True, slots=True)
class PlannedInput:
    """One input. prevout: the reserve coin's value and script.  reserve: whose keys open it, and how.

    digest32: what each member signs, 32 bytes: BIP341's script-path hash on the quorum leaf, SIGHASH_DEFAULT.
    """

    outpoint: OutPoint
    prevout: TxOut
    reserve: ReserveScript
    digest32: bytes


@dataclass(frozen=True, slots=True)
class SigningPlan:
    """An unsigned transaction and, in its order, its inputs."""

    transaction: Transaction
    inputs: tuple[PlannedInput, ...]

    @property
    def txid(self) -> Txid:
        """The transaction's id, 32 bytes: signatures don't change it."""
        return self.transaction.txid

    @property
    def prevouts(self) -> tuple[TxOut, ...]:
        """What the inputs spend, in input order."""
        return tuple(planned.prevout for planned in self.inputs)

    @property
    def signed_vsize_vbytes(self) -> int:
        """Virtual bytes of the transaction once each input has its quorum: known before anyone has signed."""
        unsigned_inputs = len(self.inputs) * UNSIGNED_INPUT_SIZE
        weight = (self.transaction.stripped_size - unsigned_inputs) * WITNESS_SCALE_FACTOR + SEGWIT_MARKER_WEIGHT
        weight += sum(quorum_input_weight(planned.reserve.policy) for planned in self.inputs)
        return -(-weight // WITNESS_SCALE_FACTOR)


def plan_signing(transaction: Transaction, coins: Sequence[Coin], custody: Custody) -> SigningPlan:
    """The plan of `transaction`, whose inputs spend `coins`, one each and in the same order.

    Raises bridge's Rejected when a coin has no reserve script: its epoch is unknown.
    """
    reserves = [reserve_script(custody.policy(coin.epoch), coin.kind, coin.claim_script) for coin in coins]
    prevouts = [TxOut(coin.value_sats, reserve.script) for coin, reserve in zip(coins, reserves, strict=True)]
    return SigningPlan(
        transaction,
        tuple(
            PlannedInput(
                outpoint=coin.outpoint,
                prevout=prevouts[index],
                reserve=reserves[index],
                digest32=script_path_sighash(transaction, index, prevouts, reserves[index].quorum_leaf_hash),
            )
            for index, coin in enumerate(coins)
        ),
    )
