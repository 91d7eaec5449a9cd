"""Proofs that a member signed two votes which exclude each other: found, kept on disk, and passed on to everybody.

Theory of operation. A proof needs no trust, so it is taken from anybody, checked, kept, and told to every peer once and
to each new one on connection. Who sends one that is false is dropped. Of each member at most MAX_OF_MEMBER are kept,
the first for each view and pair of kinds, and none is ever replaced: any order of preference among genuine proofs
would be a ladder that a guilty member, who can sign as many as it likes, climbs for ever. So it costs each peer two
signature checks and one message for each proof kept, and for what comes after them no check at all. Two nodes may keep
different proofs of a member with many; one convicts it.

Members find proofs in what they hear: the machine reports a vote that contradicts one in its book, and a longer memory
of votes meets those that come late or inside certificates. Nothing follows from a conviction by itself: the rules hold
with f members who do this, and the next one is removed by the membership, by people. A proof against this node's own
member says that its key runs twice or was stolen: it is told in its log and status, and to whoever guards the journal,
which lacks one of the two votes at least.
"""

from collections.abc import Callable, Iterable
from typing import Final

import structlog

from bridge.bitcoin.identifiers import hash_to_hex
from federation.certificate import Certificate, Vote
from federation.equivocation import Equivocation, KindPair, conflicting, equivocations_of, verify_equivocation
from federation.errors import Refused
from federation.vote_memory import VoteMemory
from pegnode.net.messages import MAX_EQUIVOCATIONS, EquivocationsMessage
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.core import NodeCore
from pegnode.service.peers import Peers
from pegnode.service.unfinal import UnfinalBlock

log = structlog.get_logger()

MAX_OF_MEMBER: Final = 8
"""Proofs kept of one member."""
BLOCKS_RECALLED: Final = 64
"""How many of the newest final blocks' certificates are heard of again at a start."""
KEY_ADVICE: Final = (
    "an older journal was put back, or the key runs twice, or it was stolen; stop this member, and see "
    "'A key that signed twice' in docs/operating.md"
)


class Equivocations:
    """One node's. own_member: the index of the member whose keys this node has, if any."""

    def __init__(self, core: NodeCore, peers: Peers, own_member: int | None) -> None:
        self._core = core
        self._peers = peers
        self._own_member = own_member
        self._memory = VoteMemory(core.store.tip.header.view)
        self._kept: dict[int, set[tuple[int, KindPair]]] = {}
        self._guards: list[Callable[[Vote], None]] = []
        for item in core.store.equivocations():
            self._count(item)
        tip_height = core.store.tip.header.height
        for height in range(max(0, tip_height - BLOCKS_RECALLED), tip_height):
            self._hear_final(height + 1)
        peers.on_message(EquivocationsMessage, self._receive, from_guests=True)
        peers.on_connected(self._greet)
        core.on_final(self._after_final)

    def on_own_guilt(self, guard: Callable[[Vote], None]) -> None:
        """Have `guard` hear each vote of each proof against this node's own member, of those kept already at once."""
        self._guards.append(guard)
        for item in self._core.store.equivocations():
            if item.member == self._own_member:
                guard(item.first)
                guard(item.second)

    def note(self, first: Vote, second: Vote) -> None:
        """Keep and pass on what two genuine votes of one member prove; nothing, if that is known or they agree."""
        if conflicting(first, second):
            self._take([Equivocation.of(first, second)])

    def note_certificates(self, first: Certificate, second: Certificate) -> None:
        """The same for all who signed two genuine certificates."""
        self._take(equivocations_of(first, second))

    def note_unknown_own_vote(self, vote: Vote) -> None:
        """A genuine vote under this node's own key that its journal lacks."""
        what = "a vote under our key that our journal lacks"
        self._core.key_alarm = self._core.key_alarm or f"{what}, in view {vote.view}: {KEY_ADVICE}"
        log.error(what, view=vote.view, kind=vote.kind.name, advice=KEY_ADVICE)

    def recall(self, votes: Iterable[Vote], certificates: Iterable[Certificate]) -> None:
        """Hear again what was genuine before a restart."""
        for certificate in certificates:  # first, since they tell which views are the newest
            self.hear_certificate(certificate)
        for vote in votes:
            self.hear(vote)

    def hear(self, vote: Vote) -> None:
        """Compare a genuine vote with all that is remembered, and remember it."""
        for rival in self._memory.rivals(vote):
            self.note(rival, vote)
        self._memory.add(vote)

    def hear_certificate(self, certificate: Certificate) -> None:
        """The same for the votes of a genuine certificate."""
        self._memory.advance(certificate.view)
        for vote in certificate.votes():
            self.hear(vote)

    def suspects(self, certificates: Iterable[Certificate]) -> list[Vote]:
        """The votes within certificates, checked or not, that would prove something new if they are genuine."""
        return [
            vote
            for certificate in certificates
            for vote in self._memory.contradicted(certificate)
            if any(self._is_news(Equivocation.of(rival, vote)) for rival in self._memory.rivals(vote))
        ]

    def _receive(self, peer: PeerId, message: EquivocationsMessage) -> None:
        try:
            self._take(map(Equivocation.decode, message.equivocations), peer)
        except Refused as refused:
            self._peers.drop(peer, DropReason.FALSE_SIGNATURE, str(refused))

    def _take(self, items: Iterable[Equivocation], sender: PeerId | None = None) -> None:
        """Keep and pass on those that are news. Raises Refused for the first that is false."""
        for item in items:
            if self._is_news(item):
                verify_equivocation(item, self._core.rules.membership, self._core.rules.chain_id)
                self._core.store.keep_equivocation(item)
                self._count(item)
                self._tell(item)
                self._peers.to_all(EquivocationsMessage((item.encode(),)), sender)

    def _is_news(self, item: Equivocation) -> bool:
        kept = self._kept.get(item.member, set())
        return len(kept) < MAX_OF_MEMBER and (item.view, item.kinds) not in kept

    def _count(self, item: Equivocation) -> None:
        self._kept.setdefault(item.member, set()).add((item.view, item.kinds))
        if item.member == self._own_member:
            what = "our key signed two votes that exclude each other"
            self._core.key_alarm = f"{what}, in view {item.view}: {KEY_ADVICE}"
            log.error(what, view=item.view, advice=KEY_ADVICE)
            for guard in self._guards:
                guard(item.first)
                guard(item.second)

    def _tell(self, item: Equivocation) -> None:
        log.error(
            "equivocation",
            member=item.member,
            name=self._core.rules.membership.members[item.member].name,
            view=item.view,
            kinds=[kind.name.lower() for kind in item.kinds],
            blocks=[hash_to_hex(vote.block_hash) for vote in (item.first, item.second) if vote.block_hash],
        )

    def _greet(self, peer: PeerId) -> None:
        kept = [item.encode() for item in self._core.store.equivocations()]
        for first in range(0, len(kept), MAX_EQUIVOCATIONS):
            self._peers.send(peer, EquivocationsMessage(tuple(kept[first : first + MAX_EQUIVOCATIONS])))

    def _after_final(self, unfinal: UnfinalBlock) -> None:
        """Hear of what catching up brought; what the machine made final was heard of before."""
        self._hear_final(unfinal.block.header.height)

    def _hear_final(self, height: int) -> None:
        certificate = self._core.store.certificate_at(height)
        if certificate is not None:
            self.hear_certificate(Certificate.decode(certificate))
