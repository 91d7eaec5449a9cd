"""Withdrawals have one queue, and one batch at a time: what filling it costs, with the mainnet template's numbers."""

import tomllib

import pytest

from bridge.batch import propose_batches
from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.custody import CoinKind
from bridge.errors import Rejected
from bridge.ledger import Ledger, advance_anchor, enter_coin, record_burn
from bridge.lineages import record_batch, settle
from bridge.params import PegParams
from bridge.refunds import due_refunds, refund
from bridge.state import BatchKind, Coin, WithdrawalStatus
from bridge.withdrawals import Burn, BurnReason, check_burns
from tests.support.chain import CONFIGS
from tests.support.peg import ALICE, anchor, new_ledger, outpoint, p2tr
from tests.support.signers import federation

MAINNET = PegParams(**tomllib.loads((CONFIGS / "federation-15.toml").read_text())["peg"])
CUSTODY = federation(15).custody
HONEST_SATS = 100_000_000


def _ledger() -> Ledger:
    ledger = new_ledger()
    for number in range(60):
        coin = Coin(outpoint(number), 1_000_000_000, CoinKind.DEPOSIT, 0, ALICE, ledger.totals.anchor.height)
        enter_coin(ledger, coin, MAINNET.claim_fee_sats)
    return ledger


def _burn(ledger: Ledger, number: int, value_sats: int, max_fee_sats: int) -> OutPoint:
    burn, source = Burn(p2tr(str(number)), max_fee_sats, ALICE), outpoint(number)
    check_burns([(burn, value_sats)], ledger, CUSTODY, MAINNET)
    recorded = record_burn(
        ledger,
        source,
        value_sats=value_sats,
        max_fee_sats=max_fee_sats,
        l1_script=burn.l1_script,
        refund_script=burn.refund_script,
    )
    return recorded.burn


def _step(ledger: Ledger, mined: dict[Txid, int]) -> None:
    """One anchor, at the lowest feerate: every batch is in the next L1 block, and settles as soon as it is buried."""
    advance_anchor(ledger, anchor(ledger.totals.anchor.height + 1), MAINNET)
    height = ledger.totals.anchor.height
    for txid in [txid for txid, at in mined.items() if at <= height]:
        settle(ledger, txid, mined.pop(txid))
    for due in due_refunds(ledger, MAINNET):
        refund(ledger, due.burn, MAINNET.refund_fee_sats)
    for planned in propose_batches(ledger, MAINNET.feerate_floor_sat_kvb, mined, CUSTODY, MAINNET):
        record_batch(ledger, planned)
        mined[planned.version.txid] = height + MAINNET.confirmations


def _shares_sats(ledger: Ledger) -> int:
    """What the payees of settled payouts bore."""
    payouts = (entry for _, entry in ledger.closed_lineages.items() if entry.kind is BatchKind.PAYOUT)
    versions = (entry.versions[-1] for entry in payouts)
    return sum(version.fee_sats - version.fund_part_sats for version in versions)


def test_two_thousand_burns_of_the_least_value_hold_up_withdrawals_for_two_days_at_most() -> None:
    """Not for the two weeks after which withdrawals expire, as with a hundred payees in a batch.

    What they cost is in the threat model: so much for each batch that is kept from others.
    """
    ledger, mined = _ledger(), dict[Txid, int]()
    count = 2 * MAINNET.batch_max_payees + 200
    for number in range(count):
        _burn(ledger, 10_000 + number, MAINNET.min_withdrawal_sats, 1_000)
    honest = _burn(ledger, 9_999, HONEST_SATS, 50_000)
    while (ended := ledger.closed_withdrawals.get(honest)) is None:
        _step(ledger, mined)
    assert ended.status is WithdrawalStatus.SETTLED
    assert ledger.totals.anchor.height - ended.burned_at_anchor < 3 * (MAINNET.confirmations + 3) + 6
    assert 43 * count < _shares_sats(ledger) < 45 * (count + 1)


def test_burn_below_the_least_value_does_not_queue() -> None:
    with pytest.raises(Rejected) as caught:
        _burn(_ledger(), 10_000, MAINNET.min_withdrawal_sats - 1, 1_000)
    assert caught.value.reason is BurnReason.BELOW_MIN_WITHDRAWAL


def test_filling_the_queue_until_others_expire_takes_coin_for_each_place() -> None:
    """One who wants it needs so many burns at once, each of the least value, and pays for each."""
    batches = MAINNET.withdrawal_expiry_anchors // (MAINNET.confirmations + 1)
    places = batches * MAINNET.batch_max_payees
    assert places * MAINNET.min_withdrawal_sats >= 190_000_000
