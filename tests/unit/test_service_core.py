"""What a node's core keeps over a restart."""

from pathlib import Path

import pytest
import trio

from bridge.records import Finding
from pegnode.halts import MAX_DETAIL_BYTES
from pegnode.service.core import SUSPICION_GAP_MS, SUSPICION_MS, NodeCore
from pegnode.storage.store import ChainStore
from tests.support.chain import MemoryChain
from tests.support.halts import gone
from tests.support.lone_node import lone_core
from tests.support.members import memory_federation


class Clock:
    """The core's clock, which a test sets."""

    def __init__(self, core: NodeCore) -> None:
        self.now_ms = core.now_ms()
        core.now_ms = lambda: self.now_ms


def new_core(path: Path) -> NodeCore:
    chain = MemoryChain()
    return lone_core(chain, ChainStore.open(path / "chain", chain.rules))


def test_halt_and_its_findings_survive_a_restart(tmp_path: Path) -> None:
    core = new_core(tmp_path)
    assert not core.halted
    core.halt(gone(1), "a coin is gone")
    core.halt(gone(2), "another is gone")
    found = core.active_findings()
    core.store.close()
    core = new_core(tmp_path)
    assert core.halted
    assert core.halt_findings == ["a coin is gone", "another is gone"]
    core.halt(gone(1), "the same again")
    assert tuple(core.store.halts()) == core.active_findings() == found
    assert [(item.finding, item.serial, item.since_ms) for item in found] == [
        (gone(1), 0, core.now_ms()),
        (gone(2), 0, core.now_ms()),
    ]
    core.store.close()


def test_halt_keeps_no_more_findings_than_one_record_may_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pegnode.service.core.MAX_FINDINGS", 7)
    core = new_core(tmp_path)
    for number in range(10):
        core.halt(gone(number), "gone")
    assert len(core.active_findings()) == len(core.store.halts()) == 7
    core.suspect(gone(8), "what is left stays suspected")
    assert core.suspicions() == ("what is left stays suspected",)
    core.store.close()


def test_detail_of_any_length_is_kept(tmp_path: Path) -> None:
    core = new_core(tmp_path)
    core.halt(gone(), "ö" * MAX_DETAIL_BYTES)
    [latched] = core.store.halts()
    assert len(latched.detail.encode()) <= MAX_DETAIL_BYTES
    assert latched.detail.endswith("ö…")
    core.store.close()


def test_suspicion_halts_when_it_was_said_for_long_enough_on_end(tmp_path: Path) -> None:
    core = new_core(tmp_path)
    clock = Clock(core)
    for _ in range(SUSPICION_MS // 10_000):
        core.suspect(gone(), "a coin is gone")
        assert (core.halted, core.halt_findings) == (True, []), "as long as it may be true nothing about L1 is done"
        clock.now_ms += 10_000
    core.suspect(gone(), "a coin is gone for good")
    assert core.halt_findings == ["a coin is gone for good"]
    assert core.suspicions() == ()
    core.unsuspect(gone())
    assert core.halted, "a halt stays"
    core.store.close()


def test_suspicion_begins_anew_after_a_pause_and_ends_when_it_is_taken_back(tmp_path: Path) -> None:
    core = new_core(tmp_path)
    clock = Clock(core)
    for _ in range(2 * SUSPICION_MS // SUSPICION_GAP_MS):
        core.suspect(gone(), "a coin is gone")
        clock.now_ms += SUSPICION_GAP_MS + 1
        assert not core.halted
    for _ in range(2 * SUSPICION_MS // SUSPICION_GAP_MS):
        core.suspect(gone(), "a coin is gone")
        core.unsuspect(gone())
        assert not core.halted
        clock.now_ms += SUSPICION_GAP_MS
    core.store.close()


def test_suspicion_may_take_another_time(tmp_path: Path) -> None:
    core = new_core(tmp_path)
    finding = Finding.block_refused(core.store.tip.hash)
    core.suspect(finding, "at once", for_ms=0)
    assert core.active_findings()[0].detail == "at once"
    core.store.close()


async def test_suspicion_that_nobody_repeats_is_forgotten_with_the_next_block(autojump_clock: trio.abc.Clock) -> None:
    async with memory_federation(0) as federation:
        core = federation.members[0].core
        core.suspect(gone(), "a coin is gone")
        await trio.sleep(SUSPICION_GAP_MS / 1000 + 1)
        assert not core.halted
        assert len(core._suspicions) == 1
        federation.commit_block(federation.members[0])
        assert core._suspicions == {}
