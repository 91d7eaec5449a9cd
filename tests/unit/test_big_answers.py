"""Whoever pays a known address decides how much there is to show: it is read once, and shown in small steps.

The payments here spend all outputs of a large transaction, or one output of each of many. Work is counted, not timed: a
transaction parsed and an address written are one unit each, and a slice ends with every step.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio

from bridge.bitcoin.addresses import Network, encode_address
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import Script, hash_to_hex
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from pegnode.rpc.cookie import Credentials
from pegnode.rpc.jsonrpc import handle
from pegnode.rpc.lookup import MAX_WAITING
from pegnode.rpc.server import create_app, method_table
from pegnode.service import slices
from pegnode.storage.database import Database
from tests.support.mini_wallet import Coin, MiniWallet, coins_of
from tests.support.peg import p2tr
from tests.support.rpc_node import FakeNode

ALICE = MiniWallet("alice")
VICTIM, BYSTANDER = p2tr("an exchange"), p2tr("a bystander")
ANYONE = Script(b"\x00\x20" + sha256(b"\x51"))
"""P2WSH of OP_TRUE: spent without a signature."""
PARENTS = 3
OUTPUTS = 100
"""Of each parent."""
OWN_UNITS = 4
"""What one step may do: parse a transaction, or write an address, and something over."""


class Work(trio.abc.Instrument):
    """Counts units and look-ups. most: units of one step of any task."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forget()
        parse, get = Transaction.parse, Database.get

        def parsed(data: bytes) -> Transaction:
            self.parsed += 1
            self._count()
            return parse(data)

        def written(script: Script, network: Network) -> str:
            self._count()
            return encode_address(script, network)

        def looked_up(database: Database, family: str, key: bytes) -> bytes | None:
            self.looked_up += 1
            return get(database, family, key)

        monkeypatch.setattr(Transaction, "parse", parsed)
        monkeypatch.setattr("pegnode.rpc.render.encode_address", written)
        monkeypatch.setattr(Database, "get", looked_up)
        monkeypatch.setattr(slices, "SLICE_S", 0.0)

    def forget(self) -> None:
        """Begin anew."""
        self.parsed = self.looked_up = self.step = self.most = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.step = 0

    def _count(self) -> None:
        self.step += 1
        self.most = max(self.most, self.step)


class Scene:
    """A node with large final transactions, what spends them, and who asks for it."""

    def __init__(self, node: FakeNode, web: httpx.AsyncClient, work: Work) -> None:
        self.node = node
        self.web = web
        self.work = work
        self.parents: list[Transaction] = []

    async def make_parents(self) -> None:
        """Final transactions of many small outputs that anyone may spend."""
        for height in range(1, PARENTS + 1):
            self.node.fund(ALICE.script())
            [claim] = self.node.store.index.transactions_at(2 * height - 1)
            coin = coins_of(Transaction.parse(claim.data))[0]
            parent = ALICE.spend([coin], [TxOut(1_000, ANYONE)] * OUTPUTS)
            await self.node.submit_transaction(parent.serialize())
            self.node.make_block()
            self.parents.append(parent)

    async def pay_victim(self, *coins: Coin) -> Transaction:
        """Let a payment of these coins wait."""
        inputs = tuple(TxIn(outpoint, witness=(b"\x51",)) for outpoint, _ in coins)
        value_sats = sum(output.value_sats for _, output in coins) // 2
        payment = Transaction(2, inputs, (TxOut(value_sats, VICTIM),))
        await self.node.submit_transaction(payment.serialize())
        self.work.forget()
        return payment

    async def read(self, path: str) -> Any:
        """The JSON at a path."""
        response = await self.web.get(path)
        assert response.status_code == 200, response.text
        return response.json()

    async def history(self, script: Script, rest: str = "txs") -> Any:
        """What a wallet asks of an address."""
        return await self.read(f"/scripthash/{sha256(script).hex()}/{rest}")


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    node, work = FakeNode(tmp_path / "chain"), Work(monkeypatch)
    transport = httpx.ASGITransport(app=create_app(node, Credentials.generate()))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as web:
        scene = Scene(node, web, work)
        await scene.make_parents()
        trio.lowlevel.add_instrument(work)
        yield scene
        trio.lowlevel.remove_instrument(work)
    node.close()


def all_of_one(scene: Scene) -> list[Coin]:
    """All outputs of one transaction."""
    return coins_of(scene.parents[0])


def some_of_each(scene: Scene) -> list[Coin]:
    """The outputs of many transactions, never two of one in sequence."""
    return list(chain.from_iterable(zip(*(coins_of(parent) for parent in scene.parents), strict=True)))


@pytest.mark.parametrize("final", [True, False], ids=["final", "waiting"])
@pytest.mark.parametrize("coins_in", [all_of_one, some_of_each])
async def test_payment_of_many_inputs_is_shown_by_what_is_stored_with_it(
    scene: Scene, coins_in: Callable[[Scene], list[Coin]], final: bool
) -> None:
    coins = coins_in(scene)
    payment = await scene.pay_victim(*coins)
    if final:
        scene.node.make_block()
    path = f"/tx/{hash_to_hex(payment.txid)}"
    asked: tuple[Callable[[], Awaitable[Any]], ...]
    asked = (lambda: scene.history(VICTIM), lambda: scene.read(path), lambda: _decoded(scene, payment))
    for ask in asked:
        scene.work.forget()
        shown = await ask()
        found = shown[0] if isinstance(shown, list) else shown
        assert len(found["vin"]) == len(coins)
        assert all(item["prevout"] for item in found["vin"])
        assert scene.work.parsed == int(final)
        assert scene.work.looked_up <= 10
        assert 0 < scene.work.most <= OWN_UNITS


async def _decoded(scene: Scene, payment: Transaction) -> Any:
    return (await scene.node.ask("getrawtransaction", hash_to_hex(payment.txid), 2)).result


async def test_waiting_payment_costs_nobody_else_a_look_at_what_it_spends(scene: Scene) -> None:
    await scene.pay_victim(*some_of_each(scene))
    assert await scene.history(BYSTANDER) == []
    assert scene.work.parsed == 0
    scene.work.forget()
    assert await scene.history(BYSTANDER) == []
    assert scene.work.looked_up == 0


async def test_history_shows_prevouts_of_waiting_and_of_final_parents(scene: Scene) -> None:
    final = await scene.pay_victim(coins_of(scene.parents[0])[7])
    scene.node.make_block()
    inputs = tuple(TxIn(outpoint, witness=(b"\x51",)) for outpoint, _ in coins_of(scene.parents[1])[:2])
    parent = Transaction(2, inputs, (TxOut(900, ANYONE), TxOut(800, ANYONE)))
    await scene.node.submit_transaction(parent.serialize())
    waiting = await scene.pay_victim(coins_of(parent)[1])
    first, second = await scene.history(VICTIM)
    assert (first["txid"], second["txid"]) == (hash_to_hex(waiting.txid), hash_to_hex(final.txid))
    assert (first["vin"][0]["prevout"]["value"], second["vin"][0]["prevout"]["value"]) == (800, 1_000)
    touching = await scene.history(ANYONE, "txs/mempool")
    assert [item["txid"] for item in touching] == [hash_to_hex(waiting.txid), hash_to_hex(parent.txid)]


async def test_getblock_rests_between_the_parts_of_its_transactions(scene: Scene) -> None:
    payments = [await scene.pay_victim(*coins_of(parent)) for parent in scene.parents]
    scene.node.make_block()
    scene.work.forget()
    tip_hex = hash_to_hex(scene.node.store.tip.hash)
    block = (await scene.node.ask("getblock", tip_hex, 2)).result
    assert [item["txid"] for item in block["tx"]] == [hash_to_hex(payment.txid) for payment in payments]
    assert [item["confirmations"] for item in block["tx"]] == [1] * PARENTS
    assert scene.work.parsed == PARENTS
    assert 0 < scene.work.most <= OWN_UNITS
    scene.work.forget()
    assert (await scene.node.ask("getblock", tip_hex)).result["tx"] == [item["txid"] for item in block["tx"]]
    assert scene.work.parsed == 0


@pytest.mark.parametrize("final", [True, False], ids=["final", "waiting"])
async def test_outspends_read_no_spending_transaction(scene: Scene, final: bool) -> None:
    coins = all_of_one(scene)
    first, second = await scene.pay_victim(*coins[:60]), await scene.pay_victim(*coins[:59:-1])
    if final:
        scene.node.make_block()
    scene.work.forget()
    shown = await scene.read(f"/tx/{hash_to_hex(scene.parents[0].txid)}/outspends")
    expected = [(hash_to_hex(first.txid), vin) for vin in range(60)]
    expected += [(hash_to_hex(second.txid), vin) for vin in reversed(range(40))]
    assert [(item["txid"], item["vin"]) for item in shown] == expected
    assert {item["status"]["confirmed"] for item in shown} == {final}
    assert scene.work.parsed == 1


async def test_script_is_told_of_the_newest_waiting_payments_only(scene: Scene) -> None:
    payments = [await scene.pay_victim(coin) for coin in all_of_one(scene)[: MAX_WAITING + 2]]
    newest_first = [hash_to_hex(payment.txid) for payment in reversed(payments)]
    assert [item["txid"] for item in await scene.history(VICTIM)] == newest_first[:MAX_WAITING]
    assert [item["txid"] for item in await scene.history(VICTIM, "txs/mempool")] == newest_first[:MAX_WAITING]
    scene.node.make_block()
    assert len(await scene.history(VICTIM)) == 25


async def test_payment_that_goes_while_a_page_is_made_is_left_out(scene: Scene) -> None:
    coins = all_of_one(scene)
    payments = [await scene.pay_victim(coin) for coin in coins[:3]]
    pages: list[Any] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            pages.append(await scene.history(VICTIM))

        nursery.start_soon(ask)
        while scene.work.most == 0:  # until the newest payment is being shown
            await trio.lowlevel.checkpoint()
        scene.node.mempool.drop([payments[0].txid])
    assert [item["txid"] for item in pages[0]] == [hash_to_hex(payments[2].txid), hash_to_hex(payments[1].txid)]


async def test_histories_asked_at_once_are_the_same(scene: Scene) -> None:
    for coin in all_of_one(scene)[:10]:
        await scene.pay_victim(coin)
    pages: list[Any] = []
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            pages.append([item["txid"] for item in await scene.history(VICTIM)])

        for _ in range(3):
            nursery.start_soon(ask)
    assert len(pages[0]) == 10
    assert pages == [pages[0]] * 3


async def test_batch_rests_between_its_requests(scene: Scene) -> None:
    rests = 0

    async def count() -> None:
        nonlocal rests
        while True:
            await trio.lowlevel.checkpoint()
            rests += 1

    body = msgspec.json.encode([{"method": "getblockcount", "id": number} for number in range(200)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        reply = await handle(scene.node, method_table(), body)
        nursery.cancel_scope.cancel()
    assert [item["id"] for item in msgspec.json.decode(reply.body)] == list(range(200))
    assert rests >= 190  # one for each, but for who begins and who ends first
