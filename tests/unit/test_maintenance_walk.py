"""A walk over twice the recovery's wait: while members work, no coin of the reserve grows so old that recovery opens.

Each step is one L1 block. The members' leader sees the anchor `confirmations` below the tip, proposes what is due and
the block is final at once; L1 mines what is broadcast after some blocks, and evidence enters as soon as it is buried.
"""

import random
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest

from bridge.batch import propose_batches
from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.bitcoin.transaction import Transaction
from bridge.custody import CoinKind, Custody
from bridge.ledger import Ledger, advance_anchor, enter_coin, enter_donation
from bridge.lineages import record_batch, settle
from bridge.params import PegParams
from bridge.state import BatchKind, Coin
from tests.support.chain import CONFIGS
from tests.support.ledgers import burn
from tests.support.peg import ALICE, CUSTODY, PARAMS, START_HEIGHT, anchor, new_ledger, outpoint, p2wpkh
from tests.support.signers import federation

T = 160
WALK = replace(
    PARAMS,
    recovery_timelock_blocks=T,
    batch_min_payouts=2,
    batch_max_first_inputs=5,
    batch_max_inputs=8,
    maintenance_max_first_inputs=5,
    maintenance_max_inputs=8,
    change_target_coins=4,
    lineage_fee_cap_sats=100_000,
)


@dataclass
class Walk:
    """mined: versions that L1 has mined but nobody could prove yet, with their height.

    delay: how many blocks L1 takes, at most.  ceiling_sat_kvb: what L1 asks, at most.
    oldest: the greatest age that any coin has had.  refreshed, replaced: batches of maintenance, and replacements.
    """

    ledger: Ledger
    chance: random.Random
    delay: int
    ceiling_sat_kvb: int
    traffic: bool
    params: PegParams = WALK
    custody: Custody = CUSTODY
    mined: dict[Txid, int] = field(default_factory=dict)
    oldest: int = 0
    serial: int = 1_000
    refreshed: int = 0
    replaced: int = 0

    @property
    def tip(self) -> int:
        """L1's height."""
        return self.ledger.totals.anchor.height + self.params.confirmations - 1

    def step(self) -> None:
        """One L1 block."""
        advance_anchor(self.ledger, anchor(self.ledger.totals.anchor.height + 1), self.params)
        self._mine()
        for txid, height in list(self.mined.items()):
            if height <= self.ledger.totals.anchor.height:
                del self.mined[txid]
                settle(self.ledger, txid, height)
        if self.traffic:
            self._traffic()
        estimate = self.chance.randint(1_000, self.ceiling_sat_kvb)
        for planned in propose_batches(self.ledger, estimate, self.mined, self.custody, self.params):
            record_batch(self.ledger, planned)
            self.refreshed += planned.kind is BatchKind.MAINTENANCE
            self.replaced += planned.replaces is not None
        self.ledger.totals.require_equality()
        self.oldest = max(self.oldest, self.age_of_oldest())
        assert self.oldest < self.params.recovery_timelock_blocks

    def _mine(self) -> None:
        """The new block holds some version of what waits, for sure once it has waited for `delay` blocks."""
        for _, lineage in self.ledger.open_lineages.items():
            waited = self.ledger.totals.anchor.height - lineage.versions[0].anchor_height
            is_mined = any(version.txid in self.mined for version in lineage.versions)
            if not is_mined and self.chance.randint(1, self.delay) <= waited:
                self.mined[self.chance.choice(lineage.versions).txid] = self.tip

    def _traffic(self) -> None:
        if self.chance.random() < 0.2:
            self.serial += 1
            value_sats = self.chance.randint(100_000, 900_000)
            height = self.ledger.totals.anchor.height
            enter_coin(self.ledger, Coin(outpoint(self.serial), value_sats, CoinKind.DEPOSIT, 0, ALICE, height), 5_000)
        if self.chance.random() < 0.2:
            self.serial += 1
            value_sats = self.chance.randint(50_000, 400_000)
            if value_sats < self.ledger.totals.supply_sats:
                burn(self.ledger, self.serial, value_sats, max_fee_sats=20_000, l1_script=p2wpkh(str(self.serial)))

    def age_of_oldest(self) -> int:
        """In confirmations: the recovery keys may spend in the next block what has as many as the lock asks for."""
        gone = {
            txin.outpoint
            for _, lineage in self.ledger.open_lineages.items()
            for version in lineage.versions
            if version.txid in self.mined
            for txin in Transaction.parse(version.transaction).inputs
        }
        ages = [self.tip - coin.l1_height + 1 for held, coin in self.ledger.coins.items() if held not in gone]
        return max(ages, default=0)


def _ledger(seed: int, fund_sats: int) -> Ledger:
    ledger, chance = new_ledger(), random.Random(seed)
    for number in range(7):
        height = START_HEIGHT - chance.randint(0, T // 2)
        value_sats = chance.choice([60_000, 200_000, 500_000, 2_000_000])
        enter_coin(
            ledger, Coin(OutPoint(Txid(bytes([number]) * 32), 0), value_sats, CoinKind.DEPOSIT, 0, ALICE, height), 0
        )
    if fund_sats:
        enter_donation(ledger, Coin(outpoint(900), fund_sats, CoinKind.DONATION, 0, b"", START_HEIGHT))
    return ledger


@pytest.mark.parametrize("traffic", [False, True], ids=["quiet", "traffic"])
@pytest.mark.parametrize("fund_sats", [0, 1_000_000], ids=["empty fund", "full fund"])
@pytest.mark.parametrize("seed", range(6))
def test_no_coin_reaches_the_recovery_lock_while_members_work(traffic: bool, fund_sats: int, seed: int) -> None:
    walk = Walk(_ledger(seed, fund_sats), random.Random(seed), delay=4, ceiling_sat_kvb=20_000, traffic=traffic)
    for _ in range(2 * T):
        walk.step()
    totals = walk.ledger.totals
    assert walk.refreshed > 0
    assert walk.oldest > T // 2
    if not traffic:
        assert (totals.deficit_sats > 0) == (fund_sats == 0)
        assert totals.fund_sats < fund_sats or not fund_sats
    assert totals.deficit_sats < 400_000


@pytest.mark.parametrize("seed", range(3))
def test_no_coin_reaches_the_recovery_lock_while_l1_is_slow_and_dear(seed: int) -> None:
    params = replace(WALK, replacement_interval_anchors=2)
    walk = Walk(_ledger(seed, 0), random.Random(seed), 14, 200_000, traffic=True, params=params)
    for _ in range(2 * T):
        walk.step()
    assert walk.replaced > 0


def _owing(ledger: Ledger) -> Ledger:
    """With a deficit that leaves no room under the cap."""
    owed_sats = WALK.maintenance_deficit_cap_sats
    ledger.totals = ledger.totals.plus(deficit_sats=owed_sats, supply_sats=owed_sats)
    return ledger


@pytest.mark.parametrize("traffic", [False, True], ids=["quiet", "traffic"])
@pytest.mark.parametrize("seed", range(3))
def test_no_coin_reaches_the_recovery_lock_though_the_cap_on_deficits_is_used_up(traffic: bool, seed: int) -> None:
    """Coins are moved later, while there is time, and moved all the same."""
    walk = Walk(_owing(_ledger(seed, 0)), random.Random(seed), delay=4, ceiling_sat_kvb=20_000, traffic=traffic)
    for _ in range(2 * T):
        walk.step()
    assert walk.refreshed > 0
    if not traffic:
        assert walk.oldest > 13 * T // 16


@pytest.mark.parametrize("fund_sats", [None, 0, 1_000_000], ids=["deficit at its cap", "empty fund", "full fund"])
@pytest.mark.parametrize("seed", range(6))
def test_no_coin_reaches_the_shortest_lock_that_a_genesis_may_have(fund_sats: int | None, seed: int) -> None:
    least = 8 * (WALK.confirmations + WALK.replacement_interval_anchors)
    params = replace(WALK, recovery_timelock_blocks=least)
    chance = random.Random(seed)
    ledger = new_ledger()
    for number in range(5):
        height = START_HEIGHT - chance.randint(0, least // 3)
        value_sats = chance.choice([60_000, 200_000, 2_000_000])
        enter_coin(ledger, Coin(outpoint(number), value_sats, CoinKind.DEPOSIT, 0, ALICE, height), 0)
    if fund_sats:
        enter_donation(ledger, Coin(outpoint(900), fund_sats, CoinKind.DONATION, 0, b"", START_HEIGHT))
    delay = WALK.replacement_interval_anchors
    if fund_sats is None:
        _owing(ledger)
    walk = Walk(ledger, chance, delay, 20_000, traffic=bool(seed % 2), params=params)
    for _ in range(4 * least):
        walk.step()
    assert walk.refreshed > 4


MAINNET = PegParams(**tomllib.loads((CONFIGS / "federation-15.toml").read_text())["peg"])
BATCH_ANCHORS = MAINNET.confirmations + MAINNET.replacement_interval_anchors
"""From one batch of maintenance to the next, when L1 takes as long as it may without a replacement."""


def _mainnet_walk(heights: Iterable[int]) -> Walk:
    """The template's own peg, with deposits of three million satoshis from L1 blocks of these heights."""
    ledger = new_ledger()
    for number, height in enumerate(heights):
        deposit = Coin(outpoint(number), 3_000_000, CoinKind.DEPOSIT, 0, ALICE, height)
        enter_coin(ledger, deposit, MAINNET.claim_fee_sats)
    delay = MAINNET.replacement_interval_anchors
    return Walk(ledger, random.Random(1), delay, 10_000, False, MAINNET, federation(15).custody)


def _until_half_as_old(walk: Walk, anchors: int) -> None:
    """Time passes until the oldest coin is nearly due, and then block by block."""
    oldest = min(coin.l1_height for _, coin in walk.ledger.coins.items())
    wait = MAINNET.recovery_timelock_blocks
    walk.ledger.totals = replace(walk.ledger.totals, anchor=anchor(oldest + wait // 2 - 1))
    for _ in range(anchors):
        walk.step()


def test_no_coin_of_a_burst_reaches_the_lock_with_the_mainnet_template() -> None:
    """900 deposits within a day, and nobody withdraws: all are refreshed within six batches."""
    walk = _mainnet_walk(START_HEIGHT + number * 144 // 900 for number in range(900))
    wait = MAINNET.recovery_timelock_blocks
    _until_half_as_old(walk, 7 * BATCH_ANCHORS)
    assert wait // 2 < walk.oldest < wait // 2 + 6 * BATCH_ANCHORS
    assert walk.age_of_oldest() < wait // 2


def test_no_coin_reaches_the_lock_at_a_steady_rate_with_the_mainnet_template() -> None:
    """300 deposits a day, which leave no coin behind however long it lasts: what waits does not grow."""
    days = 4
    walk = _mainnet_walk(START_HEIGHT + number * 144 // 300 for number in range(300 * days))
    wait = MAINNET.recovery_timelock_blocks
    _until_half_as_old(walk, 144 * days + 2 * BATCH_ANCHORS)
    assert wait // 2 < walk.oldest < wait // 2 + 3 * BATCH_ANCHORS


def test_coins_reach_the_recovery_lock_without_maintenance() -> None:
    """What the walks above would see, were nobody at work."""
    walk = Walk(_ledger(1, 1_000_000), random.Random(1), delay=4, ceiling_sat_kvb=1_000, traffic=False)
    oldest = []
    for _ in range(2 * T):
        advance_anchor(walk.ledger, anchor(walk.ledger.totals.anchor.height + 1), WALK)
        oldest.append(walk.age_of_oldest())
    assert oldest[-1] > T
