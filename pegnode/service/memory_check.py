"""Whether a member's journal is as new as its chain: an older copy of it, put back, would sign against itself."""

from federation.certificate import Certificate
from federation.journal import Journal
from pegnode.storage.store import ChainStore


def require_memory(journal: Journal, store: ChainStore) -> None:
    """Compare the journal with the newest certificates of the final chain.

    A member's vote is in its journal before it can be in any certificate, and leaves it only below the journal's floor.
    Raises JournalRefused (BEHIND).
    """
    for height in range(store.tip.header.height, 0, -1):
        data = store.certificate_at(height)
        if data is None:
            continue
        certificate = Certificate.decode(data)
        if certificate.view <= journal.floor_view:
            return
        journal.require_memory_of(certificate)
