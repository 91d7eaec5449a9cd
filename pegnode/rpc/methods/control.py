"""Methods about the node itself, named as bitcoind names them."""

from bridge.bitcoin.identifiers import hash_to_hex
from pegnode.rpc.methods.table import Handler
from pegnode.rpc.node_api import NodeApi, PeerInfo
from pegnode.rpc.render import Json, anchor_reply, btc, halt_reply
from pegnode.rpc.results import JournalReply, L1Reply, MemberReply, StallReply, StatusReply
from pegnode.status import JournalStatus, MemberStatus


async def getnetworkinfo(node: NodeApi) -> Json:
    """The node's version and its connections."""
    peers, status = node.peers(), node.status()
    return {
        "version": version_number(status.version),
        "subversion": f"/Pegnode:{status.version}/",
        "localrelay": True,
        "networkactive": True,
        "connections": len(peers),
        "relayfee": btc(node.pool_limits.min_feerate_sat_kvb),
        "warnings": list(status.halt_findings),
    }


async def getpeerinfo(node: NodeApi) -> list[Json]:
    """The connected peers."""
    return [_peer_json(index, peer) for index, peer in enumerate(node.peers())]


async def listdroppedpeers(node: NodeApi) -> list[Json]:
    """Who was dropped or refused lately, newest first: why, how often, and when last."""
    return [
        {
            "peer_id": dropped.peer_id,
            "member": dropped.member,
            "address": dropped.address,
            "reason": dropped.reason,
            "by_peer": dropped.by_peer,
            "detail": dropped.detail,
            "count": dropped.count,
            "last_ms": dropped.last_ms,
        }
        for dropped in node.dropped_peers()
    ]


async def uptime(node: NodeApi) -> int:
    """For how many seconds the node has run."""
    return node.status().uptime_ms // 1000


async def stop(node: NodeApi) -> str:
    """Begin an orderly shutdown."""
    node.request_stop()
    return "Pegnode stopping"


async def getstatus(node: NodeApi) -> StatusReply:
    """What the node does, what it waits for, and whether it has halted. For people and their monitors."""
    status, tip = node.status(), node.store.tip.header
    l1 = status.l1
    return StatusReply(
        version=status.version,
        member=status.member,
        started_ms=status.started_ms,
        uptime_ms=status.uptime_ms,
        height=tip.height,
        block_hash=hash_to_hex(tip.hash),
        block_time_ms=tip.time_ms,
        best_known_height=max(status.best_known_height, tip.height),
        syncing=status.syncing,
        view=status.view,
        leader=status.leader,
        anchor=anchor_reply(tip.anchor),
        l1=L1Reply(
            state=l1.health.state,
            since_ms=l1.health.since_ms,
            cause=l1.health.state.cause,
            detail=l1.health.detail,
            remedy=l1.health.state.remedy,
            reachable=l1.health.state.answers,
            version=l1.version,
            height=l1.height,
            block_hash=None if l1.block_hash is None else hash_to_hex(l1.block_hash),
            feerate_sat_kvb=l1.feerate_sat_kvb,
        ),
        members=[_member_reply(node, item) for item in status.members],
        mempool_transactions=len(node.mempool),
        mempool_bytes=node.mempool.size_bytes,
        halted=bool(status.halt_findings),
        halt_findings=list(status.halt_findings),
        halts=[halt_reply(item) for item in status.halts],
        waiting_for=list(status.waiting_for),
        final_age_ms=status.final_age_ms,
        timeout_ms=status.timeout_ms,
        journal=_journal_reply(status.journal),
        key_alarm=status.key_alarm,
        stall=None if status.stall is None else StallReply(status.stall.since_ms, status.stall.why),
    )


def _member_reply(node: NodeApi, member: MemberStatus) -> MemberReply:
    vote = member.last_vote
    return MemberReply(
        member=member.member,
        name=node.rules.membership.members[member.member].name,
        connected=member.connected,
        missing_since_ms=member.missing_since_ms,
        round_trip_ms=member.round_trip_ms,
        last_vote_view=None if vote is None else vote.view,
        last_vote_kind=None if vote is None else vote.kind.name.lower(),
        last_vote_ms=None if vote is None else vote.seen_ms,
        software=member.software,
        final_height=member.final_height,
        l1_buried_height=member.l1_buried_height,
        missed_turn=member.missed_turn,
        equivocations=member.equivocations,
    )


def _journal_reply(journal: JournalStatus | None) -> JournalReply | None:
    if journal is None:
        return None
    return JournalReply(
        state=journal.state,
        floor_view=journal.floor_view,
        newest_vote_view=journal.newest_vote_view,
        heard_from=journal.heard_from,
        needed=journal.needed,
        waits_for=list(journal.waits_for),
    )


def version_number(version: str) -> int:
    """bitcoind's number for a version: major, minor and patch, two digits each; what is no number counts as 0."""
    parts = [int(part) if part.isdecimal() else 0 for part in (*version.split("."), "0", "0")[:3]]
    return parts[0] * 10_000 + parts[1] * 100 + parts[2]


def _peer_json(index: int, peer: PeerInfo) -> Json:
    return {
        "id": index,
        "peer_id": peer.peer_id,
        "member": peer.member,
        "pingtime_ms": peer.round_trip_ms,
        "synced_blocks": peer.final_height,
        "address": peer.address,
        "software": peer.software,
        "connected_ms": peer.connected_ms,
    }


CONTROL_METHODS: tuple[Handler, ...] = (getnetworkinfo, getpeerinfo, getstatus, listdroppedpeers, stop, uptime)
