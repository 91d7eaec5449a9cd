"""Packed rows against a plain list of the same rows."""

import random

import pytest

from bridge.l1 import packed_rows
from bridge.l1.packed_rows import PackedRows

KEYS = [bytes([number]) * 32 for number in range(4)]


@pytest.fixture(autouse=True, params=[1, 7])
def _buckets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few buckets, so that keys share them."""
    monkeypatch.setattr(packed_rows, "BUCKETS", request.param)


@pytest.mark.parametrize("seed", range(100))
def test_rows_are_those_added_and_not_removed(seed: int) -> None:
    chance = random.Random(seed)
    rows, kept, height, least = PackedRows("Q?"), [], 10, 0
    for _ in range(chance.randrange(60)):
        match chance.choice(["add", "add", "next", "pop", "forget"]):
            case "add":
                row = (chance.choice(KEYS), height, chance.randrange(1 << 64), chance.random() < 0.5)
                rows.add(*row)
                kept.append(row)
            case "next":
                height += 1
            case "pop":
                popped = [(key, tuple(values)) for key, top, *values in kept if top == height]
                assert sorted(rows.pop_top(height)) == sorted(popped)
                kept = [row for row in kept if row[1] != height]
            case "forget":
                least = max(least, height - chance.randrange(4))
                rows.forget_below(least)
                kept = [row for row in kept if row[1] >= least]
        for key in KEYS:
            assert list(rows.find(key)) == [row[1:] for row in kept if row[0] == key]
