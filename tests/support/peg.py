"""A small peg for unit tests: four members, round parameters, and L1 transactions with their proofs."""

from bridge.bitcoin.curve import x_only
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind, Custody, CustodyPolicy, quorum_input_weight, reserve_script
from bridge.evidence import Evidence, L1BlockFact, Opening
from bridge.ledger import GenesisLedger, Ledger
from bridge.params import PegParams
from bridge.state import Anchor, Coin

L1_GENESIS = BlockHash(sha256(b"the L1 of these tests"))
START_HEIGHT = 1_000

PARAMS = PegParams(
    confirmations=6,
    coinbase_confirmations=100,
    max_anchor_step=144,
    max_evidence_bytes=4_000_000,
    max_openings=100,
    max_evidence_transaction_bytes=1_000_000,
    claim_fee_sats=30_000,
    coin_floor_sats=30_000,
    min_deposit_sats=100_000,
    min_withdrawal_sats=300,
    max_withdrawal_sats=5_000_000_000,
    withdrawal_window_anchors=144,
    max_window_withdrawals_sats=20_000_000_000,
    withdrawal_expiry_anchors=1_008,
    refund_fee_sats=500,
    max_refunds_per_block=10,
    max_peg_sats=100_000_000_000,
    batch_min_payouts=3,
    batch_max_wait_anchors=6,
    batch_max_payees=100,
    batch_max_first_inputs=40,
    batch_max_inputs=50,
    maintenance_max_first_inputs=40,
    maintenance_max_inputs=50,
    change_target_coins=8,
    replacement_interval_anchors=3,
    feerate_floor_sat_kvb=1_000,
    feerate_ceiling_sat_kvb=200_000,
    lineage_fee_cap_sats=1_000_000,
    maintenance_deficit_cap_sats=1_000_000,
    recovery_timelock_blocks=4_032,
    recovery_quorum=2,
)


def policy(epoch: int) -> CustodyPolicy:
    """Three of four members, two of three recovery keys; other keys in every epoch."""
    keys = [x_only(sha256(b"key %d of epoch %d" % (index, epoch))) for index in range(7)]
    return CustodyPolicy(
        chain_id=sha256(b"the chain of these tests"),
        epoch=epoch,
        quorum=3,
        member_keys=tuple(keys[:4]),
        recovery_keys=tuple(keys[4:]),
        recovery_quorum=PARAMS.recovery_quorum,
        recovery_timelock_blocks=PARAMS.recovery_timelock_blocks,
    )


POLICY = policy(0)
CUSTODY = Custody({0: POLICY})
PARAMS.validate(quorum_input_weight(POLICY))


def p2wpkh(name: str) -> Script:
    """An output script of somebody called `name`, 22 bytes."""
    return Script(b"\x00\x14" + sha256(name.encode())[:20])


def p2tr(name: str) -> Script:
    """An output script of somebody called `name`, 34 bytes. Nobody can spend it."""
    return Script(b"\x51\x20" + sha256(name.encode()))


ALICE = p2wpkh("alice")
BOB = p2tr("bob")


def anchor(height: int) -> Anchor:
    """The anchor at `height` on the only branch there is."""
    return Anchor(height, BlockHash(sha256(b"block %d" % height)))


def new_ledger() -> Ledger:
    """An empty ledger at START_HEIGHT."""
    return Ledger(GenesisLedger(anchor(START_HEIGHT)))


def outpoint(number: int) -> OutPoint:
    """One of many outpoints."""
    return OutPoint(Txid(sha256(b"transaction %d" % number)), number % 3)


def coin(number: int, value_sats: int, kind: CoinKind = CoinKind.DEPOSIT) -> Coin:
    """A free coin of epoch 0; a deposit is Alice's."""
    claim_script = ALICE if kind is CoinKind.DEPOSIT else b""
    return Coin(outpoint(number), value_sats, kind, 0, claim_script, START_HEIGHT - 10)


def pays(*outputs: tuple[int, bytes], spends: int = 0, coinbase: bool = False) -> Transaction:
    """An L1 transaction of somebody, with outputs of (value in sats, script)."""
    source = OutPoint(Txid(bytes(32)), 0xFFFFFFFF) if coinbase else outpoint(10_000 + spends)
    script_sig = b"\x51\x51" if coinbase else b""
    return Transaction(2, (TxIn(source, script_sig),), tuple(TxOut(value, Script(script)) for value, script in outputs))


def deposit_script(claim_script: bytes = ALICE, epoch: int = 0) -> Script:
    """The reserve script whose claim pays `claim_script`."""
    return reserve_script(CUSTODY.policy(epoch), CoinKind.DEPOSIT, claim_script).script


def lone_proof(transaction: Transaction) -> bytes:
    """The proof of the only transaction in a block. Source: BIP37."""
    header = (4).to_bytes(4, "little") + bytes(32) + transaction.txid + bytes(12)
    return header + (1).to_bytes(4, "little") + b"\x01" + transaction.txid + b"\x01\x01"


def evidence_of(transaction: Transaction, *openings: Opening, l1_height: int = START_HEIGHT) -> Evidence:
    """Evidence of the only transaction in a block."""
    return Evidence(transaction.serialize_stripped(), lone_proof(transaction), l1_height, openings)


def lone_fact(l1_height: int = START_HEIGHT) -> L1BlockFact:
    """What a node says of the block of `evidence_of`."""
    return L1BlockFact(l1_height, 1)
