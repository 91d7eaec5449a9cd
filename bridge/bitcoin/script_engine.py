"""Runs scripts: every consensus rule of Bitcoin up to Taproot, by the kernel."""

from collections.abc import Sequence

from bridge.bitcoin import kernel
from bridge.bitcoin.script import ScriptReason
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.errors import Rejected


def verify_scripts(transaction: Transaction, prevouts: Sequence[TxOut]) -> None:
    """Raise Rejected(ScriptReason.SCRIPT_FAILED) unless every input may spend its output.

    prevouts: the outputs spent, one for each input, in order. Policy is not looked at: see `require_standard_witness`.
    """
    if len(prevouts) != len(transaction.inputs):
        raise Rejected(ScriptReason.SCRIPT_FAILED, f"{len(prevouts)} outputs for {len(transaction.inputs)} inputs")
    spent = [(prevout.value_sats, bytes(prevout.script)) for prevout in prevouts]
    failing = kernel.first_failing_input(transaction.serialize(), spent)
    if failing is not None:
        outpoint = transaction.inputs[failing].outpoint
        raise Rejected(ScriptReason.SCRIPT_FAILED, f"input {failing}: may not spend {outpoint}")
