"""The simulated disk: what is left after each end of a process."""

from random import Random

import pytest

from federation.journal_errors import JournalReason, JournalRefused
from pegnode.storage.database import Changes
from pegnode.storage.errors import StorageError, StorageReason
from tests.sim.disk import Crashed, Phase, SimDisk, Trap


def disk_with(trap: Trap | None = None, seed: int = 1) -> tuple[SimDisk, list[str]]:
    """A disk with one synced entry, a trap, and what it says when it springs."""
    said: list[str] = []
    disk = SimDisk(Random(seed), said.append)
    disk.entries.write({b"v1": b"synced"}, sync=True)
    if trap is not None:
        disk.set_trap(trap)
    return disk, said


@pytest.mark.parametrize(("phase", "left"), [(Phase.BEFORE, None), (Phase.AFTER, b"new")], ids=str)
def test_killed_process_leaves_the_write_whole_or_nothing_of_it(phase: Phase, left: bytes | None) -> None:
    """And all that was written before, synced or not."""
    disk, said = disk_with(Trap(phase, "journal vote", nth=2))
    disk.entries.write({b"v2": b"unsynced"}, sync=False)
    with pytest.raises(Crashed):
        disk.entries.write({b"v3": b"new"}, sync=True)
    assert said == [f"killed {phase.value} a write: journal vote"]
    with pytest.raises(Crashed):  # whatever still runs of it
        disk.entries.write({b"v4": b"late"}, sync=True)
    disk.turn_on()
    assert [disk.entries.get(key) for key in (b"v1", b"v2", b"v3", b"v4")] == [b"synced", b"unsynced", left, None]


def test_power_failure_takes_a_suffix_of_what_was_not_synced() -> None:
    """Never what was synced, and never a write while a later one is left."""
    found = set()
    for seed in range(20):
        disk, _ = disk_with(seed=seed)
        for number in range(3):
            disk.entries.write({b"c%d" % number: b"unsynced"}, sync=False)
        disk.turn_off(power=True)
        disk.turn_on()
        assert disk.entries.get(b"v1") == b"synced"
        found.add(tuple(disk.entries.get(b"c%d" % number) is not None for number in range(3)))
    assert found == {(False, False, False), (True, False, False), (True, True, False), (True, True, True)}


def test_full_disk_refuses_every_write_as_the_real_ones_do() -> None:
    """With the product's own errors, until there is room."""
    disk, _ = disk_with(Trap(Phase.FULL))
    with pytest.raises(JournalRefused) as journal:
        disk.entries.write({b"v2": b"new"}, sync=True)
    assert journal.value.reason is JournalReason.NO_SPACE
    changes = Changes()
    changes.put("blocks", b"1", b"block")
    with pytest.raises(StorageError) as database:
        disk.database.write(changes)
    assert database.value.reason is StorageReason.NO_SPACE
    disk.is_full = False
    disk.database.write(changes)
    assert disk.database.get("blocks", b"1") == b"block"


def test_durable_copy_lacks_what_is_not_synced() -> None:
    """It is by this copy that the watch knows whether a vote may leave."""
    disk, _ = disk_with()
    disk.entries.write({b"c2": b"unsynced"}, sync=False)
    durable = disk.journal_entries.durable()
    assert durable.get(b"v1") == b"synced"
    assert durable.get(b"c2") is None
    disk.entries.write({b"v3": b"synced too"}, sync=True)
    assert disk.journal_entries.durable().get(b"c2") == b"unsynced"


def test_trap_waits_for_its_write_over_ends_of_another_kind_and_several_spring_one_by_one() -> None:
    """None takes another's place, none is lost with a process, and each says how long the next one is gone."""
    disk, said = disk_with(Trap(Phase.BEFORE, "journal certificate"))
    first, second = disk.set_trap(Trap(Phase.AFTER, "journal vote"), 2.0), disk.set_trap(Trap(Phase.AFTER), 3.0)
    for number, down_s in ((1, 2.0), (2, 3.0)):
        with pytest.raises(Crashed):
            disk.entries.write({b"v%d" % number: b"vote"}, sync=True)
        assert disk.down_s == down_s
        disk.turn_on()
    disk.entries.write({b"v4": b"vote"}, sync=True)
    disk.turn_off(power=True)
    disk.turn_on()
    with pytest.raises(Crashed):
        disk.entries.write({b"c1": b"certificate"}, sync=False)
    assert said == ["killed after a write: journal vote"] * 2 + ["killed before a write: journal certificate"]
    assert first.sprung_at == second.sprung_at == "journal vote"
    assert [str(trap) for trap, _ in disk.sprung] == [
        "killed after write 1 of journal vote", "killed after write 1 of any kind",
        "killed before write 1 of journal certificate",
    ]  # fmt: skip


def test_trap_nobody_steps_into_springs_at_any_write_once_loosened_and_never_once_withdrawn() -> None:
    disk, said = disk_with()
    kept = disk.set_trap(Trap(Phase.AFTER, "database block"))
    withdrawn = disk.set_trap(Trap(Phase.BEFORE, "journal vote"))
    disk.withdraw(withdrawn)
    disk.entries.write({b"v2": b"vote"}, sync=True)
    kept.loosen()
    with pytest.raises(Crashed):
        disk.entries.write({b"v3": b"vote"}, sync=True)
    assert said == ["killed after a write: journal vote"]


def test_lost_database_is_empty_until_a_copy_is_put_back_and_the_journal_is_kept() -> None:
    disk, _ = disk_with()
    changes = Changes()
    changes.put("blocks", b"1", b"block")
    disk.database.write(changes)
    copy = disk.copied_tables()
    disk.replace_database({})
    assert disk.database.get("blocks", b"1") is None
    assert disk.entries.get(b"v1") == b"synced"
    disk.replace_database(copy)
    assert disk.database.get("blocks", b"1") == b"block"
