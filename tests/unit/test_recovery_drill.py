"""A drill's own judgement: it must not pass when something did not hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from bridge.bitcoin.identifiers import OutPoint
from bridge.custody import CoinKind
from bridge.errors import Reason, Rejected
from bridge.l1.answers import L1TxOut, MempoolVerdict
from bridge.l1.client import L1Client
from bridge.psbt import PsbtReason
from bridge.recovery import Origin, RecoveryReason
from pegnode.demo.narration import Narrator
from pegnode.demo.stage import Stage
from pegnode.genesis import Genesis
from pegnode.local_federation import LocalFederation
from pegnode.recovery import drill
from pegnode.recovery.drill_checks import (
    DrillFailed,
    DrillReason,
    eventually,
    refused,
    require_node_refuses,
    require_recovered,
    require_same_coins,
)
from pegnode.recovery.known import KnownCoin, KnownReserve
from pegnode.recovery.survey import CoinState, Survey, SurveyedCoin
from tests.support.peg import ALICE, BOB
from tests.support.recovery import coin, planned, signed

REQUEST = signed(planned([coin(0)]), 0, 1)
TRANSACTION = REQUEST.finalized()
PAID = TRANSACTION.outputs[0]


@dataclass
class BitcoinNode:
    """Answers what a drill's checks ask."""

    verdict: MempoolVerdict | None = None
    paid: L1TxOut | None = None

    async def test_mempool_accept(self, transaction: bytes) -> MempoolVerdict:
        assert transaction == TRANSACTION.serialize()
        assert self.verdict is not None
        return self.verdict

    async def txout(self, outpoint: OutPoint, include_mempool: bool) -> L1TxOut | None:
        assert (outpoint, include_mempool) == (TRANSACTION.outpoint(0), False)
        return self.paid


def left(*states: CoinState) -> Survey:
    return Survey(100, tuple(SurveyedCoin(coin(0), 1, 25, in_ledger=True, state=state) for state in states))


def txout(value_sats: int = PAID.value_sats) -> L1TxOut:
    return L1TxOut(value_sats, PAID.script, 1, False, TRANSACTION.txid)  # type: ignore[arg-type]


def refuse(reason: Reason) -> None:
    raise Rejected(reason, "in so many words")


def test_what_is_not_refused_or_for_another_reason_fails_a_drill() -> None:
    with refused(RecoveryReason.IMMATURE, "a test") as refusal:
        refuse(RecoveryReason.IMMATURE)
    assert refusal.words == "recovery-immature: in so many words"
    with pytest.raises(DrillFailed) as failed, refused(RecoveryReason.IMMATURE, "a test"):
        pass
    assert failed.value.reason is DrillReason.NOT_REFUSED
    with pytest.raises(DrillFailed) as failed, refused(RecoveryReason.IMMATURE, "a test"):
        refuse(PsbtReason.MALFORMED)
    assert failed.value.reason is DrillReason.NOT_REFUSED


async def test_transaction_that_the_node_would_take_fails_a_drill() -> None:
    refusing = BitcoinNode(MempoolVerdict(False, "a reason", None, None))
    assert await require_node_refuses(cast(L1Client, refusing), TRANSACTION, "a test") == "a reason"
    with pytest.raises(DrillFailed) as failed:
        await require_node_refuses(cast(L1Client, BitcoinNode(MempoolVerdict(True, "", 1, 1))), TRANSACTION, "a test")
    assert failed.value.reason is DrillReason.NOT_REFUSED


async def test_drill_waits_for_what_comes_and_not_for_ever(autojump_clock: object) -> None:
    answers = iter([False, False, True])

    async def at_last() -> bool:
        return next(answers)

    await eventually(at_last, "a test", 60)

    async def never() -> bool:
        return False

    with pytest.raises(DrillFailed) as failed:
        await eventually(never, "a test", 60)
    assert failed.value.reason is DrillReason.TOO_SLOW


def test_disk_that_knows_other_coins_than_were_told_fails_a_drill() -> None:
    told = KnownReserve((KnownCoin(coin(0).outpoint, 5, Origin(CoinKind.CHANGE, 0), 1),), frozenset({ALICE}), "told")
    require_same_coins(told, KnownReserve(told.coins, frozenset(), "on disk"))
    with pytest.raises(DrillFailed) as failed:
        require_same_coins(told, KnownReserve.nothing())
    assert failed.value.reason is DrillReason.SOURCES_DIFFER


async def test_payment_that_the_node_shows_and_an_empty_reserve_end_a_drill() -> None:
    await require_recovered(cast(L1Client, BitcoinNode(paid=txout())), left(CoinState.GONE), [REQUEST], BOB)


@pytest.mark.parametrize(
    ("paid", "states", "payee"),
    [
        (None, [], BOB),
        (txout(PAID.value_sats - 1), [], BOB),
        (txout(), [], ALICE),
        (txout(), [CoinState.MATURE], BOB),
    ],
    ids=["not paid", "paid less", "paid to another", "a coin left"],
)
async def test_coins_that_are_not_where_they_should_be_fail_a_drill(
    paid: L1TxOut | None, states: Sequence[CoinState], payee: bytes
) -> None:
    with pytest.raises(DrillFailed) as failed:
        await require_recovered(cast(L1Client, BitcoinNode(paid=paid)), left(*states), [REQUEST], payee)  # type: ignore[arg-type]
    assert failed.value.reason is DrillReason.NOT_RECOVERED


async def test_drill_on_a_copy_needs_the_bitcoin_node_to_copy_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped:
        directory = genesis_path = tmp_path

        class bitcoind:  # noqa: N801 -- an attribute of the federation
            pid = None

    monkeypatch.setattr(Genesis, "load", lambda _: None)
    monkeypatch.setattr(drill, "_known", lambda *_: KnownReserve.nothing())
    with pytest.raises(DrillFailed) as failed:
        await drill.drill_on_copy(Stage(tmp_path), Narrator([]), cast(LocalFederation, Stopped()))
    assert failed.value.reason is DrillReason.BITCOIND_STOPPED


def test_transaction_of_one_key_keeps_one_signature_for_each_input() -> None:
    [witness] = [txin.witness for txin in drill._by_one_key(TRANSACTION).inputs]
    assert [len(item) for item in witness[:3]] == [0, 64, 0]
    assert witness[3:] == TRANSACTION.inputs[0].witness[3:]
