"""Invalid blocks of every kind that the rules know, made from a valid one, each with the reason to refuse it.

A block whose header says something false is otherwise whole; where the body is false the header commits to it.
"""

from collections.abc import Mapping
from dataclasses import replace

from bridge.batch import Batch, any_batch_due
from bridge.batch_form import BatchReason
from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptReason
from bridge.bitcoin.transaction import Transaction, TransactionReason, TxIn, TxOut
from bridge.custody import CoinKind, CustodyReason
from bridge.errors import Reason
from bridge.evidence import Evidence, EvidenceReason, Opening
from bridge.ledger import ledger_root
from bridge.lineages import open_lineage
from bridge.records import Finding, Record, RecordReason, Resume
from bridge.refunds import refund_transaction
from bridge.state import Anchor, BatchKind, LedgerReason, WithdrawalStatus
from bridge.withdrawals import BurnReason
from federation.endorsement import EndorsementReason, Signatures
from federation.record import SignedRecord
from pegnode.chain.block import Block
from pegnode.chain.transactions import TransactionRule
from pegnode.chain.verdicts import BodyReason, HeaderReason
from tests.sim.bad_evidence import EVIDENCE_KINDS
from tests.sim.bad_scene import BadKind, Maker, Scene
from tests.sim.bad_transactions import TRANSACTION_KINDS

__all__ = ["JUDGING_REASONS", "KINDS", "BadKind", "Scene"]

NOBODY = Script(b"\x00\x14" + b"\x66" * 20)
_FAKE_EVIDENCE = Evidence(b"\x00", bytes(90), 1, ())
_FAKE_HASH = BlockHash(sha256(b"no block"))


# Headers


def _header(**changes: object) -> Maker:
    return lambda scene: scene.with_header(**changes)


def _shifted(field: str, by: int) -> Maker:
    return lambda scene: scene.with_header(**{field: getattr(scene.block.header, field) + by})


def _past_view(scene: Scene) -> Block:
    view = scene.parent.tip.header.view
    return scene.with_header(view=view, leader=scene.rules.membership.leader(view))


def _same_time(scene: Scene) -> Block:
    return scene.with_header(time_ms=scene.parent.tip.header.time_ms)


def _anchor(scene: Scene, anchor: Anchor) -> Block:
    """An empty block with this anchor, whose ledger is right but for that."""
    totals = replace(scene.parent.ledger.totals, anchor=anchor)

    class Moved:
        """The parent's ledger at another anchor."""

        def __getattr__(self, name: str) -> object:
            return totals if name == "totals" else getattr(scene.parent.ledger, name)

    root = ledger_root(Moved())  # type: ignore[arg-type]
    block = scene.with_only(refunds=())
    return Block(replace(block.header, anchor=anchor, ledger_root=root), block.body)


def _anchor_backwards(scene: Scene) -> Block | None:
    height = scene.parent.tip.header.anchor.height - 1
    return _anchor(scene, scene.l1.anchor(height)) if height >= 0 else None


def _anchor_changed(scene: Scene) -> Block:
    return _anchor(scene, Anchor(scene.parent.tip.header.anchor.height, _FAKE_HASH))


def _anchor_far(scene: Scene) -> Block:
    step = scene.rules.params.max_anchor_step + 1
    return _anchor(scene, Anchor(scene.parent.tip.header.anchor.height + step, _FAKE_HASH))


def _anchor_elsewhere(scene: Scene) -> Block | None:
    """A true L1 block, at a height that is not its own."""
    height = scene.parent.tip.header.anchor.height + 2
    return _anchor(scene, Anchor(height - 1, scene.l1.blocks[height].hash)) if height <= scene.l1.height else None


def _stale_root(scene: Scene) -> Block | None:
    """The ledger before the block, if that changes it."""
    root = scene.parent.tip.header.ledger_root
    return scene.with_header(ledger_root=root) if root != scene.block.header.ledger_root else None


# The form of bodies


def _other_body(scene: Scene) -> Block:
    body = replace(scene.block.body, transactions=(*scene.block.body.transactions, b"\x00" * 60))
    return Block(scene.block.header, body)


def _large(scene: Scene) -> Block:
    count = scene.rules.chain.max_body_bytes // 400_000 + 1
    return scene.with_only(transactions=(bytes(400_000),) * count)


def _much_evidence(scene: Scene) -> Block:
    half = scene.rules.params.max_evidence_bytes // 2 + 1
    return scene.with_only(evidence=(Evidence(bytes(half), bytes(90), 1, ()), Evidence(bytes(half), bytes(90), 2, ())))


def _many_openings(scene: Scene) -> Block:
    openings = tuple(Opening(vout, CoinKind.DONATION, 0, b"") for vout in range(scene.rules.params.max_openings + 1))
    return scene.with_only(evidence=(replace(_FAKE_EVIDENCE, openings=openings),))


def _unordered(scene: Scene) -> Block:
    own = scene.block.body.evidence
    return scene.with_only(evidence=tuple(reversed(own)) if len(own) > 1 else (own or (_FAKE_EVIDENCE,)) * 2)


def _batch(transaction: bytes = b"\x00", **changes: object) -> Batch:
    batch = Batch(BatchKind.PAYOUT, None, 2_000, transaction)
    return replace(batch, **changes)  # type: ignore[arg-type]


# Records


def _resume(scene: Scene) -> Record:
    finding = Finding.anchor_left(scene.rules.genesis_header.anchor)
    serial = scene.parent.ledger.totals.record_serial + 1
    return Record(scene.rules.chain_id, scene.rules.membership.epoch, serial, 1_000_000, Resume.of((finding,)))


def _record(signers: str) -> Maker:
    """A record that the evil alone signed, in one way or another."""

    def make(scene: Scene) -> Block:
        record, quorum = _resume(scene), scene.rules.membership.quorum
        own = tuple(
            (index, schnorr_sign(secret, record.digest32, bytes(32))) for index, secret in sorted(scene.secrets.items())
        )
        forged: Mapping[str, Signatures] = {
            "none": (),
            "few": own,
            "repeated": own[:1] * quorum,
            "unsorted": tuple((quorum - position, bytes(64)) for position in range(quorum)),
            "unknown": tuple((scene.rules.membership.size + position, bytes(64)) for position in range(quorum)),
            "forged": tuple((index, own[0][1]) for index in range(quorum)),
        }
        return scene.with_only(records=(SignedRecord(record, forged[signers]),))

    return make


def _foreign_record(**changes: object) -> Maker:
    def make(scene: Scene) -> Block:
        record = replace(_resume(scene), **changes)  # type: ignore[arg-type]
        return scene.with_only(records=(SignedRecord(record, ()),))

    return make


# Refunds


def _no_refund(scene: Scene) -> Block | None:
    refunds = scene.block.body.refunds
    return scene.with_body(refunds=refunds[:-1]) if refunds else None


def _early_refund(scene: Scene) -> Block | None:
    """Of a burn that has not expired."""
    for _, withdrawal in scene.parent.ledger.open_withdrawals.items():
        refund = refund_transaction(withdrawal, scene.rules.params).serialize()
        if withdrawal.status is WithdrawalStatus.PENDING and refund not in scene.block.body.refunds:
            return scene.with_body(refunds=(*scene.block.body.refunds, refund))
    return None


def _made_up_refund(scene: Scene) -> Block:
    refund = Transaction(2, (TxIn(OutPoint(Txid(_FAKE_HASH), 1 << 29)),), (TxOut(100_000, NOBODY),))
    return scene.with_body(refunds=(*scene.block.body.refunds, refund.serialize()))


def _reordered_refunds(scene: Scene) -> Block | None:
    refunds = scene.block.body.refunds
    return scene.with_body(refunds=tuple(reversed(refunds))) if len(refunds) > 1 else None


def _redirected_refund(scene: Scene) -> Block | None:
    """The refund goes to somebody else."""
    if not scene.block.body.refunds:
        return None
    [first, *rest] = scene.block.body.refunds
    refund = Transaction.parse(first)
    other = replace(refund, outputs=(replace(refund.outputs[0], script=NOBODY),))
    return scene.with_body(refunds=(other.serialize(), *rest))


# Batches


def _only_batch(batch: Batch) -> Maker:
    return lambda scene: scene.with_only(batches=(batch,))


def _early_batch(scene: Scene) -> Block | None:
    """While nothing asks for one; a block of its parent's anchor, so that no age is another."""
    ledger = scene.parent.ledger
    if any_batch_due(ledger, scene.rules.params) or open_lineage(ledger, BatchKind.PAYOUT) is not None:
        return None
    if scene.block.header.anchor != ledger.totals.anchor or scene.block.body.batches:
        return None
    return scene.with_only(batches=(_batch(),))


def _second_batch(scene: Scene) -> Block | None:
    """While one is open."""
    if open_lineage(scene.parent.ledger, BatchKind.PAYOUT) is None or scene.block.body.evidence:
        return None
    return scene.with_only(batches=(_batch(),))


def _orphan_replacement(scene: Scene) -> Block | None:
    """Of a version of nothing."""
    if open_lineage(scene.parent.ledger, BatchKind.PAYOUT) is not None:
        return None
    return scene.with_only(batches=(_batch(replaces=Txid(_FAKE_HASH)),))


def _early_replacement(scene: Scene) -> Block | None:
    """Of a version that has not waited its time."""
    lineage = open_lineage(scene.parent.ledger, BatchKind.PAYOUT)
    anchor = scene.block.header.anchor
    if lineage is None or scene.block.body.evidence:
        return None
    newest = lineage.versions[-1]
    if anchor.height - newest.anchor_height >= scene.rules.params.replacement_interval_anchors:
        return None
    return scene.with_only(batches=(_batch(replaces=newest.txid, feerate_sat_kvb=4_000),))


def _replacement_of_another(scene: Scene) -> Block | None:
    lineage = open_lineage(scene.parent.ledger, BatchKind.PAYOUT)
    if lineage is None or scene.block.body.evidence:
        return None
    return scene.with_only(batches=(_batch(replaces=Txid(_FAKE_HASH), feerate_sat_kvb=4_000),))


def _changed_batch(change: str) -> Maker:
    """The block's own batch with something changed in it."""

    def make(scene: Scene) -> Block | None:
        if not scene.block.body.batches:
            return None
        [batch, *rest] = scene.block.body.batches
        transaction = Transaction.parse(batch.transaction)
        [payee, *outputs] = transaction.outputs
        foreign = TxIn(OutPoint(Txid(_FAKE_HASH), 0), b"", transaction.inputs[0].sequence)
        changed = {
            "payee": replace(transaction, outputs=(replace(payee, script=NOBODY), *outputs)),
            "fee": replace(transaction, outputs=(replace(payee, value_sats=payee.value_sats - 1), *outputs)),
            "coin": replace(transaction, inputs=(*transaction.inputs, foreign)),
            "feerate": transaction,
        }[change]
        feerate = batch.feerate_sat_kvb + 100 * (change == "feerate")
        other = replace(batch, transaction=changed.serialize(), feerate_sat_kvb=feerate)
        return scene.with_body(batches=(other, *rest))

    return make


_ROOT = sha256(b"no root")
HEADER_KINDS: tuple[BadKind, ...] = (
    BadKind("another version", HeaderReason.VERSION, None, _shifted("version", 1)),
    BadKind("another chain", HeaderReason.WRONG_CHAIN, None, _header(chain_id=bytes(32))),
    BadKind("another epoch", HeaderReason.WRONG_EPOCH, None, _shifted("epoch", 1)),
    BadKind("another parent", HeaderReason.WRONG_PARENT, None, _header(parent=_FAKE_HASH)),
    BadKind("a height passed over", HeaderReason.WRONG_HEIGHT, None, _shifted("height", 1)),
    BadKind("its parent's height", HeaderReason.WRONG_HEIGHT, None, _shifted("height", -1)),
    BadKind("another leader", HeaderReason.WRONG_LEADER, None, _shifted("leader", 1)),
    BadKind("its parent's view", HeaderReason.VIEW_NOT_ABOVE_PARENT, None, _past_view),
    BadKind("its parent's time", HeaderReason.TIME_NOT_ABOVE_PARENT, None, _same_time),
    BadKind("a lower anchor", HeaderReason.BAD_ANCHOR, LedgerReason.ANCHOR_BACKWARDS, _anchor_backwards),
    BadKind("another anchor", HeaderReason.BAD_ANCHOR, LedgerReason.ANCHOR_CHANGED, _anchor_changed),
    BadKind("a far anchor", HeaderReason.BAD_ANCHOR, LedgerReason.ANCHOR_STEP, _anchor_far),
    BadKind("an anchor elsewhere", HeaderReason.ANCHOR_WRONG_HEIGHT, None, _anchor_elsewhere),
    BadKind("another body's root", BodyReason.WRONG_ROOT, None, _header(body_root=_ROOT)),
    BadKind("no ledger's root", BodyReason.WRONG_LEDGER_ROOT, None, _header(ledger_root=_ROOT)),
    BadKind("the ledger's old root", BodyReason.WRONG_LEDGER_ROOT, None, _stale_root),
)
BODY_KINDS: tuple[BadKind, ...] = (
    BadKind("another body", BodyReason.WRONG_ROOT, None, _other_body),
    BadKind("a body too large", BodyReason.TOO_LARGE, None, _large, is_heavy=True),
    BadKind("too much evidence", BodyReason.TOO_MUCH_EVIDENCE, None, _much_evidence, is_heavy=True),
    BadKind("too many openings", BodyReason.TOO_MANY_OPENINGS, None, _many_openings),
    BadKind("evidence out of order", BodyReason.EVIDENCE_ORDER, None, _unordered),
    BadKind(
        "a record in company",
        BodyReason.RECORD_NOT_ALONE,
        None,
        lambda scene: scene.with_only(records=(SignedRecord(_resume(scene), ()),), evidence=(_FAKE_EVIDENCE,)),
    ),
    BadKind("two batches", BodyReason.DUPLICATE_BATCH, None, lambda scene: scene.with_only(batches=(_batch(),) * 2)),
)
RECORD_KINDS: tuple[BadKind, ...] = tuple(
    BadKind(f"a record {name}", BodyReason.BAD_RECORD, cause, make)
    for name, cause, make in (
        ("that nobody signed", EndorsementReason.TOO_FEW, _record("none")),
        ("that the evil signed", EndorsementReason.TOO_FEW, _record("few")),
        ("signed by one, often", EndorsementReason.REPEATED_SIGNER, _record("repeated")),
        ("with signers out of order", EndorsementReason.SIGNERS_UNSORTED, _record("unsorted")),
        ("signed by strangers", EndorsementReason.UNKNOWN_MEMBER, _record("unknown")),
        ("with one signature for all", EndorsementReason.BAD_SIGNATURE, _record("forged")),
        ("of another chain", RecordReason.WRONG_CHAIN, _foreign_record(chain_id=bytes(32))),
        ("of another epoch", RecordReason.WRONG_EPOCH, _foreign_record(epoch=1)),
    )
)
REFUND_KINDS: tuple[BadKind, ...] = (
    BadKind("a refund missing", BodyReason.REFUND_MISSING, None, _no_refund),
    BadKind("a refund too early", BodyReason.REFUND_NOT_DUE, None, _early_refund),
    BadKind("a refund of nothing", BodyReason.REFUND_NOT_DUE, None, _made_up_refund),
    BadKind("refunds out of order", BodyReason.REFUND_ORDER, None, _reordered_refunds),
    BadKind("a refund to another", BodyReason.REFUND_DIFFERS, None, _redirected_refund),
)
BATCH_KINDS: tuple[BadKind, ...] = tuple(
    BadKind(f"a batch {name}", BodyReason.BAD_BATCH, cause, make)
    for name, cause, make in (
        ("below the floor", BatchReason.FEERATE_BELOW_FLOOR, _only_batch(_batch(feerate_sat_kvb=999))),
        ("above the ceiling", BatchReason.FEERATE_ABOVE_CEILING, _only_batch(_batch(feerate_sat_kvb=5_001))),
        ("too early", BatchReason.NOT_DUE, _early_batch),
        ("while one is open", BatchReason.LINEAGE_OPEN, _second_batch),
        ("that replaces nothing", BatchReason.NO_OPEN_LINEAGE, _orphan_replacement),
        ("that replaces too early", BatchReason.TOO_EARLY, _early_replacement),
        ("that replaces another", BatchReason.NOT_NEWEST, _replacement_of_another),
        ("for another payee", BatchReason.TRANSACTION_DIFFERS, _changed_batch("payee")),
        ("with another fee", BatchReason.TRANSACTION_DIFFERS, _changed_batch("fee")),
        ("of foreign coins", BatchReason.TRANSACTION_DIFFERS, _changed_batch("coin")),
        ("at another feerate", BatchReason.TRANSACTION_DIFFERS, _changed_batch("feerate")),
    )
)
KINDS: tuple[BadKind, ...] = (
    *HEADER_KINDS, *BODY_KINDS, *RECORD_KINDS, *REFUND_KINDS, *BATCH_KINDS, *TRANSACTION_KINDS, *EVIDENCE_KINDS,
)  # fmt: skip

JUDGING_REASONS: tuple[type[Reason], ...] = (
    HeaderReason, BodyReason, RecordReason, EndorsementReason, EvidenceReason, CustodyReason, BatchReason,
    TransactionRule, TransactionReason, ScriptReason, BurnReason, LedgerReason,
)  # fmt: skip
"""Every reason that the rules of a block can name, or pass on as its cause."""
