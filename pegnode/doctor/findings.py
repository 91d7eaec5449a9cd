"""What a check comes to. (pure)"""

import enum

import msgspec


class Outcome(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and won't for ever, or not for sure; or it could not be looked at."""
    PROBLEM = "problem"
    """The process will not start, or will not do its work."""


class Check(enum.StrEnum):
    """What is looked at. The names are stable: monitors may use them."""

    CONFIGURATION = "configuration"
    GENESIS = "genesis"
    SOFTWARE = "software"
    CURVE = "curve"
    LIMITS = "limits"
    CLOCK = "clock"
    DATA_FOLDER = "data-folder"
    DISK = "disk"
    PROCESS = "process"
    RPC_PORT = "rpc-port"
    P2P_PORT = "p2p-port"
    KEYS = "keys"
    PASSPHRASE = "passphrase"
    SIGNER = "signer"
    JOURNAL = "journal"
    DATABASE = "database"
    BITCOIN_NODE = "bitcoin-node"
    BITCOIN_INDEX = "bitcoin-index"
    BITCOIN_CONNECTION = "bitcoin-connection"
    PEER = "peer"
    QUORUM = "quorum"


class Finding(msgspec.Struct, frozen=True):
    """One line. what: as it is.  remedy: what to do about it; empty when all is well."""

    check: Check
    outcome: Outcome
    what: str
    remedy: str = ""


def ok(check: Check, what: str) -> Finding:
    """All is well."""
    return Finding(check, Outcome.OK, what)


def warning(check: Check, what: str, remedy: str) -> Finding:
    """Something to look after."""
    return Finding(check, Outcome.WARNING, what, remedy)


def problem(check: Check, what: str, remedy: str) -> Finding:
    """Something that must be put right."""
    return Finding(check, Outcome.PROBLEM, what, remedy)


def refused(check: Check, detail: str, otherwise: str) -> Finding:
    """A problem that somebody described as `what; remedy`. otherwise: the remedy if the detail names none."""
    what, _, remedy = detail.partition("; ")
    return problem(check, what, remedy or otherwise)
