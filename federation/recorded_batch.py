"""A recorded batch version as the final ledger holds it, and what there is to sign of it.      (pure)

These laws are about the record: it is a version of an open lineage, its versions can't both confirm, its bytes are a
transaction of the one form that batches have, and each input is a coin of the ledger that this lineage alone locks.
"""

from functools import lru_cache

from bridge.batch_form import BATCH_VERSION, REPLACEABLE_SEQUENCE
from bridge.bitcoin.identifiers import OutPoint, Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction, TxIn
from bridge.custody import Custody
from bridge.errors import Rejected
from bridge.ledger import LedgerView
from bridge.state import BatchKind, BatchVersion, Coin, Lineage
from federation.refusal import RefusalReason, SigningRefused
from federation.signing_plan import SigningPlan, plan_signing


def recorded_version(view: LedgerView, txid: Txid) -> tuple[Lineage, BatchVersion]:
    """The open lineage that holds version `txid`, and the version.

    Raises SigningRefused: NOT_RECORDED, LINEAGE_CLOSED, UNKNOWN_KIND.
    """
    number = view.versions.get(txid)
    if number is None:
        raise SigningRefused(RefusalReason.NOT_RECORDED, hash_to_hex(txid))
    lineage = view.open_lineages.get(number)
    if lineage is None or lineage.settled_by is not None:
        raise SigningRefused(RefusalReason.LINEAGE_CLOSED, f"lineage {number}")
    if lineage.kind not in (BatchKind.PAYOUT, BatchKind.MAINTENANCE):
        raise SigningRefused(RefusalReason.UNKNOWN_KIND, f"lineage {number}")
    for version in lineage.versions:
        if version.txid == txid:
            return lineage, version
    raise SigningRefused(RefusalReason.NOT_RECORDED, f"{hash_to_hex(txid)} in lineage {number}")


def plan_version(view: LedgerView, lineage: Lineage, version: BatchVersion, custody: Custody) -> SigningPlan:
    """What there is to sign of a recorded version; a member that refuses to sign may still collect for others.

    Raises SigningRefused: MALFORMED_TRANSACTION, WRONG_TXID, WRONG_FORM, REPEATED_INPUT, INPUT_*, NO_RESERVE_SCRIPT.
    """
    transaction = _parsed(version.transaction)
    if transaction.txid != version.txid:
        raise SigningRefused(
            RefusalReason.WRONG_TXID, f"{hash_to_hex(transaction.txid)}, recorded as {hash_to_hex(version.txid)}"
        )
    if _unsigned(transaction).serialize() != version.transaction:
        raise SigningRefused(RefusalReason.WRONG_FORM, "not of the one form that batches have")
    coins = _locked_coins(view, lineage, transaction)
    try:
        return plan_signing(transaction, coins, custody)
    except Rejected as error:
        raise SigningRefused(RefusalReason.NO_RESERVE_SCRIPT, str(error)) from error


def require_supersets(lineage: Lineage) -> None:
    """Any two versions conflict on L1. Sharing some input is not enough: {a, b}, {a, c} and {c, d} pay twice.

    Raises SigningRefused: NO_SUPERSET, MALFORMED_TRANSACTION.
    """
    spent: frozenset[OutPoint] = frozenset()
    for version in lineage.versions:
        inputs = spends(version.transaction)
        if not spent <= inputs:
            raise SigningRefused(RefusalReason.NO_SUPERSET, f"{hash_to_hex(version.txid)} of lineage {lineage.number}")
        spent = inputs


@lru_cache(maxsize=128)
def spends(transaction: bytes) -> frozenset[OutPoint]:
    """What a recorded transaction spends. Kept by all of its bytes: every version is looked at for each that is signed.

    Raises SigningRefused: MALFORMED_TRANSACTION.
    """
    return frozenset(txin.outpoint for txin in _parsed(transaction).inputs)


def _parsed(transaction: bytes) -> Transaction:
    try:
        return Transaction.parse_stripped(transaction)
    except Rejected as error:
        raise SigningRefused(RefusalReason.MALFORMED_TRANSACTION, str(error)) from error


def _unsigned(transaction: Transaction) -> Transaction:
    """A batch with the inputs' outpoints and the outputs of `transaction`: nothing else of it is free."""
    inputs = tuple(TxIn(txin.outpoint, b"", REPLACEABLE_SEQUENCE) for txin in transaction.inputs)
    return Transaction(BATCH_VERSION, inputs, transaction.outputs, 0)


def _locked_coins(view: LedgerView, lineage: Lineage, transaction: Transaction) -> list[Coin]:
    """The coins that `transaction` spends, in its order, each locked by `lineage` and no other."""
    outpoints = [txin.outpoint for txin in transaction.inputs]
    if len(set(outpoints)) != len(outpoints):
        raise SigningRefused(RefusalReason.REPEATED_INPUT)
    elsewhere = {
        outpoint: number
        for number, other in view.open_lineages.items()
        if number != lineage.number
        for outpoint in other.inputs
    }
    coins = []
    for outpoint in outpoints:
        if outpoint not in lineage.inputs:
            raise SigningRefused(RefusalReason.INPUT_NOT_IN_LINEAGE, str(outpoint))
        coin = view.coins.get(outpoint)
        if coin is None:
            raise SigningRefused(RefusalReason.INPUT_NOT_A_COIN, str(outpoint))
        if coin.lineage is None:
            raise SigningRefused(RefusalReason.INPUT_NOT_LOCKED, str(outpoint))
        other = coin.lineage if coin.lineage != lineage.number else elsewhere.get(outpoint)
        if other is not None:
            raise SigningRefused(RefusalReason.INPUT_LOCKED_ELSEWHERE, f"{outpoint} by lineage {other}")
        coins.append(coin)
    return coins
