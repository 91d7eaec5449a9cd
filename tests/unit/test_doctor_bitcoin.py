"""What `peg doctor` says of a Bitcoin node."""

from dataclasses import replace
from pathlib import Path

import pytest

from bridge.bitcoin.identifiers import BlockHash
from bridge.l1.answers import ChainInfo, NetworkInfo
from bridge.l1.errors import L1Reason, L1RpcError, L1Unavailable
from bridge.state import Anchor
from pegnode.config import L1Config
from pegnode.doctor.bitcoin_node import (
    BitcoinFacts,
    bitcoin_node,
    check_clock,
    check_connection,
    check_failure,
    check_index,
    check_state,
)
from pegnode.doctor.findings import Check, Outcome
from pegnode.ports import free_ports
from tests.support.chain import local_genesis

NOW_S = 1_800_000_000
ANCHOR = Anchor(10, BlockHash(bytes(range(32))))
GENESIS = local_genesis(ANCHOR)
CHAIN = ChainInfo(
    chain="regtest",
    blocks=20,
    headers=20,
    best_block_hash=BlockHash(b"t" * 32),
    initial_block_download=False,
    pruned=False,
    prune_height=0,
)
NETWORK = NetworkInfo(
    version=290_400,
    subversion="/Satoshi:29.4.0/",
    connections=8,
    relay_feerate_sat_kvb=1_000,
    incremental_feerate_sat_kvb=1_000,
)
FACTS = BitcoinFacts(
    chain=CHAIN,
    network=NETWORK,
    first=GENESIS.l1_genesis_hash,
    at_anchor=ANCHOR.hash,
    tip_time_s=NOW_S - 600,
    offset_s=0,
    indexed=True,
    answer_s=0.01,
)
MAIN = replace(CHAIN, chain="main")


@pytest.mark.parametrize(
    ("facts", "outcome", "word"),
    [
        (FACTS, Outcome.OK, "/Satoshi:29.4.0/ on regtest, at height 20"),
        (replace(FACTS, network=replace(NETWORK, version=249_900)), Outcome.PROBLEM, "too-old"),
        (replace(FACTS, first=BlockHash(b"x" * 32)), Outcome.PROBLEM, "wrong-chain"),
        (replace(FACTS, first=None), Outcome.PROBLEM, "the genesis is for regtest"),
        (replace(FACTS, at_anchor=BlockHash(b"x" * 32)), Outcome.PROBLEM, "another block at the genesis's anchor"),
        (replace(FACTS, at_anchor=None, chain=replace(CHAIN, blocks=9, headers=9)), Outcome.WARNING, "anchor, 10"),
        (replace(FACTS, chain=replace(MAIN, initial_block_download=True)), Outcome.WARNING, "initial-download"),
        (replace(FACTS, chain=replace(CHAIN, headers=23)), Outcome.WARNING, "3 blocks behind"),
        (replace(FACTS, chain=replace(CHAIN, pruned=True, prune_height=12)), Outcome.WARNING, "pruned"),
        (replace(FACTS, chain=replace(CHAIN, pruned=True, prune_height=10)), Outcome.OK, "at height 20"),
        (replace(FACTS, answer_s=3.0), Outcome.WARNING, "slow"),
        (replace(FACTS, chain=MAIN, network=replace(NETWORK, connections=0)), Outcome.WARNING, "without peers"),
        (replace(FACTS, network=replace(NETWORK, connections=0)), Outcome.OK, "regtest"),
    ],
)
def test_bitcoin_node_is_judged_by_its_answers(facts: BitcoinFacts, outcome: Outcome, word: str) -> None:
    finding = check_state(facts, GENESIS, ANCHOR.height)
    assert (finding.check, finding.outcome) == (Check.BITCOIN_NODE, outcome)
    assert word in finding.what
    assert bool(finding.remedy) is (outcome is not Outcome.OK)


@pytest.mark.parametrize(
    ("reason", "outcome", "word"),
    [
        (L1Reason.UNREACHABLE, Outcome.PROBLEM, "down"),
        (L1Reason.TIMEOUT, Outcome.PROBLEM, "silent"),
        (L1Reason.CREDENTIALS_MISSING, Outcome.PROBLEM, "credentials-missing"),
        (L1Reason.UNAUTHORIZED, Outcome.PROBLEM, "credentials-refused"),
        (L1Reason.WARMING_UP, Outcome.WARNING, "starting"),
        (L1Reason.OVERLOADED, Outcome.PROBLEM, "erroring"),
        (L1Reason.BAD_RESPONSE, Outcome.PROBLEM, "garbled"),
    ],
)
def test_bitcoin_node_without_an_answer_is_judged_by_why(reason: L1Reason, outcome: Outcome, word: str) -> None:
    finding = check_failure(L1Unavailable(reason, "seen"))
    assert (finding.check, finding.outcome) == (Check.BITCOIN_NODE, outcome)
    assert finding.what.startswith(f"{word}: ")
    assert finding.remedy


def test_bitcoin_node_that_refuses_questions_is_a_problem() -> None:
    assert check_failure(L1RpcError("getindexinfo", -32601, "Method not found")).outcome is Outcome.PROBLEM


@pytest.mark.parametrize(
    ("facts", "outcomes", "word"),
    [
        (FACTS, [], ""),
        (replace(FACTS, tip_time_s=NOW_S + 7_200), [], ""),
        (replace(FACTS, tip_time_s=NOW_S + 7_260), [Outcome.PROBLEM], "at least 60 s behind"),
        (replace(FACTS, offset_s=10), [], ""),
        (replace(FACTS, offset_s=-11), [Outcome.WARNING], "-11 s from its clock"),
        (replace(FACTS, chain=MAIN, tip_time_s=NOW_S - 7_200), [], ""),
        (replace(FACTS, chain=MAIN, tip_time_s=NOW_S - 10_800), [Outcome.WARNING], "3.0 hours old"),
        (replace(FACTS, tip_time_s=NOW_S - 10_800), [], ""),
        (
            replace(FACTS, chain=replace(MAIN, initial_block_download=True), tip_time_s=NOW_S - 10_800),
            [],
            "",
        ),
    ],
)
def test_clock_is_compared_with_l1(facts: BitcoinFacts, outcomes: list[Outcome], word: str) -> None:
    found = check_clock(facts, NOW_S)
    assert [finding.outcome for finding in found] == outcomes
    assert all(finding.check is Check.CLOCK and word in finding.what and finding.remedy for finding in found)


def test_transaction_index_is_wanted_and_not_needed() -> None:
    assert check_index(FACTS).outcome is Outcome.OK
    assert check_index(replace(FACTS, indexed=False)).outcome is Outcome.WARNING


@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        ("http://127.0.0.1:8332", Outcome.OK),
        ("http://[::1]:8332", Outcome.OK),
        ("http://localhost:8332", Outcome.OK),
        ("https://bitcoin.example:443", Outcome.OK),
        ("http://192.168.1.5:8332", Outcome.WARNING),
        ("http://bitcoin.example:8332", Outcome.WARNING),
    ],
)
def test_connection_in_clear_over_a_network_is_warned_of(url: str, outcome: Outcome) -> None:
    finding = check_connection(L1Config(url=url, cookie_file=Path(".cookie")))
    assert (finding.check, finding.outcome) == (Check.BITCOIN_CONNECTION, outcome)


async def test_bitcoin_node_that_is_down_is_found_so(tmp_path: Path) -> None:
    (tmp_path / ".cookie").write_text("user:password")
    [port] = free_ports(1)
    l1 = L1Config(url=f"http://127.0.0.1:{port}", cookie_file=tmp_path / ".cookie")
    state, connection = await bitcoin_node(l1, GENESIS, ANCHOR.height, NOW_S)
    assert state.outcome is Outcome.PROBLEM
    assert state.what.startswith("down: ")
    assert connection.outcome is Outcome.OK


@pytest.mark.parametrize(
    ("prune_height", "anchor_height", "outcome"),
    [(713, 900, Outcome.OK), (714, 900, Outcome.WARNING), (501, 500, Outcome.OK), (502, 500, Outcome.WARNING)],
)
def test_pruning_is_fine_behind_the_anchor_and_the_watched_blocks(
    prune_height: int, anchor_height: int, outcome: Outcome
) -> None:
    chain = replace(CHAIN, blocks=1_000, headers=1_000, pruned=True, prune_height=prune_height)
    assert check_state(replace(FACTS, chain=chain), GENESIS, anchor_height).outcome is outcome
