"""Peers that mean harm to real members: each is dropped by name and reason, and honest transfers go on meanwhile.

dave is hostile: the test has stopped him and speaks with his keys, as one faulty member may. Strangers come from
addresses of their own, since a guest's faults are held against its address.
"""

import secrets
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.stream_muxer.yamux.yamux import FLAG_ACK, TYPE_PING, YAMUX_HEADER_FORMAT

from bridge.bitcoin.curve import x_only
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.script import ScriptType
from bridge.bitcoin.transaction import TxOut
from pegnode.guilt.document import AccusationDocument
from pegnode.local_federation import client_of
from pegnode.net.doorway import MAX_PENDING_INBOUND
from pegnode.net.framing import FrameKind, encode_frame
from pegnode.net.handshake import Hello, encode_hello
from pegnode.net.libp2p_host import CONNECTIONS_BURST
from pegnode.net.messages import (
    BlockAnswer,
    BlockRequest,
    CertificatesMessage,
    EquivocationsMessage,
    EvidenceMessage,
    FinalBlocksAnswer,
    FinalBlocksRequest,
    Message,
    RegistrationsMessage,
    SharesMessage,
    TipMessage,
    TransactionsMessage,
    VotesMessage,
)
from pegnode.net.transport import PeerRole, RemoteFault
from pegnode.rpc.results import StatusReply
from tests.functional.feature_full_node import FullNode, run_node
from tests.support.command_line import Peg
from tests.support.federation import DEADLINE_S, eventually
from tests.support.hostile import HONEST, HOSTILE, Stage, as_hostile_member, connect_from, hostile_stage
from tests.support.lies import (
    GIANT,
    Liar,
    block_on_l1,
    certificate_of_one,
    evidence_of,
    final_block,
    forged_transaction,
    frame,
    guilt_of,
    guilt_of_nobody,
    outpoint,
    proposal_without_a_vote_for_it,
    signed_by_nobody,
)
from tests.support.mini_wallet import MiniWallet
from tests.support.raw_peer import RawPeer, dial, listen

pytestmark = pytest.mark.functional

MAX_GROWTH_BYTES = 150 * 1024 * 1024
"""What a member may need beyond what it needed before, whatever came: inboxes, one frame, and the allocator's slack."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with hostile_stage(tmp_path_factory.mktemp("hostile") / "federation") as made:
        yield made


Attack = Callable[[Stage], bytes]
Flood = Callable[[Stage, str], Awaitable[None]]
"""Its second argument is the address to come from."""

LIES: dict[str, tuple[Attack, str]] = {
    "payload that is nothing": (lambda _: encode_frame(FrameKind.PAYLOAD, b"\xc1"), "garbled-message"),
    "unknown message type": (lambda _: encode_frame(FrameKind.PAYLOAD, b"\x92\x7f\xc0"), "garbled-message"),
    "message of the wrong shape": (lambda _: encode_frame(FrameKind.PAYLOAD, b"\x92\x06\xc0"), "garbled-message"),
    "claim script of no type": (lambda _: frame(RegistrationsMessage((b"x",))), "garbled-message"),
    "vote of a guest": (lambda stage: frame(VotesMessage((signed_by_nobody(stage, 3).encode(),))), "misplaced-message"),
    "block request of a guest": (lambda stage: frame(BlockRequest(final_block(stage))), "misplaced-message"),
    "share of a guest": (lambda _: frame(SharesMessage((b"x",))), "misplaced-message"),
    "blocks nobody asked for": (lambda _: frame(FinalBlocksAnswer(1, (), (), b"")), "misplaced-message"),
    "frame of 4 GiB": (lambda _: b"\xff\xff\xff\xff\x05", "frame-too-large"),
    "frame a byte too large": (lambda _: (GIANT + 2).to_bytes(4, "little") + b"\x05", "frame-too-large"),
    "frame of nothing": (lambda _: bytes(4), "garbled-frame"),
    "frame of no kind": (lambda _: b"\x01\0\0\0\x63", "garbled-frame"),
    "second Hello": (
        lambda stage: encode_frame(FrameKind.HELLO, encode_hello(Hello(stage.chain_id, PeerRole.GUEST, "raw"))),
        "protocol-violation",
    ),
    "pong to no ping": (lambda _: encode_frame(FrameKind.PONG, bytes(8)), "protocol-violation"),
    "no transaction": (lambda _: frame(TransactionsMessage((b"no transaction",))), "false-transaction"),
    "forged transaction": (lambda _: frame(TransactionsMessage((forged_transaction(),))), "false-transaction"),
    "false evidence": (
        lambda stage: frame(EvidenceMessage((evidence_of(block_on_l1(stage)).encode(),))),
        "false-evidence",
    ),
    "no evidence": (lambda _: frame(EvidenceMessage((b"x",))), "garbled-message"),
    "false proof of guilt": (
        lambda stage: frame(EquivocationsMessage((guilt_of_nobody(stage).encode(),))),
        "false-signature",
    ),
    "more requests than may wait": (lambda _: frame(FinalBlocksRequest(1)) * 50, "flood"),
}


@pytest.mark.parametrize(("attack", "reason"), LIES.values(), ids=LIES)
def test_guest_is_dropped_by_reason(stage: Stage, attack: Attack, reason: str) -> None:
    source, attacking = next(stage.sources), attack(stage)

    async def run() -> None:
        async with dial(stage.address("alice"), secrets.token_bytes(32), source) as peer:
            await peer.hello(stage.chain_id, PeerRole.GUEST)
            await peer.hears(TipMessage)
            await peer.write(attacking)
            assert await peer.dropped() in (None, reason)
        # Under another name it is kept out all the same.
        with suppress(RemoteFault, ExceptionGroup):
            async with dial(stage.address("alice"), secrets.token_bytes(32), source):
                pass

    trio.run(run)
    eventually(lambda: bool(stage.drops("alice", address=source, reason=reason, by_peer=False)), f"dropped: {reason}")
    eventually(lambda: bool(stage.drops("alice", address=source, reason="backing-off")), "and kept out")


WELCOMES: dict[str, tuple[Callable[[Stage, RawPeer], Awaitable[None]], str]] = {
    "another chain": (lambda _, peer: peer.hello(bytes(32), PeerRole.GUEST), "wrong-chain"),
    "another version": (lambda stage, peer: peer.hello(stage.chain_id, PeerRole.GUEST, version=2), "wrong-version"),
    "claims to be a member": (lambda stage, peer: peer.hello(stage.chain_id, PeerRole.MEMBER), "wrong-role"),
    "message before the Hello": (lambda _, peer: peer.say(TipMessage(1, bytes(32))), "protocol-violation"),
}


@pytest.mark.parametrize(("greet", "reason"), WELCOMES.values(), ids=WELCOMES)
def test_stranger_is_refused_by_reason(
    stage: Stage, greet: Callable[[Stage, RawPeer], Awaitable[None]], reason: str
) -> None:
    source = next(stage.sources)

    async def run() -> None:
        async with dial(stage.address("bob"), secrets.token_bytes(32), source) as peer:
            await greet(stage, peer)
            assert await peer.dropped() in (None, reason)

    trio.run(run)
    eventually(lambda: bool(stage.drops("bob", address=source, reason=reason)), f"refused: {reason}")


BETRAYALS: dict[str, list[tuple[str, Callable[[Stage], Message]]]] = {
    "alice": [
        ("false-signature", lambda stage: VotesMessage((signed_by_nobody(stage, 0).encode(),))),
        ("misplaced-message", lambda stage: BlockAnswer(final_block(stage), b"")),
    ],
    "bob": [
        ("false-signature", lambda stage: CertificatesMessage((certificate_of_one(stage),))),
        ("garbled-message", lambda stage: VotesMessage((b"no vote",))),
    ],
    "carol": [
        ("garbled-message", proposal_without_a_vote_for_it),
        ("misplaced-message", lambda _: FinalBlocksAnswer(1, (), (), b"")),
    ],
}


def test_member_that_betrays_is_dropped_by_name_and_reason_and_may_come_back(stage: Stage) -> None:
    async def betray(name: str) -> None:
        for reason, message in BETRAYALS[name]:
            saying = message(stage)
            async with as_hostile_member(stage, name) as peer:
                await peer.say(saying)
                assert await peer.dropped() in (None, reason)
        async with as_hostile_member(stage, name):
            pass

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            for name in BETRAYALS:
                nursery.start_soon(betray, name)

    trio.run(run)
    index = stage.signer().index
    for name, betrayals in BETRAYALS.items():
        for reason, _ in betrayals:
            eventually(
                lambda name=name, reason=reason: bool(  # type: ignore[misc]
                    stage.drops(name, member=index, by_peer=False, reason=reason)
                ),
                f"{name} dropped him: {reason}",
            )
    stage.pay()


# Floods


async def until_dropped(stage: Stage, source: str, attack: bytes) -> None:
    """Say the same, as fast as it is taken, until the connection ends."""
    async with dial(stage.address("alice"), secrets.token_bytes(32), source) as peer:
        await peer.hello(stage.chain_id, PeerRole.GUEST)
        await peer.hears(TipMessage)
        with trio.fail_after(DEADLINE_S):
            while not peer.ended.is_set():
                await peer.write(attack)
                await trio.lowlevel.checkpoint()


async def tips(stage: Stage, source: str) -> None:
    await until_dropped(stage, source, frame(TipMessage(2**62, bytes(32))) * 500)


async def pings(stage: Stage, source: str) -> None:
    await until_dropped(stage, source, encode_frame(FrameKind.PING, bytes(8)) * 1_000)


async def frames_of_the_muxer(stage: Stage, source: str) -> None:
    """Pongs of Yamux, which cost no message. They are read so slowly that nothing else of the peer is heard."""
    pongs = struct.pack(YAMUX_HEADER_FORMAT, 0, TYPE_PING, FLAG_ACK, 0, 1) * 5_000
    async with dial(stage.address("alice"), secrets.token_bytes(32), source) as peer:
        await peer.hello(stage.chain_id, PeerRole.GUEST)
        await peer.hears(TipMessage)
        with trio.fail_after(DEADLINE_S), suppress(ConnectionClosedError):
            while not peer.ended.is_set():
                async with peer.stream.muxer._write_lock:
                    await peer.stream.muxer.secured_conn.write(pongs)
                await trio.lowlevel.checkpoint()


async def cheap_transactions(stage: Stage, source: str) -> None:
    """Valid but for the fee, which no pool takes."""
    spender, script = MiniWallet("cheap"), MiniWallet("cheap").script(ScriptType.P2TR)
    cheap = [spender.pay(stage.coin, *[script] * count, fee_sats=1).serialize() for count in range(1, 40)]
    await until_dropped(stage, source, frame(TransactionsMessage(tuple(cheap) * 20)))


async def orphans(stage: Stage, source: str) -> None:
    """Transactions of whose inputs nobody has heard."""
    wallet = MiniWallet("nobody")
    coins = [(outpoint(number), TxOut(50_000, wallet.script())) for number in range(200)]
    await until_dropped(
        stage,
        source,
        frame(TransactionsMessage(tuple(wallet.pay(coin, wallet.script()).serialize() for coin in coins))),
    )


async def large_transactions(stage: Stage, source: str) -> None:
    await until_dropped(stage, source, frame(TransactionsMessage((bytes(GIANT - 100),))))


async def evidence_of_unknown_blocks(stage: Stage, source: str) -> None:
    """Each makes the member ask its Bitcoin node."""
    flood = tuple(evidence_of(sha256(b"%d" % number) + bytes(48)).encode() for number in range(500))
    await until_dropped(stage, source, frame(EvidenceMessage(flood)))


async def registrations(stage: Stage, source: str) -> None:
    scripts = [b"\x51\x20" + x_only(sha256(b"%d" % number)) for number in range(1_000)]
    await until_dropped(stage, source, frame(RegistrationsMessage(tuple(scripts))))


async def connections(stage: Stage, source: str) -> None:
    """Open and close, as fast as can be. Whether that is too fast depends on how fast they are taken."""
    for _ in range(2 * int(CONNECTIONS_BURST)):
        (await connect_from(source, stage.address("alice"))).close()


async def half_open_sockets(stage: Stage, source: str) -> None:
    """Each says the first words, and no more."""
    sockets = [await connect_from(source, stage.address("alice")) for _ in range(MAX_PENDING_INBOUND + 8)]
    for socket in sockets:
        with suppress(OSError):
            await socket.send(b"\x13/multistream/1.0.0\n")
    await trio.sleep(0.5)
    for socket in sockets:
        socket.close()


FLOODS: dict[Flood, str] = {
    tips: "flood",
    pings: "flood",
    frames_of_the_muxer: "silent",
    cheap_transactions: "flood",
    orphans: "flood",
    large_transactions: "flood",
    evidence_of_unknown_blocks: "flood",
    registrations: "flood",
    connections: "handshake-failed",
    half_open_sockets: "handshake-failed",
}


@pytest.mark.parametrize(("flood", "reason"), FLOODS.items())
def test_flood_ends_by_reason_and_hurts_nobody_else(stage: Stage, flood: Flood, reason: str) -> None:
    source, bystander = next(stage.sources), next(stage.sources)

    async def run() -> None:
        async with dial(stage.address("alice"), secrets.token_bytes(32), bystander) as honest:
            await honest.hello(stage.chain_id, PeerRole.GUEST)
            await honest.hears(TipMessage)
            height = stage.federation.height("alice")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood, stage, source)
                await trio.to_thread.run_sync(stage.pay)
            await honest.hears(TipMessage, lambda tip: tip.height > height)
            assert not honest.ended.is_set()

    trio.run(run)
    eventually(lambda: bool(stage.drops("alice", address=source, reason=reason, by_peer=False)), f"ended: {reason}")
    assert stage.drops("alice", address=bystander, by_peer=False, reason="flood") == []
    assert stage.grown_bytes("alice") < MAX_GROWTH_BYTES


# A late joiner


def test_late_joiner_gets_the_chain_whatever_one_member_answers(stage: Stage) -> None:
    """dave lies and then stalls; the node follows the others."""
    liar = Liar(stage)

    async def run(node: FullNode) -> None:
        height = stage.federation.height("alice")
        listening = stage.federation.local.member_config(HOSTILE).p2p.listen
        async with trio.open_nursery() as nursery:
            await nursery.start(listen, listening, stage.keys.transport, liar.serve)
            await trio.to_thread.run_sync(eventually, lambda: node.height() >= height, "the node has the chain")
            with trio.fail_after(2 * DEADLINE_S):
                await liar.stalling.wait()
            await trio.to_thread.run_sync(stage.pay)
            height = stage.federation.height("alice")
            await trio.to_thread.run_sync(eventually, lambda: node.height() >= height, "the node goes on")
            nursery.cancel_scope.cancel()

    node = run_node(stage.federation)
    try:
        trio.run(run, node)
        with client_of(node.config) as client:
            dropped = client.call("listdroppedpeers")
        lies = {item["member"]: item["count"] for item in dropped if item["reason"] == "false-blocks"}
        assert lies == {stage.signer().index: 3}, dropped
        status = node.status()
        assert status is not None
        assert status.halt_findings == []
    finally:
        node.process.kill()
        node.process.wait()


def test_all_agree_after_all_of_it(stage: Stage) -> None:
    stage.federation.local.start_member(HOSTILE)
    stage.federation.local.wait_until_answering(HOSTILE)
    stage.pay()
    stage.federation.agreement()
    for name in HONEST:
        assert stage.grown_bytes(name) < MAX_GROWTH_BYTES
        log = stage.federation.local.log_path(name).read_text()
        assert "Traceback" not in log
        assert len(log) < 2_000_000, "no stranger fills the log"


def test_member_that_signs_twice_is_convicted_by_all_and_on_paper(stage: Stage, tmp_path: Path) -> None:
    """Only alice hears both votes. The last test: what dave's key signed here, his own journal lacks."""
    local, peg = stage.federation.local, Peg(stage.federation.local.directory)
    local.stop_member(HOSTILE)
    with stage.federation.client("alice") as client:
        guilt = guilt_of(stage, client.ask(StatusReply, "getstatus").view)

    async def sign_twice() -> None:
        async with as_hostile_member(stage, "alice") as peer:
            await peer.say(VotesMessage((guilt.first.encode(), guilt.second.encode())))
            await trio.to_thread.run_sync(eventually, is_known_to_all, "all know what dave did")
            assert not peer.ended.is_set(), "who is guilty is no less a member"

    def is_known_to_all() -> bool:
        def known(name: str) -> list[AccusationDocument]:
            with stage.federation.client(name) as client:
                return client.ask(list[AccusationDocument], "listequivocations")

        return all([item.accusation().equivocation for item in known(name)] == [guilt] for name in HONEST)

    trio.run(sign_twice)
    assert f"{HOSTILE} signed two votes" in peg.ok("status")
    paper = tmp_path / "dave.json"
    peg.ok("evidence", "export", HOSTILE, str(paper), "--node", "carol")
    assert peg.json("evidence", "verify", str(paper))["is_member"] is True
