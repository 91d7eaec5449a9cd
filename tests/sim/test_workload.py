"""A test of the test: in a quiet federation the users do all that they can, and what they did is settled."""

from random import Random

from bridge.state import WithdrawalStatus
from tests.sim.outside import Everybody
from tests.sim.plan import Plan
from tests.sim.play import play
from tests.sim.seams import World
from tests.sim.workload import AMPLE_FEE_SATS, FIRST_DEPOSITS, PEG, Users

QUIET = Plan.calm(1, bad_time_s=20.0)


class Observed(Everybody):
    """An outside that lets a test look at the users, before anything happened and in the end."""

    def workload_of(self, world: World, rng: Random) -> Users:
        """The users and the miner."""
        self.users = Users(world, rng)
        self.unsettled_at_first = self.users.unsettled()
        return self.users


def test_users_deposit_pay_burn_and_cheat_and_all_is_settled() -> None:
    outside = Observed()
    world, users = play(QUIET, outside), outside.users
    assert world.violation is None
    assert all(users.counts.values()), users.counts
    assert users.unsettled().startswith("0 transactions, 0 deposits, 0 burns")
    assert outside.unsettled_at_first.startswith(f"0 transactions, {FIRST_DEPOSITS} deposits, 0 burns")
    ledger = world.watch.oracle.ledger  # type: ignore[union-attr]
    ample = [item for _, item in ledger.closed_withdrawals.items() if item.max_fee_sats >= AMPLE_FEE_SATS]
    assert ample
    assert all(withdrawal.status is WithdrawalStatus.SETTLED for withdrawal in ample)
    assert all(item.max_fee_sats < AMPLE_FEE_SATS for _, item in ledger.open_withdrawals.items())
    assert world.rules.params.confirmations == PEG["confirmations"]
