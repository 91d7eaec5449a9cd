"""Evidence in blocks: what it makes of deposits, what is refused, and when one waits for one's own Bitcoin node."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind, CustodyReason
from bridge.errors import Reason
from bridge.evidence import Evidence, EvidenceReason, Opening
from pegnode.chain.block import Block
from pegnode.chain.facts import AnchorStatus, L1Facts, required_facts
from pegnode.chain.rules import apply_block, evidence_order
from pegnode.chain.state import TransactionKind
from pegnode.chain.verdicts import BodyReason, L1Contradicted, L1Waiting
from tests.support.chain import MemoryChain
from tests.support.mini_wallet import MiniWallet, coins_of
from tests.support.verdicts import (
    evidence_refusal,
    rejected,
)

ALICE = MiniWallet("alice")
BOB = MiniWallet("bob")
OPENING = Opening(1, CoinKind.DEPOSIT, 0, ALICE.script())


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


def test_evidence_out_of_order_or_twice_is_refused(chain: MemoryChain) -> None:
    pieces = [chain.pay_reserve(ALICE.script(), 10_000)[1] for _ in range(2)]
    chain.bury()
    block = chain.build(evidence=pieces).block
    assert block.body.evidence == tuple(sorted(pieces, key=evidence_order))
    for order in (block.body.evidence[::-1], (pieces[0], pieces[0])):
        shuffled = chain.reseal(Block(block.header, replace(block.body, evidence=order)))
        assert rejected(chain, shuffled).reason is BodyReason.EVIDENCE_ORDER


def test_deposit_becomes_a_claim_at_the_front_of_the_block(chain: MemoryChain) -> None:
    payment, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    built = chain.extend(evidence=[evidence])
    [claim] = built.state.transactions
    assert claim.kind is TransactionKind.CLAIM
    assert (claim.fee_sats, claim.spent) == (1_000, ())
    assert claim.transaction.inputs[0].outpoint == replace(payment.outpoint(0), vout=1 << 30)
    assert chain.utxo_value(claim.transaction.outpoint(0)) == 49_000
    totals = chain.state.ledger.totals
    assert (totals.reserves_sats, totals.supply_sats, totals.fund_sats) == (50_000, 49_000, 1_000)


def test_claim_can_be_spent_in_its_own_block(chain: MemoryChain) -> None:
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    claim = chain.build(evidence=[evidence]).state.transactions[0].transaction
    built = chain.extend(ALICE.pay(coins_of(claim)[0], BOB.script()), evidence=[evidence])
    assert [applied.kind for applied in built.state.transactions] == [TransactionKind.CLAIM, TransactionKind.TRANSFER]


def claimed_by(wallet: MiniWallet) -> Opening:
    """The opening, but for whom it credits."""
    return replace(OPENING, claim_script=wallet.script())


def with_witness(evidence: Evidence) -> bytes:
    """Its transaction, which has the same txid, with a witness."""
    return Transaction.parse(evidence.transaction).with_witnesses([(b"x",)]).serialize()


def richer(evidence: Evidence) -> bytes:
    """Its transaction with a satoshi more in the deposit."""
    transaction = Transaction.parse(evidence.transaction)
    first, deposit, last = transaction.outputs
    return replace(transaction, outputs=(first, replace(deposit, value_sats=50_001), last)).serialize()


def tree_of(evidence: Evidence, *, hashes: int) -> bytes:
    """Its proof with so many hashes more or fewer."""
    head, count, rest = evidence.proof[:84], evidence.proof[84], evidence.proof[85:]
    flags = rest[32 * count :]
    kept = rest[: 32 * (count + hashes)] if hashes < 0 else rest[: 32 * count] + bytes(32 * hashes)
    return head + bytes([count + hashes]) + kept + flags


def counting(evidence: Evidence, count: int) -> bytes:
    """Its proof with another count of transactions."""
    return evidence.proof[:80] + count.to_bytes(4, "little") + evidence.proof[84:]


def padding_set(evidence: Evidence) -> bytes:
    """Its proof with the last flag set, which stands for no node."""
    return evidence.proof[:-1] + bytes([evidence.proof[-1] | 0x80])


def forged_branch(evidence: Evidence) -> bytes:
    """Its proof with another hash beside ours."""
    return evidence.proof[:85] + bytes(32) + evidence.proof[117:]


def deposit_in_company(chain: MemoryChain) -> Evidence:
    """Evidence of a deposit of 50,000 sats to Alice in output 1, one of three transactions of its block; buried."""
    script = chain.deposit_script(ALICE.script())
    payment = chain.l1.payment(TxOut(7_000, BOB.script()), TxOut(50_000, script), TxOut(50_000, script))
    chain.l1.mine(chain.l1.payment(TxOut(1, BOB.script())), payment)
    chain.bury()
    return chain.l1.evidence(payment, OPENING)


def test_deposit_in_company_is_valid_as_it_stands(chain: MemoryChain) -> None:
    chain.extend(evidence=[deposit_in_company(chain)])
    assert chain.state.ledger.totals.reserves_sats == 50_000


@pytest.mark.parametrize(
    ("cause", "spoil"),
    [
        pytest.param(
            EvidenceReason.WRONG_BLOCK, lambda it: {"proof": b"\x05" + it.proof[1:]}, id="a block that nobody knows"
        ),
        pytest.param(EvidenceReason.WRONG_BLOCK, lambda _: {"proof": bytes(90)}, id="no block"),
        pytest.param(EvidenceReason.ABOVE_ANCHOR, lambda _: {"l1_height": 5_000}, id="above the anchor"),
        pytest.param(EvidenceReason.WRONG_HEIGHT, lambda it: {"l1_height": it.l1_height - 1}, id="another height"),
        pytest.param(
            EvidenceReason.MALFORMED, lambda it: {"transaction": it.transaction[:-1]}, id="truncated transaction"
        ),
        pytest.param(
            EvidenceReason.MALFORMED, lambda it: {"transaction": it.transaction + b"\x00"}, id="padded transaction"
        ),
        pytest.param(
            EvidenceReason.NOT_STRIPPED, lambda it: {"transaction": with_witness(it)}, id="transaction with a witness"
        ),
        pytest.param(EvidenceReason.WRONG_TRANSACTION, lambda it: {"transaction": richer(it)}, id="another value"),
        pytest.param(EvidenceReason.BAD_PROOF, lambda it: {"proof": it.proof[:-1]}, id="truncated proof"),
        pytest.param(EvidenceReason.BAD_PROOF, lambda it: {"proof": it.proof + b"\x00"}, id="padded proof"),
        pytest.param(EvidenceReason.PROOF_TRUNCATED, lambda it: {"proof": tree_of(it, hashes=-1)}, id="one hash short"),
        pytest.param(EvidenceReason.PROOF_LEFTOVER, lambda it: {"proof": tree_of(it, hashes=1)}, id="one hash more"),
        pytest.param(
            EvidenceReason.PADDING_BITS,
            lambda it: {"proof": it.proof[:-1] + bytes([it.proof[-1] | 0x80])},
            id="padding bits",
        ),
        pytest.param(EvidenceReason.PROOF_COUNT_MISMATCH, lambda it: {"proof": counting(it, 4)}, id="another count"),
        pytest.param(EvidenceReason.WRONG_MERKLE_ROOT, lambda it: {"proof": forged_branch(it)}, id="forged branch"),
        pytest.param(EvidenceReason.NO_OPENINGS, lambda _: {"openings": ()}, id="nothing opened"),
        pytest.param(EvidenceReason.OPENINGS_UNSORTED, lambda _: {"openings": (OPENING, OPENING)}, id="opened twice"),
        pytest.param(
            EvidenceReason.NO_SUCH_OUTPUT, lambda _: {"openings": (replace(OPENING, vout=3),)}, id="no such vout"
        ),
        pytest.param(
            EvidenceReason.WRONG_SCRIPT, lambda _: {"openings": (replace(OPENING, vout=0),)}, id="another vout"
        ),
        pytest.param(
            EvidenceReason.WRONG_SCRIPT, lambda _: {"openings": (claimed_by(BOB),)}, id="another's claim script"
        ),
        pytest.param(
            EvidenceReason.CLAIM_SCRIPT_TYPE,
            lambda _: {"openings": (replace(OPENING, claim_script=b"\x51"),)},
            id="odd script",
        ),
        pytest.param(CustodyReason.UNKNOWN_EPOCH, lambda _: {"openings": (replace(OPENING, epoch=1),)}, id="epoch"),
    ],
)
def test_block_with_bad_evidence_is_refused(
    chain: MemoryChain, cause: Reason, spoil: Callable[[Evidence], dict[str, object]]
) -> None:
    evidence = deposit_in_company(chain)
    assert evidence_refusal(chain, replace(evidence, **spoil(evidence))) is cause  # type: ignore[arg-type]


def test_proof_of_another_transaction_is_refused(chain: MemoryChain) -> None:
    evidence = deposit_in_company(chain)
    block = chain.l1.block_of(evidence.l1_block_hash)
    assert block is not None
    other = chain.l1.evidence(block.transactions[1])
    assert other.l1_block_hash == evidence.l1_block_hash
    assert evidence_refusal(chain, replace(evidence, proof=other.proof)) is EvidenceReason.WRONG_TRANSACTION
    assert evidence_refusal(chain, replace(evidence, transaction=other.transaction)) is EvidenceReason.WRONG_TRANSACTION


def test_deposit_one_confirmation_short_is_refused(chain: MemoryChain) -> None:
    """A leader can't name a deeper anchor than there is: of its block, nobody's anchor is `confirmations` deep."""
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.l1.mine_empty(chain.rules.params.confirmations - 2)
    assert chain.deepest_anchor().height == evidence.l1_height - 1
    assert evidence_refusal(chain, evidence) is EvidenceReason.ABOVE_ANCHOR
    chain.l1.mine_empty(1)
    chain.extend(evidence=[evidence])


def test_coinbase_at_99_confirmations_is_refused(chain: MemoryChain) -> None:
    coinbase = replace(
        chain.l1.blocks[1].transactions[0], outputs=(TxOut(50_000, chain.deposit_script(ALICE.script())),)
    )
    block = chain.l1.mine_exactly(replace(coinbase, inputs=(replace(coinbase.inputs[0], script_sig=b"\x02\x11\x11"),)))
    evidence = chain.l1.evidence(block.transactions[0], replace(OPENING, vout=0))
    chain.l1.mine_empty(98)
    assert chain.l1.height - block.height + 1 == 99
    assert evidence_refusal(chain, evidence) is EvidenceReason.IMMATURE_COINBASE
    chain.l1.mine_empty(1)
    chain.extend(evidence=[evidence])


def test_deposit_over_the_pegs_cap_is_refused() -> None:
    chain = MemoryChain(peg={"max_peg_sats": 10_000_050_000, "max_window_withdrawals_sats": 10_000_000_000})
    chain.fund(ALICE.script(), value_sats=10_000_000_001)
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    _, smaller = chain.pay_reserve(ALICE.script(), 49_999)
    chain.bury()
    assert evidence_refusal(chain, evidence) is EvidenceReason.OVER_CAP
    chain.extend(evidence=[smaller])


def test_output_below_the_floor_is_refused(chain: MemoryChain) -> None:
    _, evidence = chain.pay_reserve(ALICE.script(), chain.rules.params.coin_floor_sats - 1)
    chain.bury()
    assert evidence_refusal(chain, evidence) is EvidenceReason.BELOW_FLOOR


def test_transaction_over_the_size_cap_is_refused(chain: MemoryChain) -> None:
    evidence = deposit_in_company(chain)
    chain.rules = replace(
        chain.rules,
        params=replace(chain.rules.params, max_evidence_transaction_bytes=len(evidence.transaction) - 1),
    )
    assert evidence_refusal(chain, evidence) is EvidenceReason.TRANSACTION_TOO_LARGE


def test_evidence_of_what_has_entered_is_refused(chain: MemoryChain) -> None:
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    chain.extend(evidence=[evidence])
    assert evidence_refusal(chain, evidence) is EvidenceReason.ALREADY_ENTERED


def test_evidence_is_waited_for_when_the_node_was_not_asked(chain: MemoryChain) -> None:
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    block = chain.build(evidence=[evidence]).block
    assert required_facts(block) == (evidence.l1_block_hash,)
    with pytest.raises(L1Waiting):
        apply_block(chain.state, block, L1Facts(AnchorStatus.ON_CHAIN), chain.rules)


def test_evidence_under_the_parents_anchor_needs_the_node(chain: MemoryChain) -> None:
    _, evidence = chain.pay_reserve(ALICE.script(), 50_000)
    chain.bury()
    chain.extend()
    block = chain.build(evidence=[evidence]).block
    assert block.header.anchor == chain.header.anchor
    known = chain.facts(block).blocks
    with pytest.raises(L1Waiting, match="not known yet"):
        apply_block(chain.state, block, L1Facts(AnchorStatus.UNKNOWN, known), chain.rules)
    with pytest.raises(L1Contradicted):
        apply_block(chain.state, block, L1Facts(AnchorStatus.CONTRADICTED, known), chain.rules)
