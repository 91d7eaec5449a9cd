"""A wallet of one key for each of the five output types, for tests that need signed transactions."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import new as new_hash

from bitcoin.core import CTransaction
from bitcoin.core.script import SIGHASH_ALL, SIGVERSION_BASE, SIGVERSION_WITNESS_V0, CScript, SignatureHash
from coincurve import PrivateKey

from bridge.bitcoin.curve import schnorr_sign, x_only
from bridge.bitcoin.hashes import sha256, tagged_hash
from bridge.bitcoin.identifiers import OutPoint, Script
from bridge.bitcoin.script import ScriptType, classify, push
from bridge.bitcoin.taproot import key_path_sighash, output_key, output_script
from bridge.bitcoin.transaction import FINAL_SEQUENCE, Transaction, TxIn, TxOut

GROUP_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
OP_CHECKSIG = b"\xac"

Coin = tuple[OutPoint, TxOut]


class MiniWallet:
    """Scripts that one secret can spend, and signatures for them. name: makes the secret."""

    def __init__(self, name: str) -> None:
        self._key = PrivateKey(sha256(name.encode()))
        self._public_key = self._key.public_key.format()
        self._key_script = push(self._public_key) + OP_CHECKSIG
        self._taproot_secret = _tweaked(self._key)

    def script(self, kind: ScriptType = ScriptType.P2WPKH) -> Script:
        """The output script of a type; P2SH and P2WSH wrap `<key> OP_CHECKSIG`."""
        match kind:
            case ScriptType.P2PKH:
                return Script(b"\x76\xa9\x14" + _hash160(self._public_key) + b"\x88\xac")
            case ScriptType.P2SH:
                return Script(b"\xa9\x14" + _hash160(self._key_script) + b"\x87")
            case ScriptType.P2WPKH:
                return Script(b"\x00\x14" + _hash160(self._public_key))
            case ScriptType.P2WSH:
                return Script(b"\x00\x20" + sha256(self._key_script))
            case ScriptType.P2TR:
                return output_script(output_key(x_only(self._key.secret))[0])

    def spend(
        self,
        coins: Sequence[Coin],
        outputs: Sequence[TxOut],
        *,
        version: int = 2,
        locktime: int = 0,
        sequence: int = FINAL_SEQUENCE,
    ) -> Transaction:
        """A signed transaction from `coins`, all of this wallet, to `outputs`."""
        inputs = tuple(TxIn(outpoint, b"", sequence) for outpoint, _ in coins)
        return self.sign(Transaction(version, inputs, tuple(outputs), locktime), [output for _, output in coins])

    def pay(self, coin: Coin, *scripts: Script, fee_sats: int = 1_000) -> Transaction:
        """One coin, less the fee, in equal parts to `scripts`."""
        outpoint, output = coin
        part_sats = (output.value_sats - fee_sats) // len(scripts)
        rest_sats = output.value_sats - fee_sats - part_sats * (len(scripts) - 1)
        values = [part_sats] * (len(scripts) - 1) + [rest_sats]
        outputs = [TxOut(value, script) for value, script in zip(values, scripts, strict=True)]
        return self.spend([(outpoint, output)], outputs)

    def sign(self, transaction: Transaction, prevouts: Sequence[TxOut]) -> Transaction:
        """The same transaction with every input signed."""
        parsed = CTransaction.deserialize(transaction.serialize_stripped())
        inputs = []
        for index, (txin, prevout) in enumerate(zip(transaction.inputs, prevouts, strict=True)):
            script_sig, witness = self._unlock(transaction, parsed, index, prevouts, prevout)
            inputs.append(replace(txin, script_sig=script_sig, witness=witness))
        return replace(transaction, inputs=tuple(inputs))

    def _unlock(
        self, transaction: Transaction, parsed: CTransaction, index: int, prevouts: Sequence[TxOut], prevout: TxOut
    ) -> tuple[bytes, tuple[bytes, ...]]:
        match classify(prevout.script):
            case ScriptType.P2PKH:
                return push(self._legacy(parsed, index, prevout.script)) + push(self._public_key), ()
            case ScriptType.P2SH:
                return push(self._legacy(parsed, index, self._key_script)) + push(self._key_script), ()
            case ScriptType.P2WPKH:
                pay_to_key = self.script(ScriptType.P2PKH)
                return b"", (self._segwit(parsed, index, pay_to_key, prevout), self._public_key)
            case ScriptType.P2WSH:
                return b"", (self._segwit(parsed, index, self._key_script, prevout), self._key_script)
            case ScriptType.P2TR:
                digest = key_path_sighash(transaction, index, prevouts)
                return b"", (schnorr_sign(self._taproot_secret, digest, bytes(32)),)
            case None:
                raise ValueError(f"not one of the five types: {prevout.script.hex()}")

    def _legacy(self, parsed: CTransaction, index: int, script: bytes) -> bytes:
        digest = SignatureHash(CScript(script), parsed, index, SIGHASH_ALL, sigversion=SIGVERSION_BASE)
        return self._ecdsa(digest)

    def _segwit(self, parsed: CTransaction, index: int, script: bytes, prevout: TxOut) -> bytes:
        digest = SignatureHash(
            CScript(script), parsed, index, SIGHASH_ALL, prevout.value_sats, sigversion=SIGVERSION_WITNESS_V0
        )
        return self._ecdsa(digest)

    def _ecdsa(self, digest: bytes) -> bytes:
        return bytes(self._key.sign(digest, hasher=None)) + bytes([SIGHASH_ALL])


def coins_of(transaction: Transaction) -> list[Coin]:
    """Every output of a transaction with its name."""
    return [(transaction.outpoint(vout), output) for vout, output in enumerate(transaction.outputs)]


def _hash160(data: bytes) -> bytes:
    return new_hash("ripemd160", sha256(data)).digest()


def _tweaked(key: PrivateKey) -> bytes:
    """The secret of the Taproot output key without scripts. Source: BIP341, taproot_tweak_seckey."""
    secret = int.from_bytes(key.secret, "big")
    if key.public_key.format()[0] == 3:
        secret = GROUP_ORDER - secret
    tweak = int.from_bytes(tagged_hash("TapTweak", x_only(key.secret)), "big")
    return ((secret + tweak) % GROUP_ORDER).to_bytes(32, "big")
