"""Setting up a federation: everything fits together, and a failure leaves nothing."""

import contextlib
import logging
import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.bitcoin.curve import x_only
from bridge.bitcoin.identifiers import BlockHash
from bridge.state import Anchor
from federation import private_files
from federation.journal import JournalIdentity, JournalReason, JournalRefused
from federation.journal_entries import open_journal
from federation.keystore import SecretKind, read_member_secrets, read_secret
from federation.keystore_errors import KeystoreRefused
from federation.passphrase import Passphrase
from federation.signer import Signer
from pegnode import federation_setup
from pegnode.config import FunctionaryConfig, L1Config, NodeConfig
from pegnode.errors import ReasonedError
from pegnode.federation_setup import (
    DEALER_NOTICE,
    FederationFiles,
    SetupReason,
    SetupRefused,
    initialize,
)
from pegnode.folders import JOURNAL_FOLDER, MEMBER_NAMES, PASSPHRASE_FILE
from pegnode.genesis import Genesis, GenesisReason, GenesisRefused
from pegnode.net.address import peer_id_from_secret
from pegnode.options.errors import ConfigReason, ConfigRefused
from pegnode.passphrase import read_passphrase_file
from pegnode.ports import free_ports

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LOCAL = (CONFIGS / "local.toml").read_text()
ANCHOR = Anchor(101, BlockHash(b"\x07" * 32))
L1 = L1Config(url="http://127.0.0.1:18443", cookie_file=Path("/bitcoind/.cookie"))
TIME_MS = 1_790_000_000_000


def _passphrase(directory: Path) -> Passphrase:
    return read_passphrase_file(directory / PASSPHRASE_FILE)


def _init(
    directory: Path,
    template: str = LOCAL,
    *,
    l1: L1Config = L1,
    base_port: int | None = 20_000,
    random_bytes: Callable[[int], bytes] | None = None,
) -> FederationFiles:
    return initialize(
        directory,
        template,
        l1=l1,
        anchor=ANCHOR,
        time_ms=TIME_MS,
        random_bytes=random_bytes or random.Random(7).randbytes,
        base_port=base_port,
    )


def _refused(directory: Path, **arguments: object) -> ReasonedError:
    """The refusal of an attempt, after which nothing is there that was not there before."""
    before = sorted(directory.parent.rglob("*"))
    with pytest.raises(ReasonedError) as caught:
        _init(directory, **arguments)  # type: ignore[arg-type]
    assert sorted(directory.parent.rglob("*")) == before
    return caught.value


@pytest.mark.parametrize(("template", "size"), [("local.toml", 4), ("federation-15.toml", 15)])
def test_every_member_can_start_with_its_files(tmp_path: Path, template: str, size: int) -> None:
    files = _init(tmp_path / "federation", (CONFIGS / template).read_text())
    genesis = Genesis.load(files.genesis)
    rules = genesis.rules()
    assert rules.chain_id == files.chain_id
    assert (genesis.anchor, genesis.time_ms) == (ANCHOR, TIME_MS)
    assert tuple(member.name for member in rules.membership.members) == MEMBER_NAMES[:size]
    assert len(files.functionaries) == size
    for index, path in enumerate(files.functionaries):
        config = FunctionaryConfig.load(path)
        assert config.genesis == files.genesis
        assert config.member(rules.membership).index == index
        secrets = read_member_secrets(config.keys_dir, _passphrase(files.directory))
        signer = Signer(secrets, rules.membership, index, rules.chain_id, os.urandom)
        assert peer_id_from_secret(signer.transport_secret) == signer.member.peer_id
        assert len(config.peer_addresses(rules.membership)) == size - 1


def test_peers_are_dialled_where_they_listen(tmp_path: Path) -> None:
    files = _init(tmp_path / "federation")
    configs = [FunctionaryConfig.load(path) for path in files.functionaries]
    listens = {config.name: config.p2p.listen for config in configs}
    for config in (*configs, NodeConfig.load(files.node)):
        dialled = {peer.name: peer.address for peer in config.p2p.peers}
        assert dialled == {name: address for name, address in listens.items() if name != config.name}


def test_ports_follow_the_base_port_and_are_distinct(tmp_path: Path) -> None:
    files = _init(tmp_path / "federation", base_port=30_000)
    configs = [*map(FunctionaryConfig.load, files.functionaries), NodeConfig.load(files.node)]
    ports = [port for config in configs for port in (int(config.p2p.listen.split("/")[-1]), config.rpc.port)]
    assert ports == list(range(30_000, 30_010))


def test_free_ports_are_taken_without_a_base_port(tmp_path: Path) -> None:
    files = _init(tmp_path / "federation", base_port=None)
    configs = [*map(FunctionaryConfig.load, files.functionaries), NodeConfig.load(files.node)]
    ports = {port for config in configs for port in (int(config.p2p.listen.split("/")[-1]), config.rpc.port)}
    assert len(ports) == 10
    assert len(set(free_ports(40))) == 40


def test_recovery_keys_are_those_of_the_genesis_with_one_to_spare(tmp_path: Path) -> None:
    files = _init(tmp_path / "federation")
    genesis = Genesis.load(files.genesis)
    keys = [
        x_only(read_secret(path.parent, SecretKind.RECOVERY, _passphrase(files.directory))).hex()
        for path in files.recovery_keys
    ]
    assert tuple(keys) == genesis.recovery_keys_hex
    assert len(keys) == genesis.peg.recovery_quorum + 1


def test_no_key_is_dealt_twice(tmp_path: Path) -> None:
    files = _init(tmp_path / "federation")
    secrets = [
        read_secret(path.parent, SecretKind.RECOVERY, _passphrase(files.directory)) for path in files.recovery_keys
    ]
    for path in files.functionaries:
        member = read_member_secrets(path.parent / "keys", _passphrase(files.directory))
        secrets += [member.vote, member.custody, member.transport]
    assert len(set(secrets)) == 4 * 3 + 3


def test_only_key_files_hold_secrets_and_only_their_owner_may_look(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    directory = tmp_path / "federation"
    files = _init(directory)
    secrets = [
        read_secret(path.parent, SecretKind.RECOVERY, _passphrase(files.directory)) for path in files.recovery_keys
    ]
    for path in files.functionaries:
        member = read_member_secrets(path.parent / "keys", _passphrase(files.directory))
        secrets += [member.vote, member.custody, member.transport]
    for path in directory.rglob("*"):
        if path.is_dir() and path.name != JOURNAL_FOLDER:
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
        if path.suffix == ".key":
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        elif path.is_file():
            content = path.read_bytes()
            assert not any(secret in content or secret.hex().encode() in content for secret in secrets), path
    said = repr(files) + "".join(capfd.readouterr()) + caplog.text
    assert not any(secret.hex() in said for secret in secrets)


def test_every_member_has_an_empty_journal_of_its_own(tmp_path: Path) -> None:
    files = _init(tmp_path / "federation")
    for index, path in enumerate(files.functionaries):
        folder = FunctionaryConfig.load(path).data_dir / JOURNAL_FOLDER
        with contextlib.closing(open_journal(folder, JournalIdentity(files.chain_id, 0, index))) as journal:
            assert not journal.contents().votes
        with pytest.raises(JournalRefused) as caught:
            open_journal(folder, JournalIdentity(files.chain_id, 0, index + 1))
        assert caught.value.reason is JournalReason.FOREIGN


def test_result_says_that_there_was_one_dealer(tmp_path: Path) -> None:
    assert _init(tmp_path / "federation").notice == DEALER_NOTICE
    assert "One dealer" in DEALER_NOTICE


def test_federation_may_move_with_its_directory(tmp_path: Path) -> None:
    files = _init(tmp_path / "federation")
    moved = tmp_path / "moved"
    files.directory.rename(moved)
    config = FunctionaryConfig.load(moved / "alice" / "functionary.toml")
    assert Genesis.load(config.genesis).chain_id == files.chain_id
    assert config.keys_dir == moved.resolve() / "alice" / "keys"


def test_l1_settings_reach_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    l1 = L1Config(url="http://127.0.0.1:1", user="peg", password_file=Path("password"))
    files = _init(tmp_path / "federation", l1=l1)
    for config in (NodeConfig.load(files.node), *map(FunctionaryConfig.load, files.functionaries)):
        assert (config.l1.url, config.l1.user, config.l1.cookie_file) == ("http://127.0.0.1:1", "peg", None)
        assert config.l1.password_file == (tmp_path / "password").resolve()


def test_absent_parents_are_made(tmp_path: Path) -> None:
    assert _init(tmp_path / "a" / "b" / "federation").genesis.exists()


def test_empty_directory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "federation").mkdir()
    assert _init(tmp_path / "federation").genesis.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["federation"]


def test_directory_with_files_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "federation"
    _init(directory)
    keys = read_member_secrets(directory / "alice" / "keys", _passphrase(directory))
    assert _refused(directory).reason is SetupReason.NOT_EMPTY
    assert read_member_secrets(directory / "alice" / "keys", _passphrase(directory)) == keys


def test_directory_that_was_filled_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "federation"
    directory.mkdir()
    monkeypatch.setattr(federation_setup, "_require_absent_or_empty", lambda _: (directory / "other").touch())
    with pytest.raises(SetupRefused) as caught:
        _init(directory)
    assert caught.value.reason is SetupReason.NOT_EMPTY
    assert sorted(tmp_path.rglob("*")) == [directory, directory / "other"]


def test_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "federation").touch()
    assert _refused(tmp_path / "federation").reason is SetupReason.UNWRITABLE


def test_directory_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert _refused(tmp_path / "file" / "federation").reason is SetupReason.UNWRITABLE


@pytest.mark.parametrize("count", [0, 16, 1000])
def test_member_count_beyond_the_names_is_refused(tmp_path: Path, count: int) -> None:
    template = LOCAL.replace("member_count = 4", f"member_count = {count}")
    assert _refused(tmp_path / "federation", template=template).reason is SetupReason.MEMBER_COUNT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("member_count = 4", ""),
        ("member_count = 4", 'member_count = "4"'),
        ("member_count = 4", "member_count = true"),
        ("recovery_quorum = 2", ""),
        ("recovery_quorum = 2", "recovery_quorum = 1001"),
        ("[peg]", "[peg"),
    ],
)
def test_template_without_its_counts_is_refused(tmp_path: Path, old: str, new: str) -> None:
    assert LOCAL.count(old) == 1
    refused = _refused(tmp_path / "federation", template=LOCAL.replace(old, new))
    assert refused.reason is SetupReason.BAD_TEMPLATE


def test_template_that_makes_no_genesis_is_refused(tmp_path: Path) -> None:
    refused = _refused(tmp_path / "federation", template=LOCAL.replace('"regtest"', '"moon"'))
    assert isinstance(refused, GenesisRefused)
    assert refused.reason is GenesisReason.NETWORK


def test_l1_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    refused = _refused(tmp_path / "federation", l1=L1Config(url="http://127.0.0.1:1"))
    assert isinstance(refused, ConfigRefused)
    assert refused.reason is ConfigReason.MISSING_OPTION


@pytest.mark.parametrize("base_port", [0, 1023, 65_527, 70_000])
def test_ports_out_of_range_are_refused(tmp_path: Path, base_port: int) -> None:
    assert _refused(tmp_path / "federation", base_port=base_port).reason is SetupReason.PORTS


def test_last_possible_ports_are_taken(tmp_path: Path) -> None:
    assert NodeConfig.load(_init(tmp_path / "federation", base_port=65_526).node).rpc.port == 65_535


def test_lack_of_free_ports_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> tuple[int, ...]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(federation_setup, "free_ports", fail)
    assert _refused(tmp_path / "federation", base_port=None).reason is SetupReason.PORTS


@pytest.mark.parametrize("failing_at", [1, 5, 8])
def test_failure_at_any_key_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_at: int) -> None:
    written = 0
    write = private_files._write_new_file

    def fail_late(path: Path, content: bytes) -> None:
        nonlocal written
        written += 1
        if written == failing_at:
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(private_files, "_write_new_file", fail_late)
    with pytest.raises(KeystoreRefused):
        _init(tmp_path / "federation")
    assert list(tmp_path.iterdir()) == []


def test_failure_of_the_last_file_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    refused = _refused(tmp_path / "federation")
    assert refused.reason is SetupReason.UNWRITABLE
    assert "No space left" in refused.detail


def test_interruption_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(federation_setup, "write_member_secrets", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _init(tmp_path / "federation")
    assert list(tmp_path.iterdir()) == []


def test_second_attempt_succeeds_after_a_failure(tmp_path: Path) -> None:
    assert _refused(tmp_path / "federation", base_port=0).reason is SetupReason.PORTS
    files = _init(tmp_path / "federation")
    shutil.rmtree(files.directory)
    assert _init(tmp_path / "federation").chain_id == files.chain_id
