"""Recovering with a PSBT: what it asks for, checked against the genesis alone; signatures; the signed transaction.

Nothing a PSBT says is believed. Of each input the reserve script is derived anew, and every field of the plan with it,
so a key never signs for anything else; what it says of values is covered by the signatures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.curve import schnorr_sign, schnorr_verify, x_only
from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.taproot import script_path_sighash
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import Custody, CustodyPolicy, recovery_witness
from bridge.errors import Rejected
from bridge.psbt import (
    FINAL_SCRIPT_SIG,
    FINAL_WITNESS,
    SIGHASH_TYPE,
    Entries,
    Psbt,
    PsbtReason,
    signature_key,
    signatures,
    spent_output,
)
from bridge.recovery import (
    CHAIN_ID_KEY,
    TRANSACTION_VERSION,
    RecoveryInput,
    RecoveryReason,
    origin_of,
    signed_vsize_vbytes,
)

AUX_SIZE = 32
RandomBytes = Callable[[int], bytes]
"""Unpredictable bytes, as many as asked for."""


@dataclass(frozen=True, slots=True)
class RecoveryTerms:
    """What the genesis says about recoveries. chain_id: 32 bytes; feerate_ceiling_sat_kvb: no plan pays more."""

    chain_id: bytes
    custody: Custody
    feerate_ceiling_sat_kvb: int


@dataclass(frozen=True, slots=True)
class RecoveryRequest:
    """A PSBT that asks for what it may. coins: what each input spends; all its signatures verify."""

    psbt: Psbt
    coins: tuple[RecoveryInput, ...]

    @classmethod
    def read(cls, psbt: Psbt, terms: RecoveryTerms) -> "RecoveryRequest":
        """Check everything about a PSBT but whom it pays.

        Raises Rejected(RecoveryReason): FOREIGN_GENESIS, NOT_RESERVE, NOT_AS_PLANNED, FEERATE, BAD_SIGNATURE; and
        Rejected(PsbtReason.OUTPUT).
        """
        chain_id = psbt.entries.get(CHAIN_ID_KEY)
        if chain_id is not None and chain_id != terms.chain_id:
            detail = f"it is for the chain {chain_id.hex()}, and this genesis is of {terms.chain_id.hex()}"
            raise Rejected(RecoveryReason.FOREIGN_GENESIS, detail)
        transaction = psbt.transaction
        if transaction.version != TRANSACTION_VERSION or transaction.locktime:
            raise Rejected(RecoveryReason.NOT_AS_PLANNED, "a plan has version 2 and no lock time")
        if len({txin.outpoint for txin in transaction.inputs}) != len(transaction.inputs):
            raise Rejected(RecoveryReason.NOT_AS_PLANNED, "it spends a coin twice, as no transaction may")
        coins = tuple(_coin(psbt, index, terms.custody) for index in range(len(psbt.inputs)))
        request = cls(psbt, coins)
        request._require_fee(terms.feerate_ceiling_sat_kvb)
        request._require_signatures()
        return request

    @property
    def policies(self) -> list[CustodyPolicy]:
        """Of each input."""
        return [coin.reserve.policy for coin in self.coins]

    @property
    def value_sats(self) -> int:
        """What is spent."""
        return sum(coin.value_sats for coin in self.coins)

    @property
    def fee_sats(self) -> int:
        """What the miners get."""
        return self.value_sats - sum(output.value_sats for output in self.psbt.transaction.outputs)

    @property
    def vsize_vbytes(self) -> int:
        """Of the signed transaction."""
        return signed_vsize_vbytes(self.psbt.transaction, self.policies)

    def signers(self) -> list[bytes]:
        """The recovery keys that have signed every input whose leaf has them, in order."""
        keys = dict.fromkeys(key for policy in self.policies for key in policy.recovery_keys)
        return [key for key in keys if all(key in self.signed_by(index) for index in self._inputs_of(key))]

    def signed_by(self, index: int) -> dict[bytes, bytes]:
        """The signatures of an input, by key."""
        return signatures(self.psbt.inputs[index], self.coins[index].reserve.recovery_leaf_hash)

    def require_payees(self, payees: Sequence[Script]) -> None:
        """Raise Rejected(RecoveryReason.OTHER_PAYEES) unless exactly these are paid, in equal shares.

        What can't be divided, less than a satoshi each, may go to any of them.
        """
        outputs = self.psbt.transaction.outputs
        if sorted(output.script for output in outputs) != sorted(payees):
            detail = "it pays other addresses than those that were named; do not sign, and ask who made it"
            raise Rejected(RecoveryReason.OTHER_PAYEES, detail)
        values = [output.value_sats for output in outputs]
        if max(values) - min(values) >= len(values):
            raise Rejected(RecoveryReason.OTHER_PAYEES, f"it pays unequal shares: {values} sats")

    def signed(self, secret: bytes, random_bytes: RandomBytes) -> "RecoveryRequest":
        """The same with a signature by `secret`, 32 bytes, for each input whose leaf has its key.

        Raises Rejected(RecoveryReason.UNKNOWN_KEY) when none has.
        """
        key = x_only(secret)
        mine = self._inputs_of(key)
        if not mine:
            detail = f"{key.hex()} is none of the recovery keys of these coins; give the file of one that is"
            raise Rejected(RecoveryReason.UNKNOWN_KEY, detail)
        maps = list(self.psbt.inputs)
        for index in mine:
            signature = schnorr_sign(secret, self._digest(index), random_bytes(AUX_SIZE))
            entry = signature_key(key, self.coins[index].reserve.recovery_leaf_hash)
            maps[index] = {**maps[index], entry: signature}
        return replace(self, psbt=replace(self.psbt, inputs=tuple(maps)))

    def finalized(self) -> Transaction:
        """The signed transaction, which the script engine has run.

        Raises Rejected: RecoveryReason.TOO_FEW_SIGNATURES, or ScriptReason for what the engine refuses.
        """
        witnesses = []
        for index, coin in enumerate(self.coins):
            policy, given = coin.reserve.policy, self.signed_by(index)
            chosen = [key for key in policy.recovery_keys if key in given][: policy.recovery_quorum]
            if len(chosen) < policy.recovery_quorum:
                detail = (
                    f"{len(chosen)} of {policy.recovery_quorum} for {coin.outpoint}; combine with more signers' files"
                )
                raise Rejected(RecoveryReason.TOO_FEW_SIGNATURES, detail)
            stack = [given[key] if key in chosen else None for key in policy.recovery_keys]
            witnesses.append(recovery_witness(coin.reserve, stack))
        transaction = self.psbt.transaction.with_witnesses(witnesses)
        verify_scripts(transaction, self._prevouts())
        return transaction

    def _inputs_of(self, key: bytes) -> list[int]:
        return [index for index, policy in enumerate(self.policies) if key in policy.recovery_keys]

    def _prevouts(self) -> list[TxOut]:
        return [coin.output for coin in self.coins]

    def _digest(self, index: int) -> bytes:
        leaf_hash = self.coins[index].reserve.recovery_leaf_hash
        return script_path_sighash(self.psbt.transaction, index, self._prevouts(), leaf_hash)

    def _require_fee(self, ceiling_sat_kvb: int) -> None:
        if self.fee_sats < 0:
            raise Rejected(RecoveryReason.NOT_AS_PLANNED, "it pays more than its inputs hold")
        if self.fee_sats > fee_sats(self.vsize_vbytes, ceiling_sat_kvb):
            detail = f"a fee of {self.fee_sats} sats for {self.vsize_vbytes} vbytes, over {ceiling_sat_kvb} sat/kvB"
            raise Rejected(RecoveryReason.FEERATE, detail)

    def _require_signatures(self) -> None:
        for index, coin in enumerate(self.coins):
            given = self.signed_by(index)
            digest = self._digest(index) if given else b""
            for key, signature in given.items():
                if key not in coin.reserve.policy.recovery_keys or not schnorr_verify(key, digest, signature):
                    detail = f"{coin.outpoint} has no valid signature by {key.hex()}; leave out the file with it"
                    raise Rejected(RecoveryReason.BAD_SIGNATURE, detail)


def combined(requests: Sequence[RecoveryRequest]) -> RecoveryRequest:
    """All signatures of several signers, at least one, for one transaction.

    Raises Rejected(PsbtReason.ANOTHER_TRANSACTION).
    """
    first = requests[0]
    if any(request.coins != first.coins for request in requests):
        raise Rejected(PsbtReason.ANOTHER_TRANSACTION, "they don't say the same of what is spent")
    return RecoveryRequest(reduce(Psbt.combined, (request.psbt for request in requests)), first.coins)


def _coin(psbt: Psbt, index: int, custody: Custody) -> RecoveryInput:
    """What an input spends, if its map is what a plan says of it. Raises Rejected."""
    entries, txin = psbt.inputs[index], psbt.transaction.inputs[index]
    origin = origin_of(entries)
    output = spent_output(entries)
    try:
        reserve = origin.reserve(custody)
    except Rejected as error:
        raise Rejected(RecoveryReason.NOT_RESERVE, f"input {index}: {error}") from error
    coin = RecoveryInput(txin.outpoint, output.value_sats, origin, reserve)
    if output.script != reserve.script:
        detail = f"input {index} spends {txin.outpoint}, which is not of the reserve script that it names"
        raise Rejected(RecoveryReason.NOT_RESERVE, detail)
    if txin.sequence != reserve.policy.recovery_timelock_blocks:
        raise Rejected(RecoveryReason.NOT_AS_PLANNED, f"input {index} has another lock than the recovery leaf")
    _require_planned(index, entries, coin)
    return coin


def _require_planned(index: int, entries: Entries, coin: RecoveryInput) -> None:
    if any(entries.get(key) != value for key, value in coin.entries().items()):
        raise Rejected(RecoveryReason.NOT_AS_PLANNED, f"input {index} has other leaves or keys than its reserve script")
    if int.from_bytes(entries.get(SIGHASH_TYPE, b""), "little"):
        raise Rejected(
            RecoveryReason.NOT_AS_PLANNED, f"input {index} asks for another kind of signature than the default"
        )
    if FINAL_WITNESS in entries or FINAL_SCRIPT_SIG in entries:
        detail = f"input {index} is final already; take the file as it was before a wallet finalized it"
        raise Rejected(RecoveryReason.NOT_AS_PLANNED, detail)
