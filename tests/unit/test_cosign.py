"""Collecting L1 signatures: any quorum combines to a valid transaction, and a wrong share names its sender."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.bitcoin.curve import schnorr_sign, schnorr_verify
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.script import ScriptReason
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.taproot import SigHash, key_path_sighash, script_path_sighash
from bridge.bitcoin.transaction import Transaction
from bridge.errors import MalformedError, Rejected
from federation.approval import ApprovedBatch, approve_batch
from federation.cosign import MAX_SHARE_SIGNATURES, CosignReason, CosignRefused, CosignSession, CosignShare
from federation.errors import FaultySigner
from federation.membership import Membership
from tests.support.peg import PARAMS
from tests.support.signers import Federation, federation, honest_facts, ledger_with_payout


def _approved(members: Federation) -> ApprovedBatch:
    ledger, version = ledger_with_payout(members)
    facts = honest_facts(ledger, members.custody)
    return approve_batch(ledger, version.txid, facts, members.custody, PARAMS)


FEDERATION = federation(4)
APPROVED = _approved(FEDERATION)
SHARES = tuple(FEDERATION.signer(index).cosign(APPROVED) for index in range(4))


@pytest.fixture
def session() -> CosignSession:
    """An empty session of the payout."""
    return CosignSession(APPROVED.plan, FEDERATION.membership)


def _resigned(index: int, digest: bytes) -> bytes:
    """A valid signature of member `index`, of something else."""
    return schnorr_sign(FEDERATION.secrets[index].custody, digest, bytes(32))


def _with_signature(share: CosignShare, position: int, signature: bytes) -> CosignShare:
    signatures = list(share.signatures)
    signatures[position] = signature
    return replace(share, signatures=tuple(signatures))


def _assert_faulty(session: CosignSession, share: CosignShare, sender: int, reason: CosignReason) -> None:
    """`share` is refused, its sender named, and the session is as before."""
    before = session.members, session.is_complete()
    with pytest.raises(FaultySigner) as caught:
        session.add_share(share, sender)
    assert (caught.value.member, caught.value.reason) == (sender, reason)
    assert (session.members, session.is_complete()) == before


@pytest.mark.parametrize("quorum", list(combinations(range(4), 3)), ids=str)
def test_any_quorum_in_any_order_combines(session: CosignSession, quorum: tuple[int, ...]) -> None:
    for index in reversed(quorum):
        assert not session.is_complete()
        assert session.add_share(SHARES[index], index)
    assert session.is_complete()
    signed = session.combine()
    assert signed.txid == APPROVED.txid
    verify_scripts(signed, APPROVED.plan.prevouts)


def test_eleven_of_fifteen_combine() -> None:
    members = federation(15)
    approved = _approved(members)
    session = CosignSession(approved.plan, members.membership)
    for index in range(4, 15):
        session.add_share(members.signer(index).cosign(approved), index)
    signed = session.combine()
    assert members.membership.quorum == 11
    assert signed.vsize_vbytes == approved.plan.signed_vsize_vbytes


def test_combining_takes_exactly_a_quorum_lowest_members_first(session: CosignSession) -> None:
    for index in (3, 2, 1, 0):
        session.add_share(SHARES[index], index)
    signed = session.combine()
    for position, (txin, planned) in enumerate(zip(signed.inputs, APPROVED.plan.inputs, strict=True)):
        # The stack's top belongs to the first key.
        stack = txin.witness[:-2][::-1]
        assert stack == (*(SHARES[index].signatures[position] for index in range(3)), b"")
        keys = FEDERATION.policy.member_keys
        assert all(schnorr_verify(key, planned.digest32, one) for key, one in zip(keys, stack[:3], strict=False))


def test_combining_twice_gives_the_same_transaction(session: CosignSession) -> None:
    for index in range(3):
        session.add_share(SHARES[index], index)
    first = session.combine()
    session.add_share(SHARES[3], 3)
    assert session.combine().serialize() == first.serialize()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_shares_do_not_combine(session: CosignSession, count: int) -> None:
    for index in range(count):
        session.add_share(SHARES[index], index)
    with pytest.raises(CosignRefused) as caught:
        session.combine()
    assert caught.value.reason is CosignReason.INCOMPLETE


def test_second_share_of_a_member_changes_nothing(session: CosignSession) -> None:
    assert session.add_share(SHARES[0], 0)
    assert not session.add_share(SHARES[0], 0)
    assert session.members == (0,)


def test_share_of_another_transaction_is_the_callers_mistake(session: CosignSession) -> None:
    with pytest.raises(CosignRefused) as caught:
        session.add_share(replace(SHARES[0], txid=Txid(sha256(b"another"))), 0)
    assert caught.value.reason is CosignReason.WRONG_TRANSACTION
    assert session.members == ()


@pytest.mark.parametrize("sender", [-1, 4, 0xFFFF])
def test_sender_outside_the_membership_is_refused(session: CosignSession, sender: int) -> None:
    _assert_faulty(session, replace(SHARES[0], member=sender), sender, CosignReason.UNKNOWN_MEMBER)


def test_share_in_anothers_name_blames_the_sender(session: CosignSession) -> None:
    _assert_faulty(session, SHARES[1], 2, CosignReason.NOT_OWN_SHARE)


def test_share_signed_by_another_key_is_refused(session: CosignSession) -> None:
    _assert_faulty(session, replace(SHARES[1], member=2), 2, CosignReason.BAD_SIGNATURE)


@pytest.mark.parametrize(
    "signatures", [(), SHARES[0].signatures[:-1], (*SHARES[0].signatures, SHARES[0].signatures[0])], ids=len
)
def test_share_with_another_number_of_signatures_is_refused(
    session: CosignSession, signatures: tuple[bytes, ...]
) -> None:
    _assert_faulty(session, replace(SHARES[0], signatures=signatures), 0, CosignReason.WRONG_COUNT)


@pytest.mark.parametrize("position", range(len(APPROVED.plan.inputs)))
def test_one_wrong_signature_refuses_the_whole_share(session: CosignSession, position: int) -> None:
    honest = SHARES[0].signatures[position]
    for wrong in (bytes(64), honest[:63], honest + b"\x01", honest[32:] + honest[:32]):
        _assert_faulty(session, _with_signature(SHARES[0], position, wrong), 0, CosignReason.BAD_SIGNATURE)


def test_signatures_of_other_inputs_are_refused(session: CosignSession) -> None:
    turned = replace(SHARES[0], signatures=SHARES[0].signatures[::-1])
    _assert_faulty(session, turned, 0, CosignReason.BAD_SIGNATURE)


def test_signatures_over_another_hash_are_refused(session: CosignSession) -> None:
    plan = APPROVED.plan
    reserve, transaction, prevouts = plan.inputs[0].reserve, plan.transaction, plan.prevouts
    for digest in (
        script_path_sighash(transaction, 0, prevouts, reserve.recovery_leaf_hash),
        script_path_sighash(transaction, 0, prevouts, reserve.quorum_leaf_hash, SigHash.ALL),
        script_path_sighash(transaction, 0, prevouts, reserve.quorum_leaf_hash, SigHash.NONE_ANYONE_CAN_PAY),
        key_path_sighash(transaction, 0, prevouts),
    ):
        share = _with_signature(SHARES[0], 0, _resigned(0, digest))
        _assert_faulty(session, share, 0, CosignReason.BAD_SIGNATURE)


def test_faulty_share_does_not_disturb_the_session(session: CosignSession) -> None:
    session.add_share(SHARES[0], 0)
    _assert_faulty(session, _with_signature(SHARES[1], 0, bytes(64)), 1, CosignReason.BAD_SIGNATURE)
    session.add_share(SHARES[2], 2)
    session.add_share(SHARES[3], 3)
    verify_scripts(session.combine(), APPROVED.plan.prevouts)


def test_faulty_member_may_still_send_a_right_share(session: CosignSession) -> None:
    _assert_faulty(session, _with_signature(SHARES[0], 0, bytes(64)), 0, CosignReason.BAD_SIGNATURE)
    assert session.add_share(SHARES[0], 0)


def test_member_without_a_key_to_the_coins_is_refused() -> None:
    members = FEDERATION.membership.members
    newcomer = federation(5).membership.members[4]
    membership = Membership(0, (*members[:3], replace(newcomer, index=3)))
    session = CosignSession(APPROVED.plan, membership)
    _assert_faulty(session, SHARES[3], 3, CosignReason.NOT_A_KEYHOLDER)


def test_engine_has_the_last_word(session: CosignSession) -> None:
    plan = APPROVED.plan
    richer = replace(plan.inputs[0], prevout=replace(plan.inputs[0].prevout, value_sats=1))
    session = CosignSession(replace(plan, inputs=(richer, *plan.inputs[1:])), FEDERATION.membership)
    for index in range(3):
        session.add_share(SHARES[index], index)
    with pytest.raises(Rejected) as caught:
        session.combine()
    assert caught.value.reason is ScriptReason.SCRIPT_FAILED


_SHARES = st.builds(
    CosignShare,
    txid=st.binary(min_size=32, max_size=32).map(Txid),
    member=st.integers(min_value=0, max_value=0xFFFF),
    signatures=st.lists(st.binary(min_size=64, max_size=64), max_size=50).map(tuple),
)


@given(share=_SHARES)
def test_share_round_trips(share: CosignShare) -> None:
    assert CosignShare.decode(share.encode()) == share
    assert len(share.encode()) == 32 + 2 + 4 + 64 * len(share.signatures)


@given(share=_SHARES, cut=st.integers(min_value=1, max_value=40), tail=st.binary(min_size=1, max_size=70))
def test_share_of_another_length_is_malformed(share: CosignShare, cut: int, tail: bytes) -> None:
    data = share.encode()
    for damaged in (data[: max(0, len(data) - cut)], data + tail):
        with pytest.raises(MalformedError):
            CosignShare.decode(damaged)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_share_or_malformed(data: bytes) -> None:
    try:
        share = CosignShare.decode(data)
    except MalformedError:
        return
    assert share.encode() == data


def test_share_over_the_limit_is_malformed() -> None:
    share = replace(SHARES[0], signatures=(bytes(64),) * MAX_SHARE_SIGNATURES)
    assert CosignShare.decode(share.encode()) == share
    with pytest.raises(MalformedError):
        CosignShare.decode(replace(share, signatures=(bytes(64),) * (MAX_SHARE_SIGNATURES + 1)).encode())


def test_share_of_a_short_signature_does_not_encode() -> None:
    with pytest.raises(MalformedError):
        replace(SHARES[0], signatures=(bytes(63),)).encode()


def _combined(session: CosignSession) -> Transaction:
    for index in range(3):
        session.add_share(SHARES[index], index)
    return session.combine()


def test_what_another_session_combined_is_accepted(session: CosignSession) -> None:
    CosignSession(APPROVED.plan, FEDERATION.membership).check_signed(_combined(session))


def test_signed_transaction_of_another_plan_is_refused(session: CosignSession) -> None:
    signed = replace(_combined(session), locktime=1)
    with pytest.raises(CosignRefused) as caught:
        session.check_signed(signed)
    assert caught.value.reason is CosignReason.WRONG_TRANSACTION


def test_signature_with_a_hash_type_byte_is_refused_though_the_engine_takes_it(session: CosignSession) -> None:
    signed, plan = _combined(session), APPROVED.plan
    first = plan.inputs[0].reserve
    digest = script_path_sighash(plan.transaction, 0, plan.prevouts, first.quorum_leaf_hash, SigHash.ALL)
    longer = _resigned(0, digest) + bytes([SigHash.ALL])
    witnesses = [list(txin.witness) for txin in signed.inputs]
    position = witnesses[0].index(SHARES[0].signatures[0])
    witnesses[0][position] = longer
    malleated = signed.with_witnesses([tuple(witness) for witness in witnesses])
    verify_scripts(malleated, plan.prevouts)
    with pytest.raises(CosignRefused) as caught:
        session.check_signed(malleated)
    assert caught.value.reason is CosignReason.NOT_AS_PLANNED


@pytest.mark.parametrize("alter", [lambda witness: witness[1:], lambda witness: (*witness, b""), lambda witness: ()])
def test_witness_of_another_shape_is_refused(
    session: CosignSession, alter: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]
) -> None:
    signed = _combined(session)
    witnesses = [txin.witness for txin in signed.inputs]
    witnesses[0] = alter(witnesses[0])
    with pytest.raises(CosignRefused) as caught:
        session.check_signed(signed.with_witnesses(witnesses))
    assert caught.value.reason is CosignReason.NOT_AS_PLANNED


def test_wrong_signature_in_a_signed_transaction_is_refused_by_the_engine(session: CosignSession) -> None:
    signed = _combined(session)
    witnesses = [txin.witness for txin in signed.inputs]
    position = witnesses[0].index(SHARES[0].signatures[0])
    forged = list(witnesses[0])
    forged[position] = _resigned(0, sha256(b"something else"))
    witnesses[0] = tuple(forged)
    with pytest.raises(Rejected) as caught:
        session.check_signed(signed.with_witnesses(witnesses))
    assert caught.value.reason is ScriptReason.SCRIPT_FAILED
