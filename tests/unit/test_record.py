"""Signed records: they prove themselves to whoever knows the members, and to nobody by less than a quorum."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.hashes import sha256, tagged_hash
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid
from bridge.errors import MalformedError, Reason
from bridge.records import Deficit, Finding, LostCoin, Record, RecordReason, Resume
from federation.certificate import VoteKind, vote_digest
from federation.endorsement import EndorsementReason
from federation.errors import Refused
from federation.record import MAX_SIGNED_RECORD_BYTES, SignedRecord, verify_record
from tests.support.signers import AUX, CHAIN_ID, federation

FEDERATION = federation(4)
COIN = OutPoint(Txid(sha256(b"a coin")), 0)
RECORD = Record(CHAIN_ID, 0, 1, 500, Deficit.of((LostCoin(COIN, 70_000),)))
RESUME = replace(RECORD, serial=2, content=Resume.of((Finding.coin_gone(COIN),)))


def sign(*members: int, record: Record = RECORD, digest: bytes | None = None) -> SignedRecord:
    """What these members sign without asking any law."""
    message = record.digest32 if digest is None else digest
    return SignedRecord(
        record, tuple((member, schnorr_sign(FEDERATION.secrets[member].vote, message, AUX)) for member in members)
    )


def refusal(action: Callable[[], object]) -> Reason:
    """The reason for which an action is refused."""
    with pytest.raises(Refused) as caught:
        action()
    return caught.value.reason


def verify(signed: SignedRecord) -> None:
    """As anybody does who knows the genesis."""
    verify_record(signed, FEDERATION.membership, CHAIN_ID)


def test_record_of_a_quorum_or_more_is_verified() -> None:
    for members in ((0, 1, 2), (1, 2, 3), (0, 1, 2, 3)):
        verify(sign(*members))
        verify(sign(*members, record=RESUME))


def test_signed_record_is_read_back_and_within_its_limit() -> None:
    signed = sign(0, 1, 3)
    assert SignedRecord.decode(signed.encode()) == signed
    assert len(signed.encode()) == len(RECORD.encode()) + 4 + 3 * 66 < MAX_SIGNED_RECORD_BYTES
    for data in (signed.encode() + b"\0", signed.encode()[:-1]):
        with pytest.raises(MalformedError):
            SignedRecord.decode(data)


@pytest.mark.parametrize("byte", range(len(RECORD.encode())))
def test_record_altered_anywhere_proves_nothing(byte: int) -> None:
    data = bytearray(sign(0, 1, 2).encode())
    data[byte] ^= 1
    try:
        altered = SignedRecord.decode(bytes(data))
    except MalformedError:
        return
    assert refusal(lambda: verify(altered)) in (
        EndorsementReason.BAD_SIGNATURE,
        RecordReason.WRONG_CHAIN,
        RecordReason.WRONG_EPOCH,
    )


def test_record_of_another_chain_or_epoch_is_refused_though_a_quorum_signed_it() -> None:
    assert (
        refusal(lambda: verify(sign(0, 1, 2, record=replace(RECORD, chain_id=bytes(32))))) is RecordReason.WRONG_CHAIN
    )
    assert refusal(lambda: verify(sign(0, 1, 2, record=replace(RECORD, epoch=1)))) is RecordReason.WRONG_EPOCH


def test_less_than_a_quorum_signs_no_record_however_it_is_padded() -> None:
    two, honest = sign(0, 1), sign(2, record=RESUME).signatures[0]
    assert refusal(lambda: verify(two)) is EndorsementReason.TOO_FEW
    for third, reason in (
        (two.signatures[1], EndorsementReason.REPEATED_SIGNER),
        (two.signatures[0], EndorsementReason.SIGNERS_UNSORTED),
        (honest, EndorsementReason.BAD_SIGNATURE),
        ((2, two.signatures[0][1]), EndorsementReason.BAD_SIGNATURE),
        ((9, two.signatures[0][1]), EndorsementReason.UNKNOWN_MEMBER),
    ):
        padded = SignedRecord(RECORD, (*two.signatures, third))
        assert refusal(partial(verify, padded)) is reason


def test_votes_and_statements_make_no_record() -> None:
    for digest in (
        vote_digest(CHAIN_ID, 0, VoteKind.FINALIZE, 1, BlockHash(RECORD.digest32)),
        tagged_hash("pegnode/solvency-statement", RECORD.encode()),
        tagged_hash("pegnode/block", RECORD.encode()),
    ):
        signed = sign(0, 1, 2, digest=digest)
        assert refusal(partial(verify, signed)) is EndorsementReason.BAD_SIGNATURE


def test_signatures_of_one_record_are_joined_and_of_two_refused() -> None:
    joined = sign(2, 3).joined(sign(0)).joined(sign(0, 2))
    assert joined.signers == (0, 2, 3)
    verify(joined)
    assert refusal(lambda: joined.joined(sign(1, record=RESUME))) is EndorsementReason.DIFFERENT
