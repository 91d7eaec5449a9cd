"""A member looks after its Bitcoin node: states with their beginning, and what is never concluded from them."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import trio
from structlog.testing import capture_logs
from structlog.typing import EventDict

from bridge.bitcoin.identifiers import BlockHash, Script
from bridge.bitcoin.transaction import TxOut
from bridge.custody import CoinKind
from bridge.evidence import Opening
from bridge.l1.answers import L1Header
from bridge.l1.errors import L1Error, L1Reason, L1RpcError, L1Unavailable
from bridge.l1.states import L1State
from pegnode.chain.block import Block
from pegnode.chain.builder import Candidates, Slot, build_block
from pegnode.consensus.events import Verdict
from pegnode.service.core import SUSPICION_MS
from pegnode.service.l1_monitor import WrongL1Chain
from tests.support.fake_l1 import FakeBlock
from tests.support.fake_l1_client import L1World
from tests.support.members import Member, MemoryFederation, memory_federation
from tests.support.mini_wallet import MiniWallet

ALL = (0, 1, 2, 3)
FRESH = (0, 1, 2)
ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
LOOKS_S = 2.0
"""Time for some looks."""


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with capture_logs() as entries:
        yield entries


def state_of(member: Member) -> L1State:
    """What a member says of its Bitcoin node."""
    return member.core.l1.state


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (L1Unavailable(L1Reason.UNREACHABLE), L1State.DOWN),
        (L1Unavailable(L1Reason.WARMING_UP), L1State.STARTING),
        (L1Unavailable(L1Reason.CREDENTIALS_MISSING), L1State.CREDENTIALS_MISSING),
        (L1Unavailable(L1Reason.UNAUTHORIZED), L1State.CREDENTIALS_REFUSED),
        (L1Unavailable(L1Reason.BAD_RESPONSE), L1State.GARBLED),
        (L1RpcError("getblockchaininfo", -1, "no"), L1State.ERRORING),
    ],
)
async def test_failure_is_a_state_that_begins_once_and_clears_by_itself(
    autojump_clock: trio.abc.Clock, logged: list[EventDict], error: L1Error, state: L1State
) -> None:
    async with memory_federation(0) as federation:
        member, node = federation.members[0], federation.nodes[0]
        assert state_of(member) is L1State.OK
        node.refusals = {"chain_info": error}
        began_ms = member.core.now_ms()
        await trio.sleep(LOOKS_S)
        since_ms = member.core.l1.since_ms
        assert state_of(member) is state
        assert began_ms <= since_ms <= began_ms + 1_000
        await trio.sleep(60)
        assert member.core.l1.since_ms == since_ms, "it is still the same outage"
        [told] = [entry for entry in logged if entry["log_level"] == "warning" and "Bitcoin node" in entry["event"]]
        assert (told["event"], told["remedy"]) == (f"the Bitcoin node is {state}", state.remedy)
        node.refusals = {}
        await trio.sleep(LOOKS_S + 1)
        assert state_of(member) is L1State.OK
        assert [entry for entry in logged if entry["log_level"] == "error"] == []


async def test_node_that_answers_late_is_slow_and_then_silent(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, node = federation.members[0], federation.nodes[0]
        for answer_s, state in ((3.0, L1State.SLOW), (30.0, L1State.SILENT), (0.001, L1State.OK)):
            node.answer_s = answer_s
            await federation.until(lambda state=state: state_of(member) is state)  # type: ignore[misc]


async def test_blocks_that_can_not_be_read_are_an_outage(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        member, node = federation.members[0], federation.nodes[0]
        node.refusals = {"block": L1RpcError("getblock", -1, "Can't read block from disk")}
        federation.l1.mine(1)
        await trio.sleep(LOOKS_S)
        assert state_of(member) is L1State.ERRORING
        assert "disk" in member.core.l1.detail
        node.refusals = {}
        await trio.sleep(LOOKS_S)
        assert state_of(member) is L1State.OK


@pytest.mark.parametrize(
    ("field", "value", "state"),
    [
        ("version", 240_100, L1State.TOO_OLD),
        ("prune_height", 1_000, L1State.PRUNED),
        ("first_block", BlockHash(b"\x77" * 32), L1State.WRONG_CHAIN),
    ],
)
async def test_node_that_becomes_another_one_is_found_out(
    autojump_clock: trio.abc.Clock, field: str, value: object, state: L1State
) -> None:
    async with memory_federation(*FRESH) as federation:
        await federation.fund(ALICE)
        member, node = federation.members[0], federation.nodes[0]
        before = getattr(node, field)
        setattr(node, field, value)
        await federation.until(lambda: state_of(member) is state, seconds=15)
        setattr(node, field, before)
        await federation.until(lambda: state_of(member) is L1State.OK, seconds=15)


async def test_node_that_lags_is_behind_and_then_stuck(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        federation.bury()
        await trio.sleep(LOOKS_S)
        member, node = federation.members[3], federation.nodes[3]
        node.lag_blocks = 1
        federation.l1.mine(1)
        await trio.sleep(3)
        assert state_of(member) is L1State.OK, "so long a block may take to spread"
        await trio.sleep(5)
        assert state_of(member) is L1State.BEHIND
        assert member.core.l1.detail == "1 block behind"
        await trio.sleep(60)
        assert state_of(member) is L1State.STUCK
        node.lag_blocks = 0
        await trio.sleep(LOOKS_S)
        assert state_of(member) is L1State.OK


async def test_report_of_too_few_members_makes_nobody_behind(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        federation.bury()
        await trio.sleep(LOOKS_S)
        for index in (1, 2, 3):
            federation.nodes[index].lag_blocks = 6
        federation.l1.mine(6)
        await trio.sleep(10)
        assert state_of(federation.members[3]) is L1State.OK, "one member may lie"


async def test_full_node_learns_from_the_final_chain_that_its_bitcoin_node_is_behind(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with memory_federation(*FRESH) as federation:
        await federation.fund(ALICE)
        node = await federation.start_full_node()
        await federation.until(lambda: node.height == federation.height)
        node.l1.lag_blocks = 4
        await federation.until(lambda: state_of(node) is L1State.BEHIND, seconds=20)


async def test_fresh_node_refuses_another_chain_and_one_with_blocks_waits(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        await federation.stop(3)
        federation.nodes[3].first_block = BlockHash(b"\x77" * 32)
        await federation.start(3)
        await trio.sleep(LOOKS_S)
        assert state_of(federation.members[3]) is L1State.WRONG_CHAIN
        member = federation.members[3]
        member.core.store = MemoryFederation(federation.nursery).disks[3].open_store(federation.rules)
        member.l1_monitor._network = None
        with pytest.raises(WrongL1Chain, match="first block differs"):
            await member.l1_monitor.run(member._l1_changed)


# What one's own node says for a moment


async def with_anchor(federation: MemoryFederation) -> None:
    """A final block whose anchor is above the genesis's."""
    federation.bury()
    await federation.until(
        lambda: all(member.store.tip.header.anchor.height > 10 for member in federation.members.values())
    )


def fork_of(federation: MemoryFederation, length: int) -> tuple[L1World, dict[BlockHash, FakeBlock]]:
    """Another chain of that many blocks above the genesis's anchor, and the blocks that it leaves."""
    chain = federation.l1.chain
    world = L1World(chain=type(chain)(list(chain.blocks[:11]), payments=1_000))
    world.chain.mine(world.chain.payment(chain.blocks[0].transactions[0].outputs[0]))
    world.mine(length - 1)
    return world, {block.hash: block for block in chain.blocks[11:]}


async def test_anchor_that_is_left_halts_only_when_it_stays_left(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(*FRESH) as federation:
        await with_anchor(federation)
        member, node = federation.members[0], federation.nodes[0]
        right, (fork, left) = node.world, fork_of(federation, 30)
        for _ in range(3):  # pauses begin the count anew
            node.world, node.stale = fork, left
            await federation.until(lambda: state_of(member) is L1State.FORKED, seconds=3)
            await trio.sleep(SUSPICION_MS / 1000 - 3)
            assert member.core.halted, "as long as it may be true nothing about L1 is done"
            assert any("left the L1 block" in item for item in member.live.status().waiting_for)
            node.world, node.stale = right, {}
            await trio.sleep(5)
            assert not member.core.halted
        node.world, node.stale = fork, left
        await federation.until(lambda: member.core.halt_findings, seconds=SUSPICION_MS / 1000 + 3)
        node.world, node.stale = right, {}
        await trio.sleep(5)
        assert member.core.halted, "a halt is latched"


async def test_node_that_returns_with_a_stale_tip_halts_nobody(autojump_clock: trio.abc.Clock) -> None:
    """It learns of the headers first: it knows the anchor, off its own chain, whose tip is a stale block."""
    async with memory_federation(*FRESH) as federation:
        await with_anchor(federation)
        member, node = federation.members[0], federation.nodes[0]
        height = member.store.tip.header.anchor.height
        right = node.world
        node.world, node.stale = fork_of(federation, height - 10)
        node.headers_ahead = right.chain.height - height
        await trio.sleep(SUSPICION_MS / 1000 + 10)
        assert state_of(member) is L1State.STUCK
        assert not member.core.halted
        node.world, node.stale, node.headers_ahead = right, {}, 0
        await federation.until(lambda: state_of(member) is L1State.OK)


def evidence_block(federation: MemoryFederation, member: Member) -> Block:
    """A valid block with a deposit, on the member's tip."""
    chain = federation.l1.chain
    federation.pay_deposit(BOB.script(), 1_000_000)
    evidence = chain.evidence(chain.blocks[-1].transactions[1], Opening(0, CoinKind.DEPOSIT, 0, BOB.script()))
    federation.bury()
    header, anchor = member.store.tip.header, chain.anchor(evidence.l1_height)
    slot = Slot(header.view + 1, header.time_ms + 1_000, anchor, None, include_l1=True)
    return build_block(
        member.store, slot, Candidates((evidence,)), chain.facts(anchor, evidence), federation.rules
    ).block


LIES: dict[str, Callable[[L1Header], L1Header | None]] = {
    "not found": lambda _: None,
    "off the chain": lambda header: replace(header, confirmations=-1),
    "another height": lambda header: replace(header, height=header.height + 1),
    "another count": lambda header: replace(header, n_tx=header.n_tx + 1),
}


@pytest.mark.parametrize("name", LIES)
async def test_lie_about_the_block_in_evidence_is_no_verdict(autojump_clock: trio.abc.Clock, name: str) -> None:
    async with memory_federation(0) as federation:
        member, node = federation.members[0], federation.nodes[0]
        block = evidence_block(federation, member)
        await trio.sleep(LOOKS_S)
        node.lie = LIES[name]
        assert await member.judge.judge(block, block.encode()) is Verdict.WAITING
        node.lie = lambda header: header
        assert await member.judge.judge(block, block.encode()) is Verdict.VOTABLE
        assert not member.core.halted


@pytest.mark.parametrize("name", LIES)
async def test_lie_about_a_final_block_delays_it_and_halts_nobody(autojump_clock: trio.abc.Clock, name: str) -> None:
    async with memory_federation(*FRESH) as federation:
        await federation.fund(ALICE)
        federation.nodes[3].lie = LIES[name]
        await federation.start(3)
        late = federation.members[3]
        await federation.until(lambda: late.core.waiting_for is not None)
        await trio.sleep(3)
        assert (late.height < federation.height, late.core.halt_findings) == (True, [])
        federation.nodes[3].lie = lambda header: header
        await federation.until(lambda: late.height == federation.height)
        assert late.core.halt_findings == []


# A member that has to catch up


async def test_member_that_catches_up_makes_no_evidence_and_refuses_no_signature(
    autojump_clock: trio.abc.Clock, logged: list[EventDict]
) -> None:
    async with memory_federation(*FRESH, peg={"batch_min_payouts": 1}) as federation:
        member = federation.members[0]
        coin = await federation.fund(ALICE)
        await federation.start(3)
        await federation.until(lambda: federation.members[3].height == federation.height)
        await federation.stop(3)  # the batch is none that it knows
        burn = federation.burn_output(1_000_000, Script(b"\x51\x20" + b"\x05" * 32), ALICE.script())
        change = TxOut(coin[1].value_sats - 1_001_000, ALICE.script())
        member.relay.submit_transaction(ALICE.spend([coin], [burn, change]).serialize())
        await federation.until(lambda: list(member.store.ledger.open_lineages.items()))
        await federation.until(lambda: federation.l1.mempool)
        federation.bury()
        await federation.until(lambda: not list(member.store.ledger.open_lineages.items()))
        logged.clear()
        await federation.start(3)
        late = federation.members[3]
        await federation.until(lambda: late.height == federation.height)
        await trio.sleep(10)
        told = {entry["event"] for entry in logged}
        assert told.isdisjoint({"evidence made", "no evidence made of a transaction", "payout not signed"})
