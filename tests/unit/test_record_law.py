"""The law for records: a member signs what its own Bitcoin node shows, and each other record for its own reason not."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid
from bridge.errors import Reason
from bridge.ledger import LedgerView
from bridge.records import AbandonedBlock, Deficit, Finding, LostCoin, Rebase, Record, RecordReason, Resume
from bridge.state import Anchor, LedgerReason
from federation.errors import Refused
from federation.record import verify_record
from federation.record_law import MAX_RECORD_LIFE_ANCHORS, ApprovedRecord, OwnFindings, RecordLaw, approve_record
from federation.signer import Signer, SignerReason
from tests.support.ledgers import batched_ledger, only_lineage, wait
from tests.support.peg import PARAMS, START_HEIGHT, anchor, outpoint
from tests.support.signers import AUX, CHAIN_ID, federation

FEDERATION = federation(4)
MEMBERS = FEDERATION.membership
LEDGER = batched_ledger()
wait(LEDGER, 7)
HEIGHT = START_HEIGHT + 7
LOCKED, FREE = outpoint(1), outpoint(2)
"""The coins of the ledger, of 1,000,000 and 400,000 sats; a payout locks the first."""
VERSION = only_lineage(LEDGER).versions[0].txid

FORK = anchor(START_HEIGHT + 4)
ABANDONED = tuple(AbandonedBlock(anchor(height).hash, height) for height in range(START_HEIGHT + 5, HEIGHT + 1))
NEW_ANCHOR = Anchor(HEIGHT + 2, BlockHash(sha256(b"another branch")))
REBASE = Rebase(FORK, ABANDONED, NEW_ANCHOR)
LEFT = Finding.anchor_left(anchor(HEIGHT))
GONE = Finding.coin_gone(FREE)

WELL = OwnFindings(
    findings=(),
    missing=frozenset(),
    lost=frozenset(),
    versions_seen=frozenset(),
    fork=None,
    abandoned=(),
    new_anchor_depth=0,
)
ROBBED = replace(WELL, findings=(GONE,), missing=frozenset({FREE}), lost=frozenset({FREE}))
"""Somebody spent the free coin, long enough ago."""
REORGANISED = replace(WELL, findings=(LEFT,), fork=FORK, abandoned=ABANDONED, new_anchor_depth=PARAMS.confirmations)
"""L1 left the anchor, and has a branch that is long enough."""

DEFICIT = Record(CHAIN_ID, 0, 1, HEIGHT + 100, Deficit.of((LostCoin(FREE, 400_000),)))
RESUME = Record(CHAIN_ID, 0, 2, HEIGHT + 100, Resume.of((GONE,)))
MOVE = Record(CHAIN_ID, 0, 1, HEIGHT + 100, Resume.of((LEFT,), REBASE))


def approve(
    record: Record, own: OwnFindings, earlier: Sequence[Record] = (), ledger: LedgerView = LEDGER
) -> ApprovedRecord:
    """What the law says of it here."""
    return approve_record(record, earlier, ledger, own, MEMBERS, CHAIN_ID, PARAMS)


def refusal(action: Callable[[], object]) -> Reason:
    """The reason for which an action is refused."""
    with pytest.raises(Refused) as caught:
        action()
    return caught.value.reason


def test_quorum_of_members_that_found_the_same_signs_a_plan() -> None:
    plans = [(DEFICIT, ()), (RESUME, (DEFICIT,))]
    for record, earlier in plans:
        signed = [FEDERATION.signer(index).sign_record(approve(record, ROBBED, earlier)) for index in (0, 2, 3)]
        assert [one.signers for one in signed] == [(0,), (2,), (3,)]
        verify_record(signed[0].joined(signed[1]).joined(signed[2]), MEMBERS, CHAIN_ID)
    verify_record(_signed_by_three(approve(MOVE, REORGANISED)), MEMBERS, CHAIN_ID)


def _signed_by_three(approved: ApprovedRecord) -> Any:
    one, two, three = (FEDERATION.signer(index).sign_record(approved) for index in (0, 1, 2))
    return one.joined(two).joined(three)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chain_id": bytes(32)}, RecordReason.WRONG_CHAIN),
        ({"epoch": 1}, RecordReason.WRONG_EPOCH),
        ({"serial": 2}, RecordReason.WRONG_SERIAL),
        ({"expires_at_anchor": HEIGHT - 1}, RecordReason.EXPIRED),
        ({"expires_at_anchor": HEIGHT + MAX_RECORD_LIFE_ANCHORS + 1}, RecordLaw.LASTS_TOO_LONG),
    ],
)
def test_record_for_elsewhere_or_another_time_is_not_signed(changes: dict[str, Any], reason: Reason) -> None:
    assert refusal(lambda: approve(replace(DEFICIT, **changes), ROBBED)) is reason


def test_resume_after_a_loss_that_this_member_would_not_sign_is_not_signed() -> None:
    """Whoever asks need not have the earlier records signed: what a resume stands on, its signer must see."""
    fresh = replace(ROBBED, lost=frozenset())
    assert refusal(lambda: approve(RESUME, fresh, (DEFICIT,))) is RecordLaw.COIN_NOT_LOST


def test_record_in_a_plan_with_a_gap_or_after_others_is_not_signed() -> None:
    assert refusal(lambda: approve(RESUME, ROBBED)) is RecordReason.WRONG_SERIAL
    later = replace(RESUME, serial=3)
    assert refusal(lambda: approve(later, ROBBED, (DEFICIT,))) is RecordReason.WRONG_SERIAL
    assert refusal(lambda: approve(RESUME, ROBBED, (replace(DEFICIT, serial=2),))) is RecordReason.WRONG_SERIAL
    elsewhere = replace(DEFICIT, chain_id=bytes(32))
    assert refusal(lambda: approve(RESUME, ROBBED, (elsewhere,))) is RecordReason.WRONG_CHAIN


def test_rebase_that_expires_below_its_own_anchor_is_not_signed() -> None:
    short = replace(MOVE, expires_at_anchor=NEW_ANCHOR.height - 1)
    assert refusal(lambda: approve(short, REORGANISED)) is RecordReason.EXPIRED
    approve(replace(MOVE, expires_at_anchor=NEW_ANCHOR.height), REORGANISED)


# Deficits


def test_coin_that_is_no_coin_or_of_another_value_is_not_signed_away() -> None:
    unknown = replace(DEFICIT, content=Deficit.of((LostCoin(outpoint(9), 1),)))
    assert refusal(lambda: approve(unknown, ROBBED)) is RecordReason.NOT_A_COIN
    more = replace(DEFICIT, content=Deficit.of((LostCoin(FREE, 400_001),)))
    assert refusal(lambda: approve(more, ROBBED)) is RecordReason.WRONG_VALUE
    again = replace(DEFICIT, serial=2)
    assert refusal(lambda: approve(again, ROBBED, (DEFICIT,))) is RecordReason.NOT_A_COIN


@pytest.mark.parametrize("own", [WELL, replace(WELL, missing=frozenset({FREE})), replace(WELL, findings=(GONE,))])
def test_coin_that_is_there_or_may_come_back_is_not_signed_away(own: OwnFindings) -> None:
    assert refusal(lambda: approve(DEFICIT, own)) is RecordLaw.COIN_NOT_LOST
    two = replace(DEFICIT, content=Deficit.of((*DEFICIT.content.lost, LostCoin(LOCKED, 1_000_000))))  # type: ignore[union-attr]
    assert refusal(lambda: approve(two, ROBBED)) is RecordLaw.COIN_NOT_LOST


def test_coin_that_a_recorded_version_spends_is_not_signed_away() -> None:
    """Its payees are paid by it: closed as dead, the lineage would pay them twice."""
    locked = replace(DEFICIT, content=Deficit.of((LostCoin(LOCKED, 1_000_000),)))
    own = replace(WELL, lost=frozenset({LOCKED, FREE}))
    approve(locked, own)
    seen = replace(own, versions_seen=frozenset({VERSION}))
    assert refusal(lambda: approve(locked, seen)) is RecordLaw.VERSION_LIVES
    approve(DEFICIT, seen)  # which the version does not spend


# Resumes


@pytest.mark.parametrize(
    "finding",
    [
        Finding.coin_gone(LOCKED),
        Finding.anchor_left(anchor(HEIGHT - 1)),
        Finding.second_version(Txid(bytes(32))),
        Finding.block_refused(BlockHash(bytes(32))),
    ],
)
def test_resume_that_leaves_out_what_this_member_found_is_not_signed(finding: Finding) -> None:
    own = replace(ROBBED, findings=(GONE, finding))
    assert refusal(lambda: approve(RESUME, own, (DEFICIT,))) is RecordLaw.FINDING_NOT_COVERED


def test_refused_block_is_signed_away_by_no_record() -> None:
    finding = Finding.block_refused(BlockHash(bytes(32)))
    named = replace(RESUME, serial=1, content=Resume.of((finding,)))
    assert refusal(lambda: approve(named, replace(WELL, findings=(finding,)))) is RecordLaw.FINDING_NOT_COVERED


def test_booked_coin_need_not_be_named_by_the_resume() -> None:
    other = replace(RESUME, content=Resume.of((Finding.second_version(Txid(bytes(32))),)))
    approve(other, ROBBED, (DEFICIT,))


def test_resume_while_a_coin_is_missing_and_not_booked_is_not_signed() -> None:
    first = replace(RESUME, serial=1)
    assert refusal(lambda: approve(first, ROBBED)) is RecordLaw.COIN_MISSING
    unnoticed = replace(WELL, missing=frozenset({LOCKED}))
    assert refusal(lambda: approve(first, unnoticed)) is RecordLaw.COIN_MISSING
    approve(first, replace(WELL, missing=frozenset({OutPoint(Txid(bytes(32)), 0)})))  # no coin of the ledger


def test_member_that_found_nothing_helps_those_who_did() -> None:
    first = replace(RESUME, serial=1)
    assert approve(first, WELL).record == first


# Rebases


def test_resume_that_stays_on_a_branch_that_l1_left_is_not_signed() -> None:
    stay = replace(MOVE, content=Resume.of((LEFT,)))
    assert refusal(lambda: approve(stay, REORGANISED)) is RecordLaw.REBASE_MISSING
    approve(stay, replace(WELL, findings=(LEFT,)))  # L1 came back to it


def test_rebase_away_from_an_anchor_that_l1_has_is_not_signed() -> None:
    assert refusal(lambda: approve(MOVE, replace(WELL, new_anchor_depth=9))) is RecordLaw.ANCHOR_NOT_LEFT


def with_rebase(**changes: Any) -> Record:
    """The record that moves the anchor, with other things in its rebase."""
    return replace(MOVE, content=Resume.of((LEFT,), replace(REBASE, **changes)))


@pytest.mark.parametrize(
    "record",
    [
        with_rebase(fork=Anchor(FORK.height, BlockHash(bytes(32)))),
        with_rebase(fork=anchor(FORK.height + 1), abandoned=ABANDONED[1:]),
        with_rebase(fork=Anchor(FORK.height - 1, FORK.hash)),
        with_rebase(abandoned=ABANDONED[:-1]),
        with_rebase(abandoned=(replace(ABANDONED[0], n_tx=9), *ABANDONED[1:])),
        with_rebase(abandoned=(replace(ABANDONED[0], hash=BlockHash(bytes(32))), *ABANDONED[1:])),
        with_rebase(abandoned=(*ABANDONED[:-1], replace(ABANDONED[-1], hash=BlockHash(bytes(32))))),
    ],
)
def test_rebase_that_tells_the_abandoned_branch_otherwise_is_not_signed(record: Record) -> None:
    """Of an abandoned branch nobody can ask a Bitcoin node later: what the record says of it is believed for ever."""
    own = replace(REORGANISED, findings=())
    assert refusal(lambda: approve(record, own)) is RecordLaw.BRANCH_DIFFERS


def test_rebase_to_a_block_that_is_not_deep_on_the_active_chain_is_not_signed() -> None:
    for depth, reason in (
        (0, RecordLaw.NEW_ANCHOR_ELSEWHERE),
        (1, RecordLaw.NEW_ANCHOR_SHALLOW),
        (PARAMS.confirmations - 1, RecordLaw.NEW_ANCHOR_SHALLOW),
    ):
        assert refusal(partial(approve, MOVE, replace(REORGANISED, new_anchor_depth=depth))) is reason


def test_rebase_that_no_block_could_follow_is_not_signed() -> None:
    far = Anchor(HEIGHT + PARAMS.max_anchor_step + 1, NEW_ANCHOR.hash)
    record = replace(with_rebase(new_anchor=far), expires_at_anchor=far.height)
    assert refusal(lambda: approve(record, REORGANISED)) is LedgerReason.ANCHOR_STEP


# The signer


def test_only_an_approved_record_is_signed() -> None:
    signer = FEDERATION.signer(1)
    for value in (DEFICIT, SimpleNamespace(record=DEFICIT), None):
        assert refusal(partial(signer.sign_record, cast(ApprovedRecord, value))) is SignerReason.NOT_APPROVED
    with pytest.raises(TypeError):
        ApprovedRecord(DEFICIT, object())


def test_signer_signs_no_record_of_another_chain_or_epoch() -> None:
    approved = approve(DEFICIT, ROBBED)
    secrets = FEDERATION.secrets[1]
    elsewhere = Signer(secrets, MEMBERS, 1, sha256(b"another chain"), lambda size: AUX[:size])
    assert refusal(lambda: elsewhere.sign_record(approved)) is SignerReason.WRONG_CHAIN
    later = Signer(secrets, replace(MEMBERS, epoch=1), 1, CHAIN_ID, lambda size: AUX[:size])
    assert refusal(lambda: later.sign_record(approved)) is SignerReason.WRONG_EPOCH
