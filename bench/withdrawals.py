"""Withdrawals on real processes: how soon one is under way on L1, and how a great many drain, none lost or paid twice.

`python -m bench.withdrawals --drain 20` drains so few. L1 is asked what it holds, not the federation what it did.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bench.report import milliseconds, print_machine, print_table
from bridge.bitcoin.addresses import encode_address, l1_network
from bridge.bitcoin.block import parse_block
from bridge.bitcoin.identifiers import OutPoint, Script
from bridge.bitcoin.script import ScriptType
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.l1.client import L1Client
from bridge.withdrawals import Burn, encode_burn
from pegnode.genesis import Genesis
from pegnode.rpc.client import RpcClient, RpcRefused
from pegnode.rpc.results import BatchReply, PegInfoReply, WithdrawalEstimateReply, WithdrawalReply
from tests.support.federation import CONFIRMATIONS, SIDECHAIN, FederationUnderTest, running_federation
from tests.support.mini_wallet import Coin, MiniWallet, coins_of
from tests.support.peg import p2wpkh

ROUNDS = 7
WITHDRAWALS = 1_000
AT_ONCE = 200
"""Burns in one transaction of the drain."""
DEPOSIT_SATS = 500_000_000
BURN_SATS = 100_000
BURNS_FEE_SATS = 10_000
"""Of a transaction of up to AT_ONCE burns, about 25,000 vbytes."""
POLL_S = 0.02
STALL_S = 20.0
"""Without progress for so long, L1 goes on by a block, whatever the open payout seems to wait for."""
STAGES = ("burn final", "batch recorded", "payout signed by a quorum", "payout in bitcoind's mempool")


class Outcome(Enum):
    """What L1 says of a withdrawal."""

    PAID = "paid on L1 once, what the federation says"
    REFUNDED = "refunded, and not paid on L1"
    LOST = "neither"
    WRONG = "paid twice, or not what the federation says"


@dataclass
class Burner:
    """A wallet that burns. client: of a member.  bitcoind: the same for the Bitcoin node.  coin: all that is left.

    wishes: every burn so far, with the L1 script, its own alone, that it is to be paid to.
    """

    federation: FederationUnderTest
    client: RpcClient
    bitcoind: RpcClient
    wallet: MiniWallet
    coin: Coin
    max_fee_sats: int
    wishes: dict[OutPoint, Script]

    def burn(self, count: int) -> Transaction:
        """A signed transaction of so many burns, and the rest back to the wallet."""
        genesis = Genesis.load(self.federation.local.genesis_path)
        refund_script = self.wallet.script(ScriptType.P2TR)
        payees = [p2wpkh(f"payee {len(self.wishes) + number}") for number in range(count)]
        burns = [
            TxOut(BURN_SATS, encode_burn(genesis.l1_genesis_hash, Burn(payee, self.max_fee_sats, refund_script)))
            for payee in payees
        ]
        rest_sats = self.coin[1].value_sats - count * BURN_SATS - BURNS_FEE_SATS
        transaction = self.wallet.spend([self.coin], [*burns, TxOut(rest_sats, refund_script)])
        self.wishes |= {transaction.outpoint(vout): payee for vout, payee in enumerate(payees)}
        self.coin = coins_of(transaction)[-1]
        return transaction

    def submit(self, transaction: Transaction) -> str:
        """Hand it to a member; its txid in reversed hex."""
        return self.client.ask(str, "sendrawtransaction", transaction.serialize().hex())

    def await_final(self, txid_hex: str) -> None:
        """Return when a transaction is in a final block of the member's."""
        _wait(lambda: "confirmations" in self.client.call("getrawtransaction", txid_hex, 1))

    def withdrawal(self, burn: OutPoint) -> WithdrawalReply:
        """A withdrawal whose burn is final."""
        return self.client.ask(WithdrawalReply, "getwithdrawal", str(burn))

    def in_l1_mempool(self, txid_hex: str) -> bool:
        """Whether the Bitcoin node holds a transaction that waits for a block."""
        try:
            self.bitcoind.call("getmempoolentry", txid_hex)
        except RpcRefused:
            return False
        return True

    def mine(self) -> None:
        """One L1 block, which the member has seen on return."""
        height = self.federation.mine(1)
        _wait(lambda: (self.client.ask(PegInfoReply, "getpeginfo").l1_height or 0) >= height)

    def open_batches(self) -> list[BatchReply]:
        """Those that have not settled; at most one of each kind."""
        return [batch for batch in self.client.ask(list[BatchReply], "listbatches", 10) if batch.open]

    def needs_blocks(self) -> bool:
        """Whether an open batch is on L1 and waits for nothing but blocks there."""
        versions = [version for batch in self.open_batches() for version in batch.versions]
        return any(
            0 < version.confirmations < CONFIRMATIONS or self.in_l1_mempool(version.txid) for version in versions
        )

    def drain(self) -> None:
        """Mine as batches need it, until every burn is paid out or given back."""
        moved_s = time.monotonic()
        while (peg := self.client.ask(PegInfoReply, "getpeginfo")).pending_withdrawals + peg.batched_withdrawals:
            if self.needs_blocks() or time.monotonic() > moved_s + STALL_S:
                self.mine()
                moved_s = time.monotonic()
            else:
                time.sleep(POLL_S)


def run(withdrawals: int = WITHDRAWALS, rounds: int = ROUNDS) -> None:
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory(prefix="pegnode-bench-") as directory,
        running_federation(Path(directory) / "federation") as federation,
        federation.client() as client,
        RpcClient(federation.local.bitcoind.url, federation.local.bitcoind.cookie_path) as bitcoind,
    ):
        genesis = Genesis.load(federation.local.genesis_path)
        burner = _new_burner(federation, client, bitcoind)
        interval_s = genesis.consensus.block_interval_ms / 1000
        times_s = [_stage_seconds(burner, genesis.peg.batch_min_payouts) for _ in range(rounds)]
        _print_stages(times_s, interval_s)
        _print_drain(burner, withdrawals)


def _wait(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(POLL_S)


def _new_burner(federation: FederationUnderTest, client: RpcClient, bitcoind: RpcClient) -> Burner:
    """A burner with the claim of one deposit, which bids for each withdrawal what a member suggests."""
    wallet = MiniWallet("bench")
    address = encode_address(wallet.script(ScriptType.P2TR), SIDECHAIN)
    federation.pay({federation.deposit_address(address): DEPOSIT_SATS})
    federation.mine(CONFIRMATIONS)
    [claimed] = federation.await_claimed([address], 1)
    claim = Transaction.parse(bytes.fromhex(client.ask(str, "getrawtransaction", claimed.claim_txid)))
    payee = encode_address(p2wpkh("payee 0"), l1_network("regtest"))
    estimate = client.ask(WithdrawalEstimateReply, "estimatewithdrawal", payee, BURN_SATS)
    return Burner(federation, client, bitcoind, wallet, coins_of(claim)[0], estimate.max_fee_sats, {})


def _stage_seconds(burner: Burner, count: int) -> list[float]:
    """How long after their submission so many burns, enough for a payout to be due, reach each of STAGES."""
    transaction = burner.burn(count)
    burn = transaction.outpoint(0)
    began = time.perf_counter()
    burner.await_final(burner.submit(transaction))
    reached = [time.perf_counter() - began]
    stages = (
        lambda: bool(burner.withdrawal(burn).payouts),
        lambda: burner.withdrawal(burn).payouts[0].signed,
        lambda: burner.in_l1_mempool(burner.withdrawal(burn).payouts[0].txid),
    )
    for stage in stages:
        _wait(stage)
        reached.append(time.perf_counter() - began)
    burner.drain()
    return reached


def _print_stages(times_s: Sequence[Sequence[float]], interval_s: float) -> None:
    rows = []
    for what, column in zip(STAGES, zip(*times_s, strict=True), strict=True):
        median_s = statistics.median(column)
        rows.append((what, milliseconds(median_s), f"{median_s / interval_s:.1f}", milliseconds(max(column))))
    columns = ("", "median", f"intervals of {milliseconds(interval_s)}", "longest")
    print_table(f"A withdrawal in a federation of four, timed from its submission, {len(times_s)} times", columns, rows)


def _print_drain(burner: Burner, count: int) -> None:
    """Burn so many at once, drain them, and look on L1 what became of each."""
    before, first_height = len(burner.wishes), burner.federation.mine(0)
    began = time.perf_counter()
    for first in range(0, count, AT_ONCE):
        burner.await_final(burner.submit(burner.burn(min(AT_ONCE, count - first))))
    burner.drain()
    seconds = time.perf_counter() - began
    wishes = list(burner.wishes.items())[before:]
    replies = [burner.withdrawal(burn) for burn, _ in wishes]
    payments, blocks = burner.federation.on_l1(lambda client, _: _payments_since(client, first_height))
    outcomes = Counter(_outcome(reply, payments[script]) for reply, (_, script) in zip(replies, wishes, strict=True))
    payouts = {reply.lineage for reply in replies if reply.lineage is not None}
    rows = [
        ("from the first burn submitted to the last withdrawal settled", f"{seconds:.1f} s"),
        ("withdrawals a second", f"{count / seconds:.1f}"),
        ("payouts on L1, of one transaction each", str(len(payouts))),
        ("L1 blocks, mined when a payout waited for one", str(blocks)),
        *((outcome.value, str(outcomes[outcome])) for outcome in Outcome),
    ]
    print_table(f"{count} withdrawals drain, burned at most {AT_ONCE} in a transaction", ("", ""), rows)
    if outcomes[Outcome.LOST] or outcomes[Outcome.WRONG]:
        raise SystemExit("the federation lost a withdrawal, or paid one wrongly")


async def _payments_since(client: L1Client, height: int) -> tuple[defaultdict[Script, list[int]], int]:
    """What each script was paid in the blocks above a height, and how many blocks these are."""
    payments: defaultdict[Script, list[int]] = defaultdict(list)
    tip_height, _ = await client.tip()
    for number in range(height + 1, tip_height + 1):
        block_hash = await client.block_hash(number)
        assert block_hash is not None
        for transaction in parse_block(await client.block(block_hash)).transactions:
            for output in transaction.outputs:
                payments[output.script].append(output.value_sats)
    return payments, tip_height - height


def _outcome(reply: WithdrawalReply, payments_sats: Sequence[int]) -> Outcome:
    """What became of a withdrawal, by what its own script was paid in the blocks of L1."""
    if reply.status == "refunded" and not payments_sats:
        return Outcome.REFUNDED
    if not payments_sats:
        return Outcome.LOST
    is_right = list(payments_sats) == [reply.paid_sats] and reply.status == "settled"
    bears_its_bound = reply.value_sats - reply.max_fee_sats <= payments_sats[0] < reply.value_sats
    return Outcome.PAID if is_right and bears_its_bound else Outcome.WRONG


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.withdrawals", description=__doc__)
    parser.add_argument("--drain", type=int, default=WITHDRAWALS, help="how many withdrawals drain")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often a single payout is timed")
    chosen = parser.parse_args()
    print_machine()
    run(chosen.drain, chosen.rounds)
