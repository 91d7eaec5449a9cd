"""A federation in one process: whole members over a network, Bitcoin nodes and stores in memory.

Everything between the edges is real: rules, pools, consensus, journals, signatures. Under trio's autojump clock a test
takes as long as its arithmetic. The wall clock of the members is trio's.
"""

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.evidence import Opening
from bridge.withdrawals import Burn, encode_burn
from federation.certificate import NO_BLOCK, Certificate, Vote, VoteKind, vote_digest
from federation.keystore import MemberSecrets
from federation.signer import Signer
from pegnode.chain.block import Block
from pegnode.chain.builder import Candidates, Slot, build_block
from pegnode.chain.facts import NO_FACTS
from pegnode.chain.state import ChainView, Tip
from pegnode.net.memory import MemoryNetwork
from pegnode.net.transport import PeerId, PeerRole
from pegnode.service.unfinal import UnfinalBlock
from pegnode.storage.store import ChainStore, FinalBlock
from tests.support.chain import L1_START, custody_secrets, local_genesis, secret, vote_secrets
from tests.support.fake_l1_client import FakeL1Client, L1World
from tests.support.memory_disk import Disk
from tests.support.memory_member import Member, Stranger, now_ms
from tests.support.mini_wallet import Coin, MiniWallet

__all__ = ["Member", "MemoryFederation", "Stranger", "memory_federation", "now_ms"]


class MemoryFederation:
    """Four members, their network, and L1. Members run between `start` and `stop`."""

    def __init__(
        self, nursery: trio.Nursery, *, peg: Mapping[str, int] = {}, chain: Mapping[str, int] = {}, seed: int = 1
    ) -> None:
        self.nursery = nursery
        self.l1 = L1World()
        self.l1.mine(L1_START + 1)
        self.genesis = local_genesis(self.l1.chain.anchor(L1_START), peg=peg, chain=chain)
        self.rules = self.genesis.rules()
        self.network = MemoryNetwork(random.Random(seed))
        self.members: dict[int, Member] = {}
        self.has_quorum = False
        self.byzantine: frozenset[int] = frozenset()
        self.disks = {index: Disk() for index in range(self.rules.membership.size)}
        self.nodes = {index: self._bitcoin_node() for index in self.disks}

    def _bitcoin_node(self) -> FakeL1Client:
        """A Bitcoin node that can derive the published descriptors."""
        policy = self.rules.custody.newest
        published = [reserve_script(policy, kind) for kind in (CoinKind.CHANGE, CoinKind.DONATION)]
        return FakeL1Client(self.l1, known_descriptors={item.descriptor: item.script for item in published})

    def peer_id(self, index: int) -> PeerId:
        """A member's."""
        return PeerId(self.rules.membership.members[index].peer_id)

    def signer(self, index: int) -> Signer:
        """A member's keys."""
        keys = MemberSecrets(vote_secrets()[index], custody_secrets()[index], secret("transport", index))
        return Signer(keys, self.rules.membership, index, self.rules.chain_id, bytes)

    # life

    async def start(self, *indexes: int) -> None:
        """Start these members, or go on with what their disks hold."""
        for index in indexes:
            member = Member(self, index, self.disks[index], self.nodes[index])
            self.members[index] = member
            self.has_quorum |= len(self.members) >= self.rules.membership.quorum
            await self.nursery.start(member.run)

    async def stop(self, index: int) -> None:
        """End a member."""
        member = self.members.pop(index)
        member.scope.cancel()
        await member.stopped.wait()

    async def start_full_node(self) -> Member:
        """A node without keys."""
        node = Member(self, None, Disk(), self._bitcoin_node())
        await self.nursery.start(node.run)
        return node

    async def join(self, peer: PeerId, role: PeerRole = PeerRole.GUEST) -> Stranger:
        """A node that the test plays; a member's if it has its id."""
        stranger = Stranger(self.network.transport(peer, role))
        await self.nursery.start(stranger.run)
        return stranger

    def isolate(self, index: int) -> None:
        """Cut a member off from every other."""
        for other in self.disks:
            if other != index:
                self.network.cut(self.peer_id(index), self.peer_id(other))

    # time

    async def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Let time pass until the condition holds; fail the test when it does not within `seconds`."""
        deadline_s = trio.current_time() + seconds
        while not condition():
            assert trio.current_time() < deadline_s, "not within the time given"
            await trio.sleep(0.05)

    async def all_at(self, height: int, seconds: float = 60.0) -> None:
        """Wait until every running member has this height, and see that they agree about it."""
        await self.until(lambda: all(member.height >= height for member in self.members.values()), seconds)
        assert len({member.store.block_at(height) for member in self.members.values()}) == 1

    @property
    def height(self) -> int:
        """The highest final height."""
        return max(member.height for member in self.members.values())

    # votes

    def vote(self, index: int, kind: VoteKind, view: int, block_hash: BlockHash = NO_BLOCK) -> Vote:
        """A member's signed vote, whatever that member has said before."""
        digest = vote_digest(self.rules.chain_id, 0, kind, view, block_hash)
        return Vote(kind, 0, view, block_hash, index, schnorr_sign(vote_secrets()[index], digest, bytes(32)))

    def certificate(
        self, kind: VoteKind, view: int, block_hash: BlockHash = NO_BLOCK, signers: Sequence[int] = (0, 1, 2)
    ) -> Certificate:
        """A certificate of these signers."""
        votes = [self.vote(index, kind, view, block_hash) for index in signers]
        return Certificate(kind, 0, view, block_hash, tuple((vote.member, vote.signature64) for vote in votes))

    # blocks made by hand

    def next_block(self, parent: ChainView, *transactions: Transaction, **header_changes: object) -> UnfinalBlock:
        """A block by the leader of the next view; valid unless its header is changed."""
        header = parent.tip.header
        slot = Slot(header.view + 1, max(header.time_ms + 1, now_ms()), header.anchor, None, include_l1=False)
        built = build_block(parent, slot, Candidates((), transactions), NO_FACTS, self.rules)
        block = Block(replace(built.block.header, **header_changes), built.block.body)  # type: ignore[arg-type]
        built.state.tip = Tip(block.header)
        return UnfinalBlock(block, block.encode(), built.state)

    def run_of_blocks(self, parent: ChainView, count: int) -> list[UnfinalBlock]:
        """Empty blocks, each on the one before."""
        blocks: list[UnfinalBlock] = []
        for _ in range(count):
            blocks.append(self.next_block(blocks[-1].state if blocks else parent))
        return blocks

    def finalization(self, unfinal: UnfinalBlock, signers: Sequence[int] = (0, 1, 2)) -> bytes:
        """What makes a block final."""
        header = unfinal.block.header
        return self.certificate(VoteKind.FINALIZE, header.view, header.hash, signers).encode()

    def commit(self, store: ChainStore, blocks: Sequence[UnfinalBlock]) -> None:
        """Make blocks final in a store; only the last one has a finalization."""
        *ancestors, last = blocks
        finals = [FinalBlock(unfinal.state, unfinal.data) for unfinal in ancestors]
        store.commit([*finals, FinalBlock(last.state, last.data, self.finalization(last))])

    def commit_block(self, member: Member, *transactions: Transaction) -> None:
        """Make a block with these transactions final at one member."""
        unfinal = self.next_block(member.store, *transactions)
        assert len(unfinal.block.body.transactions) == len(transactions)
        member.core.unfinal.add(unfinal)
        member.core.finalize(unfinal.block.hash, self.finalization(unfinal))

    def fund_by_hand(self, member: Member, wallet: MiniWallet, value_sats: int = 10_000_000) -> Coin:
        """A deposit, claimed in a block that is made final at one member; the coin that the claim made."""
        script, chain = wallet.script(), self.l1.chain
        self.pay_deposit(script, value_sats)
        evidence = chain.evidence(chain.blocks[-1].transactions[1], Opening(0, CoinKind.DEPOSIT, 0, script))
        self.bury()
        header = member.store.tip.header
        anchor = chain.anchor(evidence.l1_height)
        slot = Slot(header.view + 1, header.time_ms + 1_000, anchor, None, include_l1=True)
        built = build_block(member.store, slot, Candidates((evidence,)), chain.facts(anchor, evidence), self.rules)
        unfinal = UnfinalBlock(built.block, built.block.encode(), built.state)
        member.core.unfinal.add(unfinal)
        member.core.finalize(unfinal.block.hash, self.finalization(unfinal))
        [claim] = built.state.transactions
        return claim.transaction.outpoint(0), claim.transaction.outputs[0]

    # money

    def deposit_script(self, claim_script: Script) -> Script:
        """What a deposit pays on L1."""
        return reserve_script(self.rules.custody.newest, CoinKind.DEPOSIT, claim_script).script

    def pay_deposit(self, claim_script: Script, value_sats: int) -> OutPoint:
        """A deposit in a new L1 block."""
        payment = self.l1.chain.payment(TxOut(value_sats, self.deposit_script(claim_script)))
        self.l1.chain.mine(payment)
        return payment.outpoint(0)

    def bury(self) -> None:
        """Enough L1 blocks for the newest to become an anchor."""
        self.l1.mine(self.rules.params.confirmations)

    async def fund(self, wallet: MiniWallet, value_sats: int = 10_000_000) -> Coin:
        """A deposit, claimed by whoever runs; the coin that the claim made."""
        script = wallet.script()
        for member in self.members.values():
            member.relay.register(script)
        deposit = self.pay_deposit(script, value_sats)
        self.bury()
        await self.until(lambda: all(deposit in member.store.ledger.entered for member in self.members.values()))
        member = next(iter(self.members.values()))
        [(outpoint, utxo)] = [
            (outpoint, utxo)
            for outpoint, utxo in member.store.utxos.items()
            if utxo.script == script and utxo.value_sats == value_sats - self.rules.params.claim_fee_sats
        ]
        return outpoint, TxOut(utxo.value_sats, utxo.script)

    def burn_output(self, value_sats: int, l1_script: Script, refund_script: Script) -> TxOut:
        """An output that burns, for a payout to `l1_script`."""
        return TxOut(value_sats, encode_burn(self.rules.l1_genesis_hash, Burn(l1_script, 5_000, refund_script)))

    async def settled(self, *transactions: Transaction | Txid) -> None:
        """Wait until these are final with every running member."""
        txids = [item.txid if isinstance(item, Transaction) else item for item in transactions]
        stores = [member.store for member in self.members.values()]
        await self.until(lambda: all(store.index.transaction(txid) for store in stores for txid in txids))


@asynccontextmanager
async def memory_federation(
    *running: int, peg: Mapping[str, int] = {}, chain: Mapping[str, int] = {}, seed: int = 1
) -> AsyncIterator[MemoryFederation]:
    """A federation whose members `running` run, all connected."""
    async with trio.open_nursery() as nursery:
        federation = MemoryFederation(nursery, peg=peg, chain=chain, seed=seed)
        nursery.start_soon(federation.network.run)
        await federation.start(*running)
        await trio.sleep(0.5)
        yield federation
        nursery.cancel_scope.cancel()
