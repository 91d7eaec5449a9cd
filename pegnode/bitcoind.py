"""The Bitcoin node's program: finding it, fetching it, and running it on a private regtest chain.

Everything here blocks; from trio, call it through `trio.to_thread.run_sync`. A node's settings, its ports among them,
stand in the `bitcoin.conf` of its data directory, so `bitcoin-cli -datadir=…` and a later process find it too.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from bridge.errors import Reason
from bridge.l1.client import L1Client
from bridge.l1.credentials import CookieAuth
from bridge.l1.errors import L1Error, L1Reason, L1Unavailable
from bridge.l1.jsonrpc import Call, decode_result, encode_call
from pegnode.errors import ReasonedError
from pegnode.plain_http import no_authorities
from pegnode.ports import free_ports

MINIMUM_MAJOR: Final = 25
"""The oldest release whose RPC has all that `bridge.l1.client` asks."""
START_DEADLINE_S: Final = 60.0
STOP_DEADLINE_S: Final = 30.0

_SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "fetch-bitcoind.sh"
_VERSION = re.compile(r"version v?(\d+)\.")
_POLL_S = 0.05
_PORT_ATTEMPTS = 3


class BitcoindReason(Reason):
    """What is wrong with the Bitcoin node's program."""

    NOT_FOUND = "bitcoind-not-found"  # There is no bitcoind on the path or where setup puts it.
    INSTALL_FAILED = "bitcoind-install-failed"  # The script that fetches a bitcoind failed, or is not there.
    ALREADY_RUNNING = "bitcoind-already-running"  # A bitcoind runs on the data directory.
    START_FAILED = "bitcoind-start-failed"  # It ended while starting, or did not answer in time.
    NOT_SET_UP = "bitcoind-not-set-up"
    """The data directory holds no node made by `start_regtest`."""
    STOP_FAILED = "bitcoind-stop-failed"  # Its process does not end.


class BitcoindError(ReasonedError):
    """The Bitcoin node's program isn't there, or didn't do as told."""

    reason: BitcoindReason


class BitcoindNotFound(BitcoindError):  # noqa: N818 -- as FileNotFoundError, without stuttering
    """No bitcoind that is new enough, neither on PATH nor in the private prefix."""

    def __init__(self, prefix: Path) -> None:
        super().__init__(
            BitcoindReason.NOT_FOUND,
            f"no bitcoind of version {MINIMUM_MAJOR} or newer on PATH or under {prefix}; run: peg bitcoind install",
        )


@dataclass(frozen=True, slots=True)
class BitcoindProgram:
    """An executable bitcoind. version: the line that it prints about itself; major: 29 for 29.4."""

    path: Path
    version: str
    major: int


def default_prefix() -> Path:
    """Return where a private bitcoind lies: $XDG_DATA_HOME/pegnode/bitcoind, by default under ~/.local/share."""
    data_home = os.environ.get("XDG_DATA_HOME")
    return (Path(data_home) if data_home else Path.home() / ".local" / "share") / "pegnode" / "bitcoind"


def find_bitcoind(prefix: Path | None = None) -> BitcoindProgram:
    """Return the first bitcoind that is new enough, on PATH, then under `prefix`; raises BitcoindNotFound."""
    prefix = prefix or default_prefix()
    on_path = shutil.which("bitcoind")
    for path in ([Path(on_path)] if on_path else []) + [prefix / "bin" / "bitcoind"]:
        program = _inspect(path)
        if program is not None and program.major >= MINIMUM_MAJOR:
            return program
    raise BitcoindNotFound(prefix)


def install_bitcoind(prefix: Path | None = None) -> BitcoindProgram:
    """Fetch a bitcoind into `prefix` unless one is there or on PATH; its progress goes to standard output and error.

    Raises BitcoindError(INSTALL_FAILED) when the script fails, which has then said why in one line.
    """
    prefix = prefix or default_prefix()
    if not _SCRIPT.is_file():
        raise BitcoindError(BitcoindReason.INSTALL_FAILED, "scripts/fetch-bitcoind.sh is not beside this package")
    completed = subprocess.run(["/bin/sh", str(_SCRIPT), str(prefix)], check=False)
    if completed.returncode != 0:
        raise BitcoindError(BitcoindReason.INSTALL_FAILED, "scripts/fetch-bitcoind.sh failed")
    return find_bitcoind(prefix)


def _inspect(path: Path) -> BitcoindProgram | None:
    try:
        told = subprocess.run([str(path), "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    version = told.stdout.partition("\n")[0].strip()
    found = _VERSION.search(version)
    return BitcoindProgram(path, version, int(found[1])) if told.returncode == 0 and found else None


class RegtestBitcoind:
    """A bitcoind on a regtest chain of its own, under one data directory.

    A context manager, which stops it. Without `detached` it belongs to this process's group and so gets its Ctrl-C.
    """

    def __init__(
        self, datadir: Path, rpc_port: int, p2p_port: int | None, process: "subprocess.Popen[bytes] | None"
    ) -> None:
        """Describe a node; `start_regtest` and `attach` make these. process: None when another process started it."""
        self.datadir = datadir
        self.rpc_port = rpc_port
        self.p2p_port = p2p_port
        self._process = process

    @classmethod
    def attach(cls, datadir: Path) -> Self:
        """Return the node that lives in `datadir`, running or not; raises BitcoindError(NOT_SET_UP)."""
        datadir = datadir.absolute()
        rpc_port, p2p_port = _read_ports(datadir)
        return cls(datadir, rpc_port, p2p_port, None)

    @property
    def url(self) -> str:
        """Where its RPC listens."""
        return f"http://127.0.0.1:{self.rpc_port}"

    @property
    def cookie_path(self) -> Path:
        """The file with its RPC credentials; there while it runs."""
        return self.datadir / "regtest" / ".cookie"

    @property
    def pid(self) -> int | None:
        """Its process; None when it isn't running."""
        return _running_pid(self.datadir)

    def client(self) -> L1Client:
        """Return a new client of it, to be closed by the caller."""
        return L1Client(self.url, CookieAuth(self.cookie_path))

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> None:
        """End the process: by RPC, then by signals; nothing happens when it isn't running.

        Raises BitcoindError(STOP_FAILED) when it is still there after twice the deadline.
        """
        pid = self._process.pid if self._process is not None else self.pid
        if pid is None or self._has_ended(pid):
            return
        try:
            self._call("stop")
        except L1Error:
            self._signal(pid, signal.SIGTERM)
        if self._ends_within(pid, deadline_s):
            return
        self._signal(pid, signal.SIGKILL)
        if not self._ends_within(pid, deadline_s):
            raise BitcoindError(BitcoindReason.STOP_FAILED, f"process {pid} does not end")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _has_ended(self, pid: int) -> bool:
        if self._process is not None:
            return self._process.poll() is not None
        return not _is_bitcoind_of(pid, self.datadir)

    def _ends_within(self, pid: int, deadline_s: float) -> bool:
        deadline = time.monotonic() + deadline_s
        while not self._has_ended(pid):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _signal(self, pid: int, number: signal.Signals) -> None:
        if not self._has_ended(pid):
            os.kill(pid, number)

    def _call(self, method: str) -> None:
        """Make one RPC without an event loop; raises L1Error."""
        call = Call(method)
        try:
            answer = httpx.post(
                self.url,
                content=encode_call(call),
                auth=httpx.BasicAuth(*CookieAuth(self.cookie_path).read()),
                timeout=10.0,
                trust_env=False,
                verify=no_authorities(),
            )
        except httpx.TransportError as error:
            raise L1Unavailable(L1Reason.UNREACHABLE, type(error).__name__) from error
        decode_result(call, answer.status_code, answer.content)

    def wait_until_ready(self, deadline_s: float) -> None:
        """Return once the RPC answers; raises BitcoindError(START_FAILED) when it ends or the deadline passes."""
        deadline = time.monotonic() + deadline_s
        while True:
            if self._process is not None and self._process.poll() is not None:
                raise BitcoindError(BitcoindReason.START_FAILED, _last_words(self.datadir))
            try:
                return self._call("getblockchaininfo")
            except L1Error as error:
                if time.monotonic() > deadline:
                    raise BitcoindError(BitcoindReason.START_FAILED, f"no answer in time: {error}") from error
            time.sleep(_POLL_S)


def start_regtest(
    datadir: Path,
    program: BitcoindProgram | None = None,
    *,
    listen: bool = False,
    detached: bool = False,
    settings: Mapping[str, str] | None = None,
    deadline_s: float = START_DEADLINE_S,
) -> RegtestBitcoind:
    """Start a regtest node with its own data directory, and return once its RPC answers.

    datadir: made if absent; one that held a node before keeps its chain, ports and settings.
    program: by default what `find_bitcoind` finds.  listen: accept peers, on a free port of 127.0.0.1.
    detached: let it outlive this process.  settings: more lines for bitcoin.conf, names without a dash.
    Raises BitcoindNotFound, and BitcoindError(ALREADY_RUNNING, START_FAILED).
    """
    program = program or find_bitcoind()
    datadir = datadir.absolute()
    if _running_pid(datadir) is not None:
        raise BitcoindError(BitcoindReason.ALREADY_RUNNING, f"a bitcoind runs in {datadir}")
    datadir.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = not (datadir / "bitcoin.conf").exists()
    attempts = 0
    while True:
        attempts += 1
        if fresh:
            _write_settings(datadir, listen, settings or {})
        node = _launch(datadir, program, detached)
        try:
            node.wait_until_ready(deadline_s)
            return node
        except BaseException as error:
            node.stop()
            if not fresh:
                raise
            (datadir / "bitcoin.conf").unlink()  # what never ran is not kept
            if attempts == _PORT_ATTEMPTS or not _is_port_taken(error):
                raise


def _is_port_taken(error: BaseException) -> bool:
    """Whether another process took a port between our looking for it and bitcoind's using it."""
    return isinstance(error, BitcoindError) and any(
        words in error.detail for words in ("Unable to bind", "Unable to start HTTP server")
    )


def _launch(datadir: Path, program: BitcoindProgram, detached: bool) -> RegtestBitcoind:
    rpc_port, p2p_port = _read_ports(datadir)
    with _words_path(datadir).open("wb") as words:
        process = subprocess.Popen(
            [str(program.path), f"-datadir={datadir}"],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=detached,
        )
    return RegtestBitcoind(datadir, rpc_port, p2p_port, process)


def _write_settings(datadir: Path, listen: bool, settings: Mapping[str, str]) -> None:
    rpc_port, p2p_port = free_ports(2)
    lines = {
        "server": "1",
        "txindex": "1",
        "fallbackfee": "0.00002",
        "dbcache": "32",
        "par": "1",
        "printtoconsole": "0",
        "dnsseed": "0",
        "discover": "0",
        "listenonion": "0",
        "natpmp": "0",
        # Bitcoin Knots takes lock time 21 for a mark of spam, and its own wallet picks lock times by chance. Others
        # pass over a setting that they don't know.
        "rejectparasites": "0",
        "rpcport": str(rpc_port),
        **({"bind": f"127.0.0.1:{p2p_port}"} if listen else {"listen": "0"}),
        **settings,
    }
    text = "regtest=1\n\n[regtest]\n" + "".join(f"{name}={value}\n" for name, value in lines.items())
    (datadir / "bitcoin.conf").write_text(text, encoding="utf-8")


def _read_ports(datadir: Path) -> tuple[int, int | None]:
    """Return the RPC port and the port for peers, None when it doesn't listen; raises BitcoindError(NOT_SET_UP)."""
    try:
        text = (datadir / "bitcoin.conf").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BitcoindError(BitcoindReason.NOT_SET_UP, f"no bitcoin.conf in {datadir}") from error
    rpc = re.search(r"^rpcport=(\d{1,5})$", text, re.MULTILINE)
    peers = re.search(r"^bind=127\.0\.0\.1:(\d{1,5})$", text, re.MULTILINE)
    if rpc is None:
        raise BitcoindError(BitcoindReason.NOT_SET_UP, f"no rpcport in the bitcoin.conf of {datadir}")
    return int(rpc[1]), int(peers[1]) if peers else None


def _running_pid(datadir: Path) -> int | None:
    try:
        pid = int((datadir / "regtest" / "bitcoind.pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return pid if _is_bitcoind_of(pid, datadir) else None


def _is_bitcoind_of(pid: int, datadir: Path) -> bool:
    """Whether the process `pid` is the bitcoind of `datadir`: a pid file may outlive its process."""
    if not Path("/proc/self/cmdline").exists():  # not Linux: the number alone has to do
        try:
            os.kill(pid, 0)
        except OSError:
            return False
        return True
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(f"-datadir={datadir}") in arguments


def _words_path(datadir: Path) -> Path:
    return datadir / "bitcoind.out"


def _last_words(datadir: Path) -> str:
    """Return the first error that the program printed, or else its last line."""
    lines = [line.strip() for line in _words_path(datadir).read_text("utf-8", "replace").split("\n") if line.strip()]
    errors = [line for line in lines if line.startswith("Error")]
    return (errors[:1] or lines[-1:] or ["it ended without a word"])[0]
