"""The states of a deposit, and why one is not claimed by hand.

The names are stable: `peg deposit list`, the RPC and monitors use them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.errors import Reason
from pegnode.errors import Refusal

MAX_LISTED_ADDRESSES: Final = 1_000
"""Claim addresses that one question may name."""


class DepositStatus(StrEnum):
    """A closed list: every payment to a deposit address is in one of these, the first that applies in this order.

    meaning: what is the case, in one line.  next_step: what happens next and when, with the names of `DepositInfo`'s
    numbers in braces.  is_final: whether nothing more will happen to it, unless L1 takes back what it said.
    """

    meaning: str
    next_step: str
    is_final: bool

    def __new__(cls, name: str, meaning: str, next_step: str, is_final: bool) -> Self:
        """Make the member `name`."""
        status = str.__new__(cls, name)
        status._value_ = name
        status.meaning, status.next_step, status.is_final = meaning, next_step, is_final
        return status

    CLAIMED = (
        "claimed",
        "credited on the sidechain, less the claim fee",
        "nothing: it was credited in block {claim_height} of the sidechain",
        True,
    )
    VANISHED = (
        "vanished",
        "it was in the mempool or in a block, and is in neither any more: replaced, evicted, or spent elsewhere",
        "nothing, unless L1 has it again; what replaces it and pays here too is listed by itself",
        True,
    )
    BELOW_FLOOR = (
        "below-floor",
        "worth less than it would cost the federation to spend it",
        "nothing: it never enters the ledger, and nobody can pay it back",
        True,
    )
    UNCONFIRMED = (
        "unconfirmed",
        "in the mempool of the node's Bitcoin node, and in no block",
        "it has to get {confirmations_needed} deep, in {blocks_left} blocks at least; its sender may raise its fee",
        False,
    )
    DONATED = (
        "donated",
        "below the minimum of a deposit, and taken into the federation's fund",
        "nothing: it is a gift, and credits nobody",
        True,
    )
    SPENT = (
        "spent",
        "the output was spent on L1 before it was claimed, as the recovery keys may do with an old one",
        "nothing: it can't be credited any more; ask who holds the recovery keys",
        True,
    )
    TOO_OLD = (
        "too-old",
        "not claimed in time: half of the wait has passed after which the recovery keys can spend it",
        "nothing: it can't be credited any more; who holds the recovery keys can pay it back in time, so ask them",
        True,
    )
    BELOW_MINIMUM = (
        "below-minimum",
        "below the minimum of a deposit",
        "it will credit nobody; {confirmations_needed} deep, in {blocks_left} blocks at least, it may go to the fund",
        False,
    )
    IMMATURE = (
        "immature",
        "paid by a coinbase, which L1 may take back more easily",
        "with anchor {anchor_height}, {blocks_left} blocks from now, it can be credited",
        False,
    )
    CONFIRMING = (
        "confirming",
        "{confirmations} of {confirmations_needed} confirmations",
        "with anchor {anchor_height}, {blocks_left} blocks from now, it can be credited",
        False,
    )
    UNPROVABLE = (
        "unprovable",
        "no proof of it was taken here: {detail}",
        "tried again with every L1 block, and by other members with their own Bitcoin nodes",
        False,
    )
    OVER_CAP = (
        "over-cap",
        "the peg would hold more than it may, with this deposit",
        "it is credited if enough is withdrawn before it is too old; until then it is on L1 and counts for nobody",
        False,
    )
    UNWATCHED = (
        "unwatched",
        "deep enough, and the node was not told to look for deposits to this address",
        "claim it by hand: peg deposit claim; or register the address, as peg deposit list does",
        False,
    )
    AWAITING_ANCHOR = (
        "awaiting-anchor",
        "deep enough here; the sidechain has yet to refer to its L1 block",
        "it can be credited with anchor {anchor_height}, as soon as a quorum's Bitcoin nodes have come as far",
        False,
    )
    QUEUED = (
        "queued",
        "deep enough and proven, and the next block is full: {openings_before} outputs come first",
        "in one of the blocks after that, at most {openings_per_block} outputs each",
        False,
    )
    CLAIMABLE = (
        "claimable",
        "deep enough, and looked for",
        "in the next block, or one of the next; if it stays so, claim it by hand: peg deposit claim",
        False,
    )


@dataclass(frozen=True, slots=True)
class DepositInfo:
    """One L1 output that pays a deposit address."""

    outpoint: OutPoint
    """On L1."""
    claim_script: Script
    value_sats: int
    l1_height: int | None
    """None while no block holds it, or when that is long past."""
    confirmations: int
    confirmations_needed: int
    status: DepositStatus
    claim_txid: Txid | None
    """The sidechain transaction that credits it, known from the start; None for what credits nobody."""
    claim_height: int | None = None
    """The sidechain's block that credited it."""
    anchor_height: int | None = None
    """The L1 block to which the sidechain must refer before it can enter; None where none is known or none will do."""
    blocks_left: int | None = None
    """L1 blocks, at least, until it is deep enough; 0 when it is; None when that is past or won't come."""
    openings_before: int | None = None
    """Outputs that are proven and come before it; None unless it is proven and waits."""
    openings_per_block: int = 0
    """How many a block takes at most."""
    detail: str = ""
    """For people."""

    @property
    def meaning(self) -> str:
        """What is the case, in words."""
        return self._filled(self.status.meaning)

    @property
    def next_step(self) -> str:
        """What happens next and when, in words."""
        return self._filled(self.status.next_step)

    def _filled(self, text: str) -> str:
        numbers = {
            "confirmations": self.confirmations,
            "confirmations_needed": self.confirmations_needed,
            "claim_height": self.claim_height,
            "anchor_height": self.anchor_height,
            "blocks_left": self.blocks_left,
            "openings_before": self.openings_before,
            "openings_per_block": self.openings_per_block,
            "detail": self.detail,
        }
        return text.format_map(numbers)


class ClaimReason(Reason):
    """Why a deposit can't be claimed by hand now."""

    TRANSACTION_UNKNOWN = "claim-transaction-unknown"  # No L1 block that the node knows holds the transaction.
    NOT_INDEXED = "claim-not-indexed"
    """The transaction is in none of the latest L1 blocks, and the Bitcoin node has no index to look further."""
    BLOCK_UNKNOWN = "claim-block-unknown"  # The L1 block that was named is not on the Bitcoin node's active chain.
    BLOCK_ABSENT = "claim-block-absent"  # The Bitcoin node has deleted that L1 block, or never had it.
    NO_SUCH_OUTPUT = "claim-no-such-output"  # The transaction has no such output.
    WRONG_SCRIPT = "claim-wrong-script"  # No output pays a deposit address of that claim script.
    ALREADY_ENTERED = "claim-already-entered"  # The deposit is claimed already.
    BELOW_MINIMUM = "claim-below-minimum"  # The output holds less than a deposit must.
    SPENT = "claim-spent"  # The output is spent on L1.
    TOO_OLD = "claim-too-old"
    """Half of the wait has passed after which the recovery keys can spend the output: it is not credited any more."""
    TOO_FEW_CONFIRMATIONS = "claim-too-few-confirmations"  # The deposit is not deep enough yet.


class ClaimRefused(Refusal):
    """A deposit that can't be claimed now. reason: ClaimReason; the detail says what is missing."""
