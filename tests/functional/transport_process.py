"""A process around one `Libp2pHost`, driven by lines of JSON: commands on stdin, events on stdout.

Hosts are tested in processes of their own, since only a process can be killed or stopped.
"""

import json
import random
import sys
from typing import Any

import trio

from pegnode.net.address import parse_peer_address
from pegnode.net.libp2p_host import HostSettings, Libp2pHost
from pegnode.net.session import LinkLimits
from pegnode.net.transport import (
    DropReason,
    FrameReceived,
    PeerConnected,
    PeerDisconnected,
    PeerId,
    PeerRefused,
    TransportEvent,
)

ECHO = b"echo:"
ANSWER = b"answer:"


def report(**fields: Any) -> None:
    """Write one line for the test to read."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def host_of(config: dict[str, Any]) -> Libp2pHost:
    """Build the host that the test describes."""
    settings = HostSettings(
        chain_id=bytes.fromhex(config["chain_id"]),
        software="test/1",
        members=frozenset(PeerId(peer) for peer in config["members"]),
        dial=tuple(parse_peer_address(text) for text in config["dial"]),
        listen=(config["listen"],),
        max_guests=config["max_guests"],
        limits=LinkLimits(**config["limits"]),
    )
    return Libp2pHost(bytes.fromhex(config["secret"]), settings, random.Random())


async def read_events(host: Libp2pHost) -> None:
    """Report every event, and answer frames that ask for it."""
    async for event in host.events:
        if isinstance(event, FrameReceived) and event.payload.startswith(ECHO):
            host.send(event.peer, ANSWER + event.payload[len(ECHO) :])
        else:
            report(**describe(event))


def describe(event: TransportEvent) -> dict[str, Any]:
    """An event as the test sees it. Of a large payload only the size and the first bytes."""
    match event:
        case FrameReceived(peer, payload):
            return {"event": "frame", "peer": peer, "size": len(payload), "head": payload[:64].decode("latin-1")}
        case PeerConnected(peer, role, software, _):
            return {"event": "connected", "peer": peer, "role": role.name, "software": software}
        case PeerDisconnected(peer, reason, by_peer, _):
            return {"event": "disconnected", "peer": peer, "reason": reason.value, "by_peer": by_peer}
        case PeerRefused(refused, reason, by_peer, _, _):
            return {"event": "refused", "peer": refused, "reason": reason.value, "by_peer": by_peer}


async def obey(host: Libp2pHost) -> None:
    """Carry out the commands on stdin until it ends."""
    async for line in trio.wrap_file(sys.stdin):
        command = json.loads(line)
        match command["do"]:
            case "send":
                payload = command["text"].encode("latin-1").ljust(command.get("size", 0), b".")
                report(event="sent", ok=[host.send(PeerId(peer), payload) for peer in command["to"]])
            case "drop":
                host.drop(PeerId(command["peer"]), DropReason(command["reason"]))
            case "round_trips":
                report(event="round_trips", ms={peer: host.round_trip_ms(peer) for peer in host.connected()})


async def main() -> None:
    """Run the host until stdin ends."""
    host = host_of(json.loads(sys.stdin.readline()))
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        report(event="listening", address=host.listen_addresses[0].text)
        nursery.start_soon(read_events, host)
        await obey(host)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
