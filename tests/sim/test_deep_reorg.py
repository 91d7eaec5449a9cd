"""L1 abandons blocks that the final chain is anchored to: members halt, decide and go on; whoever joins later syncs.

Whole members in one process, over Bitcoin nodes in memory: what they find, sign, send and apply is all real.
"""

from typing import cast

import pytest
import trio

from bridge.bitcoin.identifiers import OutPoint
from bridge.l1.client import L1Client
from bridge.records import Deficit, LostCoin, Rebase, Resume
from federation.record import SignedRecord
from pegnode.service.core import SUSPICION_MS
from pegnode.service.records import RecordRelay
from pegnode.service.resumption import Resumption
from tests.support.chain import L1_START
from tests.support.fake_l1 import FakeBlock
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.records import rebase_of, record_of, signed

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
CAROL = MiniWallet("carol")
HALTED_WITHIN_S = 2 * SUSPICION_MS / 1000


def reorganise(federation: MemoryFederation, fork_height: int) -> list[FakeBlock]:
    """L1 leaves all blocks above a height for a longer branch; the old one, which running members' nodes remember."""
    chain = federation.l1.chain
    branch = chain.reorganise(fork_height)
    for index in federation.members:
        federation.nodes[index].stale.update({block.hash: block for block in branch[1:]})
    federation.l1.mine(len(branch) + 2 * federation.rules.params.confirmations)
    return branch


def rebase_to_new_branch(federation: MemoryFederation, branch: list[FakeBlock]) -> Rebase:
    """From the final chain's anchor to the highest block that is deep enough."""
    member = next(iter(federation.members.values()))
    old, chain = member.store.tip.header.anchor, federation.l1.chain
    abandoned = [block for block in branch if block.height <= old.height]
    return rebase_of(abandoned, chain.anchor(chain.height - federation.rules.params.confirmations + 1))


def records(federation: MemoryFederation, rebase: Rebase, *lost: OutPoint) -> list[SignedRecord]:
    """What a quorum signs: the coins that are lost, then the way on to the new branch."""
    members, rules = list(federation.members.values()), federation.rules
    coins = [members[0].store.ledger.coins.get(outpoint) for outpoint in lost]
    values = [LostCoin(coin.outpoint, coin.value_sats) for coin in coins if coin is not None]
    found = [item.finding for member in members for item in member.core.active_findings()]
    serial = members[0].store.ledger.totals.record_serial + 1
    deficits = [signed(record_of(rules, Deficit.of(values), serial))] if values else []
    return [*deficits, signed(record_of(rules, Resume.of(found, rebase), serial + len(deficits)))]


async def halt_of_all(federation: MemoryFederation) -> None:
    """Every running member has found that L1 left the anchor, and halted for it."""
    members = federation.members.values()
    await federation.until(lambda: all(member.core.active_findings() for member in members), seconds=HALTED_WITHIN_S)


async def decided(federation: MemoryFederation, given: list[SignedRecord]) -> None:
    """The records are final with every running member, and end the halt."""
    first = next(iter(federation.members.values()))
    for record in given:
        first.records.submit(record)
    serial = given[-1].record.serial
    members = federation.members.values()
    await federation.until(lambda: all(member.store.ledger.totals.record_serial == serial for member in members))
    await federation.until(lambda: not any(member.core.halted for member in members))
    assert [record.record.serial for record in first.store.records()][-len(given) :] == [
        record.record.serial for record in given
    ]
    assert all(member.core.records.waiting() == () for member in members)


def same_chain(federation: MemoryFederation, node: Member) -> bool:
    """Whether a node has the final chain of the members."""
    member = next(iter(federation.members.values()))
    return node.height == member.height and node.store.tip == member.store.tip


async def test_members_halt_decide_and_go_on_and_whoever_joins_later_syncs_through_it(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with memory_federation(0, 1, 2, 3) as federation:
        await federation.fund(ALICE)
        await federation.stop(3)
        fork_height = federation.l1.chain.height
        await federation.fund(BOB, 5_000_000)
        [lost] = [
            coin.outpoint
            for _, coin in federation.members[0].store.ledger.coins.items()
            if coin.l1_height > fork_height
        ]
        coin = await federation.fund(ALICE, 3_000_000)
        branch = reorganise(federation, fork_height)
        federation.l1.chain.mine(*[tx for block in branch for tx in block.transactions[1:] if tx.txid != lost.txid])
        federation.bury()
        await halt_of_all(federation)
        await federation.members[1].live.submit_transaction(ALICE.pay(coin, BOB.script()).serialize())
        await federation.settled(ALICE.pay(coin, BOB.script()))
        await decided(federation, records(federation, rebase_to_new_branch(federation, branch), lost))
        totals = federation.members[0].store.ledger.totals
        assert totals.deficit_sats == 5_000_000
        await federation.fund(CAROL)

        with monkeypatch.context() as silent:
            silent.setattr(RecordRelay, "ask", lambda *_: None)
            node = await federation.start_full_node()
            await trio.sleep(20)
            assert 0 < node.store.tip.header.anchor.height <= fork_height, "it can't know what the blocks speak of"
            assert node.core.waiting_for is not None
        await federation.until(lambda: same_chain(federation, node))
        assert [record.encode() for record in node.store.records()] == [
            record.encode() for record in federation.members[0].store.records()
        ]
        await federation.start(3)
        await federation.until(lambda: same_chain(federation, federation.members[3]))
        assert not federation.members[3].core.halted
        await federation.fund(BOB)


async def test_member_that_was_away_follows_an_abandoned_branch_and_can_sign(autojump_clock: trio.abc.Clock) -> None:
    """Else a quorum without the one member that has gone since could never decide anything."""
    async with memory_federation(0, 1, 2, 3) as federation:
        await federation.fund(ALICE)
        await federation.stop(3)
        fork_height = federation.l1.chain.height
        await federation.fund(BOB, 5_000_000)
        branch = reorganise(federation, fork_height)
        federation.nodes[3].stale.update({block.hash: block for block in branch[1:]})
        federation.l1.chain.mine(*[tx for block in branch for tx in block.transactions[1:]])
        federation.bury()
        await halt_of_all(federation)
        await federation.stop(2)
        await federation.start(3)
        late = federation.members[3]
        await federation.until(lambda: same_chain(federation, late))
        await halt_of_all(federation)
        plan = await Resumption(late.core, cast(L1Client, federation.nodes[3]), late.is_current).plan()
        assert plan.waits == ()
        assert [view.refusal for view in plan.records] == [None]
        await decided(federation, [signed(view.record) for view in plan.records])
        await federation.fund(CAROL)


async def test_node_syncs_through_one_reorg_that_reaches_below_another(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, 1, 2, 3) as federation:
        await federation.fund(ALICE)
        first_fork = federation.l1.chain.height
        federation.bury()
        await federation.all_at(federation.height + 1)
        for wallet, fork_height in ((BOB, first_fork), (CAROL, L1_START + 1)):
            branch = reorganise(federation, fork_height)
            kept = [tx for block in branch for tx in block.transactions[1:]]
            federation.l1.chain.mine(*kept)
            federation.bury()
            await halt_of_all(federation)
            await decided(federation, records(federation, rebase_to_new_branch(federation, branch)))
            await federation.fund(wallet)
        node = await federation.start_full_node()
        await federation.until(lambda: same_chain(federation, node))
        assert not node.core.halted
