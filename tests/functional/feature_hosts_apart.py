"""Members far apart, over networks of every kind of badness, each with a Bitcoin node of its own."""

import statistics
import time
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.identifiers import Script
from tests.support.far_world import FAR, MENDED_DEADLINE_S, STALLED, FarWorld, far_world
from tests.support.federation import CONFIRMATIONS, eventually
from tests.support.users import user_of
from tests.support.wire_link import Quality

SLOW = Quality(delay_ms=100, jitter_ms=20, kbit_per_s=1_000)
LOSING = Quality(delay_ms=100, jitter_ms=20, stall_chance=0.02, stall_ms=300)
"""Two of a hundred packets are lost, and sent again after about what TCP waits at such a distance."""
BATCH_WAIT = 3
"""Anchors until a lone withdrawal is paid, as in configs/local.toml."""
L1_ADDRESS = encode_address(Script(b"\x00\x14" + bytes(19) + b"\x02"), l1_network("regtest"))
TRANSFERS = 8
ONE_WAY_TRIPS = 4
"""Of a transfer: to the leader, its proposal, the votes to notarize, the votes to finalize."""
LOSING_TRANSFERS = 12
CUTS = 3
FAT_OUTPUTS = 2_000
"""86 kB in one transaction."""


def test_value_goes_round_between_members_far_apart(world: FarWorld) -> None:
    apart, federation = world.apart, world.apart.federation
    with user_of(federation, "alice") as alice, user_of(federation, "carol") as carol:
        alice.fund(10_000_000)
        federation.await_final(alice.send(carol.wallet.new_address(), 5_000_000), world.names)
        carol.await_balance(5_000_000)
        burn = carol.withdraw(L1_ADDRESS, 2_000_000)
        federation.await_stage(burn, {"waiting"}, "carol")
        federation.mine(BATCH_WAIT)
        federation.await_stage(burn, {"broadcast"}, "alice")  # to her own Bitcoin node, which mines
        federation.mine(CONFIRMATIONS)
        federation.await_stage(burn, {"settled"}, "dave")
    federation.agreement(world.names)
    heights = apart.l1_heights()
    assert len(set(heights)) == 1, heights


def test_transfer_is_final_after_little_more_than_its_trips(world: FarWorld) -> None:
    seconds = []
    for number in range(TRANSFERS):
        time.sleep(0.5)  # the interval of blocks
        seconds.append(world.traffic.seconds_to_finality(world.names[number % len(world.names)]))
    median_ms = statistics.median(seconds) * 1000
    needed_ms = ONE_WAY_TRIPS * FAR.delay_ms
    world.say(f"a transfer is final after {median_ms:.0f} ms (p50 of {TRANSFERS}); {needed_ms} ms are under way")
    assert 3 * (FAR.delay_ms - FAR.jitter_ms) <= median_ms < 3 * needed_ms


def test_half_of_the_members_make_nothing_final_and_all_go_on_when_mended(world: FarWorld) -> None:
    sides = (("alice", "bob"), ("carol", "dave"))
    world.apart.part(*sides)
    eventually(lambda: all(world.peers_of(name) == set(side) - {name} for side in sides for name in side), "parted")
    before = world.heights()
    txid_hex = world.traffic.submit("alice")
    deadline = time.monotonic() + 4.0  # two timeouts of a view
    while time.monotonic() < deadline:
        assert world.heights() == before
        time.sleep(0.2)
    world.apart.links(FAR)
    took_s = world.await_final(txid_hex, world.names)
    world.say(f"2|2: final everywhere {took_s:.1f} s after the network was whole again")


def test_three_go_on_without_the_fourth_which_catches_up(world: FarWorld) -> None:
    three, alone = world.names[:3], world.names[3]
    world.apart.links(STALLED, world.apart.between(three, [alone]))  # no end is told
    left_s = max(world.await_final(world.traffic.submit("alice"), three) for _ in range(3))
    eventually(lambda: not world.peers_of(alone), "the silence was noticed")
    txid_hex = world.traffic.submit("bob")
    world.await_final(txid_hex, three)
    assert not world.apart.federation.is_final(txid_hex, alone)
    world.apart.links(FAR)
    took_s = world.await_final(txid_hex, (alone,))
    world.say(f"3|1: final with three after at most {left_s:.1f} s; the fourth has it {took_s:.1f} s after the mending")


def test_leader_that_is_not_heard_is_left_and_returns(world: FarWorld) -> None:
    leader = world.names[world.apart.federation.status("alice").leader]
    others = tuple(name for name in world.names if name != leader)
    index = world.names.index(leader)
    away = [direction for direction in world.apart.between([leader], others) if direction[0] == index]
    world.apart.links(Quality(delay_ms=100, jitter_ms=20, lossy=True), away)
    txid_hex = world.traffic.submit(others[0])
    took_s = world.await_final(txid_hex, others)
    eventually(lambda: all(leader not in world.peers_of(name) for name in others), "the silence was noticed")
    eventually(lambda: not world.peers_of(leader), "the leader knows that it is alone")
    world.apart.links(FAR)
    txid_hex = world.traffic.submit(leader)
    back_s = world.await_final(txid_hex, world.names)
    world.say(
        f"leader not heard: final {took_s:.1f} s after it fell silent; with it again {back_s:.1f} s after mending"
    )


def test_lost_packets_cost_few_views_and_no_connection(world: FarWorld) -> None:
    world.apart.links(LOSING)
    federation, since = world.apart.federation, connections(world)
    before = {name: federation.status(name) for name in world.names}
    seconds = []
    for number in range(LOSING_TRANSFERS):
        txid_hex = world.traffic.submit(world.names[number % len(world.names)])
        seconds.append(world.await_final(txid_hex, world.names))  # before the next one, so each has a block of its own
    after = {name: federation.status(name) for name in world.names}
    blocks = {name: after[name].height - before[name].height for name in world.names}
    given_up = {name: after[name].view - before[name].view - blocks[name] for name in world.names}
    assert min(blocks.values()) >= LOSING_TRANSFERS, blocks
    assert all(given_up[name] <= blocks[name] // 2 for name in world.names), (given_up, blocks)
    assert connections(world) == since
    world.say(
        f"2 % of packets lost: final everywhere after {statistics.median(seconds):.1f} s (p50), "
        f"{max(seconds):.1f} s at most; {max(given_up.values())} views given up for {min(blocks.values())} blocks"
    )


def test_transfers_made_while_links_come_and_go_are_final(world: FarWorld) -> None:
    pairs = {frozenset(pair) for pair in combinations(world.names, 2)}
    cuts, whole, txids = Counter[frozenset[str]](), pairs, list[str]()
    world.apart.flap(3_000, 1_000, quality=FAR)
    deadline = time.monotonic() + MENDED_DEADLINE_S
    while not all(cuts[pair] >= CUTS for pair in pairs):
        assert time.monotonic() < deadline, cuts
        if not txids or world.apart.federation.is_final(txids[-1]):
            txids.append(world.traffic.submit("alice"))
        was, whole = whole, {frozenset((name, peer)) for name in world.names for peer in world.peers_of(name)}
        cuts.update(was - whole)
        time.sleep(0.1)
    world.apart.links(FAR)
    took_s = sum(world.await_final(txid_hex, world.names) for txid_hex in txids)
    world.await_final(world.traffic.submit("dave"), world.names)
    world.say(f"flapping: {len(txids) - 1} transfers final meanwhile, the last one {took_s:.1f} s after the mending")


def connections(world: FarWorld) -> dict[tuple[str, int], int]:
    """By member, and by the index of another one: when they were connected."""
    found: dict[tuple[str, int], int] = {}
    for name in world.names:
        with world.apart.federation.client(name) as client:
            found |= {(name, peer["member"]): peer["connected_ms"] for peer in client.call("getpeerinfo")}
    assert len(found) == len(world.names) * (len(world.names) - 1)
    return found


def test_large_blocks_pass_slow_links(world: FarWorld) -> None:
    world.apart.links(SLOW)
    began = time.monotonic()
    txids = [world.traffic.submit("alice", FAT_OUTPUTS) for _ in range(2)]
    for txid_hex in txids:
        world.await_final(txid_hex, world.names)
    took_s = time.monotonic() - began
    world.say(f"1 Mbit/s: two transfers of 86 kB final everywhere after {took_s:.1f} s")


def test_loopback_addresses_do_where_namespaces_are_not_permitted(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with far_world(tmp_path, request, namespaces=False) as world:
        assert world.apart.how.startswith("network namespaces not used")
        world.await_final(world.traffic.submit("alice"), world.names)
        world.assert_one_chain()
        world.apart.part(world.names[:3], world.names[3:])
        eventually(lambda: not world.peers_of("dave"), "dave is alone")
        world.await_final(world.traffic.submit("alice"), world.names[:3])
