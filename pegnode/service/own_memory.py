"""What this member knows of its own votes: asked of the others at each start, and told to those who ask.

Theory of operation. A member whose journal is whole signs nothing against its own word. Whether it is whole, nothing
local can tell, so at each start every other member is asked for the newest votes that it saw of this one, and for the
certificate of the highest view that it knows. A number drawn at this start comes back in the answer: none is older.

    journal      signs again                                    above
    kept         when 2f + 1 others have answered; after        its floor; the highest view heard, if this
                 GRACE_S, when a quorum less one has, if        member knew of none so high
                 that is fewer
    forgotten    when 2f + 1 others have vouched                the highest view heard + 2

A vote by this member's key that the journal lacks ends it, whoever shows it, alone or in a proof of its guilt: the
journal is given up for good, and nothing is signed. One that has forgotten learns from such a vote how far it signed.
A member vouches once it signs itself, and knows a certificate of its floor's view or of a higher one. Among 2f + 1
others who vouch one is honest and voted for what this member's highest vote rested on. Source: docs/consensus.md.

A kept journal never waits for more than a quorum less one: without so many others no vote of this member leads to
anything. So members that start together wait for one another no longer than the chain does.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Literal

import structlog
import trio

from bridge.errors import MalformedError
from federation.certificate import Certificate, Vote, VoteRejected, verify_certificate, verify_vote
from federation.journal import Journal
from federation.journal_errors import lacking
from federation.journal_header import JournalState
from pegnode.net.messages import OwnVotesAnswer, OwnVotesRequest
from pegnode.net.transport import DropReason, PeerId
from pegnode.service.core import NodeCore
from pegnode.service.peers import Peers
from pegnode.service.unfinal import UnfinalBlock
from pegnode.status import JournalStatus

log = structlog.get_logger()

NONCE_SIZE: Final = 32
ASK_AGAIN_S: Final = 1.0
GRACE_S: Final = 3.0
"""How long a kept journal waits for more than a quorum less one: connections and answers take far less."""
VIEWS_UNSEEN: Final = 2
"""How far above what 2f + 1 others know of this member may have voted."""
_STATES: Final[Mapping[JournalState, Literal["kept", "renewing", "behind"]]] = {
    JournalState.KEPT: "kept",
    JournalState.FORGOTTEN: "renewing",
    JournalState.BEHIND: "behind",
}
"""In the words of `JournalStatus`."""


class OwnMemory:
    """Guards one member's journal. random_bytes: fresh for each call."""

    def __init__(
        self, core: NodeCore, peers: Peers, journal: Journal, member: int, random_bytes: Callable[[int], bytes]
    ) -> None:
        membership = core.rules.membership
        self._core = core
        self._peers = peers
        self._journal = journal
        self._member = member
        self._nonce = random_bytes(NONCE_SIZE)
        self._others = tuple(other.index for other in membership.members if other.index != member)
        self._needed = 2 * membership.fault_tolerance + 1
        self._least = membership.quorum - 1
        self._known_view = self._certified_view()
        self._asked: Counter[PeerId] = Counter()
        self._answered: set[int] = set()
        self._vouched: set[int] = set()
        self._highest: Certificate | None = None
        self._own_view = 0
        self._lacking: Vote | None = None
        self._is_restored = False
        self._changed = trio.Event()
        peers.on_message(OwnVotesRequest, self._answer, from_guests=False)
        peers.on_message(OwnVotesAnswer, self._receive, from_guests=False)
        peers.on_connected(self._ask)
        peers.on_disconnected(self._forget)
        core.on_final(self._check_final)

    @property
    def may_sign(self) -> bool:
        """Whether votes may be signed: the journal holds all that this member signed, as far as anybody told."""
        return self._is_restored and self._lacking is None

    @property
    def waits_for(self) -> tuple[int, ...]:
        """The members whose answer could end the wait; none once nothing is waited for."""
        if self._is_restored:
            return ()
        return tuple(member for member in self._others if member not in self._heard)

    def status(self) -> JournalStatus:
        """For people."""
        journal = self._journal
        return JournalStatus(
            state=_STATES[journal.state],
            floor_view=journal.floor_view,
            newest_vote_view=journal.newest_vote_view,
            heard_from=len(self._heard),
            needed=self._needed,
            waits_for=self.waits_for,
        )

    async def restored(self) -> None:
        """Return when votes may be signed; the journal's floor is where it must be. Raises JournalRefused (BEHIND)."""
        ask_s = trio.current_time()
        patient_until_s = ask_s + GRACE_S
        while not self._is_enough(trio.current_time() >= patient_until_s):
            if self._lacking is not None:
                raise lacking(self._lacking)
            if trio.current_time() >= ask_s:
                ask_s = trio.current_time() + ASK_AGAIN_S
                for member in self.waits_for:
                    self._ask(self._peers.peer_of(member))
            with trio.move_on_at(ask_s):
                await self._changed.wait()
            self._changed = trio.Event()
        if self._lacking is not None:
            raise lacking(self._lacking)
        self._journal.prune(self._core.store.tip.header.view)
        self._raise_floor()
        self._is_restored = True

    def witness(self, vote: Vote) -> None:
        """Keep a checked vote of another member, for when it asks."""
        self._journal.witness(vote)

    def found(self, vote: Vote) -> None:
        """Hear of a checked vote; if this member's key signed it and the journal lacks it, sign nothing any more."""
        if vote.member == self._member:
            self._own_view = max(self._own_view, vote.view)
        if self._lacking is None and self._journal.state is JournalState.KEPT and self._journal.lacks(vote):
            self._lacking = vote
            self._journal.give_up()
            log.error("the journal is behind: no more votes are signed", detail=str(lacking(vote)))
            self._changed.set()

    @property
    def _heard(self) -> set[int]:
        return self._vouched if self._journal.state is JournalState.FORGOTTEN else self._answered

    def _is_enough(self, is_late: bool) -> bool:
        if self._journal.state is JournalState.FORGOTTEN:
            return len(self._vouched) >= self._needed  # who is alone has nobody to tell, and stays silent
        wanted = min(self._needed, len(self._others))
        return len(self._answered) >= (min(wanted, self._least) if is_late else wanted)

    def _raise_floor(self) -> None:
        """Bar the views in which this member may have voted."""
        if self._highest is not None:
            self._journal.record_certificate(self._highest)
        heard_view = 0 if self._highest is None else self._highest.view
        if self._journal.state is JournalState.FORGOTTEN:
            self._journal.raise_floor(max(heard_view, self._certified_view(), self._own_view) + VIEWS_UNSEEN)
            log.info("the journal is renewed", floor_view=self._journal.floor_view, heard_from=sorted(self._vouched))
        elif heard_view > self._known_view:
            self._journal.raise_floor(heard_view)

    def _certificate(self) -> bytes:
        """The certificate of the highest view that this member knows; empty if none."""
        tip, newest = self._core.store.tip.header, self._journal.newest_certificate
        if newest is not None and newest.view > tip.view:
            return newest.encode()
        return self._core.store.certificate_at(tip.height) or b""

    def _certified_view(self) -> int:
        newest = self._journal.newest_certificate
        return max(self._core.store.tip.header.view, 0 if newest is None else newest.view)

    def _check_final(self, unfinal: UnfinalBlock) -> None:
        """A final block may hold a vote of this member."""
        header = unfinal.block.header
        data = self._core.store.certificate_at(header.height)
        if data is not None and header.view > self._journal.floor_view:
            for vote in Certificate.decode(data).votes():
                self.found(vote)

    # Asking and answering

    def _ask(self, peer: PeerId) -> None:
        if self._peers.member_of(peer) is not None and self._peers.send(peer, OwnVotesRequest(self._nonce)):
            self._asked[peer] += 1

    def _forget(self, peer: PeerId) -> None:
        del self._asked[peer]

    def _answer(self, peer: PeerId, message: OwnVotesRequest) -> None:
        asker = self._peers.member_of(peer)
        seen = () if asker is None else self._journal.witnessed(asker)
        vouches = self.may_sign and self._certified_view() >= self._journal.floor_view
        votes = tuple(vote.encode() for vote in seen)
        self._peers.send(peer, OwnVotesAnswer(message.nonce, votes, self._certificate(), vouches))

    def _receive(self, peer: PeerId, message: OwnVotesAnswer) -> None:
        member = self._peers.member_of(peer)
        if not self._asked[peer] or member is None:
            self._peers.drop(peer, DropReason.MISPLACED_MESSAGE, "own votes that were not asked for")
            return
        self._asked[peer] -= 1
        if message.nonce != self._nonce:
            raise MalformedError("the answer to another question")
        try:
            votes, certificate = self._checked(message)
        except VoteRejected as rejected:
            self._peers.drop(peer, DropReason.FALSE_SIGNATURE, str(rejected))
            return
        for vote in votes:
            self.found(vote)
        if certificate is not None and (self._highest is None or certificate.view > self._highest.view):
            self._highest = certificate
        self._answered.add(member)
        if message.vouches:
            self._vouched.add(member)
        self._changed.set()

    def _checked(self, message: OwnVotesAnswer) -> tuple[list[Vote], Certificate | None]:
        """What an answer says. Raises MalformedError, VoteRejected."""
        membership, chain_id = self._core.rules.membership, self._core.rules.chain_id
        votes = [Vote.decode(data) for data in message.votes]
        if any(vote.member != self._member for vote in votes):
            raise MalformedError("a vote of another member than the one that asked")
        for vote in votes:
            verify_vote(vote, membership, chain_id)
        certificate = Certificate.decode(message.certificate) if message.certificate else None
        if certificate is not None:
            verify_certificate(certificate, membership, chain_id)
        return votes, certificate
