"""Broken rules of whole members, or of what they rely on; nobody among them is evil.

Each comes with a plan in which it shows: `violation_of` plays it with users around.
"""

from contextlib import AbstractContextManager
from dataclasses import replace
from random import Random
from typing import Any, Final
from unittest import mock

from bridge.evidence import Evidence
from bridge.ledger import LedgerView
from bridge.params import PegParams
from pegnode.chain import builder
from pegnode.mempool.evidence_pool import EvidencePool
from pegnode.service.proposer import Proposer
from pegnode.service.unfinal import UnfinalBlock
from tests.sim import recovery, workload
from tests.sim.disk import SimEntries
from tests.sim.outside import Everybody
from tests.sim.plan import Disturbance, Kind, Plan
from tests.sim.play import play

EVERYBODY: Final = (0, 1, 2, 3)
SETTLE_S: Final = 20.0
"""Longer than any of the plans below needs."""
FIRST_PROPOSAL: Final = 12
"""Above the view in which CALM's bad time ends by more than what is due, and by little enough to be reached in time."""

CALM: Final = Plan.calm(1, bad_time_s=1.0)
POWER_FAILS: Final = replace(
    CALM,
    bad_time_s=2.0,
    delay_s=(0.3, 0.3),
    disturbances=(Disturbance(1.15, 0.3, Kind.POWER, EVERYBODY),),
)
"""While the first proposal is on its way: its leader's process alone has seen it."""
HALVES: Final = replace(CALM, bad_time_s=2.0, disturbances=(Disturbance(0.5, 1.5, Kind.CUT, (0, 1)),))
"""From the first view on: in either half there are two members, and in one the leader."""
BURNS: Final = Plan.calm(1, bad_time_s=6.0)
"""Time enough for deposits to be claimed, and burned."""


def violation_of(plan: Plan) -> str:
    """What goes wrong; empty if nothing. All burns offer enough."""
    with (
        mock.patch.object(workload, "MAX_FEES_SATS", (workload.AMPLE_FEE_SATS,)),
        mock.patch.object(recovery, "SETTLE_S", SETTLE_S),
    ):
        world = play(plan, Everybody())
    return "" if world.violation is None else str(world.violation)


def disk_lies() -> AbstractContextManager[Any]:
    """What a disk said was synced is lost when power fails, and nobody notices: the journal begins anew."""

    def lose_power(self: SimEntries, rng: Random) -> None:
        self.put_back({})

    return mock.patch.object(SimEntries, "lose_power", lose_power)


def nobody_proposes_for_long() -> AbstractContextManager[Any]:
    """Leaders give up each view below FIRST_PROPOSAL."""
    real = Proposer.build

    async def build(self: Proposer, view: int, parent_hash: Any, *, include_l1: bool) -> UnfinalBlock | None:
        return await real(self, view, parent_hash, include_l1=include_l1) if view >= FIRST_PROPOSAL else None

    return mock.patch.object(Proposer, "build", build)


def batches_left_out() -> AbstractContextManager[Any]:
    """No leader pays withdrawals: all of them expire, and are refunded."""
    return mock.patch.object(builder, "propose_batches", return_value=())


def settlements_left_out() -> AbstractContextManager[Any]:
    """No leader shows that L1 has paid: batches are made and mined, and never close."""
    real = EvidencePool.select

    def select(self: EvidencePool, ledger: LedgerView, anchor_height: int, params: PegParams) -> list[Evidence]:
        return [evidence for evidence in real(self, ledger, anchor_height, params) if evidence.openings]

    return mock.patch.object(EvidencePool, "select", select)
