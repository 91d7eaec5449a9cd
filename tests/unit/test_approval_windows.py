"""The signer's law about windows, over histories in which coins are lost and burns wait again."""

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from bridge.batch import build_batch
from bridge.bitcoin.identifiers import OutPoint
from bridge.ledger import Ledger, advance_anchor, enter_coin
from bridge.lineages import PlannedBatch, open_lineage, record_batch, settle
from bridge.losses import restore_coin
from bridge.refunds import due_refunds, refund
from bridge.state import BatchKind, Lineage, Withdrawal
from bridge.withdrawals import Burn, check_burns
from federation.approval import approve_batch
from federation.refusal import RefusalReason, SigningRefused
from federation.reserve_law import check_sums
from tests.support.approval import FEDERATION
from tests.support.ledgers import burn as enter_burn
from tests.support.ledgers import lose
from tests.support.peg import ALICE, PARAMS, START_HEIGHT, anchor, coin, new_ledger, outpoint, p2wpkh
from tests.support.signers import honest_facts

CAP_SATS = 1_000_000
WINDOW = 8
TERMS = replace(
    PARAMS,
    batch_min_payouts=1,
    max_withdrawal_sats=CAP_SATS,
    withdrawal_window_anchors=WINDOW,
    max_window_withdrawals_sats=CAP_SATS,
    withdrawal_expiry_anchors=3 * WINDOW + PARAMS.max_anchor_step,
    change_target_coins=1,
)
MAX_FEE_SATS = 20_000


def wait(ledger: Ledger, anchors: int) -> None:
    """So many more anchors pass."""
    for _ in range(anchors):
        advance_anchor(ledger, anchor(ledger.totals.anchor.height + 1), TERMS)


def burn(ledger: Ledger, number: int, value_sats: int) -> None:
    """As a block does it: if the rules about burns allow it."""
    script = p2wpkh(f"payee {number}")
    check_burns([(Burn(script, MAX_FEE_SATS, ALICE), value_sats)], ledger, FEDERATION.custody, TERMS)
    enter_burn(ledger, number, value_sats, max_fee_sats=MAX_FEE_SATS, l1_script=script)


def planned_payout(ledger: Ledger) -> PlannedBatch | None:
    """What a leader would record."""
    return build_batch(ledger, BatchKind.PAYOUT, None, 2_000, FEDERATION.custody, TERMS)


def pay(ledger: Ledger) -> Lineage:
    """The next payout is recorded, and each member that is asked signs it."""
    planned = planned_payout(ledger)
    assert planned is not None
    lineage = record_batch(ledger, planned)
    facts = honest_facts(ledger, FEDERATION.custody)
    approve_batch(ledger, planned.version.txid, facts, FEDERATION.custody, TERMS)
    return lineage


def confirm(ledger: Ledger, lineage: Lineage) -> None:
    """Mined in the next block of L1, and proven when that is a window old."""
    l1_height = ledger.totals.anchor.height + 1
    wait(ledger, WINDOW)
    settle(ledger, lineage.versions[0].txid, l1_height)


@pytest.mark.parametrize("paid_later", [True, False], ids=["paid by two payouts", "one is never paid"])
def test_payouts_go_on_after_a_loss_whoever_paid_what_waited_again(paid_later: bool) -> None:
    """All that a window allows was in the payout that died, and as much is burned within a window of the record."""
    ledger = new_ledger()
    enter_coin(ledger, coin(2, 600_000), 0)
    enter_coin(ledger, coin(3, 3_000_000), 0)
    burn(ledger, 100, 500_000)
    burn(ledger, 101, 500_000)
    wait(ledger, WINDOW)
    dead = pay(ledger)
    lose(ledger, *dead.inputs)
    burn(ledger, 200, 400_000)
    burn(ledger, 201, 400_000)
    first = pay(ledger)
    assert len(first.payees) == 1
    confirm(ledger, first)
    enter_coin(ledger, coin(4, 5_000_000 if paid_later else 200_000), 0)
    for number in range(300, 304):
        burn(ledger, number, 30_000)
        confirm(ledger, pay(ledger))
    assert len(list(ledger.open_withdrawals.items())) == (0 if paid_later else 3)


class WindowMachine(RuleBasedStateMachine):
    """The law against a count of its own, of what was burned when.

    burned: every burn, with its true date and value.  waited_again: the payees of payouts that died.  returned: what
    was refunded.  gone: lost coins.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger = new_ledger()
        self.burned: dict[OutPoint, tuple[int, int]] = {}
        self.waited_again: set[OutPoint] = set()
        self.returned: set[OutPoint] = set()
        self.gone: list[OutPoint] = []
        self.made = 0

    def _next(self) -> int:
        self.made += 1
        return self.made

    def _payout(self) -> Lineage:
        lineage = open_lineage(self.ledger, BatchKind.PAYOUT)
        assert lineage is not None
        return lineage

    @rule(value_sats=st.integers(min_value=100_000, max_value=CAP_SATS))
    def deposit(self, value_sats: int) -> None:
        enter_coin(self.ledger, coin(self._next(), value_sats), 0)

    @rule(value_sats=st.integers(min_value=30_000, max_value=CAP_SATS // 2))
    def leave(self, value_sats: int) -> None:
        """If there is room in the window, by this count."""
        height = self.ledger.totals.anchor.height
        room_sats = CAP_SATS - self._window_sats(list(self.burned.values()), height)
        if value_sats <= min(room_sats, self.ledger.totals.supply_sats):
            number = self._next()
            burn(self.ledger, number, value_sats)
            self.burned[outpoint(number)] = (height, value_sats)

    @rule(anchors=st.sampled_from([1, 2, WINDOW - 1, WINDOW, WINDOW + 1]))
    def let_time_pass(self, anchors: int) -> None:
        wait(self.ledger, anchors)

    @rule()
    def let_burns_expire(self) -> None:
        wait(self.ledger, TERMS.withdrawal_expiry_anchors)
        for withdrawal in due_refunds(self.ledger, TERMS):
            refund(self.ledger, withdrawal.burn, TERMS.refund_fee_sats)
            self.returned.add(withdrawal.burn)

    @precondition(lambda self: open_lineage(self.ledger, BatchKind.PAYOUT) is None)
    @rule()
    def record_payout(self) -> None:
        planned = planned_payout(self.ledger)
        if planned is not None:
            record_batch(self.ledger, planned)
            self._check()

    @precondition(lambda self: open_lineage(self.ledger, BatchKind.PAYOUT) is not None)
    @rule(back=st.integers(min_value=0, max_value=4 * WINDOW))
    def settle_payout(self, back: int) -> None:
        """At any height below the anchor: a deep reorg may have mined it anew, lower than it stood."""
        height = max(START_HEIGHT, self.ledger.totals.anchor.height - back)
        settle(self.ledger, self._payout().versions[0].txid, height)

    @precondition(lambda self: open_lineage(self.ledger, BatchKind.PAYOUT) is not None)
    @rule()
    def lose_what_the_payout_spends(self) -> None:
        lineage = self._payout()
        lose(self.ledger, lineage.inputs[0])
        self.gone.append(lineage.inputs[0])
        self.waited_again.update(lineage.payees)
        assert open_lineage(self.ledger, BatchKind.PAYOUT) is None

    @precondition(lambda self: self.gone)
    @rule()
    def give_back(self) -> None:
        restore_coin(self.ledger, self.gone.pop(), self.ledger.totals.anchor.height)

    def _check(self) -> None:
        """The payout is signed by the true cap, and by none below what the fullest window holds that counts."""
        payees = [self._withdrawal(burn) for burn in self._payout().payees]
        check = partial(check_sums, self.ledger, self._payout(), payees)
        check(TERMS)
        oldest = min(payee.burned_at_anchor for payee in payees) - WINDOW + 1
        left_out = self.waited_again | self.returned
        counted = [when for burn, when in self.burned.items() if burn not in left_out and when[0] >= oldest]
        fullest_sats = max((self._window_sats(counted, height) for height, _ in counted), default=0)
        check(replace(TERMS, max_window_withdrawals_sats=fullest_sats))
        if fullest_sats:
            with pytest.raises(SigningRefused) as caught:
                check(replace(TERMS, max_window_withdrawals_sats=fullest_sats - 1))
            assert caught.value.reason is RefusalReason.WINDOW_OVER_CAP

    def _withdrawal(self, burn: OutPoint) -> Withdrawal:
        withdrawal = self.ledger.open_withdrawals.get(burn)
        assert withdrawal is not None
        return withdrawal

    @staticmethod
    def _window_sats(counted: list[tuple[int, int]], last: int) -> int:
        return sum(value_sats for height, value_sats in counted if last - WINDOW < height <= last)


WindowMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestWindows = WindowMachine.TestCase
