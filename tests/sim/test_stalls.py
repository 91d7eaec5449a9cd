"""Processes that stand still: what was due to them comes afterwards, in order, and nobody else waits."""

import math

import trio

from tests.sim.determinism import run_deterministic
from tests.sim.stalls import Stalls

STOOD_STILL_S = 5.0


def test_process_that_stands_still_takes_up_later_what_was_due_to_it() -> None:
    """Its timer that fired and what it was sent, both: the timer is not undone, and nothing is lost or told twice."""
    said: list[tuple[float, str]] = []
    stalls = Stalls()

    def say(what: str) -> None:
        said.append((trio.current_time(), what))

    async def live(process: int, inbox: trio.MemoryReceiveChannel[str]) -> None:
        stalls.join(process)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, process, inbox)
            with trio.move_on_after(2.0):
                await trio.sleep(math.inf)
            say(f"{process}: timer")

    async def hear(process: int, inbox: trio.MemoryReceiveChannel[str]) -> None:
        async for message in inbox:
            say(f"{process}: {message}")

    async def main() -> None:
        with stalls.held():
            async with trio.open_nursery() as nursery:
                outboxes = []
                for process in (1, 2):
                    outbox, inbox = trio.open_memory_channel[str](math.inf)
                    outboxes.append(outbox)
                    nursery.start_soon(live, process, inbox)
                await trio.sleep(1.0)
                stalls.begin(1)
                assert 1 in stalls
                assert 2 not in stalls
                for message in ("one", "two"):
                    for outbox in outboxes:
                        outbox.send_nowait(message)
                    await trio.sleep(STOOD_STILL_S / 2)
                stalls.end(1)
                for outbox in outboxes:
                    outbox.close()

    run_deterministic(1, main)
    late_s = 1.0 + STOOD_STILL_S
    assert [item for item in said if item[1].startswith("2")] == [(1.0, "2: one"), (2.0, "2: timer"), (3.5, "2: two")]
    first = [(at_s, what) for at_s, what in said if what.startswith("1")]
    assert {at_s for at_s, _ in first} == {late_s}
    assert sorted(what for _, what in first) == ["1: one", "1: timer", "1: two"]
    assert first.index((late_s, "1: one")) < first.index((late_s, "1: two"))
