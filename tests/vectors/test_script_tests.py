"""Core's script_tests.json: each script runs through our adapter, under the consensus flags of its case.

The kernel knows no policy flags. So of a case that expects success, its consensus flags are asserted, under which it
must succeed all the more. A case that expects a failure is asserted unless only a policy flag makes it fail: those are
skipped, by the error that they expect.
"""

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from bridge.bitcoin import kernel
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptReason, require_standard_witness
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.transaction import NULL_VOUT, Transaction, TxIn, TxOut
from bridge.errors import Rejected
from tests.vectors.bitcoin_core import consensus_flags, flag_names, load_cases, script, taproot_witness

POLICY_ERRORS = {
    "SIG_PUSHONLY": "SIGPUSHONLY",
    "SIG_HASHTYPE": "STRICTENC",
    "SIG_HIGH_S": "LOW_S",
    "PUBKEYTYPE": "STRICTENC",
    "MINIMALDATA": "MINIMALDATA",
    "MINIMALIF": "MINIMALIF",
    "CLEANSTACK": "CLEANSTACK",
    "NULLFAIL": "NULLFAIL",
    "WITNESS_PUBKEYTYPE": "WITNESS_PUBKEYTYPE",
    "DISCOURAGE_UPGRADABLE_NOPS": "DISCOURAGE_UPGRADABLE_NOPS",
    "DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM": "DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM",
}
"""What only a policy flag makes an error, and which."""


@dataclass(frozen=True)
class Case:
    """One vector. expected: OK, or Core's name of the error."""

    index: int
    witness: tuple[bytes, ...]
    value_sats: int
    script_sig: Script
    locking: Script
    flags: frozenset[str]
    expected: str

    @classmethod
    def of(cls, index: int, fields: list[Any]) -> "Case":
        """The case that a list of four or five texts says, behind a list of witness items and the amount, if any."""
        witness: tuple[bytes, ...] = ()
        value_sats, output_key = 0, b""
        if isinstance(fields[0], list):
            *items, amount = fields.pop(0)
            value_sats = int(Decimal(str(amount)) * 100_000_000)
            if any("#" in item for item in items):
                witness, output_key = taproot_witness(items)
            else:
                witness = tuple(map(bytes.fromhex, items))
        locking = script(fields[1].replace("#TAPROOTOUTPUT#", f"0x{output_key.hex()}"))
        return cls(index, witness, value_sats, script(fields[0]), locking, flag_names(fields[2]), fields[3])

    @property
    def policy_reason(self) -> str | None:
        """The policy flag that alone makes the case fail, or None."""
        flag = POLICY_ERRORS.get(self.expected)
        if self.expected == "SCRIPTNUM" and "MINIMALDATA" in self.flags:
            flag = "MINIMALDATA, of numbers"
        if self.expected == "SIG_DER" and "DERSIG" not in self.flags:
            flag = "STRICTENC or LOW_S"
        return flag


CASES = [Case.of(index, fields) for index, fields in enumerate(load_cases("script_tests.json", 4))]
ASSERTED = [case for case in CASES if case.policy_reason is None]
SKIPPED = [case for case in CASES if case.policy_reason is not None]


def spending(case: Case) -> tuple[Transaction, TxOut]:
    """The transaction that each case stands for. Source: script_tests.cpp, BuildCreditingTransaction and the next."""
    output = TxOut(case.value_sats, case.locking)
    crediting = Transaction(1, (TxIn(OutPoint(Txid(bytes(32)), NULL_VOUT), b"\x00\x00"),), (output,))
    txin = TxIn(crediting.outpoint(0), case.script_sig, witness=case.witness)
    return Transaction(1, (txin,), (TxOut(case.value_sats, Script(b"")),)), output


def succeeds(case: Case) -> bool:
    """What the adapter says."""
    transaction, output = spending(case)
    try:
        verify_scripts(transaction, [output])
    except Rejected as rejected:
        if rejected.reason is ScriptReason.SCRIPT_FAILED:
            return False
        raise
    return True


def is_standard(case: Case) -> bool:
    """Whether our own rules of what an input may look like let the case pass."""
    transaction, output = spending(case)
    try:
        require_standard_witness(transaction, [output])
    except Rejected:
        return False
    return True


def test_no_case_got_lost() -> None:
    assert (len(CASES), len(ASSERTED), len(SKIPPED)) == (1222, 1076, 146)
    assert Counter(case.expected == "OK" for case in ASSERTED) == {True: 675, False: 401}
    assert Counter(case.policy_reason for case in SKIPPED) == {
        "MINIMALDATA, of numbers": 55,
        "MINIMALDATA": 21,
        "CLEANSTACK": 16,
        "MINIMALIF": 12,
        "WITNESS_PUBKEYTYPE": 11,
        "DISCOURAGE_UPGRADABLE_NOPS": 10,
        "STRICTENC": 9,
        "SIGPUSHONLY": 5,
        "NULLFAIL": 3,
        "STRICTENC or LOW_S": 2,
        "LOW_S": 1,
        "DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM": 1,
    }


@pytest.mark.parametrize("case", ASSERTED, ids=lambda case: f"{case.index}-{case.expected}")
def test_script_succeeds_or_fails_as_published(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "CONSENSUS_FLAGS", consensus_flags(case.flags))
    assert succeeds(case) is (case.expected == "OK")


def test_script_that_fails_under_some_consensus_rules_fails_under_all() -> None:
    assert [case for case in ASSERTED if case.expected != "OK" and succeeds(case)] == []


def test_our_rules_refuse_some_of_what_policy_does() -> None:
    refused = Counter(case.expected for case in SKIPPED if not is_standard(case))
    assert refused == {
        "MINIMALDATA": 21,
        "SIG_PUSHONLY": 5,
        "DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM": 1,
        "DISCOURAGE_UPGRADABLE_NOPS": 1,
    }
