"""L1 abandons what is final here: which findings halt whom, and what is offered to L1 again."""

import pytest
import trio

from bridge.bitcoin.identifiers import Txid, hash_to_hex
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.l1.errors import L1Reason, L1Unavailable
from bridge.records import Finding, FindingKind
from bridge.state import Lineage
from pegnode.resume.words import block_text, count_text
from pegnode.service.core import SUSPICION_MS
from pegnode.service.settled_payouts import RETRY_S
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr

ALL = (0, 1, 2, 3)
ALICE = MiniWallet("alice")
PEG = {"batch_min_payouts": 1}
HALT_S = SUSPICION_MS / 1000


async def replaced_and_settled(running: MemoryFederation) -> tuple[Lineage, int]:
    """A payout of two versions that the second settled, and the height of the L1 block before it."""
    member = running.members[0]
    funds = await running.fund(ALICE)
    burn = running.burn_output(1_000_000, p2tr("payee"), ALICE.script())
    change = TxOut(funds[1].value_sats - 1_001_000, ALICE.script())
    member.relay.submit_transaction(ALICE.spend([funds], [burn, change]).serialize())
    await running.until(lambda: running.l1.mempool)
    [first] = running.l1.mempool
    for node in running.nodes.values():
        node.feerate_sat_kvb = 4_000
    running.l1.chain.mine_empty(running.rules.params.replacement_interval_anchors)
    await running.until(lambda: running.l1.mempool and first not in running.l1.mempool)
    height = running.l1.chain.height
    running.bury()
    members = list(running.members.values())
    await running.until(lambda: all(not list(one.store.ledger.open_lineages.items()) for one in members))
    [lineage] = member.store.ledger.lineages_newest_first()
    assert lineage.settled_by == lineage.versions[1].txid
    return lineage, height


def reorganise(running: MemoryFederation, height: int, *transactions: Transaction, length: int = 30) -> None:
    """L1 leaves every block above `height`; these transactions are in the first of the others. Nodes know both."""
    chain = running.l1.chain
    left = {block.hash: block for block in chain.blocks[height + 1 :]}
    del chain.blocks[height + 1 :]
    chain.mine(chain.payment(TxOut(1_000, p2tr("other"))), *transactions)
    chain.mine_empty(length - 1)
    for node in running.nodes.values():
        node.stale = left


def kinds(member: Member) -> list[FindingKind]:
    return [item.finding.kind for item in member.core.active_findings()]


def signed(member: Member, txid: Txid) -> Transaction:
    data = member.store.signed_payout(txid)
    assert data is not None
    return Transaction.parse(data)


async def test_deep_reorganisation_names_blocks_coins_and_value(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as running:
        await running.fund(ALICE, 150_000_000)
        member = running.members[0]
        [(_, coin)] = member.store.ledger.coins.items()
        anchor = member.store.tip.header.anchor
        fork = running.l1.chain.anchor(coin.l1_height - 1)
        reorganise(running, fork.height)
        await running.until(lambda: all(one.core.active_findings() for one in running.members.values()), HALT_S + 10)
        [found] = member.core.active_findings()
        assert found.finding == Finding.anchor_left(anchor)
        assert found.detail == (
            f"the Bitcoin node left the L1 block {block_text(anchor)}, to which final blocks refer: "
            f"{count_text(anchor.height - fork.height, 'block')} above block {block_text(fork)} abandoned. From there "
            f"came 1 coin of the reserve, 1.50000000 BTC: {coin.outpoint} of 1.50000000 BTC"
        )
        await trio.sleep(HALT_S + 10)
        assert kinds(member) == [FindingKind.ANCHOR_LEFT], "whether a coin is lost is not judged on another branch"


async def test_deep_reorganisation_that_took_no_coin_says_so(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0, 1, 2) as running:
        running.bury()
        await running.until(lambda: running.members[0].store.tip.header.anchor.height > 10)
        reorganise(running, 10)
        await running.until(running.members[0].core.active_findings, HALT_S + 10)
        assert running.members[0].core.halt_findings[0].endswith(", and no coin of the reserve came from there")


async def test_branch_that_the_bitcoin_node_does_not_know_halts_without_its_blocks(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(0, 1, 2) as running:
        running.bury()
        await running.until(lambda: running.members[0].store.tip.header.anchor.height > 10)
        anchor = running.members[0].store.tip.header.anchor
        reorganise(running, 10, length=40)
        running.nodes[0].stale = {anchor.hash: running.nodes[0].stale[anchor.hash]}
        running.nodes[0].unread = {anchor.hash}
        await running.until(running.members[0].core.active_findings, HALT_S + 10)
        assert running.members[0].core.halt_findings[0].endswith(", to which final blocks refer")


async def test_second_version_of_a_settled_payout_halts(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        lineage, height = await replaced_and_settled(running)
        first, second = [version.txid for version in lineage.versions]
        reorganise(running, height, signed(running.members[0], first))
        both = [FindingKind.ANCHOR_LEFT, FindingKind.SECOND_VERSION]
        await running.until(lambda: all(kinds(one) == both for one in running.members.values()), 2 * HALT_S + 30)
        found = running.members[0].core.active_findings()[1]
        assert found.finding == Finding.second_version(first)
        where = f"{hash_to_hex(first)} is confirmed in L1 block {height + 1}"
        assert found.detail == f"{where}: a version of batch 0, which {hash_to_hex(second)} had settled"


async def test_second_version_is_no_finding_before_its_time(autojump_clock: trio.abc.Clock) -> None:
    """With the anchor in its place, it must be as deep as anything else that counts."""
    async with memory_federation(*ALL, peg=PEG) as running:
        lineage, _ = await replaced_and_settled(running)
        member, depth = running.members[0], running.rules.params.confirmations
        running.l1.chain.mine(signed(member, lineage.versions[0].txid))  # which no real node would
        running.l1.chain.mine_empty(depth - 2)
        await trio.sleep(HALT_S + 20)
        assert not member.core.halted
        running.l1.chain.mine_empty(1)
        await running.until(lambda: kinds(member) == [FindingKind.SECOND_VERSION], HALT_S + 20)


async def test_settlement_that_l1_abandoned_is_offered_again(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        lineage, height = await replaced_and_settled(running)
        settling = lineage.versions[1].txid
        await trio.sleep(2 * RETRY_S)
        assert running.l1.mempool == {}, "it is where it should be"
        reorganise(running, height)
        await running.until(lambda: settling in running.l1.mempool, RETRY_S + 5)
        running.l1.mempool.clear()
        running.nodes[0].refusals = {"mempool_contains": L1Unavailable(L1Reason.TIMEOUT)}
        await running.until(lambda: settling in running.l1.mempool, RETRY_S + 5)
        running.l1.mine()
        await trio.sleep(2 * RETRY_S)
        assert running.l1.mempool == {}


async def test_settlement_that_can_not_return_is_told_once_and_tried_on(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        lineage, height = await replaced_and_settled(running)
        member = running.members[0]
        reorganise(running, height, signed(member, lineage.versions[0].txid))
        await running.until(lambda: member.settled_payouts._offered, RETRY_S + 5)
        await trio.sleep(3 * RETRY_S)
        [said] = member.settled_payouts._offered.values()
        assert said.startswith("not taken: ")


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_closed_lineages_are_known_whether_they_closed_before_the_start_or_since(
    autojump_clock: trio.abc.Clock, is_restarted: bool
) -> None:
    async with memory_federation(*ALL, peg=PEG) as running:
        lineage, _ = await replaced_and_settled(running)
        if is_restarted:
            await running.stop(0)
            await running.start(0)
        [closed] = running.members[0].reserve_watch._closed
        assert (closed.number, closed.settled_by) == (0, lineage.versions[1].txid)
        assert (closed.ended_l1_height, closed.others) == (lineage.settled_l1_height, (lineage.versions[0].txid,))


async def test_closed_lineages_are_forgotten_when_no_record_can_reach_them(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pegnode.service.closed_lineages.MAX_ABANDONED_BLOCKS", 3)
    async with memory_federation(*ALL, peg=PEG) as running:
        await replaced_and_settled(running)
        assert len(list(running.members[0].reserve_watch._closed)) == 1
        running.l1.mine(20)
        await running.until(lambda: running.members[0].store.tip.header.anchor.height > running.l1.chain.height - 6)
        await running.stop(0)
        await running.start(0)
        assert list(running.members[0].reserve_watch._closed) == []
