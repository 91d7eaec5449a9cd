"""Halts: why a node does nothing about L1 any more, and what ends that.

Theory of operation. What a node finds wrong is latched: kept on disk for good, with the serial of the newest record
that was final here at that moment. Nothing ever removes it. Whether the node is halted *follows* from what is latched
and from the final chain, so no crash can part the two:

    a resume record ends everything that was latched before it, if it covers all of that; else it ends nothing.
    A finding is covered if the record does so (see `Resume.covers`), or if a deficit record before that one, and
    newer than the finding, has booked the coin that is gone. A refused block is a finding until it is final here.

What is found again after that is latched again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Self

from bridge.bitcoin.identifiers import BlockHash, OutPoint, hash_to_hex
from bridge.codec import Encoded, Reader, Writer
from bridge.errors import MalformedError
from bridge.records import Deficit, Finding, FindingKind, Record, Resume

MAX_DETAIL_BYTES: Final = 4_000
"""Of the words for people that are kept with a finding."""

_ENDS_BY_RECORD = (
    "agree on it with the other members; `peg federation resume --plan FILE` draws up the record that ends it"
)
_REMEDIES: Final = {
    FindingKind.ANCHOR_LEFT: "compare `bitcoin-cli getchaintips` with the other members': "
    f"was L1 reorganised for all of you, or is your node cut off or wrong? {_ENDS_BY_RECORD}",
    FindingKind.COIN_GONE: "find out who spent it: a quorum's custody keys, or the recovery keys, were used without "
    f"the ledger. Take keys that may be stolen off line; {_ENDS_BY_RECORD}",
    FindingKind.SECOND_VERSION: f"see which payout L1 holds, and who was paid: {_ENDS_BY_RECORD}",
    FindingKind.BLOCK_REFUSED: "compare this release with the other members', and run `peg db check`: it ends when "
    "the block is final here",
}


@dataclass(frozen=True, slots=True)
class LatchedFinding(Encoded):
    """What a node found, and when.

    detail: for people.  serial: u64, of the last record that was final here by then.  since_ms: u64, Unix time.
    """

    finding: Finding
    detail: str
    serial: int
    since_ms: int

    def write(self, writer: Writer) -> None:
        """Append finding, detail (UTF-8, u32 length), serial u64, time u64."""
        self.finding.write(writer)
        writer.variable(self.detail.encode()).u64(self.serial).u64(self.since_ms)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        finding, detail = Finding.read(reader), reader.variable(MAX_DETAIL_BYTES)
        try:
            return cls(finding, detail.decode(), reader.u64(), reader.u64())
        except UnicodeDecodeError as error:
            raise MalformedError("a detail that is no text") from error


def active_findings(
    latched: Iterable[LatchedFinding], records: Iterable[Record], is_final: Callable[[BlockHash], bool]
) -> tuple[LatchedFinding, ...]:
    """Those of the latched findings that no record ended, oldest first: the node is halted while there is one.

    records: all that are final here, by ascending serial.  is_final: whether a block is.
    """
    active = [item for item in latched if not _is_final_after_all(item.finding, is_final)]
    booked: dict[OutPoint, int] = {}
    for record in records:
        if isinstance(record.content, Deficit):
            booked |= {coin.outpoint: record.serial for coin in record.content.lost}
        elif all(_is_covered(item, record.content, booked) for item in active if item.serial < record.serial):
            active = [item for item in active if item.serial >= record.serial]
    return tuple(active)


def finding_name(kind: FindingKind) -> str:
    """The stable name of a kind at the edges, such as "coin-gone"."""
    return kind.name.lower().replace("_", "-")


def subject_text(finding: Finding) -> str:
    """What a finding is about, as people write it: a block's height and hash, an outpoint, a txid, a block's hash."""
    match finding.kind:
        case FindingKind.ANCHOR_LEFT:
            return f"{finding.anchor.height} {hash_to_hex(finding.anchor.hash)}"
        case FindingKind.COIN_GONE:
            return str(finding.outpoint)
        case FindingKind.SECOND_VERSION:
            return hash_to_hex(finding.txid)
        case FindingKind.BLOCK_REFUSED:
            return hash_to_hex(finding.block_hash)


def remedy(kind: FindingKind) -> str:
    """What the operator of a node that found this should do."""
    return _REMEDIES[kind]


def _is_final_after_all(finding: Finding, is_final: Callable[[BlockHash], bool]) -> bool:
    return finding.kind is FindingKind.BLOCK_REFUSED and is_final(finding.block_hash)


def _is_covered(item: LatchedFinding, resume: Resume, booked: dict[OutPoint, int]) -> bool:
    """booked: by coin, the serial of the last deficit record so far that named it."""
    if resume.covers(item.finding):
        return True
    return item.finding.kind is FindingKind.COIN_GONE and booked.get(item.finding.outpoint, 0) > item.serial
