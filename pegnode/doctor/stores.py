"""What the process keeps on disk: the chain's database and, for a member, its journal. Looked at, never written."""

from pathlib import Path

from federation.rocks import CATALOGUE_FILE, DiskError, Hold
from pegnode.chain.parameters import ChainRules
from pegnode.doctor.findings import Check, Finding, ok, problem
from pegnode.storage.database import Database
from pegnode.storage.errors import StorageError, StorageReason
from pegnode.storage.store import ChainStore

JOURNAL_LOST = (
    "never begin another, and never restore an old one: the member could vote against its own word. Correct data_dir;"
    " if the journal is lost, stay out until the federation has agreed on what to do"
)


def database(path: Path, rules: ChainRules, running: bool) -> Finding:
    """Whether the chain's database can be opened, and is of this chain. running: our own process has it open."""
    if running:
        return ok(Check.DATABASE, f"{path}: open, by the running process")
    try:
        if Database.exists(path):
            Database.require_free(path)
        store = ChainStore.look(path, rules)
    except StorageError as error:
        if error.reason is StorageReason.MISSING:
            return ok(Check.DATABASE, "none yet: the chain is fetched from the members at the first start")
        what, _, remedy = error.detail.partition("; ")
        return problem(Check.DATABASE, what, remedy or "see there; everything in it can be fetched again")
    height = store.tip.header.height
    store.close()
    return ok(Check.DATABASE, f"{path}: this chain's, whole, up to block {height}")


def journal(path: Path, running: bool) -> Finding:
    """Whether a member still knows what it has voted for. running: our own process has it open."""
    if not (path / CATALOGUE_FILE).exists():
        return problem(Check.JOURNAL, f"there is no journal in {path}", JOURNAL_LOST)
    if running:
        return ok(Check.JOURNAL, f"{path}: open, by the running process")
    try:
        with Hold(path):
            return ok(Check.JOURNAL, f"{path}: there, and nobody else has it open")
    except DiskError as error:
        return problem(Check.JOURNAL, f"{path}: {error.detail}", "stop that process: a member must never run twice")
