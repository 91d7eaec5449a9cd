"""Transactions that wait for a block: bounded, without conflicts, in the order in which they came.

An entry stays until the block that holds it is final, so a notarized block that is given up loses nothing. What an
entry spends is either an output of the chain or of an entry before it, hence arrival order is an order of dependency.

The burns that wait fit the withdrawal window together. What does not fit could wait for a day, and blocks are filled in
order of arrival: a block's worth of such burns would keep every other transaction out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bridge.bitcoin.amounts import fee_sats
from bridge.bitcoin.identifiers import OutPoint, Txid
from bridge.bitcoin.script import dust_limit_sats
from bridge.bitcoin.transaction import Transaction
from bridge.errors import Reason, Rejected
from bridge.withdrawals import window_room_sats
from pegnode.chain.parameters import ChainRules
from pegnode.chain.state import AppliedTransaction, ChainView, Utxo
from pegnode.chain.transactions import (
    BlockContext,
    TransactionEffect,
    UtxoSource,
    check_all_but_scripts,
    check_scripts,
    is_spendable,
    parse_transaction,
)


class PoolReason(Reason):
    """Why the pool refuses a transaction that a block could hold. Raised in bridge's Rejected."""

    ALREADY_WAITING = "pool-already-waiting"  # The transaction waits already.
    CONFLICT = "pool-conflict"  # A waiting transaction spends one of its inputs.
    FULL = "pool-full"  # No room for more transactions.
    LONG_CHAIN = "pool-long-chain"  # It descends from too many waiting transactions.
    FEERATE = "pool-feerate"  # The fee is below this node's least feerate.
    DUST = "pool-dust"  # An output holds less than it would cost to spend.
    OVER_WINDOW = "pool-over-window"  # The withdrawal window has no room for it beside the burns that wait.
    RESERVE_SCRIPT = "pool-reserve-script"  # An output pays a script of the L1 reserve, which nobody can spend here.


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """A node's own policy, no part of validity.

    max_bytes, max_count: of all that waits.  max_chain: a transaction and the waiting ones it descends from.
    min_feerate_sat_kvb: least fee for 1,000 virtual bytes.  expiry_ms: how long a transaction may wait.
    """

    max_bytes: int = 20_000_000
    max_count: int = 20_000
    max_chain: int = 25
    min_feerate_sat_kvb: int = 100
    expiry_ms: int = 14 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class WaitingTransaction:
    """One entry. effect: what it spends, burns and pays.  arrived_ms: what the clock said when it came."""

    transaction: Transaction
    effect: TransactionEffect
    arrived_ms: int

    @property
    def fee_sats(self) -> int:
        """What it pays, in satoshis."""
        return self.effect.fee_sats

    @property
    def burned_sats(self) -> int:
        """What it takes of the withdrawal window."""
        return sum(value_sats for _, _, value_sats in self.effect.burns)

    @property
    def size_bytes(self) -> int:
        """Length with witness."""
        return len(self.transaction.serialize())


class Mempool:
    """Transactions valid on top of the newest state and of one another."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._entries: dict[Txid, WaitingTransaction] = {}
        self._spenders: dict[OutPoint, Txid] = {}
        self._size_bytes = 0
        self._burned_sats = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, txid: Txid) -> bool:
        return txid in self._entries

    def get(self, txid: Txid) -> WaitingTransaction | None:
        """The entry of `txid`, if it waits."""
        return self._entries.get(txid)

    @property
    def size_bytes(self) -> int:
        """Of all that waits."""
        return self._size_bytes

    def entries(self) -> list[WaitingTransaction]:
        """All that waits, oldest first, so that a transaction stands after those it spends from."""
        return list(self._entries.values())

    def spender(self, outpoint: OutPoint) -> Txid | None:
        """The waiting transaction that spends `outpoint`, if there is one."""
        return self._spenders.get(outpoint)

    def add(self, data: bytes, view: ChainView, rules: ChainRules, now_ms: int) -> Txid:
        """Let the transaction of these bytes wait; raises Rejected and leaves the pool as it was.

        view: the newest state.  now_ms: the clock, milliseconds since 1970.
        """
        entry = self.check(data, view, rules, now_ms)
        txid = entry.transaction.txid
        self._entries[txid] = entry
        self._size_bytes += entry.size_bytes
        self._burned_sats += entry.burned_sats
        for txin in entry.transaction.inputs:
            self._spenders[txin.outpoint] = txid
        return txid

    def check(self, data: bytes, view: ChainView, rules: ChainRules, now_ms: int) -> WaitingTransaction:
        """The entry that `add` would make; the pool stays as it is. Raises Rejected. Scripts are run last."""
        transaction = parse_transaction(data)
        self._check_place(transaction)
        context = BlockContext(view.tip.header.height + 1, max(now_ms, view.tip.header.time_ms + 1))
        utxos = _PoolUtxos(view.utxos, self._entries, context)
        effect = check_all_but_scripts(transaction, utxos, view.ledger, context, rules)
        entry = WaitingTransaction(transaction, effect, now_ms)
        self._check_policy(transaction, effect, rules)
        self._check_window(entry, view, rules)
        check_scripts(transaction, effect)
        return entry

    def select(self, view: ChainView, max_bytes: int) -> list[Transaction]:
        """The oldest entries that a block on top of `view` could hold, of together at most `max_bytes`.

        An entry that `view` already holds, or whose inputs it lacks, is passed over and goes on waiting.
        """
        chosen: dict[Txid, WaitingTransaction] = {}
        size_bytes = 0
        for entry in self._available(view):
            size_bytes += entry.size_bytes
            if size_bytes > max_bytes:
                break
            chosen[entry.transaction.txid] = entry
        return [entry.transaction for entry in chosen.values()]

    def remove_applied(self, transactions: Sequence[AppliedTransaction]) -> list[Txid]:
        """Forget what a final block holds, and whatever conflicts with it; returns the latter, for the log."""
        for applied in transactions:
            self._remove(applied.transaction.txid)
        spent = (outpoint for applied in transactions for outpoint, _ in applied.spent)
        return self.drop([self._spenders[outpoint] for outpoint in spent if outpoint in self._spenders])

    def drop(self, txids: Iterable[Txid]) -> list[Txid]:
        """Forget these and all that descend from them; returns what was forgotten."""
        dropped: list[Txid] = []
        pending = list(txids)
        while pending:
            txid = pending.pop()
            entry = self._remove(txid)
            if entry is None:
                continue
            dropped.append(txid)
            outpoints = (entry.transaction.outpoint(vout) for vout in range(len(entry.transaction.outputs)))
            pending += [self._spenders[outpoint] for outpoint in outpoints if outpoint in self._spenders]
        return dropped

    def recheck(self, view: ChainView, rules: ChainRules) -> list[Txid]:
        """Drop the newest burns for which those of final blocks left no room; returns what was dropped.

        view: the newest final state. What spends an output that is gone was dropped with the block that spent it.
        """
        room_sats = window_room_sats(view.ledger, rules.params)
        if self._burned_sats <= room_sats:
            return []
        over: list[Txid] = []
        for txid, entry in self._entries.items():
            if entry.burned_sats <= room_sats:
                room_sats -= entry.burned_sats
            else:
                over.append(txid)
        return self.drop(over)

    def expire(self, now_ms: int) -> list[Txid]:
        """Drop what has waited longer than the limit, and what descends from it; returns what was dropped."""
        oldest_ms = now_ms - self._limits.expiry_ms
        return self.drop([txid for txid, entry in self._entries.items() if entry.arrived_ms < oldest_ms])

    def _available(self, view: ChainView) -> Iterator[WaitingTransaction]:
        """The entries whose inputs are outputs of `view` or of an available entry, oldest first."""
        available: set[Txid] = set()
        for txid, entry in self._entries.items():
            if all(txin.outpoint.txid in available or txin.outpoint in view.utxos for txin in entry.transaction.inputs):
                available.add(txid)
                yield entry

    def _remove(self, txid: Txid) -> WaitingTransaction | None:
        entry = self._entries.pop(txid, None)
        if entry is not None:
            self._size_bytes -= entry.size_bytes
            self._burned_sats -= entry.burned_sats
            for txin in entry.transaction.inputs:
                del self._spenders[txin.outpoint]
        return entry

    def _check_place(self, transaction: Transaction) -> None:
        """Whether there is room for it among the others."""
        if transaction.txid in self._entries:
            raise Rejected(PoolReason.ALREADY_WAITING)
        for index, txin in enumerate(transaction.inputs):
            if txin.outpoint in self._spenders:
                raise Rejected(PoolReason.CONFLICT, f"input {index}: a waiting transaction spends {txin.outpoint}")
        size_bytes = self._size_bytes + len(transaction.serialize())
        if len(self._entries) >= self._limits.max_count or size_bytes > self._limits.max_bytes:
            raise Rejected(PoolReason.FULL, f"{len(self._entries)} transactions of {self._size_bytes} bytes wait")
        if self._exceeds_chain(transaction):
            raise Rejected(PoolReason.LONG_CHAIN, f"more than {self._limits.max_chain - 1} waiting ancestors")

    def _exceeds_chain(self, transaction: Transaction) -> bool:
        ancestors: set[Txid] = set()
        pending = [transaction]
        while pending:
            parents = {txin.outpoint.txid for txin in pending.pop().inputs} & self._entries.keys()
            pending += [self._entries[txid].transaction for txid in parents - ancestors]
            ancestors |= parents
            if len(ancestors) >= self._limits.max_chain:
                return True
        return False

    def _check_window(self, entry: WaitingTransaction, view: ChainView, rules: ChainRules) -> None:
        room_sats = window_room_sats(view.ledger, rules.params) - self._burned_sats
        if entry.burned_sats > max(0, room_sats):
            raise Rejected(PoolReason.OVER_WINDOW, f"{entry.burned_sats} sats, room for {max(0, room_sats)}")

    def _check_policy(self, transaction: Transaction, effect: TransactionEffect, rules: ChainRules) -> None:
        least_sats = fee_sats(transaction.vsize_vbytes, self._limits.min_feerate_sat_kvb)
        if effect.fee_sats < least_sats:
            raise Rejected(PoolReason.FEERATE, f"{effect.fee_sats} sats, at least {least_sats}")
        for index, output in enumerate(transaction.outputs):
            if output.value_sats < dust_limit_sats(output.script):
                raise Rejected(PoolReason.DUST, f"output {index}: {output.value_sats} sats")
            if rules.custody.is_reserve_script(output.script):
                raise Rejected(PoolReason.RESERVE_SCRIPT, f"output {index}: a script of the L1 reserve")


class _PoolUtxos:
    """The outputs of a state, and those of waiting transactions as if the next block made them."""

    def __init__(self, chain: UtxoSource, entries: Mapping[Txid, WaitingTransaction], context: BlockContext) -> None:
        self._chain = chain
        self._entries = entries
        self._context = context

    def get(self, outpoint: OutPoint, /) -> Utxo | None:
        utxo = self._chain.get(outpoint)
        entry = self._entries.get(outpoint.txid)
        if utxo is not None or entry is None or outpoint.vout >= len(entry.transaction.outputs):
            return utxo
        output = entry.transaction.outputs[outpoint.vout]
        if not is_spendable(output):
            return None
        return Utxo(output.value_sats, output.script, self._context.height, self._context.time_ms)
