"""The states in which one's own Bitcoin node may be found. The names are stable: status, logs and monitors use them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from bridge.l1.errors import L1Error, L1Reason, L1Unavailable


class L1State(StrEnum):
    """A closed list; every look at the node ends in one of these, the first that applies in the order given here.

    cause: what is the matter, in one line.  remedy: what its operator should do.
    answers: whether the node answers questions at all.  waits: whether what concerns L1 waits until the state ends;
    the sidechain's transfers never do.
    """

    cause: str
    remedy: str
    answers: bool
    waits: bool

    def __new__(cls, name: str, cause: str, remedy: str, answers: bool, waits: bool) -> Self:
        """Make the member `name`."""
        state = str.__new__(cls, name)
        state._value_ = name
        state.cause, state.remedy, state.answers, state.waits = cause, remedy, answers, waits
        return state

    NOT_ASKED = "not-asked-yet", "the process has just started", "wait a moment", False, True
    DOWN = (
        "down",
        "nobody accepts a connection at its address, or it breaks",
        "start bitcoind; compare `l1.url` with its `rpcbind`, `rpcport` and the tunnel, if there is one",
        False,
        True,
    )
    SILENT = (
        "silent",
        "it accepts connections and does not answer in time",
        "look at bitcoind's log, its disk and its processor; restart it if it hangs",
        False,
        True,
    )
    STARTING = (
        "starting",
        "it is starting, or building an index (RPC warm-up)",
        "wait; its log shows how far it is",
        False,
        True,
    )
    CREDENTIALS_MISSING = (
        "credentials-missing",
        "it runs, and the cookie or password file is absent, unreadable or empty here",
        "compare `l1.cookie_file` or `l1.password_file` with bitcoind's data directory, and let this process read it",
        False,
        True,
    )
    CREDENTIALS_REFUSED = (
        "credentials-refused",
        "it refuses the user, the password or the cookie, or this machine's address",
        "correct `l1.password_file`, or point `l1.cookie_file` at bitcoind's own cookie: both are read anew",
        False,
        True,
    )
    ERRORING = (
        "erroring",
        "it answers simple questions with errors",
        "look at bitcoind's log: its disk may be full or damaged; raise `rpcworkqueue` if it is overloaded",
        False,
        True,
    )
    GARBLED = (
        "garbled",
        "what answers is not a Bitcoin node's JSON-RPC, or is too large or cut short",
        "see what listens at `l1.url`: a proxy, or another program",
        False,
        True,
    )
    TOO_OLD = (
        "too-old",
        "its version lacks what is asked of it",
        "install Bitcoin Core or Knots of the version named, or newer",
        True,
        True,
    )
    WRONG_CHAIN = (
        "wrong-chain",
        "it is on another chain: its first block, or the block that the genesis refers to, differs",
        "point `l1.url` at a node of the network that the genesis names",
        True,
        True,
    )
    INITIAL_DOWNLOAD = (
        "initial-download",
        "it is still fetching and checking the chain",
        "wait; `bitcoin-cli getblockchaininfo` shows how far it is",
        True,
        True,
    )
    FORKED = (
        "forked",
        "its active chain does not hold the L1 block that the newest final block refers to",
        "compare `bitcoin-cli getchaintips` with other members': is it cut off, or was L1 reorganised that deep?",
        True,
        True,
    )
    STUCK = (
        "stuck",
        "its tip does not move, though members or its own headers know of newer blocks, or it has no peers",
        "see `bitcoin-cli getpeerinfo` and its log: connect it to peers, wait for a reindex, or restart it",
        True,
        True,
    )
    BEHIND = (
        "behind",
        "its tip is lower than what members report, and it is catching up",
        "wait; if it stays behind, see `stuck`",
        True,
        True,
    )
    PRUNED = (
        "pruned",
        "it has deleted blocks that this process may have to read",
        "raise or remove bitcoind's `prune`; until then other members find the deposits in these blocks",
        True,
        False,
    )
    SLOW = (
        "slow",
        "it takes seconds to answer",
        "look at its disk, processor and `dbcache`; votes on what concerns L1 may come too late",
        True,
        False,
    )
    OK = "ok", "it answers, and is where the others are", "nothing", True, False


_BY_REASON = {
    L1Reason.UNREACHABLE: L1State.DOWN,
    L1Reason.TIMEOUT: L1State.SILENT,
    L1Reason.CREDENTIALS_MISSING: L1State.CREDENTIALS_MISSING,
    L1Reason.UNAUTHORIZED: L1State.CREDENTIALS_REFUSED,
    L1Reason.WARMING_UP: L1State.STARTING,
    L1Reason.OVERLOADED: L1State.ERRORING,
    L1Reason.FAILING: L1State.ERRORING,
    L1Reason.BAD_RESPONSE: L1State.GARBLED,
    L1Reason.BAD_URL: L1State.DOWN,
    L1Reason.UNREAD: L1State.BEHIND,
}


def state_of_failure(error: L1Error) -> tuple[L1State, str]:
    """The state that a question which went wrong reveals, and its details, for people: no credential among them."""
    if isinstance(error, L1Unavailable):
        return _BY_REASON[error.reason], error.detail or error.reason.value
    return L1State.ERRORING, str(error)


@dataclass(frozen=True, slots=True)
class L1Health:
    """How the node is. since_ms: Unix time since when it has been in this state.  detail: for people; may be empty."""

    state: L1State
    since_ms: int
    detail: str = ""


NOT_ASKED = L1Health(L1State.NOT_ASKED, 0)
"""How a node is of which nothing is known yet."""
