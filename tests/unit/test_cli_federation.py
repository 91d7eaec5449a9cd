"""`peg federation`: what only the commands decide, and the words that people get."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from federation.passphrase import Passphrase
from federation.sealed_box import LEAST_LOG_N
from pegnode.cli import federation as commands
from pegnode.setup.assembly import assemble
from pegnode.setup.card import Card
from pegnode.setup.folder import create_member
from tests.support.cards import TIME_MS, member_card, member_cards, recovery_cards, template, template_text

WORDS = "six words that nobody else knows"
L1 = ("--l1-url", "http://127.0.0.1:1", "--l1-cookie", "/nowhere/.cookie")

Peg = Callable[..., Result]


@pytest.fixture
def peg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Peg:
    """The command line, in a directory with a template and all cards."""
    (tmp_path / "template.toml").write_text(template_text())
    cards: list[Card] = [*member_cards(), *recovery_cards()]
    for card in cards:
        (tmp_path / f"{card.name}.json").write_bytes(card.document)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "_prepare_for_secrets", lambda: None)  # it changes this process for good
    monkeypatch.setattr(commands, "now_ms", lambda: TIME_MS)

    def run(*arguments: str) -> Result:
        variables = {"PEGNODE_PASSPHRASE": WORDS, "COLUMNS": "200"}
        done = CliRunner().invoke(commands.federation_app, arguments, env=variables)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return run


def _assemble(peg: Peg, *options: str) -> Result:
    cards = [f"{card.name}.json" for card in member_cards()]
    return peg("assemble", *cards, "--template", "template.toml", "--dir", "alice", *options)


def _chain_id() -> str:
    return assemble(member_cards(), template()).genesis.chain_id.hex()


def test_dry_run_shows_what_was_agreed_and_writes_nothing(peg: Peg, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = _assemble(peg, "--dry-run", "--without-l1-check")
    assert done.exit_code == 0
    for words in (_chain_id(), template().fingerprint, "4, 3 of which decide", "not checked on a Bitcoin node"):
        assert words in done.stdout
    for card in member_cards():
        assert f"{card.name}: card {card.fingerprint}, at {card.address}" in done.stdout
    assert done.stdout.count("(no card seen)") == 3
    assert sorted(tmp_path.rglob("*")) == before


def test_recovery_cards_among_the_cards_are_named(peg: Peg) -> None:
    done = _assemble(peg, "vault-1.json", "vault-3.json", "--dry-run", "--without-l1-check")
    assert done.stdout.count("(no card seen)") == 1
    assert "vault-3" in done.stdout


def test_anchor_is_not_trusted_without_a_word(peg: Peg) -> None:
    for options in ((), ("--dry-run",), ("--without-l1-check",)):
        done = _assemble(peg, *options)
        assert done.exit_code == 1
        assert "name your Bitcoin node with --l1-url" in done.stderr


def test_bitcoin_node_that_does_not_answer_stops_the_assembly(peg: Peg) -> None:
    done = _assemble(peg, *L1)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: l1-")


def test_block_0_in_the_future_is_refused(peg: Peg, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks would have times that nobody's clock confirms."""
    monkeypatch.setattr(commands, "now_ms", lambda: TIME_MS - 5_000)
    done = _assemble(peg, "--dry-run", "--without-l1-check")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: setup-time-ahead: block 0 lies 5 s ahead")
    monkeypatch.setattr(commands, "now_ms", lambda: TIME_MS - 2_000)
    assert _assemble(peg, "--dry-run", "--without-l1-check").exit_code == 0


def test_expected_chain_id_passes_and_another_is_refused(peg: Peg, tmp_path: Path) -> None:
    options = ("--dry-run", "--without-l1-check", "--expect")
    assert _assemble(peg, *options, _chain_id()).exit_code == 0
    assert _assemble(peg, *options, f" {_chain_id().upper()}").exit_code == 0
    refused = _assemble(peg, *options, "00" * 32)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: setup-unexpected: these cards and this template make " + _chain_id())
    (tmp_path / "genesis.json").write_bytes(assemble(member_cards(), template()).genesis.document)
    assert _assemble(peg, *options, "genesis.json").exit_code == 0


def test_expected_genesis_names_every_difference(peg: Peg, tmp_path: Path) -> None:
    text = template_text().replace("max_inputs = 4_000", "max_inputs = 4_001")
    (tmp_path / "genesis.json").write_bytes(assemble(member_cards(), template(text)).genesis.document)
    refused = _assemble(peg, "--dry-run", "--without-l1-check", "--expect", "genesis.json")
    assert refused.exit_code == 1
    assert "chain.max_inputs is 4001 there and 4000 here" in refused.stderr


def test_geneses_are_compared_field_by_field(peg: Peg, tmp_path: Path) -> None:
    text = template_text().replace("max_inputs = 4_000", "max_inputs = 4_001")
    for name, source in (("a.json", template()), ("b.json", template(text)), ("c.json", template())):
        (tmp_path / name).write_bytes(assemble(member_cards(), source).genesis.document)
    same = peg("compare", "a.json", "c.json")
    assert (same.exit_code, same.stdout) == (0, f"the same chain id  {_chain_id()}\n")
    other = peg("compare", "a.json", "b.json")
    assert other.exit_code == 1
    assert [line.split()[:3] for line in other.stdout.splitlines()] == [
        ["field", "a.json", "b.json"],
        ["chain.max_inputs", "4000", "4001"],
        ["chain", "id", _chain_id()],
    ]


def test_files_that_others_sent_are_shown_with_fingerprints(peg: Peg, tmp_path: Path) -> None:
    (tmp_path / "genesis.json").write_bytes(assemble(member_cards(), template()).genesis.document)
    shown = peg("show", "alice.json", "vault-1.json", "template.toml", "genesis.json").stdout
    for words in (
        member_card("alice").fingerprint,
        recovery_cards()[0].fingerprint,
        template().fingerprint,
        _chain_id(),
    ):
        assert words in shown


def test_altered_card_is_refused_by_name_and_file(peg: Peg, tmp_path: Path) -> None:
    altered = (tmp_path / "bob.json").read_bytes().replace(b"bob.example", b"eve.example")
    (tmp_path / "bob.json").write_bytes(altered)
    for done in (peg("show", "bob.json"), _assemble(peg, "--dry-run", "--without-l1-check")):
        assert done.exit_code == 1
        assert done.stderr.startswith("error: card-bad-signature: bob.json: bob: the vote key did not sign this card")


def test_template_needs_a_bitcoin_node(peg: Peg) -> None:
    done = peg("template", "template.toml", "--out", "new.toml", "--recovery", "vault-1.json")
    assert done.exit_code == 1
    assert "the anchor is read from it" in done.stderr


def test_assembled_member_is_told_how_to_start(peg: Peg, tmp_path: Path) -> None:
    create_member(
        tmp_path / "alice",
        "alice",
        "/dns4/alice.example/tcp/18900",
        Passphrase(WORDS),
        random_bytes=lambda size: b"\x05" * (size - 1) + bytes([next(_numbers)]),
        scrypt_log_n=LEAST_LOG_N,
    )
    (tmp_path / "alice.json").write_bytes((tmp_path / "alice" / "card.json").read_bytes())
    done = _assemble(peg, *L1, "--without-l1-check")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "peg functionary run --config alice/functionary.toml" in done.stdout
    (tmp_path / "alice" / "node" / "node.toml").unlink()  # as if the first attempt had ended before it
    again = _assemble(peg, *L1, "--without-l1-check")
    assert (tmp_path / "alice" / "node" / "node.toml").exists()
    assert "alice was assembled before, with this genesis; nothing was changed" in again.stdout


_numbers = iter(range(1, 256))
