"""Who is guilty, who says so, and who knows, in a federation in memory."""

from collections.abc import Iterable

from federation.certificate import Vote
from federation.equivocation import Equivocation, verify_equivocation
from pegnode.net.messages import EquivocationsMessage, VotesMessage
from pegnode.net.transport import PeerId, PeerRole
from tests.support.members import Member, MemoryFederation, Stranger

FAULTY = 3
HONEST = (0, 1, 2)


def proof(*items: Equivocation) -> EquivocationsMessage:
    """What tells of these."""
    return EquivocationsMessage(tuple(item.encode() for item in items))


def votes(*items: Vote) -> VotesMessage:
    """What says these."""
    return VotesMessage(tuple(vote.encode() for vote in items))


def known(member: Member) -> tuple[Equivocation, ...]:
    """The proofs that a node keeps; checked: that each holds, and that no running node is accused."""
    found = member.store.equivocations()
    rules = member.federation.rules
    for item in found:
        verify_equivocation(item, rules.membership, rules.chain_id)
    return found


def alarm(member: Member) -> str:
    """What a member says of its own key."""
    return member.core.key_alarm or ""


def accused(member: Member) -> set[int]:
    """Against whom a node keeps proofs."""
    return {item.member for item in known(member)}


async def faulty(federation: MemoryFederation, index: int = FAULTY) -> Stranger:
    """A Byzantine member that the test plays, connected to everybody."""
    stranger = await federation.join(federation.peer_id(index), PeerRole.MEMBER)
    running = {federation.peer_id(other) for other in federation.members}
    await federation.until(lambda: running <= stranger.transport.connected())
    return stranger


async def guest(federation: MemoryFederation, name: str = "a guest") -> Stranger:
    """A peer without keys, connected to every running member."""
    stranger = await federation.join(PeerId(name))
    running = {federation.peer_id(index) for index in federation.members}
    await federation.until(lambda: running <= stranger.transport.connected())
    return stranger


def nodes(federation: MemoryFederation, *others: Member) -> Iterable[Member]:
    """The members that run, and these."""
    return (*federation.members.values(), *others)
