"""Records: what a quorum of the members decides after L1 abandoned blocks or took coins, for the chain to carry out.

Theory of operation
    A member that finds L1 at odds with the ledger halts: it votes for nothing that touches L1, and signs nothing there.
    It can't know alone what became of the money, so nothing but a final record ends that. Two kinds:

    resume    ends the findings that it names. After a deep reorg it also holds a `Rebase`: from the L1 block that the
              chain is anchored to, which L1 abandoned, to one that is on L1's chain. The abandoned blocks stand in it
              one by one, so that a node that never saw them can still check what the chain said while they counted.
    deficit   names coins of the reserve that are gone. What that does to the ledger, `bridge.losses` says.

    A record is bound to one chain, one epoch and one serial number. Serials count up by one and the last is in the
    ledger, so a record is carried out once at most, and one that was signed and not used becomes worthless with the
    next. Who may sign one, `federation.record` says, and whether a member does, `federation.record_law`.

    Everything here has one encoding: what is unsorted, repeated, too long or of no effect can't be made or read.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from bridge.bitcoin.hashes import tagged_hash
from bridge.bitcoin.identifiers import HASH_SIZE, OUTPOINT_SIZE, BlockHash, OutPoint, Txid
from bridge.codec import Encoded, Reader, Writer
from bridge.errors import MalformedError, Reason, Rejected
from bridge.state import Anchor, read_optional, read_outpoint, write_optional, write_outpoint

MAX_ABANDONED_BLOCKS = 2016
"""Of one rebase: two weeks of L1. A deeper reorg is walked back in no record."""
MAX_FINDINGS = 1000
"""Of one resume record."""
MAX_LOST_COINS = 1000
"""Of one deficit record; another may follow it."""
ANCHOR_SIZE = 4 + HASH_SIZE
MAX_RECORD_BYTES = 109_706
"""The longest record: a resume with as many findings and abandoned blocks as one may have."""
_MAX_HEIGHT = 0xFFFFFFFF


class RecordReason(Reason):
    """Why a block may not carry a record out."""

    WRONG_CHAIN = "record-wrong-chain"  # Of another chain.
    WRONG_EPOCH = "record-wrong-epoch"  # Of another epoch than the chain's.
    WRONG_SERIAL = "record-wrong-serial"  # Its serial is not the one after the last record's.
    EXPIRED = "record-expired"  # The block's anchor is above the height to which the record may be carried out.
    NOT_A_COIN = "record-not-a-coin"  # It names an outpoint as lost that is no coin of the ledger.
    WRONG_VALUE = "record-wrong-value"  # It names a lost coin with another value than the ledger's.
    WRONG_OLD_ANCHOR = "record-wrong-old-anchor"  # It leads away from another L1 block than the chain is anchored to.
    WRONG_NEW_ANCHOR = "record-wrong-new-anchor"  # It leads to another L1 block than its block is anchored to.


class FindingKind(enum.IntEnum):
    """What a member found, u8."""

    ANCHOR_LEFT = 1
    COIN_GONE = 2
    SECOND_VERSION = 3
    BLOCK_REFUSED = 4


_SUBJECT_SIZES = {
    FindingKind.ANCHOR_LEFT: ANCHOR_SIZE,
    FindingKind.COIN_GONE: OUTPOINT_SIZE,
    FindingKind.SECOND_VERSION: HASH_SIZE,
    FindingKind.BLOCK_REFUSED: HASH_SIZE,
}


@dataclass(frozen=True, slots=True)
class Finding(Encoded):
    """Which thing it is that a member found at odds; the words for people are made elsewhere.

    subject, by kind: the anchor that L1 abandoned (36 bytes), the coin that L1 has not unspent (36), the version of a
    closed lineage that L1 confirmed beside the one that settled it (32), the sidechain block that this member's own
    Bitcoin node speaks against though a quorum finalized it (32).
    """

    kind: FindingKind
    subject: bytes

    def __post_init__(self) -> None:
        if len(self.subject) != _SUBJECT_SIZES[self.kind]:
            raise MalformedError(f"a {self.kind.name} about {len(self.subject)} bytes")

    @classmethod
    def anchor_left(cls, anchor: Anchor) -> Self:
        """L1 abandoned the block that the chain is anchored to."""
        return cls(FindingKind.ANCHOR_LEFT, anchor.encode())

    @classmethod
    def coin_gone(cls, outpoint: OutPoint) -> Self:
        """A coin of the reserve is spent by no recorded version, or does not exist."""
        return cls(FindingKind.COIN_GONE, outpoint.encode())

    @classmethod
    def second_version(cls, txid: Txid) -> Self:
        """A version of a closed lineage is confirmed that is not the one that settled it."""
        return cls(FindingKind.SECOND_VERSION, txid)

    @classmethod
    def block_refused(cls, block_hash: BlockHash) -> Self:
        """A quorum finalized a block that is invalid by what this member's own Bitcoin node says."""
        return cls(FindingKind.BLOCK_REFUSED, block_hash)

    @property
    def anchor(self) -> Anchor:
        """The subject of an ANCHOR_LEFT; raises MalformedError for another kind."""
        return Anchor.decode(self._subject_of(FindingKind.ANCHOR_LEFT))

    @property
    def outpoint(self) -> OutPoint:
        """The subject of a COIN_GONE; raises MalformedError for another kind."""
        return OutPoint.decode(self._subject_of(FindingKind.COIN_GONE))

    @property
    def txid(self) -> Txid:
        """The subject of a SECOND_VERSION; raises MalformedError for another kind."""
        return Txid(self._subject_of(FindingKind.SECOND_VERSION))

    @property
    def block_hash(self) -> BlockHash:
        """The subject of a BLOCK_REFUSED; raises MalformedError for another kind."""
        return BlockHash(self._subject_of(FindingKind.BLOCK_REFUSED))

    def write(self, writer: Writer) -> None:
        """Append 33 or 37 bytes: kind u8, then the subject, whose length the kind tells."""
        writer.u8(self.kind).fixed(self.subject, _SUBJECT_SIZES[self.kind])

    @classmethod
    def read(cls, reader: Reader) -> Self:
        kind = reader.enumeration(FindingKind)
        return cls(kind, reader.take(_SUBJECT_SIZES[kind]))

    def _subject_of(self, kind: FindingKind) -> bytes:
        if self.kind is not kind:
            raise MalformedError(f"a {self.kind.name} names no subject of a {kind.name}")
        return self.subject


@dataclass(frozen=True, slots=True)
class AbandonedBlock(Encoded):
    """One L1 block that L1 left: its hash, 32 bytes, and its count of transactions, u32, at least 1."""

    hash: BlockHash
    n_tx: int

    def __post_init__(self) -> None:
        if self.n_tx < 1:
            raise MalformedError("a block without transactions")

    def write(self, writer: Writer) -> None:
        """Append 36 bytes: hash, count of transactions."""
        writer.fixed(self.hash, HASH_SIZE).u32(self.n_tx)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(BlockHash(reader.take(HASH_SIZE)), reader.u32())


@dataclass(frozen=True, slots=True)
class Rebase(Encoded):
    """From a branch of L1 that was abandoned to the one that took its place.

    fork: the last block of both.  abandoned: the blocks above it on the branch that the chain was anchored to, each one
    from fork.height + 1 up to the chain's anchor.  new_anchor: on the other branch, higher than the old anchor.
    """

    fork: Anchor
    abandoned: tuple[AbandonedBlock, ...]
    new_anchor: Anchor

    def __post_init__(self) -> None:
        if not 1 <= len(self.abandoned) <= MAX_ABANDONED_BLOCKS:
            raise MalformedError(f"{len(self.abandoned)} abandoned blocks, of 1 to {MAX_ABANDONED_BLOCKS}")
        if not self.old_anchor.height < self.new_anchor.height <= _MAX_HEIGHT:
            raise MalformedError(f"from L1 block {self.old_anchor.height} to {self.new_anchor.height}")
        hashes = {self.fork.hash, self.new_anchor.hash, *(block.hash for block in self.abandoned)}
        if len(hashes) != len(self.abandoned) + 2:
            raise MalformedError("one L1 block stands twice in a rebase")

    @property
    def old_anchor(self) -> Anchor:
        """The L1 block that the chain was anchored to: the highest of the abandoned ones."""
        return Anchor(self.fork.height + len(self.abandoned), self.abandoned[-1].hash)

    @property
    def abandoned_anchors(self) -> tuple[Anchor, ...]:
        """Every abandoned block with its height, ascending."""
        first = self.fork.height + 1
        return tuple(Anchor(height, block.hash) for height, block in enumerate(self.abandoned, first))

    def abandons(self, anchor: Anchor) -> bool:
        """Whether it names this block as abandoned."""
        index = anchor.height - self.fork.height - 1
        return 0 <= index < len(self.abandoned) and self.abandoned[index].hash == anchor.hash

    def write(self, writer: Writer) -> None:
        """Append the fork (36 bytes), a list of (hash 32, transactions u32), the new anchor (36)."""
        self.fork.write(writer)
        writer.sequence(self.abandoned, lambda to, block: block.write(to))
        self.new_anchor.write(writer)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        fork = Anchor.read(reader)
        return cls(fork, reader.sequence(MAX_ABANDONED_BLOCKS, AbandonedBlock.read), Anchor.read(reader))


@dataclass(frozen=True, slots=True)
class Resume(Encoded):
    """Members may work on L1 again. findings: what it ends, ascending by encoding, none twice; may be none if rebased.

    rebase: where the chain's anchor moves, if L1 abandoned it.
    """

    findings: tuple[Finding, ...]
    rebase: Rebase | None = None

    def __post_init__(self) -> None:
        _require_ascending([finding.encode() for finding in self.findings], MAX_FINDINGS)
        if not self.findings and self.rebase is None:
            raise MalformedError("a resume of nothing")

    @classmethod
    def of(cls, findings: Iterable[Finding], rebase: Rebase | None = None) -> Self:
        """The record that ends these findings, given in any order and any often."""
        return cls(tuple(sorted(set(findings), key=Finding.encode)), rebase)

    def covers(self, finding: Finding) -> bool:
        """Whether it ends this finding: by naming it, or by abandoning the anchor that is left.

        A BLOCK_REFUSED is ended by no record: only by that very block.
        """
        if finding.kind is FindingKind.BLOCK_REFUSED:
            return False
        if finding in self.findings:
            return True
        if self.rebase is None or finding.kind is not FindingKind.ANCHOR_LEFT:
            return False
        return self.rebase.abandons(finding.anchor)

    def write(self, writer: Writer) -> None:
        """Append a list of findings, then the rebase (flag u8)."""
        writer.sequence(self.findings, lambda to, finding: finding.write(to))
        write_optional(writer, self.rebase, lambda to, rebase: rebase.write(to))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.sequence(MAX_FINDINGS, Finding.read), read_optional(reader, Rebase.read))


@dataclass(frozen=True, slots=True)
class LostCoin(Encoded):
    """A coin of the ledger that L1 does not hold unspent any more."""

    outpoint: OutPoint
    value_sats: int

    def write(self, writer: Writer) -> None:
        """Append 44 bytes: outpoint, value u64."""
        write_outpoint(writer, self.outpoint).u64(self.value_sats)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(read_outpoint(reader), reader.u64())


@dataclass(frozen=True, slots=True)
class Deficit(Encoded):
    """Coins that are gone: at least one, ascending by the encoding of their outpoint, none twice."""

    lost: tuple[LostCoin, ...]

    def __post_init__(self) -> None:
        _require_ascending([coin.outpoint.encode() for coin in self.lost], MAX_LOST_COINS)
        if not self.lost:
            raise MalformedError("a deficit of nothing")

    @classmethod
    def of(cls, lost: Iterable[LostCoin]) -> Self:
        """The record that names these coins, given in any order."""
        return cls(tuple(sorted(lost, key=lambda coin: coin.outpoint.encode())))

    @property
    def lost_sats(self) -> int:
        """What is gone."""
        return sum(coin.value_sats for coin in self.lost)

    def write(self, writer: Writer) -> None:
        """Append a list of (outpoint 36, value u64)."""
        writer.sequence(self.lost, lambda to, coin: coin.write(to))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.sequence(MAX_LOST_COINS, LostCoin.read))


class ContentKind(enum.IntEnum):
    """What a record says, u8."""

    RESUME = 1
    DEFICIT = 2


@dataclass(frozen=True, slots=True)
class Record(Encoded):
    """What a quorum signs.

    chain_id: 32 bytes.  epoch: of the members who sign, u32.  serial: u64, one above the record before it.
    expires_at_anchor: u32, the highest anchor of a block that may carry it out.
    """

    chain_id: bytes
    epoch: int
    serial: int
    expires_at_anchor: int
    content: Resume | Deficit

    @property
    def digest32(self) -> bytes:
        """The 32 bytes that members sign."""
        return tagged_hash("pegnode/record", self.encode())

    @property
    def rebase(self) -> Rebase | None:
        """Where it moves the chain's anchor, if it does."""
        return self.content.rebase if isinstance(self.content, Resume) else None

    def write(self, writer: Writer) -> None:
        """Append chain id, epoch u32, serial u64, expiry u32, kind u8, content."""
        writer.fixed(self.chain_id, HASH_SIZE).u32(self.epoch).u64(self.serial).u32(self.expires_at_anchor)
        writer.u8(ContentKind.RESUME if isinstance(self.content, Resume) else ContentKind.DEFICIT)
        self.content.write(writer)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        chain_id, epoch, serial, expires_at_anchor = reader.take(HASH_SIZE), reader.u32(), reader.u64(), reader.u32()
        content: type[Resume | Deficit] = Resume if reader.enumeration(ContentKind) is ContentKind.RESUME else Deficit
        return cls(chain_id, epoch, serial, expires_at_anchor, content.read(reader))


def check_record(record: Record, *, chain_id: bytes, epoch: int, serial: int, anchor_height: int) -> None:
    """Raise Rejected(RecordReason) unless a block may carry this record out next. Its rebase is not looked at.

    chain_id, epoch: the chain's.  serial: that of the last record before.  anchor_height: of the block's anchor.
    WRONG_CHAIN, WRONG_EPOCH, WRONG_SERIAL, EXPIRED.
    """
    if record.chain_id != chain_id:
        raise Rejected(RecordReason.WRONG_CHAIN, f"of the chain {record.chain_id.hex()}")
    if record.epoch != epoch:
        raise Rejected(RecordReason.WRONG_EPOCH, f"{record.epoch}, not {epoch}")
    if record.serial != serial + 1:
        raise Rejected(RecordReason.WRONG_SERIAL, f"{record.serial}, after {serial}")
    if anchor_height > record.expires_at_anchor:
        raise Rejected(RecordReason.EXPIRED, f"at L1 block {record.expires_at_anchor}, with the anchor {anchor_height}")


def check_rebase(rebase: Rebase, old_anchor: Anchor, new_anchor: Anchor) -> None:
    """Raise Rejected(RecordReason) unless it leads from the parent block's anchor to that of the block with it.

    WRONG_OLD_ANCHOR, WRONG_NEW_ANCHOR.
    """
    if rebase.old_anchor != old_anchor:
        raise Rejected(RecordReason.WRONG_OLD_ANCHOR, f"from L1 block {rebase.old_anchor.height}")
    if rebase.new_anchor != new_anchor:
        raise Rejected(RecordReason.WRONG_NEW_ANCHOR, f"to L1 block {rebase.new_anchor.height}")


def _require_ascending(keys: list[bytes], limit: int) -> None:
    """Raise MalformedError unless there are at most `limit` keys, each above the one before it."""
    if len(keys) > limit:
        raise MalformedError(f"a list of {len(keys)} items, over its limit of {limit}")
    if any(first >= second for first, second in pairwise(keys)):
        raise MalformedError("a list that does not ascend")
