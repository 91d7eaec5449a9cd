"""The first entry of a journal: whose it is, whether it may be signed by, and up to where nothing is signed."""

import enum
from dataclasses import dataclass, replace
from typing import Self

from bridge.bitcoin.identifiers import HASH_SIZE
from bridge.codec import Encoded, Reader, Writer
from bridge.errors import MalformedError

FORMAT_VERSION = 1
LAST_VIEW = 2**64 - 1
"""The highest that a vote can name: a u64. No floor is so high, so that one view always lies above."""


class JournalState(enum.IntEnum):
    """Whether a journal may be signed by. u8 in its header."""

    KEPT = 0
    """It knows every vote above its floor."""
    FORGOTTEN = 1
    """It was made in place of a lost one: how far this member may have signed is not known yet."""
    BEHIND = 2
    """A vote was found that it should hold and lacks. It is not used again."""


@dataclass(frozen=True, slots=True)
class JournalIdentity:
    """Whose journal it is. chain_id: 32 bytes.  epoch: u32.  member: u16."""

    chain_id: bytes
    epoch: int
    member: int


@dataclass(frozen=True, slots=True)
class JournalHeader(Encoded):
    """pruned_view: the last final view known; nothing at or below is kept.  floor_view: at least that; never signed in.

    Both are u64.
    """

    state: JournalState
    identity: JournalIdentity
    floor_view: int
    pruned_view: int

    def write(self, writer: Writer) -> None:
        """Append version u8, state u8, chain id 32, epoch u32, member u16, floor view u64, pruned view u64."""
        writer.u8(FORMAT_VERSION).u8(self.state).fixed(self.identity.chain_id, HASH_SIZE)
        writer.u32(self.identity.epoch).u16(self.identity.member).u64(self.floor_view).u64(self.pruned_view)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        version = reader.u8()
        if version != FORMAT_VERSION:
            raise MalformedError(f"format {version}, not {FORMAT_VERSION}")
        state = reader.enumeration(JournalState)
        identity = JournalIdentity(reader.take(HASH_SIZE), reader.u32(), reader.u16())
        floor_view, pruned_view = reader.u64(), reader.u64()
        if not pruned_view <= floor_view < LAST_VIEW:
            raise MalformedError(f"pruned up to view {pruned_view}, and signed above {floor_view}")
        return cls(state, identity, floor_view, pruned_view)

    def with_floor(self, floor_view: int, state: JournalState) -> Self:
        """The same with another floor and state."""
        return replace(self, floor_view=floor_view, state=state)

    def pruned_to(self, final_view: int) -> Self:
        """The same once everything up to a final view is dropped."""
        return replace(self, pruned_view=final_view, floor_view=max(self.floor_view, final_view))
