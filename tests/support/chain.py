"""A sidechain in memory: four members, a fake L1, and blocks built and checked by the real rules."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import base58
import msgspec

from bridge.bitcoin.curve import x_only
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import OutPoint, Script
from bridge.bitcoin.transaction import Transaction, TxOut
from bridge.custody import CoinKind, reserve_script
from bridge.evidence import Evidence, Opening
from bridge.ledger import ledger_root
from bridge.state import Anchor
from bridge.withdrawals import Burn, encode_burn
from pegnode.chain.block import Block, Body
from pegnode.chain.builder import BuiltBlock, Candidates, Slot, build_block
from pegnode.chain.facts import L1Facts
from pegnode.chain.header import Header
from pegnode.chain.parameters import ChainRules
from pegnode.chain.rules import apply_block
from pegnode.chain.state import ChainState, ChainView, GenesisState
from pegnode.genesis import Genesis, MemberSection, Template, parse_template
from tests.support.fake_l1 import FakeL1
from tests.support.mini_wallet import Coin

CONFIGS = Path(__file__).parents[2] / "configs"
START_MS = 1_800_000_000_000
BLOCK_MS = 1_000
L1_START = 10
FEERATE_SAT_KVB = 2_000


def secret(purpose: str, number: int) -> bytes:
    """A secret for tests, 32 bytes."""
    return sha256(f"{purpose} {number}".encode())


def vote_secrets(count: int = 4) -> list[bytes]:
    """The members' vote keys, in the order of their index."""
    return [secret("vote", index) for index in range(count)]


def custody_secrets(count: int = 4) -> list[bytes]:
    """The members' custody keys, in the order of their index."""
    return [secret("custody", index) for index in range(count)]


def member_sections(count: int = 4) -> list[MemberSection]:
    """The members, as a genesis names them."""
    keys = zip(vote_secrets(count), custody_secrets(count), strict=True)
    return [
        MemberSection(f"member-{index}", x_only(vote).hex(), x_only(custody).hex(), peer_id(index))
        for index, (vote, custody) in enumerate(keys)
    ]


def peer_id(index: int) -> str:
    """The peer id of a member's transport key, spelt without libp2p, which takes a second to load."""
    point = b"\x02" + x_only(secret("transport", index))
    return base58.b58encode(bytes((0x00, 37, 0x08, 0x02, 0x12, 33)) + point).decode()


def recovery_keys_hex() -> list[str]:
    """Three recovery keys."""
    return [x_only(secret("recovery", index)).hex() for index in range(3)]


def local_genesis(
    anchor: Anchor,
    *,
    members: int = 4,
    peg: Mapping[str, int] = {},
    chain: Mapping[str, int] = {},
    consensus: Mapping[str, int] = {},
) -> Genesis:
    """The genesis of configs/local.toml with so many members. peg, chain, consensus: parameters that differ."""
    template = Template.from_table(parse_template((CONFIGS / "local.toml").read_text()).table)
    return Genesis.compose(
        msgspec.structs.replace(
            template,
            member_count=members,
            peg=replace(template.peg, **peg),
            chain=replace(template.chain, **chain),
            consensus=replace(template.consensus, **consensus),
        ),
        members=member_sections(members),
        recovery_keys_hex=recovery_keys_hex(),
        anchor=anchor,
        time_ms=START_MS,
    )


class MemoryChain:
    """A chain that grows by valid blocks. state: after the newest; blocks: without the genesis block."""

    def __init__(self, *, peg: Mapping[str, int] = {}, chain: Mapping[str, int] = {}) -> None:
        self.l1 = FakeL1()
        self.l1.mine_empty(L1_START + 1)
        self.genesis = local_genesis(self.l1.anchor(L1_START), peg=peg, chain=chain)
        self.rules: ChainRules = self.genesis.rules()
        self.state: ChainView = GenesisState(self.rules.genesis_header)
        self.blocks: list[Block] = []

    @property
    def header(self) -> Header:
        """Of the newest block."""
        return self.state.tip.header

    def deepest_anchor(self) -> Anchor:
        """The highest L1 block with enough confirmations, as far as one step goes."""
        parent = self.header.anchor
        buried = self.l1.height - self.rules.params.confirmations + 1
        return self.l1.anchor(min(max(buried, parent.height), parent.height + self.rules.params.max_anchor_step))

    def slot(self, *, include_l1: bool = True, view: int | None = None, time_ms: int | None = None) -> Slot:
        """The next proposal's."""
        return Slot(
            view=self.header.view + 1 if view is None else view,
            time_ms=self.header.time_ms + BLOCK_MS if time_ms is None else time_ms,
            anchor=self.deepest_anchor(),
            feerate_sat_kvb=FEERATE_SAT_KVB,
            include_l1=include_l1,
        )

    def build(
        self, *transactions: Transaction, evidence: Sequence[Evidence] = (), slot: Slot | None = None
    ) -> BuiltBlock:
        """The next block from these candidates; the chain stays as it is."""
        slot = slot or self.slot()
        facts = self.l1.facts(slot.anchor, *evidence)
        return build_block(self.state, slot, Candidates(evidence, transactions), facts, self.rules)

    def facts(self, block: Block) -> L1Facts:
        """What the fake L1 says about a block."""
        return self.l1.facts(block.header.anchor, *block.body.evidence)

    def apply(self, block: Block) -> ChainState:
        """The state after a block on the newest one; the chain stays as it is."""
        return apply_block(self.state, block, self.facts(block), self.rules)

    def extend(
        self, *transactions: Transaction, evidence: Sequence[Evidence] = (), slot: Slot | None = None
    ) -> BuiltBlock:
        """The next block, which must hold all of these; it is checked and becomes the newest."""
        built = self.build(*transactions, evidence=evidence, slot=slot)
        body = built.block.body
        assert len(body.transactions) == len(transactions), built.rejected_transactions
        assert len(body.evidence) == len(evidence), built.rejected_evidence
        self.state = self.apply(Block.decode(built.block.encode()))
        self.blocks.append(built.block)
        return built

    def reseal(self, block: Block, **header_changes: object) -> Block:
        """The block with a header that commits to its body, and with these header fields."""
        header = replace(block.header, body_root=block.body.root)
        return Block(replace(header, **header_changes), block.body)  # type: ignore[arg-type]

    def with_body(self, **sections: object) -> Block:
        """An empty next block whose body has these sections instead, sealed; its ledger root is the empty block's."""
        block = self.build().block
        return self.reseal(Block(block.header, replace(Body(), **sections)))  # type: ignore[arg-type]

    def deposit_script(self, claim_script: Script) -> Script:
        """What a deposit pays on L1 for its claim to pay `claim_script`."""
        return reserve_script(self.rules.custody.newest, CoinKind.DEPOSIT, claim_script).script

    def pay_reserve(self, claim_script: Script, value_sats: int) -> tuple[Transaction, Evidence]:
        """A deposit in a new L1 block, and the evidence for it."""
        payment = self.l1.payment(TxOut(value_sats, self.deposit_script(claim_script)))
        self.l1.mine(payment)
        return payment, self.l1.evidence(payment, Opening(0, CoinKind.DEPOSIT, 0, claim_script))

    def bury(self) -> None:
        """Enough L1 blocks for the newest to become an anchor."""
        self.l1.mine_empty(self.rules.params.confirmations)

    def pass_anchors(self, count: int) -> None:
        """L1 goes on until the next block's anchor is so many above the newest block's, in steps that hold no batch."""
        height = self.header.anchor.height + count
        self.l1.mine_empty(max(0, height + self.rules.params.confirmations - 1 - self.l1.height))
        while self.deepest_anchor().height < height:
            self.extend(slot=replace(self.slot(), feerate_sat_kvb=None))

    def fund(self, *claim_scripts: Script, value_sats: int = 10_000_000) -> list[Coin]:
        """One deposit for each script, claimed in the next block; the coins that the claims make, in order."""
        evidence = [self.pay_reserve(script, value_sats)[1] for script in claim_scripts]
        self.bury()
        built = self.extend(evidence=evidence)
        return [(item.transaction.outpoint(0), item.transaction.outputs[0]) for item in built.state.transactions]

    def burn_output(
        self, value_sats: int, l1_script: Script, refund_script: Script, max_fee_sats: int = 2_000
    ) -> TxOut:
        """An output that burns."""
        return TxOut(value_sats, encode_burn(self.rules.l1_genesis_hash, Burn(l1_script, max_fee_sats, refund_script)))

    def utxo_value(self, outpoint: OutPoint) -> int | None:
        """What an unspent output holds."""
        utxo = self.state.utxos.get(outpoint)
        return None if utxo is None else utxo.value_sats


def sealed_ledger(block: Block, state: ChainState) -> Block:
    """The block with the ledger root of `state`."""
    return Block(replace(block.header, ledger_root=ledger_root(state.ledger)), block.body)
