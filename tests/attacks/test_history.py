"""What broke other bridges, tried on this one: null proofs, no threshold, another time lock, money without a fee.

Each story is told as its thief would tell it: to the rules of blocks, to the script engine, to what reads a genesis.
docs/threat-model.md lists what history knows, with those whose attacks have a file of their own.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from bridge.batch import Batch
from bridge.batch_form import BatchReason
from bridge.bitcoin.curve import schnorr_sign, x_only
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid
from bridge.bitcoin.script import ScriptReason
from bridge.bitcoin.script_engine import verify_scripts
from bridge.bitcoin.taproot import script_path_sighash
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.custody import CoinKind, quorum_witness, recovery_witness, reserve_script
from bridge.errors import Reason, Rejected
from bridge.evidence import Evidence, EvidenceReason, Opening
from bridge.recovery import RecoveryReason
from bridge.recovery_signing import RecoveryRequest
from bridge.state import BatchKind, WithdrawalStatus
from bridge.withdrawals import BurnReason
from federation.certificate import (
    NO_BLOCK,
    Certificate,
    VoteKind,
    VoteReason,
    VoteRejected,
    verify_certificate,
    vote_digest,
)
from pegnode.chain.block import Block
from pegnode.chain.transactions import TransactionRule
from pegnode.chain.verdicts import BodyReason
from pegnode.genesis import Genesis
from pegnode.genesis_rules import GenesisReason, GenesisRefused
from pegnode.net.handshake import Hello, check_hello
from pegnode.net.transport import DropReason, PeerRole, RemoteFault
from pegnode.options.errors import ConfigReason
from tests.support import recovery
from tests.support.chain import MemoryChain, custody_secrets, member_sections, secret, vote_secrets
from tests.support.configs import changed as config_with
from tests.support.configs import refusal as config_refusal
from tests.support.fake_l1 import FakeBlock
from tests.support.ledgers import pending
from tests.support.merkle import encode_proof
from tests.support.mini_wallet import MiniWallet
from tests.support.peg import p2tr
from tests.support.verdicts import evidence_refusal, refusal, transaction_refusal

ALICE, MALLORY = MiniWallet("alice"), MiniWallet("mallory")
NULL = bytes(32)


@pytest.fixture
def chain() -> MemoryChain:
    return MemoryChain()


def genesis_refusal(change: Callable[[dict[str, Any]], object]) -> GenesisReason:
    """Why a genesis with one thing changed is none."""
    raw = msgspec.json.decode(MemoryChain().genesis.canonical_bytes)
    change(raw)
    with pytest.raises(GenesisRefused) as caught:
        Genesis.decode(msgspec.json.encode(raw))
    assert isinstance(caught.value.reason, GenesisReason)
    return caught.value.reason


def setting(section: str | None, name: str, value: object) -> Callable[[dict[str, Any]], object]:
    """The change that gives one field another value, or adds it."""
    return lambda raw: (raw[section] if section else raw).update({name: value})


def leaving_out(name: str) -> Callable[[dict[str, Any]], object]:
    """The change that leaves a parameter of the peg out."""
    return lambda raw: raw["peg"].pop(name)


# Null proofs (Nomad, 2022: the null root was a trusted one, and whatever nobody had proven had it. Wormhole, 2022: a
# list of signatures that nobody had checked)


def test_null_proof_proves_nothing(chain: MemoryChain) -> None:
    """Nothing, zeros, and the header of a true block with nothing or zeros below it."""
    payment = chain.l1.payment(TxOut(50_000, chain.deposit_script(MALLORY.script())))
    block = chain.l1.mine(chain.l1.payment(TxOut(1, ALICE.script())))
    chain.bury()
    opening = Opening(0, CoinKind.DEPOSIT, 0, MALLORY.script())
    proofs: dict[bytes, EvidenceReason] = {
        b"": EvidenceReason.WRONG_BLOCK,
        bytes(80): EvidenceReason.WRONG_BLOCK,
        encode_proof(bytes(80), 1, [payment.txid], [True]): EvidenceReason.WRONG_BLOCK,
        block.header: EvidenceReason.BAD_PROOF,
        encode_proof(block.header, 0, [], []): EvidenceReason.PROOF_COUNT_MISMATCH,
        encode_proof(block.header, 2, [], []): EvidenceReason.PROOF_TRUNCATED,
        encode_proof(block.header, 2, [NULL], [False]): EvidenceReason.WRONG_MERKLE_ROOT,
        encode_proof(block.header, 2, [NULL, NULL], [True] * 3): EvidenceReason.DUPLICATED_HASHES,
        encode_proof(block.header, 2, [NULL, payment.txid], [True, False, True]): EvidenceReason.WRONG_MERKLE_ROOT,
    }
    for proof, reason in proofs.items():
        evidence = Evidence(payment.serialize_stripped(), proof, block.height, (opening,))
        assert evidence_refusal(chain, evidence) is reason
    assert chain.extend().state.ledger.totals.reserves_sats == 0


def test_null_root_of_a_true_block_proves_nothing(chain: MemoryChain) -> None:
    """Even should L1 hold a block whose root is null: its one leaf is the null hash, and no transaction has that."""
    payment = chain.l1.payment(TxOut(50_000, chain.deposit_script(MALLORY.script())))
    header = chain.l1.blocks[-1].header
    block = FakeBlock(chain.l1.height + 1, header[:36] + NULL + header[68:], (payment,))
    chain.l1.blocks.append(block)
    chain.bury()
    opening = Opening(0, CoinKind.DEPOSIT, 0, MALLORY.script())
    for is_match, reason in ((True, EvidenceReason.WRONG_TRANSACTION), (False, EvidenceReason.NOT_EXACTLY_ONE_MATCH)):
        proof = encode_proof(block.header, 1, [NULL], [is_match])
        evidence = Evidence(payment.serialize_stripped(), proof, block.height, (opening,))
        assert evidence_refusal(chain, evidence) is reason


def signed_by_all(chain: MemoryChain, kind: VoteKind, block_hash: BlockHash) -> Certificate:
    """A quorum's genuine signatures of a vote on whatever is named."""
    digest = vote_digest(chain.rules.chain_id, 0, kind, 1, block_hash)
    signatures = tuple((index, schnorr_sign(vote_secrets()[index], digest, NULL)) for index in range(3))
    return Certificate(kind, 0, 1, block_hash, signatures)


def test_null_names_name_nothing(chain: MemoryChain) -> None:
    """The null block with everybody's signature, the null output with Alice's, and a chain from the null block."""
    for kind in (VoteKind.NOTARIZE, VoteKind.FINALIZE):
        assert certificate_refusal(chain, signed_by_all(chain, kind, BlockHash(NULL))) is VoteReason.BLOCK_HASH_NULL
        assert certificate_refusal(chain, signed_by_all(chain, kind, NO_BLOCK)) is VoteReason.BLOCK_HASH_MISSING
    [coin] = chain.fund(ALICE.script())
    for vout in (0, 0xFFFFFFFF):
        minted = ALICE.spend(
            [coin, (OutPoint(Txid(NULL), vout), coin[1])], [TxOut(2 * coin[1].value_sats, coin[1].script)]
        )
        assert transaction_refusal(chain, minted) is TransactionRule.NULL_PREVOUT
    assert genesis_refusal(lambda raw: raw["l1"].update(anchor_hash_hex=NULL.hex())) is GenesisReason.L1_ANCHOR
    assert genesis_refusal(lambda raw: raw["l1"].update(genesis_hash_hex=NULL.hex())) is GenesisReason.L1_GENESIS
    assert chain.utxo_value(coin[0]) == coin[1].value_sats


# No threshold (Ronin, 2024: an upgrade that left a step out set the weight that a withdrawal needs to nothing)


def certificate_refusal(chain: MemoryChain, certificate: Certificate) -> Reason:
    """Why a certificate, as a peer would bring it, proves nothing."""
    with pytest.raises(VoteRejected) as caught:
        verify_certificate(Certificate.decode(certificate.encode()), chain.rules.membership, chain.rules.chain_id)
    return caught.value.reason


def test_threshold_of_nothing_or_of_ones_own_is_no_genesis() -> None:
    """There is no threshold to set wrong: it follows from the members. What is left to set has no default."""
    for section in (None, "peg", "consensus"):
        for name in ("quorum", "threshold", "minimum_vote_weight"):
            assert genesis_refusal(setting(section, name, 0)) is GenesisReason.UNKNOWN_FIELD
    assert genesis_refusal(setting("peg", "recovery_quorum", 0)) is GenesisReason.RECOVERY_QUORUM
    assert genesis_refusal(setting(None, "members", [])) is GenesisReason.MEMBER_COUNT
    set_here = msgspec.json.decode(MemoryChain().genesis.canonical_bytes)["peg"]
    assert {"recovery_quorum", "max_peg_sats", "max_withdrawal_sats"} <= set_here.keys()
    for name in set_here:
        assert genesis_refusal(leaving_out(name)) is GenesisReason.MISSING_FIELD


def test_member_with_another_genesis_is_on_another_chain(chain: MemoryChain) -> None:
    """One recovery key less is enough in his copy: nobody talks to him, and no address of his is ours."""
    raw = msgspec.json.decode(chain.genesis.canonical_bytes)
    raw["peg"].update(recovery_quorum=1)
    his = Genesis.decode(msgspec.json.encode(raw)).rules()
    with pytest.raises(RemoteFault) as caught:
        check_hello(Hello(his.chain_id, PeerRole.MEMBER, "pegnode"), chain.rules.chain_id, PeerRole.MEMBER)
    assert caught.value.reason is DropReason.WRONG_CHAIN
    ours = reserve_script(chain.rules.custody.newest, CoinKind.CHANGE).script
    assert ours != reserve_script(his.custody.newest, CoinKind.CHANGE).script


@pytest.mark.parametrize("signers", [(), (0,), (0, 3), (0, 1, 2, 3)])
def test_other_number_than_a_quorum_spends_nothing(chain: MemoryChain, signers: tuple[int, ...]) -> None:
    """A witness made by hand, with each signature genuine, run by Bitcoin's own engine; and blocks made final so."""
    coin = reserve_script(chain.rules.custody.newest, CoinKind.CHANGE)
    prevout = TxOut(1_000_000, coin.script)
    theft = Transaction(2, (TxIn(OutPoint(Txid(b"\x01" * 32), 0)),), (TxOut(990_000, MALLORY.script()),))
    digest = script_path_sighash(theft, 0, [prevout], coin.quorum_leaf_hash)
    signed = [schnorr_sign(custody_secrets()[index], digest, NULL) for index in range(4)]
    quorum = quorum_witness(coin, [*signed[:3], None])
    verify_scripts(theft.with_witnesses([quorum]), [prevout])  # it is the number alone that is wrong below
    stack = [signed[index] if index in signers else b"" for index in reversed(range(4))]
    with pytest.raises(Rejected) as caught:
        verify_scripts(theft.with_witnesses([(*stack, coin.quorum_leaf, coin.quorum_control_block)]), [prevout])
    assert caught.value.reason is ScriptReason.SCRIPT_FAILED
    final = Certificate(VoteKind.FINALIZE, 0, 1, BlockHash(b"\x07" * 32), tuple((one, bytes(64)) for one in signers))
    assert certificate_refusal(chain, final) is VoteReason.QUORUM_SIZE


# Another time lock (Liquid, 2020: the members' devices refreshed coins by another lock than that of the scripts, and
# for an hour the recovery keys could have spent some)


def test_time_lock_is_the_same_number_wherever_it_counts(chain: MemoryChain) -> None:
    """A deposit behind a shorter lock is no deposit; a member has no lock of its own to set."""
    policy = chain.rules.custody.newest
    shorter = replace(policy, recovery_timelock_blocks=policy.recovery_timelock_blocks - 1)
    opening = Opening(0, CoinKind.DEPOSIT, 0, ALICE.script())
    trap = chain.l1.payment(TxOut(50_000, reserve_script(shorter, CoinKind.DEPOSIT, ALICE.script()).script))
    chain.l1.mine(trap)
    chain.bury()
    assert evidence_refusal(chain, chain.l1.evidence(trap, opening)) is EvidenceReason.WRONG_SCRIPT
    refused = config_refusal(config_with("keys_dir =", "recovery_timelock_blocks = 10\nkeys_dir ="))
    assert refused.reason is ConfigReason.UNKNOWN_OPTION
    params = chain.rules.params
    too_short = 8 * (params.confirmations + params.replacement_interval_anchors) - 1
    for lock in (0, too_short, 1 << 22 | 4_032, 1 << 31 | 4_032):  # the last two, in BIP68's terms: seconds, and none
        assert genesis_refusal(setting("peg", "recovery_timelock_blocks", lock)) is GenesisReason.RECOVERY_TIMELOCK


@pytest.mark.parametrize("sequence", [0, 1, recovery.TIMELOCK_BLOCKS - 1, 1 << 31 | 24, 1 << 22 | 24, 0xFFFFFFFF])
def test_recovery_keys_can_not_shorten_their_lock(sequence: int) -> None:
    """Enough holders sign by hand what no plan may say: the program refuses it, and so does Bitcoin's own engine."""
    plan = recovery.planned([recovery.coin(0)])
    [txin], policy = plan.transaction.inputs, recovery.POLICY
    hasty = replace(plan, transaction=replace(plan.transaction, inputs=(replace(txin, sequence=sequence),)))
    with pytest.raises(Rejected) as caught:
        RecoveryRequest.read(hasty, recovery.TERMS)
    assert caught.value.reason is RecoveryReason.NOT_AS_PLANNED
    coin = recovery.coin(0)
    digest = script_path_sighash(hasty.transaction, 0, [coin.output], coin.reserve.recovery_leaf_hash)
    signatures = [schnorr_sign(holder, digest, NULL) for holder in recovery.HOLDERS[: policy.recovery_quorum]]
    stolen = hasty.transaction.with_witnesses([recovery_witness(coin.reserve, [*signatures, None])])
    with pytest.raises(Rejected) as caught:
        verify_scripts(stolen, [coin.output])
    assert caught.value.reason is ScriptReason.SCRIPT_FAILED
    recovery.signed(plan, 0, 1).finalized()


# A path that is not relayed (Rootstock, 2022: the reserve moved to a script whose spends Bitcoin's nodes did not relay)


def pushes(*items: bytes) -> bytes:
    """Each item behind its length."""
    return b"".join(bytes([len(item)]) + item for item in items)


STRANGE: dict[str, bytes] = {
    "nothing": b"",
    "anyone": b"\x51",
    "key": pushes(b"\x02" + b"\x11" * 32) + b"\xac",
    "multisig": b"\x51" + pushes(b"\x02" + b"\x11" * 32) + b"\x51\xae",
    "data": b"\x6a" + pushes(b"x" * 20),
    "witness version 2": b"\x52" + pushes(b"\x11" * 32),
    "anchor": b"\x51" + pushes(b"\x4e\x73"),
    "short program": b"\x00" + pushes(b"\x11" * 31),
}
"""Output scripts that L1's nodes would not relay a payment to, or that nobody has to honour."""


@pytest.mark.parametrize("name", STRANGE)
def test_payee_that_is_not_relayed_holds_up_no_payout(chain: MemoryChain, name: str) -> None:
    """One such burn in a batch, and no node relays the payment of all the others."""
    script = Script(STRANGE[name])
    [coin] = chain.fund(ALICE.script())
    good = chain.burn_output(100_000, p2tr("payee"), ALICE.script())
    for l1_script, refund_script, reason in (
        (script, ALICE.script(), BurnReason.L1_SCRIPT_TYPE),
        (p2tr("payee"), script, BurnReason.REFUND_SCRIPT_TYPE),
    ):
        burn = chain.burn_output(100_000, l1_script, refund_script)
        spend = ALICE.spend([coin], [good, burn, TxOut(coin[1].value_sats - 300_000, ALICE.script())])
        assert transaction_refusal(chain, spend) is reason
    assert pending(chain.state.ledger) == []


def test_claim_that_is_not_standard_is_not_made(chain: MemoryChain) -> None:
    """Nobody could have shown such an address; a deposit "to" it would be a coin that nobody can claim or move."""
    payment, evidence = chain.pay_reserve(MALLORY.script(), 50_000)
    chain.bury()
    for script in STRANGE.values():
        opened = replace(evidence, openings=(Opening(0, CoinKind.DEPOSIT, 0, script),))
        assert evidence_refusal(chain, opened) is EvidenceReason.CLAIM_SCRIPT_TYPE
    assert payment.outpoint(0) not in chain.state.ledger.entered


def test_federation_whose_reserve_nobody_would_relay_is_no_genesis() -> None:
    """More members, holders or payees than a transaction that every node relays has room for."""
    crowd = msgspec.to_builtins(member_sections(20))
    assert genesis_refusal(lambda raw: raw.update(members=crowd)) is GenesisReason.MEMBER_COUNT
    holders = [x_only(secret("recovery", index)).hex() for index in range(30)]

    def many_holders(raw: dict[str, Any]) -> None:
        raw.update(recovery_keys_hex=holders)
        raw["peg"].update(recovery_quorum=20)

    assert genesis_refusal(many_holders) is GenesisReason.CUSTODY
    assert genesis_refusal(setting("peg", "batch_max_inputs", 2_000)) is GenesisReason.PEG
    assert genesis_refusal(setting("peg", "coin_floor_sats", 300)) is GenesisReason.PEG


# Money without a fee


EXPIRY = 20
BURNED_SATS = 100_000


def test_burns_that_bear_no_fee_cost_the_fund_nothing() -> None:
    """Mallory burns with max_fee 0, ten times, before Alice: the fund is rich, and pays for none of it."""
    chain = MemoryChain(peg={"withdrawal_expiry_anchors": EXPIRY, "max_anchor_step": 16})
    params = chain.rules.params
    coins = chain.fund(*[MALLORY.script()] * 10, ALICE.script(), value_sats=1_000_000)
    donate(chain, 1_000_000)
    rest = TxOut(1_000_000 - params.claim_fee_sats - BURNED_SATS, MALLORY.script())
    free = chain.burn_output(BURNED_SATS, MALLORY.script(), MALLORY.script(), max_fee_sats=0)
    chain.extend(*[MALLORY.spend([coin], [free, rest]) for coin in coins[:10]])
    fund_sats = chain.state.ledger.totals.fund_sats
    assert fund_sats > 1_000_000

    chain.l1.mine_empty(params.batch_max_wait_anchors)
    assert chain.build().block.body.batches == ()
    generous = Transaction(2, (TxIn(coin_of(chain)),), (TxOut(BURNED_SATS, MALLORY.script()),))
    assert batch_refusal(chain, generous) is BatchReason.NOT_DUE
    chain.extend()

    fair = chain.burn_output(BURNED_SATS, p2tr("payee"), ALICE.script(), max_fee_sats=5_000)
    chain.extend(ALICE.spend(coins[10:], [fair, replace(rest, script=ALICE.script())]))
    chain.l1.mine_empty(params.batch_max_wait_anchors)
    [batch] = chain.build().block.body.batches
    honest = Transaction.parse(batch.transaction)
    assert MALLORY.script() not in [output.script for output in honest.outputs]
    stolen = replace(honest, outputs=(*honest.outputs, TxOut(BURNED_SATS, MALLORY.script())))
    assert batch_refusal(chain, stolen) is BatchReason.TRANSACTION_DIFFERS
    chain.extend()
    chain.l1.mine(honest)
    settlement = chain.l1.evidence(honest)
    chain.bury()
    chain.extend(evidence=[settlement])
    assert chain.state.ledger.totals.fund_sats == fund_sats

    chain.pass_anchors(EXPIRY)
    chain.extend()
    assert pending(chain.state.ledger) == []
    ends = [closed.status for _, closed in chain.state.ledger.closed_withdrawals.items()]
    assert (ends.count(WithdrawalStatus.REFUNDED), ends.count(WithdrawalStatus.SETTLED)) == (10, 1)
    assert chain.state.ledger.totals.fund_sats == fund_sats + 10 * params.refund_fee_sats


def donate(chain: MemoryChain, value_sats: int) -> None:
    """Make the fund rich."""
    payment = chain.l1.payment(TxOut(value_sats, reserve_script(chain.rules.custody.newest, CoinKind.DONATION).script))
    chain.l1.mine(payment)
    chain.bury()
    chain.extend(evidence=[chain.l1.evidence(payment, Opening(0, CoinKind.DONATION, 0, b""))])


def coin_of(chain: MemoryChain) -> OutPoint:
    """A coin of the reserve."""
    return next(outpoint for outpoint, _ in chain.state.ledger.coins.items())


def batch_refusal(chain: MemoryChain, transaction: Transaction) -> Reason | None:
    """Which rule a payout of this transaction breaks in the next block."""
    block = chain.build().block
    batch = Batch(BatchKind.PAYOUT, None, 2_000, transaction.serialize())
    reason, cause = refusal(chain, chain.reseal(Block(block.header, replace(block.body, batches=(batch,)))))
    assert reason is BodyReason.BAD_BATCH
    return cause
