"""The store: what it gives back."""

import os
from pathlib import Path

import pytest

from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.transaction import Transaction
from bridge.ledger import ledger_root
from pegnode.chain.block import Block
from pegnode.chain.state import LEDGER_TABLES, Tip
from pegnode.storage.database import Changes, Database
from pegnode.storage.indexes import Spender
from pegnode.storage.keys import Place
from pegnode.storage.store import FAMILIES, ChainStore, FinalBlock
from tests.support.equivocations import CONFLICTS, equivocation
from tests.support.halts import latched
from tests.support.peg import ALICE, BOB, outpoint, p2tr
from tests.support.stores import (
    BURN,
    CLAIM,
    DEPOSIT,
    DEPOSIT_SATS,
    PAYMENT,
    RULES,
    burn_output,
    burning,
    contents,
    deposit,
    extend,
    fill,
    next_block,
    open_store,
    spend,
    transfer,
)


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
    assert payment.spent == Transaction.parse(claim.data).outputs
    assert claim.spent == ()
    assert [store.index.place(txid) for txid in (CLAIM.txid, PAYMENT.txid)] == [Place(1, 0), Place(2, 0)]
    assert store.index.place(Txid(bytes(32))) is None
    assert [final.txid for final in store.index.transactions_at(2)] == [PAYMENT.txid]
    assert list(store.index.txids_at(2)) == [PAYMENT.txid]
    assert list(store.index.transactions_at(4)) == []
    assert store.index.transaction(Txid(bytes(32))) is None
    assert store.index.spender(CLAIM) == Spender(PAYMENT.txid, 0)
    assert store.index.spender(PAYMENT.outpoint(0)) is None


def test_transactions_of_a_block_are_counted(store: ChainStore) -> None:
    extend(store, *(deposit(outpoint(number), 200_000, ALICE) for number in range(3)))
    assert [store.index.count_at(height) for height in (0, 1, 2)] == [0, 3, 0]


def test_claims_of_a_script_are_found_without_its_other_history(store: ChainStore) -> None:
    fill(store)
    assert list(store.index.claims(sha256(ALICE))) == [CLAIM.txid]
    assert len(list(store.index.script_history(sha256(ALICE)))) == 2
    assert list(store.index.claims(sha256(p2tr("nobody")))) == []


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


def test_halts_survive_a_restart_in_their_order(tmp_path: Path) -> None:
    store = open_store(tmp_path / "chain")
    found = [latched(1), latched(2, serial=3), latched(1, serial=4)]
    assert store.halts() == []
    for item in found:
        store.keep_halt(item)
    store.close()
    store = open_store(tmp_path / "chain")
    assert store.halts() == found
    store.close()


def test_proofs_of_faults_survive_a_restart_one_for_each_member_view_and_pair_of_kinds(tmp_path: Path) -> None:
    store = open_store(tmp_path / "chain")
    assert store.equivocations() == ()
    found = [equivocation(RULES, member, view, kinds) for member in (1, 2) for view in (9, 300) for kinds in CONFLICTS]
    for item in reversed(found):
        store.keep_equivocation(item)
    again = equivocation(RULES, 1, aux=1)
    store.keep_equivocation(again)
    assert store.equivocations() == (again, *found[1:])
    store.close()
    store = open_store(tmp_path / "chain")
    assert store.equivocations() == (again, *found[1:])
    store.close()


def test_size_is_told_while_rocksdb_deletes_files(store: ChainStore, monkeypatch: pytest.MonkeyPatch) -> None:
    size_bytes, going, gone = store.size_on_disk_bytes(), store.path / "000998.sst", store.path / "000999.sst"
    stat, seen = Path.stat, []

    def stat_and_delete(path: Path, **options: bool) -> os.stat_result:
        gone.unlink(missing_ok=True)
        found = stat(path, **options)
        if path == going:
            seen.append(path)
            path.unlink()
        return found

    for file in (going, gone):
        file.write_bytes(bytes(7))
    (store.path / "a directory").mkdir()
    monkeypatch.setattr(Path, "stat", stat_and_delete)
    assert store.size_on_disk_bytes() == size_bytes + 7
    assert seen == [going]
