"""The other members: whether they are there, and who they should be.

A member that is dialled proves who it is before it learns anything of the caller, so a key made for the occasion is
enough to find out, and takes one of its places for guests for a moment. While the process itself runs, its own
connections tell.
"""

import random
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from federation.membership import Membership
from pegnode import __version__
from pegnode.config import FunctionaryConfig, NodeConfig
from pegnode.doctor.findings import Check, Finding, ok, problem, warning
from pegnode.net.address import Endpoint, parse_endpoint
from pegnode.net.transport import DropReason, PeerAddress, PeerConnected, PeerId, PeerRefused
from pegnode.rpc.results import StatusReply

CONNECT_TIMEOUT_S: Final = 5.0
HANDSHAKE_TIMEOUT_S: Final = 10.0
ALIVE: Final = (
    DropReason.TOO_MANY_GUESTS,
    DropReason.TOO_MANY_CONNECTIONS,
    DropReason.BACKING_OFF,
    DropReason.UNKNOWN_PEER,
    DropReason.DUPLICATE,
)
"""Who refuses us for one of these has proved who it is."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the way to a member led. trouble: why no connection came about; empty when one did.

    connected: our running process is connected to it.  refusal: why the handshake failed; None when it succeeded, or
    was not tried.
    """

    name: str
    address: str
    trouble: str = ""
    connected: bool = False
    refusal: DropReason | None = None


def check_peer(reach: Reach) -> Finding:
    """Whether the member is there, and is who it should be."""
    where = f"{reach.name} at {reach.address}"
    if reach.connected:
        return ok(Check.PEER, f"{where}: connected")
    if reach.trouble:
        remedy = f"ask {reach.name} whether its process runs and its firewall lets you in; compare the address"
        return warning(Check.PEER, f"{where}: {reach.trouble}", remedy)
    if reach.refusal is None:
        return ok(Check.PEER, f"{where}: there, and who it should be")
    if reach.refusal in ALIVE:
        return ok(Check.PEER, f"{where}: there; it has no place for a guest just now ({reach.refusal})")
    if reach.refusal is DropReason.WRONG_CHAIN:
        remedy = f"compare the chain ids with {reach.name}: peg federation assemble shows the differences"
        return problem(Check.PEER, f"{where}: is on another chain, from another genesis", remedy)
    if reach.refusal is DropReason.WRONG_VERSION:
        return problem(Check.PEER, f"{where}: runs another release", "run the same release as the other members")
    what = f"{where}: what answers there is not {reach.name} ({reach.refusal})"
    return problem(Check.PEER, what, f"compare address and peer id with {reach.name}")


def check_quorum(reaches: Sequence[Reach], membership: Membership, is_member: bool) -> Finding:
    """Whether enough members are there to make blocks."""
    present = sum(not reach.trouble and (reach.refusal is None or reach.refusal in ALIVE) for reach in reaches)
    present += is_member
    what = f"{present} of {membership.size} members are there{', counting this one' if is_member else ''}"
    if present < membership.quorum:
        remedy = f"blocks need {membership.quorum}: see the members above"
        return problem(Check.QUORUM, what, remedy)
    return ok(Check.QUORUM, f"{what}; blocks need {membership.quorum}")


def check_complete(names: Sequence[str], own: str, membership: Membership) -> list[Finding]:
    """Whether every other member has an address. names: of the configured peers."""
    missing = [member.name for member in membership.members if member.name not in (*names, own)]
    if not missing:
        return []
    what = f"no address for {', '.join(missing)}"
    return [warning(Check.PEER, what, "add a [[p2p.peers]] section for each, with the address from its card")]


async def members(
    config: NodeConfig, membership: Membership, chain_id: bytes, status: StatusReply | None
) -> list[Finding]:
    """Every member that the configuration names. status: of our own process, if it runs."""
    index = {member.name: member.index for member in membership.members}
    peers = [peer for peer in config.p2p.peers if peer.name in index]  # an unknown name is refused elsewhere
    names = [peer.name for peer in peers]
    connected = {item.member for item in status.members if item.connected} if status else set()
    reaches: dict[str, Reach] = {}

    async def reach(name: str, address: str) -> None:
        trouble = await _connect(parse_endpoint(address))
        reaches[name] = Reach(name, address, trouble, connected=index[name] in connected and not trouble)

    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(reach, peer.name, peer.address)
    ids = {name: PeerId(membership.members[index[name]].peer_id) for name in names}
    open_questions = {ids[one.name]: one.address for one in reaches.values() if not one.trouble and not one.connected}
    refusals = await _greet(open_questions, frozenset(PeerId(m.peer_id) for m in membership.members), chain_id)
    found = [
        Reach(one.name, one.address, one.trouble, one.connected, refusals.get(ids[name]))
        for name in names
        for one in (reaches[name],)
    ]
    own = config.name if isinstance(config, FunctionaryConfig) else ""
    return [
        *(check_peer(one) for one in found),
        *check_complete(names, own, membership),
        check_quorum(found, membership, own in index),
    ]


async def _connect(endpoint: Endpoint) -> str:
    """Connect and hang up; why that failed, or nothing."""
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            await trio.socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError:
        return "no such host"
    except trio.TooSlowError:
        return "the name service does not answer"
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            stream = await trio.open_tcp_stream(endpoint.host, endpoint.port)
    except trio.TooSlowError:
        return f"no answer within {CONNECT_TIMEOUT_S:.0f} s"
    except OSError:
        return "nobody accepts a connection"
    await trio.aclose_forcefully(stream)
    return ""


async def _greet(
    addresses: Mapping[PeerId, str], members: frozenset[PeerId], chain_id: bytes
) -> dict[PeerId, DropReason]:
    """Shake hands with each as a guest; why that failed, for those with whom it did."""
    from pegnode.net.libp2p_host import HostSettings, Libp2pHost  # the network library takes a second to import

    if not addresses:
        return {}
    dial = tuple(PeerAddress(peer, address) for peer, address in addresses.items())
    settings = HostSettings(chain_id=chain_id, software=f"pegnode/{__version__}", members=members, dial=dial)
    host = Libp2pHost(secrets.token_bytes(32), settings, random.Random())
    refusals = dict.fromkeys(addresses, DropReason.HANDSHAKE_FAILED)
    waiting = set(addresses)
    with trio.move_on_after(HANDSHAKE_TIMEOUT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(host.run)
            async for event in host.events:
                if isinstance(event, PeerConnected | PeerRefused) and event.peer in waiting:
                    waiting.discard(event.peer)
                    if isinstance(event, PeerRefused):
                        refusals[event.peer] = event.reason
                    else:
                        del refusals[event.peer]
                if not waiting:
                    break
            nursery.cancel_scope.cancel()
    return refusals
