"""A signer with a disk and a Bitcoin node of its own, in memory, and a functionary that a test plays."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import trio
import trio.testing

from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import TxOut
from bridge.l1.client import L1Client
from bridge.l1.watcher import L1Watcher
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind
from federation.journal import Journal
from federation.journal_header import JournalIdentity
from pegnode.chain.builder import Candidates, Slot, build_block
from pegnode.mempool.evidence_pool import EvidencePool, EvidencePoolLimits
from pegnode.mempool.pool import Mempool, PoolLimits
from pegnode.service.auditor import Auditor
from pegnode.service.core import NodeCore
from pegnode.service.l1_questions import L1Questions
from pegnode.service.registry import DepositRegistry
from pegnode.service.resumption import Resumption
from pegnode.service.unfinal import UnfinalBlock, UnfinalBlocks
from pegnode.signing import messages as say
from pegnode.signing.follower import Follower
from pegnode.signing.frames import FrameStream
from pegnode.signing.local import LocalSigner
from pegnode.signing.remote import proven_block
from pegnode.signing.server import SignerServer
from tests.support.fake_l1_client import FakeL1Client
from tests.support.members import Member, MemoryFederation, now_ms
from tests.support.memory_disk import Disk
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr

L1_POLL_S = 0.5
ALICE = MiniWallet("alice")
PAYEE = p2tr("payee")


@dataclass
class SignerRig:
    """Member `index`'s signer. disk, node: its own, none of its functionary's.

    floor_view: up to where its journal begins pruned, for keys that have voted before.
    """

    federation: MemoryFederation
    index: int = 3
    disk: Disk = field(default_factory=Disk)
    floor_view: int = 0

    def __post_init__(self) -> None:
        self.node: FakeL1Client = self.federation._bitcoin_node()
        self._start()

    def _start(self) -> None:
        rules, client = self.federation.rules, cast(L1Client, self.node)
        watcher = L1Watcher(client, self.federation.genesis.anchor.height)
        store = self.disk.open_store(rules)
        identity = JournalIdentity(rules.chain_id, 0, self.index)
        fresh = self.disk.entries.get(b"h") is None
        entries = self.disk.entries
        self.journal = Journal.create(entries, identity, self.floor_view) if fresh else Journal.open(entries, identity)
        self.core = NodeCore(
            rules=rules,
            store=store,
            unfinal=UnfinalBlocks(store),
            mempool=Mempool(PoolLimits()),
            evidence=EvidencePool(EvidencePoolLimits()),
            registry=DepositRegistry(store, rules.custody, now_ms),
            watcher=watcher,
            questions=L1Questions(client, watcher, rules.params),
            now_ms=now_ms,
        )
        self.follower = Follower(self.core, self.journal)
        keys = self.federation.signer(self.index)
        auditor = Auditor(self.core, client, lambda: self.follower.is_current)
        resumption = Resumption(self.core, client, lambda: self.follower.is_current)
        local = LocalSigner(keys, self.core, auditor, resumption)
        self.server = SignerServer(local, keys.transport_secret, self.journal, self.follower, rules.chain_id)
        self.scope = trio.CancelScope()
        self.connections: list[trio.CancelScope] = []
        self.federation.nursery.start_soon(self._run)

    async def _run(self) -> None:
        async def changed() -> None:
            """Nobody waits for it."""

        with self.scope:
            await self.core.watcher.run(L1_POLL_S, changed)

    async def _serve(self, stream: trio.abc.Stream) -> None:
        with trio.CancelScope() as scope:
            self.connections.append(scope)
            await self.server._serve(stream)

    async def restart(self) -> None:
        """End at once, as in a power failure, and begin again with what the disk holds."""
        for scope in (self.scope, *self.connections):
            scope.cancel()
        self.disk.entries.lose_unsynced()
        await trio.lowlevel.checkpoint()
        self._start()

    @property
    def height(self) -> int:
        return self.follower.height

    async def dial(self) -> trio.abc.Stream:
        """A connection to it."""
        ours, theirs = trio.testing.memory_stream_pair()

        self.federation.nursery.start_soon(self._serve, theirs)
        return ours

    async def functionary(self) -> "Functionary":
        """One that said who it is, and was let in."""
        functionary = Functionary(self, FrameStream(await self.dial()))
        opened = await functionary.tell(functionary.hello())
        assert isinstance(opened, say.LinkOpened), opened
        return functionary


@dataclass
class Functionary:
    """A functionary whose every word a test decides."""

    rig: SignerRig
    frames: FrameStream
    number: int = 0

    def hello(self, **changes: object) -> say.OpenLink:
        """What an honest one says first, but for the changes."""
        values = {"version": say.LINK_VERSION, "chain_id": self.rig.federation.rules.chain_id, "member": self.rig.index}
        return say.OpenLink(**(values | changes))  # type: ignore[arg-type]

    async def tell(self, message: say.LinkMessage) -> say.Answer | None:
        """Send a message, and hear what comes next; None when the connection ended."""
        await self.frames.send(say.encode(message))
        return await self.hear()

    async def hear(self) -> say.Answer | None:
        """What comes next; None when the connection ended."""
        with trio.fail_after(30):
            payload = await self.frames.receive()
        return None if payload is None else say.decode_answer(payload)

    async def vote(
        self, kind: VoteKind, view: int, block_hash: bytes = NO_BLOCK, epoch: int = 0, proof: Certificate | None = None
    ) -> Vote | str:
        """Ask for a vote; it, or the reason of its refusal."""
        self.number += 1
        encoded = b"" if proof is None else proof.encode()
        answer = await self.tell(say.AskVote(self.number, kind, epoch, view, block_hash, encoded))
        return Vote.decode(answer.signed) if isinstance(answer, say.Signed) else _reason(answer)

    async def cosign(self, txid: Txid) -> bytes | str:
        """Ask for the signatures of a batch version; the encoded share, or the reason of the refusal."""
        self.number += 1
        answer = await self.tell(say.AskCosign(self.number, txid))
        return answer.signed if isinstance(answer, say.Signed) else _reason(answer)

    async def show(self, block: bytes, headers: Sequence[bytes], certificate: bytes) -> int | str:
        """Show a block; the height that is final then, or the reason of the refusal."""
        self.number += 1
        answer = await self.tell(say.ShowBlock(self.number, block, tuple(headers), certificate))
        return answer.height if isinstance(answer, say.Taken) else _reason(answer)

    async def show_block(self, unfinal: UnfinalBlock) -> int | str:
        """Show a block with a true certificate of its own."""
        return await self.show(unfinal.data, (), self.rig.federation.finalization(unfinal))

    async def show_chain(self, member: Member, up_to: int | None = None) -> None:
        """Show all that is final at a member, or what is up to a height."""
        for height in range(self.rig.height + 1, (member.height if up_to is None else up_to) + 1):
            shown = proven_block(member.store, height)
            assert shown is not None
            assert await self.show(*shown) in (height, self.rig.height)


def _reason(answer: say.Answer | None) -> str:
    return answer.reason if isinstance(answer, say.AskRefused) else "gone" if answer is None else repr(answer)


def unfinished_payout(federation: MemoryFederation, member: Member) -> tuple[UnfinalBlock, Txid]:
    """A block that records a payout, above one member's final chain with a deposit and a burn; and the payout."""
    coin = federation.fund_by_hand(member, ALICE)
    burn = federation.burn_output(1_000_000, PAYEE, ALICE.script())
    change = TxOut(coin[1].value_sats - 1_001_000, ALICE.script())
    federation.commit_block(member, ALICE.spend([coin], [burn, change]))
    store = member.store
    header = store.tip.header
    anchor = federation.l1.chain.anchor(header.anchor.height + 1)
    slot = Slot(header.view + 1, header.time_ms + 1_000, anchor, 2_000, include_l1=True)
    built = build_block(store, slot, Candidates(), federation.l1.chain.facts(anchor), federation.rules)
    [(txid, _)] = built.state.ledger.versions.items()
    return UnfinalBlock(built.block, built.block.encode(), built.state), txid
