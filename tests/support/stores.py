"""A chain in a store, filled by hand: the ledger's own transitions move the money, nothing else checks the blocks."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bridge.bitcoin.curve import x_only
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind
from bridge.deposits import claim_transaction
from bridge.ledger import GenesisLedger, add_fee, advance_anchor, enter_coin, ledger_root, record_burn
from bridge.state import Coin
from bridge.withdrawals import Burn, encode_burn
from federation.membership import Member, Membership
from pegnode.chain.block import Block, Body
from pegnode.chain.header import HEADER_VERSION, Header
from pegnode.chain.parameters import ChainParams, ChainRules
from pegnode.chain.state import (
    LEDGER_TABLES,
    AppliedTransaction,
    ChainState,
    ChainView,
    Tip,
    TransactionKind,
    Utxo,
)
from pegnode.storage.store import ChainStore, FinalBlock
from tests.support.peg import ALICE, BOB, CUSTODY, L1_GENESIS, PARAMS, POLICY, START_HEIGHT, anchor, outpoint

GENESIS_MS = 1_700_000_000_000
BLOCK_MS = 1_000


def make_rules(name: str = "a chain") -> ChainRules:
    """The rules of a chain of four members."""
    chain_id = sha256(name.encode())
    keys = POLICY.member_keys
    members = tuple(
        Member(index, f"member {index}", x_only(sha256(b"vote %d" % index)), keys[index], f"peer {index}")
        for index in range(len(keys))
    )
    first = anchor(START_HEIGHT)
    header = Header(
        version=HEADER_VERSION,
        chain_id=chain_id,
        epoch=0,
        height=0,
        view=0,
        parent=BlockHash(chain_id),
        leader=0,
        time_ms=GENESIS_MS,
        anchor=first,
        body_root=Body().root,
        ledger_root=ledger_root(GenesisLedger(first)),
    )
    return ChainRules(
        chain_id=chain_id,
        membership=Membership(0, members),
        params=PARAMS,
        custody=CUSTODY,
        l1_genesis_hash=L1_GENESIS,
        genesis_header=header,
        chain=ChainParams(max_body_bytes=4_000_000, max_inputs=10_000, max_sigop_cost=80_000),
    )


RULES = make_rules()

Step = Callable[[ChainState], None]


def next_block(parent: ChainView, *steps: Step, transactions: tuple[bytes, ...] = ()) -> FinalBlock:
    """A block that does `steps`, with the ledger root that they lead to."""
    body = Body(transactions=transactions)
    before = parent.tip.header
    header = replace(
        before,
        height=before.height + 1,
        view=before.view + 1,
        parent=before.hash,
        leader=(before.view + 1) % 4,
        time_ms=before.time_ms + BLOCK_MS,
        body_root=body.root,
    )
    state = ChainState(parent, header)
    for step in steps:
        step(state)
    totals = state.ledger.totals
    state.tip = Tip(replace(header, anchor=totals.anchor, ledger_root=ledger_root(state.ledger)))
    block = Block(state.tip.header, body).encode()
    return FinalBlock(state, block, b"certificate %d" % header.height)


def deposit(outpoint: OutPoint, value_sats: int, claim_script: Script) -> Step:
    """A deposit is claimed."""

    def step(state: ChainState) -> None:
        coin = Coin(outpoint, value_sats, CoinKind.DEPOSIT, 0, claim_script, START_HEIGHT - 10)
        enter_coin(state.ledger, coin, PARAMS.claim_fee_sats)
        claim = claim_transaction(outpoint, value_sats, claim_script, PARAMS)
        _apply(state, AppliedTransaction(TransactionKind.CLAIM, claim, PARAMS.claim_fee_sats, ()))

    return step


def transfer(transaction: Transaction) -> Step:
    """A transaction of somebody; its burns become withdrawals."""

    def step(state: ChainState) -> None:
        spent: list[tuple[OutPoint, Utxo]] = []
        for item in transaction.inputs:
            utxo = state.utxos.get(item.outpoint)
            assert utxo is not None, f"{item.outpoint} is not there to be spent"
            spent.append((item.outpoint, utxo))
        paid_sats = sum(output.value_sats for output in transaction.outputs)
        fee_sats = sum(utxo.value_sats for _, utxo in spent) - paid_sats
        add_fee(state.ledger, fee_sats)
        _apply(state, AppliedTransaction(TransactionKind.TRANSFER, transaction, fee_sats, tuple(spent)))

    return step


def burning(transaction: Transaction, vout: int, burn: Burn) -> Step:
    """Output `vout` of a transaction of the same block burned its value."""

    def step(state: ChainState) -> None:
        record_burn(
            state.ledger,
            transaction.outpoint(vout),
            value_sats=transaction.outputs[vout].value_sats,
            max_fee_sats=burn.max_fee_sats,
            l1_script=burn.l1_script,
            refund_script=burn.refund_script,
        )

    return step


def anchored(height: int) -> Step:
    """The anchor moves to `height`."""
    return lambda state: advance_anchor(state.ledger, anchor(height), PARAMS)


def spend(outpoint: OutPoint, *outputs: tuple[int, Script]) -> Transaction:
    """A transaction that nobody signed, with outputs of (value in sats, script)."""
    return Transaction(2, (TxIn(outpoint, witness=(b"no signature",)),), tuple(TxOut(*output) for output in outputs))


def burn_output(value_sats: int, burn: Burn) -> tuple[int, Script]:
    """An output that burns."""
    return value_sats, encode_burn(L1_GENESIS, burn)


def claim_outpoint(outpoint: OutPoint, value_sats: int, claim_script: Script) -> OutPoint:
    """The output that the claim of a deposit makes."""
    return claim_transaction(outpoint, value_sats, claim_script, PARAMS).outpoint(0)


def open_store(path: Path) -> ChainStore:
    """The store of RULES' chain at `path`."""
    return ChainStore.open(path, RULES)


def extend(store: ChainStore, *steps: Step) -> FinalBlock:
    """Commit one more block."""
    final = next_block(store, *steps)
    store.commit([final])
    return final


DEPOSIT = outpoint(1)
DEPOSIT_SATS = 5_000_000
CLAIM = claim_outpoint(DEPOSIT, DEPOSIT_SATS, ALICE)
CLAIMED_SATS = DEPOSIT_SATS - RULES.params.claim_fee_sats
BURN = Burn(BOB, 10_000, ALICE)
PAYMENT = spend(CLAIM, (1_000_000, BOB), burn_output(2_000_000, BURN), (CLAIMED_SATS - 3_000_500, ALICE))


def fill(store: ChainStore) -> None:
    """Three blocks: a deposit; a payment with a burn; a new anchor and another deposit."""
    extend(store, deposit(DEPOSIT, DEPOSIT_SATS, ALICE))
    extend(store, transfer(PAYMENT), burning(PAYMENT, 1, BURN))
    extend(store, anchored(START_HEIGHT + 2), deposit(outpoint(2), 700_000, BOB))


def contents(store: ChainStore) -> dict[str, object]:
    """Everything that rules can read."""
    read: dict[str, object] = {name: list(getattr(store.ledger, name).items()) for name in LEDGER_TABLES}
    return read | {"utxos": list(store.utxos.items()), "totals": store.ledger.totals, "tip": store.tip}


def files(path: Path) -> dict[str, bytes]:
    """What a database's directory holds, but for the lock file: whoever reads and closes that gives up the lock."""
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name != "LOCK"}


HOLDING_SCRIPT = (
    "import sys\n"
    "from pathlib import Path\n"
    "from tests.support.stores import open_store\n"
    "store = open_store(Path(sys.argv[1]))\n"
    "print('open', flush=True)\n"
    "sys.stdin.readline()\n"
)
"""Another process that has a store open until it is told to end."""


def other_process(script: str, path: Path) -> subprocess.Popen[str]:
    """Another process that runs a script with a path, and is told to go on by a line."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", script, str(path)]
    return subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def said(other: subprocess.Popen[str]) -> str:
    """The next line from it."""
    assert other.stdout is not None
    return other.stdout.readline().strip()


def _apply(state: ChainState, applied: AppliedTransaction) -> None:
    header = state.tip.header
    for spent, _ in applied.spent:
        state.utxos.delete(spent)
    for vout, output in enumerate(applied.transaction.outputs):
        if output.script[:1] != b"\x6a":
            utxo = Utxo(output.value_sats, output.script, header.height, header.time_ms)
            state.utxos.put(applied.transaction.outpoint(vout), utxo)
    state.transactions.append(applied)
