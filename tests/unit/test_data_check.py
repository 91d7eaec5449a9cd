"""`peg db check`'s work: a sound data directory passes untouched, and the first wrong record is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.bitcoin.identifiers import BlockHash
from federation.certificate import VoteKind
from federation.journal import Journal
from federation.journal_entries import RocksEntries, create_journal, open_journal
from federation.journal_errors import JournalReason, JournalRefused
from federation.journal_header import JournalHeader, JournalState
from federation.rocks import Hold
from pegnode.chain.block import Block
from pegnode.folders import CHAIN_FOLDER, JOURNAL_FOLDER
from pegnode.storage.check import CheckReason, WrongRecord
from pegnode.storage.data_check import check_data
from pegnode.storage.database import Changes, Database
from pegnode.storage.errors import StorageError, StorageReason
from pegnode.storage.keys import equivocation_key, height_key
from pegnode.storage.store import FAMILIES, ChainStore
from tests.support.equivocations import equivocation
from tests.support.final_chains import MEMBER, DataDirectory, certificate, grown_chain, own_vote
from tests.support.halts import latched
from tests.support.stores import files

OTHER = BlockHash(bytes(31) + b"\x01")


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    return grown_chain(tmp_path / "data", empty_blocks=19)


def check(data: DataDirectory) -> None:
    check_data(data.path, data.rules, data.identity, lambda *_: None)


def wrong(data: DataDirectory) -> WrongRecord:
    """The finding; checked: that looking for it changed nothing."""
    before = [files(data.path / folder) for folder in (CHAIN_FOLDER, JOURNAL_FOLDER)]
    with pytest.raises(WrongRecord) as caught:
        check(data)
    assert [files(data.path / folder) for folder in (CHAIN_FOLDER, JOURNAL_FOLDER)] == before
    return caught.value


def change(data: DataDirectory, family: str, key: bytes | None, value: bytes | None) -> bytes:
    """Put or delete an entry behind the store's back; without a key, the first one. Its key."""
    database = Database.open(data.path / CHAIN_FOLDER, FAMILIES)
    key = next(iter(database.scan(family)))[0] if key is None else key
    changes = Changes()
    if value is None:
        changes.delete(family, key)
    else:
        changes.put(family, key, value)
    database.write(changes)
    database.close()
    return key


def test_signers_journal_holds_votes_without_their_blocks(data: DataDirectory) -> None:
    entries = RocksEntries.open(data.path / JOURNAL_FOLDER)
    entries.write(dict.fromkeys((key for key, _ in entries.scan(b"b", b"b" + b"\xff" * 41)), None), sync=True)
    entries.close()
    assert wrong(data).reason is CheckReason.JOURNAL
    found = check_data(data.path, data.rules, data.identity, lambda *_: None, is_signer=True)
    assert found.journal is not None
    assert found.journal.votes == 2


def test_sound_directory_passes_and_is_left_as_it_was(data: DataDirectory) -> None:
    store = ChainStore.open(data.path / CHAIN_FOLDER, data.rules)
    store.keep_halt(latched())
    store.keep_equivocation(equivocation(data.rules, 3))
    store.close()
    before = files(data.path / CHAIN_FOLDER)
    told: list[str] = []
    report = check_data(data.path, data.rules, data.identity, lambda what, done, total: told.append(what))
    assert report.chain.height == len(data.chain.blocks) == 23
    assert report.chain.block_hash == data.chain.header.hash
    assert report.chain.transactions == 3, "a claim, a transfer, a refund"
    assert report.chain.halts == (latched(),)
    assert report.journal is not None
    assert (report.journal.floor_view, report.journal.votes) == (data.chain.header.view - 1, 2)
    assert files(data.path / CHAIN_FOLDER) == before
    assert set(told) == {"blocks", "comparing", "journal"}


def test_directory_without_a_journal_is_checked_as_a_full_node(data: DataDirectory) -> None:
    assert check_data(data.path, data.rules, None, lambda *_: None).journal is None


@pytest.mark.parametrize("folder", [CHAIN_FOLDER, JOURNAL_FOLDER])
def test_directory_in_use_refused(data: DataDirectory, folder: str) -> None:
    with Hold(data.path / folder), pytest.raises(StorageError) as caught:
        check(data)
    assert caught.value.reason is StorageReason.LOCKED


def test_directory_without_a_chain_refused(tmp_path: Path, data: DataDirectory) -> None:
    with pytest.raises(StorageError) as caught:
        check_data(tmp_path / "empty", data.rules, None, lambda *_: None)
    assert caught.value.reason is StorageReason.MISSING
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("height", [2, 3, 23])
def test_missing_block_is_named(data: DataDirectory, height: int) -> None:
    change(data, "blocks", height_key(height), None)
    found = wrong(data)
    if height == 23:  # nothing follows it: what is left over tells of it
        assert (found.reason, found.record) == (CheckReason.CERTIFICATE, "the certificate of block 22")
    else:
        assert (found.reason, found.record) == (CheckReason.BLOCK, f"block {height}")


def garbled(data: DataDirectory) -> bytes:
    return data.chain.blocks[1].encode()[:-1]


def with_another_body(data: DataDirectory) -> bytes:
    return Block(data.chain.blocks[1].header, data.chain.blocks[2].body).encode()


def with_another_root(data: DataDirectory) -> bytes:
    block = data.chain.blocks[1]
    return Block(replace(block.header, ledger_root=bytes(32)), block.body).encode()


@pytest.mark.parametrize("broken", [garbled, with_another_body, with_another_root])
def test_block_that_breaks_a_rule_is_named(data: DataDirectory, broken: Callable[[DataDirectory], bytes]) -> None:
    change(data, "blocks", height_key(2), broken(data))
    found = wrong(data)
    assert (found.reason, found.record) == (CheckReason.BLOCK, "block 2")


def test_certificate_that_is_not_genuine_is_named(data: DataDirectory) -> None:
    genuine = certificate(data.rules, data.chain.blocks[1])
    for false in (
        genuine.encode()[:-1],
        replace(genuine, signatures=genuine.signatures[:2]).encode(),
        replace(genuine, signatures=((0, bytes(64)), *genuine.signatures[1:])).encode(),
        certificate(data.rules, data.chain.blocks[2]).encode(),
        certificate(data.rules, data.chain.blocks[1], VoteKind.NOTARIZE).encode(),
    ):
        change(data, "certificates", height_key(2), false)
        found = wrong(data)
        assert (found.reason, found.record) == (CheckReason.CERTIFICATE, "the certificate of block 2")


def test_last_block_without_a_certificate_is_named(data: DataDirectory) -> None:
    change(data, "certificates", height_key(23), None)
    found = wrong(data)
    assert (found.reason, found.record) == (CheckReason.CERTIFICATE, "the certificate of block 23")


@pytest.mark.parametrize(
    "family",
    [
        "utxos", "coins", "entered", "open_withdrawals", "open_lineages", "versions", "withdrawals_by_number",
        "transactions", "places", "history", "spends", "heights",
    ],
)  # fmt: skip
def test_entry_that_the_blocks_do_not_lead_to_is_named(data: DataDirectory, family: str) -> None:
    key = change(data, family, None, b"something else")
    found = wrong(data)
    assert (found.reason, found.record) == (CheckReason.STATE, f"{family} {key.hex()}")
    change(data, family, key, None)
    assert (wrong(data).record, wrong(data).what) == (f"{family} {key.hex()}", "it is missing")


def test_entry_too_many_is_named(data: DataDirectory) -> None:
    key = change(data, "closed_withdrawals", b"\x00" * 36, b"a withdrawal that never was")
    found = wrong(data)
    assert (found.record, found.what) == (f"closed_withdrawals {key.hex()}", "no block leads to it")


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("signed_payouts", bytes(32), b"no transaction"),
        ("deposit_scripts", b"no script", bytes(8)),
        ("halts", bytes(8), b"\xff"),
        ("equivocations", bytes(16), b"\x01"),
    ],
)
def test_entry_of_the_nodes_own_without_its_form_is_named(
    data: DataDirectory, family: str, key: bytes, value: bytes
) -> None:
    change(data, family, key, value)
    found = wrong(data)
    assert (found.reason, found.record) == (CheckReason.NODE_DATA, f"{family} {key.hex()}")


def test_signed_payout_that_no_block_recorded_is_named(data: DataDirectory) -> None:
    transfer = next(iter(data.chain.blocks[1].body.transactions))
    store = ChainStore.look(data.path / CHAIN_FOLDER, data.rules)
    [final] = store.index.transactions_at(2)
    store.close()
    change(data, "signed_payouts", final.txid, transfer)
    assert wrong(data).reason is CheckReason.NODE_DATA


def test_proof_of_a_fault_that_is_forged_or_misplaced_is_named(data: DataDirectory) -> None:
    genuine = equivocation(data.rules, 3)
    forged = replace(genuine, first=replace(genuine.first, signature64=genuine.second.signature64))
    key = change(data, "equivocations", equivocation_key(genuine), forged.encode())
    assert (wrong(data).reason, wrong(data).record) == (CheckReason.NODE_DATA, f"equivocations {key.hex()}")
    change(data, "equivocations", key, genuine.encode())
    check(data)
    change(data, "equivocations", equivocation_key(equivocation(data.rules, 2)), genuine.encode())
    assert wrong(data).what == "it is of another member, view or kind of votes"


def rewrite(data: DataDirectory, act: Callable[[Journal], None], floor_view: int | None = None) -> None:
    """Change the journal through its own methods, which check less than the check."""
    entries = RocksEntries.open(data.path / JOURNAL_FOLDER)
    floor = data.chain.header.view - 1 if floor_view is None else floor_view
    act(Journal(entries, JournalHeader(JournalState.KEPT, data.identity, floor, floor)))
    entries.close()


def test_journal_with_a_forged_vote_is_named(data: DataDirectory) -> None:
    view = data.chain.header.view + 2
    forged = replace(own_vote(data.rules, VoteKind.NULLIFY, view), signature64=bytes(64))
    rewrite(data, lambda journal: journal.record_vote(forged))
    found = wrong(data)
    assert (found.reason, found.record) == (CheckReason.JOURNAL, f"journal, the NULLIFY vote of view {view}")


def test_journal_with_a_vote_for_a_block_that_it_lacks_is_named(data: DataDirectory) -> None:
    view = data.chain.header.view + 2
    lacking = own_vote(data.rules, VoteKind.NOTARIZE, view, OTHER)
    rewrite(data, lambda journal: journal.record_vote(lacking, b"no block"))
    assert wrong(data).record == f"journal, the NOTARIZE vote of view {view}"
    other = own_vote(data.rules, VoteKind.NOTARIZE, view + 1, data.chain.header.hash)
    rewrite(data, lambda journal: journal.record_vote(other, data.chain.blocks[-1].encode()))
    assert "view" in wrong(data).record


@pytest.mark.parametrize("what", ["forged", "own"])
def test_journal_with_a_false_vote_of_another_is_named(data: DataDirectory, what: str) -> None:
    view = data.chain.header.view + 2
    vote = own_vote(data.rules, VoteKind.NULLIFY, view)
    kept = replace(vote, member=MEMBER + 1) if what == "forged" else vote
    entries = RocksEntries.open(data.path / JOURNAL_FOLDER)
    entries.write({b"w" + bytes(2) + bytes([VoteKind.NULLIFY]): kept.encode()}, sync=True)
    entries.close()
    assert wrong(data).record == f"journal, the NULLIFY vote of view {view} of member {kept.member}"


def test_journal_with_a_false_certificate_is_named(data: DataDirectory) -> None:
    genuine = certificate(data.rules, data.chain.blocks[-1], VoteKind.NOTARIZE)
    false = replace(genuine, signatures=genuine.signatures[:2])
    rewrite(data, lambda journal: journal.record_certificate(false))
    assert wrong(data).record == f"journal, the NOTARIZE certificate of view {genuine.view}"


def test_journal_that_is_an_older_copy_is_named(data: DataDirectory) -> None:
    journal = data.path / JOURNAL_FOLDER
    for file in journal.iterdir():
        file.unlink()
    journal.rmdir()
    create_journal(journal, data.identity).close()
    found = wrong(data)
    assert (found.reason, found.record) == (CheckReason.JOURNAL, "journal, the votes")


def test_journal_of_another_member_refused(data: DataDirectory) -> None:
    with pytest.raises(JournalRefused) as caught:
        check_data(data.path, data.rules, replace(data.identity, member=MEMBER + 1), lambda *_: None)
    assert caught.value.reason is JournalReason.FOREIGN
    open_journal(data.path / JOURNAL_FOLDER, data.identity).close()
