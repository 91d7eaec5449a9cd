"""The worked examples of docs/protocol.md: one small peg, from its genesis to a payout, made by the code itself.

Every key here is public. Nothing is taken from outside, so the same code gives the same bytes on every machine.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bridge.batch import Batch, build_batch
from bridge.bitcoin import curve
from bridge.bitcoin.addresses import encode_address, l1_network, sidechain_network
from bridge.bitcoin.hashes import sha256, tagged_hash
from bridge.bitcoin.identifiers import BlockHash, OutPoint, Script, Txid, hash_to_hex
from bridge.bitcoin.script import push
from bridge.bitcoin.taproot import tapbranch_hash
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut
from bridge.codec import Writer
from bridge.custody import CoinKind, ReserveScript, quorum_input_weight, reserve_script
from bridge.deposits import CLAIM_FLAG
from bridge.evidence import Evidence, L1BlockFact, Opening
from bridge.ledger import Ledger, advance_anchor, ledger_root, record_burn
from bridge.lineages import PlannedBatch
from bridge.refunds import refund_transaction
from bridge.state import Anchor, BatchKind, Withdrawal
from bridge.withdrawals import Burn, encode_burn
from federation.certificate import NO_BLOCK, Vote, VoteKind, vote_digest
from federation.signing_plan import SigningPlan, plan_signing
from pegnode.chain.block import EMPTY_BODY, Block
from pegnode.chain.builder import BuiltBlock, Candidates, Slot, build_block
from pegnode.chain.facts import AnchorStatus, L1Facts
from pegnode.chain.parameters import ChainRules
from pegnode.chain.rules import apply_block
from pegnode.chain.state import GenesisState
from pegnode.genesis import Genesis, MemberSection
from pegnode.net.address import peer_id_from_secret

TEMPLATE = Path(__file__).resolve().parents[1] / "configs" / "local.toml"
ANCHOR_HEIGHT = 100
GENESIS_TIME_MS = 1_750_000_000_000
DEPOSIT_SATS = 100_000_000
BURN_SATS = 30_000_000
MAX_FEE_SATS = 2_000
FEERATE_SAT_KVB = 2_000

Rows = list[tuple[str, str]]
"""What an example shows: names, and values in hex unless they say otherwise."""


def secret(name: str) -> bytes:
    """An example's secret, 32 bytes, which everyone knows."""
    return sha256(f"pegnode example: {name}".encode())


@dataclass(frozen=True)
class Example:
    """The peg of the examples. Each part follows from those above it. (No slots: parts are computed once and kept.)

    claim_script, refund_script: on the sidechain.  l1_script: on L1.
    """

    claim_script: Script = field(default_factory=lambda: Script(b"\x00\x14" + secret("claim")[:20]))
    refund_script: Script = field(default_factory=lambda: Script(b"\x00\x14" + secret("refund")[:20]))
    l1_script: Script = field(default_factory=lambda: Script(b"\x51\x20" + curve.x_only(secret("payee"))))

    @cached_property
    def genesis(self) -> Genesis:
        """Four members, with the parameters of configs/local.toml."""
        return Genesis.from_template(
            TEMPLATE.read_text(encoding="utf-8"),
            members=[_member(name) for name in ("alice", "bob", "carol", "dave")],
            recovery_keys_hex=[curve.x_only(secret(f"recovery {number}")).hex() for number in (1, 2, 3)],
            anchor=Anchor(ANCHOR_HEIGHT, BlockHash(secret("L1 block 100"))),
            time_ms=GENESIS_TIME_MS,
        )

    @cached_property
    def rules(self) -> ChainRules:
        """Of that genesis."""
        return self.genesis.rules()

    @cached_property
    def reserve(self) -> ReserveScript:
        """What a deposit for `claim_script` pays."""
        return reserve_script(self.rules.custody.newest, CoinKind.DEPOSIT, self.claim_script)

    @cached_property
    def deposit(self) -> Transaction:
        """An L1 transaction whose second output is a deposit."""
        spent = TxIn(OutPoint(Txid(secret("L1 coin")), 7))
        return Transaction(2, (spent,), (TxOut(5_000, self.l1_script), TxOut(DEPOSIT_SATS, self.reserve.script)))

    @cached_property
    def evidence(self) -> Evidence:
        """Of the deposit, the only transaction of L1's block 99."""
        header = (4).to_bytes(4, "little") + secret("L1 block 98") + self.deposit.txid + bytes(12)
        proof = header + (1).to_bytes(4, "little") + b"\x01" + self.deposit.txid + b"\x01\x01"
        opening = Opening(1, CoinKind.DEPOSIT, 0, self.claim_script)
        return Evidence(self.deposit.serialize_stripped(), proof, ANCHOR_HEIGHT - 1, (opening,))

    @cached_property
    def built(self) -> BuiltBlock:
        """Block 1, which holds that evidence and nothing else, and the state after it; the rules accept it."""
        facts = L1Facts(AnchorStatus.ON_CHAIN, {self.evidence.l1_block_hash: L1BlockFact(ANCHOR_HEIGHT - 1, 1)})
        slot = Slot(1, GENESIS_TIME_MS + 1_000, self.genesis.anchor, None, include_l1=True)
        parent = GenesisState(self.genesis.header())
        built = build_block(parent, slot, Candidates((self.evidence,)), facts, self.rules)
        apply_block(parent, Block.decode(built.block.encode()), facts, self.rules)
        return built

    @cached_property
    def burn(self) -> Burn:
        """The depositor's way home."""
        return Burn(self.l1_script, MAX_FEE_SATS, self.refund_script)

    @cached_property
    def payout(self) -> tuple[PlannedBatch, SigningPlan]:
        """The batch that pays this one burn out once it has waited long enough, and what there is to sign of it."""
        ledger, _ = self._burned()
        params = self.rules.params
        height = ANCHOR_HEIGHT + params.batch_max_wait_anchors
        advance_anchor(ledger, Anchor(height, BlockHash(secret(f"L1 block {height}"))), params)
        planned = build_batch(ledger, BatchKind.PAYOUT, None, FEERATE_SAT_KVB, self.rules.custody, params)
        if planned is None:
            raise ValueError("the example's payout is not due")
        coins = [coin for _, coin in ledger.coins.items() if coin.outpoint in planned.inputs]
        return planned, plan_signing(Transaction.parse(planned.version.transaction), coins, self.rules.custody)

    @cached_property
    def refund(self) -> Transaction:
        """What gives that burn back, if it expires instead."""
        return refund_transaction(self._burned()[1], self.rules.params)

    def _burned(self) -> tuple[Ledger, Withdrawal]:
        """The ledger of block 1 with the burn above it."""
        ledger = Ledger(self.built.state.ledger)
        withdrawal = record_burn(
            ledger,
            OutPoint(Txid(secret("burning transaction")), 0),
            value_sats=BURN_SATS,
            max_fee_sats=self.burn.max_fee_sats,
            l1_script=self.burn.l1_script,
            refund_script=self.burn.refund_script,
        )
        return ledger, withdrawal


def _member(name: str) -> MemberSection:
    return MemberSection(
        name,
        curve.x_only(secret(f"{name} vote")).hex(),
        curve.x_only(secret(f"{name} custody")).hex(),
        peer_id_from_secret(secret(f"{name} transport")),
    )


def genesis_rows(example: Example) -> Rows:
    """The genesis, its chain id, and block 0."""
    header = example.genesis.header()
    return [
        ("canonical JSON (text)", example.genesis.canonical_bytes.decode()),
        ("chain id", example.genesis.chain_id.hex()),
        ("root of the empty body", EMPTY_BODY.root.hex()),
        ("root of the empty ledger", ledger_root(GenesisState(header).ledger).hex()),
        ("header 0", header.encode().hex()),
        ("hash of header 0", header.hash.hex()),
    ]


def custody_rows(example: Example) -> Rows:
    """How a deposit address follows from a claim script."""
    policy, reserve = example.rules.custody.newest, example.reserve
    bound = Writer().fixed(curve.NUMS, 32).fixed(policy.chain_id, 32).u32(policy.epoch)
    message = bound.variable(example.claim_script).finish()
    return [
        ("claim script", example.claim_script.hex()),
        ("claim address on the sidechain (text)", encode_address(example.claim_script, sidechain_network("regtest"))),
        ("message of the scalar", message.hex()),
        ("scalar", tagged_hash("pegnode/custody/deposit", message).hex()),
        ("internal key P", reserve.internal_key.hex()),
        ("quorum leaf", reserve.quorum_leaf.hex()),
        ("recovery leaf", reserve.recovery_leaf.hex()),
        ("hash of the quorum leaf", reserve.quorum_leaf_hash.hex()),
        ("hash of the recovery leaf", reserve.recovery_leaf_hash.hex()),
        ("Merkle root", tapbranch_hash(reserve.quorum_leaf_hash, reserve.recovery_leaf_hash).hex()),
        ("control block of the quorum leaf", reserve.quorum_control_block.hex()),
        ("output script", reserve.script.hex()),
        ("deposit address on L1 (text)", encode_address(reserve.script, l1_network("regtest"))),
        ("descriptor without checksum (text)", reserve.descriptor),
        ("weight of one signed input (units)", str(quorum_input_weight(policy))),
    ]


def deposit_rows(example: Example) -> Rows:
    """From an L1 transaction to the block that credits it."""
    built, deposit = example.built, example.deposit
    (claim,) = (applied.transaction for applied in built.state.transactions)
    header = built.block.header
    return [
        ("L1 transaction, stripped", deposit.serialize_stripped().hex()),
        ("its txid, internal order", deposit.txid.hex()),
        ("its txid as Bitcoin shows it", hash_to_hex(deposit.txid)),
        ("proof (merkleblock)", example.evidence.proof.hex()),
        ("evidence", example.evidence.encode().hex()),
        ("index of the claim's input (number)", f"{1 | CLAIM_FLAG:#x}"),
        ("claim", claim.serialize().hex()),
        ("txid of the claim, internal order", claim.txid.hex()),
        ("txid of the claim as Bitcoin shows it", hash_to_hex(claim.txid)),
        ("totals after block 1", built.state.ledger.totals.encode().hex()),
        ("coin", next(coin for _, coin in built.state.ledger.coins.items()).encode().hex()),
        ("body root of block 1", built.block.body.root.hex()),
        ("ledger root of block 1", header.ledger_root.hex()),
        ("header 1", header.encode().hex()),
        ("hash of header 1", header.hash.hex()),
        ("block 1 (bytes)", str(len(built.block.encode()))),
    ]


def vote_rows(example: Example) -> Rows:
    """Votes on block 1."""
    block_hash, chain_id = example.built.block.hash, example.genesis.chain_id
    vote_secret = secret("bob vote")
    digests = [
        (f"digest of {kind.name.lower()}", vote_digest(chain_id, 0, kind, 1, block_hash if kind.names_block else b""))
        for kind in VoteKind
    ]
    signature = curve.schnorr_sign(vote_secret, digests[0][1], bytes(32))
    nullify = curve.schnorr_sign(vote_secret, digests[1][1], bytes(32))
    return [
        ("secret vote key of member 1", vote_secret.hex()),
        ("vote key of member 1", curve.x_only(vote_secret).hex()),
        *((name, digest.hex()) for name, digest in digests),
        ("signature of notarize, auxiliary randomness 0", signature.hex()),
        ("notarize vote", Vote(VoteKind.NOTARIZE, 0, 1, block_hash, 1, signature).encode().hex()),
        ("nullify vote", Vote(VoteKind.NULLIFY, 0, 1, NO_BLOCK, 1, nullify).encode().hex()),
    ]


def burn_rows(example: Example) -> Rows:
    """A burn's script, operation by operation."""
    burn, genesis_hash = example.burn, example.genesis.l1_genesis_hash
    return [
        ("OP_RETURN", "6a"),
        ("push of 32 bytes: L1 genesis hash, internal order", push(genesis_hash).hex()),
        ("push of 34 bytes: L1 script", push(burn.l1_script).hex()),
        ("push of 8 bytes: max_fee, 2,000 sats", push(burn.max_fee_sats.to_bytes(8, "little")).hex()),
        ("push of 22 bytes: refund script", push(burn.refund_script).hex()),
        ("burn script", encode_burn(genesis_hash, burn).hex()),
        ("L1 address that it pays (text)", encode_address(burn.l1_script, l1_network("regtest"))),
    ]


def refund_rows(example: Example) -> Rows:
    """The refund of that burn, in place of the payout below."""
    refund = example.refund
    [returned], [credited] = refund.inputs, refund.outputs
    return [
        ("burning transaction, internal order", returned.outpoint.txid.hex()),
        ("index of the burn, with bit 29", returned.outpoint.vout.to_bytes(4, "little").hex()),
        ("given back (sats)", f"{BURN_SATS} - {BURN_SATS - credited.value_sats} = {credited.value_sats}"),
        ("refund", refund.serialize().hex()),
        ("its txid, internal order", refund.txid.hex()),
    ]


def batch_rows(example: Example) -> Rows:
    """The payout of that burn: its fee, its bytes, and what members sign."""
    planned, plan = example.payout
    version = planned.version
    payee, *change = plan.transaction.outputs
    return [
        ("feerate (sat/kvB)", str(version.feerate_sat_kvb)),
        ("signed size (vbytes)", str(plan.signed_vsize_vbytes)),
        ("fee, the share of one payee (sats)", str(version.fee_sats)),
        ("paid to the payee (sats)", f"{BURN_SATS} - {version.fee_sats} = {payee.value_sats}"),
        ("change (sats)", ", ".join(str(output.value_sats) for output in change)),
        ("unsigned transaction", version.transaction.hex()),
        ("its txid, internal order", version.txid.hex()),
        ("batch", Batch.of(planned).encode().hex()),
        ("digest of input 0", plan.inputs[0].digest32.hex()),
    ]
