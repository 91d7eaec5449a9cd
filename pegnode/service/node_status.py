"""What a node says of itself and of the members: everything `getstatus` tells that is not in its store."""

from collections.abc import Callable, Sequence
from typing import Final

from bridge.maintenance import Backlog, backlog
from federation.journal_errors import RENEW
from pegnode import __version__
from pegnode.consensus.parameters import ConsensusParams
from pegnode.net.transport import PeerId
from pegnode.service.catch_up import CatchUp
from pegnode.service.consensus_watch import ConsensusWatch
from pegnode.service.core import NodeCore
from pegnode.service.l1_monitor import L1Monitor
from pegnode.service.peers import Peers
from pegnode.service.stall import ChainFacts, MemberSeen, stall
from pegnode.signing.port import SignerPort
from pegnode.status import JournalStatus, L1Status, MemberStatus, NodeStatus, Stall

MOST_SUSPICIONS_TOLD: Final = 5
OWN_SOFTWARE: Final = f"pegnode/{__version__}"


class StatusReport:
    """Answers from the node's parts, and remembers when members came and went, and what they called themselves.

    signer, watch, journal: None on a node without keys.
    """

    def __init__(
        self,
        core: NodeCore,
        peers: Peers,
        catch_up: CatchUp,
        l1: L1Monitor,
        consensus: ConsensusParams,
        signer: SignerPort | None,
        watch: ConsensusWatch | None,
        journal: Callable[[], JournalStatus] | None,
    ) -> None:
        self._core = core
        self._peers = peers
        self._catch_up = catch_up
        self._l1 = l1
        self._consensus = consensus
        self._signer = signer
        self._member = None if signer is None else signer.index
        self._watch = watch
        self._journal = journal
        self._started_ms = core.now_ms()
        self._left_ms: dict[PeerId, int] = {}
        self._software: dict[PeerId, str] = {}
        self._backlog: tuple[int, Backlog | None] | None = None
        peers.on_connected(self._note_arrival)
        peers.on_disconnected(self._note_departure)

    def _note_arrival(self, peer: PeerId) -> None:
        presence = self._peers.presence_of(peer)
        if presence is not None and self._peers.member_of(peer) is not None:
            self._software[peer] = presence.software

    def _note_departure(self, peer: PeerId) -> None:
        if self._peers.member_of(peer) is not None:
            self._left_ms[peer] = self._core.now_ms()

    def status(self) -> NodeStatus:
        """The state of the node now."""
        core, tip, now_ms = self._core, self._core.store.tip.header, self._core.now_ms()
        best = self._catch_up.best_known_height
        members = self._members()
        view = self._watch.view if self._watch else tip.view + 1
        journal = self._journal() if self._journal else None
        stands = stall(self._facts(members, journal, now_ms))
        return NodeStatus(
            version=__version__,
            member=self._member,
            started_ms=self._started_ms,
            uptime_ms=now_ms - self._started_ms,
            view=view,
            leader=core.rules.membership.leader(view),
            best_known_height=best,
            syncing=best > tip.height + 1,
            l1=self._l1_status(),
            members=members,
            halts=core.active_findings(),
            waiting_for=tuple(self._missing(members, journal, stands)),
            final_age_ms=max(0, now_ms - tip.time_ms),
            timeout_ms=self._timeout_ms,
            journal=journal,
            key_alarm=core.key_alarm,
            stall=stands,
        )

    @property
    def _timeout_ms(self) -> int:
        measured_ms = self._watch.timeout_ms if self._watch else None
        return self._consensus.view_timeout_ms if measured_ms is None else measured_ms

    def _l1_status(self) -> L1Status:
        tip = self._core.watcher.tip
        return L1Status(
            health=self._core.l1,
            version=self._l1.version,
            height=tip.height if tip else None,
            block_hash=tip.hash if tip else None,
            feerate_sat_kvb=self._l1.feerate_sat_kvb,
        )

    def _members(self) -> tuple[MemberStatus, ...]:
        guilty = [equivocation.member for equivocation in self._core.store.equivocations()]
        missed = self._watch.missed_leaders if self._watch else frozenset()
        indexes = [member.index for member in self._core.rules.membership.members]
        return tuple(self._member_status(index, guilty.count(index), index in missed) for index in indexes)

    def _member_status(self, member: int, equivocations: int, missed_turn: bool) -> MemberStatus:
        peer, is_self = self._peers.peer_of(member), member == self._member
        connected = is_self or self._peers.is_connected(member)
        buried = self._core.l1_reports.get(member)
        return MemberStatus(
            member=member,
            connected=connected,
            missing_since_ms=None if connected else self._left_ms.get(peer, self._started_ms),
            round_trip_ms=None if is_self or not connected else self._peers.transport.round_trip_ms(peer),
            last_vote=self._watch.last_vote(member) if self._watch else None,
            software=OWN_SOFTWARE if is_self else self._software.get(peer, ""),
            final_height=self._core.store.tip.header.height if is_self else self._catch_up.height_of(peer),
            l1_buried_height=None if buried is None else buried.height,
            missed_turn=missed_turn,
            equivocations=equivocations,
        )

    def _facts(self, members: Sequence[MemberStatus], journal: JournalStatus | None, now_ms: int) -> ChainFacts:
        core, watch = self._core, self._watch
        names = [member.name for member in core.rules.membership.members]
        return ChainFacts(
            now_ms=now_ms,
            started_ms=self._started_ms,
            member=self._member,
            members=[
                MemberSeen(name, seen.connected, seen.missing_since_ms, seen.last_vote, seen.l1_buried_height)
                for name, seen in zip(names, members, strict=True)
            ],
            quorum=core.rules.membership.quorum,
            view=watch.view if watch else core.store.tip.header.view + 1,
            height=core.store.tip.header.height,
            best_known_height=self._catch_up.best_known_height,
            due_since_ms=watch.due_since_ms if watch else self._overdue_since_ms(now_ms),
            timeout_ms=max(self._consensus.view_timeout_ms, watch.due_timeout_ms if watch else 0),
            contradicted=watch is not None and watch.contradicted,
            obstacles=tuple(self._obstacles(journal)),
            withheld=watch.withheld if watch else None,
        )

    def _overdue_since_ms(self, now_ms: int) -> int | None:
        """For a node without keys: since when the heartbeat's block is due, as far as it can have heard of it."""
        heard_ms = max(self._core.store.tip.header.time_ms, self._started_ms)
        due_ms = heard_ms + self._consensus.heartbeat_ms
        return due_ms if due_ms <= now_ms else None

    def _obstacles(self, journal: JournalStatus | None) -> list[str]:
        """Why this member casts no votes."""
        found = self._of_journal(journal)
        if self._signer is not None and self._signer.waiting_for is not None:
            found.append(f"it waits for {self._signer.waiting_for}")
        if self._watch is not None and self._watch.vote_refused is not None:
            found.append(f"its signer refuses: {self._watch.vote_refused}")
        return found

    def _of_journal(self, journal: JournalStatus | None) -> list[str]:
        """Why this member's journal has it cast no votes."""
        if journal is None or (journal.state == "kept" and not journal.waits_for):
            return []
        if journal.state == "behind":
            return [f"its journal lacks a vote of this member that others hold: stop it; then: {RENEW}"]
        does = "its journal is renewed" if journal.state == "renewing" else "it asks for its own votes"
        members = self._core.rules.membership.members
        names = ", ".join(members[member].name for member in journal.waits_for)
        return [f"{does}: heard {journal.heard_from} of {journal.needed} needed; waits for {names}"]

    def _missing(
        self, members: Sequence[MemberStatus], journal: JournalStatus | None, stands: Stall | None
    ) -> list[str]:
        """What the node waits for. Too few members are told by the stall, once there is one."""
        core = self._core
        missing: list[str] = []
        if core.l1.state.waits:
            missing.append(": ".join(filter(None, ("the Bitcoin node", core.l1.state, core.l1.detail))))
        missing += _suspected(core.suspicions())
        if core.waiting_for is not None:
            missing.append(core.waiting_for)
        if self._signer is not None and self._signer.waiting_for is not None:
            missing.append(self._signer.waiting_for)
        if self._watch is not None and self._watch.vote_refused is not None:
            missing.append(f"votes of its signer, which refuses: {self._watch.vote_refused}")
        missing += [f"a vote of its own ({obstacle})" for obstacle in self._of_journal(journal)]
        missing += self._refresh()
        quorum = core.rules.membership.quorum
        reachable = sum(member.connected for member in members)
        if self._member is not None and reachable < quorum and stands is None:
            missing.append(f"a quorum of {quorum} members, of which {reachable} are reachable")
        return missing

    def _refresh(self) -> list[str]:
        """Coins that may grow too old, looked for once for each final block."""
        ledger, height = self._core.store.ledger, self._core.store.tip.header.height
        if self._backlog is None or self._backlog[0] != height:
            self._backlog = (height, backlog(ledger, self._core.rules.params))
        late = self._backlog[1]
        if late is None:
            return []
        what = f"the refresh of old coins of the reserve, {late.coins} with {late.value_sats} satoshis"
        needed = f"which takes {late.blocks_needed} L1 blocks at the least"
        return [f"{what}, {needed}: in {late.blocks_left} the recovery keys may spend the oldest"]


def _suspected(suspicions: Sequence[str]) -> list[str]:
    """What may become a halt, some of it."""
    told = [f"certainty whether it has to halt: {detail}" for detail in suspicions[:MOST_SUSPICIONS_TOLD]]
    more = len(suspicions) - len(told)
    return [*told, f"certainty about {more} more findings"] if more else told
