"""The signer's laws about its own Bitcoin node: it is there, and holds every coin that the ledger has."""

from dataclasses import replace

import pytest

from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.state import BatchKind, BatchVersion, Lineage
from federation.approval import (
    RefusalReason,
    SigningRefused,
    approve_batch,
)
from tests.support.approval import FEDERATION, Case, assert_refused, payout_case
from tests.support.peg import PARAMS, START_HEIGHT, outpoint, p2wpkh
from tests.support.signers import change_script_of


@pytest.fixture
def case() -> Case:
    """A payout that is approved as it stands."""
    return payout_case()


def test_halted_member_refuses(case: Case) -> None:
    case.facts = replace(case.facts, halted=True)
    assert_refused(case, RefusalReason.HALTED)


def test_node_below_the_anchor_refuses(case: Case) -> None:
    anchor_height = case.ledger.totals.anchor.height
    case.facts = replace(case.facts, l1_height=anchor_height)
    case.approve()
    case.facts = replace(case.facts, l1_height=anchor_height - 1)
    assert_refused(case, RefusalReason.NODE_BEHIND)


def test_unspent_coin_of_an_unknown_epoch_is_refused(case: Case) -> None:
    case.ledger.coins.put(case.other().outpoint, replace(case.other(), epoch=3))
    assert_refused(case, RefusalReason.NO_RESERVE_SCRIPT)


def test_batch_that_the_chain_holds_is_refused(case: Case) -> None:
    case.facts = replace(case.facts, confirmed=frozenset({case.version.txid}))
    assert_refused(case, RefusalReason.ALREADY_CONFIRMED)


@pytest.mark.parametrize("which", ["locked", "other"])
def test_coin_that_the_node_was_not_asked_for_is_refused(case: Case, which: str) -> None:
    coin = case.locked() if which == "locked" else case.other()
    case.facts = replace(
        case.facts, unspent={point: found for point, found in case.facts.unspent.items() if point != coin.outpoint}
    )
    assert_refused(case, RefusalReason.COIN_NOT_REPORTED)


@pytest.mark.parametrize("which", ["locked", "other"])
def test_coin_that_the_node_lacks_is_refused(case: Case, which: str) -> None:
    case.report((case.locked() if which == "locked" else case.other()).outpoint, None)
    assert_refused(case, RefusalReason.COIN_MISSING)


@pytest.mark.parametrize("which", ["locked", "other"])
@pytest.mark.parametrize("changes", [{"value_sats": 1}, {"script": p2wpkh("mallory")}], ids=["value", "script"])
def test_coin_that_the_node_has_otherwise_is_refused(case: Case, which: str, changes: dict[str, object]) -> None:
    coin = case.locked() if which == "locked" else case.other()
    found = case.facts.unspent[coin.outpoint]
    assert found is not None
    case.report(coin.outpoint, replace(found, **changes))  # type: ignore[arg-type]
    assert_refused(case, RefusalReason.COIN_DIFFERS)


def _with_maintenance(case: Case) -> BatchVersion:
    """A second lineage, of maintenance, that spends the one free coin."""
    coin = case.other()
    spend = Transaction(
        2, (TxIn(coin.outpoint, b"", 0xFFFFFFFD),), (TxOut(coin.value_sats - 10_000, change_script_of(FEDERATION)),)
    )
    version = BatchVersion(spend.txid, spend.serialize(), 20_000, 10_000, 10_000, 0, START_HEIGHT)
    case.ledger.coins.put(coin.outpoint, replace(coin, lineage=1))
    case.ledger.open_lineages.put(1, Lineage(1, BatchKind.MAINTENANCE, (coin.outpoint,), (), (version,), 10_000))
    case.ledger.versions.put(version.txid, 1)
    return version


def test_coin_spent_by_another_recorded_version_is_no_loss(case: Case) -> None:
    spent = case.other().outpoint
    maintenance = _with_maintenance(case)
    case.report(spent, None)
    assert_refused(case, RefusalReason.COIN_MISSING)
    case.facts = replace(case.facts, confirmed=frozenset({maintenance.txid}))
    case.approve()
    case.report(case.locked().outpoint, None)
    assert_refused(case, RefusalReason.COIN_MISSING)


def test_other_lineage_with_a_malformed_version_is_refused(case: Case) -> None:
    maintenance = _with_maintenance(case)
    other = case.ledger.open_lineages.get(1)
    assert other is not None
    case.ledger.open_lineages.put(1, replace(other, versions=(replace(maintenance, transaction=b""),)))
    case.facts = replace(case.facts, confirmed=frozenset({maintenance.txid}))
    assert_refused(case, RefusalReason.MALFORMED_TRANSACTION)


def test_maintenance_is_approved_and_may_book_a_capped_deficit(case: Case) -> None:
    case.version = _with_maintenance(case)
    case.approve()
    lineage = case.ledger.open_lineages.get(1)
    assert lineage is not None
    for fund_part_sats, expected in ((9_000, None), (10_001, RefusalReason.FUND_PART_DIFFERS)):
        version = replace(case.version, fund_part_sats=fund_part_sats)
        case.ledger.open_lineages.put(1, replace(lineage, versions=(version,)))
        if expected is None:
            case.approve()
        else:
            assert_refused(case, expected)
    case.ledger.open_lineages.put(1, replace(lineage, versions=(replace(case.version, fund_part_sats=9_000),)))
    params = replace(PARAMS, maintenance_deficit_cap_sats=1_000)
    approve_batch(case.ledger, case.version.txid, case.facts, FEDERATION.custody, params)
    params = replace(PARAMS, maintenance_deficit_cap_sats=999)
    with pytest.raises(SigningRefused) as caught:
        approve_batch(case.ledger, case.version.txid, case.facts, FEDERATION.custody, params)
    assert caught.value.reason is RefusalReason.FUND_PART_DIFFERS


def test_facts_of_coins_that_the_ledger_lacks_do_not_matter(case: Case) -> None:
    case.report(outpoint(999), None)
    case.approve()
