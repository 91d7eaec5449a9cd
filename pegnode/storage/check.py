"""Everything in a store, checked against what its blocks say: the work of `peg db check`.

Theory of operation. The store is read only, through links. Its blocks are carried out again from the genesis, by the
rules that every node applies, into a store of their own elsewhere; each certificate is checked on the way. Then both
stores are compared, family by family and byte by byte: unspent outputs, ledger, indexes and all else that follows from
the blocks. What does not follow from them (addresses handed out, signed payouts, halts) is checked for its form.

What L1 says is not asked again: the anchor's place and the count of transactions in an L1 block are taken from the
certified blocks. `peg audit` compares the result with a Bitcoin node.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final, Protocol

from bridge.bitcoin.identifiers import Txid
from bridge.bitcoin.script import classify
from bridge.bitcoin.transaction import Transaction
from bridge.errors import MalformedError, Reason, Rejected
from bridge.evidence import HEADER_SIZE as L1_HEADER_SIZE
from bridge.evidence import L1BlockFact
from federation.certificate import Certificate, VoteKind, VoteRejected, verify_certificate
from federation.equivocation import Equivocation, verify_equivocation
from federation.errors import Refused
from pegnode.chain.block import Block
from pegnode.chain.facts import AnchorStatus, L1Facts
from pegnode.chain.parameters import ChainRules
from pegnode.chain.rules import apply_block
from pegnode.chain.state import ChainView
from pegnode.chain.verdicts import BlockRejected
from pegnode.errors import ReasonedError
from pegnode.halts import LatchedFinding, active_findings
from pegnode.storage.database import Database
from pegnode.storage.keys import HEIGHT_SIZE, equivocation_key, height_from_key, height_key
from pegnode.storage.store import (
    BLOCKS,
    CERTIFICATES,
    DEPOSIT_SCRIPTS,
    EQUIVOCATIONS,
    FAMILIES,
    HALTS,
    SIGNED_PAYOUTS,
    ChainStore,
    FinalBlock,
    look_at_database,
)

OWN_FAMILIES: Final = (DEPOSIT_SCRIPTS, SIGNED_PAYOUTS, HALTS, EQUIVOCATIONS)
"""What a node remembers that does not follow from the blocks."""
COMMITTED_TOGETHER: Final = 16
"""Blocks that are written to the second store at once: more would make every look-up pass more overlays."""
_COUNT_SIZE: Final = 4


class CheckReason(Reason):
    """What is wrong in a store, or in a journal beside it."""

    BLOCK = "check-wrong-block"
    """A block is missing, garbled, or breaks a rule."""
    CERTIFICATE = "check-wrong-certificate"
    """A certificate is garbled or not genuine, or the last block has none."""
    STATE = "check-wrong-state"
    """An entry of the state or of an index is not the one to which the blocks lead."""
    NODE_DATA = "check-wrong-node-data"
    """An entry that does not follow from the blocks has not the form that it must have."""
    JOURNAL = "check-wrong-journal"
    """An entry of the journal is not genuine, or contradicts another one or the chain."""


class WrongRecord(ReasonedError):  # noqa: N818 -- a finding
    """The first thing that is wrong. record: which entry.  detail: what it is, and what is wrong with it."""

    def __init__(self, reason: CheckReason, record: str, what: str) -> None:
        super().__init__(reason, f"{record}: {what}")
        self.record = record
        self.what = what


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What was checked and found well.

    block_hash, ledger_root: 32 bytes.  entries: all that were compared.  halts: why the node is halted, if it is.
    """

    height: int
    block_hash: bytes
    ledger_root: bytes
    transactions: int
    certificates: int
    entries: int
    halts: tuple[LatchedFinding, ...]


Progress = Callable[[str, int, int], None]
"""Told of what is done, how much of it, and of how much."""


class BlockSource(Protocol):
    """Where blocks come from that are carried out again."""

    def block(self, height: int) -> bytes | None:
        """The encoded block at a height, or None."""

    def certificate(self, height: int) -> bytes | None:
        """The certificate of its own that it has, or None."""


@dataclass(frozen=True, slots=True)
class _StoredBlocks:
    """The blocks of a store that is read only."""

    database: Database

    def block(self, height: int) -> bytes | None:
        return self.database.get(BLOCKS, height_key(height))

    def certificate(self, height: int) -> bytes | None:
        return self.database.get(CERTIFICATES, height_key(height))


@dataclass(slots=True)
class Counts:
    """What was checked on the way."""

    transactions: int = 0
    certificates: int = 0
    entries: int = 0


def check_chain(path: Path, rules: ChainRules, scratch: Path, progress: Progress) -> ChainReport:
    """Check the store at `path`, which nobody may write meanwhile. scratch: an empty directory for as much data again.

    Raises WrongRecord for the first thing that is wrong, StorageError when the store can't be read.
    """
    counts = Counts()
    with closing(look_at_database(path, rules)) as stored:
        with closing(ChainStore.open(scratch / "chain", rules)) as rebuilt:
            last_height = max((height_from_key(key) for key, _ in stored.scan(BLOCKS)), default=0)
            carry_out(_StoredBlocks(stored), last_height, rebuilt, rules, counts, progress)
            tip = rebuilt.tip
            _check_signed_payouts(stored, rebuilt)
            records = (signed.record for signed in rebuilt.records())
            halts = active_findings(
                _halts(stored), records, lambda block_hash: rebuilt.height_of(block_hash) is not None
            )
        with closing(Database.look(scratch / "chain", FAMILIES)) as wanted:
            derived = [family for family in FAMILIES if family not in OWN_FAMILIES]
            for number, family in enumerate(derived):
                progress("comparing", number, len(derived))
                counts.entries += _compare(family, stored, wanted)
        _check_deposit_scripts(stored)
        _check_equivocations(stored, rules)
    return ChainReport(
        height=tip.header.height,
        block_hash=tip.hash,
        ledger_root=tip.header.ledger_root,
        transactions=counts.transactions,
        certificates=counts.certificates,
        entries=counts.entries,
        halts=halts,
    )


def carry_out(
    source: BlockSource, last_height: int, rebuilt: ChainStore, rules: ChainRules, counts: Counts, progress: Progress
) -> None:
    """Make every block up to `last_height` final in `rebuilt`, an empty store, a few at a time. Raises WrongRecord."""
    waiting: list[FinalBlock] = []
    parent: ChainView = rebuilt
    for height in range(1, last_height + 1):
        progress("blocks", height, last_height)
        final = _carried_out(source, parent, height, rules)
        counts.transactions += len(final.state.transactions)
        counts.certificates += final.certificate is not None
        waiting.append(final)
        parent = final.state
        if final.certificate is not None and len(waiting) >= COMMITTED_TOGETHER:
            rebuilt.commit(waiting)
            waiting, parent = [], rebuilt
    if waiting and waiting[-1].certificate is None:
        raise WrongRecord(CheckReason.CERTIFICATE, f"the certificate of block {last_height}", "it is missing")
    rebuilt.commit(waiting)


def _carried_out(source: BlockSource, parent: ChainView, height: int, rules: ChainRules) -> FinalBlock:
    """One block with the state after it, by all rules. Raises WrongRecord."""
    data = source.block(height)
    if data is None:
        raise WrongRecord(CheckReason.BLOCK, f"block {height}", "it is missing")
    try:
        block = Block.decode(data)
        state = apply_block(parent, block, _facts_of(block), rules)
    except (MalformedError, BlockRejected) as error:
        raise WrongRecord(CheckReason.BLOCK, f"block {height}", str(error)) from error
    certificate = source.certificate(height)
    if certificate is not None:
        try:
            _check_certificate(certificate, block, rules)
        except (MalformedError, VoteRejected) as error:
            raise WrongRecord(CheckReason.CERTIFICATE, f"the certificate of block {height}", str(error)) from error
    return FinalBlock(state, data, certificate)


def _check_certificate(data: bytes, block: Block, rules: ChainRules) -> None:
    """Raise MalformedError or VoteRejected unless a quorum finalized the block."""
    certificate = Certificate.decode(data)
    verify_certificate(certificate, rules.membership, rules.chain_id)
    if (certificate.kind, certificate.block_hash) != (VoteKind.FINALIZE, block.hash):
        raise MalformedError("it does not finalize this block")


def _facts_of(block: Block) -> L1Facts:
    """What L1 said, as the members who certified the block found it."""
    facts = {}
    for evidence in block.body.evidence:
        count = evidence.proof[L1_HEADER_SIZE : L1_HEADER_SIZE + _COUNT_SIZE]
        facts[evidence.l1_block_hash] = L1BlockFact(evidence.l1_height, int.from_bytes(count, "little"))
    return L1Facts(AnchorStatus.ON_CHAIN, facts)


def _compare(family: str, stored: Database, wanted: Database) -> int:
    """How many entries a family has, which are the wanted ones. Raises WrongRecord for the first that differs."""
    count = 0
    for found, right in zip_longest(stored.scan(family), wanted.scan(family)):
        if found != right:
            keys = [item[0] for item in (found, right) if item is not None]
            key = min(keys)
            if found is None or (right is not None and found[0] > key):
                what = "it is missing"
            elif right is None or right[0] > key:
                what = "no block leads to it"
            else:
                what = "it is not what the blocks lead to"
            raise WrongRecord(CheckReason.STATE, f"{family} {key.hex()}", what)
        count += 1
    return count


def _check_signed_payouts(stored: Database, rebuilt: ChainStore) -> None:
    """Each is the transaction of its txid, and a batch that a final block recorded."""
    for key, data in stored.scan(SIGNED_PAYOUTS):
        record = f"{SIGNED_PAYOUTS} {key.hex()}"
        try:
            transaction = Transaction.parse(data)
        except Rejected as error:
            raise WrongRecord(CheckReason.NODE_DATA, record, str(error)) from error
        if transaction.txid != key or Txid(key) not in rebuilt.ledger.versions:
            raise WrongRecord(CheckReason.NODE_DATA, record, "no final block recorded this transaction")


def _check_deposit_scripts(stored: Database) -> None:
    for key, value in stored.scan(DEPOSIT_SCRIPTS):
        if classify(key) is None or len(value) != HEIGHT_SIZE:
            raise WrongRecord(CheckReason.NODE_DATA, f"{DEPOSIT_SCRIPTS} {key.hex()}", "no script of the five types")


def _check_equivocations(stored: Database, rules: ChainRules) -> None:
    """Each is genuine, and stands where it belongs."""
    for key, value in stored.scan(EQUIVOCATIONS):
        record = f"{EQUIVOCATIONS} {key.hex()}"
        try:
            equivocation = Equivocation.decode(value)
            verify_equivocation(equivocation, rules.membership, rules.chain_id)
        except (MalformedError, Refused) as error:
            raise WrongRecord(CheckReason.NODE_DATA, record, str(error)) from error
        if key != equivocation_key(equivocation):
            raise WrongRecord(CheckReason.NODE_DATA, record, "it is of another member, view or kind of votes")


def _halts(stored: Database) -> Iterator[LatchedFinding]:
    for key, value in stored.scan(HALTS):
        try:
            yield LatchedFinding.decode(value)
        except MalformedError as error:
            raise WrongRecord(CheckReason.NODE_DATA, f"{HALTS} {key.hex()}", str(error)) from error
