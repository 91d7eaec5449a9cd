"""The chain that fuzzed transactions, evidence and blocks are judged on: made once, and never changed after."""

from dataclasses import dataclass
from functools import cache

from bridge.bitcoin.curve import schnorr_sign
from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.script import ScriptType
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.evidence import Evidence, Opening
from bridge.state import BatchKind, BatchVersion, Lineage
from federation.certificate import Certificate, Vote, VoteKind, vote_digest
from federation.statement import BlockTerms, SignedStatement, SolvencyStatement
from pegnode.chain.block import Block
from pegnode.chain.state import LEDGER_TABLES, AppliedTransaction, ChainState
from tests.support.chain import MemoryChain, vote_secrets
from tests.support.mini_wallet import Coin, MiniWallet

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
COIN_SATS = 10_000_000
BURN_SATS = 900_000
EXPIRED_BURNS = 3
EXPIRY_ANCHORS = 30
"""The time from the burns that nobody pays to the block, and longer than that from those that are paid."""


@dataclass(frozen=True)
class Scene:
    """coins: Alice's, one of each output type, unspent.  evidence: what the next block may hold, in its order.

    payments: valid in the next block, which may hold them all.  block: one that holds all that, refunds and a payout.
    """

    chain: MemoryChain
    coins: tuple[Coin, ...]
    evidence: tuple[Evidence, ...]
    payments: tuple[Transaction, ...]
    block: Block
    applied: tuple[AppliedTransaction, ...]


@cache
def scene() -> Scene:
    """The one there is."""
    chain = MemoryChain(peg={"withdrawal_expiry_anchors": EXPIRY_ANCHORS, "max_anchor_step": 20})
    [unpaid] = chain.fund(ALICE.script())
    no_fee = chain.burn_output(BURN_SATS, BOB.script(), ALICE.script(), max_fee_sats=0)
    chain.extend(ALICE.spend([unpaid], [no_fee] * EXPIRED_BURNS))
    coins = chain.fund(*(ALICE.script(kind) for kind in ScriptType), value_sats=COIN_SATS)
    burned = chain.fund(*[ALICE.script()] * chain.rules.params.batch_min_payouts)
    burn = chain.burn_output(BURN_SATS, BOB.script(), ALICE.script())
    chain.extend(*[ALICE.spend([coin], [burn, TxOut(8_000_000, BOB.script())]) for coin in burned[1:]])
    chain.extend(ALICE.spend([burned[0]], [burn, TxOut(8_000_000, ALICE.script())]))
    evidence = _evidence(chain)
    payments = _payments(chain, coins)
    built = chain.build(*payments, evidence=evidence)
    body = built.block.body
    assert (len(body.evidence), len(body.transactions), len(body.batches)) == (len(evidence), len(payments), 1)
    assert len(body.refunds) == EXPIRED_BURNS
    return Scene(chain, tuple(coins), body.evidence, payments, built.block, tuple(built.state.transactions))


def snapshot(state: ChainState) -> object:
    """All that a state holds beyond its base, to be compared with what it holds later."""
    tables = [dict(getattr(state.ledger, name).writes) for name in LEDGER_TABLES]
    return state.ledger.totals, tables, dict(state.utxos.writes), list(state.transactions)


def _evidence(chain: MemoryChain) -> list[Evidence]:
    """A deposit among strangers' payments, two in one transaction, a donation, and one alone in its block."""
    custody = chain.rules.custody.newest

    def paid(kind: CoinKind, claim_script: bytes = b"") -> TxOut:
        return TxOut(400_000, reserve_script(custody, kind, claim_script).script)

    alice, bob = ALICE.script(), BOB.script(ScriptType.P2TR)
    stranger = TxOut(70_000, Script(b"\x00\x14" + bytes(20)))
    one = chain.l1.payment(paid(CoinKind.DEPOSIT, alice), stranger)
    two = chain.l1.payment(stranger, paid(CoinKind.DEPOSIT, alice), paid(CoinKind.DEPOSIT, bob))
    gift = chain.l1.payment(paid(CoinKind.DONATION))
    chain.l1.mine(*[chain.l1.payment(stranger) for _ in range(5)], one, chain.l1.payment(stranger))
    chain.l1.mine(two, gift)
    chain.bury()
    return [
        chain.l1.evidence(one, Opening(0, CoinKind.DEPOSIT, 0, alice)),
        chain.l1.evidence(two, Opening(1, CoinKind.DEPOSIT, 0, alice), Opening(2, CoinKind.DEPOSIT, 0, bob)),
        chain.l1.evidence(gift, Opening(0, CoinKind.DONATION, 0, b"")),
    ]


def _payments(chain: MemoryChain, coins: list[Coin]) -> tuple[Transaction, ...]:
    """A transfer of each output type; among their outputs a burn, a note and a chain of two."""
    p2pkh, p2sh, p2wpkh, p2wsh, p2tr = coins
    burn = chain.burn_output(BURN_SATS, BOB.script(), ALICE.script())
    note = TxOut(0, Script(b"\x6a\x04note"))
    two_types = ALICE.spend([p2pkh, p2sh], [TxOut(15_000_000, BOB.script(ScriptType.P2SH)), burn])
    noted = ALICE.spend([p2wpkh], [TxOut(9_000_000, ALICE.script(ScriptType.P2TR)), note], sequence=1)
    following = ALICE.spend([(noted.outpoint(0), noted.outputs[0])], [TxOut(8_000_000, BOB.script())], version=1)
    return (
        two_types,
        noted,
        following,
        ALICE.spend([p2wsh], [TxOut(9_000_000, BOB.script(ScriptType.P2WSH))], locktime=1, sequence=0xFFFFFFFE),
        ALICE.pay(p2tr, BOB.script(), ALICE.script(ScriptType.P2PKH)),
    )


def vote(kind: VoteKind, view: int, block_hash: bytes, member: int) -> Vote:
    """A member's vote on the scene's chain. block_hash: empty for NULLIFY."""
    rules = scene().chain.rules
    digest = vote_digest(rules.chain_id, rules.membership.epoch, kind, view, block_hash)
    signature = schnorr_sign(vote_secrets()[member], digest, bytes(32))
    return Vote(kind, rules.membership.epoch, view, block_hash, member, signature)  # type: ignore[arg-type]


def certificate(kind: VoteKind, view: int, block_hash: bytes) -> Certificate:
    """A quorum's."""
    membership = scene().chain.rules.membership
    votes = [vote(kind, view, block_hash, member) for member in range(membership.quorum)]
    signatures = tuple((item.member, item.signature64) for item in votes)
    return Certificate(kind, membership.epoch, view, votes[0].block_hash, signatures)


def signed_statement(*members: int) -> SignedStatement:
    """What these members state of the scene's block."""
    rules, header, totals = scene().chain.rules, scene().block.header, scene().chain.state.ledger.totals
    terms = BlockTerms(
        chain_id=rules.chain_id,
        epoch=header.epoch,
        height=header.height,
        block_hash=header.hash,
        anchor=header.anchor,
        ledger_root=header.ledger_root,
        reserves_sats=totals.reserves_sats,
        deficit_sats=totals.deficit_sats,
        supply_sats=totals.supply_sats,
        unsettled_sats=totals.unsettled_sats,
        fund_sats=totals.fund_sats,
    )
    statement = SolvencyStatement(terms, header.anchor, header.time_ms)
    digest = statement.digest32
    signatures = ((member, schnorr_sign(vote_secrets()[member], digest, bytes(32))) for member in members)
    return SignedStatement(statement, tuple(signatures))


def settled_lineage() -> Lineage:
    """A lineage with every field set."""
    batch = scene().block.body.batches[0]
    transaction = Transaction.parse(batch.transaction)
    version = BatchVersion(transaction.txid, batch.transaction, batch.feerate_sat_kvb, 3_000, 20, 0, 12)
    inputs = tuple(item.outpoint for item in transaction.inputs)
    payees = tuple(item for item, _ in scene().coins[:3])
    return Lineage(1, BatchKind.PAYOUT, inputs, payees, (version, version), 20, transaction.txid, 14)
