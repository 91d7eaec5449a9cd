"""Questions that are too large for one request."""

from typing import cast

from bridge.bitcoin.identifiers import OutPoint, Txid, hash_to_hex
from bridge.l1.client import L1Client
from bridge.l1.connection import L1Connection
from bridge.l1.credentials import PasswordAuth
from bridge.l1.jsonrpc import Call, JsonValue

SPENDER = Txid(bytes([7]) * 32)


class Spent:
    """Says of every output that SPENDER spends it. sizes: how many were asked about in each request."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def call(self, call: Call) -> JsonValue:
        """As L1Connection."""
        asked = cast(list[dict[str, JsonValue]], call.parameters[0])
        self.sizes.append(len(asked))
        return [item | {"spendingtxid": hash_to_hex(SPENDER)} for item in asked]


async def test_more_outputs_than_one_request_holds_are_asked_about_in_several() -> None:
    """Dust at a reserve script must not make a recovery plan impossible."""
    client, spent = L1Client("http://127.0.0.1:1", PasswordAuth("user", "password")), Spent()
    client.connection = cast(L1Connection, spent)
    outpoints = [OutPoint(SPENDER, vout) for vout in range(100_001)]
    assert set(await client.mempool_spenders(outpoints)) == {SPENDER}
    assert spent.sizes == [100_000, 1]
    assert await client.mempool_spenders([]) == []
