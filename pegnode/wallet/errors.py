"""Why the wallet can't do what it was asked to."""

from bridge.errors import Reason
from pegnode.errors import ReasonedError


class WalletReason(Reason):
    """What is wrong with the wallet, the request or the node."""

    EXISTS = "wallet-exists"
    """The directory already holds a wallet."""
    NOT_FOUND = "wallet-not-found"
    """There is no wallet."""
    IN_USE = "wallet-in-use"
    """Another process has it open."""
    WRONG_CHAIN = "wallet-wrong-chain"
    """The wallet, or the node, belongs to another chain."""
    DAMAGED = "wallet-damaged"
    """A file of the wallet can't be used."""
    LOCKED = "wallet-locked"
    """Spending needs the words, and they were not opened by the passphrase."""
    UNUSABLE = "wallet-unusable"
    """The directory can't be read or written."""
    BAD_MNEMONIC = "wallet-bad-mnemonic"
    """Not the words of a BIP39 mnemonic."""
    BAD_ADDRESS = "wallet-bad-address"
    """Not an address of the chain in question."""
    BAD_AMOUNT = "wallet-bad-amount"
    """No amount, or one that can't be."""
    INSUFFICIENT_FUNDS = "wallet-insufficient-funds"
    """Not enough that can be spent now."""
    BELOW_DUST = "wallet-below-dust"
    """Too little for an output."""
    NODE_UNREACHABLE = "wallet-node-unreachable"
    """The node does not answer, or not sensibly."""
    REJECTED = "wallet-rejected"
    """The node refused the transaction; the detail names the rule."""
    LIBRARY = "wallet-library"
    """BDK refused for a reason that has no name here; the detail has its own words."""


class WalletError(ReasonedError):
    """The wallet is as it was before, but for addresses it may have used up."""

    reason: WalletReason
