"""The process itself, if it runs, and the ports that it has or would take."""

import errno
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from pegnode.config import FunctionaryConfig, NodeConfig
from pegnode.doctor.findings import Check, Finding, ok, problem, warning
from pegnode.net.address import Endpoint, parse_endpoint
from pegnode.rpc.client import ClientReason, RpcClient, RpcClientError
from pegnode.rpc.results import HaltReply, StatusReply

ASK_TIMEOUT_S = 10.0
MOST_FINDINGS_TOLD = 5


@dataclass(frozen=True, slots=True)
class Process:
    """What answers at the RPC. status: of our own node, None when it does not run.  failure: why it gave none."""

    status: StatusReply | None
    failure: RpcClientError | None = None


def ask_process(config: NodeConfig) -> Process:
    """Ask whatever runs on this configuration how it is."""
    try:
        if config.rpc.port == 0 or not config.cookie_path.exists():
            return Process(None)
    except OSError:  # the folder may not be looked into: its own check says so
        return Process(None)
    try:
        with RpcClient(f"http://{config.rpc.bind}", config.cookie_path, timeout_seconds=ASK_TIMEOUT_S) as client:
            return Process(client.ask(StatusReply, "getstatus"))
    except RpcClientError as error:
        return Process(None, error)


def check_process(process: Process, now_ms: int) -> Finding:
    """What the process says of itself. now_ms: Unix time in milliseconds."""
    status = process.status
    if status is None:
        return _check_silent(process.failure)
    if status.key_alarm is not None:
        return problem(Check.PROCESS, status.key_alarm, "stop it, and take this key for stolen: tell the other members")
    if status.halted:
        return _check_halt(status.halts)
    if status.stall is not None:
        return problem(
            Check.PROCESS,
            f"no block becomes final: {status.stall.why}",
            "see 'When the chain stands' in docs/operating.md",
        )
    ahead_ms = status.block_time_ms - now_ms
    if ahead_ms > 2_000:
        what = f"the newest block's time is {ahead_ms / 1000:.1f} s ahead of this clock"
        return problem(Check.PROCESS, what, "set this machine's clock, and keep it right with NTP")
    if status.waiting_for:
        return warning(Check.PROCESS, f"waits for {'; '.join(status.waiting_for)}", "see the lines below")
    if status.syncing:
        what = f"catching up: block {status.height} of {status.best_known_height}"
        return warning(Check.PROCESS, what, "wait; see the log if it stands still")
    return ok(Check.PROCESS, f"runs, at block {status.height}")


def _check_halt(halts: Sequence[HaltReply]) -> Finding:
    """Why it is halted, some of it, and what to do about each kind of finding."""
    told = [f"{item.kind}: {item.detail}" for item in halts[:MOST_FINDINGS_TOLD]]
    more = [f"and {len(halts) - len(told)} more"] if len(halts) > len(told) else []
    remedies = "; ".join(dict.fromkeys(item.remedy for item in halts))
    what = f"halted, and does nothing that concerns Bitcoin: {'; '.join([*told, *more])}"
    return problem(Check.PROCESS, what, f"a halt does not clear itself: {remedies}")


def _check_silent(failure: RpcClientError | None) -> Finding:
    if failure is None or failure.reason is ClientReason.NODE_UNREACHABLE:
        return ok(Check.PROCESS, "does not run")
    if failure.reason is ClientReason.UNAUTHORIZED:
        return problem(
            Check.PROCESS, str(failure), "another process has the port: give rpc.bind another, or stop that one"
        )
    if failure.reason is ClientReason.NO_COOKIE:
        return warning(Check.PROCESS, str(failure), "run this as the user that runs the process")
    return problem(Check.PROCESS, str(failure), "see what listens there; restart the process if it is ours")


@dataclass(frozen=True, slots=True)
class PortState:
    """What became of trying to take a port. error: the system's number, 0 when it is free.  user: who has it."""

    endpoint: Endpoint
    error: int
    user: str = ""


def check_port(check: Check, option: str, state: PortState, running: bool) -> Finding:
    """Whether the port is there for us. running: our own process runs, and so has it."""
    host, port = state.endpoint.host, state.endpoint.port
    where = f"{option}, port {port} of {host}"
    if port == 0:
        remedy = f"give {option} a number, so that others find it again after a restart"
        return warning(check, f"{option} takes any free port", remedy)
    if running:
        if state.error == errno.EADDRINUSE:
            return ok(check, f"{where}: in use, by the running process")
        remedy = "the configuration was changed since the process began: restart it"
        return problem(check, f"{where}: the running process does not listen there", remedy)
    if state.error == 0:
        return ok(check, f"{where}: free")
    if state.error == errno.EADDRINUSE:
        remedy = f"stop that process, or give {option} another port"
        return problem(check, f"{where}: in use by {state.user or 'a process of another user'}", remedy)
    if state.error == errno.EADDRNOTAVAIL:
        remedy = f"correct {option}: use one of this machine's addresses, or 0.0.0.0 for all of them"
        return problem(check, f"{where}: this machine has no such address", remedy)
    if state.error in (errno.EACCES, errno.EPERM):
        return problem(check, f"{where}: this user may not take it", f"give {option} a port from 1024 on")
    return problem(check, f"{where}: {errno.errorcode.get(state.error, state.error)}", f"correct {option}")


def port_state(endpoint: Endpoint) -> PortState:
    """Take the port for a moment, without listening, and give it back."""
    if endpoint.port == 0:
        return PortState(endpoint, 0)
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((endpoint.host, endpoint.port))
    except OSError as error:
        number = error.errno or errno.EINVAL
        return PortState(endpoint, number, _listener(endpoint.port) if number == errno.EADDRINUSE else "")
    return PortState(endpoint, 0)


def _listener(port: int) -> str:
    """Which process listens on a port; empty when this user may not know."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""


def check_way(listen: Endpoint, others: Sequence[Endpoint]) -> list[Finding]:
    """Whether members on other machines could reach a member that listens here."""
    elsewhere = [other.host for other in others if not _is_loopback(other.host)]
    if not elsewhere or not _is_loopback(listen.host):
        return []
    what = f"p2p.listen, {listen.host}, is reached from this machine alone, and {elsewhere[0]} is another one"
    return [warning(Check.P2P_PORT, what, "listen on 0.0.0.0, or on the address that the others dial")]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def ports(config: NodeConfig, running: bool) -> list[Finding]:
    """Both ports of a process. Nobody dials a full node, so it may take any port."""
    listen = parse_endpoint(config.p2p.listen)
    is_member = isinstance(config, FunctionaryConfig)
    found = [check_port(Check.RPC_PORT, "rpc.bind", port_state(Endpoint(config.rpc.host, config.rpc.port)), running)]
    if listen.port or is_member:
        found.append(check_port(Check.P2P_PORT, "p2p.listen", port_state(listen), running))
    else:
        found.append(ok(Check.P2P_PORT, "p2p.listen takes any free port: nobody dials a full node"))
    if is_member:
        found += check_way(listen, [parse_endpoint(peer.address) for peer in config.p2p.peers])
    return found
