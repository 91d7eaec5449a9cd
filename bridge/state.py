"""The values of the peg ledger: coins, withdrawals, batches and the totals, each with one canonical encoding.

Money is in satoshis, ages are counted in L1 anchor heights. Every value is immutable; a transition replaces it.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from bridge.bitcoin.hashes import tagged_hash
from bridge.bitcoin.identifiers import HASH_SIZE, OUTPOINT_SIZE, BlockHash, OutPoint, Script, Txid
from bridge.codec import Encoded, Reader, Writer
from bridge.custody import CoinKind
from bridge.errors import MalformedError, Reason, Rejected

MAX_SCRIPT_BYTES = 34
"""The longest of the five script types: P2WSH and P2TR."""
MAX_BATCH_TRANSACTION_BYTES = 100_000
"""Far above an unsigned batch of 50 inputs and 100 payees."""
MAX_LIST_ITEMS = 10_000
"""Bounds a decoded list: a lineage's inputs, payees and versions, the window's anchors. No parameter allows more."""
EMPTY_CHAIN = bytes(HASH_SIZE)
"""What a chained hash starts from: no items."""

V = TypeVar("V")


class LedgerReason(Reason):
    """Why the ledger refuses a transition."""

    EQUALITY = "ledger-equality"  # reserves + deficit would not be supply + unsettled + fund.
    NEGATIVE_TERM = "ledger-negative-term"  # A term of the equality would be negative.
    NEGATIVE_AMOUNT = "ledger-negative-amount"  # A fee or a burn of less than nothing.
    INCONSISTENT = "ledger-inconsistent"  # A lineage names a coin or a withdrawal that the ledger has not.
    CLAIM_FEE = "ledger-claim-fee"  # A claim fee of less than nothing, or of more than the coin.
    REFUND_FEE = "ledger-refund-fee"  # A refund fee of less than nothing, or that leaves nothing of the burn.
    ALREADY_ENTERED = "ledger-already-entered"  # An output that entered before.
    NOT_LOST = "ledger-not-lost"  # A coin to restore that no record booked as lost, or that is restored already.
    COIN_NOT_FREE = "ledger-coin-not-free"  # A coin that is none of the ledger's, or locked.
    BURN_KNOWN = "ledger-burn-known"  # A burn that is recorded already.
    NOT_PENDING = "ledger-not-pending"  # A payee, or a burn to refund, that is no pending withdrawal.
    LINEAGE_OPEN = "ledger-lineage-open"  # A batch while one of its kind is open.
    FREE_FUND = "ledger-free-fund"  # More of the fund than is free.
    UNKNOWN_VERSION = "ledger-unknown-version"  # A settlement by, or a replacement of, no recorded version.
    ALREADY_SETTLED = "ledger-already-settled"  # A settlement, or a replacement, of a lineage that is closed.
    NOT_NEWEST = "ledger-not-newest"  # A replacement of another version than the newest of its kind.
    TOO_MANY_VERSIONS = "ledger-too-many-versions"  # A replacement in a lineage that has as many as one may have.
    VERSION_KNOWN = "ledger-version-known"  # A replacement by a transaction that is a recorded version.
    PAYEES_CHANGED = "ledger-payees-changed"  # A replacement that pays others, or in another order.
    INPUT_DROPPED = "ledger-input-dropped"  # A replacement that does not begin with all inputs of its lineage.
    ANCHOR_BACKWARDS = "ledger-anchor-backwards"  # An anchor below the one before.
    ANCHOR_CHANGED = "ledger-anchor-changed"  # Another L1 block at the height of the anchor before.
    ANCHOR_STEP = "ledger-anchor-step"  # An anchor more than `max_anchor_step` above the one before.


def chain_hash(tag: str, previous: bytes, item: bytes) -> bytes:
    """One more item on a chained commitment, 32 bytes: the tagged hash of the chain so far (32 bytes), then the item.

    Tags are the item's own; chains start from `EMPTY_CHAIN`.
    """
    return tagged_hash(tag, previous + item)


@dataclass(frozen=True, slots=True)
class Anchor(Encoded):
    """The newest L1 block that the sidechain refers to. height: u32; hash: 32 bytes, internal order."""

    height: int
    hash: BlockHash

    def write(self, writer: Writer) -> None:
        """Append 36 bytes: height, hash."""
        writer.u32(self.height).fixed(self.hash, HASH_SIZE)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.u32(), BlockHash(reader.take(HASH_SIZE)))


@dataclass(frozen=True, slots=True)
class Coin(Encoded):
    """An L1 output that the reserve owns.

    kind, epoch and claim_script name its reserve script; claim_script is empty unless the script binds one.
    l1_height: the height of its block, u32.  lineage: the open lineage that locks it, or None while it is free.
    """

    outpoint: OutPoint
    value_sats: int
    kind: CoinKind
    epoch: int
    claim_script: bytes
    l1_height: int
    lineage: int | None = None

    def write(self, writer: Writer) -> None:
        """Append outpoint, value u64, kind u8, epoch u32, claim script, L1 height u32, lineage (flag u8, u64)."""
        write_outpoint(writer, self.outpoint).u64(self.value_sats).u8(self.kind)
        writer.u32(self.epoch).variable(self.claim_script).u32(self.l1_height)
        write_optional(writer, self.lineage, Writer.u64)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            outpoint=read_outpoint(reader),
            value_sats=reader.u64(),
            kind=reader.enumeration(CoinKind),
            epoch=reader.u32(),
            claim_script=reader.variable(MAX_SCRIPT_BYTES),
            l1_height=reader.u32(),
            lineage=read_optional(reader, Reader.u64),
        )


class WithdrawalStatus(enum.IntEnum):
    """Where a withdrawal stands, u8. SETTLED and REFUNDED never change."""

    PENDING = 1
    BATCHED = 2
    SETTLED = 3
    REFUNDED = 4


@dataclass(frozen=True, slots=True)
class Withdrawal(Encoded):
    """Value burned here, to be paid on L1.

    burn: the sidechain output that burned it.  number: its age order, u64.  value_sats: what was burned, from which at
    most max_fee_sats is L1 fee.  l1_script: whom to pay on L1.  refund_script: whom to pay here if that can't be.
    burned_at_anchor: the anchor height of its block.  lineage: which pays it, once batched.  payout: the L1 output that
    paid it, once settled.
    """

    burn: OutPoint
    number: int
    value_sats: int
    max_fee_sats: int
    l1_script: Script
    refund_script: Script
    burned_at_anchor: int
    status: WithdrawalStatus = WithdrawalStatus.PENDING
    lineage: int | None = None
    payout: OutPoint | None = None

    def write(self, writer: Writer) -> None:
        """Append burn, number, value and max fee u64, both scripts, anchor height u32, status u8, lineage, payout."""
        write_outpoint(writer, self.burn).u64(self.number).u64(self.value_sats)
        writer.u64(self.max_fee_sats).variable(self.l1_script).variable(self.refund_script)
        writer.u32(self.burned_at_anchor).u8(self.status)
        write_optional(writer, self.lineage, Writer.u64)
        write_optional(writer, self.payout, write_outpoint)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            burn=read_outpoint(reader),
            number=reader.u64(),
            value_sats=reader.u64(),
            max_fee_sats=reader.u64(),
            l1_script=Script(reader.variable(MAX_SCRIPT_BYTES)),
            refund_script=Script(reader.variable(MAX_SCRIPT_BYTES)),
            burned_at_anchor=reader.u32(),
            status=reader.enumeration(WithdrawalStatus),
            lineage=read_optional(reader, Reader.u64),
            payout=read_optional(reader, read_outpoint),
        )


class BatchKind(enum.IntEnum):
    """What a batch is for, u8."""

    PAYOUT = 1
    MAINTENANCE = 2


@dataclass(frozen=True, slots=True)
class BatchVersion(Encoded):
    """One L1 transaction that may settle its lineage.

    transaction: unsigned.  epoch: of its change script.  fee_sats: its whole fee, of which fund_part_sats is the
    fund's.  anchor_height: of the block that recorded it.
    """

    txid: Txid
    transaction: bytes
    feerate_sat_kvb: int
    fee_sats: int
    fund_part_sats: int
    epoch: int
    anchor_height: int

    def write(self, writer: Writer) -> None:
        """Append txid, transaction, feerate u64, fee u64, fund part u64, epoch u32, anchor height u32."""
        writer.fixed(self.txid, HASH_SIZE).variable(self.transaction).u64(self.feerate_sat_kvb).u64(self.fee_sats)
        writer.u64(self.fund_part_sats).u32(self.epoch).u32(self.anchor_height)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            txid=Txid(reader.take(HASH_SIZE)),
            transaction=reader.variable(MAX_BATCH_TRANSACTION_BYTES),
            feerate_sat_kvb=reader.u64(),
            fee_sats=reader.u64(),
            fund_part_sats=reader.u64(),
            epoch=reader.u32(),
            anchor_height=reader.u32(),
        )


@dataclass(frozen=True, slots=True)
class Lineage(Encoded):
    """A batch and its replacements, of which one will settle.

    number: u64.  inputs: every coin that it locks.  payees: the burns it pays, in the order of the first outputs of
    each version.  reserved_fund_sats: the largest fund part of its versions.  settled_by: the version that L1 confirmed
    in its block at settled_l1_height; None while the lineage is open, and for ever if all its versions died.
    """

    number: int
    kind: BatchKind
    inputs: tuple[OutPoint, ...]
    payees: tuple[OutPoint, ...]
    versions: tuple[BatchVersion, ...]
    reserved_fund_sats: int
    settled_by: Txid | None = None
    settled_l1_height: int | None = None

    def write(self, writer: Writer) -> None:
        """Append number u64, kind u8, inputs, payees, versions, reserved fund u64, settling txid, its L1 height u32."""
        writer.u64(self.number).u8(self.kind)
        writer.sequence(self.inputs, write_outpoint).sequence(self.payees, write_outpoint)
        writer.sequence(self.versions, lambda to, version: version.write(to)).u64(self.reserved_fund_sats)
        write_optional(writer, self.settled_by, lambda to, txid: to.fixed(txid, HASH_SIZE))
        write_optional(writer, self.settled_l1_height, Writer.u32)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            number=reader.u64(),
            kind=reader.enumeration(BatchKind),
            inputs=reader.sequence(MAX_LIST_ITEMS, read_outpoint),
            payees=reader.sequence(MAX_LIST_ITEMS, read_outpoint),
            versions=reader.sequence(MAX_LIST_ITEMS, BatchVersion.read),
            reserved_fund_sats=reader.u64(),
            settled_by=read_optional(reader, lambda source: Txid(source.take(HASH_SIZE))),
            settled_l1_height=read_optional(reader, Reader.u32),
        )


@dataclass(frozen=True, slots=True)
class WindowEntry(Encoded):
    """What was burned in blocks of one anchor. anchor_height: u32."""

    anchor_height: int
    burned_sats: int

    def write(self, writer: Writer) -> None:
        """Append 12 bytes: anchor height u32, burned u64."""
        writer.u32(self.anchor_height).u64(self.burned_sats)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(reader.u32(), reader.u64())


@dataclass(frozen=True, slots=True)
class Totals(Encoded):
    """The five terms of the equality, and everything else of the ledger that is one value.

    withdrawal_window: what was burned lately, one entry for each anchor height, ascending.  record_serial: u64, of the
    last quorum-signed record.  entered_chain, closed_chain, utxo_chain: chained hashes, 32 bytes, of the outpoints that
    entered, of the withdrawals and lineages that closed, and of the changes to the UTXO set.
    """

    anchor: Anchor
    reserves_sats: int = 0
    deficit_sats: int = 0
    supply_sats: int = 0
    unsettled_sats: int = 0
    fund_sats: int = 0
    next_withdrawal: int = 0
    next_lineage: int = 0
    record_serial: int = 0
    withdrawal_window: tuple[WindowEntry, ...] = ()
    entered_chain: bytes = EMPTY_CHAIN
    closed_chain: bytes = EMPTY_CHAIN
    utxo_chain: bytes = EMPTY_CHAIN

    def require_equality(self) -> None:
        """Raise Rejected(LedgerReason) unless every term is ≥ 0 and reserves + deficit == supply + unsettled + fund."""
        terms = (self.reserves_sats, self.deficit_sats, self.supply_sats, self.unsettled_sats, self.fund_sats)
        text = "reserves {} + deficit {} == supply {} + unsettled {} + fund {}".format(*terms)
        if min(terms) < 0:
            raise Rejected(LedgerReason.NEGATIVE_TERM, text)
        if self.reserves_sats + self.deficit_sats != self.supply_sats + self.unsettled_sats + self.fund_sats:
            raise Rejected(LedgerReason.EQUALITY, text)

    def plus(
        self,
        *,
        reserves_sats: int = 0,
        deficit_sats: int = 0,
        supply_sats: int = 0,
        unsettled_sats: int = 0,
        fund_sats: int = 0,
    ) -> "Totals":
        """The totals with these changes added to the five terms; not yet checked."""
        return replace(
            self,
            reserves_sats=self.reserves_sats + reserves_sats,
            deficit_sats=self.deficit_sats + deficit_sats,
            supply_sats=self.supply_sats + supply_sats,
            unsettled_sats=self.unsettled_sats + unsettled_sats,
            fund_sats=self.fund_sats + fund_sats,
        )

    def write(self, writer: Writer) -> None:
        """Append anchor, the five terms u64 each, three counters u64 each, window, three chains."""
        self.anchor.write(writer)
        writer.u64(self.reserves_sats).u64(self.deficit_sats).u64(self.supply_sats).u64(self.unsettled_sats)
        writer.u64(self.fund_sats).u64(self.next_withdrawal).u64(self.next_lineage).u64(self.record_serial)
        writer.sequence(self.withdrawal_window, lambda to, entry: entry.write(to))
        writer.fixed(self.entered_chain, HASH_SIZE).fixed(self.closed_chain, HASH_SIZE)
        writer.fixed(self.utxo_chain, HASH_SIZE)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        return cls(
            anchor=Anchor.read(reader),
            reserves_sats=reader.u64(),
            deficit_sats=reader.u64(),
            supply_sats=reader.u64(),
            unsettled_sats=reader.u64(),
            fund_sats=reader.u64(),
            next_withdrawal=reader.u64(),
            next_lineage=reader.u64(),
            record_serial=reader.u64(),
            withdrawal_window=reader.sequence(MAX_LIST_ITEMS, WindowEntry.read),
            entered_chain=reader.take(HASH_SIZE),
            closed_chain=reader.take(HASH_SIZE),
            utxo_chain=reader.take(HASH_SIZE),
        )


def write_outpoint(writer: Writer, outpoint: OutPoint) -> Writer:
    """Append 36 bytes."""
    return writer.fixed(outpoint.encode(), OUTPOINT_SIZE)


def read_outpoint(reader: Reader) -> OutPoint:
    """Take 36 bytes."""
    return OutPoint.decode(reader.take(OUTPOINT_SIZE))


def write_optional(writer: Writer, value: V | None, write: Callable[[Writer, V], object]) -> None:
    """Append a flag byte, then the value if there is one."""
    writer.u8(value is not None)
    if value is not None:
        write(writer, value)


def read_optional(reader: Reader, read: Callable[[Reader], V]) -> V | None:
    """Take a flag byte of 0 or 1, then the value if there is one."""
    flag = reader.u8()
    if flag > 1:
        raise MalformedError(f"a flag of {flag}")
    return read(reader) if flag else None
