"""Evidence: one L1 transaction, the proof that an L1 block holds it, and which of its outputs are ours.

The proof is L1's own `merkleblock` as `gettxoutproof` gives it: the header, and a partial Merkle tree (BIP37). Such
trees have been attacked, so here a proof has exactly one valid form: the count of transactions is the one that our own
node knows of the block (CVE-2017-12842 needs a tree of another depth), a transaction of 64 bytes, which could pass for
an inner node, is refused, no node has two equal children (CVE-2012-2459), and a branch is opened only on the way to
the one match.
"""

from dataclasses import dataclass
from typing import Self

from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import HASH_SIZE, BlockHash, Txid
from bridge.bitcoin.transaction import Transaction, TransactionReason
from bridge.codec import Encoded, Reader, Writer, decode_whole
from bridge.custody import CoinKind
from bridge.errors import MalformedError, Reason, Rejected

HEADER_SIZE = 80
MAX_TRANSACTION_SIZE = 1_000_000
"""The stripped size that no transaction in a block of L1 exceeds. Source: BIP141."""
MAX_PROOF_SIZE = 1024
"""A proof of one of 2^22 transactions has 798 bytes; a block of L1 can't hold 2^15."""
MAX_OPENINGS = 1000
MAX_CLAIM_SCRIPT_SIZE = 34
OPENING_SIZE = 4 + 1 + 4 + 4 + MAX_CLAIM_SCRIPT_SIZE
"""Bytes of the largest encoded opening."""
EVIDENCE_FRAME_SIZE = 4 + 4 + 4 + 4
"""Bytes of an encoded piece of evidence besides transaction, proof and openings."""
INNER_NODE_SIZE = 64

_MERKLE_ROOT_OFFSET = 36


class EvidenceReason(Reason):
    """Why evidence is refused: first what this module checks, then what takes the ledger to know."""

    MALFORMED = "evidence-malformed"  # Its transaction is none that both parsers take.
    NOT_STRIPPED = "evidence-not-stripped"  # Its transaction carries a witness.
    TRANSACTION_SIZE_64 = "evidence-transaction-size-64"
    """Its transaction has 64 bytes, as two hashes of a Merkle tree have (CVE-2017-12842)."""
    WRONG_HEIGHT = "evidence-wrong-height"  # The L1 block stands at another height than the evidence says.
    BAD_PROOF = "evidence-bad-proof"  # The proof is no merkleblock with shortest counts, or one of no transactions.
    PROOF_TRUNCATED = "evidence-proof-truncated"  # The tree goes on where no hash or flag is left.
    PROOF_LEFTOVER = "evidence-proof-leftover"  # Hashes, or bytes of flags, are left behind the tree.
    NEEDLESS_BRANCH = "evidence-needless-branch"  # A branch is opened that holds no match: a proof has one form.
    PROOF_COUNT_MISMATCH = "evidence-proof-count-mismatch"
    """The proof counts other transactions than the L1 block has: a tree of another shape."""
    DUPLICATED_HASHES = "evidence-duplicated-hashes"  # Two children of a node are equal (CVE-2012-2459).
    PADDING_BITS = "evidence-padding-bits"  # A flag behind the tree's last node is set.
    WRONG_MERKLE_ROOT = "evidence-wrong-merkle-root"  # The tree has another root than the header.
    NOT_EXACTLY_ONE_MATCH = "evidence-not-exactly-one-match"  # The proof marks no leaf as its match, or several.
    WRONG_TRANSACTION = "evidence-wrong-transaction"  # The proof is of another transaction.

    WRONG_BLOCK = "evidence-wrong-block"  # The L1 block is not below the anchor on its chain.
    TRANSACTION_TOO_LARGE = "evidence-transaction-too-large"
    """The transaction is over `max_evidence_transaction_bytes`."""
    ABOVE_ANCHOR = "evidence-above-anchor"  # The L1 block is above the anchor: not deep enough yet.
    IMMATURE_COINBASE = "evidence-immature-coinbase"  # A coinbase that is not `coinbase_confirmations` deep yet.
    NO_OPENINGS = "evidence-no-openings"  # Nothing is opened, and the transaction is no recorded payout.
    OPENINGS_UNSORTED = "evidence-openings-unsorted"  # Openings don't ascend strictly by output.
    NO_SUCH_OUTPUT = "evidence-no-such-output"  # The transaction has no such output.
    CLAIM_SCRIPT_TYPE = "evidence-claim-script-type"
    """A deposit's claim script is none of the five types, or another kind has one."""
    WRONG_SCRIPT = "evidence-wrong-script"  # The output does not pay the reserve script that the opening describes.
    ALREADY_ENTERED = "evidence-already-entered"  # The ledger took in this output before, and it is not lost.
    TOO_OLD = "evidence-too-old"
    """Half of `recovery_timelock_blocks` have passed for the output, which is no lost coin."""
    CHANGE_CLAIMED = "evidence-change-claimed"
    """An output of an open payout is opened: once it settles, its change enters by itself."""
    BELOW_FLOOR = "evidence-below-floor"  # The output holds less than `coin_floor_sats`.
    OVER_CAP = "evidence-over-cap"  # The reserves would exceed `max_peg_sats`.


@dataclass(frozen=True, slots=True)
class Opening(Encoded):
    """What makes output `vout` a reserve coin. vout, epoch: u32; claim_script: empty unless the kind is DEPOSIT."""

    vout: int
    kind: CoinKind
    epoch: int
    claim_script: bytes

    @property
    def size_bytes(self) -> int:
        """Length of the encoding."""
        return OPENING_SIZE - MAX_CLAIM_SCRIPT_SIZE + len(self.claim_script)

    def write(self, writer: Writer) -> None:
        writer.u32(self.vout).u8(self.kind).u32(self.epoch).variable(self.claim_script)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        vout, kind, epoch = reader.u32(), reader.enumeration(CoinKind), reader.u32()
        return cls(vout, kind, epoch, reader.variable(MAX_CLAIM_SCRIPT_SIZE))


@dataclass(frozen=True, slots=True)
class Evidence(Encoded):
    """transaction: stripped form; proof: L1's merkleblock; l1_height: u32; openings: sorted by vout, unique."""

    transaction: bytes
    proof: bytes
    l1_height: int
    openings: tuple[Opening, ...]

    @property
    def l1_block_hash(self) -> BlockHash:
        """The hash of the header in the proof, 32 bytes."""
        return BlockHash(sha256d(self.proof[:HEADER_SIZE]))

    def write(self, writer: Writer) -> None:
        writer.variable(self.transaction).variable(self.proof).u32(self.l1_height)
        writer.sequence(self.openings, lambda _, opening: opening.write(writer))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        transaction, proof = reader.variable(MAX_TRANSACTION_SIZE), reader.variable(MAX_PROOF_SIZE)
        return cls(transaction, proof, reader.u32(), reader.sequence(MAX_OPENINGS, Opening.read))


@dataclass(frozen=True, slots=True)
class L1BlockFact:
    """What our own Bitcoin node says of a block on its active chain: its height, and how many transactions it has."""

    height: int
    n_tx: int


def check_inclusion(evidence: Evidence, fact: L1BlockFact) -> Transaction:
    """The L1 transaction, proven to be in the block `evidence.l1_block_hash`, of which `fact` was taken.

    Raises Rejected with an EvidenceReason of the first group.
    """
    transaction = _parse_transaction(evidence.transaction)
    if evidence.l1_height != fact.height:
        raise Rejected(EvidenceReason.WRONG_HEIGHT, f"{evidence.l1_height}, and the block is at {fact.height}")
    try:
        proof = decode_whole(evidence.proof, MerkleProof.read)
    except MalformedError as error:
        raise Rejected(EvidenceReason.BAD_PROOF, str(error)) from error
    if proof.transaction_count != fact.n_tx:
        raise Rejected(EvidenceReason.PROOF_COUNT_MISMATCH, f"{proof.transaction_count} for a block of {fact.n_tx}")
    root, matches = proof.walk()
    if root != proof.merkle_root:
        raise Rejected(EvidenceReason.WRONG_MERKLE_ROOT, "the tree has another root than the header")
    if len(matches) != 1:
        raise Rejected(EvidenceReason.NOT_EXACTLY_ONE_MATCH, f"{len(matches)} matches")
    if matches[0] != transaction.txid:
        raise Rejected(EvidenceReason.WRONG_TRANSACTION, "the proof is of another transaction")
    return transaction


def _parse_transaction(data: bytes) -> Transaction:
    if len(data) == INNER_NODE_SIZE:
        raise Rejected(EvidenceReason.TRANSACTION_SIZE_64, "it could be two hashes of the tree")
    try:
        return Transaction.parse_stripped(data)
    except Rejected as rejected:
        stripped = rejected.reason is not TransactionReason.HAS_WITNESS
        raise Rejected(
            EvidenceReason.MALFORMED if stripped else EvidenceReason.NOT_STRIPPED, str(rejected)
        ) from rejected


@dataclass(frozen=True, slots=True)
class MerkleProof:
    """A `merkleblock` message. merkle_root: of the header; hashes: 32 bytes each; flags: bits, lowest first.

    Source: BIP37.
    """

    merkle_root: bytes
    transaction_count: int
    hashes: tuple[bytes, ...]
    flags: bytes

    @classmethod
    def read(cls, reader: Reader) -> "MerkleProof":
        """Take a proof, with shortest counts; raises MalformedError."""
        header = reader.take(HEADER_SIZE)
        transaction_count = reader.u32()
        hashes = reader.take(_read_compact_size(reader) * HASH_SIZE)
        flags = reader.take(_read_compact_size(reader))
        return cls(
            header[_MERKLE_ROOT_OFFSET : _MERKLE_ROOT_OFFSET + HASH_SIZE],
            transaction_count,
            tuple(hashes[start : start + HASH_SIZE] for start in range(0, len(hashes), HASH_SIZE)),
            flags,
        )

    def walk(self) -> tuple[bytes, list[Txid]]:
        """The root of the tree, and the leaves it marks as matches.

        Raises Rejected(EvidenceReason): BAD_PROOF, PROOF_TRUNCATED, PROOF_LEFTOVER, NEEDLESS_BRANCH,
        DUPLICATED_HASHES, PADDING_BITS.
        """
        if self.transaction_count == 0:
            raise Rejected(EvidenceReason.BAD_PROOF, "a block without transactions")
        walk = _Walk(self)
        height = (self.transaction_count - 1).bit_length()
        root = walk.node(height, 0)
        if walk.hashes_used != len(self.hashes) or (walk.bits_used + 7) // 8 != len(self.flags):
            raise Rejected(EvidenceReason.PROOF_LEFTOVER, f"{walk.hashes_used} of {len(self.hashes)} hashes used")
        if int.from_bytes(self.flags, "little") >> walk.bits_used:
            raise Rejected(EvidenceReason.PADDING_BITS, "a flag is set behind the last node")
        return root, walk.matches


class _Walk:
    """One pass over a partial tree, depth first, as BIP37 writes it down."""

    def __init__(self, proof: MerkleProof) -> None:
        self.matches: list[Txid] = []
        self.hashes_used = 0
        self.bits_used = 0
        self._proof = proof

    def node(self, height: int, position: int) -> bytes:
        """The hash of the node at `height` above the leaves."""
        opened = self._next_flag()
        if height == 0 or not opened:
            value = self._next_hash()
            if opened:
                self.matches.append(Txid(value))
            return value
        matches_before = len(self.matches)
        left = self.node(height - 1, 2 * position)
        right = left
        if (2 * position + 1) << (height - 1) < self._proof.transaction_count:
            right = self.node(height - 1, 2 * position + 1)
            if right == left:
                raise Rejected(EvidenceReason.DUPLICATED_HASHES, f"two equal children at height {height}")
        if len(self.matches) == matches_before:
            raise Rejected(EvidenceReason.NEEDLESS_BRANCH, f"a branch without a match at height {height}")
        return sha256d(left + right)

    def _next_flag(self) -> bool:
        byte, bit = divmod(self.bits_used, 8)
        if byte >= len(self._proof.flags):
            raise Rejected(EvidenceReason.PROOF_TRUNCATED, "too few flags")
        self.bits_used += 1
        return bool(self._proof.flags[byte] >> bit & 1)

    def _next_hash(self) -> bytes:
        if self.hashes_used >= len(self._proof.hashes):
            raise Rejected(EvidenceReason.PROOF_TRUNCATED, "too few hashes")
        self.hashes_used += 1
        return self._proof.hashes[self.hashes_used - 1]


def _read_compact_size(reader: Reader) -> int:
    """Bitcoin's variable-length count, in its shortest form only."""
    first = reader.u8()
    if first < 0xFD:
        return first
    value = int.from_bytes(reader.take(2 << (first - 0xFD)), "little")
    if value < (0xFD, 1 << 16, 1 << 32)[first - 0xFD]:
        raise MalformedError(f"the count {value} is written longer than it is")
    return value
