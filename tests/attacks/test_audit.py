"""Attacks on proofs of solvency: coins hidden or lent for the occasion, and statements forged, padded, mixed or old."""

from dataclasses import replace

import pytest
import trio

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.identifiers import BlockHash
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.errors import Reason
from federation.certificate import VoteKind, vote_digest
from federation.endorsement import EndorsementReason
from federation.errors import Refused
from federation.statement import (
    SignedStatement,
    StatementReason,
    check_age,
    verify_statement,
)
from federation.statement_law import StatementLaw
from pegnode.audit.reserve import RowCause
from tests.support.chain import vote_secrets
from tests.support.members import MemoryFederation, memory_federation, now_ms
from tests.support.mini_wallet import MiniWallet
from tests.support.statements import GENESIS, stated, statement

ALL = (0, 1, 2, 3)
ALICE, THIEF = MiniWallet("alice"), MiniWallet("a thief")
RULES = GENESIS.rules()
DEPOSIT_SATS = 10_000_000


def reason(signed: SignedStatement, at_ms: int | None = None) -> Reason:
    """Why an outsider does not believe a statement."""
    made_ms = signed.statement.time_ms
    with pytest.raises(Refused) as caught:
        verify_statement(signed, RULES.membership, RULES.chain_id, made_ms if at_ms is None else at_ms)
    return caught.value.reason


def test_statement_forged_by_less_than_a_quorum_is_refused() -> None:
    rich = replace(statement(), terms=replace(statement().terms, reserves_sats=10**9, fund_sats=10**9 - 970))
    two = stated(0, 1, statement=rich)
    assert reason(two) is EndorsementReason.TOO_FEW
    padded = (*two.signatures, two.signatures[1])
    assert reason(SignedStatement(rich, padded)) is EndorsementReason.REPEATED_SIGNER
    borrowed = (*two.signatures, stated(2).signatures[0])  # which member 2 gave for the true statement
    assert reason(SignedStatement(rich, borrowed)) is EndorsementReason.BAD_SIGNATURE
    renamed = (*two.signatures, (2, two.signatures[0][1]))
    assert reason(SignedStatement(rich, renamed)) is EndorsementReason.BAD_SIGNATURE
    outsider = (*two.signatures, (9, two.signatures[0][1]))
    assert reason(SignedStatement(rich, outsider)) is EndorsementReason.UNKNOWN_MEMBER


def test_votes_make_no_statement_and_statements_no_votes() -> None:
    """A member signs whatever hash wins a vote; no vote's signature must ever fit a statement."""
    honest = statement()
    digest = vote_digest(RULES.chain_id, 0, VoteKind.FINALIZE, 7, BlockHash(honest.digest32))
    signatures = tuple((member, schnorr_sign(vote_secrets()[member], digest, bytes(32))) for member in (0, 1, 2))
    assert reason(SignedStatement(honest, signatures)) is EndorsementReason.BAD_SIGNATURE
    for kind in VoteKind:
        assert honest.digest32 != vote_digest(RULES.chain_id, 0, kind, 7, honest.terms.block_hash)


def test_old_statement_passes_for_no_new_one() -> None:
    """After the reserve is gone, the last good statement is still genuine: its age is what gives it away."""
    old = stated(0, 1, 2)
    day_ms = 86_400_000
    verify_statement(old, RULES.membership, RULES.chain_id, old.statement.time_ms + 30 * day_ms)
    with pytest.raises(Refused) as caught:
        check_age(old.statement, old.statement.time_ms + 30 * day_ms, day_ms)
    assert caught.value.reason is StatementReason.STALE
    redated = SignedStatement(replace(old.statement, time_ms=old.statement.time_ms + 30 * day_ms), old.signatures)
    assert reason(redated) is EndorsementReason.BAD_SIGNATURE
    today_ms = old.statement.time_ms
    ahead = stated(0, 1, 2, statement=statement(time_ms=today_ms + 30 * day_ms))
    assert reason(ahead, today_ms) is StatementReason.TIME_AHEAD


async def stolen(federation: MemoryFederation) -> Transaction:
    """A transaction that takes the reserve's one coin, which no member signed; every member has seen its block."""
    [(coin, _)] = federation.members[0].store.ledger.coins.items()
    theft = Transaction(2, (TxIn(coin),), (TxOut(DEPOSIT_SATS, THIEF.script()),))
    federation.l1.chain.mine(theft)
    tip = federation.l1.chain.anchor(federation.l1.chain.height)
    await federation.until(lambda: all(member.core.watcher.tip == tip for member in federation.members.values()))
    return theft


async def test_coin_that_is_gone_is_hidden_by_no_other_payment_of_its_value(autojump_clock: trio.abc.Clock) -> None:
    """A thief who puts the same amount back for the audit's time, under the same script, explains nothing."""
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        theft = await stolen(federation)
        lent = TxOut(DEPOSIT_SATS, federation.deposit_script(ALICE.script()))
        federation.l1.chain.mine(Transaction(2, (TxIn(theft.outpoint(0)),), (lent,)))
        audit = await federation.members[0].live.audit(scan=True)
        assert sorted(row.cause for row in audit.rows) == [RowCause.GONE, RowCause.TOO_YOUNG]
        assert len(audit.findings) == 1


async def test_members_of_a_quorum_less_one_get_no_honest_signature(autojump_clock: trio.abc.Clock) -> None:
    """Two of four draw up what they like; the honest ones state what they found, or nothing."""
    async with memory_federation(*ALL) as federation:
        await federation.fund(ALICE)
        rules = federation.rules
        true = (await federation.members[2].live.sign_statement(None)).statement
        federation.members[2].reserve_watch._is_current = lambda: False  # it would be suspicious before it is asked
        await stolen(federation)
        rich = replace(true, terms=replace(true.terms, reserves_sats=10**9, supply_sats=10**9 - true.terms.fund_sats))
        for claimed, law in ((true, StatementLaw.FINDINGS), (rich, StatementLaw.TERMS_DIFFER)):
            digest = claimed.digest32
            bought = tuple((member, schnorr_sign(vote_secrets()[member], digest, bytes(32))) for member in (0, 1))
            with pytest.raises(Refused) as caught:
                await federation.members[2].live.sign_statement(claimed)
            assert caught.value.reason is law
            with pytest.raises(Refused) as caught:
                verify_statement(SignedStatement(claimed, bought), rules.membership, rules.chain_id, now_ms())
            assert caught.value.reason is EndorsementReason.TOO_FEW
