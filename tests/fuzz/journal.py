"""The decoders of a member's journal: its header, and all that may stand on its disk."""

from bridge.errors import MalformedError
from federation.certificate import VoteKind
from federation.journal import Journal
from federation.journal_errors import JournalRefused
from federation.journal_header import JournalHeader, JournalIdentity, JournalState
from tests.fuzz.chooser import Chooser
from tests.fuzz.decoders import Decoder
from tests.fuzz.scene import certificate, scene, vote
from tests.support.memory_entries import MemoryEntries

IDENTITY = JournalIdentity(bytes(range(32)), 0, 1)


def journal_decoders() -> tuple[Decoder, ...]:
    """Both, with what a journal holds as samples."""
    return (
        Decoder(
            "federation.journal_header:JournalHeader.decode",
            JournalHeader.decode,
            (MalformedError,),
            tuple(JournalHeader(state, IDENTITY, 9, 4).encode() for state in JournalState),
            JournalHeader.encode,
        ),
        Decoder("federation.journal:Journal.open", open_journal, (JournalRefused,), _journal_samples()),
    )


def open_journal(data: bytes) -> object:
    """The contents of a journal on a disk that says anything: header, then entries, each field with its length."""
    fields = Chooser(data)
    entries = MemoryEntries()
    written = {b"\x00": fields.take(fields.below(256))} if data else {}
    while fields:
        key = fields.take(fields.below(64))
        written[key] = fields.take(fields.below(65_536))
    entries.write({_HEADER_KEY if key == b"\x00" else key: value for key, value in written.items()}, sync=True)
    return Journal.open(entries, IDENTITY).contents()


def _journal_samples() -> tuple[bytes, ...]:
    entries = MemoryEntries()
    journal = Journal.create(entries, IDENTITY, 4)
    empty = _entries_text(entries)
    block = scene().block
    journal.witness(vote(VoteKind.NULLIFY, 5, b"", IDENTITY.member + 1))
    journal.record_vote(vote(VoteKind.NOTARIZE, 5, block.hash, IDENTITY.member), b"a body")
    journal.record_certificate(certificate(VoteKind.NULLIFY, 6, b""))
    return empty, _entries_text(entries)


def _entries_text(entries: MemoryEntries) -> bytes:
    header = entries.get(_HEADER_KEY) or b""
    others = [(key, value) for key, value in entries.scan(b"", b"\xff" * 50) if key != _HEADER_KEY]
    text = [bytes([len(key)]) + key + len(value).to_bytes(2, "little") + value for key, value in others]
    return bytes([len(header)]) + header + b"".join(text)


def _header_key() -> bytes:
    entries = MemoryEntries()
    Journal.create(entries, IDENTITY)
    return entries.scan(b"", b"\xff" * 50)[0][0]


_HEADER_KEY = _header_key()
