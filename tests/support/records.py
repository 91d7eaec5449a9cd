"""Records of the tests' federation, signed by as many members as a test wants."""

from dataclasses import replace

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash
from bridge.records import AbandonedBlock, Deficit, Finding, Rebase, Record, Resume
from bridge.state import Anchor
from federation.record import SignedRecord
from pegnode.chain.block import Block, Body
from pegnode.chain.builder import BuiltBlock, Candidates, build_block
from pegnode.chain.parameters import ChainRules
from tests.support.chain import MemoryChain, vote_secrets
from tests.support.fake_l1 import FakeBlock

QUORUM = (0, 1, 2)
FINDING = Finding.anchor_left(Anchor(7, BlockHash(sha256(b"a block that L1 abandoned"))))
NEVER = 1_000_000
"""An anchor that no test reaches."""
ANY_RECORD = SignedRecord(Record(bytes(32), 0, 1, NEVER, Resume.of((FINDING,))), ())
"""Some record, which nobody has signed."""


def signed(record: Record, *members: int) -> SignedRecord:
    """The record with the signatures of these members, or of a quorum."""
    secrets = vote_secrets()
    return SignedRecord(
        record,
        tuple((member, schnorr_sign(secrets[member], record.digest32, bytes(32))) for member in members or QUORUM),
    )


def record_of(rules: ChainRules, content: Resume | Deficit, serial: int = 1, expires_at_anchor: int = NEVER) -> Record:
    """A record of this chain."""
    return Record(rules.chain_id, rules.membership.epoch, serial, expires_at_anchor, content)


def resume(rules: ChainRules, serial: int = 1, rebase: Rebase | None = None) -> SignedRecord:
    """A resume record that a quorum signed."""
    return signed(record_of(rules, Resume.of((FINDING,), rebase), serial))


def rebase_of(branch: list[FakeBlock], new_anchor: Anchor) -> Rebase:
    """From the last block of a branch, whose first is the fork, to another anchor."""
    fork, *abandoned = branch
    blocks = tuple(AbandonedBlock(block.hash, len(block.transactions)) for block in abandoned)
    return Rebase(Anchor(fork.height, fork.hash), blocks, new_anchor)


def sealed_record_block(chain: MemoryChain, *records: SignedRecord, anchor: Anchor | None = None) -> Block:
    """The next block, of these records alone, whatever they are worth. anchor: another than the parent's."""
    block = chain.build(slot=chain.slot(include_l1=False)).block
    header = replace(block.header, anchor=anchor or chain.header.anchor)
    return chain.reseal(Block(header, Body(records=records)))


def built_record_block(chain: MemoryChain, *records: SignedRecord) -> BuiltBlock:
    """The next block as a leader builds it of these records."""
    rebase = Body(records=records).rebase
    slot = chain.slot()
    if rebase is not None:
        slot = replace(slot, anchor=rebase.new_anchor)
    facts = chain.l1.facts(slot.anchor)
    built = build_block(chain.state, slot, Candidates(records=records), facts, chain.rules)
    assert built.block.body.records == records, built.rejected_record
    return built


def carried_out(chain: MemoryChain, *records: SignedRecord) -> BuiltBlock:
    """The same, checked; it becomes the newest."""
    built = built_record_block(chain, *records)
    chain.state = chain.apply(Block.decode(built.block.encode()))
    chain.blocks.append(built.block)
    return built


def changed(signed_record: SignedRecord, **fields: object) -> SignedRecord:
    """The record with other fields, signed anew by a quorum."""
    return signed(replace(signed_record.record, **fields))  # type: ignore[arg-type]
