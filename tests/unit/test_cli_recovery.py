"""`peg recovery`: what only the commands decide, and what a holder is shown and asked."""

import base64
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import TxOut
from bridge.custody import CoinKind
from bridge.psbt import Psbt
from bridge.recovery import Origin, RecoveryInput, plan_transactions, recovery_psbt
from federation.keystore import SecretKind, generate_secret, write_secret
from federation.passphrase import Passphrase
from federation.sealed_box import LEAST_LOG_N
from pegnode.cli import recovery as commands
from pegnode.genesis import Genesis
from pegnode.recovery.files import read_psbt, write_psbt
from tests.support.cards import member_cards, template
from tests.support.peg import ALICE, BOB

WORDS = "six words that nobody else knows"
REGTEST = l1_network("regtest")
PAYEE = encode_address(BOB, REGTEST)
GENESIS: Genesis = template().compose([card.section for card in member_cards()])
ORIGIN = Origin(CoinKind.DEPOSIT, 0, ALICE)
COIN = RecoveryInput(OutPoint(Txid(b"\x05" * 32), 0), 1_000_000, ORIGIN, ORIGIN.reserve(GENESIS.rules().custody))

PLAN = ("plan", "--genesis", "genesis.json", "--l1-url", "http://127.0.0.1:1", "--feerate", "1", "--out", "files")

Peg = Callable[..., Result]


def planned(payees: Sequence[Script] = (BOB,)) -> Psbt:
    [(coins, transaction)] = plan_transactions([COIN], payees, 2_000)
    return recovery_psbt(GENESIS.chain_id, coins, transaction)


@pytest.fixture
def peg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Peg:
    """The command line, in a directory with a genesis, two holders' keys and a PSBT."""
    (tmp_path / "genesis.json").write_bytes(GENESIS.document)
    for number in (1, 2):
        secret = generate_secret(random.Random(f"recovery {number}").randbytes)
        key = tmp_path / f"vault-{number}"
        write_secret(key, SecretKind.RECOVERY, secret, Passphrase(WORDS), scrypt_log_n=LEAST_LOG_N)
    write_psbt(tmp_path / "plan.psbt", planned())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "forbid_memory_dumps", lambda: None)  # it changes this process for good

    def run(*arguments: str, answer: str = "") -> Result:
        variables = {"PEGNODE_PASSPHRASE": WORDS, "COLUMNS": "200"}
        done = CliRunner().invoke(commands.recovery_app, arguments, env=variables, input=answer)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return run


def sign(peg: Peg, *options: str, answer: str = "", key: str = "vault-1") -> Result:
    return peg("sign", "plan.psbt", "--genesis", "genesis.json", "--key", key, *options, answer=answer)


def files(path: Path) -> list[str]:
    return sorted(file.name for file in path.glob("*.psbt"))


def test_holder_is_shown_what_is_paid_and_asked(peg: Peg, tmp_path: Path) -> None:
    done = sign(peg, answer="n\n")
    assert done.exit_code == 1
    fee_sats = 1_000_000 - planned().transaction.outputs[0].value_sats
    for words in (
        PAYEE,
        f"0.{1_000_000 - fee_sats:08}",
        "0.01000000 in 1 coin",
        f"0.{fee_sats:08}, 2.0 sat/vB",
        "0 recovery keys; 2 are needed",
    ):
        assert words in done.stdout, words
    assert "nothing was signed" in done.stderr
    assert files(tmp_path) == ["plan.psbt"]


def test_holder_who_agrees_has_signed_into_a_file_of_his_own(peg: Peg, tmp_path: Path) -> None:
    before = (tmp_path / "plan.psbt").read_bytes()
    done = sign(peg, answer="y\n")
    assert done.exit_code == 0
    assert (tmp_path / "plan.psbt").read_bytes() == before
    assert len(files(tmp_path)) == 2
    again = sign(peg, answer="y\n")
    assert again.exit_code == 1
    assert "sign with the recovery key" not in again.stdout, "refused before anybody is asked"


def test_nothing_is_signed_unseen(peg: Peg, tmp_path: Path) -> None:
    """Either a person is shown whom a PSBT pays, or the caller has named them."""
    for options in (("--json",), ("--json", "--to", PAYEE), ("--yes",), ("--yes", "--json")):
        done = sign(peg, *options, answer="y\n")
        assert done.exit_code == 1, options
        assert "--to" in done.stderr
    assert files(tmp_path) == ["plan.psbt"]
    done = sign(peg, "--yes", "--json", "--to", PAYEE)
    assert [entry["payments"][0][0] for entry in json.loads(done.stdout)] == [PAYEE]


def test_two_holders_files_become_a_transaction(peg: Peg, tmp_path: Path) -> None:
    for key in ("vault-1", "vault-2"):
        assert sign(peg, "--yes", "--to", PAYEE, key=key).exit_code == 0
    signed = [name for name in files(tmp_path) if name != "plan.psbt"]
    combined = peg("combine", *signed, "--genesis", "genesis.json", "--out", "both.psbt", "--json")
    assert len(json.loads(combined.stdout)["signers"]) == 2
    done = peg("finalize", "both.psbt", "--genesis", "genesis.json", "--out", "final.hex", "--to", PAYEE)
    assert done.exit_code == 0
    assert "peg recovery broadcast final.hex" in done.stdout
    assert bytes.fromhex((tmp_path / "final.hex").read_text()).startswith(b"\x02\x00\x00\x00\x00\x01")
    assert peg("finalize", "both.psbt", "--genesis", "genesis.json", "--out", "final.hex").exit_code == 1


def test_payee_without_an_address_is_shown_as_its_script(peg: Peg, tmp_path: Path) -> None:
    psbt = planned()
    odd = (*psbt.transaction.outputs, TxOut(0, Script(b"\x6a\x04\x1b[2J")))
    (tmp_path / "plan.psbt").unlink()
    write_psbt(
        tmp_path / "plan.psbt", replace(psbt, transaction=replace(psbt.transaction, outputs=odd), outputs=({}, {}))
    )
    done = sign(peg, answer="n\n")
    assert "script 6a041b5b324a" in done.stdout
    assert "\x1b" not in done.stdout


def test_two_payments_to_one_address_are_both_shown(peg: Peg, tmp_path: Path) -> None:
    psbt = planned()
    [output] = psbt.transaction.outputs
    halves = (replace(output, value_sats=output.value_sats - 300_000), replace(output, value_sats=300_000))
    (tmp_path / "plan.psbt").unlink()
    write_psbt(
        tmp_path / "plan.psbt", replace(psbt, transaction=replace(psbt.transaction, outputs=halves), outputs=({}, {}))
    )
    done = sign(peg, answer="n\n")
    assert done.stdout.count(PAYEE) == 2
    assert "recovery-other-payees: plan.psbt: " in sign(peg, "--to", PAYEE, answer="y\n").stderr


def test_file_that_is_no_psbt_is_refused_by_its_name(peg: Peg, tmp_path: Path) -> None:
    (tmp_path / "plan.psbt").write_bytes(b"\xff not base 64")
    assert "psbt-malformed: plan.psbt: neither the bytes of a PSBT nor base 64" in sign(peg).stderr
    (tmp_path / "plan.psbt").write_bytes(bytes(9_000_000))
    assert "file-too-large: plan.psbt" in sign(peg).stderr


def test_psbt_is_read_in_base_64_with_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "text.psbt").write_bytes(base64.encodebytes(planned().encode()))
    assert read_psbt(tmp_path / "text.psbt") == planned()


def test_transaction_file_that_is_none_is_refused(peg: Peg, tmp_path: Path) -> None:
    (tmp_path / "final.hex").write_text("no hex")
    done = peg("broadcast", "final.hex", "--l1-url", "http://127.0.0.1:1", "--l1-cookie", "/nowhere")
    assert done.exit_code == 1
    assert "transaction-malformed: final.hex: no transaction in hex" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("plan",), "name a node's file with --config"),
        (("plan", "--genesis", "genesis.json"), "--l1-url"),
        (("plan", "--to", PAYEE), "need all of --to, --feerate and --out"),
        (("plan", "--out", "files"), "need all of --to, --feerate and --out"),
        ((*PLAN, "--to", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"), "address-wrong-network"),
        ((*PLAN, "--to", PAYEE), "config-missing-option"),
        (("broadcast", "plan.psbt"), "transaction-malformed"),
    ],
)  # fmt: skip
def test_command_that_lacks_something_says_what(peg: Peg, arguments: Sequence[str], words: str) -> None:
    done = peg(*arguments)
    assert done.exit_code == 1
    assert words in done.stderr
