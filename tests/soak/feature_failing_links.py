"""Links that fail for long, or again and again: what takes too long for each run of the tests. Part of `make soak`."""

import time

from tests.support.far_world import FAR, STALLED, FarWorld


def test_flapping_links_let_transfers_through(world: FarWorld) -> None:
    world.apart.flap(3_000, 2_000, quality=FAR)
    took_s = [world.await_final(world.traffic.submit("alice"), ("alice",)) for _ in range(4)]
    world.say(f"flapping: four transfers final after {', '.join(f'{one_s:.1f}' for one_s in took_s)} s")


def test_long_stall_delays_and_loses_nothing(world: FarWorld) -> None:
    txid_hex = world.traffic.submit("alice")
    world.apart.links(STALLED)
    time.sleep(20)
    world.apart.links(FAR)
    took_s = world.await_final(txid_hex, world.names)
    world.say(f"stall of 20 s: final everywhere {took_s:.1f} s after it")
