"""The store: what it gives back, what it refuses to open, and what is left after a crash."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import Txid
from bridge.ledger import ledger_root
from bridge.withdrawals import Burn
from pegnode.chain.block import Block
from pegnode.chain.state import Tip
from pegnode.storage import store as store_module
from pegnode.storage.database import SCAN_CHUNK, Changes, Database
from pegnode.storage.errors import StorageError, StorageReason
from pegnode.storage.keys import Place, height_key
from pegnode.storage.store import FAMILIES, META, ChainStore, FinalBlock
from tests.support.peg import ALICE, BOB, START_HEIGHT, outpoint, p2tr
from tests.support.stores import (
    RULES,
    anchored,
    burn_output,
    burning,
    claim_outpoint,
    deposit,
    extend,
    make_rules,
    next_block,
    open_store,
    spend,
    transfer,
)

DEPOSIT = outpoint(1)
DEPOSIT_SATS = 5_000_000
CLAIM = claim_outpoint(DEPOSIT, DEPOSIT_SATS, ALICE)
CLAIMED_SATS = DEPOSIT_SATS - RULES.params.claim_fee_sats
BURN = Burn(BOB, 10_000, ALICE)
PAYMENT = spend(CLAIM, (1_000_000, BOB), burn_output(2_000_000, BURN), (CLAIMED_SATS - 3_000_500, ALICE))
LEDGER_TABLES = (
    "coins", "entered", "open_withdrawals", "closed_withdrawals", "open_lineages", "closed_lineages", "versions",
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChainStore]:
    opened = open_store(tmp_path / "chain")
    yield opened
    opened.close()


def fill(store: ChainStore) -> None:
    """Three blocks: a deposit; a payment with a burn; a new anchor and another deposit."""
    extend(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    extend(store, transfer(PAYMENT), burning(PAYMENT, 1, BURN))
    extend(store, anchored(START_HEIGHT + 2), deposit(outpoint(2), 700_000, BOB))


def contents(store: ChainStore) -> dict[str, object]:
    """Everything that rules can read."""
    read: dict[str, object] = {name: list(getattr(store.ledger, name).items()) for name in LEDGER_TABLES}
    return read | {"utxos": list(store.utxos.items()), "totals": store.ledger.totals, "tip": store.tip}


def refusal(path: Path, name: str = "a chain") -> StorageReason:
    """The reason for which the directory is not opened."""
    with pytest.raises(StorageError) as caught:
        ChainStore.open(path, make_rules(name)).close()
    assert caught.value.detail
    return caught.value.reason


def test_new_store_holds_the_genesis(store: ChainStore) -> None:
    assert store.tip == Tip(RULES.genesis_header)
    assert ledger_root(store.ledger) == RULES.genesis_header.ledger_root
    assert store.height_of(RULES.genesis_header.hash) == 0
    data = store.block_at(0)
    assert data is not None
    assert Block.decode(data).header == RULES.genesis_header
    assert store.block_at(1) is None


def test_reopened_store_equals_the_one_that_was_closed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store)
    before = contents(store)
    store.close()
    store = open_store(tmp_path)
    assert contents(store) == before
    assert store.tip.header.height == 3
    assert ledger_root(store.ledger) == store.tip.header.ledger_root
    store.close()


def test_committed_tables_equal_the_overlay_they_came_from(store: ChainStore) -> None:
    first = next_block(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    second = next_block(first.state, transfer(PAYMENT), burning(PAYMENT, 1, BURN))
    expected = {name: list(getattr(second.state.ledger, name).items()) for name in LEDGER_TABLES}
    expected_utxos = list(second.state.utxos.items())
    store.commit([first, second])
    assert {name: list(getattr(store.ledger, name).items()) for name in LEDGER_TABLES} == expected
    assert list(store.utxos.items()) == expected_utxos
    assert store.ledger.totals == second.state.ledger.totals
    assert store.tip == second.state.tip


def test_tables_are_read_in_the_order_of_their_keys(store: ChainStore) -> None:
    numbers = [9, 4, 7, 1, 8, 2]
    extend(store, *(deposit(outpoint(number), 200_000, ALICE) for number in numbers))
    keys = [key.encode() for key, _ in store.ledger.coins.items()]
    assert keys == sorted(keys)
    assert keys == [key.encode() for key, _ in store.ledger.entered.items()]
    assert len(store.ledger.coins) == len(numbers)
    assert outpoint(4) in store.ledger.coins
    assert outpoint(5) not in store.ledger.coins
    assert CLAIM not in store.utxos


def test_blocks_are_found_by_height_and_by_hash(store: ChainStore) -> None:
    final = extend(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    assert store.block_at(1) == final.block
    assert store.block_by_hash(final.state.tip.hash) == final.block
    assert store.block_by_hash(RULES.genesis_header.hash) == store.block_at(0)
    assert store.block_by_hash(store.tip.header.parent) != final.block
    assert store.header_at(1) == final.state.tip.header
    assert store.height_of(final.state.tip.hash) == 1


def test_certificate_of_a_descendant_is_found_for_a_block_without_one(store: ChainStore) -> None:
    first = next_block(store)
    second = next_block(first.state)
    store.commit([FinalBlock(first.state, first.block), second])
    assert store.certificate_at(1) is None
    assert store.certificate_at(2) == b"certificate 2"
    assert store.certified_height_from(1) == 2
    assert store.certified_height_from(3) is None


def test_transactions_are_indexed(store: ChainStore) -> None:
    fill(store)
    claim = store.index.transaction(CLAIM.txid)
    assert claim is not None
    assert (claim.place, claim.kind.value, claim.fee_sats) == (Place(1, 0), "claim", RULES.params.claim_fee_sats)
    payment = store.index.transaction(PAYMENT.txid)
    assert payment is not None
    assert (payment.place, payment.kind.value, payment.fee_sats) == (Place(2, 0), "transfer", 500)
    assert payment.data == PAYMENT.serialize()
    assert [final.txid for final in store.index.transactions_at(2)] == [PAYMENT.txid]
    assert list(store.index.transactions_at(4)) == []
    assert store.index.transaction(Txid(bytes(32))) is None
    assert store.index.spender(CLAIM) == PAYMENT.txid
    assert store.index.spender(PAYMENT.outpoint(0)) is None


def test_script_history_is_newest_first_and_goes_on_after_a_place(store: ChainStore) -> None:
    fill(store)
    of_alice = [(entry.txid, entry.place) for entry in store.index.script_history(sha256(ALICE))]
    assert of_alice == [(PAYMENT.txid, Place(2, 0)), (CLAIM.txid, Place(1, 0))]
    after = list(store.index.script_history(sha256(ALICE), Place(2, 0)))
    assert [entry.txid for entry in after] == [CLAIM.txid]
    assert list(store.index.script_history(sha256(ALICE), Place(1, 0))) == []
    assert list(store.index.script_history(sha256(PAYMENT.outputs[1].script))) == []


def test_withdrawals_are_listed_by_age(store: ChainStore) -> None:
    extend(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    outputs = [burn_output(500_000 + index, BURN) for index in range(4)]
    payment = spend(CLAIM, *outputs)
    extend(store, transfer(payment), *(burning(payment, index, BURN) for index in range(4)))
    assert [item.number for item in store.ledger.withdrawals_newest_first()] == [3, 2, 1, 0]
    assert [item.number for item in store.ledger.withdrawals_newest_first(before=2)] == [1, 0]
    assert list(store.ledger.withdrawals_newest_first(before=0)) == []
    found = store.ledger.withdrawal(payment.outpoint(2))
    assert found is not None
    assert found.value_sats == 500_002
    assert store.ledger.withdrawal(CLAIM) is None
    assert list(store.ledger.lineages_newest_first()) == []


def test_recount_agrees_with_the_totals(store: ChainStore) -> None:
    fill(store)
    report = store.begin_recount().finish()
    assert report.findings == ()
    assert report.utxo_count == 3
    assert report.coin_count == 2
    assert report.counted_reserves_sats == DEPOSIT_SATS + 700_000
    assert report.counted_unsettled_sats == 2_000_000
    assert report.counted_supply_sats == store.ledger.totals.supply_sats


def test_recount_counts_the_outputs_of_the_moment_at_which_it_began(store: ChainStore) -> None:
    extend(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    recount = store.begin_recount()
    extend(store, deposit(outpoint(2), 700_000, BOB))
    report = recount.finish()
    assert report.findings == ()
    assert report.utxo_count == 1


def test_recount_finds_an_output_that_was_never_paid_for(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store)
    store.close()
    database = Database.open(tmp_path, FAMILIES)
    changes = Changes()
    for key, value in list(database.scan("utxos"))[:1]:
        changes.put("utxos", key[:-1] + b"\x77", value)
    database.write(changes)
    database.close()
    store = open_store(tmp_path)
    findings = store.begin_recount().finish().findings
    store.close()
    assert len(findings) == 1
    assert findings[0].startswith("supply: counted ")


def test_commit_refuses_a_block_that_does_not_follow(store: ChainStore) -> None:
    first = next_block(store)
    rival = next_block(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    third = next_block(next_block(first.state).state)
    store.commit([first])
    before = contents(store)
    for wrong in (first, rival, third):
        with pytest.raises(StorageError) as caught:
            store.commit([wrong])
        assert caught.value.reason is StorageReason.NOT_NEXT
    assert contents(store) == before


def test_commit_refuses_bytes_of_another_block(store: ChainStore) -> None:
    final = next_block(store)
    rival = next_block(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    with pytest.raises(StorageError) as caught:
        store.commit([FinalBlock(final.state, rival.block)])
    assert caught.value.reason is StorageReason.NOT_NEXT
    assert store.tip.header.height == 0


def test_commit_that_fails_leaves_the_store_as_it_was(store: ChainStore, monkeypatch: pytest.MonkeyPatch) -> None:
    first = next_block(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    second = next_block(first.state, transfer(PAYMENT), burning(PAYMENT, 1, BURN))
    before = contents(store)

    def failing(database: Database, changes: Changes) -> None:
        raise StorageError(StorageReason.UNUSABLE, "the disk is full")

    monkeypatch.setattr(Database, "write", failing)
    with pytest.raises(StorageError) as caught:
        store.commit([first, second])
    assert caught.value.reason is StorageReason.UNUSABLE
    assert contents(store) == before
    monkeypatch.undo()
    store.commit([first, second])
    assert CLAIM not in store.utxos
    assert store.tip == second.state.tip


def test_blocks_that_become_final_together_are_written_at_once(
    store: ChainStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An ancestor without a certificate of its own must never be the tip on disk: a restart could not prove it final.
    first = next_block(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    second = next_block(first.state, transfer(PAYMENT), burning(PAYMENT, 1, BURN))
    third = next_block(second.state, anchored(START_HEIGHT + 2), deposit(outpoint(2), 700_000, BOB))
    write, written = Database.write, []

    def counting(database: Database, changes: Changes) -> None:
        written.append(changes)
        write(database, changes)

    monkeypatch.setattr(Database, "write", counting)
    store.commit([FinalBlock(first.state, first.block), FinalBlock(second.state, second.block), third])
    assert len(written) == 1
    assert store.tip == third.state.tip
    assert ledger_root(store.ledger) == store.tip.header.ledger_root
    assert store.begin_recount().finish().findings == ()
    together = contents(store)
    store.close()
    reopened = open_store(store.path)
    assert contents(reopened) == together
    reopened.close()


def test_commit_refuses_blocks_that_nothing_proves_final(store: ChainStore) -> None:
    first = next_block(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    before = contents(store)
    with pytest.raises(StorageError) as caught:
        store.commit([FinalBlock(first.state, first.block)])
    assert caught.value.reason is StorageReason.UNPROVEN
    assert contents(store) == before
    assert store.block_at(1) is None


def test_commit_refuses_all_blocks_when_one_does_not_follow(store: ChainStore) -> None:
    first = next_block(store)
    stranger = next_block(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    before = contents(store)
    with pytest.raises(StorageError) as caught:
        store.commit([first, stranger])
    assert caught.value.reason is StorageReason.NOT_NEXT
    assert contents(store) == before


def test_process_killed_between_batches_leaves_the_last_whole_block(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from pegnode.storage.database import Database\n"
        "from tests.support.peg import ALICE, outpoint\n"
        "from tests.support.stores import deposit, next_block, open_store\n"
        "store = open_store(Path(sys.argv[1]))\n"
        "first = next_block(store, deposit(outpoint(1), 5_000_000, ALICE))\n"
        "second = next_block(first.state, deposit(outpoint(2), 5_000_000, ALICE))\n"
        "write, written = Database.write, []\n"
        "def dying(database, changes):\n"
        "    if written:\n"
        "        os._exit(9)\n"
        "    written.append(1)\n"
        "    write(database, changes)\n"
        "Database.write = dying\n"
        "store.commit([first])\n"
        "store.commit([second])\n"
    )
    root = Path(__file__).parents[2]
    died = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert died.returncode == 9
    store = open_store(tmp_path)
    assert store.tip.header.height == 1
    assert [key for key, _ in store.ledger.coins.items()] == [outpoint(1)]
    assert store.begin_recount().finish().findings == ()
    extend(store, deposit(outpoint(2), 5_000_000, ALICE))
    assert store.tip.header.height == 2
    store.close()


def test_open_store_locks_its_directory_and_close_frees_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    extend(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    next(store.index.script_history(sha256(ALICE)))
    next(store.utxos.items())
    assert refusal(tmp_path) is StorageReason.LOCKED
    store.close()
    store.close()
    open_store(tmp_path).close()


def test_store_of_another_process_is_locked(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.support.stores import open_store\n"
        "store = open_store(Path(sys.argv[1]))\n"
        "print('open', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        assert refusal(tmp_path) is StorageReason.LOCKED
        other.communicate("done\n", timeout=20)
    open_store(tmp_path).close()


def test_refused_store_frees_its_directory(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    assert refusal(tmp_path, "another chain") is StorageReason.WRONG_CHAIN
    open_store(tmp_path).close()


def test_closed_store_says_so(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    final = next_block(store)
    store.close()
    for use in (lambda: store.block_at(0), lambda: list(store.utxos.items()), lambda: store.commit([final])):
        with pytest.raises(StorageError) as caught:
            use()
        assert caught.value.reason is StorageReason.CLOSED


def test_open_refuses_a_newer_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SCHEMA_VERSION", 2)
    open_store(tmp_path).close()
    monkeypatch.undo()
    assert refusal(tmp_path) is StorageReason.NEWER_SCHEMA


def test_open_refuses_a_family_of_a_later_release(tmp_path: Path) -> None:
    Database.open(tmp_path, (*FAMILIES, "what_we_will_invent")).close()
    assert refusal(tmp_path) is StorageReason.NEWER_SCHEMA


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        (META, b"schema", height_key(0)),
        (META, b"tip", b"no header"),
        (META, b"totals", b"no totals"),
        (META, b"schema", None),
        ("coins", DEPOSIT.encode(), b"no coin"),
        ("coins", DEPOSIT.encode(), None),
        ("blocks", height_key(0), None),
        ("blocks", height_key(3), None),
        ("blocks", height_key(3), b"no block"),
    ],
)
def test_open_refuses_damaged_contents(tmp_path: Path, family: str, key: bytes, value: bytes | None) -> None:
    store = open_store(tmp_path)
    fill(store)
    store.close()
    database = Database.open(tmp_path, FAMILIES)
    changes = Changes()
    if value is None:
        changes.delete(family, key)
    else:
        changes.put(family, key, value)
    database.write(changes)
    database.close()
    assert refusal(tmp_path) is StorageReason.DAMAGED


def test_damaged_entry_is_the_disks_fault(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store)
    store.close()
    database = Database.open(tmp_path, FAMILIES)
    changes = Changes()
    changes.put("entered", DEPOSIT.encode(), b"odd")
    changes.put("utxos", CLAIM.encode(), b"odd")
    changes.put("transactions", Place(1, 0).encode(), b"odd")
    database.write(changes)
    database.close()
    store = open_store(tmp_path)
    for read in (
        lambda: store.ledger.entered.get(DEPOSIT),
        lambda: list(store.utxos.items()),
        lambda: store.index.transaction(CLAIM.txid),
        lambda: store.begin_recount().finish(),
    ):
        with pytest.raises(StorageError) as caught:
            read()
        assert caught.value.reason is StorageReason.DAMAGED
    store.close()


def test_open_refuses_files_with_flipped_bytes(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    fill(store)
    store.close()
    open_store(tmp_path).close()  # moves the log into sorted files
    for file in tmp_path.glob("*.sst"):
        data = bytearray(file.read_bytes())
        data[: len(data) // 2] = bytes(byte ^ 0xFF for byte in data[: len(data) // 2])
        file.write_bytes(bytes(data))
    assert refusal(tmp_path) is StorageReason.DAMAGED


@pytest.mark.parametrize("pattern", ["CURRENT", "MANIFEST-*"])
def test_open_refuses_a_directory_without_its_catalogue(tmp_path: Path, pattern: str) -> None:
    open_store(tmp_path).close()
    for file in tmp_path.glob(pattern):
        file.unlink()
    assert refusal(tmp_path) is StorageReason.DAMAGED


def test_open_refuses_a_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    assert refusal(tmp_path / "file") is StorageReason.UNUSABLE


def test_new_store_is_private(tmp_path: Path) -> None:
    open_store(tmp_path / "chain").close()
    assert (tmp_path / "chain").stat().st_mode & 0o077 == 0


def test_deposit_scripts_survive_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    carol = p2tr("carol")
    store.keep_deposit_scripts([ALICE, BOB], 1_000)
    store.keep_deposit_scripts([ALICE, carol], 3_000, forget=[BOB, p2tr("nobody")])
    store.close()
    store = open_store(tmp_path)
    assert store.deposit_scripts() == {ALICE: 3_000, carol: 3_000}
    store.close()


def test_signed_payouts_survive_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.keep_signed_payout(PAYMENT.txid, b"signed")
    store.close()
    store = open_store(tmp_path)
    assert store.signed_payout(PAYMENT.txid) == b"signed"
    assert store.signed_payout(CLAIM.txid) is None
    store.close()


def test_copy_of_a_closed_store_opens(tmp_path: Path) -> None:
    store = open_store(tmp_path / "chain")
    fill(store)
    before, size = contents(store), store.size_on_disk_bytes()
    store.close()
    assert size > 0
    shutil.copytree(tmp_path / "chain", tmp_path / "copy")
    copy = open_store(tmp_path / "copy")
    assert contents(copy) == before
    copy.close()


@pytest.mark.parametrize("count", [0, 1, SCAN_CHUNK - 1, SCAN_CHUNK, SCAN_CHUNK + 1, 3 * SCAN_CHUNK])
def test_scan_reads_every_key_of_a_prefix_once(tmp_path: Path, count: int) -> None:
    database = Database.open(tmp_path, ["one"])
    changes = Changes()
    keys = [b"m" + index.to_bytes(4, "big") for index in range(count)]
    for key in (*keys, b"l", b"n", b"l\xff\xff", b"\xff"):
        changes.put("one", key, key)
    database.write(changes)
    assert [key for key, _ in database.scan("one", b"m")] == keys
    assert [key for key, _ in database.scan("one", b"m", backwards=True)] == keys[::-1]
    assert [value for _, value in database.scan("one", b"m", start=b"m" + bytes(3) + b"\x01")] == keys[1:]
    assert [key for key, _ in database.scan("one", b"\xff", backwards=True)] == [b"\xff"]
    assert len(list(database.scan("one", backwards=True))) == count + 4
    database.close()


def test_write_of_a_deletion_and_a_put_keeps_their_order(tmp_path: Path) -> None:
    database = Database.open(tmp_path, ["one"])
    changes = Changes()
    changes.delete("one", b"a")
    changes.put("one", b"a", b"put last")
    changes.put("one", b"b", b"deleted last")
    changes.delete("one", b"b")
    database.write(changes)
    assert (database.get("one", b"a"), database.get("one", b"b")) == (b"put last", None)
    database.close()
