"""A local federation of real processes: how soon a transfer is final, and what a member needs."""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.report import milliseconds, percentile, print_table
from bridge.bitcoin.addresses import encode_address
from bridge.bitcoin.script import ScriptType
from bridge.bitcoin.transaction import Transaction
from pegnode.genesis import Genesis
from pegnode.rpc.client import RpcClient
from tests.support.federation import CONFIRMATIONS, SIDECHAIN, FederationUnderTest, running_federation
from tests.support.mini_wallet import MiniWallet, coins_of

TRANSFERS = 100
STARTS = 2
POLL_S = 0.005
MEBIBYTE = 1 << 20


def run() -> None:
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory(prefix="pegnode-bench-") as directory,
        running_federation(Path(directory) / "federation") as federation,
    ):
        interval_s = Genesis.load(federation.local.genesis_path).consensus.block_interval_ms / 1000
        latencies_s = latencies_seconds(federation, interval_s, TRANSFERS)
        resident_bytes = max(_resident_bytes(federation))
        # Last: a member that has just come back misses its first turn to lead, and the chain is not idle then.
        start_s = statistics.median(_start_seconds(federation) for _ in range(STARTS))
    times = [
        (f"transfer on an idle chain, submitted to final, p50 of {TRANSFERS}", percentile(latencies_s, 50)),
        ("the same, p99", percentile(latencies_s, 99)),
        ("member's process, started to first answer", start_s),
    ]
    rows = [(what, milliseconds(seconds), f"{seconds / interval_s:.2f}") for what, seconds in times]
    columns = ("", "", f"block intervals of {milliseconds(interval_s)}")
    print_table("A federation of four on this machine, with its Bitcoin node", columns, rows)
    print(f"  resident memory of the largest member after that: {resident_bytes / MEBIBYTE:.0f} MiB")


def _start_seconds(federation: FederationUnderTest) -> float:
    """From starting a member's process to its first answer."""
    name = federation.local.member_names[-1]
    federation.local.stop_member(name)
    began = time.perf_counter()
    federation.local.start_member(name)
    federation.local.wait_until_answering(name)
    return time.perf_counter() - began


def _resident_bytes(federation: FederationUnderTest) -> Iterator[int]:
    for name in federation.local.member_names:
        process = federation.local.process(name)
        if process is not None:
            yield process.memory_info().rss


def latencies_seconds(federation: FederationUnderTest, interval_s: float, count: int) -> list[float]:
    """Of transfers one by one, each submitted when the last block is older than the interval of blocks."""
    with federation.client() as client:
        transfers = _signed_transfers(_funded_output(federation, client), count)
        latencies = []
        for transfer in transfers:
            time.sleep(interval_s)
            began = time.perf_counter()
            txid_hex = client.ask(str, "sendrawtransaction", transfer.serialize().hex())
            while "confirmations" not in client.call("getrawtransaction", txid_hex, 1):
                time.sleep(POLL_S)
            latencies.append(time.perf_counter() - began)
    return latencies


def _funded_output(federation: FederationUnderTest, client: RpcClient) -> Transaction:
    """The claim of a deposit to the wallet that pays."""
    address = encode_address(MiniWallet("bench").script(ScriptType.P2TR), SIDECHAIN)
    federation.pay({federation.deposit_address(address): 10_000_000})
    federation.mine(CONFIRMATIONS)
    [claimed] = federation.await_claimed([address], 1)
    return Transaction.parse(bytes.fromhex(client.ask(str, "getrawtransaction", claimed.claim_txid)))


def _signed_transfers(claim: Transaction, count: int) -> list[Transaction]:
    """Each spends what the one before it paid."""
    wallet = MiniWallet("bench")
    transfers = [claim]
    for _ in range(count):
        [coin] = coins_of(transfers[-1])
        transfers.append(wallet.pay(coin, wallet.script(ScriptType.P2TR)))
    return transfers[1:]
