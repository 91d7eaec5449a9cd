"""The chain's own genesis parameters: the sizes of blocks. The peg's are `bridge.params.PegParams`."""

from dataclasses import dataclass

from bridge.bitcoin.identifiers import BlockHash
from bridge.custody import Custody
from bridge.params import PegParams
from federation.membership import Membership
from pegnode.chain.block import MAX_BODY_BYTES, MAX_TRANSACTION_BYTES
from pegnode.chain.header import Header

MAX_TRANSACTION_SIGOP_COST = 16_000
"""Of one transaction. Source: Bitcoin Core, MAX_STANDARD_TX_SIGOPS_COST."""
MAX_TRANSACTION_INPUTS = 2_439
"""Inputs of 41 bytes that fit a stripped transaction of 100 kB."""


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

    def problems(self) -> list[str]:
        """What is wrong with these values, for people; empty when nothing is."""
        found = []
        if not MAX_TRANSACTION_BYTES <= self.max_body_bytes <= MAX_BODY_BYTES:
            found.append(f"max_body_bytes {self.max_body_bytes} not in {MAX_TRANSACTION_BYTES}..{MAX_BODY_BYTES}")
        if self.max_inputs < MAX_TRANSACTION_INPUTS:
            found.append(f"max_inputs below {MAX_TRANSACTION_INPUTS}, what one transaction may have")
        if self.max_sigop_cost < MAX_TRANSACTION_SIGOP_COST:
            found.append(f"max_sigop_cost below {MAX_TRANSACTION_SIGOP_COST}, the cost that one transaction may have")
        return found


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
