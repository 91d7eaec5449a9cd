"""A process's data directory, checked as a whole while no process runs on it."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from federation.journal_header import JournalIdentity
from federation.rocks import DiskError, DiskFault, held_still
from pegnode.chain.parameters import ChainRules
from pegnode.folders import CHAIN_FOLDER, JOURNAL_FOLDER
from pegnode.storage.check import ChainReport, Progress, check_chain
from pegnode.storage.errors import StorageError, StorageReason
from pegnode.storage.journal_check import JournalReport, check_journal
from pegnode.storage.store import ChainStore


@dataclass(frozen=True, slots=True)
class DataReport:
    """What was checked and found well. journal: None of a process without keys."""

    chain: ChainReport
    journal: JournalReport | None


def check_data(
    data_dir: Path,
    rules: ChainRules,
    identity: JournalIdentity | None,
    progress: Progress,
    *,
    is_signer: bool = False,
) -> DataReport:
    """Check the chain, and with `identity` the journal, in a data directory; no file in it is changed.

    is_signer: the journal is a signer's, which holds votes and no blocks.

    Needs as much room for temporary files as the chain takes. Raises WrongRecord for the first thing that is wrong,
    StorageError or JournalRefused when something can't be read, StorageError (LOCKED) while a process runs on it.
    """
    chain, journal = data_dir / CHAIN_FOLDER, data_dir / JOURNAL_FOLDER
    with ExitStack() as stack:
        stack.enter_context(_still(chain))
        if identity is not None:
            stack.enter_context(_still(journal))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pegnode-check-")))
        chain_report = check_chain(chain, rules, scratch, progress)
        if identity is None:
            return DataReport(chain_report, None)
        progress("journal", 0, 1)
        store = stack.enter_context(closing(ChainStore.look(chain, rules)))
        found = check_journal(journal, identity, store, rules, has_bodies=not is_signer)
        return DataReport(chain_report, found)


@contextmanager
def _still(path: Path) -> Iterator[None]:
    """Keep processes away from a directory. Raises StorageError (LOCKED)."""
    with ExitStack() as stack:
        try:
            stack.enter_context(held_still(path))
        except DiskError as error:
            if error.fault is not DiskFault.LOCKED:
                raise StorageError(StorageReason.UNUSABLE, f"can't use {path}: {error.detail}") from error
            detail = f"the process that uses {path} runs; stop it first, or ask it with: peg audit"
            raise StorageError(StorageReason.LOCKED, detail) from error
        yield
