"""Blocks with evidence that breaks a rule: what is shown of L1 spoilt, shown twice, or shown too early."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind, CustodyReason
from bridge.errors import Reason
from bridge.evidence import Evidence, EvidenceReason, Opening
from pegnode.chain.block import Block
from pegnode.chain.verdicts import BodyReason
from tests.sim.bad_scene import BadKind, Maker, Scene
from tests.support.fake_l1 import FakeBlock, merkle_block

Spoil = Callable[[Evidence], Evidence]
OTHER = b"\x00\x14" + b"\x66" * 20
ODD = b"\x51"


def _first_opening(change: Callable[[Opening], Opening]) -> Spoil:
    return lambda item: replace(item, openings=(change(item.openings[0]), *item.openings[1:]))


def _with_witness(item: Evidence) -> Evidence:
    transaction = Transaction.parse(item.transaction)
    return replace(item, transaction=transaction.with_witnesses([(b"x",)] * len(transaction.inputs)).serialize())


def _richer(item: Evidence) -> Evidence:
    transaction = Transaction.parse(item.transaction)
    [first, *rest] = transaction.outputs
    richer = replace(transaction, outputs=(replace(first, value_sats=first.value_sats + 1), *rest))
    return replace(item, transaction=richer.serialize())


def _hashes(item: Evidence, more: int) -> Evidence:
    """The proof with a hash more or fewer."""
    head, count, rest = item.proof[:84], item.proof[84], item.proof[85:]
    flags, hashes = rest[32 * count :], rest[: 32 * count] + bytes(32 * max(0, more))
    return replace(item, proof=head + bytes([count + more]) + hashes[: 32 * (count + more)] + flags)


def _forged_branch(item: Evidence) -> Evidence:
    """Another hash beside ours: the last of the tree's, for ours may be the first."""
    count = item.proof[84]
    last = 85 + 32 * (count - 1)
    return replace(item, proof=item.proof[: last - 32] + b"\x01" * 32 + item.proof[last:])


def _counted(item: Evidence, more: int) -> Evidence:
    count = int.from_bytes(item.proof[80:84], "little") + more
    return replace(item, proof=item.proof[:80] + count.to_bytes(4, "little") + item.proof[84:])


_SPOILT: tuple[tuple[str, Reason, Spoil], ...] = (
    (
        "of an L1 block that nobody knows",
        EvidenceReason.WRONG_BLOCK,
        lambda it: replace(it, proof=b"\5" + it.proof[1:]),
    ),
    ("above the anchor", EvidenceReason.ABOVE_ANCHOR, lambda it: replace(it, l1_height=1_000_000)),
    ("at another height", EvidenceReason.WRONG_HEIGHT, lambda it: replace(it, l1_height=it.l1_height - 1)),
    ("of half a transaction", EvidenceReason.MALFORMED, lambda it: replace(it, transaction=it.transaction[:-1])),
    ("with a witness", EvidenceReason.NOT_STRIPPED, _with_witness),
    ("of a richer transaction", EvidenceReason.WRONG_TRANSACTION, _richer),
    ("with half a proof", EvidenceReason.BAD_PROOF, lambda it: replace(it, proof=it.proof[:-1])),
    ("with a longer proof", EvidenceReason.BAD_PROOF, lambda it: replace(it, proof=it.proof + b"\0")),
    ("with a hash missing", EvidenceReason.PROOF_TRUNCATED, lambda it: _hashes(it, -1)),
    ("with a hash too many", EvidenceReason.PROOF_LEFTOVER, lambda it: _hashes(it, 1)),
    (
        "with padding bits",
        EvidenceReason.PADDING_BITS,
        lambda it: replace(it, proof=it.proof[:-1] + bytes([it.proof[-1] | 0x80])),
    ),
    ("of more transactions", EvidenceReason.PROOF_COUNT_MISMATCH, lambda it: _counted(it, 1)),
    ("with a forged branch", EvidenceReason.WRONG_MERKLE_ROOT, _forged_branch),
    ("that opens nothing", EvidenceReason.NO_OPENINGS, lambda it: replace(it, openings=())),
    ("that opens twice", EvidenceReason.OPENINGS_UNSORTED, lambda it: replace(it, openings=it.openings[:1] * 2)),
    ("of no output", EvidenceReason.NO_SUCH_OUTPUT, _first_opening(lambda it: replace(it, vout=1_000))),
    (
        "for another's claim",
        EvidenceReason.WRONG_SCRIPT,
        _first_opening(lambda it: replace(it, claim_script=OTHER)),
    ),
    (
        "for an odd claim",
        EvidenceReason.CLAIM_SCRIPT_TYPE,
        _first_opening(lambda it: replace(it, claim_script=ODD)),
    ),
    ("of another epoch", CustodyReason.UNKNOWN_EPOCH, _first_opening(lambda it: replace(it, epoch=1))),
)


def _maker(spoil: Spoil) -> Maker:
    def make(scene: Scene) -> Block | None:
        opened = [item for item in scene.block.body.evidence if item.openings]
        return scene.with_only(evidence=(spoil(opened[0]),)) if opened else None

    return make


def _shown(scene: Scene, block: FakeBlock, position: int, *openings: Opening) -> Evidence:
    transaction = block.transactions[position]
    return Evidence(transaction.serialize_stripped(), merkle_block(block, transaction.txid), block.height, openings)


def _claimed_again(scene: Scene) -> Block | None:
    """A deposit whose coin the ledger has."""
    anchor = scene.block.header.anchor.height
    for _, coin in scene.parent.ledger.coins.items():
        block = scene.l1.blocks[coin.l1_height]
        position = [item.txid for item in block.transactions].index(coin.outpoint.txid)
        if coin.kind is CoinKind.DEPOSIT and coin.l1_height <= anchor:
            opening = Opening(coin.outpoint.vout, coin.kind, coin.epoch, coin.claim_script)
            return scene.with_only(evidence=(_shown(scene, block, position, opening),))
    return None


def _coinbase(scene: Scene) -> Block:
    """The anchor's own coinbase, which L1 itself lets nobody spend yet."""
    block = scene.l1.blocks[scene.block.header.anchor.height]
    return scene.with_only(evidence=(_shown(scene, block, 0),))


def _newest(scene: Scene) -> Block | None:
    """Of the block after the anchor, which is not deep enough yet."""
    height = scene.block.header.anchor.height + 1
    if height > scene.l1.height:
        return None
    return scene.with_only(evidence=(_shown(scene, scene.l1.blocks[height], 0),))


BAD = BodyReason.BAD_EVIDENCE
EVIDENCE_KINDS: tuple[BadKind, ...] = (
    *(BadKind(f"evidence {name}", BAD, cause, _maker(spoil)) for name, cause, spoil in _SPOILT),
    BadKind("a deposit claimed again", BAD, EvidenceReason.ALREADY_ENTERED, _claimed_again),
    BadKind("a coinbase too early", BAD, EvidenceReason.IMMATURE_COINBASE, _coinbase),
    BadKind("evidence too early", BAD, EvidenceReason.ABOVE_ANCHOR, _newest),
)


def spoilt_evidence(data: bytes, rng: Random) -> bytes | None:
    """Evidence, encoded, made false."""
    evidence = Evidence.decode(data)
    return rng.choice(_SPOILT)[2](evidence).encode() if evidence.openings else None
