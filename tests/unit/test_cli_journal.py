"""`peg journal`: what is told of a journal, and how one is renewed."""

import shutil
import stat
from pathlib import Path

import pytest
import typer

from federation.certificate import NO_BLOCK, Vote, VoteKind
from federation.journal_entries import create_journal, open_journal, read_journal
from federation.journal_header import JournalState
from pegnode.cli.journal import renew, show
from pegnode.config import FunctionaryConfig
from pegnode.folders import CHAIN_FOLDER, JOURNAL_FOLDER
from pegnode.signing.setup import SIGNER_FILE, create_signer
from pegnode.storage.store import ChainStore
from tests.support.chain import local_genesis
from tests.support.configs import FUNCTIONARY
from tests.unit.test_genesis import ANCHOR
from tests.unit.test_signing_setup import IDENTITY, VOTE

GENESIS = local_genesis(ANCHOR)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The configuration of a member that has voted, and seen member 2 vote."""
    folder = tmp_path / "member"
    (folder / "data").mkdir(parents=True)
    (tmp_path / "genesis.json").write_bytes(GENESIS.document)
    text = FUNCTIONARY.replace('"alice"', '"member-0"').replace('"bob"', '"member-1"').replace('"carol"', '"member-2"')
    path = folder / "functionary.toml"
    path.write_text(text)
    journal = create_journal(folder / "data" / JOURNAL_FOLDER, IDENTITY)
    journal.witness(Vote(VoteKind.NULLIFY, 0, 8, NO_BLOCK, 2, bytes(64)))
    journal.record_vote(VOTE)
    journal.close()
    return path


def journal_of(config: Path) -> Path:
    return config.parent / "data" / JOURNAL_FOLDER


def test_journal_is_shown(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(config)
    said = capsys.readouterr().out
    assert "state             kept: it votes by it\n" in said
    assert "own votes         1, the newest in view 9\n" in said
    assert "seen of member-2  a vote in view 8\n" in said


def test_renewal_keeps_the_old_journal_aside_and_says_what_is_next(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    renew(config, yes=True)
    said = capsys.readouterr().out
    aside = journal_of(config).with_name("journal.old-1")
    assert f"what was there is kept as {aside}; never put it back" in said
    assert f"next: peg functionary run --config {config}; then peg status --node {config} tells how far it is\n" in said
    assert read_journal(aside, IDENTITY)[1].votes == (VOTE,)
    assert read_journal(journal_of(config), IDENTITY)[0] is JournalState.FORGOTTEN
    show(config)
    assert "forgotten: it signs nothing until the others have told" in capsys.readouterr().out


def test_renewal_of_a_journal_that_is_gone(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(journal_of(config))
    with pytest.raises(typer.Exit):
        show(config)
    assert "error: journal-missing: there is no journal in" in capsys.readouterr().err
    renew(config, yes=True)
    assert "kept as" not in capsys.readouterr().out
    assert read_journal(journal_of(config), IDENTITY)[0] is JournalState.FORGOTTEN


def test_renewal_on_a_new_machine_makes_folders_for_nobody_else(config: Path) -> None:
    """The member's folder is back, and nothing of `data` is."""
    data = config.parent / "data"
    shutil.rmtree(data)
    renew(config, yes=True)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (data, journal_of(config))] == [0o700, 0o700]


def test_renewal_that_is_not_confirmed_changes_nothing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typer, "confirm", lambda _: False)
    with pytest.raises(typer.Exit):
        renew(config)
    assert read_journal(journal_of(config), IDENTITY)[0] is JournalState.KEPT


@pytest.mark.parametrize("has_open", ["journal", "chain"])
def test_journal_of_a_member_that_runs_is_not_renewed(
    config: Path, capsys: pytest.CaptureFixture[str], has_open: str
) -> None:
    """A process that goes on without its folder still has its chain open."""
    if has_open == "journal":
        running: object = open_journal(journal_of(config), IDENTITY)
    else:
        running = ChainStore.open(config.parent / "data" / CHAIN_FOLDER, GENESIS.rules())
    with pytest.raises(typer.Exit):
        renew(config, yes=True)
    assert f"error: {'journal' if has_open == 'journal' else 'storage'}-locked" in capsys.readouterr().err
    running.close()  # type: ignore[attr-defined]
    assert [item.name for item in journal_of(config).parent.iterdir() if item.name.startswith("journal")] == ["journal"]


def test_node_without_keys_has_no_journal(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join(
        line for line in config.read_text().splitlines() if line.split(" ")[0] not in ("keys_dir", "passphrase_file")
    )
    config.write_text(text)
    with pytest.raises(typer.Exit):
        renew(config, yes=True)
    assert "a node without keys signs nothing, and has no journal" in capsys.readouterr().err


def test_journal_of_a_signer_is_renewed(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = create_signer(FunctionaryConfig.load(config), tmp_path / "signer")
    signer = tmp_path / "signer" / SIGNER_FILE
    renew(signer, yes=True)
    assert f"next: peg signer run --config {signer}; then start its member\n" in capsys.readouterr().out
    assert read_journal(made.data_dir / JOURNAL_FOLDER, IDENTITY)[0] is JournalState.FORGOTTEN
    assert read_journal(journal_of(config), IDENTITY)[0] is JournalState.KEPT
