"""A member's consensus driver between real parts, on a wire that only notes what is sent."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import trio

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.identifiers import BlockHash
from bridge.l1.client import L1Client
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind, vote_digest
from federation.journal import Journal
from federation.journal_header import JournalIdentity
from federation.keystore import MemberSecrets
from federation.signer import Signer
from pegnode.chain.block import Block
from pegnode.consensus.machine import Simplex
from pegnode.consensus.parameters import ConsensusParams
from pegnode.net.messages import CertificatesMessage, ProposalMessage, VotesMessage
from pegnode.net.transport import PeerId
from pegnode.service.auditor import Auditor
from pegnode.service.consensus_driver import ConsensusDriver
from pegnode.service.equivocations import Equivocations
from pegnode.service.judge import Judge
from pegnode.service.own_memory import OwnMemory
from pegnode.service.peers import Peers
from pegnode.service.proposer import Proposer
from pegnode.service.resumption import Resumption
from pegnode.signing.local import LocalSigner
from pegnode.storage.store import ChainStore
from tests.support.chain import MemoryChain, custody_secrets, secret, vote_secrets
from tests.support.lone_node import Wire, lone_core
from tests.support.memory_entries import MemoryEntries

OWN = 0
PARAMS = ConsensusParams(
    block_interval_ms=500,
    view_timeout_ms=2_000,
    min_view_timeout_ms=500,
    max_view_timeout_ms=16_000,
    heartbeat_ms=10_000,
    resend_ms=2_000,
)


class AskingNobody(OwnMemory):
    """For a wire on which nobody answers."""

    async def restored(self) -> None:
        self._is_restored = True


class DriverRig:
    """Member 0 of four, and what the others say to it. journal: of an earlier life."""

    def __init__(self, chain: MemoryChain, store: ChainStore, journal: Journal | None = None) -> None:
        self.chain = chain
        rules = chain.rules
        self.wire = Wire(rules.membership, OWN)
        self.peers = Peers(self.wire, rules.membership)
        self.core = lone_core(chain, store)
        secrets = MemberSecrets(vote_secrets()[OWN], custody_secrets()[OWN], secret("transport", OWN))
        self.signer = Signer(secrets, rules.membership, OWN, rules.chain_id, bytes)
        self.auditor = Auditor(self.core, cast(L1Client, None), lambda: True)
        self.resumption = Resumption(self.core, cast(L1Client, None), lambda: True)
        self.journal = journal or Journal.create(MemoryEntries(), JournalIdentity(rules.chain_id, 0, OWN))
        self.own_memory = AskingNobody(self.core, self.peers, self.journal, OWN, bytes)
        self.driver = ConsensusDriver(
            self.core,
            self.peers,
            Simplex(OWN, rules.membership, PARAMS),
            self.journal,
            LocalSigner(self.signer, self.core, self.auditor, self.resumption),
            Proposer(self.core, {}, patience_s=1.0),
            Judge(self.core),
            self.own_memory,
            Equivocations(self.core, self.peers, OWN),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It hears what arrives, and takes part."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.peers.run)
            nursery.start_soon(self.driver.run)
            yield
            nursery.cancel_scope.cancel()

    def vote(self, member: int, kind: VoteKind, view: int, block_hash: BlockHash) -> Vote:
        """A member's genuine vote."""
        digest = vote_digest(self.chain.rules.chain_id, 0, kind, view, block_hash)
        return Vote(kind, 0, view, block_hash, member, schnorr_sign(vote_secrets()[member], digest, bytes(32)))

    def certificate(self, kind: VoteKind, view: int, block_hash: BlockHash = NO_BLOCK) -> Certificate:
        """What all the others said."""
        votes = [self.vote(member, kind, view, block_hash) for member in (1, 2, 3)]
        return Certificate(kind, 0, view, block_hash, tuple((vote.member, vote.signature64) for vote in votes))

    def nullification(self, view: int) -> Certificate:
        """All the others gave up a view."""
        return self.certificate(VoteKind.NULLIFY, view)

    def proposal(self, view: int, later_ms: int = 0) -> Block:
        """A valid empty block of a view's leader; another one for another time."""
        slot = self.chain.slot(include_l1=False, view=view)
        return self.chain.build(slot=replace(slot, time_ms=slot.time_ms + later_ms)).block

    def deliver(self, block: Block, *justification: Certificate) -> PeerId:
        """The leader's proposal arrives; from whom."""
        header = block.header
        vote = self.vote(header.leader, VoteKind.NOTARIZE, header.view, header.hash)
        message = ProposalMessage(block.encode(), vote.encode(), tuple(item.encode() for item in justification))
        sender = self.peers.peer_of(header.leader)
        self.wire.deliver(sender, message)
        return sender

    def tell(self, *certificates: Certificate, teller: int = 3) -> None:
        """Certificates arrive from a member."""
        message = CertificatesMessage(tuple(item.encode() for item in certificates))
        self.wire.deliver(self.peers.peer_of(teller), message)

    def own_votes(self) -> list[Vote]:
        """What this member signed and sent, again and again."""
        groups = [message.votes for message in self.wire.sent if isinstance(message, VotesMessage)]
        return [Vote.decode(data) for votes in groups for data in votes]


@contextmanager
def driver_rig(path: Path) -> Iterator[DriverRig]:
    """One whose storage is below `path`."""
    chain = MemoryChain()
    store = ChainStore.open(path / "chain", chain.rules)
    try:
        yield DriverRig(chain, store)
    finally:
        store.close()
