"""A signer's folder is made from a member's: the journal goes with the keys, and only while nobody votes with them."""

from pathlib import Path

import msgspec
import pytest
import typer

from federation.certificate import NO_BLOCK, Vote, VoteKind
from federation.journal_entries import create_journal, open_journal
from federation.journal_errors import JournalReason, JournalRefused
from federation.journal_header import JournalIdentity
from pegnode.cli.db import _advice, check
from pegnode.config import FunctionaryConfig, SignerConfig, SignerLink
from pegnode.doctor.examination import examine
from pegnode.doctor.findings import Check, Outcome
from pegnode.folders import CHAIN_FOLDER, JOURNAL_FOLDER
from pegnode.options.errors import ConfigReason, ConfigRefused
from pegnode.setup.errors import SetupReason, SetupRefused
from pegnode.signing.setup import SIGNER_FILE, create_signer
from pegnode.storage.check import CheckReason, WrongRecord
from pegnode.storage.store import ChainStore
from tests.support.chain import local_genesis
from tests.support.configs import FUNCTIONARY
from tests.unit.test_genesis import ANCHOR

GENESIS = local_genesis(ANCHOR)
IDENTITY = JournalIdentity(GENESIS.rules().chain_id, 0, 0)
VOTE = Vote(VoteKind.NULLIFY, 0, 9, NO_BLOCK, 0, bytes(64))


@pytest.fixture
def member(tmp_path: Path) -> FunctionaryConfig:
    """A member that has voted."""
    folder = tmp_path / "member"
    (folder / "data").mkdir(parents=True)
    (tmp_path / "genesis.json").write_bytes(GENESIS.document)
    text = FUNCTIONARY.replace('"alice"', '"member-0"').replace('"bob"', '"member-1"').replace('"carol"', '"member-2"')
    (folder / "functionary.toml").write_text(text)
    config = FunctionaryConfig.load(folder / "functionary.toml")
    journal = create_journal(config.data_dir / JOURNAL_FOLDER, IDENTITY)
    journal.record_vote(VOTE)
    journal.close()
    return config


def test_signer_takes_over_what_the_member_has_signed(member: FunctionaryConfig, tmp_path: Path) -> None:
    made = create_signer(member, tmp_path / "signer")
    assert made == SignerConfig.load(tmp_path / "signer" / SIGNER_FILE)
    assert (made.name, made.keys_dir, made.passphrase_file) == ("member-0", member.keys_dir, member.passphrase_file)
    assert made.socket.parent.parent == tmp_path / "signer"
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "signer", made.data_dir)} == {0}
    journal = open_journal(made.data_dir / JOURNAL_FOLDER, IDENTITY)
    assert journal.contents().votes == (VOTE,)
    journal.close()


def test_signer_of_a_member_that_runs_is_refused_and_nothing_is_left(member: FunctionaryConfig, tmp_path: Path) -> None:
    running = open_journal(member.data_dir / JOURNAL_FOLDER, IDENTITY)
    with pytest.raises(JournalRefused) as caught:
        create_signer(member, tmp_path / "signer")
    assert caught.value.reason is JournalReason.LOCKED
    assert not (tmp_path / "signer").exists()
    running.close()


def test_second_signer_is_refused_before_the_first_one_has_started(member: FunctionaryConfig, tmp_path: Path) -> None:
    # Two of them, or one and the member itself, would sign against each other.
    made = create_signer(member, tmp_path / "signer")
    for directory in (tmp_path / "signer", tmp_path / "another"):
        with pytest.raises(JournalRefused) as caught:
            create_signer(member, directory)
        assert caught.value.reason is JournalReason.KEYS_ELSEWHERE
    assert not (tmp_path / "another").exists()
    own = open_journal(member.data_dir / JOURNAL_FOLDER, IDENTITY)
    with pytest.raises(JournalRefused) as refused:
        own.require_keys_here()
    assert refused.value.reason is JournalReason.KEYS_ELSEWHERE
    own.close()
    signers = open_journal(made.data_dir / JOURNAL_FOLDER, IDENTITY)
    signers.require_keys_here()
    signers.close()


def test_signer_that_could_not_be_made_leaves_the_member_its_keys(member: FunctionaryConfig, tmp_path: Path) -> None:
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "file").touch()
    with pytest.raises(SetupRefused) as caught:
        create_signer(member, tmp_path / "occupied")
    assert caught.value.reason is SetupReason.NOT_EMPTY
    create_signer(member, tmp_path / "signer")


def test_member_whose_keys_are_with_a_signer_gets_no_second_one(member: FunctionaryConfig, tmp_path: Path) -> None:
    link = SignerLink(socket=tmp_path / "signer.sock")
    linked = msgspec.structs.replace(member, keys_dir=None, passphrase_file=None, signer=link)
    with pytest.raises(ConfigRefused) as refused:
        create_signer(linked, tmp_path / "another")
    assert refused.value.reason is ConfigReason.MISSING_OPTION


def test_member_that_has_run_with_a_signer_gets_no_second_one(member: FunctionaryConfig, tmp_path: Path) -> None:
    # Its own journal may lack a vote that the first one gave.
    journal = open_journal(member.data_dir / JOURNAL_FOLDER, IDENTITY)
    journal.leave_keys_to_signer()
    journal.close()
    with pytest.raises(JournalRefused) as caught:
        create_signer(member, tmp_path / "signer")
    assert caught.value.reason is JournalReason.KEYS_ELSEWHERE
    assert not (tmp_path / "signer").exists()


def test_db_check_takes_a_signers_file(
    member: FunctionaryConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = create_signer(member, tmp_path / "signer")
    ChainStore.open(made.data_dir / CHAIN_FOLDER, GENESIS.rules()).close()
    with pytest.raises(typer.Exit):
        check(tmp_path / "signer" / SIGNER_FILE, json=True)
    found = msgspec.json.decode(capsys.readouterr().out)
    wrong = ("check-wrong-journal", "journal, the NULLIFY vote of view 9")
    assert (found["reason"], found["record"]) == wrong, "this test's vote has a false signature"
    advice = _advice(WrongRecord(CheckReason.STATE, "an entry", "of another state"), made)
    assert "shown anew by the member" in advice
    assert str(made.keys_dir) in advice


async def test_doctor_examines_a_signer(member: FunctionaryConfig, tmp_path: Path) -> None:
    create_signer(member, tmp_path / "signer")
    found = {finding.check: finding for finding in await examine(tmp_path / "signer" / SIGNER_FILE)}
    assert found[Check.CONFIGURATION].what.endswith("a signer named member-0")
    assert {check: found[check].outcome for check in (Check.GENESIS, Check.JOURNAL, Check.SIGNER)} == {
        Check.GENESIS: Outcome.OK,
        Check.JOURNAL: Outcome.OK,
        Check.SIGNER: Outcome.OK,
    }
    assert "does not run" in found[Check.SIGNER].what
    assert found[Check.KEYS].outcome is Outcome.PROBLEM, "there are none"
    assert found[Check.BITCOIN_NODE].outcome is Outcome.PROBLEM, "nobody answers"
    assert Check.P2P_PORT not in found
