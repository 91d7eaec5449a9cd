"""Evidence: one L1 transaction, the proof that an L1 block holds it, and which of its outputs are ours."""

from collections.abc import Sequence
from dataclasses import dataclass

from bridge.bitcoin.hashes import sha256d
from bridge.bitcoin.identifiers import BlockHash, Txid
from bridge.bitcoin.transaction import Transaction
from bridge.codec import Reader, Writer, decode_whole
from bridge.custody import CoinKind
from bridge.errors import MalformedError, Reason, Rejected

HEADER_SIZE = 80


class EvidenceReason(Reason):
    """Why evidence is refused. (Those after WRONG_TRANSACTION need the ledger, and are raised by `deposits`.)"""

    WRONG_BLOCK = "evidence-wrong-block"
    WRONG_HEIGHT = "evidence-wrong-height"
    MALFORMED = "evidence-malformed"
    NOT_STRIPPED = "evidence-not-stripped"
    TRANSACTION_SIZE_64 = "evidence-transaction-size-64"
    BAD_PROOF = "evidence-bad-proof"
    PROOF_COUNT_MISMATCH = "evidence-proof-count-mismatch"
    DUPLICATED_HASHES = "evidence-duplicated-hashes"
    WRONG_MERKLE_ROOT = "evidence-wrong-merkle-root"
    NOT_EXACTLY_ONE_MATCH = "evidence-not-exactly-one-match"
    PADDING_BITS = "evidence-padding-bits"
    WRONG_TRANSACTION = "evidence-wrong-transaction"
    ABOVE_ANCHOR = "evidence-above-anchor"
    IMMATURE_COINBASE = "evidence-immature-coinbase"
    NO_OPENINGS = "evidence-no-openings"
    OPENINGS_UNSORTED = "evidence-openings-unsorted"
    NO_SUCH_OUTPUT = "evidence-no-such-output"
    UNKNOWN_EPOCH = "evidence-unknown-epoch"
    CLAIM_SCRIPT_TYPE = "evidence-claim-script-type"
    WRONG_SCRIPT = "evidence-wrong-script"
    ALREADY_ENTERED = "evidence-already-entered"
    CHANGE_CLAIMED = "evidence-change-claimed"
    BELOW_FLOOR = "evidence-below-floor"
    OVER_CAP = "evidence-over-cap"


@dataclass(frozen=True, slots=True)
class Opening:
    """What makes output `vout` a reserve coin. vout, epoch: u32; claim_script: empty unless the kind is DEPOSIT."""

    vout: int
    kind: CoinKind
    epoch: int
    claim_script: bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """transaction: stripped form; proof: L1's merkleblock; l1_height: u32; openings: sorted by vout, unique."""

    transaction: bytes
    proof: bytes
    l1_height: int
    openings: tuple[Opening, ...]

    @property
    def l1_block_hash(self) -> BlockHash:
        """The hash of the header in the proof, 32 bytes."""
        return BlockHash(sha256d(self.proof[:HEADER_SIZE]))


@dataclass(frozen=True, slots=True)
class L1BlockFact:
    """What our own Bitcoin node says of a block on its active chain: its height, and how many transactions it has."""

    height: int
    n_tx: int
