"""The rules of one transaction: every reason has a transaction that breaks it and nothing else."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptReason, ScriptType
from bridge.bitcoin.transaction import Transaction, TransactionReason, TxIn, TxOut
from bridge.errors import Reason, Rejected
from bridge.tables import MemoryTable
from bridge.withdrawals import BurnReason
from pegnode.chain.block import MAX_TRANSACTION_BYTES
from pegnode.chain.parameters import MAX_TRANSACTION_SIGOP_COST
from pegnode.chain.state import Utxo
from pegnode.chain.transactions import (
    LOCKTIME_THRESHOLD,
    MAX_STRIPPED_BYTES,
    RELATIVE_LOCK_DISABLED,
    RELATIVE_LOCK_IN_SECONDS,
    BlockContext,
    TransactionEffect,
    TransactionRule,
    check_transaction,
    is_spendable,
    parse_transaction,
)
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import Coin, MiniWallet

CHAIN = MemoryChain()
ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
MALLORY = MiniWallet("mallory")
COIN_HEIGHT, COIN_SECONDS = 100, 1_800_000_000
HEIGHT, SECONDS = 200, 1_800_100_000
CONTEXT = BlockContext(HEIGHT, SECONDS * 1000 + 999)
VALUE_SATS = 1_000_000
NOT_FINAL_SEQUENCE = 0xFFFFFFFE

UTXOS: MemoryTable[OutPoint, Utxo] = MemoryTable()


def coin(script: Script | None = None, value_sats: int = VALUE_SATS, number: int = 0) -> Coin:
    """A coin that exists; Alice's unless it has another script."""
    output = TxOut(value_sats, ALICE.script() if script is None else script)
    outpoint = OutPoint(Txid(bytes([1 + number]) * 32), number)
    UTXOS.put(outpoint, Utxo(output.value_sats, output.script, COIN_HEIGHT, COIN_SECONDS * 1000 + 500))
    return outpoint, output


def check(transaction: Transaction, context: BlockContext = CONTEXT) -> TransactionEffect:
    """What the transaction does, read back from its bytes."""
    return check_transaction(
        parse_transaction(transaction.serialize()), UTXOS, CHAIN.state.ledger, context, CHAIN.rules
    )


def reason(transaction: Transaction, context: BlockContext = CONTEXT) -> Reason:
    """Why the transaction is refused."""
    with pytest.raises(Rejected) as caught:
        check(transaction, context)
    return caught.value.reason


def paying(*outputs: TxOut, **options: int) -> Transaction:
    """Alice's coin spent to these outputs."""
    return ALICE.spend([coin()], outputs, **options)


def to_bob(value_sats: int = VALUE_SATS - 500) -> TxOut:
    return TxOut(value_sats, BOB.script())


@pytest.mark.parametrize("spent", ScriptType)
@pytest.mark.parametrize("made", ScriptType)
def test_transaction_between_the_five_types_is_valid(spent: ScriptType, made: ScriptType) -> None:
    outpoint, output = coin(ALICE.script(spent))
    effect = check(ALICE.spend([(outpoint, output)], [TxOut(VALUE_SATS - 300, BOB.script(made))]))
    assert effect.fee_sats == 300
    assert effect.spent == ((outpoint, Utxo(VALUE_SATS, output.script, COIN_HEIGHT, COIN_SECONDS * 1000 + 500)),)
    assert effect.burns == ()


def test_transaction_of_several_types_at_once_is_valid() -> None:
    coins = [coin(ALICE.script(kind), number=number) for number, kind in enumerate(ScriptType)]
    effect = check(ALICE.spend(coins, [to_bob(5 * VALUE_SATS)]))
    assert effect.fee_sats == 0
    assert [outpoint for outpoint, _ in effect.spent] == [outpoint for outpoint, _ in coins]


@pytest.mark.parametrize("version", [1, 2])
def test_version_in_use_is_valid(version: int) -> None:
    check(paying(to_bob(), version=version))


@pytest.mark.parametrize("version", [0, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_version_of_any_other_number_is_refused(version: int) -> None:
    assert reason(paying(to_bob(), version=version)) is TransactionRule.VERSION


@pytest.mark.parametrize("vout", [0, 5, 0xFFFFFFFF])
def test_null_prevout_is_refused_whatever_its_index(vout: int) -> None:
    transaction = replace(paying(to_bob()), inputs=(TxIn(OutPoint(Txid(bytes(32)), vout)),))
    assert reason(transaction) is TransactionRule.NULL_PREVOUT


@pytest.mark.parametrize("bit", [29, 30, 31])
def test_reserved_index_is_refused_even_if_such_an_output_exists(bit: int) -> None:
    outpoint, output = coin()
    marked = OutPoint(outpoint.txid, outpoint.vout | 1 << bit)
    UTXOS.put(marked, Utxo(output.value_sats, output.script, COIN_HEIGHT, 0))
    assert reason(ALICE.spend([(marked, output)], [to_bob()])) is TransactionRule.RESERVED_INDEX
    UTXOS.delete(marked)


def test_index_below_the_reserved_bits_is_looked_up() -> None:
    outpoint, output = coin()
    high = OutPoint(outpoint.txid, (1 << 29) - 1)
    assert reason(ALICE.spend([(high, output)], [to_bob()])) is TransactionRule.MISSING_INPUT


def test_input_named_twice_is_refused() -> None:
    twice = ALICE.spend([coin(), coin()], [to_bob()])
    assert reason(twice) is TransactionRule.DUPLICATE_INPUT


def test_input_that_is_unknown_is_refused() -> None:
    outpoint, output = coin()
    unknown = OutPoint(outpoint.txid, 77)
    assert reason(ALICE.spend([(unknown, output)], [to_bob()])) is TransactionRule.MISSING_INPUT


def padded(stripped_bytes: int) -> Transaction:
    """A valid transaction whose stripped size is exactly this: a data output fills it up."""
    note = TxOut(0, Script(b"\x6a"))
    missing = stripped_bytes - paying(to_bob(), note).stripped_size
    while paying(to_bob(), TxOut(0, Script(b"\x6a" + bytes(missing)))).stripped_size > stripped_bytes:
        missing -= 1
    return paying(to_bob(), TxOut(0, Script(b"\x6a" + bytes(missing))))


def test_stripped_size_at_the_limit_is_valid() -> None:
    transaction = padded(MAX_STRIPPED_BYTES)
    assert transaction.stripped_size == MAX_STRIPPED_BYTES
    check(transaction)


def test_stripped_size_above_the_limit_is_refused() -> None:
    transaction = padded(MAX_STRIPPED_BYTES + 1)
    assert transaction.stripped_size == MAX_STRIPPED_BYTES + 1
    assert reason(transaction) is TransactionRule.STRIPPED_SIZE


def test_stripped_size_of_64_bytes_is_refused() -> None:
    outpoint, _ = coin()
    tiny = Transaction(2, (TxIn(outpoint),), (TxOut(1, Script(b"\x6a\x00\x00\x00")),))
    assert tiny.stripped_size == 64
    assert reason(tiny) is TransactionRule.SIZE_64


def test_total_size_above_the_limit_is_refused_before_parsing() -> None:
    with pytest.raises(Rejected) as caught:
        parse_transaction(bytes(MAX_TRANSACTION_BYTES + 1))
    assert caught.value.reason is TransactionRule.TOTAL_SIZE
    with pytest.raises(Rejected) as caught:
        parse_transaction(b"\xff" * MAX_TRANSACTION_BYTES)
    assert caught.value.reason is TransactionReason.MALFORMED


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: data + b"\x00", id="trailing byte"),
        pytest.param(lambda data: data[:4] + b"\xfd\x01\x00" + data[5:], id="long count"),
        pytest.param(lambda data: data[:4] + b"\x00\x01" + data[4:-4] + b"\x00" + data[-4:], id="superfluous witness"),
    ],
)
def test_bytes_that_one_parser_alone_takes_are_refused(spoil: Callable[[bytes], bytes]) -> None:
    """A transaction of two encodings would have one txid and two wtxids, and nodes could differ about it."""
    legacy = ALICE.spend([coin(ALICE.script(ScriptType.P2PKH))], [to_bob()]).serialize()
    check_transaction(parse_transaction(legacy), UTXOS, CHAIN.state.ledger, CONTEXT, CHAIN.rules)
    with pytest.raises(Rejected) as caught:
        parse_transaction(spoil(legacy))
    assert caught.value.reason is TransactionReason.PARSER_DISAGREEMENT


@pytest.mark.parametrize(
    "script",
    [
        b"",
        b"\x51",
        b"\x51\x02\x4e\x73",  # pay to anchor: a witness program that anyone may spend
        b"\x52\x20" + bytes(32),  # a witness version of the future
        b"\x00\x10" + bytes(16),
        b"\x21" + b"\x02" * 33 + b"\xac",  # pay to a bare key
        b"\x51\x21" + b"\x02" * 33 + b"\x51\xae",  # a bare multisig
    ],
)
def test_output_of_another_type_is_refused(script: bytes) -> None:
    assert reason(paying(to_bob(1), TxOut(1_000, Script(script)))) is TransactionRule.OUTPUT_TYPE


def test_data_output_without_value_is_valid_and_no_coin() -> None:
    note = TxOut(0, Script(b"\x6a\x04note"))
    assert check(paying(to_bob(), note)).burns == ()
    assert not is_spendable(note)


def test_output_without_value_to_one_of_the_five_types_is_valid() -> None:
    assert check(paying(to_bob(0))).fee_sats == VALUE_SATS


def test_fee_of_zero_is_valid_and_below_is_refused() -> None:
    assert check(paying(to_bob(VALUE_SATS))).fee_sats == 0
    assert reason(paying(to_bob(VALUE_SATS + 1))) is TransactionRule.FEE_NEGATIVE


# Burns


def burn(value_sats: int = 500_000, max_fee_sats: int = 2_000, l1_script: Script | None = None) -> TxOut:
    return CHAIN.burn_output(value_sats, l1_script or BOB.script(), ALICE.script(), max_fee_sats)


def test_burn_is_valid_and_reported_with_its_index() -> None:
    effect = check(paying(to_bob(100_000), burn(500_000)))
    assert effect.fee_sats == VALUE_SATS - 600_000
    [(vout, parsed, value_sats)] = effect.burns
    assert (vout, value_sats, parsed.max_fee_sats) == (1, 500_000, 2_000)
    assert (parsed.l1_script, parsed.refund_script) == (BOB.script(), ALICE.script())


def test_data_output_with_value_that_is_no_burn_is_refused() -> None:
    assert reason(paying(to_bob(1), TxOut(1, Script(b"\x6a\x04note")))) is BurnReason.MALFORMED


def test_burn_for_another_network_is_refused() -> None:
    script = burn().script.replace(CHAIN.rules.l1_genesis_hash, bytes(32))
    assert reason(paying(TxOut(500_000, Script(script)))) is BurnReason.WRONG_GENESIS


def test_burn_that_leaves_dust_is_refused() -> None:
    assert reason(paying(burn(2_293, 2_000))) is BurnReason.MAX_FEE
    assert reason(paying(burn(293, 0))) is BurnReason.DUST
    check(paying(burn(2_294, 2_000)))


def test_burns_over_the_window_are_refused_together() -> None:
    params = replace(CHAIN.rules.params, max_window_withdrawals_sats=1_000_000)
    rules = replace(CHAIN.rules, params=params)
    transaction = ALICE.spend([coin(value_sats=3_000_000)], [burn(500_000), burn(500_001)])
    with pytest.raises(Rejected) as caught:
        check_transaction(transaction, UTXOS, CHAIN.state.ledger, CONTEXT, rules)
    assert caught.value.reason is BurnReason.OVER_WINDOW


# Lock times


@pytest.mark.parametrize("locktime", [0, HEIGHT - 1, LOCKTIME_THRESHOLD, SECONDS - 1])
def test_lock_time_that_has_passed_is_valid(locktime: int) -> None:
    check(paying(to_bob(), locktime=locktime, sequence=NOT_FINAL_SEQUENCE))


@pytest.mark.parametrize("locktime", [HEIGHT, LOCKTIME_THRESHOLD - 1, SECONDS, 0x7FFFFFFF])
def test_lock_time_that_has_not_passed_is_refused(locktime: int) -> None:
    assert reason(paying(to_bob(), locktime=locktime, sequence=NOT_FINAL_SEQUENCE)) is TransactionRule.NOT_FINAL


def test_lock_time_is_void_when_every_input_is_final() -> None:
    check(paying(to_bob(), locktime=0x7FFFFFFF))
    coins = [coin(number=0), coin(number=1)]
    mixed = ALICE.spend(coins, [to_bob()], locktime=0x7FFFFFFF)
    first, second = mixed.inputs
    mixed = replace(mixed, inputs=(first, replace(second, sequence=NOT_FINAL_SEQUENCE)))
    assert reason(ALICE.sign(mixed, [output for _, output in coins])) is TransactionRule.NOT_FINAL


def relative(lock: int, version: int = 2) -> Transaction:
    return paying(to_bob(), sequence=lock, version=version)


def test_relative_lock_in_blocks_counts_from_the_coins_block() -> None:
    assert reason(relative(50), BlockContext(COIN_HEIGHT + 49, CONTEXT.time_ms)) is TransactionRule.RELATIVE_LOCK
    check(relative(50), BlockContext(COIN_HEIGHT + 50, CONTEXT.time_ms))


def test_relative_lock_in_time_counts_512_seconds_from_the_coins_block() -> None:
    lock = relative(RELATIVE_LOCK_IN_SECONDS | 3)
    due_seconds = COIN_SECONDS + 3 * 512
    assert reason(lock, BlockContext(HEIGHT, due_seconds * 1000 - 1)) is TransactionRule.RELATIVE_LOCK
    check(lock, BlockContext(HEIGHT, due_seconds * 1000))


def test_relative_lock_is_void_when_disabled_or_in_version_1() -> None:
    early = BlockContext(COIN_HEIGHT, COIN_SECONDS * 1000)
    check(relative(RELATIVE_LOCK_DISABLED | 0xFFFF), early)
    check(relative(0xFFFF, version=1), early)
    assert reason(relative(0xFFFF), early) is TransactionRule.RELATIVE_LOCK


def test_relative_lock_ignores_the_bits_without_meaning() -> None:
    check(relative(1 << 16 | 1 << 21 | 1), BlockContext(COIN_HEIGHT + 1, CONTEXT.time_ms))


# Scripts


def test_script_that_fails_is_refused() -> None:
    stolen = BOB.spend([(coin()[0], TxOut(VALUE_SATS, BOB.script()))], [to_bob()])
    assert reason(stolen) is ScriptReason.SCRIPT_FAILED


@pytest.mark.parametrize("kind", ScriptType)
def test_signature_of_another_transaction_is_refused_for_every_type(kind: ScriptType) -> None:
    spent = coin(ALICE.script(kind))
    signed = ALICE.spend([spent], [to_bob()])
    check(signed)
    altered = replace(signed, outputs=(TxOut(VALUE_SATS - 501, BOB.script()),))
    assert reason(altered) is ScriptReason.SCRIPT_FAILED


@pytest.mark.parametrize("kind", ScriptType)
def test_signature_of_another_key_is_refused_for_every_type(kind: ScriptType) -> None:
    """Mallory signs, and where the script names the key, shows her own or Alice's."""
    outpoint, output = coin(ALICE.script(kind))
    [alices] = ALICE.spend([(outpoint, output)], [to_bob()]).inputs
    [mallorys] = MALLORY.spend([(outpoint, TxOut(VALUE_SATS, MALLORY.script(kind)))], [to_bob()]).inputs
    stolen = Transaction(2, (mallorys,), (to_bob(),))
    assert reason(stolen) is ScriptReason.SCRIPT_FAILED
    if kind in (ScriptType.P2WPKH, ScriptType.P2WSH):
        shown = replace(mallorys, witness=(mallorys.witness[0], alices.witness[1]))
        assert reason(replace(stolen, inputs=(shown,))) is ScriptReason.SCRIPT_FAILED


@pytest.mark.parametrize("kind", ScriptType)
def test_input_without_any_signature_is_refused_for_every_type(kind: ScriptType) -> None:
    bare = Transaction(2, (TxIn(coin(ALICE.script(kind))[0]),), (to_bob(),))
    assert reason(bare) is ScriptReason.SCRIPT_FAILED


def test_signature_of_another_value_is_refused() -> None:
    outpoint, output = coin()
    assert reason(ALICE.spend([(outpoint, replace(output, value_sats=1))], [to_bob()])) is ScriptReason.SCRIPT_FAILED


def test_witness_beyond_standard_limits_is_refused() -> None:
    transaction = ALICE.spend([coin(ALICE.script(ScriptType.P2TR))], [to_bob()])
    [txin] = transaction.inputs
    assert reason(transaction.with_witnesses([(*txin.witness, b"\x50")])) is ScriptReason.ANNEX


def test_sigop_cost_above_the_limit_is_refused() -> None:
    """A data output of OP_CHECKMULTISIG counts for 20 legacy operations a byte, of 4 units each."""
    at_limit = MAX_TRANSACTION_SIGOP_COST // 80
    note = TxOut(0, Script(b"\x6a" + b"\xae" * at_limit))
    transaction = ALICE.spend([coin(ALICE.script(ScriptType.P2TR))], [to_bob(), note])
    assert check(transaction).sigop_cost == MAX_TRANSACTION_SIGOP_COST
    over = TxOut(0, Script(note.script + b"\xac"))
    transaction = ALICE.spend([coin(ALICE.script(ScriptType.P2TR))], [to_bob(), over])
    assert reason(transaction) is TransactionRule.SIGOP_COST
