"""Evil beside the vote: lies in catching up, about L1, in shares of payouts, and false things to pass on."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.transaction import Transaction
from bridge.records import Finding, Record, Resume
from federation.certificate import Certificate, VoteKind
from federation.cosign import CosignShare
from federation.record import SignedRecord
from pegnode.chain.block import Block
from pegnode.net.messages import (
    AnyMessage,
    BlockAnswer,
    BlockRequest,
    EvidenceMessage,
    FinalBlock,
    FinalBlocksAnswer,
    FinalBlocksRequest,
    L1Report,
    Message,
    RecordMessage,
    RecordsAnswer,
    RegistrationsMessage,
    SharesMessage,
    SignedPayoutMessage,
    TipMessage,
    TransactionsMessage,
)
from pegnode.net.transport import PeerId
from tests.sim.bad_evidence import spoilt_evidence
from tests.sim.bad_transactions import spoilt_transactions
from tests.sim.evil import Evil, Villain, encoded
from tests.sim.workload import CHEAT, user_wallet


class FalseTips(Evil):
    """Boasts of final blocks that there are not, or is modest."""

    name = "false tips"

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if not isinstance(message, TipMessage) or not self.is_eager():
            return None
        height = max(0, message.height + self.rng.choice((-5, -1, 1, 3, 1_000, 2**62)))
        self.villain.done(self.name, f"{message.height} becomes {height}")
        return encoded([TipMessage(height, self.rng.choice((message.block_hash, self.rng.randbytes(32))))])


class FalseFinalBlocks(Evil):
    """Boasts a little, so as to be asked for final blocks; answers with few, none, others, or what is not final."""

    name = "false final blocks"

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if isinstance(message, TipMessage) and self.is_eager():
            return encoded([TipMessage(message.height + self.rng.choice((1, 2, 12)), message.block_hash)])
        if not isinstance(message, FinalBlocksAnswer) or not self.is_eager():
            return None
        choices = self._changed(message) if message.blocks else self._made_up(message.first_height)
        if not choices:
            return None
        self.villain.done(self.name, f"from height {message.first_height}")
        return encoded([self.rng.choice(choices)])

    def _changed(self, answer: FinalBlocksAnswer) -> list[FinalBlocksAnswer]:
        first, blocks = answer.first_height, answer.blocks
        swapped = tuple(self._swapped(item) for item in blocks)
        return [
            FinalBlocksAnswer(first, (), (), b""),
            FinalBlocksAnswer(first, blocks[:1], (), answer.certificate),
            FinalBlocksAnswer(first, tuple(reversed(blocks)), answer.headers, answer.certificate),
            FinalBlocksAnswer(first + 1, blocks, answer.headers, answer.certificate),
            FinalBlocksAnswer(first, swapped, (), b""),
            FinalBlocksAnswer(first, blocks, answer.headers[:-1], answer.certificate),
        ]

    def _made_up(self, height: int) -> list[FinalBlocksAnswer]:
        """Of what is not final: a block that was proposed, with its notarization, the evil's votes, or nothing."""
        knowledge = self.villain.knowledge
        answers = []
        for block in knowledge.blocks.values():
            if block.header.height == height:
                notarized = knowledge.certificate(VoteKind.NOTARIZE, block.header.view, block.hash)
                proofs = [b"" if notarized is None else notarized.encode(), self._own_proof(block)]
                answers += [
                    FinalBlocksAnswer(height, (FinalBlock(block.encode(), proof),), (), b"") for proof in proofs
                ]
        return answers

    def strike(self) -> None:
        """Unasked."""
        block = self.villain.knowledge.any_block(self.rng)
        if block is not None and self.rng.random() < 0.2 * self.eagerness:
            item = self._swapped(FinalBlock(block.encode(), b""))
            self.villain.say_some(self.rng, FinalBlocksAnswer(block.header.height, (item,), (), b""))
            self.villain.done(self.name, "unasked")

    def _swapped(self, item: FinalBlock) -> FinalBlock:
        """Another block at its height, with the same certificate or with the evil's signatures alone."""
        block = Block.decode(item.block)
        other = Block(replace(block.header, time_ms=block.header.time_ms + 1), block.body)
        is_kept = item.certificate and self.rng.random() < 0.5
        return FinalBlock(other.encode(), item.certificate if is_kept else self._own_proof(other))

    def _own_proof(self, block: Block) -> bytes:
        """A certificate of the evil's signatures alone."""
        knowledge, view = self.villain.knowledge, block.header.view
        votes = [knowledge.sign(VoteKind.FINALIZE, view, block.hash, index) for index in knowledge.secrets]
        signatures = tuple((vote.member, vote.signature64) for vote in votes)
        return Certificate(VoteKind.FINALIZE, 0, view, block.hash, signatures).encode()


class FalseBlocks(Evil):
    """Answers requests for a block with nothing, another block, or another body; also unasked."""

    name = "false blocks"

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if not isinstance(message, BlockAnswer) or not message.block or not self.is_eager():
            return None
        other = self.villain.knowledge.any_block(self.rng)
        choices = [
            (),
            encoded([BlockAnswer(message.block_hash, b"")]),
            encoded([BlockAnswer(message.block_hash, message.block + b"\x00")]),
            encoded([BlockAnswer(message.block_hash, other.encode())]) if other else (),
            [payload, payload],
        ]
        self.villain.done(self.name)
        return self.rng.choice(choices)

    def strike(self) -> None:
        if self.rng.random() < 0.2 * self.eagerness and (block := self.villain.knowledge.any_block(self.rng)):
            self.villain.say_some(self.rng, BlockAnswer(block.hash, block.encode()))
            self.villain.done(self.name, "unasked")


class AskTooMuch(Evil):
    """Asks again and again, for what is there and for what is not."""

    name = "ask too much"

    def strike(self) -> None:
        member, block = self.villain.member, self.villain.knowledge.any_block(self.rng)
        top = member.height if member is not None else 0
        for _ in range(self.rng.randint(1, 10)):
            hashes = [self.rng.randbytes(32)] if block is None else [block.hash, self.rng.randbytes(32)]
            heights = (0, 1, top, top + 1, 2**62)
            message = self.rng.choice(
                (BlockRequest(self.rng.choice(hashes)), FinalBlocksRequest(self.rng.choice(heights)))
            )
            self.villain.say(self.rng.choice(self.villain.others), message)
        self.villain.done(self.name)


class FalseReports(Evil):
    """Says that L1 is buried deeper, less deep, or otherwise than it is."""

    name = "false L1 reports"

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if not isinstance(message, L1Report) or not self.is_eager():
            return None
        self.villain.done(self.name)
        return encoded([self._false(message.height)])

    def strike(self) -> None:
        if self.is_eager():
            self.villain.say_some(self.rng, self._false(self.villain.world.l1.chain.height))
            self.villain.done(self.name)

    def _false(self, height: int) -> L1Report:
        chain = self.villain.world.l1.chain
        false = max(0, height + self.rng.choice((-8, -1, 0, 1, 2, 6, 100, 2**31)))
        true_hash = chain.blocks[min(false, chain.height)].hash
        return L1Report(min(false, 2**32 - 1), self.rng.choice((true_hash, true_hash, self.rng.randbytes(32))))


class FalseShares(Evil):
    """Spoils its shares of payouts, sends them for others, and signed payouts that are none."""

    name = "false shares"

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if isinstance(message, SharesMessage) and self.is_eager():
            self.villain.done(self.name)
            share = CosignShare.decode(message.shares[0])
            spoilt = replace(share, signatures=tuple(bytes(64) for _ in share.signatures))
            elsewhere = replace(share, txid=type(share.txid)(sha256(share.txid)))
            fewer = replace(share, signatures=share.signatures[1:])
            chosen = self.rng.choice((spoilt, elsewhere, fewer))
            return encoded([SharesMessage((chosen.encode(),))])
        if isinstance(message, SignedPayoutMessage) and self.is_eager():
            self.villain.done(self.name)
            signed = Transaction.parse(message.transaction)
            unsigned = signed.with_witnesses([()] * len(signed.inputs))
            return encoded([SignedPayoutMessage(unsigned.serialize())])
        return None


class FalseItems(Evil):
    """Hands in what is false: transactions, evidence, records and claim scripts."""

    name = "false items"

    def __init__(self, villain: Villain, rng: Random) -> None:
        super().__init__(villain, rng)
        self._evidence: list[bytes] = []
        self._transactions: list[bytes] = []

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        self._note(message)
        return None

    def on_hear(self, source: PeerId, message: AnyMessage, payload: bytes) -> None:
        self._note(message)

    def _note(self, message: AnyMessage) -> None:
        if isinstance(message, EvidenceMessage):
            self._evidence = [*self._evidence[-8:], *message.evidence]
        elif isinstance(message, TransactionsMessage):
            self._transactions = [*self._transactions[-8:], *message.transactions]

    def strike(self) -> None:
        if not self.is_eager():
            return
        seldom, often = (self._transaction, self._evidence_message), (self._record, self._claim_scripts)
        makers = [*self.rng.sample(seldom, 2), *often] if self.rng.random() < 0.7 else [self.rng.choice(often)]
        message = next(message for maker in makers if (message := maker()) is not None)
        self.villain.say_some(self.rng, message)
        self.villain.done(self.name, "", type(message).__name__)

    def _transaction(self) -> Message | None:
        """Of the cheat's own coin; without one, somebody's transaction with another payee."""
        member = self.villain.member
        spoilt: tuple[bytes, ...] = ()
        if member is not None:
            spoilt = spoilt_transactions(member.store, self.villain.world.rules, (user_wallet(CHEAT),), self.rng)
        if not spoilt and self._transactions:
            genuine = Transaction.parse(self.rng.choice(self._transactions))
            stolen = replace(genuine.outputs[0], script=user_wallet(CHEAT).script())
            changed = replace(genuine, outputs=(stolen, *genuine.outputs[1:]))
            spoilt = (changed.serialize(),) if changed != genuine else ()
        return TransactionsMessage(spoilt) if spoilt else None

    def _evidence_message(self) -> Message | None:
        spoilt = spoilt_evidence(self.rng.choice(self._evidence), self.rng) if self._evidence else None
        return None if spoilt is None else EvidenceMessage((spoilt,))

    def _record(self) -> Message:
        """A record that only the evil signed."""
        rules, knowledge = self.villain.world.rules, self.villain.knowledge
        finding = Finding.anchor_left(self.villain.world.genesis.anchor)
        record = Record(rules.chain_id, rules.membership.epoch, 1, 1_000_000, Resume.of((finding,)))
        votes = tuple((index, self.rng.randbytes(64)) for index in sorted(knowledge.secrets))
        signed = SignedRecord(record, votes).encode()
        return self.rng.choice((RecordMessage(signed), RecordsAnswer(1, (signed,))))

    def _claim_scripts(self) -> Message:
        scripts = tuple(b"\x00\x14" + self.rng.randbytes(20) for _ in range(self.rng.randint(1, 30)))
        return RegistrationsMessage(self.rng.choice((scripts, (b"\x51",))))
