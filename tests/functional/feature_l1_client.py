"""Every question of the L1 client to a real Bitcoin node, and what it says of one that can't be asked."""

from __future__ import annotations

import hashlib
import json

import pytest
import trio

from bridge.bitcoin.amounts import COIN
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Txid, hash_from_hex
from bridge.l1.answers import L1TxOut
from bridge.l1.client import L1Client
from bridge.l1.connection import L1Connection
from bridge.l1.credentials import CookieAuth, PasswordAuth
from bridge.l1.errors import L1Reason, L1RpcError, L1Unavailable, RpcCode
from bridge.l1.jsonrpc import Call
from bridge.l1.regtest import AddressType
from tests.support.bitcoind import Regtest
from tests.support.canned_http import canned_server, http_response

GENESIS = BlockHash(hash_from_hex("0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"))
UNKNOWN = bytes(range(32))
PASSWORD = "not the password"


@pytest.fixture
def regtest(shared_regtest: Regtest) -> Regtest:
    """One node for all tests that leave it as they found it, a longer chain aside."""
    return shared_regtest


def _sha256d(data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


async def _paid_output(regtest: Regtest, txid: Txid, value_sats: int) -> tuple[OutPoint, L1TxOut]:
    """Return the output of a waiting transaction that holds `value_sats`, which only one does."""
    for vout in range(3):
        found = await regtest.client.txout(OutPoint(txid, vout), include_mempool=True)
        if found is not None and found.value_sats == value_sats:
            return OutPoint(txid, vout), found
    raise LookupError(value_sats)


async def test_chain_questions_agree_with_each_other(regtest: Regtest) -> None:
    client = regtest.client
    await regtest.miner.generate(1)  # of a coinbase alone
    height, _ = await client.tip()
    info = await client.chain_info()
    assert (info.chain, info.blocks, info.headers, info.pruned) == ("regtest", height, height, False)
    assert await client.tip() == (height, info.best_block_hash)
    assert await client.block_hash(0) == GENESIS
    assert await client.block_hash(height) == info.best_block_hash
    assert await client.block_hash(height + 1) is None
    assert await client.block_hash(2**31 - 1) is None
    assert await client.block_hash(2**31) is None, "the node itself calls this number an error"

    tip = await client.block_header(info.best_block_hash)
    genesis = await client.block_header(GENESIS)
    assert tip is not None
    assert genesis is not None
    assert (tip.height, tip.confirmations, tip.n_tx) == (height, 1, 1)
    assert (genesis.height, genesis.confirmations, genesis.previous_hash) == (0, height + 1, None)
    assert await client.block_header(BlockHash(UNKNOWN)) is None

    raw = await client.block(info.best_block_hash)
    assert _sha256d(raw[:80]) == info.best_block_hash
    assert raw[4:36] == tip.previous_hash
    assert raw[36:68] == tip.merkle_root
    assert int.from_bytes(raw[68:72], "little") == tip.time
    with pytest.raises(L1RpcError) as caught:
        await client.block(BlockHash(UNKNOWN))
    assert caught.value.code == RpcCode.NOT_FOUND


async def test_batched_questions_answer_each_by_its_place(regtest: Regtest) -> None:
    hashes = [block for height in range(101) if (block := await regtest.client.block_hash(height))]
    asked = [BlockHash(UNKNOWN), *hashes, BlockHash(UNKNOWN)]
    headers = await regtest.client.block_headers(asked)
    assert [header and header.height for header in headers] == [None, *range(101), None]
    assert await regtest.client.block_headers([]) == []
    assert await regtest.client.txouts([], include_mempool=True) == []
    assert await regtest.client.mempool_spenders([]) == []


async def test_network_info_tells_the_version_of_the_program(regtest: Regtest) -> None:
    info = await regtest.client.network_info()
    assert info.version >= 250_000
    assert info.subversion.startswith("/Satoshi:")
    assert 0 < info.relay_feerate_sat_kvb <= 1000
    assert info.incremental_feerate_sat_kvb > 0
    assert info.connections == 0


async def test_output_is_followed_from_mempool_to_spent(regtest: Regtest) -> None:
    client, miner = regtest.client, regtest.miner
    value_sats = 123_456_789
    txid = await miner.send_to_address(await miner.new_address(AddressType.P2TR), value_sats)
    outpoint, waiting = await _paid_output(regtest, txid, value_sats)
    assert (waiting.confirmations, waiting.coinbase) == (0, False)
    assert waiting.script[:2] == b"\x51\x20"
    assert await client.txout(outpoint, include_mempool=False) is None
    assert await client.mempool_contains(txid)
    assert await client.transaction_block(txid) is None
    assert await client.raw_transaction(txid) is not None

    [block] = await miner.generate(1)
    assert not await client.mempool_contains(txid)
    assert await client.transaction_block(txid) == block
    confirmed = await client.txout(outpoint, include_mempool=False)
    assert confirmed is not None
    assert (confirmed.value_sats, confirmed.confirmations, confirmed.best_block_hash) == (value_sats, 1, block)

    assert await client.mempool_spender(outpoint) is None
    spend = await miner.send_to_address(miner.mining_address, await miner.balance_sats() - COIN)
    assert await client.mempool_spender(outpoint) == spend
    assert await client.mempool_spenders([OutPoint(Txid(UNKNOWN), 5), outpoint]) == [None, spend]
    assert await client.txout(outpoint, include_mempool=True) is None
    assert await client.txout(outpoint, include_mempool=False) is not None


async def test_transaction_is_found_by_index_and_by_block(regtest: Regtest) -> None:
    client = regtest.client
    txid = await regtest.miner.send_many(
        {
            await regtest.miner.new_address(AddressType.P2PKH): 10_000,
            await regtest.miner.new_address(AddressType.P2SH): 20_001,
        }
    )
    [block] = await regtest.miner.generate(1)
    raw = await client.raw_transaction(txid)
    assert raw is not None
    assert raw == await client.raw_transaction(txid, block)
    assert (20_001).to_bytes(8, "little") in raw
    assert await client.raw_transaction(txid, GENESIS) is None
    assert await client.raw_transaction(Txid(UNKNOWN)) is None
    assert await client.transaction_block(Txid(UNKNOWN)) is None
    assert not await client.mempool_contains(Txid(UNKNOWN))


async def test_proof_starts_with_the_header_of_its_block(regtest: Regtest) -> None:
    client = regtest.client
    txids = [await regtest.miner.send_to_address(regtest.miner.mining_address, 50_000) for _ in range(2)]
    [block] = await regtest.miner.generate(1)
    proof = await client.tx_out_proof(txids, block)
    assert _sha256d(proof[:80]) == block
    assert all(proof.count(txid) == 1 for txid in txids)
    assert int.from_bytes(proof[80:84], "little") == 3
    assert await client.tx_out_proof(txids) == proof
    with pytest.raises(L1RpcError) as caught:
        await client.tx_out_proof(txids, GENESIS)
    assert caught.value.code == RpcCode.NOT_FOUND


async def test_reorganisation_makes_a_block_stale_and_back(regtest: Regtest) -> None:
    client, miner = regtest.client, regtest.miner
    height, _ = await client.tip()
    txid = await miner.send_to_address(miner.mining_address, 70_000)
    [stale] = await miner.generate(1)
    await miner.invalidate_block(stale)
    assert await client.mempool_contains(txid)
    replacement = await miner.generate_block()
    assert await client.tip() == (height + 1, replacement)
    header = await client.block_header(stale)
    assert header is not None
    assert (header.confirmations, header.height) == (-1, height + 1)
    assert await client.transaction_block(txid) is None

    last = await miner.generate_block([txid])
    assert await client.transaction_block(txid) == last
    await miner.reconsider_block(stale)
    assert await client.tip() == (height + 2, last)


async def _unsent_transaction(regtest: Regtest) -> bytes:
    """Return a signed payment of the wallet that neither wallet nor mempool has seen."""
    payment = [{regtest.miner.mining_address: "0.5"}]
    call = Call("send", (payment, None, "unset", 2, {"add_to_wallet": False}))
    result = await regtest.client.connection.call(call, path="/wallet/miner")
    assert isinstance(result, dict)
    return bytes.fromhex(result["hex"])


async def test_transaction_is_tried_sent_and_mined(regtest: Regtest) -> None:
    client, miner = regtest.client, regtest.miner
    raw = await _unsent_transaction(regtest)
    accepted = await client.test_mempool_accept(raw)
    assert (accepted.allowed, accepted.reject_reason) == (True, "")
    assert accepted.vsize_vbytes is not None
    assert accepted.fee_sats == 2 * accepted.vsize_vbytes

    txid = await client.send_raw_transaction(raw)
    assert await client.mempool_contains(txid)
    assert await client.send_raw_transaction(raw) == txid
    refused = await client.test_mempool_accept(raw)
    assert (refused.allowed, refused.reject_reason) == (False, "txn-already-in-mempool")
    assert (refused.vsize_vbytes, refused.fee_sats) == (None, None)

    await miner.generate(1)
    with pytest.raises(L1RpcError) as caught:
        await client.send_raw_transaction(raw)
    assert caught.value.code == RpcCode.ALREADY_IN_CHAIN


async def test_transaction_that_is_wrong_is_refused_by_code(fresh_regtest: Regtest) -> None:
    raw = await _unsent_transaction(fresh_regtest)  # from a wallet that has coins of one type
    wrong = {
        RpcCode.MALFORMED: raw[:-1],
        RpcCode.VERIFY_ERROR: raw[:7] + UNKNOWN + raw[39:],  # the first input's outpoint
        RpcCode.VERIFY_REJECTED: raw[:-60] + bytes([raw[-60] ^ 1]) + raw[-59:],  # within the last signature
    }
    for code, transaction in wrong.items():
        with pytest.raises(L1RpcError) as caught:
            await fresh_regtest.client.send_raw_transaction(transaction)
        assert caught.value.code == code


async def test_feerate_is_none_while_the_node_knows_too_little(fresh_regtest: Regtest) -> None:
    assert await fresh_regtest.client.estimate_feerate(6) is None


async def test_feerate_is_in_satoshis_per_kvb() -> None:
    body = b'{"result": {"feerate": 0.00012345, "blocks": 2}, "error": null, "id": 0}'
    async with canned_server(lambda _: http_response(200, body)) as server, _client(server.url) as client:
        assert await client.estimate_feerate(2) == 12_345


async def test_descriptor_is_derived_and_scanned(regtest: Regtest) -> None:
    client, miner = regtest.client, regtest.miner
    descriptor = "tr(50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0)"
    info = await client.descriptor_info(descriptor)
    assert info.descriptor == f"{descriptor}#{info.checksum}"
    assert (info.is_range, info.is_solvable, info.has_private_keys) == (False, True, False)
    [address] = await client.derive_addresses(descriptor)
    assert await client.derive_addresses(info.descriptor) == (address,)

    height, _ = await client.tip()
    before = await client.scan_txoutset([descriptor])
    assert (before.height, before.outputs) == (height, ())
    txid = await miner.send_to_address(address, 40_000)
    [block] = await miner.generate(1)
    scan = await client.scan_txoutset([descriptor])
    assert (scan.height, scan.best_block_hash) == (height + 1, block)
    [output] = scan.outputs
    assert (output.outpoint.txid, output.value_sats) == (txid, 40_000)
    assert (output.height, output.coinbase) == (height + 1, False)
    with pytest.raises(L1RpcError) as caught:
        await client.descriptor_info("tr(nonsense)")
    assert caught.value.code == RpcCode.NOT_FOUND


async def test_scan_that_takes_too_long_is_ended() -> None:
    body = b'{"result": true, "error": null, "id": 0}'
    answers = {b'"start"': None, b'"abort"': http_response(200, body)}

    def answer(request: bytes) -> bytes | None:
        return next(response for word, response in answers.items() if word in request)

    async with canned_server(answer) as server, _client(server.url) as client:
        with pytest.raises(L1Unavailable) as caught:
            await client.scan_txoutset(["raw(51)"], timeout_s=0.2)
        assert caught.value.reason is L1Reason.TIMEOUT
    assert [b'"abort"' in request for request in server.requests] == [False, True]


def _client(url: str, timeout_s: float = 60) -> L1Client:
    return L1Client(url, PasswordAuth("user", PASSWORD), timeout_s)


async def _unavailable(client: L1Client) -> L1Reason:
    async with client:
        with pytest.raises(L1Unavailable) as caught:
            await client.tip()
    assert PASSWORD not in str(caught.value)
    return caught.value.reason


async def test_wrong_password_is_unauthorized(regtest: Regtest) -> None:
    assert await _unavailable(_client(regtest.url)) == L1Reason.UNAUTHORIZED


async def test_restarted_node_is_asked_with_its_new_cookie(fresh_regtest: Regtest) -> None:
    tip = await fresh_regtest.client.tip()
    old = fresh_regtest.cookie_path.read_text()
    await fresh_regtest.restart()
    assert fresh_regtest.cookie_path.read_text() != old
    assert await fresh_regtest.client.tip() == tip


async def test_stopped_node_is_unreachable(fresh_regtest: Regtest) -> None:
    await fresh_regtest.client.tip()
    await trio.to_thread.run_sync(fresh_regtest.node.stop)
    with pytest.raises(L1Unavailable) as caught:
        await fresh_regtest.client.tip()
    assert caught.value.reason == L1Reason.UNREACHABLE
    fresh = L1Client(fresh_regtest.url, CookieAuth(fresh_regtest.cookie_path))
    assert await _unavailable(fresh) == L1Reason.UNREACHABLE


async def test_method_that_the_node_lacks_is_its_refusal(regtest: Regtest) -> None:
    with pytest.raises(L1RpcError) as caught:
        await regtest.client.connection.call(Call("nosuchmethod"))
    assert caught.value.code == -32601


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", L1Reason.UNREACHABLE),
        (http_response(200, b"<html>hello</html>"), L1Reason.BAD_RESPONSE),
        (http_response(200, b'{"result": {"blocks": "1"}, "error": null, "id": 0}'), L1Reason.BAD_RESPONSE),
        (http_response(200, b"x" * 33_000_000), L1Reason.BAD_RESPONSE),
        (http_response(302, b""), L1Reason.BAD_RESPONSE),
        (http_response(200, b"12345")[:-4], L1Reason.BAD_RESPONSE),
        (b"", L1Reason.UNREACHABLE),
        (http_response(500, b"<html>oops</html>"), L1Reason.FAILING),
        (http_response(502, b"<html>Bad Gateway</html>"), L1Reason.FAILING),
        (http_response(403, b""), L1Reason.UNAUTHORIZED),
        (http_response(503, b"Work queue depth exceeded"), L1Reason.OVERLOADED),
        (
            http_response(500, b'{"result": null, "error": {"code": -28, "message": "Loading"}, "id": 0}'),
            L1Reason.WARMING_UP,
        ),
    ],
    ids=[
        "not-http",
        "html",
        "wrong-type",
        "too-large",
        "redirect",
        "cut",
        "closed",
        "error",
        "gateway",
        "forbidden",
        "overloaded",
        "warming-up",
    ],
)
async def test_server_that_is_no_willing_node_has_a_reason(answer: bytes, reason: L1Reason) -> None:
    async with canned_server(lambda _: answer) as server:
        assert await _unavailable(_client(server.url)) == reason


async def test_silent_server_times_out() -> None:
    async with canned_server(lambda _: None) as server:
        assert await _unavailable(_client(server.url, timeout_s=0.2)) == L1Reason.TIMEOUT


async def test_small_limit_refuses_a_larger_answer() -> None:
    answer = http_response(200, json.dumps({"result": "x" * 100, "error": None, "id": 0}).encode())
    async with canned_server(lambda _: answer) as server:
        auth = PasswordAuth("user", PASSWORD)
        async with L1Connection(server.url, auth, 5, max_response_bytes=100) as connection:
            with pytest.raises(L1Unavailable) as caught:
                await connection.call(Call("x"))
    assert caught.value.reason == L1Reason.BAD_RESPONSE


async def test_scan_may_find_more_than_fits_other_answers() -> None:
    """Whoever sends dust to a reserve script must not make recoveries and audits impossible."""
    scan = {"success": True, "height": 7, "bestblock": "00" * 32, "unspents": []}
    answer = http_response(200, json.dumps({"result": scan, "error": None, "id": 0}).encode())
    async with canned_server(lambda _: answer) as server, _client(server.url) as client:
        client.connection = L1Connection(server.url, PasswordAuth("user", PASSWORD), 5, max_response_bytes=50)
        assert (await client.scan_txoutset(["raw(51)"])).height == 7
        with pytest.raises(L1Unavailable):
            await client.tip()


async def test_password_that_is_refused_is_sent_once() -> None:
    async with canned_server(lambda _: http_response(401, b"")) as server:
        assert await _unavailable(_client(server.url)) == L1Reason.UNAUTHORIZED
        assert len(server.requests) == 1


async def test_proxy_of_the_environment_is_not_asked(regtest: Regtest, monkeypatch: pytest.MonkeyPatch) -> None:
    async with canned_server(lambda _: http_response(200, b"")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        tip = await regtest.client.tip()
        async with regtest.node.client() as client:
            assert await client.tip() == tip
        assert proxy.requests == []
