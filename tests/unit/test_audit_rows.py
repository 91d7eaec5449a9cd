"""The audit's rows: every coin and every payment to a reserve script has one cause, and what is wrong is a finding."""

from dataclasses import dataclass, field, replace

import pytest

from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.custody import CoinKind, reserve_script
from bridge.deposits import ReserveTerms
from bridge.l1.answers import ScannedOutput
from bridge.ledger import Ledger, enter_donation
from bridge.lineages import settle
from bridge.losses import book_losses, restore_coin
from bridge.records import Deficit, LostCoin
from bridge.state import Anchor, Coin
from pegnode.audit.ages import Ages, ages
from pegnode.audit.reserve import STATUS_OF, Books, L1Sight, Row, RowCause, RowStatus, explain
from tests.support.ledgers import batched_ledger, only_lineage, small_ledger
from tests.support.peg import ALICE, CUSTODY, PARAMS, POLICY, START_HEIGHT, anchor, coin, deposit_script, outpoint

TIP = anchor(START_HEIGHT + PARAMS.confirmations)
CHANGE = reserve_script(POLICY, CoinKind.CHANGE).script
DONATION = reserve_script(POLICY, CoinKind.DONATION).script
TERMS = {
    deposit_script(): ReserveTerms(CoinKind.DEPOSIT, 0, ALICE),
    CHANGE: ReserveTerms(CoinKind.CHANGE, 0, b""),
    DONATION: ReserveTerms(CoinKind.DONATION, 0, b""),
}
STRANGE = outpoint(77)
DEEP = TIP.height - PARAMS.confirmations + 1
"""The height of the newest block that is deep enough."""


@dataclass
class L1:
    """What L1 holds; at first, every coin of the ledger."""

    ledger: Ledger
    outputs: dict[OutPoint, ScannedOutput] = field(default_factory=dict)
    spenders: dict[OutPoint, Txid] = field(default_factory=dict)
    confirmed: set[Txid] = field(default_factory=set)
    tip: Anchor = TIP

    def __post_init__(self) -> None:
        for _, held in self.ledger.coins.items():
            script = reserve_script(CUSTODY.policy(held.epoch), held.kind, held.claim_script).script
            self.pay(held.outpoint, script, held.value_sats, held.l1_height)

    def pay(
        self, where: OutPoint, script: Script, value_sats: int, height: int = DEEP, *, coinbase: bool = False
    ) -> None:
        """One more unspent output."""
        self.outputs[where] = ScannedOutput(where, value_sats, script, height, coinbase)

    def rows(self) -> dict[OutPoint, Row]:
        """What the audit makes of it."""
        books = Books.take(self.ledger, self.outputs)
        sight = L1Sight(self.tip, self.outputs, self.spenders, frozenset(self.confirmed), TERMS)
        found = explain(books, sight, CUSTODY, PARAMS)
        assert len({row.outpoint for row in found}) == len(found)
        return {row.outpoint: row for row in found}

    def cause(self, where: OutPoint) -> RowCause:
        """The cause of one row; only what it says is wrong may be a finding."""
        rows = self.rows()
        assert all(not row.is_finding for row in rows.values() if row.outpoint != where)
        return rows[where].cause


def test_every_cause_has_a_status() -> None:
    assert STATUS_OF.keys() == set(RowCause)
    findings = {cause for cause, status in STATUS_OF.items() if status in (RowStatus.UNEXPLAINED, RowStatus.MISSING)}
    assert findings == {
        RowCause.OTHER_VALUE,
        RowCause.OTHER_SCRIPT,
        RowCause.FOREIGN_SPEND,
        RowCause.NOT_IN_LEDGER,
        RowCause.SECOND_SETTLEMENT,
        RowCause.GONE,
    }


def test_coin_that_is_there_is_held() -> None:
    l1 = L1(small_ledger())
    rows = l1.rows()
    assert {row.outpoint: row.value_sats for row in rows.values()} == {outpoint(1): 1_000_000, outpoint(2): 400_000}
    assert {(row.status, row.cause, row.is_coin, row.on_l1) for row in rows.values()} == {
        (RowStatus.RESERVE, RowCause.HELD, True, True)
    }
    assert rows[outpoint(1)].confirmations == TIP.height - (START_HEIGHT - 10) + 1
    assert rows[outpoint(1)].recovery_l1_height == START_HEIGHT - 10 + PARAMS.recovery_timelock_blocks


def test_coin_that_l1_has_not_is_gone() -> None:
    l1 = L1(small_ledger())
    del l1.outputs[outpoint(1)]
    assert l1.cause(outpoint(1)) is RowCause.GONE
    row = l1.rows()[outpoint(1)]
    assert (row.status, row.value_sats, row.confirmations, row.on_l1) == (RowStatus.MISSING, 1_000_000, 0, False)


def test_coin_with_another_value_is_unexplained() -> None:
    for value_sats in (999_999, 1_000_001):
        l1 = L1(small_ledger())
        l1.pay(outpoint(1), deposit_script(), value_sats)
        assert l1.cause(outpoint(1)) is RowCause.OTHER_VALUE


def test_coin_with_another_script_is_unexplained() -> None:
    for script in (CHANGE, ALICE):
        l1 = L1(small_ledger())
        l1.pay(outpoint(1), script, 1_000_000)
        assert l1.cause(outpoint(1)) is RowCause.OTHER_SCRIPT


def test_coin_of_a_batch_in_the_mempool_is_in_flight() -> None:
    ledger = batched_ledger()
    version = only_lineage(ledger).versions[0]
    l1 = L1(ledger, spenders={outpoint(1): version.txid})
    assert l1.cause(outpoint(1)) is RowCause.SPENT_IN_MEMPOOL
    row = l1.rows()[outpoint(1)]
    assert (row.status, row.on_l1, row.spent_by) == (RowStatus.IN_FLIGHT, True, version.txid)


def test_coin_that_a_stranger_spends_in_the_mempool_is_unexplained() -> None:
    l1 = L1(batched_ledger(), spenders={outpoint(1): Txid(bytes(range(32)))})
    assert l1.cause(outpoint(1)) is RowCause.FOREIGN_SPEND
    assert l1.rows()[outpoint(1)].spent_by == bytes(range(32))


def confirmed_batch() -> tuple[L1, OutPoint]:
    """A batch that is in a block and not settled, and its change."""
    ledger = batched_ledger()
    version = only_lineage(ledger).versions[0]
    l1 = L1(ledger, confirmed={version.txid})
    del l1.outputs[outpoint(1)]
    change = OutPoint(version.txid, 1)
    l1.pay(change, CHANGE, 499_800, TIP.height)
    return l1, change


def test_coin_of_a_batch_in_a_block_is_in_flight_and_so_is_its_change() -> None:
    l1, change = confirmed_batch()
    assert l1.cause(outpoint(1)) is RowCause.SPENT_IN_BLOCK
    assert l1.cause(change) is RowCause.CHANGE
    row = l1.rows()[change]
    assert (row.status, row.value_sats, row.is_coin, row.kind) == (
        RowStatus.IN_FLIGHT,
        499_800,
        False,
        CoinKind.CHANGE,
    )


def test_coin_of_a_batch_that_no_block_holds_is_gone() -> None:
    l1, change = confirmed_batch()
    l1.confirmed.clear()
    del l1.outputs[change]
    assert l1.cause(outpoint(1)) is RowCause.GONE


def test_confirmed_batch_explains_no_coin_that_it_does_not_spend() -> None:
    l1, _ = confirmed_batch()
    del l1.outputs[outpoint(2)]
    assert l1.cause(outpoint(2)) is RowCause.GONE


def test_payout_to_a_deposit_address_is_unclaimed_and_not_change() -> None:
    l1, _ = confirmed_batch()
    payout = OutPoint(only_lineage(l1.ledger).versions[0].txid, 0)
    l1.pay(payout, deposit_script(), 499_200, START_HEIGHT - 500)
    assert l1.cause(payout) is RowCause.TOO_YOUNG


def settled() -> tuple[L1, OutPoint]:
    """A settled batch, and its change, which is a coin now."""
    ledger = batched_ledger()
    version = only_lineage(ledger).versions[0]
    settle(ledger, version.txid, START_HEIGHT)
    return L1(ledger), OutPoint(version.txid, 1)


def test_change_of_a_settled_batch_is_held() -> None:
    l1, change = settled()
    assert l1.cause(change) is RowCause.HELD


def test_coin_that_was_settled_and_is_back_on_l1_is_unexplained() -> None:
    l1, _ = settled()
    l1.pay(outpoint(1), deposit_script(), 1_000_000)
    assert l1.cause(outpoint(1)) is RowCause.NOT_IN_LEDGER


def test_lost_coin_that_l1_has_again_is_unclaimed_until_evidence_of_it_enters() -> None:
    l1 = L1(small_ledger())
    book_losses(l1.ledger, Deficit.of((LostCoin(outpoint(1), 1_000_000),)))
    for height, cause in ((TIP.height, RowCause.TOO_YOUNG), (DEEP, RowCause.RETURNED)):
        l1.pay(outpoint(1), deposit_script(), 1_000_000, height)
        assert l1.cause(outpoint(1)) is cause
    assert not l1.rows()[outpoint(1)].is_finding
    restore_coin(l1.ledger, outpoint(1), DEEP)
    assert l1.cause(outpoint(1)) is RowCause.HELD


def test_change_of_a_version_that_another_superseded_is_unexplained() -> None:
    l1, _ = settled()
    other = Txid(bytes(range(32)))
    l1.ledger.versions.put(other, 0)
    l1.pay(OutPoint(other, 1), CHANGE, 499_000)
    assert l1.cause(OutPoint(other, 1)) is RowCause.SECOND_SETTLEMENT


@pytest.mark.parametrize(
    ("script", "value_sats", "height", "coinbase", "cause"),
    [
        (deposit_script(), PARAMS.min_deposit_sats, DEEP + 1, False, RowCause.TOO_YOUNG),
        (deposit_script(), PARAMS.min_deposit_sats, DEEP, False, RowCause.TO_CLAIM),
        (deposit_script(), PARAMS.min_deposit_sats, DEEP, True, RowCause.TOO_YOUNG),
        (deposit_script(), PARAMS.min_deposit_sats, TIP.height - 99, True, RowCause.TO_CLAIM),
        (deposit_script(), PARAMS.min_deposit_sats - 1, DEEP, False, RowCause.TO_FUND),
        (deposit_script(), PARAMS.min_deposit_sats, DEEP - 2_015, False, RowCause.TO_CLAIM),
        (deposit_script(), PARAMS.min_deposit_sats, DEEP - 2_016, False, RowCause.TOO_OLD),
        (DONATION, PARAMS.coin_floor_sats, DEEP - 2_016, False, RowCause.TOO_OLD),
        (deposit_script(), PARAMS.coin_floor_sats - 1, DEEP, False, RowCause.BELOW_FLOOR),
        (CHANGE, 1_000_000, DEEP, False, RowCause.TO_FUND),
        (CHANGE, 1_000_000, TIP.height, False, RowCause.TOO_YOUNG),
        (DONATION, PARAMS.coin_floor_sats, DEEP, False, RowCause.TO_FUND),
        (DONATION, PARAMS.coin_floor_sats - 1, DEEP, False, RowCause.BELOW_FLOOR),
    ],
)
def test_payment_that_has_not_entered_is_unclaimed(
    script: Script, value_sats: int, height: int, coinbase: bool, cause: RowCause
) -> None:
    l1 = L1(small_ledger())
    l1.pay(STRANGE, script, value_sats, height, coinbase=coinbase)
    assert l1.cause(STRANGE) is cause
    row = l1.rows()[STRANGE]
    assert (row.status, row.is_coin, row.confirmations) == (RowStatus.UNCLAIMED, False, TIP.height - height + 1)


def test_payment_to_a_script_that_was_not_looked_for_is_no_row() -> None:
    l1 = L1(small_ledger())
    l1.pay(STRANGE, ALICE, 1_000_000)
    assert STRANGE not in l1.rows()


def test_findings_stand_first() -> None:
    l1, _ = confirmed_batch()
    del l1.outputs[outpoint(2)]
    l1.pay(STRANGE, CHANGE, 1_000_000)
    enter_donation(l1.ledger, coin(9, 500_000, CoinKind.DONATION))
    l1.pay(outpoint(9), DONATION, 500_001)
    order = [row.status for row in l1.rows().values()]
    assert (
        order
        == [
            RowStatus.MISSING,
            RowStatus.UNEXPLAINED,
            RowStatus.UNCLAIMED,
            RowStatus.IN_FLIGHT,
            RowStatus.IN_FLIGHT,
            RowStatus.RESERVE,
        ][: len(order)]
    )
    assert len(order) == 5


# Ages


def aged(*confirmations: int) -> Ages:
    """The ages of coins of 1 BTC each, with these confirmations, under a timelock of 4,032 blocks."""
    tip = START_HEIGHT + 10_000
    rows = []
    for number, depth in enumerate(confirmations):
        held = Coin(outpoint(number), 100_000_000, CoinKind.DEPOSIT, 0, ALICE, tip - depth + 1)
        l1 = L1(small_ledger(), tip=Anchor(tip, TIP.hash))
        l1.ledger.coins.put(held.outpoint, held)
        l1.pay(held.outpoint, deposit_script(), held.value_sats, held.l1_height)
        rows.append(l1.rows()[held.outpoint])
    return ages(rows)


def test_young_coins_are_not_warned_of() -> None:
    young = aged(1, 2_015)
    assert (young.oldest_blocks, young.past_half_sats, young.warnings) == (2_015, 0, ())
    assert ages(()).earliest_recovery_l1_height is None


def test_coin_is_warned_of_once_by_the_last_mark_that_it_passed() -> None:
    old = aged(2_016, 3_023, 3_024, 4_031, 4_032)
    assert (old.past_half_sats, old.past_three_quarters_sats, old.mature_sats) == (5 * 10**8, 3 * 10**8, 10**8)
    assert old.oldest_blocks == 4_032
    mature, late, half = old.warnings
    assert mature.startswith("1 coin, 1.00000000 BTC, past the whole recovery timelock")
    assert late.startswith("2 coins, 2.00000000 BTC, past three quarters of the recovery timelock")
    assert half.startswith("2 coins, 2.00000000 BTC, past half of the recovery timelock")


def test_recovery_height_is_the_first_block_that_may_hold_a_recovery() -> None:
    tip = START_HEIGHT + 10_000
    assert aged(4_032).earliest_recovery_l1_height == tip + 1
    assert aged(4_031).earliest_recovery_l1_height == tip + 2


def test_coin_that_l1_has_not_has_no_age() -> None:
    l1 = L1(small_ledger())
    gone = replace(l1.rows()[outpoint(1)], on_l1=False)
    assert ages([gone]).oldest_blocks == 0
