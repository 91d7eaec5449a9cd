"""Who the members are in one epoch, how many of them decide, and who leads a view."""

from dataclasses import dataclass

from bridge.bitcoin.curve import is_valid_x_only
from bridge.errors import Reason
from federation.errors import Refused

MAX_MEMBERS = 255
"""Bounds certificates and reserve scripts; federations in use have a few dozen members at most."""


class MembershipReason(Reason):
    """Why a list of members is refused."""

    NO_MEMBERS = "membership-no-members"  # There is no member.
    TOO_MANY_MEMBERS = "membership-too-many-members"  # More than 255 members.
    WRONG_INDEX = "membership-wrong-index"  # A member's index is not its place.
    EMPTY_NAME = "membership-empty-name"  # A member has no name.
    EMPTY_PEER_ID = "membership-empty-peer-id"  # A member has no peer id.
    INVALID_KEY = "membership-invalid-key"  # A vote or custody key is no point of the curve.
    DUPLICATE = "membership-duplicate"  # A name, a peer id or a key stands twice.
    EPOCH_RANGE = "membership-epoch-range"  # The epoch is no u32.


class MembershipRefused(Refused):
    """A list of members that can't be a federation. reason: MembershipReason."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the federation.

    index: position in the membership, from 0.  vote_key32, custody_key32: x-only public keys (BIP340), 32 bytes.
    peer_id: the transport identity, as libp2p writes it.
    """

    index: int
    name: str
    vote_key32: bytes
    custody_key32: bytes
    peer_id: str


@dataclass(frozen=True, slots=True)
class Membership:
    """The members of one epoch (u32), in index order."""

    epoch: int
    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        """n, the number of members."""
        return len(self.members)

    @property
    def fault_tolerance(self) -> int:
        """f, the most members that may be faulty: the greatest f with 3f < n."""
        return (self.size - 1) // 3

    @property
    def quorum(self) -> int:
        """q = n - f: any two quorums share a member that is not faulty."""
        return self.size - self.fault_tolerance

    def leader(self, view: int) -> int:
        """The index of the one member that may propose in `view`."""
        return view % self.size

    def contains(self, member: int) -> bool:
        """Whether `member` is an index of this membership."""
        return 0 <= member < self.size

    def validate(self) -> None:
        """Raise MembershipRefused unless these members can be a federation."""
        if not 0 <= self.epoch <= 0xFFFFFFFF:
            raise MembershipRefused(MembershipReason.EPOCH_RANGE, str(self.epoch))
        if not self.members:
            raise MembershipRefused(MembershipReason.NO_MEMBERS)
        if self.size > MAX_MEMBERS:
            raise MembershipRefused(MembershipReason.TOO_MANY_MEMBERS, f"{self.size}, at most {MAX_MEMBERS}")
        for position, member in enumerate(self.members):
            _validate_member(member, position)
        self._validate_distinct()

    def _validate_distinct(self) -> None:
        """Names, peer ids and keys are each unique; no key serves two purposes, not even at one member."""
        keys = [key for member in self.members for key in (member.vote_key32, member.custody_key32)]
        names = [member.name for member in self.members]
        peer_ids = [member.peer_id for member in self.members]
        for what, values in (("key", keys), ("name", names), ("peer id", peer_ids)):
            if len(set(values)) != len(values):
                raise MembershipRefused(MembershipReason.DUPLICATE, f"a {what} appears twice")


def _validate_member(member: Member, position: int) -> None:
    if member.index != position:
        raise MembershipRefused(MembershipReason.WRONG_INDEX, f"{member.index} at position {position}")
    if not member.name:
        raise MembershipRefused(MembershipReason.EMPTY_NAME, f"member {position}")
    if not member.peer_id:
        raise MembershipRefused(MembershipReason.EMPTY_PEER_ID, f"member {position}")
    for what, key in (("vote", member.vote_key32), ("custody", member.custody_key32)):
        if not is_valid_x_only(key):
            raise MembershipRefused(MembershipReason.INVALID_KEY, f"{what} key of member {position}")
