"""Core's tx_valid.json and tx_invalid.json, through our adapter and our rules of a transaction's form.

A valid case names the flags under which it is invalid, an invalid one those under which it is: asserted is what the
consensus flags decide. Cases that only a policy flag decides are skipped, and counted.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bridge.bitcoin import kernel
from bridge.bitcoin.amounts import MAX_MONEY_SATS
from bridge.bitcoin.identifiers import OutPoint, Txid, hash_from_hex
from bridge.bitcoin.script import ScriptReason
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.transaction import Transaction, TransactionReason, TxOut
from bridge.errors import Reason, Rejected
from pegnode.chain.state import Utxo
from pegnode.chain.transactions import BlockContext, TransactionRule, check_all_but_scripts
from tests.support.chain import MemoryChain
from tests.support.peg import p2wpkh
from tests.vectors.bitcoin_core import CONSENSUS, consensus_flags, flag_names, load_cases, script


@dataclass(frozen=True)
class Case:
    """One vector. spent: by outpoint.  flags: that the case is about, or BADTX: what no flag decides."""

    index: int
    spent: dict[OutPoint, TxOut]
    data: bytes
    flags: frozenset[str]
    malformed: bool

    @classmethod
    def of(cls, index: int, fields: list[Any]) -> "Case":
        """The case that these three fields say."""
        inputs, data_hex, flags = fields
        spent = {
            OutPoint(Txid(hash_from_hex(txid_hex)), vout & 0xFFFFFFFF): TxOut(rest[0] if rest else 0, script(locking))
            for txid_hex, vout, locking, *rest in inputs
        }
        malformed = flags == "BADTX"
        return cls(index, spent, bytes.fromhex(data_hex), frozenset() if malformed else flag_names(flags), malformed)

    def verify(self) -> None:
        """Raise Rejected unless every input may spend its output, under the adapter's flags."""
        transaction = Transaction.parse(self.data)
        verify_scripts(transaction, [self.spent[txin.outpoint] for txin in transaction.inputs])


VALID = [Case.of(index, fields) for index, fields in enumerate(load_cases("tx_valid.json", 3))]
INVALID = [Case.of(index, fields) for index, fields in enumerate(load_cases("tx_invalid.json", 3))]
VALID_UNDER_ALL = [case for case in VALID if not case.flags & CONSENSUS.keys()]
VALID_UNDER_SOME = [case for case in VALID if case.flags & CONSENSUS.keys()]
BADLY_FORMED = [case for case in INVALID if case.malformed]
INVALID_BY_CONSENSUS = [case for case in INVALID if not case.malformed and case.flags <= CONSENSUS.keys()]
SKIPPED = [case for case in INVALID if case.flags - CONSENSUS.keys()]


def test_no_case_got_lost() -> None:
    assert (len(VALID), len(VALID_UNDER_ALL), len(VALID_UNDER_SOME)) == (121, 114, 7)
    assert (len(INVALID), len(BADLY_FORMED), len(INVALID_BY_CONSENSUS), len(SKIPPED)) == (93, 9, 70, 14)
    policy = Counter(flag for case in SKIPPED for flag in case.flags - CONSENSUS.keys())
    assert policy == {"CONST_SCRIPTCODE": 12, "DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM": 2}


@pytest.mark.parametrize("case", VALID_UNDER_ALL, ids=lambda case: case.index)
def test_valid_transaction_is_accepted(case: Case) -> None:
    case.verify()


@pytest.mark.parametrize("case", VALID_UNDER_SOME, ids=lambda case: case.index)
def test_transaction_that_later_rules_made_invalid_is_refused(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Rejected) as rejection:
        case.verify()
    assert rejection.value.reason is ScriptReason.SCRIPT_FAILED
    monkeypatch.setattr(kernel, "CONSENSUS_FLAGS", consensus_flags(CONSENSUS.keys() - case.flags))
    case.verify()


def test_badly_formed_transactions_are_refused() -> None:
    reasons = [_reason_of_form(case) for case in BADLY_FORMED]
    assert reasons == [
        TransactionReason.EMPTY,
        TransactionReason.VALUE_OUT_OF_RANGE,
        TransactionReason.VALUE_OUT_OF_RANGE,
        TransactionRule.FEE_NEGATIVE,  # the outputs together are over all money: so they are over what is spent
        TransactionRule.DUPLICATE_INPUT,
        *[TransactionRule.NULL_PREVOUT] * 4,
    ]


def _reason_of_form(case: Case) -> Reason | None:
    """Why the rules refuse it, were its outputs of a type that they allow."""
    chain = MemoryChain()
    known = {
        outpoint: Utxo(MAX_MONEY_SATS, output.script, height=0, time_ms=0) for outpoint, output in case.spent.items()
    }
    context = BlockContext(chain.header.height, chain.header.time_ms)
    try:
        parsed = Transaction.parse(case.data)
        outputs = tuple(replace(output, script=p2wpkh("anyone")) for output in parsed.outputs)
        check_all_but_scripts(replace(parsed, outputs=outputs), known, chain.state.ledger, context, chain.rules)
    except Rejected as rejected:
        return rejected.reason
    return None


@pytest.mark.parametrize("case", INVALID_BY_CONSENSUS, ids=lambda case: case.index)
def test_invalid_transaction_is_refused(case: Case) -> None:
    with pytest.raises(Rejected) as rejection:
        case.verify()
    assert rejection.value.reason is ScriptReason.SCRIPT_FAILED
