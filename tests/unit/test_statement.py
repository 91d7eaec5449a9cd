"""Statements of solvency: one encoding, one tag, a quorum of distinct members, and a law for those who sign."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.hashes import sha256, tagged_hash
from bridge.bitcoin.identifiers import BlockHash
from bridge.codec import Writer
from bridge.errors import MalformedError, Reason
from bridge.state import Anchor
from federation.endorsement import EndorsementReason
from federation.errors import Refused
from federation.signer import Signer, SignerReason
from federation.statement import (
    CLOCK_TOLERANCE_MS,
    SignedStatement,
    SolvencyStatement,
    StatementReason,
    check_age,
    verify_statement,
)
from federation.statement_law import (
    MAX_RECOUNT_MS,
    MAX_STATEMENT_AGE_MS,
    ApprovedStatement,
    OwnAudit,
    StatementLaw,
    approve_statement,
)
from tests.support.signers import AUX, CHAIN_ID, federation
from tests.support.statements import block_terms

FEDERATION = federation(4)
MEMBERS = FEDERATION.membership
NOW_MS = 1_800_000_000_000
L1_BLOCK = BlockHash(sha256(b"an L1 block"))
TERMS = block_terms(CHAIN_ID)
STATEMENT = SolvencyStatement(TERMS, Anchor(106, L1_BLOCK), NOW_MS)
OWN = OwnAudit(
    halted=False,
    terms=TERMS,
    made_ms=NOW_MS - 5_000,
    next_made_ms=None,
    audited_height=7,
    findings=(),
    l1_height=106,
    l1_block=L1_BLOCK,
    now_ms=NOW_MS,
)
Change = Callable[[SolvencyStatement], SolvencyStatement]


def with_terms(**changes: Any) -> SolvencyStatement:
    """The statement with other terms."""
    return replace(STATEMENT, terms=replace(TERMS, **changes))


def sign(*members: int, statement: SolvencyStatement = STATEMENT) -> SignedStatement:
    """What these members sign without asking any law."""
    digest = statement.digest32
    return SignedStatement(
        statement, tuple((member, schnorr_sign(FEDERATION.secrets[member].vote, digest, AUX)) for member in members)
    )


def refusal(action: Callable[[], object]) -> Reason:
    """The reason for which an action is refused."""
    with pytest.raises(Refused) as caught:
        action()
    return caught.value.reason


def verify(signed: SignedStatement, now_ms: int = NOW_MS) -> None:
    """As an outsider does who knows the genesis."""
    verify_statement(signed, MEMBERS, CHAIN_ID, now_ms)


def test_statement_of_a_quorum_is_verified() -> None:
    verify(sign(0, 1, 2))
    verify(sign(1, 2, 3))
    verify(sign(0, 1, 2, 3))


def test_encoding_is_of_the_documented_size_and_read_back() -> None:
    assert (len(TERMS.encode()), len(STATEMENT.encode())) == (184, 228)
    signed = sign(0, 3)
    assert SignedStatement.decode(signed.encode()) == signed
    with pytest.raises(MalformedError):
        SignedStatement.decode(signed.encode() + b"\0")
    with pytest.raises(MalformedError):
        SignedStatement.decode(signed.encode()[:-1])


@pytest.mark.parametrize("byte", range(0, 228, 9))
def test_statement_that_was_altered_anywhere_is_refused(byte: int) -> None:
    data = bytearray(sign(0, 1, 2).encode())
    data[byte] ^= 1
    assert refusal(lambda: verify(SignedStatement.decode(bytes(data)))) in (
        EndorsementReason.BAD_SIGNATURE,
        StatementReason.WRONG_CHAIN,
    )


def test_statement_with_too_few_signers_is_refused() -> None:
    assert refusal(lambda: verify(sign(0, 1))) is EndorsementReason.TOO_FEW
    assert refusal(lambda: verify(sign())) is EndorsementReason.TOO_FEW


def test_signer_that_stands_twice_is_refused() -> None:
    assert refusal(lambda: verify(sign(0, 1, 1))) is EndorsementReason.REPEATED_SIGNER


def test_signers_out_of_order_are_refused() -> None:
    assert refusal(lambda: verify(sign(1, 0, 2))) is EndorsementReason.SIGNERS_UNSORTED


def test_signer_that_is_no_member_is_refused() -> None:
    signatures = (*sign(0, 1).signatures, (4, sign(2).signatures[0][1]))
    assert refusal(lambda: verify(SignedStatement(STATEMENT, signatures))) is EndorsementReason.UNKNOWN_MEMBER


def test_signature_in_anothers_name_is_refused() -> None:
    signatures = (*sign(0, 1).signatures, (2, sign(3).signatures[0][1]))
    assert refusal(lambda: verify(SignedStatement(STATEMENT, signatures))) is EndorsementReason.BAD_SIGNATURE


def test_signature_under_another_tag_is_refused() -> None:
    for tag in ("pegnode/vote/finalize", "pegnode/vote/notarize", "pegnode/block", "pegnode/member-card"):
        digest = tagged_hash(tag, STATEMENT.encode())
        signatures = tuple((index, schnorr_sign(FEDERATION.secrets[index].vote, digest, AUX)) for index in range(3))
        assert refusal(partial(verify, SignedStatement(STATEMENT, signatures))) is EndorsementReason.BAD_SIGNATURE


def test_signature_with_the_custody_key_is_refused() -> None:
    digest = STATEMENT.digest32
    signatures = tuple((index, schnorr_sign(FEDERATION.secrets[index].custody, digest, AUX)) for index in range(3))
    assert refusal(lambda: verify(SignedStatement(STATEMENT, signatures))) is EndorsementReason.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        (with_terms(chain_id=sha256(b"another chain")), StatementReason.WRONG_CHAIN),
        (with_terms(epoch=1), StatementReason.WRONG_EPOCH),
        (with_terms(reserves_sats=999), StatementReason.DOES_NOT_HOLD),
        (replace(STATEMENT, l1_tip=Anchor(99, L1_BLOCK)), StatementReason.L1_BELOW_ANCHOR),
        (replace(STATEMENT, time_ms=NOW_MS + CLOCK_TOLERANCE_MS + 1), StatementReason.TIME_AHEAD),
    ],
)
def test_statement_of_a_quorum_is_refused_all_the_same(statement: SolvencyStatement, reason: StatementReason) -> None:
    assert refusal(lambda: verify(sign(0, 1, 2, 3, statement=statement))) is reason
    assert refusal(lambda: approve_statement(statement, OWN, MEMBERS, CHAIN_ID)) is reason


def test_statement_is_refused_above_the_age_that_is_accepted() -> None:
    check_age(STATEMENT, NOW_MS + 1_000, 1_000)
    assert refusal(lambda: check_age(STATEMENT, NOW_MS + 1_001, 1_000)) is StatementReason.STALE


def test_signatures_of_one_statement_are_joined_and_of_two_refused() -> None:
    joined = sign(2, 3).joined(sign(0)).joined(sign(0, 2))
    assert joined.signers == (0, 2, 3)
    verify(joined)
    other = sign(1, statement=with_terms(fund_sats=31, supply_sats=899))
    with pytest.raises(Refused, match="supply_sats, fund_sats") as caught:
        joined.joined(other)
    assert caught.value.reason is EndorsementReason.DIFFERENT
    with pytest.raises(Refused, match="l1_tip, time_ms"):
        joined.joined(sign(1, statement=SolvencyStatement(TERMS, TERMS.anchor, 0)))


# The law of those who sign


def test_member_signs_what_its_own_audit_says() -> None:
    signed = [FEDERATION.signer(index).sign_statement(approved()) for index in (0, 2, 3)]
    assert [one.signers for one in signed] == [(0,), (2,), (3,)]
    verify(signed[0].joined(signed[1]).joined(signed[2]))


def approved() -> ApprovedStatement:
    return approve_statement(STATEMENT, OWN, MEMBERS, CHAIN_ID)


def test_recount_of_a_later_block_vouches_for_an_earlier_one() -> None:
    later = replace(OWN, audited_height=9, l1_height=110, next_made_ms=NOW_MS - MAX_RECOUNT_MS)
    assert approve_statement(STATEMENT, later, MEMBERS, CHAIN_ID).statement == STATEMENT


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"halted": True}, StatementLaw.HALTED),
        ({"terms": None}, StatementLaw.BLOCK_UNKNOWN),
        ({"terms": replace(TERMS, block_hash=L1_BLOCK)}, StatementLaw.OTHER_BLOCK),
        ({"terms": replace(TERMS, reserves_sats=999, fund_sats=29)}, StatementLaw.TERMS_DIFFER),
        ({"terms": replace(TERMS, supply_sats=899, unsettled_sats=76)}, StatementLaw.TERMS_DIFFER),
        ({"terms": replace(TERMS, ledger_root=bytes(32))}, StatementLaw.TERMS_DIFFER),
        ({"terms": replace(TERMS, anchor=Anchor(99, TERMS.anchor.hash))}, StatementLaw.TERMS_DIFFER),
        ({"made_ms": None}, StatementLaw.TIME_DIFFERS),
        ({"made_ms": NOW_MS + CLOCK_TOLERANCE_MS + 1}, StatementLaw.TIME_DIFFERS),
        ({"next_made_ms": NOW_MS - MAX_RECOUNT_MS - 1}, StatementLaw.TIME_DIFFERS),
        ({"findings": ("missing: a coin",)}, StatementLaw.FINDINGS),
        ({"audited_height": 6}, StatementLaw.NOT_AUDITED),
        ({"l1_height": 105}, StatementLaw.L1_NOT_SEEN),
        ({"l1_block": None}, StatementLaw.L1_OTHER_BLOCK),
        ({"l1_block": BlockHash(sha256(b"of a branch"))}, StatementLaw.L1_OTHER_BLOCK),
        ({"now_ms": NOW_MS + MAX_STATEMENT_AGE_MS + 1}, StatementReason.STALE),
    ],
)
def test_member_refuses_to_sign_what_it_did_not_find(changes: dict[str, Any], reason: Reason) -> None:
    assert refusal(lambda: approve_statement(STATEMENT, replace(OWN, **changes), MEMBERS, CHAIN_ID)) is reason


def test_only_an_approved_statement_is_signed() -> None:
    signer = FEDERATION.signer(1)
    for value in (STATEMENT, SimpleNamespace(statement=STATEMENT), None):
        assert refusal(partial(signer.sign_statement, cast(ApprovedStatement, value))) is SignerReason.NOT_APPROVED
    with pytest.raises(TypeError):
        ApprovedStatement(STATEMENT, object())


def test_signer_states_nothing_of_another_chain_or_epoch() -> None:
    secrets = FEDERATION.secrets[1]
    elsewhere = Signer(secrets, MEMBERS, 1, sha256(b"another chain"), lambda size: AUX[:size])
    assert refusal(lambda: elsewhere.sign_statement(approved())) is SignerReason.WRONG_CHAIN
    later = Signer(secrets, replace(MEMBERS, epoch=1), 1, CHAIN_ID, lambda size: AUX[:size])
    assert refusal(lambda: later.sign_statement(approved())) is SignerReason.WRONG_EPOCH


def test_digest_is_the_documented_one() -> None:
    terms = Writer().fixed(CHAIN_ID, 32).u32(0).u64(7).fixed(TERMS.block_hash, 32)
    terms.u32(100).fixed(TERMS.anchor.hash, 32).fixed(TERMS.ledger_root, 32)
    terms.u64(1_000).u64(5).u64(900).u64(75).u64(30)
    data = terms.u32(106).fixed(L1_BLOCK, 32).u64(NOW_MS).finish()
    assert STATEMENT.digest32 == tagged_hash("pegnode/solvency-statement", data)
