"""What `peg doctor` says of the process and its ports, running or not."""

import errno
import os
import socket
from pathlib import Path

import pytest

from pegnode.config import FunctionaryConfig, NodeConfig
from pegnode.doctor.findings import Check, Outcome
from pegnode.doctor.process import (
    PortState,
    Process,
    ask_process,
    check_port,
    check_process,
    check_way,
    port_state,
    ports,
)
from pegnode.net.address import Endpoint
from pegnode.ports import free_ports
from pegnode.rpc.client import ClientReason, RpcClientError
from pegnode.rpc.results import AnchorReply, HaltReply, L1Reply, StallReply, StatusReply
from tests.support.configs import FUNCTIONARY, NODE, changed

NOW_MS = 1_800_000_000_000
HERE = Endpoint("127.0.0.1", 9735)


def _status(**changes: object) -> Process:
    values: dict[str, object] = {
        "version": "0.1.0",
        "member": 0,
        "started_ms": NOW_MS,
        "uptime_ms": 1,
        "height": 7,
        "block_hash": "",
        "block_time_ms": NOW_MS,
        "best_known_height": 9,
        "syncing": False,
        "view": 8,
        "leader": 0,
        "anchor": AnchorReply(height=1, hash=""),
        "l1": L1Reply(
            state="ok",
            since_ms=0,
            cause="",
            detail="",
            remedy="",
            reachable=True,
            version="",
            height=1,
            block_hash="",
            feerate_sat_kvb=1,
        ),
        "members": [],
        "mempool_transactions": 0,
        "mempool_bytes": 0,
        "final_age_ms": 0,
        "timeout_ms": 2_000,
        "journal": None,
        "key_alarm": None,
        "stall": None,
        "halted": False,
        "halt_findings": [],
        "halts": [],
        "waiting_for": [],
    }
    return Process(StatusReply(**(values | changes)))  # type: ignore[arg-type]


def _failed(reason: ClientReason) -> Process:
    return Process(None, RpcClientError(reason, "what the client says"))


HALT = HaltReply("coin-gone", "aa:0", "a coin of 1 BTC was spent", NOW_MS, "find out by whom")


@pytest.mark.parametrize(
    ("process", "outcome", "word"),
    [
        (_status(), Outcome.OK, "runs, at block 7"),
        (_status(halted=True, halts=[HALT]), Outcome.PROBLEM, "coin-gone: a coin of 1 BTC was spent"),
        (_status(halted=True, halts=[HALT] * 9), Outcome.PROBLEM, "; and 4 more"),
        (_status(block_time_ms=NOW_MS + 2_001), Outcome.PROBLEM, "2.0 s ahead of this clock"),
        (_status(block_time_ms=NOW_MS + 2_000), Outcome.OK, "runs"),
        (_status(waiting_for=["a quorum", "bitcoind"]), Outcome.WARNING, "waits for a quorum; bitcoind"),
        (_status(key_alarm="a vote it never gave", halted=True), Outcome.PROBLEM, "a vote it never gave"),
        (_status(stall=StallReply(0, "2 reachable")), Outcome.PROBLEM, "no block becomes final: 2 reachable"),
        (_status(syncing=True), Outcome.WARNING, "block 7 of 9"),
        (Process(None), Outcome.OK, "does not run"),
        (_failed(ClientReason.NODE_UNREACHABLE), Outcome.OK, "does not run"),
        (_failed(ClientReason.UNAUTHORIZED), Outcome.PROBLEM, "what the client says"),
        (_failed(ClientReason.NO_COOKIE), Outcome.WARNING, "what the client says"),
        (_failed(ClientReason.TIMEOUT), Outcome.PROBLEM, "what the client says"),
        (_failed(ClientReason.BAD_REPLY), Outcome.PROBLEM, "what the client says"),
    ],
)
def test_process_is_judged_by_its_answer(process: Process, outcome: Outcome, word: str) -> None:
    finding = check_process(process, NOW_MS)
    assert (finding.check, finding.outcome) == (Check.PROCESS, outcome)
    assert word in finding.what
    assert bool(finding.remedy) is (outcome is not Outcome.OK)


def test_process_that_left_its_cookie_does_not_run(tmp_path: Path) -> None:
    [port] = free_ports(1)
    config = NodeConfig.parse(changed("127.0.0.1:8332", f"127.0.0.1:{port}", NODE), tmp_path)
    assert ask_process(config) == Process(None)
    config.data_dir.mkdir()
    config.cookie_path.write_text("__cookie__:" + "ab" * 32)
    config.cookie_path.chmod(0o600)
    answer = ask_process(config)
    assert answer.status is None
    assert answer.failure is not None
    assert answer.failure.reason is ClientReason.NODE_UNREACHABLE
    assert check_process(answer, NOW_MS).outcome is Outcome.OK
    unknown = NodeConfig.parse(changed("127.0.0.1:8332", "127.0.0.1:0", NODE), tmp_path)
    assert ask_process(unknown) == Process(None)


@pytest.mark.parametrize(
    ("state", "running", "outcome", "word"),
    [
        (PortState(HERE, 0), False, Outcome.OK, "free"),
        (PortState(HERE, errno.EADDRINUSE), True, Outcome.OK, "by the running process"),
        (PortState(HERE, 0), True, Outcome.PROBLEM, "does not listen there"),
        (PortState(HERE, errno.EADDRINUSE, "nginx (process 7)"), False, Outcome.PROBLEM, "in use by nginx (process 7)"),
        (PortState(HERE, errno.EADDRINUSE), False, Outcome.PROBLEM, "a process of another user"),
        (PortState(HERE, errno.EADDRNOTAVAIL), False, Outcome.PROBLEM, "no such address"),
        (PortState(HERE, errno.EACCES), False, Outcome.PROBLEM, "may not take it"),
        (PortState(HERE, errno.EINVAL), False, Outcome.PROBLEM, "EINVAL"),
        (PortState(Endpoint("127.0.0.1", 0), 0), False, Outcome.WARNING, "any free port"),
    ],
)
def test_port_is_judged(state: PortState, running: bool, outcome: Outcome, word: str) -> None:
    finding = check_port(Check.P2P_PORT, "p2p.listen", state, running)
    assert (finding.check, finding.outcome) == (Check.P2P_PORT, outcome)
    assert word in finding.what
    assert bool(finding.remedy) is (outcome is not Outcome.OK)


def test_port_is_tried_and_given_back() -> None:
    [port] = free_ports(1)
    endpoint = Endpoint("127.0.0.1", port)
    assert port_state(endpoint) == PortState(endpoint, 0)
    assert port_state(endpoint) == PortState(endpoint, 0)
    with socket.create_server(("127.0.0.1", port)):
        state = port_state(endpoint)
    assert state.error == errno.EADDRINUSE
    assert f"(process {os.getpid()})" in state.user


def test_port_of_another_machine_is_told_apart() -> None:
    assert port_state(Endpoint("203.0.113.7", 9735)).error == errno.EADDRNOTAVAIL


def test_full_node_may_listen_anywhere_and_a_member_not() -> None:
    anywhere = changed("/ip4/0.0.0.0/tcp/9735", "/ip4/127.0.0.1/tcp/0", NODE)
    _, node = ports(NodeConfig.parse(anywhere, Path("/x")), running=False)
    assert (node.check, node.outcome) == (Check.P2P_PORT, Outcome.OK)
    anywhere = changed("/ip4/0.0.0.0/tcp/9735", "/ip4/127.0.0.1/tcp/0", FUNCTIONARY)
    _, member, _ = ports(FunctionaryConfig.parse(anywhere, Path("/x")), running=False)
    assert (member.check, member.outcome) == (Check.P2P_PORT, Outcome.WARNING)


@pytest.mark.parametrize(
    ("listen", "others", "outcomes"),
    [
        ("127.0.0.1", ["203.0.113.7"], [Outcome.WARNING]),
        ("::1", ["127.0.0.1", "bob.example"], [Outcome.WARNING]),
        ("127.0.0.1", ["127.0.0.1", "localhost"], []),
        ("127.0.0.1", [], []),
        ("0.0.0.0", ["203.0.113.7"], []),
    ],
)
def test_member_that_listens_to_its_own_machine_is_warned(
    listen: str, others: list[str], outcomes: list[Outcome]
) -> None:
    found = check_way(Endpoint(listen, 9735), [Endpoint(host, 9735) for host in others])
    assert [(finding.check, finding.outcome) for finding in found] == [(Check.P2P_PORT, one) for one in outcomes]


def test_folder_that_may_not_be_looked_into_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    assert ask_process(NodeConfig.parse(NODE, Path("/x"))) == Process(None)
