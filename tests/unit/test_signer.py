"""The one object with keys: what it signs, what it does not, and that nothing it says shows a key."""

import copy
import logging
import pickle
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bridge.bitcoin.curve import schnorr_verify
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash
from federation import signer as signer_module
from federation.approval import ApprovedBatch, approve_batch
from federation.certificate import NO_BLOCK, VoteKind, verify_vote
from federation.keystore import MemberSecrets, member_path, read_member_secrets, write_member_secrets
from federation.membership import Membership
from federation.passphrase import Passphrase
from federation.sealed_box import LEAST_LOG_N
from federation.self_test import SelfTestFailed, SelfTestReason
from federation.signer import Signer, SignerReason, SignerRefused
from tests.support.peg import PARAMS
from tests.support.signers import AUX, CHAIN_ID, Federation, federation, honest_facts, ledger_with_payout

FEDERATION = federation(4)
BLOCK = BlockHash(sha256(b"a block"))


def _approved(members: Federation = FEDERATION) -> ApprovedBatch:
    ledger, version = ledger_with_payout(members)
    return approve_batch(ledger, version.txid, honest_facts(ledger, members.custody), members.custody, PARAMS)


def _signer(
    secrets: MemberSecrets = FEDERATION.secrets[1], membership: Membership = FEDERATION.membership, index: int = 1
) -> Signer:
    return Signer(secrets, membership, index, CHAIN_ID, lambda size: AUX[:size])


def _refusal(action: Callable[[], object]) -> SignerReason:
    with pytest.raises(SignerRefused) as caught:
        action()
    assert isinstance(caught.value.reason, SignerReason)
    return caught.value.reason


@pytest.mark.parametrize(
    ("kind", "block_hash"), [(VoteKind.NOTARIZE, BLOCK), (VoteKind.NULLIFY, NO_BLOCK), (VoteKind.FINALIZE, BLOCK)]
)
def test_vote_verifies(kind: VoteKind, block_hash: BlockHash) -> None:
    vote = _signer().sign_vote(kind, 0, 7, block_hash)
    assert (vote.kind, vote.epoch, vote.view, vote.block_hash, vote.member) == (kind, 0, 7, block_hash, 1)
    verify_vote(vote, FEDERATION.membership, CHAIN_ID)


def test_vote_of_another_epoch_is_refused() -> None:
    assert _refusal(lambda: _signer().sign_vote(VoteKind.NULLIFY, 1, 7, NO_BLOCK)) is SignerReason.WRONG_EPOCH


def test_share_is_signed_with_the_custody_key() -> None:
    approved = _approved()
    share = _signer().cosign(approved)
    assert (share.txid, share.member) == (approved.txid, 1)
    key = FEDERATION.membership.members[1].custody_key32
    assert len(share.signatures) == len(approved.plan.inputs)
    for planned, signature in zip(approved.plan.inputs, share.signatures, strict=True):
        assert schnorr_verify(key, planned.digest32, signature)


def test_each_signature_draws_fresh_randomness() -> None:
    sizes: list[int] = []

    def draw(size: int) -> bytes:
        sizes.append(size)
        return sha256(b"%d" % len(sizes))

    approved = _approved()
    signer = Signer(FEDERATION.secrets[1], FEDERATION.membership, 1, CHAIN_ID, draw)
    first, second = signer.cosign(approved), signer.cosign(approved)
    assert first.signatures != second.signatures
    assert sizes == [32] * 2 * len(approved.plan.inputs)


def test_only_an_approved_batch_is_signed() -> None:
    approved = _approved()
    lookalike = SimpleNamespace(plan=approved.plan, txid=approved.txid)
    for value in (approved.plan, lookalike, None):
        assert _refusal(partial(_signer().cosign, cast(ApprovedBatch, value))) is SignerReason.NOT_APPROVED


def test_coin_of_others_is_not_signed() -> None:
    assert _refusal(lambda: _signer().cosign(_approved(federation(4, "others")))) is SignerReason.NOT_A_KEYHOLDER


@pytest.mark.parametrize("index", [-1, 4])
def test_index_outside_the_membership_is_refused(index: int) -> None:
    assert _refusal(lambda: _signer(index=index)) is SignerReason.UNKNOWN_MEMBER


def test_keys_of_another_member_are_refused() -> None:
    assert _refusal(lambda: _signer(index=2)) is SignerReason.WRONG_VOTE_KEY
    mixed = replace(FEDERATION.secrets[1], custody=FEDERATION.secrets[2].custody)
    assert _refusal(lambda: _signer(mixed)) is SignerReason.WRONG_CUSTODY_KEY


def test_failed_self_test_stops_the_signer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise SelfTestFailed(SelfTestReason.SIGNATURE, "vector 0")

    monkeypatch.setattr(signer_module, "run_self_test", fail)
    with pytest.raises(SelfTestFailed):
        _signer()


def test_signature_that_does_not_verify_never_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    signer = _signer()
    approved = _approved()
    monkeypatch.setattr(signer_module, "schnorr_sign", lambda *_: bytes(64))
    assert _refusal(lambda: signer.sign_vote(VoteKind.NULLIFY, 0, 7, NO_BLOCK)) is SignerReason.BAD_SIGNATURE
    assert _refusal(lambda: signer.cosign(approved)) is SignerReason.BAD_SIGNATURE


def test_transport_secret_is_for_the_network() -> None:
    assert _signer().transport_secret == FEDERATION.secrets[1].transport


def test_signer_is_neither_copied_nor_pickled() -> None:
    signer = _signer()
    for action in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            action(signer)


def test_nothing_said_shows_a_secret(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Start, sign and fail in every way, and search all that was printed, logged or raised for each key."""
    caplog.set_level(logging.DEBUG)
    secrets = FEDERATION.secrets[1]
    said: list[str] = []

    def attempt(action: Callable[[], object]) -> None:
        try:
            said.append(repr(action()))
        except Exception as error:  # noqa: BLE001 -- whatever it is, its text is searched
            said.append("".join(traceback.format_exception(error)) + repr(error))

    passphrase, wrong = Passphrase("a cow jumps over the moon"), Passphrase("a cow jumps over the sun")

    def write(directory: Path, keys: MemberSecrets) -> object:
        return write_member_secrets(directory, keys, passphrase, scrypt_log_n=LEAST_LOG_N)

    keys = tmp_path / "keys"
    attempt(lambda: write(keys, secrets))
    attempt(lambda: write(keys, secrets))
    attempt(lambda: read_member_secrets(keys, passphrase))
    attempt(lambda: read_member_secrets(keys, wrong))
    attempt(lambda: _signer(read_member_secrets(keys, passphrase)))
    attempt(lambda: _signer().sign_vote(VoteKind.NOTARIZE, 0, 7, BLOCK))
    attempt(lambda: _signer().cosign(_approved()))
    attempt(lambda: _signer(index=2))
    attempt(lambda: _signer(replace(secrets, custody=secrets.vote)))
    attempt(lambda: _signer(replace(secrets, vote=secrets.vote + secrets.vote)))
    attempt(lambda: write(tmp_path / "bad", replace(secrets, vote=secrets.custody)))
    attempt(lambda: write(tmp_path / "bad", replace(secrets, vote=secrets.vote + secrets.vote)))
    path = member_path(keys)
    content = path.read_bytes()
    for damaged in (content[:-30], content + content, content.replace(b"vote", b"cust"), content.replace(b"1", b"[")):
        path.write_bytes(damaged)
        attempt(lambda: read_member_secrets(keys, passphrase))
    monkeypatch.setattr(signer_module, "schnorr_sign", lambda *_: bytes(64))
    attempt(lambda: _signer().cosign(_approved()))
    out, err = capfd.readouterr()
    text = "".join(said) + out + err + caplog.text
    assert "keystore-exists" in text
    assert "keystore-wrong-passphrase" in text
    assert "cow" not in text
    assert "signer-bad-signature" in text
    for secret in (secrets.vote, secrets.custody, secrets.transport):
        for shown in (secret.hex(), repr(secret)[2:-1], str(int.from_bytes(secret, "big")), secret[::-1].hex()):
            assert shown.lower() not in text.lower()
