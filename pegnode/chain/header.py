"""The header of a sidechain block: what consensus votes on, by its hash."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

from bridge.bitcoin.hashes import tagged_hash
from bridge.bitcoin.identifiers import HASH_SIZE, BlockHash
from bridge.codec import Encoded, Reader, Writer
from bridge.state import Anchor

HEADER_VERSION = 1
ANCHOR_SIZE = 4 + HASH_SIZE
HEADER_SIZE = 4 + HASH_SIZE + 4 + 8 + 8 + HASH_SIZE + 2 + 8 + ANCHOR_SIZE + HASH_SIZE + HASH_SIZE


@dataclass(frozen=True)
class Header(Encoded):
    """The header of a block. It holds no certificate, so its hash is known before anybody votes.

    Whether it breaks a rule is looked at elsewhere.

    version, epoch: u32.  height, view, time_ms (milliseconds since 1970): u64.  leader: u16, index in the membership.
    chain_id, parent, body_root, ledger_root: 32 bytes each; the parent of the genesis block is the chain id.
    anchor: the L1 block up to which this block knows L1.  ledger_root: of the ledger after this block.
    """

    version: int
    chain_id: bytes
    epoch: int
    height: int
    view: int
    parent: BlockHash
    leader: int
    time_ms: int
    anchor: Anchor
    body_root: bytes
    ledger_root: bytes

    def write(self, writer: Writer) -> None:
        """Append HEADER_SIZE bytes."""
        writer.u32(self.version).fixed(self.chain_id, HASH_SIZE).u32(self.epoch).u64(self.height).u64(self.view)
        writer.fixed(self.parent, HASH_SIZE).u16(self.leader).u64(self.time_ms)
        self.anchor.write(writer)
        writer.fixed(self.body_root, HASH_SIZE).fixed(self.ledger_root, HASH_SIZE)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            version=reader.u32(),
            chain_id=reader.take(HASH_SIZE),
            epoch=reader.u32(),
            height=reader.u64(),
            view=reader.u64(),
            parent=BlockHash(reader.take(HASH_SIZE)),
            leader=reader.u16(),
            time_ms=reader.u64(),
            anchor=Anchor.read(reader),
            body_root=reader.take(HASH_SIZE),
            ledger_root=reader.take(HASH_SIZE),
        )

    @cached_property
    def hash(self) -> BlockHash:
        """The block's hash, 32 bytes: it commits to the body through `body_root`."""
        return BlockHash(tagged_hash("pegnode/block", self.encode()))

    @property
    def time_seconds(self) -> int:
        """The time that scripts, lock times and relative lock times see: whole seconds since 1970."""
        return self.time_ms // 1000
