"""Each kind of bad block is refused for the reason it was made for, by the rules and by the oracle of final blocks."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from bridge.batch_form import BatchReason
from bridge.bitcoin.script import ScriptReason
from bridge.bitcoin.transaction import TransactionReason, TxOut
from bridge.custody import CoinKind, CustodyReason
from bridge.errors import Reason
from bridge.evidence import EvidenceReason, Opening
from bridge.records import RecordReason
from bridge.state import LedgerReason
from bridge.withdrawals import BurnReason
from federation.endorsement import EndorsementReason
from pegnode.chain.block import Block
from pegnode.chain.rules import apply_block
from pegnode.chain.transactions import TransactionRule
from pegnode.chain.verdicts import BlockRejected, BodyReason
from tests.sim.bad_blocks import JUDGING_REASONS, KINDS, BadKind, Scene
from tests.sim.oracle import ChainOracle
from tests.sim.seams import Violation
from tests.sim.workload import CHEAT, PEG, user_wallet
from tests.support.chain import MemoryChain, vote_secrets
from tests.support.fake_l1_client import L1World
from tests.support.mini_wallet import MiniWallet

EVIL = user_wallet(CHEAT)
ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")


def burned(count: int, max_fee_sats: int) -> MemoryChain:
    """A chain whose newest block burns so often; the evil and Bob own a coin each."""
    chain = MemoryChain(peg=PEG)
    *coins, _, _ = chain.fund(*[ALICE.script()] * count, EVIL.script(), BOB.script(), value_sats=1_000_000)
    burn = chain.burn_output(990_000, BOB.script(), ALICE.script(), max_fee_sats)
    chain.extend(*[ALICE.spend([coin], [burn]) for coin in coins])
    return chain


@cache
def deposit() -> tuple[MemoryChain, Block]:
    """A block with a payment, and evidence of a deposit in company; another payment is final already."""
    chain = MemoryChain(peg=PEG)
    first, second, _, _ = chain.fund(ALICE.script(), ALICE.script(), EVIL.script(), BOB.script())
    chain.extend(ALICE.pay(first, BOB.script()))
    chain.l1.mine()
    payment = chain.l1.payment(TxOut(50_000, chain.deposit_script(ALICE.script())))
    chain.l1.mine(chain.l1.payment(TxOut(1, BOB.script())), payment)
    chain.bury()
    opening = Opening(0, CoinKind.DEPOSIT, 0, ALICE.script())
    return chain, chain.build(ALICE.pay(second, BOB.script()), evidence=[chain.l1.evidence(payment, opening)]).block


@cache
def refunds() -> tuple[MemoryChain, Block]:
    """A block that refunds two burns."""
    chain = burned(2, max_fee_sats=0)
    chain.pass_anchors(PEG["withdrawal_expiry_anchors"])
    return chain, chain.build().block


@cache
def waiting() -> tuple[MemoryChain, Block]:
    """A block beside a burn for which nothing is due."""
    chain = burned(1, max_fee_sats=2_000)
    return chain, chain.build().block


@cache
def batch() -> tuple[MemoryChain, Block]:
    """A block with a batch."""
    chain = burned(3, max_fee_sats=2_000)
    return chain, chain.build().block


@cache
def after_batch() -> tuple[MemoryChain, Block]:
    """The block after one with a batch."""
    chain = burned(3, max_fee_sats=2_000)
    chain.extend()
    return chain, chain.build().block


@cache
def scene(setting: Callable[[], tuple[MemoryChain, Block]]) -> Scene:
    """What an evil leader has at hand there."""
    chain, block = setting()
    chain.apply(block)
    finished = [item for old in chain.blocks for item in old.body.transactions]
    secrets = {1: vote_secrets()[1]}
    return Scene(chain.state, block, chain.rules, chain.l1, (EVIL,), secrets, finished)


SETTINGS = (deposit, refunds, waiting, batch, after_batch)


def verdict_on(one: Scene, block: Block) -> BlockRejected:
    """Why a block is refused on the scene's parent, once it was sent as bytes."""
    facts = one.l1.facts(block.header.anchor, *block.body.evidence)
    with pytest.raises(BlockRejected) as caught:
        apply_block(one.parent, Block.decode(block.encode()), facts, one.rules)
    return caught.value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_bad_block_is_refused_for_the_reason_it_was_made_for(kind: BadKind) -> None:
    made = [(one, bad) for setting in SETTINGS if (bad := kind.make(one := scene(setting))) is not None]
    assert made
    for one, bad in made:
        verdict = verdict_on(one, bad)
        assert (verdict.reason, verdict.cause) == (kind.reason, kind.cause)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.is_heavy], ids=lambda kind: kind.name)
def test_oracle_finds_a_bad_block_among_final_ones(kind: BadKind) -> None:
    """Also behind a certificate that says nothing else than that it is final: none is asked of an ancestor."""
    for setting in SETTINGS:
        chain, block = setting()
        one = scene(setting)
        assert block == one.block
        bad = kind.make(one)
        if bad is not None:
            oracle = ChainOracle(chain.rules, L1World(chain.l1))
            for old in chain.blocks:
                oracle.judge(old.encode(), None)
            with pytest.raises(Violation, match="not valid"):
                oracle.judge(bad.encode(), None)
            oracle.judge(block.encode(), None)
            return
    pytest.fail("made nowhere")


ONLY_A_QUORUM = "a record comes so far with a quorum's signatures only; tests/unit/test_block_records.py"
ONLY_AT_SETUP = "of parameters and keys, looked at when a chain begins; tests/unit/test_custody.py"
ONLY_THE_LEDGER = "a guard inside the ledger, behind the rules that come before it; tests/unit/test_ledger.py"
ONLY_ITS_L1 = "takes a transaction on L1 that no user of the simulation makes; tests/unit/test_block_evidence.py"
ONLY_THE_DECODER = "refused by the decoder of blocks, before any rule; tests/unit/test_block.py"
ONLY_SPECIAL_SCRIPTS = "takes coins of scripts that only special wallets make; tests/unit/test_script.py"
ONLY_LONG_LINEAGES = "takes many replacements or a poor fund; tests/unit/test_replacement.py"

NOT_MADE: dict[Reason, str] = {
    **dict.fromkeys((RecordReason.WRONG_SERIAL, RecordReason.EXPIRED, RecordReason.NOT_A_COIN), ONLY_A_QUORUM),
    **dict.fromkeys((RecordReason.WRONG_VALUE, RecordReason.WRONG_OLD_ANCHOR), ONLY_A_QUORUM),
    RecordReason.WRONG_NEW_ANCHOR: ONLY_A_QUORUM,
    EndorsementReason.DIFFERENT: "of two sets of signatures that are joined; tests/unit/test_record.py",
    **dict.fromkeys(set(CustodyReason) - {CustodyReason.UNKNOWN_EPOCH}, ONLY_AT_SETUP),
    **dict.fromkeys(
        set(LedgerReason) - {LedgerReason.ANCHOR_BACKWARDS, LedgerReason.ANCHOR_CHANGED, LedgerReason.ANCHOR_STEP},
        ONLY_THE_LEDGER,
    ),
    **dict.fromkeys((EvidenceReason.TRANSACTION_SIZE_64, EvidenceReason.NEEDLESS_BRANCH), ONLY_ITS_L1),
    **dict.fromkeys((EvidenceReason.DUPLICATED_HASHES, EvidenceReason.NOT_EXACTLY_ONE_MATCH), ONLY_ITS_L1),
    **dict.fromkeys((EvidenceReason.TRANSACTION_TOO_LARGE, EvidenceReason.CHANGE_CLAIMED), ONLY_ITS_L1),
    **dict.fromkeys((EvidenceReason.BELOW_FLOOR, EvidenceReason.OVER_CAP), ONLY_ITS_L1),
    EvidenceReason.TOO_OLD: "takes two weeks of L1; tests/attacks/test_late_deposits.py",
    TransactionRule.TOTAL_SIZE: ONLY_THE_DECODER,
    TransactionReason.HAS_WITNESS: "of stripped forms alone, and evidence has a reason of its own for it",
    TransactionReason.EMPTY: ONLY_SPECIAL_SCRIPTS,
    TransactionReason.VALUE_OUT_OF_RANGE: ONLY_SPECIAL_SCRIPTS,
    **dict.fromkeys(set(ScriptReason) - {ScriptReason.SCRIPT_FAILED}, ONLY_SPECIAL_SCRIPTS),
    **dict.fromkeys((BurnReason.OVER_MAX_WITHDRAWAL, BurnReason.OVER_WINDOW), "takes more money than there is"),
    BodyReason.TOO_MANY_SIGOPS: "takes two coins and 200 kB; tests/unit/test_block_contents.py",
    **dict.fromkeys((BatchReason.LINEAGE_CLOSED, BatchReason.TOO_MANY_VERSIONS), ONLY_LONG_LINEAGES),
    **dict.fromkeys((BatchReason.RESERVED, BatchReason.NOT_COVERED), ONLY_LONG_LINEAGES),
    **dict.fromkeys((BatchReason.OVER_FUND, BatchReason.STEP_NOT_MET), ONLY_LONG_LINEAGES),
}
"""Reasons for which no bad block is made here, and why, or where else one is."""


def test_every_reason_of_the_rules_has_a_bad_block_or_an_excuse() -> None:
    """A new reason fails here until somebody makes a bad block for it."""
    every = {reason for reasons in JUDGING_REASONS for reason in reasons}
    made = {kind.reason for kind in KINDS} | {kind.cause for kind in KINDS if kind.cause is not None}
    assert made | NOT_MADE.keys() == every
    assert not made & NOT_MADE.keys()


def test_kinds_have_names_of_their_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_good_block_is_no_bad_one() -> None:
    """The scenes are sound: what is made from is valid, and a bad one differs from it."""
    for setting in SETTINGS:
        one = scene(setting)
        apply_block(one.parent, one.block, one.l1.facts(one.block.header.anchor, *one.block.body.evidence), one.rules)
        for kind in KINDS:
            assert kind.is_heavy or kind.make(one) != replace(one.block)
