"""What simulated members send one another, besides votes and certificates."""

from dataclasses import dataclass

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import Certificate, Vote
from tests.machine.fake_chain import FakeBlock


@dataclass(frozen=True)
class Proposal:
    """A leader's block, its vote, and what justifies the parent."""

    block: FakeBlock
    vote: Vote
    certificates: tuple[Certificate, ...]


@dataclass(frozen=True)
class BlockRequest:
    """Who has this body?"""

    block_hash: BlockHash


@dataclass(frozen=True)
class BlockReply:
    """This is it."""

    block: FakeBlock


@dataclass(frozen=True)
class SyncRequest:
    """Which final blocks come after this height?"""

    height: int


@dataclass(frozen=True)
class SyncReply:
    """Final blocks in order, and the finalization of the last."""

    blocks: tuple[FakeBlock, ...]
    certificate: Certificate


@dataclass(frozen=True)
class Work:
    """A transaction."""

    transaction: int


Message = Vote | Certificate | Proposal | BlockRequest | BlockReply | SyncRequest | SyncReply | Work
