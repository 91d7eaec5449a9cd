"""The judge of final blocks: the pure rules over a ledger of its own, L1 as it really is, and the money counted anew.

No member's state, pool or verdict is used. Each final block is judged once, on the one before, with a certificate of a
quorum if it came with one.
"""

from typing import Any, cast

from bridge.errors import MalformedError
from bridge.ledger import GenesisLedger, LedgerView
from bridge.tables import MemoryTable, OverlayTable, Table
from federation.certificate import Certificate, VoteKind, VoteRejected, verify_certificate
from pegnode.chain.block import Block
from pegnode.chain.facts import needs_l1
from pegnode.chain.parameters import ChainRules
from pegnode.chain.rules import apply_block
from pegnode.chain.state import LEDGER_TABLES, ChainState, GenesisState, Tip
from pegnode.chain.verdicts import BlockRejected, L1Contradicted, L1Waiting
from tests.sim.books import Books
from tests.sim.seams import Violation, World
from tests.support.fake_l1_client import L1World


class FinalState(GenesisState):
    """The state after the newest block that was judged, in memory, brought forward block by block."""

    def absorb(self, after: ChainState) -> None:
        """Take over what a block wrote."""
        for name in LEDGER_TABLES:
            _absorb(getattr(self.ledger, name), getattr(after.ledger, name))
        _absorb(self.utxos, after.utxos)
        ledger: GenesisLedger = cast(GenesisLedger, self.ledger)
        ledger.totals = after.ledger.totals
        self.tip = Tip(after.tip.header)


class ChainOracle:
    """Judges the final blocks of one chain above one L1."""

    def __init__(self, rules: ChainRules, l1: L1World) -> None:
        self._rules = rules
        self._l1 = l1
        self.state = FinalState(rules.genesis_header)
        self._books = Books(l1.chain)

    @property
    def ledger(self) -> LedgerView:
        """After the newest block that was judged."""
        return self.state.ledger

    def judge(self, block: bytes, certificate: bytes | None) -> None:
        """The next final block, and what proves it, if it has a proof of its own. Raises Violation."""
        try:
            parsed = Block.decode_whole(block)
            if certificate is not None:
                self._check_certificate(parsed, certificate)
            facts = self._l1.chain.facts(parsed.header.anchor, *parsed.body.evidence)
            after = apply_block(self.state, parsed, facts, self._rules)
        except (BlockRejected, L1Waiting, L1Contradicted, MalformedError, VoteRejected) as error:
            raise Violation(f"a final block that is not valid: {type(error).__name__}: {error}") from error
        self._check_depth(parsed)
        self.state.absorb(after)
        self._books.after_block(parsed, after, self.state)

    def _check_certificate(self, block: Block, data: bytes) -> None:
        certificate = Certificate.decode(data)
        verify_certificate(certificate, self._rules.membership, self._rules.chain_id)
        said = (certificate.kind, certificate.view, certificate.block_hash)
        if said != (VoteKind.FINALIZE, block.header.view, block.hash):
            raise Violation(f"block {block.header.height} is final by a certificate of something else")

    def _check_depth(self, block: Block) -> None:
        """What the block knows of L1 is buried: no shallower branch of L1 can take it back."""
        if needs_l1(self.state.tip.header, block):
            depth = self._l1.chain.height - block.header.anchor.height + 1
            if depth < self._rules.params.confirmations:
                raise Violation(f"block {block.header.height} is anchored to an L1 block only {depth} deep")


def oracle_of(world: World) -> ChainOracle:
    """The judge of a simulated federation's chain."""
    return ChainOracle(world.rules, world.l1)


def _absorb(table: Table[Any, Any], above: OverlayTable[Any, Any]) -> None:
    assert isinstance(table, MemoryTable)
    for key, value in above.writes.items():
        if value is None:
            table.delete(key)
        else:
            table.put(key, value)
