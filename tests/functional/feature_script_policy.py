"""What block rules forbid beyond consensus, against a real node: it would mine these spends, and doesn't relay them."""

from dataclasses import dataclass

import pytest
from bitcoin.core.serialize import Hash160

from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.curve import NUMS
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.script import (
    ScriptReason,
    ScriptType,
    classify,
    dust_limit_sats,
    push,
    require_standard_witness,
    sigop_cost,
)
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.taproot import control_block, output_key, output_script, tapleaf_hash
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.errors import Rejected
from bridge.l1.jsonrpc import Call
from bridge.l1.regtest import AddressType
from tests.support.bitcoind import Regtest

REGTEST = l1_network("regtest")
FALSE, TRUE, DROP, CHECKSIG = b"\x00", b"\x51", b"\x75", b"\xac"
UNUSED_BRANCH = b"\x63%s\x68\x51"  # IF ... ENDIF 1
COIN_SATS = 100_000
FEE_SATS = 10_000


def p2tr(leaf: bytes, version: int = 0xC0) -> tuple[Script, bytes]:
    """An output with one leaf and no key, and its control block."""
    key, parity = output_key(NUMS, tapleaf_hash(leaf, version))
    return output_script(key), control_block(NUMS, parity, [], version)


def p2wsh(script: bytes) -> Script:
    """Output script."""
    return Script(b"\x00\x20" + sha256(script))


def p2sh(script: bytes) -> Script:
    """Output script."""
    return Script(b"\xa9\x14" + Hash160(script) + b"\x87")


@dataclass(frozen=True)
class Spend:
    """A way to spend an output that needs no key. reason: why no block may hold it; None: it may."""

    reason: ScriptReason | None
    script: Script
    script_sig: bytes = b""
    witness: tuple[bytes, ...] = ()


def by_leaf(reason: ScriptReason | None, leaf: bytes, *items: bytes, version: int = 0xC0, annex: bytes = b"") -> Spend:
    """Spend a leaf of Taproot."""
    script, control = p2tr(leaf, version)
    return Spend(reason, script, witness=(*items, leaf, control, *([annex] if annex else [])))


def by_witness_script(reason: ScriptReason | None, script: bytes, *items: bytes) -> Spend:
    """Spend P2WSH."""
    return Spend(reason, p2wsh(script), witness=(*items, script))


def by_redeem_script(
    reason: ScriptReason | None, script: bytes, before: bytes = b"", last: bytes | None = None, *witness: bytes
) -> Spend:
    """Spend P2SH. last: in place of the shortest push of the redeem script."""
    return Spend(reason, p2sh(script), before + (push(script) if last is None else last), witness)


LARGE_DATA = push(bytes(520)) * 3 + push(bytes(90))
PADDING = (push(bytes(75)) + DROP) * 50
TAPROOT_IN_P2SH = p2tr(b"\x00")[0]

SPENDS = {
    "tapscript": by_leaf(None, DROP + TRUE, bytes(80)),
    "p2wsh": by_witness_script(None, DROP * 15 + TRUE, *[bytes(80)] * 15),
    "p2wsh-of-100-items": by_witness_script(None, DROP * 100 + TRUE, *[b""] * 100),
    "p2sh": by_redeem_script(None, UNUSED_BRANCH % (CHECKSIG * 15), FALSE),
    "op-success": by_leaf(ScriptReason.OP_SUCCESS, b"\x00\x50"),
    "annex": by_leaf(ScriptReason.ANNEX, TRUE, annex=b"\x50"),
    "leaf-version": by_leaf(ScriptReason.UNKNOWN_LEAF_VERSION, b"\x00", version=0xC2),
    "tapscript-item": by_leaf(ScriptReason.WITNESS_ITEM_TOO_LARGE, DROP + TRUE, bytes(81)),
    "p2wsh-item": by_witness_script(ScriptReason.WITNESS_ITEM_TOO_LARGE, DROP + TRUE, bytes(81)),
    "p2wsh-items": by_witness_script(ScriptReason.WITNESS_TOO_MANY_ITEMS, DROP * 101 + TRUE, *[b""] * 101),
    "p2wsh-script": by_witness_script(ScriptReason.WITNESS_SCRIPT_TOO_LARGE, PADDING + TRUE),
    "witness-version": Spend(ScriptReason.UNKNOWN_WITNESS_VERSION, Script(b"\x52\x20" + b"\x01" * 32), witness=(b"x",)),
    "witness-version-in-p2sh": by_redeem_script(ScriptReason.UNKNOWN_WITNESS_VERSION, b"\x60\x02\x01\x01"),
    "taproot-in-p2sh": by_redeem_script(ScriptReason.UNKNOWN_WITNESS_VERSION, TAPROOT_IN_P2SH),
    "long-push": by_redeem_script(ScriptReason.SCRIPT_SIG_NOT_PUSH_ONLY, TRUE, last=b"\x4c\x01" + TRUE),
    "script-sig": by_redeem_script(ScriptReason.SCRIPT_SIG_TOO_LARGE, DROP * 4 + TRUE, LARGE_DATA),
    "p2sh-sigops": by_redeem_script(ScriptReason.P2SH_SIGOPS, UNUSED_BRANCH % (CHECKSIG * 16), FALSE),
}


@pytest.fixture
def regtest(shared_regtest: Regtest) -> Regtest:
    """One node for all of these tests."""
    return shared_regtest


async def fund(regtest: Regtest, outputs: list[TxOut]) -> Transaction:
    """Confirm a transaction with these outputs, paid from the wallet by way of a coin that anyone may spend."""
    script, control = p2tr(TRUE)
    value_sats = sum(output.value_sats for output in outputs) + FEE_SATS
    txid = await regtest.miner.send_to_address(encode_address(script, REGTEST), value_sats)
    data = await regtest.client.raw_transaction(txid)
    assert data is not None
    source = Transaction.parse(data)
    vout = [output.script for output in source.outputs].index(script)
    txin = TxIn(source.outpoint(vout), witness=(TRUE, control))
    transaction = Transaction(2, (txin,), tuple(outputs))
    await regtest.client.send_raw_transaction(transaction.serialize())
    await regtest.miner.generate(1)
    return transaction


async def test_spends_that_blocks_refuse_are_valid_and_not_relayed(regtest: Regtest) -> None:
    funding = await fund(regtest, [TxOut(COIN_SATS, spend.script) for spend in SPENDS.values()])
    spends = []
    for vout, (name, spend) in enumerate(SPENDS.items()):
        txin = TxIn(funding.outpoint(vout), spend.script_sig, witness=spend.witness)
        transaction = Transaction(2, (txin,), (TxOut(COIN_SATS - FEE_SATS, Script(b"\x00\x14" + bytes(20))),))
        prevouts = [funding.outputs[vout]]
        verify_scripts(transaction, prevouts)
        verdict = await regtest.client.test_mempool_accept(transaction.serialize())
        if spend.reason is None:
            require_standard_witness(transaction, prevouts)
            assert verdict.reject_reason == "", name
        else:
            with pytest.raises(Rejected) as rejection:
                require_standard_witness(transaction, prevouts)
            assert rejection.value.reason is spend.reason, name
            assert not verdict.allowed, name
        spends.append(transaction.serialize())
    await regtest.miner.generate_block(spends)


async def test_dust_limit_is_the_one_of_the_node(regtest: Regtest) -> None:
    scripts = [
        Script(b"\x76\xa9\x14" + bytes(20) + b"\x88\xac"),
        p2sh(TRUE),
        Script(b"\x00\x14" + bytes(20)),
        p2wsh(TRUE),
        p2tr(TRUE)[0],
    ]
    assert [classify(script) for script in scripts] == list(ScriptType)
    source, control = p2tr(TRUE)
    funding = await fund(regtest, [TxOut(COIN_SATS, source)])
    txin = TxIn(funding.outpoint(0), witness=(TRUE, control))
    for script in scripts:
        limit_sats = dust_limit_sats(script)
        for value_sats, is_dust in ((limit_sats, False), (limit_sats - 1, True)):
            change = TxOut(COIN_SATS - FEE_SATS, source)
            transaction = Transaction(2, (txin,), (change, TxOut(value_sats, script)))
            verdict = await regtest.client.test_mempool_accept(transaction.serialize())
            assert verdict.reject_reason.startswith("dust") if is_dust else verdict.allowed


async def test_wallet_of_the_node_signs_every_type_and_we_count_its_sigops(regtest: Regtest) -> None:
    addresses = [await regtest.miner.new_address(kind) for kind in AddressType]
    paying = await regtest.miner.send_many(dict.fromkeys(addresses, COIN_SATS))
    data = await regtest.client.raw_transaction(paying)
    assert data is not None
    await regtest.miner.generate(1)
    funding = Transaction.parse(data)
    spent = [vout for vout, output in enumerate(funding.outputs) if output.value_sats == COIN_SATS]
    assert len(spent) == len(addresses)
    prevouts = [funding.outputs[vout] for vout in spent]
    outputs = (
        TxOut(COIN_SATS, Script(b"\x76\xa9\x14" + bytes(20) + b"\x88\xac")),
        TxOut(COIN_SATS, Script(b"\x00\x14" + bytes(20))),
    )
    unsigned = Transaction(2, tuple(TxIn(funding.outpoint(vout)) for vout in spent), outputs)

    call = Call("signrawtransactionwithwallet", (unsigned.serialize().hex(),))
    answer = await regtest.client.connection.call(call, path="/wallet/miner")
    assert isinstance(answer, dict)
    signed = Transaction.parse(bytes.fromhex(str(answer["hex"])))
    require_standard_witness(signed, prevouts)
    verify_scripts(signed, prevouts)

    await regtest.client.send_raw_transaction(signed.serialize())
    template = await regtest.client.connection.call(Call("getblocktemplate", ({"rules": ["segwit"]},)))
    assert isinstance(template, dict)
    transactions = template["transactions"]
    assert isinstance(transactions, list)
    [entry] = transactions
    assert isinstance(entry, dict)
    assert entry["sigops"] == sigop_cost(signed, prevouts) == 4 + 1 + 1  # one in each: P2PKH's output, both P2WPKH
    assert entry["weight"] == signed.weight
