"""From one look at the Bitcoin node to the state that it is in."""

from dataclasses import replace

import pytest

from bridge.bitcoin.identifiers import BlockHash
from bridge.l1.answers import ChainInfo, NetworkInfo
from bridge.l1.errors import L1Reason, L1RpcError, L1Unavailable
from bridge.l1.states import L1State, state_of_failure
from pegnode.service.l1_diagnosis import BEHIND_S, MINIMUM_VERSION, SLOW_S, STUCK_S, L1Look, diagnose

CHAIN = ChainInfo("main", 100, 100, BlockHash(bytes(32)), False, False, 0)
NETWORK = NetworkInfo(290_000, "/Satoshi:29.0.0/", 8, 1_000, 1_000)
LOOK = L1Look(CHAIN, NETWORK, known_height=100)
NO_PEERS = replace(NETWORK, connections=0)
DOWNLOADING = replace(CHAIN, initial_block_download=True, headers=900)
BEHIND = replace(LOOK, known_height=103, lagging_s=BEHIND_S)


@pytest.mark.parametrize(
    ("look", "state", "detail"),
    [
        (LOOK, L1State.OK, ""),
        (replace(LOOK, network=replace(NETWORK, version=MINIMUM_VERSION)), L1State.OK, ""),
        (replace(LOOK, network=replace(NETWORK, version=MINIMUM_VERSION - 1)), L1State.TOO_OLD, "25.0"),
        (replace(LOOK, chain_fault="is another"), L1State.WRONG_CHAIN, "is another"),
        (replace(LOOK, chain=DOWNLOADING), L1State.INITIAL_DOWNLOAD, "100 of 900 blocks, 8 peers"),
        (replace(LOOK, chain=replace(DOWNLOADING, headers=100)), L1State.INITIAL_DOWNLOAD, "100 of 100"),
        (replace(LOOK, chain=replace(DOWNLOADING, headers=100, chain="regtest")), L1State.OK, ""),
        (replace(LOOK, left_anchor=True), L1State.FORKED, "its tip is 100"),
        (BEHIND, L1State.BEHIND, "3 blocks behind"),
        (
            replace(BEHIND, known_height=0, chain=replace(CHAIN, headers=101), still_s=BEHIND_S),
            L1State.BEHIND,
            "1 block",
        ),
        (replace(BEHIND, known_height=101), L1State.OK, ""),  # blocks come one by one
        (replace(BEHIND, lagging_s=BEHIND_S - 0.1), L1State.OK, ""),
        (replace(BEHIND, lagging_s=STUCK_S, still_s=STUCK_S), L1State.STUCK, "3 blocks behind, no new block for 60 s"),
        (replace(BEHIND, lagging_s=STUCK_S, still_s=STUCK_S - 1), L1State.BEHIND, ""),
        (replace(BEHIND, lagging_s=STUCK_S - 1, still_s=STUCK_S), L1State.BEHIND, ""),
        (replace(LOOK, network=NO_PEERS, still_s=STUCK_S), L1State.STUCK, "no peers"),
        (replace(LOOK, network=NO_PEERS, still_s=STUCK_S - 1), L1State.OK, ""),
        (replace(LOOK, network=NO_PEERS, still_s=STUCK_S, chain=replace(CHAIN, chain="regtest")), L1State.OK, ""),
        (replace(LOOK, chain=replace(CHAIN, pruned=True, prune_height=51), needed_height=50), L1State.PRUNED, "51"),
        (replace(LOOK, chain=replace(CHAIN, pruned=True, prune_height=50), needed_height=50), L1State.OK, ""),
        (replace(LOOK, answer_s=SLOW_S), L1State.SLOW, "2.0 s"),
        (replace(LOOK, answer_s=SLOW_S - 0.1), L1State.OK, ""),
    ],
)
def test_state_follows_from_a_look(look: L1Look, state: L1State, detail: str) -> None:
    found = diagnose(look)
    assert found[0] is state
    assert detail in found[1]


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        (L1Reason.UNREACHABLE, L1State.DOWN),
        (L1Reason.TIMEOUT, L1State.SILENT),
        (L1Reason.CREDENTIALS_MISSING, L1State.CREDENTIALS_MISSING),
        (L1Reason.UNAUTHORIZED, L1State.CREDENTIALS_REFUSED),
        (L1Reason.WARMING_UP, L1State.STARTING),
        (L1Reason.OVERLOADED, L1State.ERRORING),
        (L1Reason.FAILING, L1State.ERRORING),
        (L1Reason.BAD_RESPONSE, L1State.GARBLED),
        (L1Reason.UNREAD, L1State.BEHIND),
        (L1Reason.BAD_URL, L1State.DOWN),
    ],
)
def test_state_follows_from_a_failure(reason: L1Reason, state: L1State) -> None:
    assert state_of_failure(L1Unavailable(reason, "the details")) == (state, "the details")
    assert state_of_failure(L1Unavailable(reason)) == (state, reason.value)


def test_every_failure_has_a_state() -> None:
    for reason in L1Reason:
        assert state_of_failure(L1Unavailable(reason))[0] is not L1State.OK
    assert state_of_failure(L1RpcError("getblock", -1, "no")) == (L1State.ERRORING, "getblock: no (-1)")


def test_states_have_words_for_people() -> None:
    assert len({state.value for state in L1State}) == len(L1State)
    assert all(state.cause and state.remedy for state in L1State)
    assert [state for state in L1State if not state.waits] == [L1State.PRUNED, L1State.SLOW, L1State.OK]
    assert all(state.waits for state in L1State if not state.answers)
