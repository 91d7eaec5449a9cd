"""The signer's laws about its own Bitcoin node: it is there, and holds every coin that the ledger has."""

from dataclasses import replace

import pytest

from bridge.batch import build_batch
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import Txid
from bridge.lineages import record_batch
from bridge.state import BatchKind, BatchVersion
from federation.approval import approve_batch
from federation.refusal import RefusalReason, SigningRefused
from tests.support.approval import FEDERATION, Case, assert_refused, payout_case
from tests.support.peg import PARAMS, outpoint, p2wpkh


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
    """A second lineage, of maintenance, that refreshes the one free coin, for which three quarters have passed."""
    case.age(case.other().outpoint, 3, 4)
    planned = build_batch(case.ledger, BatchKind.MAINTENANCE, None, 2_000, FEDERATION.custody, PARAMS)
    assert planned is not None
    record_batch(case.ledger, planned)
    return planned.version


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


def test_maintenance_is_approved(case: Case) -> None:
    case.version = _with_maintenance(case)
    assert case.version.fund_part_sats == case.version.fee_sats > 100
    assert case.approve().txid == case.version.txid


@pytest.mark.parametrize(
    ("waited", "short_sats", "cap_sats", "reason"),
    [
        ((3, 4), 100, 100, None),
        ((3, 4), 100, 99, RefusalReason.FUND_PART_DIFFERS),
        ((3, 4), -1, 1_000_000, RefusalReason.FUND_PART_DIFFERS),
        ((2, 3), 1, 1_000_000, RefusalReason.FUND_PART_DIFFERS),
    ],
    ids=["at the cap", "over the cap", "more than the fee", "of a coin that can wait"],
)
def test_maintenance_may_book_a_capped_deficit_for_an_urgent_coin_alone(
    case: Case, waited: tuple[int, int], short_sats: int, cap_sats: int, reason: RefusalReason | None
) -> None:
    recorded = _with_maintenance(case)
    lineage = case.ledger.open_lineages.get(1)
    assert lineage is not None
    case.age(lineage.inputs[0], *waited)
    version = replace(recorded, fund_part_sats=recorded.fee_sats - short_sats)
    case.ledger.open_lineages.put(1, replace(lineage, versions=(version,)))
    params = replace(PARAMS, maintenance_deficit_cap_sats=cap_sats)
    if reason is None:
        approve_batch(case.ledger, version.txid, case.facts, FEDERATION.custody, params)
        return
    with pytest.raises(SigningRefused) as caught:
        approve_batch(case.ledger, version.txid, case.facts, FEDERATION.custody, params)
    assert caught.value.reason is reason


# The mempool


@pytest.mark.parametrize("which", ["locked", "other"])
def test_coin_that_a_stranger_spends_in_the_mempool_is_refused(case: Case, which: str) -> None:
    coin = case.locked() if which == "locked" else case.other()
    case.facts = replace(case.facts, spenders={coin.outpoint: Txid(sha256(b"a thief's"))})
    assert_refused(case, RefusalReason.COIN_SPENT_IN_MEMPOOL)


def test_version_in_the_mempool_is_no_foreign_spend_of_its_own_coins(case: Case) -> None:
    case.facts = replace(case.facts, spenders=dict.fromkeys(case.lineage.inputs, case.version.txid))
    case.approve()
    case.facts = replace(case.facts, spenders={case.other().outpoint: case.version.txid})
    assert_refused(case, RefusalReason.COIN_SPENT_IN_MEMPOOL)


def test_version_of_a_closed_lineage_in_the_mempool_is_a_foreign_spend(case: Case) -> None:
    """Whatever became of its lineage: nothing but an open one has a claim on the coin."""
    old = Txid(sha256(b"a version of old"))
    for number, reason in ((0, None), (7, RefusalReason.COIN_SPENT_IN_MEMPOOL)):
        case.ledger.versions.put(old, number)
        case.facts = replace(case.facts, spenders={case.locked().outpoint: old})
        if reason is None:
            case.approve()
        else:
            assert_refused(case, reason)


def test_facts_of_coins_that_the_ledger_lacks_do_not_matter(case: Case) -> None:
    case.report(outpoint(999), None)
    case.approve()
