"""Methods about the final chain and what waits, named as bitcoind names them."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from bridge.bitcoin.addresses import encode_address
from bridge.bitcoin.identifiers import hash_to_hex
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.deposits import CLAIM_FLAG
from pegnode.chain.block import Block
from pegnode.chain.header import Header
from pegnode.chain.transactions import TransactionRule
from pegnode.mempool.pool import PoolReason
from pegnode.rpc.node_api import NodeUnavailable, UnavailableReason
from pegnode.storage.errors import StorageError, StorageReason
from tests.support.mini_wallet import Coin, MiniWallet
from tests.support.peg import p2tr
from tests.support.rpc_node import FakeNode

ALICE = MiniWallet("alice")
DEPOSIT_SATS = 10_000_000


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    """A chain of two blocks: the first credits Alice, the second is empty."""
    fake = FakeNode(tmp_path / "chain")
    fake.fund(ALICE.script(), value_sats=DEPOSIT_SATS)
    fake.make_block()
    yield fake
    fake.close()


def claimed_coin(node: FakeNode) -> Coin:
    """What the claim in the first block pays Alice."""
    claim = Transaction.parse(next(node.store.index.transactions_at(1)).data)
    return claim.outpoint(0), claim.outputs[0]


def payment(node: FakeNode) -> Transaction:
    """Half of it to nobody, half back, with a fee of 1,000 sats."""
    return ALICE.pay(claimed_coin(node), p2tr("nobody"), ALICE.script())


async def test_heights_and_hashes(node: FakeNode) -> None:
    tip_hex = hash_to_hex(node.store.tip.hash)
    assert (await node.ask("getblockcount")).result == 2
    assert (await node.ask("getbestblockhash")).result == tip_hex
    assert (await node.ask("getblockhash", 2)).result == tip_hex
    assert (await node.ask("getblockhash", 0)).result == hash_to_hex(node.rules.genesis_header.hash)


@pytest.mark.parametrize("height", [-1, 3, 2**64])
async def test_getblockhash_refuses_a_height_out_of_range(node: FakeNode, height: int) -> None:
    assert (await node.ask("getblockhash", height)).code == -8


async def test_getblockchaininfo(node: FakeNode) -> None:
    info = (await node.ask("getblockchaininfo")).result
    assert info["chain"] == "pegnode-regtest"
    assert (info["blocks"], info["headers"], info["initialblockdownload"]) == (2, 2, False)
    assert info["chain_id"] == node.rules.chain_id.hex()
    assert info["anchor"]["height"] == node.store.tip.header.anchor.height
    assert info["size_on_disk"] > 0
    assert info["verificationprogress"] == 1


async def test_getblockheader_decoded_and_raw(node: FakeNode) -> None:
    header = node.store.tip.header
    shown = (await node.ask("getblockheader", hash_to_hex(header.hash))).result
    assert shown["height"] == 2
    assert shown["confirmations"] == 1
    assert shown["previousblockhash"] == hash_to_hex(header.parent)
    assert shown["ledger_root"] == header.ledger_root.hex()
    assert "nextblockhash" not in shown
    raw = (await node.ask("getblockheader", hash_to_hex(header.hash), False)).result
    assert Header.decode(bytes.fromhex(raw)) == header


async def test_getblock_at_each_verbosity(node: FakeNode) -> None:
    block_hash = (await node.ask("getblockhash", 1)).result
    assert Block.decode(bytes.fromhex((await node.ask("getblock", block_hash, 0)).result)).header.height == 1
    shown = (await node.ask("getblock", block_hash)).result
    claim_hex = hash_to_hex(claimed_coin(node)[0].txid)
    assert (shown["tx"], shown["nTx"], shown["confirmations"]) == ([claim_hex], 1, 2)
    assert shown["nextblockhash"] == hash_to_hex(node.store.tip.hash)
    assert bytes.fromhex(shown["certificate"]) == b"a certificate"
    [decoded] = (await node.ask("getblock", block_hash, 2)).result["tx"]
    assert decoded["txid"] == claim_hex
    genesis = (await node.ask("getblock", hash_to_hex(node.rules.genesis_header.hash))).result
    assert (genesis["tx"], genesis["certificate"]) == ([], None)


@pytest.mark.parametrize("method", ["getblock", "getblockheader"])
async def test_unknown_block_is_not_found(node: FakeNode, method: str) -> None:
    assert (await node.ask(method, "11" * 32)).code == -5
    assert (await node.ask(method, "11")).code == -8


async def test_getrawtransaction_shows_a_claim(node: FakeNode) -> None:
    outpoint, output = claimed_coin(node)
    txid_hex = hash_to_hex(outpoint.txid)
    shown = (await node.ask("getrawtransaction", txid_hex, 2)).result
    assert (shown["kind"], shown["confirmations"], shown["blockhash"]) == (
        "claim", 2, (await node.ask("getblockhash", 1)).result,
    )  # fmt: skip
    [spent] = shown["vin"]
    assert spent["vout"] & CLAIM_FLAG
    assert spent["claims_deposit"] == f"{spent['txid']}:{spent['vout'] ^ CLAIM_FLAG}"
    assert "prevout" not in spent
    [paid] = shown["vout"]
    assert paid["scriptPubKey"]["address"] == encode_address(ALICE.script(), node.network)
    assert paid["scriptPubKey"]["type"] == "witness_v0_keyhash"
    assert int(paid["value"] * 100_000_000) == output.value_sats
    assert (await node.ask("getrawtransaction", txid_hex)).result == shown["hex"]


async def test_amounts_are_numbers_with_eight_decimals(node: FakeNode) -> None:
    shown = (await node.ask("getrawtransaction", hash_to_hex(claimed_coin(node)[0].txid), 1)).result
    value = shown["vout"][0]["value"]
    assert isinstance(value, Decimal)
    assert str(value) == "0.09999000"


async def test_getrawtransaction_of_a_waiting_one(node: FakeNode) -> None:
    transaction = payment(node)
    await node.submit_transaction(transaction.serialize())
    shown = (await node.ask("getrawtransaction", hash_to_hex(transaction.txid), 2)).result
    assert shown["hex"] == transaction.serialize().hex()
    assert str(shown["fee"]) == "0.00001000"
    assert str(shown["vin"][0]["prevout"]["value"]) == "0.09999000"
    assert "blockhash" not in shown
    assert "confirmations" not in shown
    node.make_block()
    shown = (await node.ask("getrawtransaction", hash_to_hex(transaction.txid), True)).result
    assert (shown["kind"], shown["confirmations"]) == ("transfer", 1)


async def test_getrawtransaction_looks_only_in_the_named_block(node: FakeNode) -> None:
    txid_hex = hash_to_hex(claimed_coin(node)[0].txid)
    first, second = (await node.ask("getblockhash", 1)).result, (await node.ask("getblockhash", 2)).result
    assert (await node.ask("getrawtransaction", txid_hex, 0, first)).result
    assert (await node.ask("getrawtransaction", txid_hex, 0, second)).code == -5
    assert (await node.ask("getrawtransaction", txid_hex, 0, "22" * 32)).code == -5
    assert (await node.ask("getrawtransaction", "22" * 32)).code == -5
    assert (await node.ask("getrawtransaction", "zz" * 32)).code == -8


async def test_gettxout_follows_the_mempool_when_asked_to(node: FakeNode) -> None:
    outpoint, _ = claimed_coin(node)
    spent = [hash_to_hex(outpoint.txid), outpoint.vout]
    shown = (await node.ask("gettxout", *spent)).result
    assert (shown["confirmations"], str(shown["value"]), shown["coinbase"]) == (2, "0.09999000", False)
    transaction = payment(node)
    await node.submit_transaction(transaction.serialize())
    made = [hash_to_hex(transaction.txid), 1]
    assert (await node.ask("gettxout", *spent)).result is None
    assert (await node.ask("gettxout", *spent, False)).result["confirmations"] == 2
    assert (await node.ask("gettxout", *made)).result["confirmations"] == 0
    assert (await node.ask("gettxout", *made, False)).result is None
    assert (await node.ask("gettxout", made[0], 9)).result is None
    node.make_block()
    assert (await node.ask("gettxout", *made)).result["confirmations"] == 1
    assert (await node.ask("gettxout", *spent, False)).result is None
    assert (await node.ask("gettxout", made[0], 2**32)).code == -8


async def test_sendrawtransaction_puts_into_the_mempool(node: FakeNode) -> None:
    transaction = payment(node)
    answer = await node.ask("sendrawtransaction", transaction.serialize().hex())
    assert answer.result == hash_to_hex(transaction.txid)
    assert (await node.ask("getrawmempool")).result == [answer.result]
    entry = (await node.ask("getrawmempool", True)).result[answer.result]
    assert (entry["vsize"], str(entry["fees"]["base"])) == (transaction.vsize_vbytes, "0.00001000")
    info = (await node.ask("getmempoolinfo")).result
    assert (info["size"], info["bytes"], str(info["total_fee"])) == (1, transaction.vsize_vbytes, "0.00001000")
    assert str(info["mempoolminfee"]) == "0.00000100"


async def test_sendrawtransaction_refuses_with_bitcoinds_numbers(node: FakeNode) -> None:
    transaction = payment(node)
    unsigned = transaction.with_witnesses([()] * len(transaction.inputs))
    rejected = await node.ask("sendrawtransaction", unsigned.serialize().hex())
    assert (rejected.code, rejected.reason) == (-26, "script-failed")
    missing = ALICE.pay((transaction.outpoint(0), transaction.outputs[0]), ALICE.script())
    orphan = await node.ask("sendrawtransaction", missing.serialize().hex())
    assert (orphan.code, orphan.reason) == (-25, TransactionRule.MISSING_INPUT.value)
    assert (await node.ask("sendrawtransaction", "00ff")).code == -22
    assert (await node.ask("sendrawtransaction", "xyz")).code == -22
    trailing = await node.ask("sendrawtransaction", transaction.serialize().hex() + "00")
    assert (trailing.code, bool(trailing.reason)) == (-22, True)
    await node.submit_transaction(transaction.serialize())
    node.make_block()
    assert (await node.ask("sendrawtransaction", transaction.serialize().hex())).code == -27


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (NodeUnavailable(UnavailableReason.SYNCING), -10),
        (StorageError(StorageReason.UNUSABLE, "the disk is full"), -20),
    ],
)
async def test_sendrawtransaction_passes_on_the_nodes_state(node: FakeNode, failure: Exception, code: int) -> None:
    node.failure = failure
    assert (await node.ask("sendrawtransaction", payment(node).serialize().hex())).code == code


async def test_testmempoolaccept_judges_without_sending(node: FakeNode) -> None:
    good = payment(node)
    dust = ALICE.spend([claimed_coin(node)], [TxOut(1, p2tr("nobody"))])
    texts = [good.serialize().hex(), dust.serialize().hex()]
    accepted, refused = (await node.ask("testmempoolaccept", texts)).result
    assert accepted["allowed"] is True
    assert (accepted["txid"], accepted["vsize"]) == (hash_to_hex(good.txid), good.vsize_vbytes)
    assert str(accepted["fees"]["base"]) == "0.00001000"
    assert (refused["allowed"], refused["reject-reason"]) == (False, PoolReason.DUST.value)
    assert (await node.ask("getrawmempool")).result == []
    assert (await node.ask("testmempoolaccept", [])).code == -8
    assert (await node.ask("testmempoolaccept", ["00"] * 26)).code == -8
    assert (await node.ask("testmempoolaccept", ["00"])).code == -22
