"""Broken rules of whole members, among whom one is evil and makes the most of it."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from random import Random
from typing import Any
from unittest import mock

from bridge import deposits, ledger
from bridge.state import Coin, Totals
from pegnode.chain import rules as chain_rules
from pegnode.chain.block import Block
from pegnode.chain.facts import L1Facts
from pegnode.chain.parameters import ChainRules
from pegnode.chain.rules import apply_block
from pegnode.chain.state import ChainState, ChainView
from pegnode.net.messages import AnyMessage, ProposalMessage, VotesMessage, encode_message
from pegnode.net.transport import PeerId
from pegnode.service import validation
from tests.sim import evil_leader
from tests.sim.adversary import ByzantineMember
from tests.sim.bad_blocks import KINDS
from tests.sim.outside import Everybody
from tests.sim.plan import Plan
from tests.sim.play import play
from tests.sim.seams import World

EVIL_MEMBER = 1
BAD_TIME_S = 8.0
DELAY_S = (0.001, 0.02)


class OnlyBadBlocks(evil_leader.BadBlocks):
    """One bad block to all whenever it leads, and no other word: who does not look has nothing to doubt."""

    name = "only bad blocks"

    def on_send(self, destination: PeerId, message: AnyMessage, payload: bytes) -> Sequence[bytes] | None:
        if isinstance(message, VotesMessage):
            return ()
        if not isinstance(message, ProposalMessage):
            return None
        if Block.decode(message.block).header.view != self._view:
            self._view = Block.decode(message.block).header.view
            self._variants = [encode_message(bad) for bad in self.variants(Block.decode(message.block), message)]
        return self._variants


class BadLeader(Everybody):
    """An outside with such a member."""

    def adversary_of(self, world: World, index: int, rng: Random) -> ByzantineMember:
        """Who plays the evil member."""
        return ByzantineMember(world, index, rng, [OnlyBadBlocks])


def violation_of(seed: int, kind: str) -> str:
    """What goes wrong among four members, one of whom leads with blocks that are bad in this way; empty if nothing."""
    plan = replace(Plan.calm(seed, bad_time_s=BAD_TIME_S), byzantine=(EVIL_MEMBER,), delay_s=DELAY_S)
    chosen = tuple(bad for bad in KINDS if bad.name == kind) * len(KINDS)
    with mock.patch.object(evil_leader, "KINDS", chosen):
        world = play(plan, BadLeader())
    return "" if world.violation is None else str(world.violation)


def ledger_root_unchecked() -> AbstractContextManager[Any]:
    """Members believe the ledger's root that a header states."""

    def patched(block: Block) -> AbstractContextManager[Any]:
        return mock.patch.object(chain_rules, "ledger_root", return_value=block.header.ledger_root)

    return _members_apply(patched)


def evidence_accepted_twice() -> AbstractContextManager[Any]:
    """Members take in an L1 output as often as it is shown, and do not look at the ledger's root."""
    real = ledger.enter

    def enter(trial: ledger.Ledger, coin: Coin) -> None:
        if coin.outpoint not in trial.entered:
            real(trial, coin)

    def patched(block: Block) -> AbstractContextManager[Any]:
        all_three = ExitStack()
        all_three.enter_context(mock.patch.object(deposits, "may_enter", return_value=True))
        all_three.enter_context(mock.patch.object(ledger, "enter", enter))
        all_three.enter_context(mock.patch.object(chain_rules, "ledger_root", return_value=block.header.ledger_root))
        return all_three

    return _members_apply(patched)


def equality_unchecked() -> AbstractContextManager[Any]:
    """A transition makes a satoshi from nothing, and nobody looks whether the money adds up."""
    real = Totals.plus

    def plus(self: Totals, **changes: Any) -> Totals:
        made = int(changes.get("supply_sats", 0) > 0)
        return real(self, **{**changes, **({"supply_sats": changes["supply_sats"] + 1} if made else {})})

    both = ExitStack()
    both.enter_context(mock.patch.object(Totals, "plus", plus))
    both.enter_context(mock.patch.object(Totals, "require_equality"))
    return both


def _members_apply(patched: Callable[[Block], AbstractContextManager[Any]]) -> AbstractContextManager[Any]:
    """Have members judge blocks by broken rules; whoever judges what became final keeps the real ones."""

    def apply_in_steps(
        parent: ChainView, block: Block, facts: L1Facts, rules: ChainRules
    ) -> Generator[None, None, ChainState]:
        with patched(block):
            state = apply_block(parent, block, facts, rules)
        yield
        return state

    return mock.patch.object(validation, "apply_in_steps", apply_in_steps)
