"""A member that hears nonsense: whatever a peer sends, the node goes on, and only that peer is dropped."""

import random

import pytest
import trio

from bridge.bitcoin.identifiers import BlockHash, Txid
from bridge.custody import CoinKind
from bridge.evidence import Opening
from federation.certificate import VoteKind
from federation.cosign import CosignShare
from pegnode.net.messages import (
    BlockAnswer,
    BlockRequest,
    CertificatesMessage,
    EquivocationsMessage,
    EvidenceMessage,
    FinalBlock,
    FinalBlocksAnswer,
    FinalBlocksRequest,
    L1Report,
    Message,
    ProposalMessage,
    RecordMessage,
    RecordsAnswer,
    RecordsRequest,
    RegistrationsMessage,
    SharesMessage,
    SignedPayoutMessage,
    TipMessage,
    TransactionsMessage,
    VotesMessage,
    encode_message,
)
from pegnode.net.transport import PeerId, PeerRole
from tests.support.equivocations import equivocation
from tests.support.members import MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.records import resume

FAULTY = 1
ALICE = MiniWallet("alice")
MUTATIONS = 40
"""Of each message."""


def genuine_messages(federation: MemoryFederation) -> list[Message]:
    """One of each kind, all of which a member would take from another."""
    member = federation.members[0]
    coin = federation.fund_by_hand(member, ALICE)
    block = federation.next_block(member.store, ALICE.pay(coin, ALICE.script()))
    header = block.block.header
    vote = federation.vote(FAULTY, VoteKind.NOTARIZE, header.view, header.hash)
    nullification = federation.certificate(VoteKind.NULLIFY, header.view)
    final = federation.finalization(block)
    payment = ALICE.pay(coin, ALICE.script()).serialize()
    federation.pay_deposit(ALICE.script(), 1_000_000)
    chain = federation.l1.chain
    opening = Opening(0, CoinKind.DEPOSIT, 0, ALICE.script())
    evidence = chain.evidence(chain.blocks[-1].transactions[1], opening)
    share = CosignShare(Txid(bytes([7]) * 32), FAULTY, (bytes(64),) * 2)
    return [
        ProposalMessage(block.data, vote.encode(), (nullification.encode(),)),
        VotesMessage((vote.encode(),)),
        CertificatesMessage((nullification.encode(),)),
        BlockRequest(BlockHash(header.parent)),
        BlockAnswer(header.hash, block.data),
        FinalBlocksRequest(1),
        FinalBlocksAnswer(2, (FinalBlock(block.data, final),), (header.encode(),), final),
        TipMessage(header.height, header.hash),
        TransactionsMessage((payment,)),
        EvidenceMessage((evidence.encode(),)),
        RegistrationsMessage((ALICE.script(),)),
        L1Report(11, chain.blocks[11].hash),
        SharesMessage((share.encode(),)),
        SignedPayoutMessage(payment),
        RecordMessage(resume(federation.rules).encode()),
        RecordsRequest(1),
        RecordsAnswer(1, (resume(federation.rules).encode(),)),
        EquivocationsMessage((equivocation(federation.rules, 2).encode(),)),
    ]


def mutated(payload: bytes, chance: random.Random) -> bytes:
    """The payload with a few bytes changed, removed or repeated."""
    data = bytearray(payload)
    for _ in range(chance.choice((1, 1, 2, 8))):
        position = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[position] ^= 1 << chance.randrange(8)
            case 1:
                data[position] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del data[position : position + chance.choice((1, 4, 32))]
            case _:
                data[position:position] = data[position : position + chance.choice((1, 4, 32))]
        if not data:
            return b"\x00"
    return bytes(data)


@pytest.mark.parametrize("role", list(PeerRole))
async def test_no_message_ends_a_member(role: PeerRole, autojump_clock: trio.abc.Clock) -> None:
    chance = random.Random(f"messages of a {role.name}")
    async with memory_federation(0) as federation:
        member = federation.members[0]
        payloads = [encode_message(message) for message in genuine_messages(federation)]
        peer = federation.peer_id(FAULTY) if role is PeerRole.MEMBER else PeerId("a guest")
        stranger = await federation.join(peer, role)
        for payload in [mutated(payload, chance) for payload in payloads for _ in range(MUTATIONS)] + payloads:
            while federation.peer_id(0) not in stranger.transport.connected():
                await trio.sleep(0.05)
            stranger.transport.send(federation.peer_id(0), payload)
            await trio.sleep(0.01)
        assert not member.stopped.is_set()
        await trio.sleep(20)
        assert member.core.halt_findings == []
        assert {dropped for dropped, _ in member.dropped} == {peer}
        assert member.driver is not None
        assert len(member.driver._queue) == 0
