"""Ledgers for unit tests: small ones with something in them, and how to look at them and see them refuse."""

from collections.abc import Callable, Sequence

import pytest

from bridge.bitcoin.identifiers import OutPoint, Script
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind, quorum_witness, reserve_script
from bridge.errors import Reason, Rejected
from bridge.ledger import Ledger, LedgerView, advance_anchor, enter_coin, ledger_root, record_burn
from bridge.lineages import PlannedBatch, record_batch
from bridge.losses import book_losses
from bridge.records import Deficit, LostCoin
from bridge.state import BatchKind, BatchVersion, Coin, Lineage, Withdrawal
from tests.support.peg import ALICE, BOB, CUSTODY, PARAMS, POLICY, anchor, coin, new_ledger, outpoint, p2wpkh

CHANGE = reserve_script(POLICY, CoinKind.CHANGE).script


def ledger_of(coins_sats: Sequence[int], burns: Sequence[tuple[int, int]]) -> Ledger:
    """Deposits 0, 1, ... without claim fee, and burns 100, 101, ... of (value, max_fee), oldest first."""
    ledger = new_ledger()
    for number, value_sats in enumerate(coins_sats):
        enter_coin(ledger, coin(number, value_sats), 0)
    for number, (value_sats, max_fee_sats) in enumerate(burns, 100):
        burn(ledger, number, value_sats, max_fee_sats=max_fee_sats, l1_script=p2wpkh(f"payee {number}"))
    return ledger


def wait(ledger: Ledger, anchors: int) -> None:
    """So many more anchors pass."""
    for _ in range(anchors):
        advance_anchor(ledger, anchor(ledger.totals.anchor.height + 1), PARAMS)


def burn(
    ledger: Ledger, number: int, value_sats: int, *, max_fee_sats: int = 1_000, l1_script: Script = BOB
) -> Withdrawal:
    """Record a burn of Alice's at `outpoint(number)`."""
    return record_burn(
        ledger,
        outpoint(number),
        value_sats=value_sats,
        max_fee_sats=max_fee_sats,
        l1_script=l1_script,
        refund_script=ALICE,
    )


def plan(
    ledger: LedgerView, coins: list[Coin], burns: list[Withdrawal], *, share_sats: int = 0, fund_part_sats: int = 0
) -> PlannedBatch:
    """A payout as `bridge.batch` would plan it, with one change output for what is left."""
    spent_sats = sum(item.value_sats for item in coins)
    change_sats = spent_sats - sum(item.value_sats for item in burns) - fund_part_sats
    outputs = [TxOut(item.value_sats - share_sats, item.l1_script) for item in burns]
    if change_sats:
        outputs.append(TxOut(change_sats, CHANGE))
    inputs = tuple(item.outpoint for item in coins)
    transaction = Transaction(2, tuple(TxIn(spent) for spent in inputs), tuple(outputs))
    fee_sats = share_sats * len(burns) + fund_part_sats
    height = ledger.totals.anchor.height
    version = BatchVersion(transaction.txid, transaction.serialize(), 1_000, fee_sats, fund_part_sats, 0, height)
    return PlannedBatch(BatchKind.PAYOUT, None, inputs, tuple(item.burn for item in burns), version)


def losses(ledger: Ledger, outpoints: Sequence[OutPoint]) -> Deficit:
    """These coins, with the values that the ledger has them at."""
    coins = (ledger.coins.get(outpoint) for outpoint in outpoints)
    return Deficit.of(LostCoin(item.outpoint, item.value_sats) for item in coins if item is not None)


def lose(ledger: Ledger, *outpoints: OutPoint) -> None:
    """A record names these coins as lost."""
    book_losses(ledger, losses(ledger, outpoints))


def signed(view: LedgerView, transaction: Transaction) -> Transaction:
    """The transaction with witnesses of the size that a quorum's have."""
    witnesses = []
    for txin in transaction.inputs:
        entry = view.coins.get(txin.outpoint)
        assert entry is not None
        reserve = reserve_script(CUSTODY.policy(entry.epoch), entry.kind, entry.claim_script)
        witnesses.append(quorum_witness(reserve, [bytes(64), bytes(64), bytes(64), None]))
    return transaction.with_witnesses(witnesses)


def small_ledger() -> Ledger:
    """Two deposits (1: 1,000,000 and 2: 400,000 sats; claim fee 30,000 each) and one burn (3: 500,000)."""
    ledger = new_ledger()
    enter_coin(ledger, coin(1, 1_000_000), 30_000)
    enter_coin(ledger, coin(2, 400_000), 30_000)
    burn(ledger, 3, 500_000)
    return ledger


def batched_ledger() -> Ledger:
    """The small ledger, its burn batched from its larger coin: fee 1,000, of which the fund bears 200."""
    ledger = small_ledger()
    waiting = only_withdrawal(ledger)
    record_batch(ledger, plan(ledger, [coin(1, 1_000_000)], [waiting], share_sats=800, fund_part_sats=200))
    return ledger


def only_withdrawal(view: LedgerView) -> Withdrawal:
    """The one open withdrawal."""
    ((_, withdrawal),) = view.open_withdrawals.items()
    return withdrawal


def only_lineage(view: LedgerView) -> Lineage:
    """The one open lineage."""
    ((_, lineage),) = view.open_lineages.items()
    return lineage


def pending(view: LedgerView) -> list[Withdrawal]:
    """The open withdrawals, oldest first."""
    return sorted((entry for _, entry in view.open_withdrawals.items()), key=lambda entry: entry.number)


def terms(view: LedgerView) -> tuple[int, int, int, int, int]:
    """Reserves, deficit, supply, unsettled and fund, in sats."""
    totals = view.totals
    return totals.reserves_sats, totals.deficit_sats, totals.supply_sats, totals.unsettled_sats, totals.fund_sats


def snapshot(ledger: LedgerView) -> tuple[object, ...]:
    """All that a ledger says, to compare before and after."""
    tables = (
        ledger.coins,
        ledger.lost,
        ledger.entered,
        ledger.open_withdrawals,
        ledger.closed_withdrawals,
        ledger.open_lineages,
        ledger.closed_lineages,
        ledger.versions,
    )
    return (ledger.totals, ledger_root(ledger), *(list(table.items()) for table in tables))


def rejection(ledger: LedgerView, transition: Callable[[], object]) -> Reason:
    """The reason why the transition is refused, having seen that it left the ledger unchanged."""
    before = snapshot(ledger)
    with pytest.raises(Rejected) as caught:
        transition()
    assert snapshot(ledger) == before
    return caught.value.reason
