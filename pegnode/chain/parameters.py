"""The chain's own genesis parameters: the sizes of blocks. The peg's are `bridge.params.PegParams`."""

from dataclasses import dataclass

from bridge.bitcoin.identifiers import BlockHash
from bridge.custody import Custody
from bridge.errors import Reason
from bridge.params import PegParams
from federation.membership import Membership
from pegnode.chain.block import MAX_BODY_BYTES, MAX_TRANSACTION_BYTES
from pegnode.chain.header import Header
from pegnode.errors import Refusal

MAX_TRANSACTION_SIGOP_COST = 16_000
"""Of one transaction. Source: Bitcoin Core, MAX_STANDARD_TX_SIGOPS_COST."""
MAX_BLOCK_SIGOP_COST = 80_000
"""Source: Bitcoin Core, MAX_BLOCK_SIGOPS_COST."""
INPUT_BYTES = 41
"""Of the smallest input: outpoint, empty script, sequence."""
MAX_TRANSACTION_INPUTS = 2_439
"""Inputs of 41 bytes that fit a stripped transaction of 100 kB."""


class ChainParamsReason(Reason):
    """Which cap on blocks is refused."""

    MAX_BODY_BYTES = "chain-params-max-body-bytes"
    """A body too small for one transaction, or larger than the encoding allows."""
    MAX_INPUTS = "chain-params-max-inputs"
    """Fewer inputs than one transaction may have, or more than fit the largest body."""
    MAX_SIGOP_COST = "chain-params-max-sigop-cost"
    """Less than one transaction may cost, or more than a block of Bitcoin's."""


class ChainParamsRefused(Refusal):
    """A cap that no chain can have. reason: ChainParamsReason.  parameters: the names of those that it is about."""

    def __init__(self, reason: ChainParamsReason, name: str, least: int, most: int) -> None:
        super().__init__(reason, f"{least:,} to {most:,} is allowed")
        self.parameters = (name,)


@dataclass(frozen=True, slots=True)
class ChainParams:
    """Caps on one block, part of validity.

    Together they bound how long the scripts of a block run, which must be well below the time that a view has.

    max_body_bytes: of the encoded body.  max_inputs: of all ordinary transactions; derived ones run no script.
    max_sigop_cost: of the same, in Bitcoin's units (a check in a witness costs 1, a legacy one 4).
    """

    max_body_bytes: int
    max_inputs: int
    max_sigop_cost: int

    def validate(self) -> None:
        """Raise ChainParamsRefused for a cap below what one transaction may need, or above what blocks can have."""
        for name, (least, most) in _RANGES.items():
            value: int = getattr(self, name)
            if not least <= value <= most:
                raise ChainParamsRefused(ChainParamsReason(f"chain-params-{name.replace('_', '-')}"), name, least, most)


_RANGES = {
    "max_body_bytes": (MAX_TRANSACTION_BYTES, MAX_BODY_BYTES),
    "max_inputs": (MAX_TRANSACTION_INPUTS, MAX_BODY_BYTES // INPUT_BYTES),
    "max_sigop_cost": (MAX_TRANSACTION_SIGOP_COST, MAX_BLOCK_SIGOP_COST),
}


@dataclass(frozen=True, slots=True)
class ChainRules:
    """Everything that validity depends on beside the parent: the genesis, and the membership of the epoch.

    chain_id, l1_genesis_hash: 32 bytes.  genesis_header: the block at height 0, which has no body.
    """

    chain_id: bytes
    membership: Membership
    params: PegParams
    custody: Custody
    l1_genesis_hash: BlockHash
    genesis_header: Header
    chain: ChainParams
