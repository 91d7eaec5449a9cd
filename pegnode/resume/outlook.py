"""What one's own Bitcoin node and ledger say beside the words of a plan: coins, causes, bookings.      (pure)"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.bitcoin.identifiers import OutPoint, Txid, hash_to_hex
from bridge.errors import Rejected
from bridge.ledger import Ledger, LedgerView
from bridge.losses import book_losses
from bridge.records import Deficit, Finding, Resume
from bridge.state import Anchor, Coin, Lineage
from pegnode.resume.traces import Fate
from pegnode.resume.words import block_text, count_text, describe_finding, sats_text

GIVEN_UP_BLOCKS: Final = 144
"""A day of L1. A transaction that came from a block's miner, or pays too little by now, no other miner may ever take:
nothing stands in its way, and nobody can bring it back, though anybody could keep it in mempools. It must not halt the
peg for good. If it does come back, the coin enters again and repays the deficit. One that an open batch spends is not
given up, for its payout might come back too."""


@dataclass(frozen=True, slots=True)
class CoinSight:
    """What one's own Bitcoin node shows of coins.

    tip: of its active chain.  new_blocks: of that, above the fork; 0 if L1 did not leave the anchor.
    gone: those of the ledger that it does not have unspent in a block, and that no recorded version spent.
    young: those that the active chain holds again after a deep reorg, in fewer confirmations than an anchor has, by how
    many.  taken: those that something in its mempool spends, which no version of an open batch is, by what.
    waiting: those whose transaction is in its mempool.  abandoned: those whose transaction stood in a block that L1
    abandoned.  fates: what is in the way of those that can't come back.
    """

    tip: Anchor
    new_blocks: int
    gone: tuple[OutPoint, ...]
    young: Mapping[OutPoint, int]
    taken: Mapping[OutPoint, Txid]
    waiting: frozenset[OutPoint]
    abandoned: frozenset[OutPoint]
    fates: Mapping[OutPoint, Fate]

    def depth(self, block: Anchor) -> int:
        """How many confirmations a block has."""
        return self.tip.height - block.height + 1


@dataclass(frozen=True, slots=True)
class CoinOutlook:
    """Whether a coin is lost as far as anybody can tell, and why, or why that has to wait."""

    lost: bool
    text: str


def coin_outlook(coin: Coin, sight: CoinSight, confirmations: int) -> CoinOutlook:
    """What is to be done about a coin that L1 does not have."""
    outpoint = coin.outpoint
    name = f"{outpoint}, {sats_text(coin.value_sats)}, of L1 block {coin.l1_height}"
    fate = sight.fates.get(outpoint)
    if fate is not None:
        depth = sight.depth(fate.block)
        cause = f"{name}: {_cause(outpoint, fate)}, {depth} deep"
        if depth >= confirmations:
            return CoinOutlook(True, cause)
        return CoinOutlook(False, f"{cause}: wait until it is {confirmations} deep")
    given_up = coin.lineage is None and sight.new_blocks >= GIVEN_UP_BLOCKS
    nowhere = f"in none of the {sight.new_blocks} blocks that took the place of the abandoned"
    if outpoint in sight.waiting:
        if given_up:
            return CoinOutlook(True, f"{name}: its transaction still waits in the mempool, and is {nowhere}")
        return CoinOutlook(False, f"{name}: its transaction waits in the mempool: wait until a block holds it again")
    if outpoint in sight.abandoned:
        if given_up:
            return CoinOutlook(True, f"{name}: its transaction is in no mempool, and {nowhere}")
        todo = "send it again (getrawtransaction with the block that L1 abandoned, sendrawtransaction), and wait"
        return CoinOutlook(False, f"{name}: its transaction is in no block and no mempool, and may come back: {todo}")
    return CoinOutlook(True, f"{name}: spent on L1 by no recorded batch, {confirmations} blocks ago or earlier")


def deficit_view(
    deficit: Deficit, earlier: Sequence[Deficit], ledger: LedgerView, sight: CoinSight, confirmations: int
) -> list[str]:
    """What this node knows of coins that a record calls lost, and what it would book. earlier: by records before."""
    lines = []
    for lost in deficit.lost:
        coin = ledger.coins.get(lost.outpoint)
        if coin is None:
            lines.append(f"{lost.outpoint}: no coin of the ledger here")
        elif lost.outpoint not in sight.gone:
            lines.append(f"{lost.outpoint}: unspent on L1, or spent by a batch that the ledger has yet to settle")
        else:
            lines.append(coin_outlook(coin, sight, confirmations).text)
            lines += _settlement_lines(coin, sight.fates.get(lost.outpoint), ledger)
    try:
        return lines + _booking_lines(deficit, earlier, ledger)
    except Rejected as error:
        return [*lines, f"it can't be booked here: {error}"]


def resume_view(
    resume: Resume, found: Sequence[tuple[Finding, str]], place: Anchor | None, sight: CoinSight
) -> list[str]:
    """What this node found, with its words for it, and whether the record ends that.

    place: the active chain's block at the height of the record's new anchor; None if there is none, or no rebase.
    """
    lines = []
    for finding, detail in found:
        lines.append(f"{'found, and ended by this' if resume.covers(finding) else 'found, and NOT NAMED'}: {detail}")
    known = [finding for finding, _ in found]
    lines += [f"not found: {describe_finding(item)}" for item in resume.findings if item not in known]
    if resume.rebase is not None:
        new = resume.rebase.new_anchor
        depth = f"on the active chain, {sight.depth(new)} deep"
        lines.append(f"L1 block {block_text(new)}: {depth if place == new else 'NOT on the active chain'}")
    return lines


def _booking_lines(deficit: Deficit, earlier: Sequence[Deficit], ledger: LedgerView) -> list[str]:
    """What the ledger books. Raises Rejected."""
    before = Ledger(ledger)
    for item in earlier:
        book_losses(before, item)
    after = Ledger(before)
    book_losses(after, deficit)
    old, new = before.totals, after.totals
    terms = {"supply": new.supply_sats, "unsettled": new.unsettled_sats, "fund": new.fund_sats}
    owed = ", ".join(f"{name} {sats_text(value_sats)}" for name, value_sats in terms.items())
    lines = [
        f"reserves: {sats_text(old.reserves_sats)}, then {sats_text(new.reserves_sats)}",
        f"deficit: {sats_text(old.deficit_sats)}, then {sats_text(new.deficit_sats)}",
        f"together as before what is owed: {owed}",
    ]
    for number, lineage in before.open_lineages.items():
        lines += _lineage_lines(lineage, after.open_lineages.get(number))
    return lines


def _cause(outpoint: OutPoint, fate: Fate) -> str:
    if fate.outpoint is None or fate.spender is None:
        return f"a coinbase, whose place L1 block {block_text(fate.block)} has taken"
    what = "it" if fate.outpoint == outpoint else f"what it came from ({fate.outpoint})"
    return f"{hash_to_hex(fate.spender)} in L1 block {block_text(fate.block)} spent {what}"


def _settlement_lines(coin: Coin, fate: Fate | None, ledger: LedgerView) -> list[str]:
    """What it means for withdrawals that a coin is lost which was the change of a batch that the ledger settled."""
    number = ledger.versions.get(coin.outpoint.txid)
    lineage = None if number is None else ledger.closed_lineages.get(number)
    if lineage is None or not lineage.payees:
        return []
    if fate is not None and fate.spender in {version.txid for version in lineage.versions}:
        return [f"batch {number}, whose change it was, is paid all the same: L1 has another version of it"]
    closed = [ledger.closed_withdrawals.get(burn) for burn in lineage.payees]
    owed_sats = sum(withdrawal.value_sats for withdrawal in closed if withdrawal is not None)
    owed = f"{count_text(len(lineage.payees), 'withdrawal')}, {sats_text(owed_sats)}"
    return [f"batch {number}, whose change it was, can't be paid any more: {owed}, settled in the ledger and NOT PAID"]


def _lineage_lines(before: Lineage, after: Lineage | None) -> list[str]:
    if after is None:
        owed = f", and what it was to pay, {count_text(len(before.payees), 'withdrawal')}, waits for another one"
        return [f"batch {before.number} is closed{owed if before.payees else ''}"]
    dead = len(before.versions) - len(after.versions)
    return [f"batch {before.number} keeps {len(after.versions)} of its {len(before.versions)} versions"] if dead else []
