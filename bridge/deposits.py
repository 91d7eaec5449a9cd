"""Deposits: from evidence of an L1 transaction to coins of the reserve and the claims that they give rise to.

Nobody writes a claim. Each node derives it from the deposit, so a deposit fixes the txid of its claim, and no key is
needed to credit it: the reserve script that was paid binds the claim script.

What enters must be the reserve's for good, and the recovery keys can spend an output that has lain still for long. So
none enters that members would have to move at once: each has the same time left as a coin that has been there for long,
however late and in whatever numbers it is claimed. Only the holders of the recovery keys can give back what is too old.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.script import classify
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind, Custody, reserve_script
from bridge.errors import Rejected
from bridge.evidence import Evidence, EvidenceReason, L1BlockFact, Opening, check_inclusion
from bridge.ledger import Ledger, LedgerView, enter_coin, enter_donation, may_enter
from bridge.lineages import settle
from bridge.losses import restore_coin
from bridge.params import PegParams
from bridge.state import Coin

CLAIM_FLAG = 1 << 30
"""Set in the index of a claim's input, which names an L1 output: no transaction of either chain can spend it again."""
REFUND_FLAG = 1 << 29
"""Set in the index of a refund's input, which names a burn."""
DERIVED_VERSION = 2


@dataclass(frozen=True, slots=True)
class ReserveTerms:
    """What a reserve script stands for. claim_script: empty unless the kind is DEPOSIT."""

    kind: CoinKind
    epoch: int
    claim_script: bytes


def claim_transaction(outpoint: OutPoint, value_sats: int, claim_script: Script, params: PegParams) -> Transaction:
    """The transaction that credits a deposit of `value_sats` at L1's `outpoint`, less the claim fee."""
    claimed = TxIn(OutPoint(outpoint.txid, outpoint.vout | CLAIM_FLAG))
    credited = TxOut(value_sats - params.claim_fee_sats, claim_script)
    return Transaction(DERIVED_VERSION, (claimed,), (credited,))


def find_openings(transaction: Transaction, candidates: Mapping[Script, ReserveTerms]) -> tuple[Opening, ...]:
    """Openings of the outputs that pay one of the `candidates`, in order."""
    return tuple(
        Opening(vout, terms.kind, terms.epoch, terms.claim_script)
        for vout, output in enumerate(transaction.outputs)
        if (terms := candidates.get(output.script)) is not None
    )


def build_evidence(transaction: Transaction, proof: bytes, l1_height: int, openings: tuple[Opening, ...]) -> Evidence:
    """Evidence of an L1 transaction. proof: what its node gives for it; openings: in any order."""
    ordered = tuple(sorted(openings, key=lambda opening: opening.vout))
    return Evidence(transaction.serialize_stripped(), proof, l1_height, ordered)


def is_too_old(l1_height: int, anchor_height: int, params: PegParams) -> bool:
    """Whether an output of L1's block at `l1_height` is past the age at which coins are refreshed, at this anchor."""
    return 2 * (anchor_height - l1_height) >= params.recovery_timelock_blocks


def may_still_enter(
    view: LedgerView, outpoint: OutPoint, l1_height: int, anchor_height: int, params: PegParams
) -> bool:
    """Whether a block with this anchor on top of `view` may open an output of L1's block at `l1_height`.

    A coin that a record booked as lost may return at any age: it is owed to whoever was credited.
    """
    in_time = outpoint in view.lost or not is_too_old(l1_height, anchor_height, params)
    return in_time and may_enter(view, outpoint)


def apply_evidence(
    ledger: Ledger, evidence: Evidence, fact: L1BlockFact, custody: Custody, params: PegParams
) -> tuple[Transaction, ...]:
    """Enter what the evidence shows, and return the claims derived from it, in the order of its openings.

    Evidence of a recorded batch version settles it, and has no openings. Once its lineage is closed, its outputs may be
    opened as those of any transaction: somebody may withdraw to another's deposit address, and a version that did not
    settle its lineage may be confirmed after all, on another branch of L1. Change that entered is not new, and change
    of such a version is a donation.
    A coin that a record booked as lost enters again by the same opening, once and at any age, and nothing is claimed
    for it again.
    fact: of the block in the proof, from our own Bitcoin node. Either all openings enter, or none.
    Raises Rejected: EvidenceReason, CustodyReason.UNKNOWN_EPOCH, or LedgerReason.ALREADY_SETTLED.
    """
    transaction = _require_mature(ledger, evidence, fact, params)
    if not evidence.openings and transaction.txid in ledger.versions:
        settle(ledger, transaction.txid, evidence.l1_height)
        return ()
    _require_openings(ledger, evidence, transaction.txid)
    with ledger.atomic() as trial:
        claims = [
            _enter(trial, transaction, opening, evidence.l1_height, custody, params) for opening in evidence.openings
        ]
    return tuple(claim for claim in claims if claim is not None)


def _require_mature(ledger: LedgerView, evidence: Evidence, fact: L1BlockFact, params: PegParams) -> Transaction:
    """The transaction, small enough, held by its block, and deep enough for one of its kind."""
    anchor_height = ledger.totals.anchor.height
    if evidence.l1_height > anchor_height:
        raise Rejected(EvidenceReason.ABOVE_ANCHOR, f"height {evidence.l1_height} with the anchor at {anchor_height}")
    if len(evidence.transaction) > params.max_evidence_transaction_bytes:
        raise Rejected(EvidenceReason.TRANSACTION_TOO_LARGE, f"{len(evidence.transaction)} bytes")
    transaction = check_inclusion(evidence, fact)
    # The anchor itself is this deep on every member's node.
    depth = anchor_height - evidence.l1_height + params.confirmations
    if transaction.is_coinbase and depth < params.coinbase_confirmations:
        raise Rejected(EvidenceReason.IMMATURE_COINBASE, f"{depth} of {params.coinbase_confirmations} confirmations")
    return transaction


def _require_openings(ledger: LedgerView, evidence: Evidence, txid: Txid) -> None:
    if not evidence.openings:
        raise Rejected(EvidenceReason.NO_OPENINGS, "only a recorded batch has nothing to open")
    indexes = [opening.vout for opening in evidence.openings]
    if any(index >= later for index, later in pairwise(indexes)):
        raise Rejected(EvidenceReason.OPENINGS_UNSORTED, str(indexes))
    number = ledger.versions.get(txid)
    if number is not None and number in ledger.open_lineages:
        raise Rejected(EvidenceReason.CHANGE_CLAIMED, f"a version of lineage {number}, which is open")


def _enter(
    trial: Ledger, transaction: Transaction, opening: Opening, l1_height: int, custody: Custody, params: PegParams
) -> Transaction | None:
    """Enter one output; its claim, unless it goes to the fund or was claimed before it was lost."""
    output = _opened_output(transaction, opening, custody)
    outpoint = transaction.outpoint(opening.vout)
    if output.value_sats < params.coin_floor_sats:
        raise Rejected(EvidenceReason.BELOW_FLOOR, f"{output.value_sats} sats, at least {params.coin_floor_sats}")
    if not may_enter(trial, outpoint):
        raise Rejected(EvidenceReason.ALREADY_ENTERED, str(outpoint))
    anchor_height = trial.totals.anchor.height
    if not may_still_enter(trial, outpoint, l1_height, anchor_height, params):
        raise Rejected(EvidenceReason.TOO_OLD, f"{outpoint}, {anchor_height - l1_height} blocks below the anchor")
    if trial.totals.reserves_sats + output.value_sats > params.max_peg_sats:
        raise Rejected(EvidenceReason.OVER_CAP, f"reserves of at most {params.max_peg_sats} sats")
    if outpoint in trial.lost:
        restore_coin(trial, outpoint, l1_height)
        return None
    coin = Coin(outpoint, output.value_sats, opening.kind, opening.epoch, opening.claim_script, l1_height)
    if opening.kind is not CoinKind.DEPOSIT or output.value_sats < params.min_deposit_sats:
        enter_donation(trial, coin)
        return None
    enter_coin(trial, coin, params.claim_fee_sats)
    return claim_transaction(outpoint, output.value_sats, Script(opening.claim_script), params)


def _opened_output(transaction: Transaction, opening: Opening, custody: Custody) -> TxOut:
    """The output that the opening names, which pays the script that it describes."""
    if opening.vout >= len(transaction.outputs):
        raise Rejected(EvidenceReason.NO_SUCH_OUTPUT, f"output {opening.vout} of {len(transaction.outputs)}")
    is_deposit, claim_script = opening.kind is CoinKind.DEPOSIT, opening.claim_script
    if (is_deposit and classify(claim_script) is None) or (claim_script and not is_deposit):
        raise Rejected(EvidenceReason.CLAIM_SCRIPT_TYPE, f"{claim_script.hex()} for a {opening.kind.name}")
    output = transaction.outputs[opening.vout]
    if reserve_script(custody.policy(opening.epoch), opening.kind, claim_script).script != output.script:
        raise Rejected(EvidenceReason.WRONG_SCRIPT, f"output {opening.vout}")
    return output
