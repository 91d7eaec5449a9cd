"""Why the wallet can't do what it was asked to."""

from bridge.errors import Reason
from pegnode.errors import ReasonedError


class WalletReason(Reason):
    """What is wrong with the wallet, the request or the node."""

    EXISTS = "wallet-exists"
    NOT_FOUND = "wallet-not-found"
    IN_USE = "wallet-in-use"
    """Another process has it open."""
    WRONG_CHAIN = "wallet-wrong-chain"
    """The wallet, or the node, belongs to another chain."""
    DAMAGED = "wallet-damaged"
    EXPOSED = "wallet-exposed"
    """Others than the owner may read the seed."""
    UNUSABLE = "wallet-unusable"
    """The directory can't be read or written."""
    BAD_MNEMONIC = "wallet-bad-mnemonic"
    BAD_ADDRESS = "wallet-bad-address"
    BAD_AMOUNT = "wallet-bad-amount"
    INSUFFICIENT_FUNDS = "wallet-insufficient-funds"
    BELOW_DUST = "wallet-below-dust"
    NODE_UNREACHABLE = "wallet-node-unreachable"
    REJECTED = "wallet-rejected"
    """The node refused the transaction; the detail names the rule."""
    LIBRARY = "wallet-library"
    """BDK refused for a reason that has no name here; the detail has its own words."""


class WalletError(ReasonedError):
    """The wallet is as it was before, but for addresses it may have used up."""

    reason: WalletReason
