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


@pytest.mark.parametrize(("phase", "left"), [(Phase.BEFORE, None), (Phase.TORN, None), (Phase.AFTER, b"new")], ids=str)
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
