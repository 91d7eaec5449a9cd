"""Signing a recovery: what a holder's key is given to, and what it is not."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from bridge.bitcoin.curve import schnorr_sign, x_only
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.taproot import script_path_sighash
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind, Custody, reserve_script
from bridge.errors import Reason, Rejected
from bridge.psbt import (
    FINAL_SCRIPT_SIG,
    FINAL_WITNESS,
    SIGHASH_TYPE,
    TAP_INTERNAL_KEY,
    TAP_LEAF_SCRIPT,
    TAP_MERKLE_ROOT,
    WITNESS_UTXO,
    Psbt,
    PsbtReason,
    script_path_entries,
    signature_key,
)
from bridge.recovery import CHAIN_ID_KEY, ORIGIN_KEY, Origin, RecoveryReason
from bridge.recovery_signing import RecoveryRequest, RecoveryTerms, combined
from tests.support.peg import ALICE, BOB, CUSTODY, p2wpkh
from tests.support.recovery import FOREIGN, HOLDERS, MEMBERS, POLICY, TERMS, coin, fixed_bytes, planned, signed

CAROL = p2wpkh("carol")
PSBT = planned([coin(number) for number in range(3)], (BOB, CAROL))


def reason(psbt: Psbt, terms: RecoveryTerms = TERMS) -> Reason:
    with pytest.raises(Rejected) as rejection:
        RecoveryRequest.read(psbt, terms)
    return rejection.value.reason


def changed(psbt: Psbt, index: int, changes: Mapping[bytes, bytes | None]) -> Psbt:
    """The PSBT with entries of one input replaced, or removed where None."""
    entries = {key: value for key, value in {**psbt.inputs[index], **changes}.items() if value is not None}
    return replace(psbt, inputs=(*psbt.inputs[:index], entries, *psbt.inputs[index + 1 :]))


def with_transaction(psbt: Psbt, transaction: Transaction) -> Psbt:
    return replace(psbt, transaction=transaction)


# Signing


@pytest.mark.parametrize("holders", [(0, 1), (0, 2), (1, 2), (2, 0), (0, 1, 2)])
def test_any_two_holders_recover(holders: tuple[int, ...]) -> None:
    request = signed(PSBT, *holders)
    assert request.signers() == [x_only(HOLDERS[holder]) for holder in sorted(holders)]
    transaction = request.finalized()
    verify_scripts(transaction, [item.output for item in request.coins])
    assert transaction.txid == PSBT.transaction.txid


@pytest.mark.parametrize("holders", [(), (0,), (1,), (2,)])
def test_one_holder_alone_does_not_recover(holders: tuple[int, ...]) -> None:
    with pytest.raises(Rejected) as rejection:
        signed(PSBT, *holders).finalized()
    assert rejection.value.reason is RecoveryReason.TOO_FEW_SIGNATURES


def test_signatures_of_holders_who_never_met_are_combined() -> None:
    files = [signed(PSBT, 0).psbt.encode(), signed(PSBT, 2).psbt.encode(), PSBT.encode()]
    request = combined([RecoveryRequest.read(Psbt.decode(data), TERMS) for data in files])
    assert RecoveryRequest.read(request.psbt, TERMS) == request
    assert request.finalized() == signed(PSBT, 0, 2).finalized()


def test_signing_twice_changes_nothing() -> None:
    once = signed(PSBT, 1)
    assert once.signed(HOLDERS[1], fixed_bytes) == once


def test_request_tells_what_is_paid() -> None:
    request = RecoveryRequest.read(PSBT, TERMS)
    assert request.value_sats == 3_000_000
    assert request.fee_sats == -(-request.vsize_vbytes * 2_000 // 1_000)
    request.require_payees([CAROL, BOB])


def test_key_that_may_not_recover_signs_nothing() -> None:
    for secret in (MEMBERS[0], sha256(b"a stranger")):
        with pytest.raises(Rejected) as rejection:
            RecoveryRequest.read(PSBT, TERMS).signed(secret, fixed_bytes)
        assert rejection.value.reason is RecoveryReason.UNKNOWN_KEY


# Payees


@pytest.mark.parametrize("payees", [(), (BOB,), (BOB, CAROL, ALICE), (BOB, ALICE), (BOB, BOB)])
def test_payees_are_refused_unless_they_are_those_agreed_on(payees: tuple[Script, ...]) -> None:
    with pytest.raises(Rejected) as rejection:
        RecoveryRequest.read(PSBT, TERMS).require_payees(payees)
    assert rejection.value.reason is RecoveryReason.OTHER_PAYEES


def test_payees_are_refused_with_unequal_shares() -> None:
    outputs = PSBT.transaction.outputs
    half_sats = sum(output.value_sats for output in outputs) // 2

    def request(more_sats: int) -> RecoveryRequest:
        values = (half_sats + more_sats, half_sats - 1)
        unequal = tuple(replace(output, value_sats=value) for output, value in zip(outputs, values, strict=True))
        return RecoveryRequest.read(with_transaction(PSBT, replace(PSBT.transaction, outputs=unequal)), TERMS)

    request(0).require_payees([BOB, CAROL])  # a satoshi can't be divided
    with pytest.raises(Rejected) as rejection:
        request(1).require_payees([BOB, CAROL])
    assert rejection.value.reason is RecoveryReason.OTHER_PAYEES


def test_signature_is_worthless_once_the_payee_is_another() -> None:
    before = signed(PSBT, 0, 1)
    outputs = (replace(PSBT.transaction.outputs[0], script=ALICE), PSBT.transaction.outputs[1])
    assert reason(with_transaction(before.psbt, replace(PSBT.transaction, outputs=outputs))) is (
        RecoveryReason.BAD_SIGNATURE
    )


# What a PSBT may ask for


def test_psbt_of_another_genesis_is_refused() -> None:
    assert reason(PSBT, FOREIGN) is RecoveryReason.FOREIGN_GENESIS
    foreign = planned([coin(0, terms=FOREIGN)], terms=FOREIGN)
    assert reason(foreign) is RecoveryReason.FOREIGN_GENESIS
    assert reason(replace(foreign, entries={CHAIN_ID_KEY: TERMS.chain_id})) is RecoveryReason.NOT_RESERVE
    assert reason(replace(foreign, entries={})) is RecoveryReason.NOT_RESERVE


def test_input_of_somebody_elses_is_refused() -> None:
    # The holder's own coin, say, that a forger slips in among the reserve's: it spends by a leaf with the holder's key.
    own = reserve_script(CUSTODY.policy(0), CoinKind.CHANGE)
    output = TxOut(1_000_000, own.script)
    fields = script_path_entries(output, own.internal_key, bytes(32), own.recovery_leaf, own.recovery_control_block)
    transaction = PSBT.transaction
    txin = TxIn(OutPoint(Txid(b"\x77" * 32), 0), sequence=24)
    for told in ({}, {ORIGIN_KEY: Origin(CoinKind.CHANGE, 0).encode()}):
        psbt = replace(
            PSBT,
            transaction=replace(transaction, inputs=(*transaction.inputs, txin)),
            inputs=(*PSBT.inputs, {**fields, **told}),
        )
        assert reason(psbt) is RecoveryReason.NOT_RESERVE


@pytest.mark.parametrize(
    "origin",
    [
        Origin(CoinKind.DEPOSIT, 0, BOB),
        Origin(CoinKind.DEPOSIT, 1, ALICE),
        Origin(CoinKind.DEPOSIT, 0, b"\x51"),
        Origin(CoinKind.CHANGE, 0, ALICE),
    ],
    ids=["another claim", "an epoch that is not", "no claim script", "a claim of change"],
)
def test_input_with_another_origin_is_refused(origin: Origin) -> None:
    index = next(i for i, entries in enumerate(PSBT.inputs) if entries[ORIGIN_KEY][0] == CoinKind.DEPOSIT)
    assert reason(changed(PSBT, index, {ORIGIN_KEY: origin.encode()})) is RecoveryReason.NOT_RESERVE


def test_input_that_does_not_tell_what_it_spends_is_refused() -> None:
    assert reason(changed(PSBT, 1, {WITNESS_UTXO: None})) is PsbtReason.OUTPUT


@pytest.mark.parametrize("missing", [TAP_INTERNAL_KEY, TAP_MERKLE_ROOT, TAP_LEAF_SCRIPT])
def test_input_with_other_fields_than_its_script_has_is_refused(missing: bytes) -> None:
    keys = [key for key in PSBT.inputs[0] if key.startswith(missing)]
    assert keys
    for value in (None, b"\x51\xc0"):
        assert reason(changed(PSBT, 0, dict.fromkeys(keys, value))) is RecoveryReason.NOT_AS_PLANNED


def test_coin_that_is_spent_twice_is_refused() -> None:
    """Its value would be shown twice."""
    transaction = replace(PSBT.transaction, inputs=(PSBT.transaction.inputs[0],) * len(PSBT.inputs))
    twice = replace(PSBT, transaction=transaction, inputs=(PSBT.inputs[0],) * len(PSBT.inputs))
    assert reason(twice) is RecoveryReason.NOT_AS_PLANNED


def test_input_that_asks_for_another_kind_of_signature_is_refused() -> None:
    assert reason(changed(PSBT, 0, {SIGHASH_TYPE: (0x82).to_bytes(4, "little")})) is RecoveryReason.NOT_AS_PLANNED
    assert RecoveryRequest.read(changed(PSBT, 0, {SIGHASH_TYPE: bytes(4)}), TERMS).signers() == []


@pytest.mark.parametrize("field", [FINAL_WITNESS, FINAL_SCRIPT_SIG])
def test_input_that_is_final_is_refused(field: bytes) -> None:
    assert reason(changed(PSBT, 2, {field: b"\x00"})) is RecoveryReason.NOT_AS_PLANNED


@pytest.mark.parametrize("sequence", [0, 23, 25, 0xFFFFFFFF, 24 | 1 << 22])
def test_input_with_another_lock_is_refused(sequence: int) -> None:
    first, *rest = PSBT.transaction.inputs
    inputs = (replace(first, sequence=sequence), *rest)
    assert reason(with_transaction(PSBT, replace(PSBT.transaction, inputs=inputs))) is RecoveryReason.NOT_AS_PLANNED


def test_transaction_of_another_shape_is_refused() -> None:
    assert reason(with_transaction(PSBT, replace(PSBT.transaction, version=1))) is RecoveryReason.NOT_AS_PLANNED
    assert reason(with_transaction(PSBT, replace(PSBT.transaction, locktime=5))) is RecoveryReason.NOT_AS_PLANNED


def test_values_that_do_not_add_up_are_refused() -> None:
    outputs = (replace(PSBT.transaction.outputs[0], value_sats=3_000_000), PSBT.transaction.outputs[1])
    assert reason(with_transaction(PSBT, replace(PSBT.transaction, outputs=outputs))) is RecoveryReason.NOT_AS_PLANNED


def test_fee_above_the_ceiling_is_refused() -> None:
    outputs = (replace(PSBT.transaction.outputs[0], value_sats=1_000_000), PSBT.transaction.outputs[1])
    assert reason(with_transaction(PSBT, replace(PSBT.transaction, outputs=outputs))) is RecoveryReason.FEERATE


def test_signature_over_a_lied_value_is_worthless() -> None:
    # BIP341: every spent value is signed, so that nobody is made to pay in fees what he was not shown.
    value = PSBT.inputs[0][WITNESS_UTXO]
    less = changed(PSBT, 0, {WITNESS_UTXO: (999_500).to_bytes(8, "little") + value[8:]})
    request = signed(less, 0, 1)
    true_prevouts = [item.output for item in RecoveryRequest.read(PSBT, TERMS).coins]
    with pytest.raises(Rejected, match="script-failed"):
        verify_scripts(request.finalized(), true_prevouts)


# Signatures of others


def forged(key: bytes, signature: bytes) -> Psbt:
    leaf_hash = reserve_script(POLICY, CoinKind.CHANGE).recovery_leaf_hash
    return changed(PSBT, 0, {signature_key(key, leaf_hash): signature})


@pytest.mark.parametrize("signature", [bytes(64), b"", b"\x01" * 65])
def test_signature_that_is_none_is_refused(signature: bytes) -> None:
    assert reason(forged(x_only(HOLDERS[0]), signature)) is RecoveryReason.BAD_SIGNATURE


def test_signature_by_a_key_that_may_not_recover_is_refused() -> None:
    request = RecoveryRequest.read(PSBT, TERMS)
    prevouts = [item.output for item in request.coins]
    digest = script_path_sighash(PSBT.transaction, 0, prevouts, request.coins[0].reserve.recovery_leaf_hash)
    genuine = schnorr_sign(MEMBERS[0], digest, bytes(32))
    assert reason(forged(x_only(MEMBERS[0]), genuine)) is RecoveryReason.BAD_SIGNATURE


def test_combining_refuses_another_transaction() -> None:
    other = planned([coin(number) for number in range(3)], (BOB,))
    with pytest.raises(Rejected) as rejection:
        combined([signed(PSBT, 0), signed(other, 1)])
    assert rejection.value.reason is PsbtReason.ANOTHER_TRANSACTION


def test_combining_refuses_other_values_of_the_same_coins() -> None:
    value = PSBT.inputs[0][WITNESS_UTXO]
    lied = changed(PSBT, 0, {WITNESS_UTXO: (1_000_500).to_bytes(8, "little") + value[8:]})
    assert lied.transaction == PSBT.transaction
    with pytest.raises(Rejected) as rejection:
        combined([signed(PSBT, 0), signed(lied, 1)])
    assert rejection.value.reason is PsbtReason.ANOTHER_TRANSACTION


def test_coins_of_two_epochs_are_recovered_together() -> None:
    later = replace(POLICY, epoch=1, recovery_keys=tuple(x_only(sha256(b"new %d" % index)) for index in range(3)))
    terms = replace(TERMS, custody=Custody({0: POLICY, 1: later}))
    origin = Origin(CoinKind.CHANGE, 1)
    moved = replace(coin(1), origin=origin, reserve=origin.reserve(terms.custody), outpoint=coin(3).outpoint)
    request = RecoveryRequest.read(planned([coin(0), moved]), terms)
    for secret in (HOLDERS[0], sha256(b"new 1"), HOLDERS[1]):
        request = request.signed(secret, fixed_bytes)
        if len(request.signers()) < 3:
            with pytest.raises(Rejected, match="recovery-too-few-signatures"):
                request.finalized()
    assert len(request.signers()) == 3
    transaction = request.signed(sha256(b"new 2"), fixed_bytes).finalized()
    assert transaction.txid == request.psbt.transaction.txid
