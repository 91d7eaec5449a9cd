"""The consensus driver between real parts and a wire that only notes what is sent: bodies, and whose they are."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import trio

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.identifiers import BlockHash
from bridge.l1.client import L1Client
from bridge.l1.watcher import L1Watcher
from federation.certificate import Certificate, Vote, VoteKind, vote_digest
from federation.journal import Journal, JournalIdentity, MemoryEntries
from federation.keystore import MemberSecrets
from federation.signer import Signer
from pegnode.chain.block import Block
from pegnode.consensus.machine import Simplex
from pegnode.consensus.parameters import ConsensusParams
from pegnode.mempool.evidence_pool import EvidencePool, EvidencePoolLimits
from pegnode.mempool.pool import Mempool, PoolLimits
from pegnode.net.messages import ProposalMessage, VotesMessage, decode_message, encode_message
from pegnode.net.transport import DropReason, FrameReceived, PeerAddress, PeerId, TransportEvent
from pegnode.service.consensus_driver import ConsensusDriver
from pegnode.service.core import NodeCore
from pegnode.service.judge import Judge
from pegnode.service.l1_questions import L1Questions
from pegnode.service.peers import Peers
from pegnode.service.proposer import Proposer
from pegnode.service.registry import DepositRegistry
from pegnode.service.unfinal import UnfinalBlocks
from pegnode.storage.store import ChainStore
from tests.support.chain import MemoryChain, custody_secrets, secret, vote_secrets

if TYPE_CHECKING:
    from trio_typing import TaskStatus

OWN = 0
PARAMS = ConsensusParams(
    block_interval_ms=500, view_timeout_ms=2_000, max_view_timeout_ms=16_000, heartbeat_ms=10_000, resend_ms=2_000
)


class Wire:
    """A transport that is connected to every member, delivers what the test puts in, and keeps what is sent."""

    def __init__(self, members: tuple[PeerId, ...]) -> None:
        self.peer_id = members[OWN]
        self.listen_addresses: tuple[PeerAddress, ...] = ()
        self.others = frozenset(members) - {self.peer_id}
        self.sent: list[bytes] = []
        self.dropped: list[tuple[PeerId, DropReason]] = []
        self.incoming, self.events = trio.open_memory_channel[TransportEvent](math.inf)

    def connected(self) -> frozenset[PeerId]:
        return self.others

    def send(self, peer: PeerId, payload: bytes) -> bool:
        self.sent.append(payload)
        return True

    def drop(self, peer: PeerId, reason: DropReason) -> None:
        self.dropped.append((peer, reason))

    def round_trip_ms(self, peer: PeerId) -> float | None:
        return None

    async def run(self, *, task_status: "TaskStatus[None]" = trio.TASK_STATUS_IGNORED) -> None:
        raise NotImplementedError


class DriverRig:
    """Member 0 of four, and what the others say to it."""

    def __init__(self, chain: MemoryChain, store: ChainStore) -> None:
        self.chain = chain
        rules = chain.rules
        self.wire = Wire(tuple(PeerId(member.peer_id) for member in rules.membership.members))
        self.peers = Peers(self.wire, rules.membership)
        client = cast(L1Client, None)  # nothing here touches L1
        watcher = L1Watcher(client, 0)
        self.core = NodeCore(
            rules=rules,
            store=store,
            unfinal=UnfinalBlocks(store),
            mempool=Mempool(PoolLimits()),
            evidence=EvidencePool(EvidencePoolLimits()),
            registry=DepositRegistry(store, rules.custody, 0, self.now_ms),
            watcher=watcher,
            questions=L1Questions(client, watcher, rules.params),
            now_ms=self.now_ms,
        )
        secrets = MemberSecrets(vote_secrets()[OWN], custody_secrets()[OWN], secret("transport", OWN))
        self.driver = ConsensusDriver(
            self.core,
            self.peers,
            Simplex(OWN, rules.membership, PARAMS),
            Journal.create(MemoryEntries(), JournalIdentity(rules.chain_id, 0, OWN)),
            Signer(secrets, rules.membership, OWN, rules.chain_id, bytes),
            Proposer(self.core, {}),
            Judge(self.core),
        )

    def now_ms(self) -> int:
        return self.chain.header.time_ms + 1_000

    def vote(self, member: int, kind: VoteKind, view: int, block_hash: BlockHash) -> Vote:
        digest = vote_digest(self.chain.rules.chain_id, 0, kind, view, block_hash)
        return Vote(kind, 0, view, block_hash, member, schnorr_sign(vote_secrets()[member], digest, bytes(32)))

    def nullification(self, view: int) -> Certificate:
        votes = [self.vote(member, VoteKind.NULLIFY, view, BlockHash(b"")) for member in (1, 2, 3)]
        signatures = tuple((vote.member, vote.signature64) for vote in votes)
        return Certificate(VoteKind.NULLIFY, 0, view, BlockHash(b""), signatures)

    def proposal(self, view: int) -> Block:
        """A valid empty block of a view's leader."""
        return self.chain.build(slot=replace(self.chain.slot(include_l1=False, view=view))).block

    def deliver(self, block: Block, *justification: Certificate) -> PeerId:
        """The leader's proposal arrives; from whom."""
        header = block.header
        vote = self.vote(header.leader, VoteKind.NOTARIZE, header.view, header.hash)
        message = ProposalMessage(block.encode(), vote.encode(), tuple(item.encode() for item in justification))
        sender = self.peers.peer_of(header.leader)
        self.wire.incoming.send_nowait(FrameReceived(sender, encode_message(message)))
        return sender

    def own_votes(self) -> list[Vote]:
        messages = [decode_message(payload) for payload in self.wire.sent]
        groups = [message.votes for message in messages if isinstance(message, VotesMessage)]
        return [Vote.decode(data) for votes in groups for data in votes]


@contextmanager
def rig(path: Path) -> Iterator[DriverRig]:
    chain = MemoryChain()
    store = ChainStore.open(path / "chain", chain.rules)
    try:
        yield DriverRig(chain, store)
    finally:
        store.close()


@pytest.fixture
def member(tmp_path: Path) -> Iterator[DriverRig]:
    with rig(tmp_path) as ready:
        yield ready


async def test_valid_proposal_is_voted_for(member: DriverRig, autojump_clock: trio.abc.Clock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.peers.run)
        nursery.start_soon(member.driver.run)
        block = member.proposal(view=1)
        member.deliver(block)
        await trio.sleep(0.1)
        assert [(vote.kind, vote.block_hash) for vote in member.own_votes()][:1] == [(VoteKind.NOTARIZE, block.hash)]
        nursery.cancel_scope.cancel()


async def test_proposal_refused_once_is_voted_for_when_it_comes_again_in_time(
    member: DriverRig, autojump_clock: trio.abc.Clock
) -> None:
    # Both wait in the queue at once: what forgets the first one's body must not take the second one's with it.
    block = member.proposal(view=6)
    member.deliver(block)
    member.deliver(block, *(member.nullification(view) for view in range(1, 6)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.peers.run)
        await trio.sleep(0.1)
        nursery.start_soon(member.driver.run)
        await trio.sleep(0.1)
        assert (VoteKind.NOTARIZE, block.hash) in [(vote.kind, vote.block_hash) for vote in member.own_votes()]
        nursery.cancel_scope.cancel()


async def test_body_that_is_not_the_headers_condemns_its_sender_and_not_the_header(
    member: DriverRig, autojump_clock: trio.abc.Clock
) -> None:
    block = member.proposal(view=1)
    forged = Block(block.header, replace(block.body, records=(b"another body",)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(member.peers.run)
        nursery.start_soon(member.driver.run)
        sender = member.deliver(forged)
        await trio.sleep(0.1)
        assert member.wire.dropped == [(sender, DropReason.GARBLED_FRAME)]
        assert member.own_votes() == []
        member.deliver(block)
        await trio.sleep(0.1)
        assert (VoteKind.NOTARIZE, block.hash) in [(vote.kind, vote.block_hash) for vote in member.own_votes()]
        nursery.cancel_scope.cancel()
