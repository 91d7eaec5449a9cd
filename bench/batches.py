"""What payouts weigh on L1: real batches, with signatures of the right size, out of a reserve of ten coins."""

import tomllib
from dataclasses import replace
from pathlib import Path

import msgspec

from bench.report import print_table
from bridge.batch import build_batch
from bridge.bitcoin.curve import x_only
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.transaction import Transaction
from bridge.custody import Custody, CustodyPolicy, quorum_witness, reserve_script
from bridge.ledger import Ledger, enter_coin, record_burn
from bridge.params import PegParams
from bridge.state import BatchKind
from tests.support.peg import ALICE, coin, new_ledger, outpoint, p2wpkh

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
PAYEES = (1, 5, 10, 50, 100)
RESERVE_COINS = 10
COIN_SATS = 100_000_000
BURN_SATS = 900_000


def run() -> None:
    """Build, and print sizes. Fees at 1 sat/vB equal the sizes."""
    rows = []
    for name, size in (("local.toml", 4), ("federation-15.toml", 15)):
        quorum = size - (size - 1) // 3
        params = _params(name)
        custody = Custody({0: _policy(size, quorum, params)})
        alone_vbytes = _signed_batch(custody, params, 1).vsize_vbytes
        for count in PAYEES:
            signed = _signed_batch(custody, params, count)
            each_vbytes = signed.vsize_vbytes / count
            saved = f"{each_vbytes / alone_vbytes:.2f}"
            shape = f"{len(signed.inputs)} in, {len(signed.outputs) - count} change"
            row = (f"{quorum} of {size}", str(count), shape, str(signed.vsize_vbytes), f"{each_vbytes:.1f}", saved)
            rows.append(row)
    columns = ("signers", "payees", "shape", "vbytes", "each", "of the price alone")
    print_table("Payout batches to P2WPKH addresses, virtual bytes", columns, rows)


def _params(name: str) -> PegParams:
    """The peg's parameters in one of the templates, but for when a batch is due: now."""
    template = tomllib.loads((CONFIGS / name).read_text(encoding="utf-8"))
    return replace(msgspec.convert(template["peg"], PegParams), batch_min_payouts=1)


def _policy(size: int, quorum: int, params: PegParams) -> CustodyPolicy:
    return CustodyPolicy(
        chain_id=sha256(b"bench"),
        epoch=0,
        quorum=quorum,
        member_keys=tuple(x_only(sha256(b"member %d" % index)) for index in range(size)),
        recovery_keys=tuple(x_only(sha256(b"recovery %d" % index)) for index in range(3)),
        recovery_quorum=params.recovery_quorum,
        recovery_timelock_blocks=params.recovery_timelock_blocks,
    )


def _signed_batch(custody: Custody, params: PegParams, payees: int) -> Transaction:
    ledger = new_ledger()
    for number in range(RESERVE_COINS):
        enter_coin(ledger, coin(number, COIN_SATS), 1_000)
    for number in range(payees):
        record_burn(
            ledger,
            outpoint(1_000 + number),
            value_sats=BURN_SATS,
            max_fee_sats=50_000,
            l1_script=p2wpkh(f"payee {number}"),
            refund_script=ALICE,
        )
    planned = build_batch(ledger, BatchKind.PAYOUT, None, params.feerate_floor_sat_kvb, custody, params)
    assert planned is not None
    return _signed(ledger, custody, Transaction.parse(planned.version.transaction))


def _signed(ledger: Ledger, custody: Custody, transaction: Transaction) -> Transaction:
    """With witnesses as large as a quorum's."""
    witnesses = []
    for txin in transaction.inputs:
        spent = ledger.coins.get(txin.outpoint)
        assert spent is not None
        policy = custody.policy(spent.epoch)
        reserve = reserve_script(policy, spent.kind, spent.claim_script)
        absent = len(policy.member_keys) - policy.quorum
        witnesses.append(quorum_witness(reserve, [bytes(64)] * policy.quorum + [None] * absent))
    return transaction.with_witnesses(witnesses)
