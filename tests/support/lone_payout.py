"""One running member and a payout that is about to become final: what other members say of it, a test says for them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from bridge.bitcoin.transaction import Transaction, TxOut
from federation.approval import approve_batch
from federation.cosign import CosignSession, CosignShare
from pegnode.chain.builder import Candidates, Slot, build_block
from pegnode.net.messages import Message
from pegnode.net.transport import PeerRole
from pegnode.service.unfinal import UnfinalBlock
from tests.support.members import MemoryFederation, Stranger, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr
from tests.support.signers import honest_facts

ALICE = MiniWallet("alice")
PAYEE = p2tr("payee")
ONE_IS_ENOUGH = {"batch_min_payouts": 1}
FAULTY = 1


class Lone:
    """Member 0 alone with one payout that is about to become final, and what member 1 says of it."""

    def __init__(self, federation: MemoryFederation, faulty: Stranger) -> None:
        self.federation = federation
        self.member = federation.members[0]
        self.faulty = faulty
        coin = federation.fund_by_hand(self.member, ALICE)
        burn = federation.burn_output(1_000_000, PAYEE, ALICE.script())
        change = TxOut(coin[1].value_sats - 1_001_000, ALICE.script())
        federation.commit_block(self.member, ALICE.spend([coin], [burn, change]))
        store = self.member.store
        header = store.tip.header
        anchor = federation.l1.chain.anchor(header.anchor.height + 1)
        slot = Slot(header.view + 1, header.time_ms + 1_000, anchor, 2_000, include_l1=True)
        built = build_block(store, slot, Candidates(), federation.l1.chain.facts(anchor), federation.rules)
        self.block = UnfinalBlock(built.block, built.block.encode(), built.state)
        [(self.txid, _)] = built.state.ledger.versions.items()

    def finalize(self) -> None:
        """The block with the payout becomes final."""
        self.member.core.unfinal.add(self.block)
        self.member.core.finalize(self.block.block.hash, self.federation.finalization(self.block))

    def share(self, index: int) -> CosignShare:
        """A member's signatures of the payout."""
        rules, ledger = self.federation.rules, self.block.state.ledger
        facts = honest_facts(ledger, rules.custody)
        return self.federation.signer(index).cosign(
            approve_batch(ledger, self.txid, facts, rules.custody, rules.params)
        )

    def signed(self) -> Transaction:
        """The payout with signatures of members 1 to 3."""
        rules, ledger = self.federation.rules, self.block.state.ledger
        facts = honest_facts(ledger, rules.custody)
        approved = approve_batch(ledger, self.txid, facts, rules.custody, rules.params)
        session = CosignSession(approved.plan, rules.membership)
        for index in (1, 2, 3):
            session.add_share(self.share(index), index)
        return session.combine()

    async def say(self, message: Message) -> None:
        """Member 1 says something, and it arrives."""
        self.faulty.say(self.member.transport.peer_id, message)
        await trio.sleep(0.05)

    @property
    def signatures(self) -> int:
        """How many members' shares the running member has."""
        return self.member.payouts.signatures(self.txid)


@asynccontextmanager
async def lone_member() -> AsyncIterator[Lone]:
    """Member 0 running, member 1 played by the test, the others away."""
    async with memory_federation(0, peg=ONE_IS_ENOUGH) as federation:
        faulty = await federation.join(federation.peer_id(FAULTY), PeerRole.MEMBER)
        await trio.sleep(0.5)
        yield Lone(federation, faulty)
