"""Bad bodies under good headers: whoever sends one condemns himself, never the header.

CVE-2012-2459: a block whose list of transactions was mutated without a change of its Merkle root was judged invalid by
Bitcoin, and the verdict was kept under the block's hash, so that the genuine block was refused for ever and the node
was cut off the chain. Here a body root has one body, and no verdict is kept for a body that is not the header's.
"""

from dataclasses import replace

import pytest
import trio

from bridge.custody import CoinKind
from bridge.evidence import Evidence, Opening
from federation.certificate import Vote, VoteKind
from pegnode.chain.block import EMPTY_BODY, Block, Body
from pegnode.chain.verdicts import BodyReason
from pegnode.net.messages import BlockAnswer, BlockRequest, CertificatesMessage, Message, ProposalMessage, VotesMessage
from pegnode.net.transport import PeerRole
from pegnode.service.unfinal import UnfinalBlock
from tests.support.chain import MemoryChain
from tests.support.members import MemoryFederation, Stranger, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.records import ANY_RECORD
from tests.support.verdicts import rejected

LEADER, MEDDLER = 1, 3
"""The leader of view 1, which is honest, and a member that is not; the test plays both."""
ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
OTHER_BODIES = [
    Body(transactions=(b"\x00" * 60,)),
    Body(records=(ANY_RECORD,)),
    Body(refunds=(b"\x00" * 60,) * 2),
    Body(evidence=(Evidence(b"\x00", b"\x00" * 80, 1, (Opening(0, CoinKind.CHANGE, 0, b""),)),)),
]


def proposal(federation: MemoryFederation, unfinal: UnfinalBlock, data: bytes) -> ProposalMessage:
    """The leader's proposal of a block, of which `data` is said to be the bytes."""
    header = unfinal.block.header
    return ProposalMessage(data, federation.vote(LEADER, VoteKind.NOTARIZE, header.view, header.hash).encode(), ())


async def strangers(federation: MemoryFederation) -> tuple[Stranger, Stranger]:
    """The leader and the meddler, connected."""
    leader = await federation.join(federation.peer_id(LEADER), PeerRole.MEMBER)
    meddler = await federation.join(federation.peer_id(MEDDLER), PeerRole.MEMBER)
    running = {federation.peer_id(member) for member in federation.members}
    await federation.until(lambda: running <= leader.transport.connected() & meddler.transport.connected())
    return leader, meddler


def votes_of(stranger: Stranger, member: int) -> list[Vote]:
    """What a member has voted, as another hears it."""
    votes = [Vote.decode(data) for message in stranger.told(VotesMessage) for data in message.votes]
    return [vote for vote in votes if vote.member == member]


async def say_and_be_dropped(federation: MemoryFederation, meddler: Stranger, message: Message) -> None:
    """The meddler says it to member 0, and loses the connection for it."""
    meddler.left.clear()
    await federation.until(lambda: federation.peer_id(0) in meddler.transport.connected())
    meddler.say(federation.peer_id(0), message)
    await federation.until(lambda: meddler.left, seconds=1)
    assert [peer for peer, _ in federation.members[0].dropped] == [federation.peer_id(MEDDLER)]


async def test_member_that_saw_a_bad_body_notarizes_the_good_one(autojump_clock: trio.abc.Clock) -> None:
    """A meddler overtakes the leader with the leader's own header and vote, and a body that is not the header's."""
    async with memory_federation(0, 2) as federation:
        leader, meddler = await strangers(federation)
        block = federation.next_block(federation.members[0].store)
        assert block.block.body == EMPTY_BODY
        bad = block.block.header.encode() + OTHER_BODIES[0].encode()
        await say_and_be_dropped(federation, meddler, proposal(federation, block, bad))
        assert votes_of(leader, 0) == []
        for member in (0, 2):
            leader.say(federation.peer_id(member), proposal(federation, block, block.data))
        await federation.until(lambda: len(votes_of(leader, 0)) == 2, seconds=1)
        said = [(vote.kind, vote.block_hash) for vote in votes_of(leader, 0)]
        assert said == [(VoteKind.NOTARIZE, block.block.hash), (VoteKind.FINALIZE, block.block.hash)]
        leader.say(federation.peer_id(0), CertificatesMessage((federation.finalization(block),)))
        await federation.until(lambda: federation.members[0].height == 1, seconds=1)
        assert federation.members[0].store.block_at(1) == block.data


@pytest.mark.parametrize("body", OTHER_BODIES, ids=["transaction", "record", "refunds", "evidence"])
async def test_member_that_was_given_a_bad_body_takes_the_good_one(body: Body, autojump_clock: trio.abc.Clock) -> None:
    """The block is withheld from member 0, which asks for it: the first answer is a lie, the second is not."""
    async with memory_federation(0, 2) as federation:
        leader, meddler = await strangers(federation)
        federation.network.cut(federation.peer_id(0), federation.peer_id(2))
        block = federation.next_block(federation.members[0].store)
        header = block.block.header
        notarization = federation.certificate(VoteKind.NOTARIZE, 1, header.hash, (1, 2, 3))
        leader.say(federation.peer_id(0), CertificatesMessage((notarization.encode(),)))
        await federation.until(lambda: leader.told(BlockRequest))
        await say_and_be_dropped(federation, meddler, BlockAnswer(header.hash, header.encode() + body.encode()))
        leader.say(federation.peer_id(0), BlockAnswer(header.hash, block.data))
        await federation.until(lambda: federation.members[0].core.unfinal.get(header.hash) is not None, seconds=5)
        assert federation.members[0].core.halt_findings == []


def test_body_with_another_witness_is_not_the_headers() -> None:
    """The txids are the same: a root over txids alone, as Bitcoin's, would not tell the two bodies apart."""
    chain = MemoryChain()
    [coin] = chain.fund(ALICE.script())
    payment = ALICE.pay(coin, BOB.script())
    block = chain.build(payment).block
    [txin] = payment.inputs
    malleated = payment.with_witnesses([(b"\x00" * 71, txin.witness[1])])
    assert malleated.txid == payment.txid
    verdict = rejected(chain, Block(block.header, replace(block.body, transactions=(malleated.serialize(),))))
    assert verdict.reason is BodyReason.WRONG_ROOT
    assert not verdict.condemns_header
    chain.apply(block)


def test_body_with_its_last_item_twice_is_not_the_headers() -> None:
    """CVE-2012-2459 itself: a tree that pairs the last node with itself has one root for both lists."""
    chain = MemoryChain()
    coins = chain.fund(*[ALICE.script()] * 3)
    block = chain.build(*[ALICE.pay(coin, BOB.script()) for coin in coins]).block
    items = block.body.transactions
    verdict = rejected(chain, Block(block.header, replace(block.body, transactions=(*items, items[-1]))))
    assert verdict.reason is BodyReason.WRONG_ROOT
    chain.apply(block)
