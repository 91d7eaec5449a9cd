"""What the process keeps on disk: the chain's database and, for a member, its journal. Looked at, never written."""

from pathlib import Path

from federation.journal_entries import look_into_journal
from federation.journal_errors import RENEW, JournalReason, JournalRefused
from federation.journal_header import JournalIdentity
from federation.rocks import DiskError, Hold
from pegnode.chain.parameters import ChainRules
from pegnode.doctor.findings import Check, Finding, ok, problem, refused, warning
from pegnode.storage.database import Database
from pegnode.storage.errors import StorageError, StorageReason
from pegnode.storage.store import ChainStore

_FOREIGN = "correct name, data_dir or genesis: this is another member's journal, or another chain's"
_LOST = f"correct data_dir; if the journal is lost: {RENEW}"


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
        return refused(Check.DATABASE, error.detail, "everything in it can be fetched again from the members")
    height = store.tip.header.height
    store.close()
    return ok(Check.DATABASE, f"{path}: this chain's, whole, up to block {height}")


def journal(path: Path, identity: JournalIdentity | None, running: bool) -> Finding:
    """Whether a member still knows what it has voted for. running: our own process has it open.

    identity: whose it must be; None when the genesis names no such member, or can't be read.
    """
    if running:
        return ok(Check.JOURNAL, f"{path}: open, by the running process")
    if identity is None:
        return warning(
            Check.JOURNAL, "not looked at: the genesis names no such member", "see configuration and genesis"
        )
    try:
        with Hold(path):
            found = look_into_journal(path, identity)
        votes = found.contents()
        found.close()
    except DiskError as error:
        return problem(Check.JOURNAL, f"{path}: {error.detail}", "stop that process: a member must never run twice")
    except JournalRefused as error:
        if error.reason is JournalReason.FOREIGN:
            return problem(Check.JOURNAL, f"{path}: {error.detail}", _FOREIGN)
        return refused(Check.JOURNAL, error.detail, _LOST)
    last_view = max((vote.view for vote in votes.votes), default=votes.floor_view)
    return ok(Check.JOURNAL, f"{path}: this member's, with its votes up to view {last_view}")
