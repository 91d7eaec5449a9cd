"""The REST interface: what wallets ask, with the mempool in it, and pages of exactly 25."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.bitcoin.addresses import encode_address
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import hash_to_hex
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.deposits import CLAIM_FLAG
from pegnode.rpc.cookie import Credentials
from pegnode.rpc.esplora import CONFIRMED_PAGE
from pegnode.rpc.server import create_app
from tests.support.mini_wallet import Coin, MiniWallet
from tests.support.peg import p2tr
from tests.support.rpc_node import FakeNode

ALICE = MiniWallet("alice")
NOBODY = p2tr("nobody")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[FakeNode]:
    """A chain of two blocks: the first credits Alice, the second is empty."""
    fake = FakeNode(tmp_path / "chain")
    fake.fund(ALICE.script())
    fake.make_block()
    yield fake
    fake.close()


@pytest.fixture
async def web(node: FakeNode) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(node, Credentials.generate())
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
        yield client


async def read(web: httpx.AsyncClient, path: str) -> Any:
    """The JSON at a path."""
    response = await web.get(path)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


async def text(web: httpx.AsyncClient, path: str) -> str:
    """The plain text at a path."""
    response = await web.get(path)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain")
    return response.text


def script_path(script: bytes, rest: str = "txs") -> str:
    return f"/scripthash/{sha256(script).hex()}/{rest}"


def claimed_coin(node: FakeNode) -> Coin:
    """What the claim in the first block pays Alice."""
    claim = Transaction.parse(next(node.store.index.transactions_at(1)).data)
    return claim.outpoint(0), claim.outputs[0]


async def pay(node: FakeNode, coin: Coin, *scripts: bytes) -> Transaction:
    """A payment of Alice's to the mempool, with the rest back to her as the last output."""
    fee_sats = 1_000
    outputs = [TxOut(10_000, p2tr(script.hex())) for script in scripts]
    rest_sats = coin[1].value_sats - 10_000 * len(scripts) - fee_sats
    transaction = ALICE.spend([coin], [*outputs, TxOut(rest_sats, ALICE.script())])
    await node.submit_transaction(transaction.serialize())
    return transaction


async def test_tip_and_heights(node: FakeNode, web: httpx.AsyncClient) -> None:
    tip_hex = hash_to_hex(node.store.tip.hash)
    assert await text(web, "/blocks/tip/height") == "2"
    assert await text(web, "/blocks/tip/hash") == tip_hex
    assert await text(web, "/block-height/2") == tip_hex
    assert await text(web, "/block-height/0") == hash_to_hex(node.rules.genesis_header.hash)


async def test_blocks_lists_ten_newest_first(node: FakeNode, web: httpx.AsyncClient) -> None:
    blocks = await read(web, "/blocks")
    assert [block["height"] for block in blocks] == [2, 1, 0]
    assert [block["tx_count"] for block in blocks] == [0, 1, 0]
    assert blocks[1]["previousblockhash"] == blocks[2]["id"]
    assert blocks[2]["previousblockhash"] is None
    needed = {
        "id", "height", "version", "timestamp", "tx_count", "size", "weight", "merkle_root", "mediantime", "nonce",
        "bits", "difficulty",
    }  # fmt: skip
    assert all(needed <= block.keys() for block in blocks)
    for _ in range(10):
        node.make_block()
    assert [block["height"] for block in await read(web, "/blocks")] == list(range(12, 2, -1))
    assert [block["height"] for block in await read(web, "/blocks/4")] == [4, 3, 2, 1, 0]
    assert len(await read(web, "/blocks/99")) == 10


async def test_block_by_hash(node: FakeNode, web: httpx.AsyncClient) -> None:
    block_hash = await text(web, "/block-height/1")
    block = await read(web, f"/block/{block_hash}")
    assert (block["id"], block["height"], block["tx_count"]) == (block_hash, 1, 1)
    data = node.store.block_at(1)
    assert data is not None
    assert block["size"] == len(data)


async def test_claim_has_no_prevout(node: FakeNode, web: httpx.AsyncClient) -> None:
    outpoint, output = claimed_coin(node)
    shown = await read(web, f"/tx/{hash_to_hex(outpoint.txid)}")
    [spent] = shown["vin"]
    assert spent["prevout"] is None
    assert spent["is_coinbase"] is False
    assert spent["vout"] & CLAIM_FLAG
    assert shown["fee"] == node.rules.params.claim_fee_sats
    assert shown["vout"] == [
        {
            "scriptpubkey": ALICE.script().hex(),
            "scriptpubkey_type": "v0_p2wpkh",
            "scriptpubkey_address": encode_address(ALICE.script(), node.network),
            "value": output.value_sats,
        }
    ]
    assert shown["status"] == {
        "confirmed": True,
        "block_height": 1,
        "block_hash": await text(web, "/block-height/1"),
        "block_time": (await read(web, "/blocks/1"))[0]["timestamp"],
    }


async def test_waiting_transaction_in_every_form(node: FakeNode, web: httpx.AsyncClient) -> None:
    coin = claimed_coin(node)
    transaction = await pay(node, coin, b"a")
    path = f"/tx/{hash_to_hex(transaction.txid)}"
    shown = await read(web, path)
    assert shown["status"] == {"confirmed": False}
    assert (shown["fee"], shown["weight"], shown["version"]) == (1_000, transaction.weight, 2)
    assert shown["vin"][0]["prevout"]["value"] == coin[1].value_sats
    assert shown["vin"][0]["witness"] == [item.hex() for item in transaction.inputs[0].witness]
    assert await text(web, f"{path}/hex") == transaction.serialize().hex()
    assert (await web.get(f"{path}/raw")).content == transaction.serialize()
    assert await read(web, f"{path}/status") == {"confirmed": False}
    node.make_block()
    assert (await read(web, f"{path}/status"))["block_height"] == 3


async def test_outspends_see_the_mempool_and_the_chain(node: FakeNode, web: httpx.AsyncClient) -> None:
    coin = claimed_coin(node)
    path = f"/tx/{hash_to_hex(coin[0].txid)}"
    assert await read(web, f"{path}/outspends") == [{"spent": False}]
    transaction = await pay(node, coin, b"a")
    waiting = {"spent": True, "txid": hash_to_hex(transaction.txid), "vin": 0, "status": {"confirmed": False}}
    assert await read(web, f"{path}/outspends") == [waiting]
    assert await read(web, f"{path}/outspend/0") == waiting
    node.make_block()
    assert (await read(web, f"{path}/outspend/0"))["status"]["block_height"] == 3


async def test_history_has_what_waits_before_what_is_confirmed(node: FakeNode, web: httpx.AsyncClient) -> None:
    coin = claimed_coin(node)
    first = await pay(node, coin, b"a")
    second = await pay(node, (first.outpoint(1), first.outputs[1]), b"b")
    expected = [hash_to_hex(txid) for txid in (second.txid, first.txid, coin[0].txid)]
    assert [item["txid"] for item in await read(web, script_path(ALICE.script()))] == expected
    assert [item["txid"] for item in await read(web, script_path(ALICE.script(), "txs/mempool"))] == expected[:2]
    assert [item["txid"] for item in await read(web, script_path(ALICE.script(), "txs/chain"))] == expected[2:]
    assert [item["txid"] for item in await read(web, script_path(p2tr(b"a".hex())))] == [expected[1]]
    assert await read(web, script_path(NOBODY)) == []
    node.make_block()
    assert [item["txid"] for item in await read(web, script_path(ALICE.script()))] == expected
    assert await read(web, script_path(ALICE.script(), "txs/mempool")) == []


async def test_history_forgets_what_the_mempool_dropped(node: FakeNode, web: httpx.AsyncClient) -> None:
    coin = claimed_coin(node)
    first = await pay(node, coin, b"a")
    assert len(await read(web, script_path(p2tr(b"a".hex())))) == 1
    node.mempool.drop([first.txid])
    assert await read(web, script_path(p2tr(b"a".hex()))) == []
    second = await pay(node, coin, b"b")
    assert [item["txid"] for item in await read(web, script_path(ALICE.script(), "txs/mempool"))] == [
        hash_to_hex(second.txid)
    ]


async def test_history_pages_hold_exactly_25_and_meet(node: FakeNode, web: httpx.AsyncClient) -> None:
    coin, made = claimed_coin(node), []
    for number in range(2 * CONFIRMED_PAGE + 3):
        transaction = await pay(node, coin, b"payee")
        coin = (transaction.outpoint(1), transaction.outputs[1])
        made.append(hash_to_hex(transaction.txid))
        if number % 20 == 19:
            node.make_block()
    node.make_block()
    path = script_path(p2tr(b"payee".hex()))
    pages = [await read(web, path)]
    while len(pages[-1]) >= CONFIRMED_PAGE:
        pages.append(await read(web, f"{path}/chain/{pages[-1][-1]['txid']}"))
    assert [len(page) for page in pages] == [25, 25, 3]
    assert [item["txid"] for page in pages for item in page] == made[::-1]
    assert await read(web, f"{path}/chain/{'11' * 32}") == []


async def test_history_page_is_empty_after_a_waiting_transaction(node: FakeNode, web: httpx.AsyncClient) -> None:
    transaction = await pay(node, claimed_coin(node), b"a")
    path = script_path(ALICE.script(), f"txs/chain/{hash_to_hex(transaction.txid)}")
    assert await read(web, path) == []


async def test_broadcast_puts_into_the_mempool_and_may_be_repeated(node: FakeNode, web: httpx.AsyncClient) -> None:
    transaction = ALICE.pay(claimed_coin(node), NOBODY)
    body = transaction.serialize().hex()
    response = await web.post("/tx", content=body)
    assert (response.status_code, response.text) == (200, hash_to_hex(transaction.txid))
    assert transaction.txid in node.mempool
    node.make_block()
    again = await web.post("/tx", content=body, headers={"content-type": "application/x-www-form-urlencoded"})
    assert (again.status_code, again.text) == (200, hash_to_hex(transaction.txid))


async def test_broadcast_tells_why_not(node: FakeNode, web: httpx.AsyncClient) -> None:
    transaction = ALICE.pay(claimed_coin(node), NOBODY)
    unsigned = transaction.with_witnesses([()])
    refused = await web.post("/tx", content=unsigned.serialize().hex())
    assert refused.status_code == 400
    assert refused.text.startswith('sendrawtransaction RPC error: {"code":-26,"message":"script-failed')
    for body in (b"zz", b"00ff", "é".encode(), b"", transaction.serialize()):
        refused = await web.post("/tx", content=body)
        assert refused.status_code == 400
        assert '"code":-22' in refused.text
    assert (await web.post("/tx", content=b"0" * 900_000)).status_code == 413
    assert len(node.mempool) == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/block-height/3", 404),
        ("/block-height/-1", 400),
        ("/block-height/x", 400),
        ("/block-height/²", 400),
        ("/blocks/x", 400),
        (f"/block/{'11' * 32}", 404),
        ("/block/11", 400),
        (f"/tx/{'11' * 32}", 404),
        (f"/tx/{'11' * 32}/hex", 404),
        (f"/tx/{'11' * 32}/raw", 404),
        (f"/tx/{'11' * 32}/status", 404),
        (f"/tx/{'11' * 32}/outspends", 404),
        ("/tx/zz", 400),
        ("/scripthash/zz/txs", 400),
        ("/scripthash/1122/txs", 400),
        (f"/scripthash/{'11' * 32}/txs/chain/zz", 400),
        ("/nothing", 404),
    ],
)
async def test_what_is_not_there_is_refused(web: httpx.AsyncClient, path: str, status: int) -> None:
    assert (await web.get(path)).status_code == status


async def test_outspend_of_an_output_that_is_not_there(node: FakeNode, web: httpx.AsyncClient) -> None:
    path = f"/tx/{hash_to_hex(claimed_coin(node)[0].txid)}/outspend"
    assert (await web.get(f"{path}/1")).status_code == 404
    assert (await web.get(f"{path}/x")).status_code == 404
    assert (await web.get(f"{path}/{'1' * 5_000}")).status_code == 404
    assert (await web.get(f"{path}/\u0660")).status_code == 404


async def test_fee_estimates_are_what_is_relayed(web: httpx.AsyncClient) -> None:
    response = await web.get("/fee-estimates")
    assert response.json()["1"] == 0.1
    assert '"6":0.100' in response.text
