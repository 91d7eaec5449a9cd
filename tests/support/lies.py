"""What a hostile peer says: each lie is well made but for one thing."""

from dataclasses import replace

import trio

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.evidence import Evidence
from bridge.l1.client import L1Client
from bridge.l1.regtest import RegtestMiner
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind
from federation.equivocation import Equivocation
from pegnode.chain.block import Block
from pegnode.net.framing import FrameKind, encode_frame
from pegnode.net.messages import (
    FinalBlock,
    FinalBlocksAnswer,
    FinalBlocksRequest,
    Message,
    ProposalMessage,
    TipMessage,
    encode_message,
)
from pegnode.net.session import LinkLimits
from pegnode.net.transport import PeerRole
from tests.support.hostile import Stage
from tests.support.mini_wallet import MiniWallet
from tests.support.raw_peer import RawPeer

GIANT = LinkLimits().max_payload_bytes


def frame(message: Message) -> bytes:
    """A message as it goes over the wire."""
    return encode_frame(FrameKind.PAYLOAD, encode_message(message))


def signed_by_nobody(stage: Stage, member: int) -> Vote:
    """A vote in the name of a member that never cast it."""
    return replace(stage.signer().sign_vote(VoteKind.NULLIFY, 0, 1, NO_BLOCK), member=member)


def guilt_of(stage: Stage, view: int) -> Equivocation:
    """Two votes of the hostile member that exclude each other."""
    nullify = stage.signer().sign_vote(VoteKind.NULLIFY, 0, view, NO_BLOCK)
    finalize = stage.signer().sign_vote(VoteKind.FINALIZE, 0, view, BlockHash(sha256(b"a block that nobody made")))
    return Equivocation.of(nullify, finalize)


def guilt_of_nobody(stage: Stage) -> Equivocation:
    """The same in the name of a member that never cast them."""
    guilt = guilt_of(stage, 1)
    return Equivocation(replace(guilt.first, member=0), replace(guilt.second, member=0))


def forged_transaction() -> bytes:
    """It parses, and no chain could hold what it spends: bit 30 of the index is reserved."""
    wallet = MiniWallet("nobody")
    coin = (OutPoint(outpoint().txid, 1 << 30), TxOut(50_000, wallet.script()))
    return wallet.pay(coin, wallet.script()).serialize()


def outpoint(number: int = 0) -> OutPoint:
    """Of a transaction that nobody ever made."""
    return OutPoint(Txid(sha256(b"nobody made %d" % number)), 0)


def evidence_of(header: bytes) -> Evidence:
    """Evidence whose proof does not hold the transaction, in a block with this header."""
    transaction = Transaction(2, (TxIn(outpoint(), b"\x51"),), (TxOut(200_000, MiniWallet("nobody").script()),))
    proof = header + (1).to_bytes(4, "little") + b"\x01" + bytes(32) + b"\x01\x01"
    return Evidence(transaction.serialize(), proof, 1, ())


def block_on_l1(stage: Stage) -> bytes:
    """The header of an L1 block that every member's node holds."""

    async def header(client: L1Client, _: RegtestMiner) -> bytes:
        block_hash = await client.block_hash(1)
        assert block_hash is not None
        return (await client.block(block_hash))[:80]

    return stage.federation.on_l1(header)


def final_block(stage: Stage) -> BlockHash:
    return BlockHash(bytes.fromhex(stage.federation.block_hash(1, "alice"))[::-1])


def certificate_of_one(stage: Stage) -> bytes:
    """A notarization that one member alone signed, three times; of no block, for what is known is not checked again."""
    vote = stage.signer().sign_vote(VoteKind.NOTARIZE, 0, 1, BlockHash(b"\x07" * 32))
    return Certificate(
        vote.kind, vote.epoch, vote.view, vote.block_hash, tuple((n, vote.signature64) for n in range(3))
    ).encode()


def proposal_without_a_vote_for_it(stage: Stage) -> Message:
    vote = stage.signer().sign_vote(VoteKind.NOTARIZE, 0, 1, BlockHash(b"\x07" * 32))
    return ProposalMessage(stage.block(1), vote.encode(), ())


def lying_blocks(stage: Stage) -> list[FinalBlock]:
    """The first block with another's finalization; one of another chain; and one with another body."""
    data, certificate = stage.block(1), stage.finalization(1)
    block = Block.decode(data)
    foreign = Block(replace(block.header, chain_id=bytes(32)), block.body)
    refilled = Block(block.header, replace(block.body, refunds=(b"x" * 60,)))
    return [
        FinalBlock(data, stage.finalization(2)),
        FinalBlock(foreign.encode(), certificate),
        FinalBlock(refilled.encode(), certificate),
    ]


class Liar:
    """Boasts to guests, and answers each request with a lie, another one in each connection; at last a byte a second.

    Members call as well, and hear nothing: what they were told would not reach whom it is meant for.
    """

    def __init__(self, stage: Stage) -> None:
        self._chain_id = stage.chain_id
        self._lies = iter(lying_blocks(stage))
        self.stalling = trio.Event()

    async def serve(self, peer: RawPeer) -> None:
        """Speak in one connection."""
        await peer.greeted.wait()
        await peer.hello(self._chain_id, PeerRole.MEMBER)
        if peer.role is not PeerRole.GUEST:
            await peer.ended.wait()
            return
        await peer.say(TipMessage(2**40, bytes(32)))
        lie = next(self._lies, None)
        while not peer.ended.is_set():
            requests = [message for message in peer.heard if isinstance(message, FinalBlocksRequest)]
            peer.heard.clear()
            for request in requests:
                if lie is None:
                    self.stalling.set()
                    await self._trickle(peer)
                else:
                    await peer.say(FinalBlocksAnswer(request.first_height, (lie,), (), b""))
            await trio.sleep(0.05)

    async def _trickle(self, peer: RawPeer) -> None:
        for byte in (GIANT // 2).to_bytes(4, "little") + b"\x05" + bytes(10**6):
            await peer.write(bytes((byte,)))
            await trio.sleep(1)
