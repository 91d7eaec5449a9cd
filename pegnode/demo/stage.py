"""The place where a demonstration runs: a temporary directory and the processes in it, all gone when it is struck."""

import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psutil

from pegnode.bitcoind import BitcoindError, RegtestBitcoind
from pegnode.demo.errors import DemoFailed, DemoReason
from pegnode.local_federation import LocalFederation, LocalFederationError, LocalReason

PREFIX: Final = "pegnode-demo-"
LOGS_PREFIX: Final = "pegnode-demo-logs-"
KILL_DEADLINE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A directory of its own, and every process that was started in it. Everything here blocks."""

    directory: Path

    @classmethod
    def open(cls) -> Self:
        """Make a new directory below the system's one for temporary files. Raises DemoFailed (NO_DIRECTORY)."""
        try:
            return cls(Path(tempfile.mkdtemp(prefix=PREFIX)))
        except OSError as error:
            detail = f"no temporary directory can be made: {error.strerror}; TMPDIR names the place for it"
            raise DemoFailed(DemoReason.NO_DIRECTORY, detail) from error

    def end_processes(self) -> None:
        """End every process, in order where that works and by force where not. Raises DemoFailed (NOT_CLEARED)."""
        try:
            self._end_in_order()
        finally:
            self.kill()
        left = [str(process.pid) for process in self._processes()]
        if left:
            raise DemoFailed(DemoReason.NOT_CLEARED, f"processes {', '.join(left)} do not end")

    def kill(self) -> None:
        """End every process at once."""
        processes = self._processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=KILL_DEADLINE_S)

    def clear(self) -> None:
        """Remove the directory. Raises DemoFailed (NOT_CLEARED)."""
        try:
            shutil.rmtree(self.directory)
        except OSError as error:
            raise DemoFailed(DemoReason.NOT_CLEARED, f"{self.directory} can't be removed: {error.strerror}") from error

    def save_logs(self) -> Path | None:
        """Copy what the processes wrote to a directory that stays; None when they wrote nothing."""
        bitcoind = self.directory / "bitcoind"
        candidates = (*self.member_logs(), bitcoind / "bitcoind.out", bitcoind / "regtest" / "debug.log")
        logs = [log for log in candidates if log.is_file()]
        if not logs:
            return None
        saved = Path(tempfile.mkdtemp(prefix=LOGS_PREFIX))
        for log in logs:
            shutil.copy(log, saved)
        return saved

    def member_logs(self) -> list[Path]:
        """What the members wrote; a member's name is the file's stem."""
        return sorted((self.directory / "run").glob("*.log"))

    def _end_in_order(self) -> None:
        """Stop the members, then the Bitcoin node; one that does not stop is for `kill`."""
        try:
            LocalFederation.open(self.directory).down()
        except BitcoindError:
            return
        except LocalFederationError as error:
            if error.reason is LocalReason.ABSENT and (self.directory / "bitcoind" / "bitcoin.conf").exists():
                RegtestBitcoind.attach(self.directory / "bitcoind").stop()

    def _processes(self) -> list[psutil.Process]:
        """The descendants of this process that were told of the directory, and live."""
        return [process for process in psutil.Process().children(recursive=True) if self._belongs_here(process)]

    def _belongs_here(self, process: psutil.Process) -> bool:
        try:
            is_dead = process.status() == psutil.STATUS_ZOMBIE
            return not is_dead and any(str(self.directory) in argument for argument in process.cmdline())
        except psutil.Error:
            return False
