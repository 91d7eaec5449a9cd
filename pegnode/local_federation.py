"""A whole federation on one machine, with its own regtest Bitcoin node: what `peg up` starts and `peg down` stops.

DIRECTORY/bitcoind/        the Bitcoin node
          federation/      members and keys, as `pegnode.setup.local` lays them out
          run/<name>.json  which process runs a member;  run/<name>.log  what it says
          wallets/         the users' wallets
"""

import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self

import msgspec
import psutil

import pegnode
from bridge.bitcoin.identifiers import BlockHash, hash_from_hex
from bridge.errors import Reason
from bridge.state import Anchor
from pegnode.bitcoind import RegtestBitcoind, find_bitcoind, start_regtest
from pegnode.clock import now_ms
from pegnode.config import FunctionaryConfig, L1Config, NodeConfig
from pegnode.errors import ReasonedError
from pegnode.folders import FUNCTIONARY_FILE, GENESIS_FILE, MEMBER_NAMES, NODE_FILE, NODE_NAME, PASSPHRASE_FILE
from pegnode.genesis_rules import L1_GENESIS_HASHES_HEX
from pegnode.rpc.client import DEFAULT_TIMEOUT_SECONDS, RpcClient, RpcClientError
from pegnode.rpc.results import StatusReply
from pegnode.setup.local import create_local_federation

START_DEADLINE_S: Final = 60.0
STOP_DEADLINE_S: Final = 20.0
POLL_S: Final = 0.1
LAST_WORDS_LINES: Final = 3
TEMPLATE_FILE: Final = "local.toml"
BITCOIND: Final = "bitcoind"
MAX_PID: Final = 1 << 22
"""Source: Linux, include/linux/threads.h, PID_MAX_LIMIT."""


class LocalReason(Reason):
    """Why the local federation is not as it should be."""

    ABSENT = "local-absent"
    """The directory holds no local federation."""
    UNKNOWN_MEMBER = "local-unknown-member"
    """The federation has no member of that name."""
    MEMBER_COUNT = "local-member-count"
    """More members than there are names for, or none."""
    ALREADY_RUNNING = "local-already-running"
    """The member's process runs."""
    START_FAILED = "local-start-failed"
    """The member's process ended, or did not answer in time."""
    STOP_FAILED = "local-stop-failed"
    """The member's process is still there after SIGKILL."""
    PORT_UNKNOWN = "local-port-unknown"
    """The node takes a free port, which its log alone tells."""


class LocalFederationError(ReasonedError):
    """Something about the local federation's directory or processes. reason: LocalReason."""


class _Run(msgspec.Struct, frozen=True):
    """Which process runs a member. config: what it was told to run, so that a reused number isn't mistaken.

    When it started would not do: what a system says of that changes when its clock is set.
    """

    pid: Annotated[int, msgspec.Meta(ge=1, le=MAX_PID)]
    config: str


def template_text() -> str:
    """The genesis template of a local federation, from the project's configs."""
    return (Path(pegnode.__file__).resolve().parent.parent / "configs" / TEMPLATE_FILE).read_text(encoding="utf-8")


def _sized(template: str, members: int) -> str:
    """The template for another number of members."""
    if not 1 <= members <= len(MEMBER_NAMES):
        detail = f"{members}; a local federation has 1 to {len(MEMBER_NAMES)} members"
        raise LocalFederationError(LocalReason.MEMBER_COUNT, detail)
    return re.sub(r"^member_count = \d+", f"member_count = {members}", template, count=1, flags=re.MULTILINE)


def with_timelock(template: str, blocks: int) -> str:
    """The template with another `recovery_timelock_blocks`."""
    name = "recovery_timelock_blocks"
    return re.sub(rf"^{name} = [\d_]+", f"{name} = {blocks}", template, count=1, flags=re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LocalFederation:
    """The federation in one directory. member_names: in the order of the members' index."""

    directory: Path
    member_names: tuple[str, ...]

    @classmethod
    def create(cls, directory: Path, members: int, template_toml: str | None = None) -> Self:
        """Start a new Bitcoin node in `directory` and make a federation to it, none of whose members runs yet.

        A Bitcoin node that an earlier attempt left there is used. template_toml: by default the project's.
        Raises LocalFederationError, BitcoindError, SetupRefused, GenesisRefused.
        """
        template = _sized(template_text() if template_toml is None else template_toml, members)
        datadir = directory / "bitcoind"
        runs = (datadir / "bitcoin.conf").exists() and RegtestBitcoind.attach(datadir).pid is not None
        node = RegtestBitcoind.attach(datadir) if runs else start_regtest(datadir, find_bitcoind(), detached=True)
        try:
            create_local_federation(
                directory / "federation",
                template,
                l1=L1Config(url=node.url, cookie_file=node.cookie_path),
                anchor=Anchor(0, BlockHash(hash_from_hex(L1_GENESIS_HASHES_HEX["regtest"]))),
                time_ms=now_ms(),
                random_bytes=secrets.token_bytes,
            )
        except BaseException:
            if not runs:
                node.stop()  # there is no federation to stop it with
            raise
        return cls.open(directory)

    @classmethod
    def open(cls, directory: Path) -> Self:
        """The federation that `create` made. Raises LocalFederationError (ABSENT)."""
        directory = directory.absolute()
        names = tuple(name for name in MEMBER_NAMES if (directory / "federation" / name / FUNCTIONARY_FILE).is_file())
        if not names:
            detail = f"no local federation in {directory}; make one with: peg up --dir {directory}"
            raise LocalFederationError(LocalReason.ABSENT, detail)
        return cls(directory, names)

    @property
    def bitcoind(self) -> RegtestBitcoind:
        """The Bitcoin node, running or not."""
        return RegtestBitcoind.attach(self.directory / "bitcoind")

    @property
    def genesis_path(self) -> Path:
        """The genesis file."""
        return self.node_config_path.parent / GENESIS_FILE

    @property
    def wallets(self) -> Path:
        """Where the users' wallets lie."""
        return self.directory / "wallets"

    @property
    def passphrase_path(self) -> Path:
        """What opens the members' keys, and the users' wallets, here."""
        return self.directory / "federation" / PASSPHRASE_FILE

    @property
    def node_config_path(self) -> Path:
        """The example configuration of a full node without keys."""
        return self.directory / "federation" / NODE_NAME / NODE_FILE

    def member_config_path(self, name: str) -> Path:
        """A member's configuration file. Raises LocalFederationError (UNKNOWN_MEMBER)."""
        if name not in self.member_names:
            detail = f"no member {name!r}; there are {', '.join(self.member_names)}"
            raise LocalFederationError(LocalReason.UNKNOWN_MEMBER, detail)
        return self.directory / "federation" / name / FUNCTIONARY_FILE

    def member_config(self, name: str) -> FunctionaryConfig:
        """A member's configuration."""
        return FunctionaryConfig.load(self.member_config_path(name))

    def log_path(self, name: str) -> Path:
        """Where a member's process writes its log."""
        return self.directory / "run" / f"{name}.log"

    def client(self, name: str) -> RpcClient:
        """A client of a member, running or not."""
        return client_of(self.member_config(name))

    def up(self) -> list[str]:
        """Start whatever does not run, and return the names of it when every member answers.

        Raises LocalFederationError, BitcoindError.
        """
        started = []
        if self.bitcoind.pid is None:
            start_regtest(self.directory / "bitcoind", find_bitcoind(), detached=True)
            started = [BITCOIND]
        members = [name for name in self.member_names if not self.is_running(name)]
        for name in members:
            self.start_member(name)
        for name in members:
            self.wait_until_answering(name)
        return [*started, *members]

    def down(self) -> list[str]:
        """Stop whatever runs, the members, then the Bitcoin node, and return the names of it.

        Raises LocalFederationError, BitcoindError.
        """
        processes = {name: process for name in self.member_names if (process := self.process(name)) is not None}
        for process in processes.values():
            _tell(process, signal.SIGTERM)
        for name, process in processes.items():
            _await_end(name, process)
        bitcoind = self.bitcoind
        if bitcoind.pid is None:
            return list(processes)
        bitcoind.stop()
        return [*processes, BITCOIND]

    def start_member(self, name: str) -> None:
        """Start a member's process, which outlives this one. Raises LocalFederationError (ALREADY_RUNNING)."""
        config = self.member_config_path(name)
        if self.is_running(name):
            raise LocalFederationError(LocalReason.ALREADY_RUNNING, f"{name} runs already")
        log = self.log_path(name)
        log.parent.mkdir(mode=0o700, exist_ok=True)
        with log.open("ab") as words:
            process = subprocess.Popen(
                self.member_command(name),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
            )
        self._run_path(name).write_bytes(msgspec.json.encode(_Run(process.pid, str(config))))

    def member_command(self, name: str) -> list[str]:
        """What runs a member."""
        config = str(self.member_config_path(name))
        return [sys.executable, "-m", "pegnode.cli.main", "functionary", "run", "--config", config]

    def stop_member(self, name: str) -> None:
        """End a member's process in order, if it runs. Raises LocalFederationError (STOP_FAILED)."""
        process = self.process(name)
        if process is not None:
            _tell(process, signal.SIGTERM)
            _await_end(name, process)

    def kill_member(self, name: str) -> None:
        """End a member's process at once, as a power failure would (SIGKILL)."""
        process = self.process(name)
        if process is not None:
            _tell(process, signal.SIGKILL)
            _await_end(name, process)

    def process(self, name: str) -> psutil.Process | None:
        """The process that runs a member; None when none does."""
        try:
            run = msgspec.json.decode(self._run_path(name).read_bytes(), type=_Run)
            process = psutil.Process(run.pid)
            return process if run.config in process.cmdline() else None
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError, psutil.NoSuchProcess, psutil.AccessDenied):
            return None

    def is_running(self, name: str) -> bool:
        """Whether a member's process runs."""
        return self.process(name) is not None

    def status(self, name: str) -> StatusReply | None:
        """What a member says of itself; None when it does not answer."""
        try:
            with self.client(name) as client:
                return client.ask(StatusReply, "getstatus")
        except RpcClientError:
            return None

    def wait_until_answering(self, name: str) -> None:
        """Return when a member's RPC answers. Raises LocalFederationError (START_FAILED), with its last words."""
        deadline = time.monotonic() + START_DEADLINE_S
        while self.status(name) is None:
            if not self.is_running(name) or time.monotonic() > deadline:
                raise LocalFederationError(LocalReason.START_FAILED, f"{name} does not start: {self._last_words(name)}")
            time.sleep(POLL_S)

    def running(self) -> Iterator[str]:
        """The names of the members that run."""
        return (name for name in self.member_names if self.is_running(name))

    def _run_path(self, name: str) -> Path:
        return self.directory / "run" / f"{name}.json"

    def _last_words(self, name: str) -> str:
        try:
            lines = self.log_path(name).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "it left no log"
        if lines and lines[-1].startswith("error: "):
            return lines[-1].removeprefix("error: ")  # it says why by itself; what is above may be of an earlier life
        return " / ".join(lines[-LAST_WORDS_LINES:])


def client_of(config: NodeConfig, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> RpcClient:
    """A client of the node with this configuration. Raises LocalFederationError for a port that only the node knows."""
    if config.rpc.port == 0:
        raise LocalFederationError(LocalReason.PORT_UNKNOWN, "rpc.bind has port 0: only the node's log tells its port")
    return RpcClient(f"http://{config.rpc.bind}", config.cookie_path, timeout_seconds=timeout_seconds)


def _tell(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal to a process; one that has just ended needs none."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _await_end(name: str, process: psutil.Process) -> None:
    """Wait for the end of a process that was told to go, then kill it."""
    try:
        process.wait(STOP_DEADLINE_S)
    except psutil.TimeoutExpired:
        _tell(process, signal.SIGKILL)
        try:
            process.wait(STOP_DEADLINE_S)
        except psutil.TimeoutExpired as error:
            raise LocalFederationError(LocalReason.STOP_FAILED, f"{name} does not end") from error
