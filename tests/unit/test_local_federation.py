"""A local federation's directory and processes: what is refused, and with which words."""

import os
from pathlib import Path
from typing import cast
from unittest.mock import Mock

import msgspec
import psutil
import pytest

from bridge.bitcoin.identifiers import BlockHash
from bridge.state import Anchor
from pegnode import local_federation
from pegnode.bitcoind import RegtestBitcoind
from pegnode.config import L1Config
from pegnode.local_federation import (
    LocalFederation,
    LocalFederationError,
    LocalReason,
    client_of,
    template_text,
    with_timelock,
)
from pegnode.setup.local import create_local_federation
from pegnode.setup.template import parameters_of
from tests.support.cards import TIME_MS


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> LocalFederation:
    """Four members, none of whom runs."""
    directory = tmp_path_factory.mktemp("local")
    create_local_federation(
        directory / "federation",
        template_text(),
        l1=L1Config(url="http://127.0.0.1:1", cookie_file=Path("/nowhere/.cookie")),
        anchor=Anchor(7, BlockHash(b"\x07" * 32)),
        time_ms=TIME_MS,
        random_bytes=os.urandom,
    )
    (directory / "run").mkdir()
    return LocalFederation.open(directory)


def test_template_with_another_timelock_is_otherwise_the_same() -> None:
    changed = with_timelock(template_text(), 72)
    assert parameters_of(changed).peg.recovery_timelock_blocks == 72
    assert len(set(changed.splitlines()) - set(template_text().splitlines())) == 1


def _pretend(federation: LocalFederation, name: str, config: str) -> None:
    """Note that this process, which was told `config`, runs the member."""
    path = federation.directory / "run" / f"{name}.json"
    path.write_bytes(msgspec.json.encode({"pid": os.getpid(), "config": config}))


def test_directory_without_a_federation_is_refused_with_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(LocalFederationError) as caught:
        LocalFederation.open(tmp_path)
    assert caught.value.reason is LocalReason.ABSENT
    assert f"peg up --dir {tmp_path}" in caught.value.detail


def test_members_and_files_are_found(federation: LocalFederation) -> None:
    assert federation.member_names == ("alice", "bob", "carol", "dave")
    assert federation.genesis_path.is_file()
    assert federation.node_config_path.is_file()
    assert federation.passphrase_path.is_file()
    assert federation.member_config("bob").name == "bob"


def test_unknown_member_is_refused_with_the_known_ones(federation: LocalFederation) -> None:
    with pytest.raises(LocalFederationError) as caught:
        federation.member_config("zoe")
    assert caught.value.reason is LocalReason.UNKNOWN_MEMBER
    assert "alice, bob, carol, dave" in caught.value.detail


@pytest.mark.parametrize("members", [0, 16])
def test_number_of_members_without_names_is_refused(tmp_path: Path, members: int) -> None:
    with pytest.raises(LocalFederationError) as caught:
        LocalFederation.create(tmp_path, members)
    assert caught.value.reason is LocalReason.MEMBER_COUNT
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ran_before", [False, True])
def test_bitcoin_node_that_was_started_in_vain_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran_before: bool
) -> None:
    node = Mock(url="http://127.0.0.1:1", cookie_path=Path("/nowhere/.cookie"), pid=7)
    (tmp_path / "bitcoind").mkdir()
    if ran_before:
        (tmp_path / "bitcoind" / "bitcoin.conf").touch()
        monkeypatch.setattr(RegtestBitcoind, "attach", lambda _: node)
    else:
        monkeypatch.setattr(local_federation, "start_regtest", lambda *_, **__: node)
        monkeypatch.setattr(local_federation, "find_bitcoind", Mock())
    monkeypatch.setattr(local_federation, "create_local_federation", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        LocalFederation.create(tmp_path, 4)
    assert node.stop.called is not ran_before


def test_running_member_is_not_started_again(federation: LocalFederation) -> None:
    _pretend(federation, "alice", psutil.Process().cmdline()[-1])
    assert list(federation.running()) == ["alice"]
    with pytest.raises(LocalFederationError) as caught:
        federation.start_member("alice")
    assert caught.value.reason is LocalReason.ALREADY_RUNNING


def test_running_member_is_found_after_the_clock_was_set(
    federation: LocalFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(federation, "alice", psutil.Process().cmdline()[-1])
    monkeypatch.setattr(psutil.Process, "create_time", lambda _: 1.0)
    assert federation.is_running("alice")


def test_number_of_a_process_that_was_given_away_again_is_not_a_member(federation: LocalFederation) -> None:
    _pretend(federation, "bob", "another process was told this")
    assert not federation.is_running("bob")


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\xff",
        b"{}",
        b'{"pid":"\xff","config":"x"}',
        b'{"pid":-1,"config":"x"}',
        b'{"pid":9223372036854775807,"config":"x"}',
    ],
)
def test_note_about_a_process_that_names_none_is_no_member(federation: LocalFederation, note: bytes) -> None:
    (federation.directory / "run" / "dave.json").write_bytes(note)
    assert not federation.is_running("dave")


def test_member_that_ended_is_reported_with_its_last_words(federation: LocalFederation) -> None:
    federation.log_path("carol").write_text("one\ntwo\nerror: the disk is full\n")
    with pytest.raises(LocalFederationError) as caught:
        federation.wait_until_answering("carol")
    assert caught.value.reason is LocalReason.START_FAILED
    assert caught.value.detail == "carol does not start: the disk is full"
    federation.log_path("carol").write_text("one\ntwo\nkilled\n")
    with pytest.raises(LocalFederationError) as caught:
        federation.wait_until_answering("carol")
    assert caught.value.detail == "carol does not start: one / two / killed"
    with pytest.raises(LocalFederationError) as caught:
        federation.wait_until_answering("dave")
    assert "it left no log" in caught.value.detail


class _Immortal:
    """A process that no signal ends."""

    def __init__(self) -> None:
        self.signals: list[int] = []

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def wait(self, timeout: float) -> None:
        raise psutil.TimeoutExpired(timeout)


def test_member_that_does_not_end_is_killed_and_then_reported() -> None:
    process = _Immortal()
    with pytest.raises(LocalFederationError) as caught:
        local_federation._await_end("alice", cast(psutil.Process, process))
    assert caught.value.reason is LocalReason.STOP_FAILED
    assert process.signals == [9]


def test_port_that_only_the_node_knows_is_refused(federation: LocalFederation) -> None:
    config = federation.member_config("alice")
    unknown = msgspec.structs.replace(config, rpc=msgspec.structs.replace(config.rpc, bind="127.0.0.1:0"))
    with pytest.raises(LocalFederationError) as caught:
        client_of(unknown)
    assert caught.value.reason is LocalReason.PORT_UNKNOWN
