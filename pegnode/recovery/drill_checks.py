"""What a drill expects, and what it ends with when something did not hold."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import trio

from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.transaction import Transaction
from bridge.errors import Reason, Rejected
from bridge.l1.client import L1Client
from bridge.recovery_signing import RecoveryRequest
from pegnode.errors import ReasonedError
from pegnode.recovery.known import KnownReserve
from pegnode.recovery.survey import CoinState, Survey

POLL_S: Final = 0.1


class DrillReason(Reason):
    """What did not hold."""

    TOO_SLOW = "drill-too-slow"
    """Something that should have happened had not when its deadline passed."""
    NOT_REFUSED = "drill-not-refused"
    """What must be refused was not, or for another reason."""
    SOURCES_DIFFER = "drill-sources-differ"
    """A dead member's disk knows other coins than the living member told."""
    NOT_RECOVERED = "drill-not-recovered"
    """The Bitcoin node still has a coin in the reserve, or not the payment that was planned."""
    BITCOIND_STOPPED = "drill-bitcoind-stopped"
    """The Bitcoin node of the federation to rehearse on does not run, so its chain can't be copied."""


class DrillFailed(ReasonedError):  # noqa: N818 -- a verdict, as in pegnode.errors
    """Something did not hold. detail: what was expected and what was found, in one line."""

    reason: DrillReason


@dataclass(slots=True)
class Refusal:
    """What was refused. words: in full, once it was."""

    words: str = ""


@contextmanager
def refused(reason: Reason, what: str) -> Iterator[Refusal]:
    """Expect a Rejected with that reason. Raises DrillFailed (NOT_REFUSED)."""
    refusal = Refusal()
    try:
        yield refusal
    except Rejected as error:
        if error.reason is not reason:
            raise DrillFailed(DrillReason.NOT_REFUSED, f"{what}: expected {reason.value}, found {error}") from error
        refusal.words = str(error)
    else:
        raise DrillFailed(DrillReason.NOT_REFUSED, f"{what} was not refused")


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, deadline_s: float) -> None:
    """Poll until it holds. Raises DrillFailed (TOO_SLOW)."""
    with trio.move_on_after(deadline_s):
        while True:
            if await condition():
                return
            await trio.sleep(POLL_S)
    raise DrillFailed(DrillReason.TOO_SLOW, f"not within {deadline_s:.0f} s: {what}")


def require_same_coins(told: KnownReserve, on_disk: KnownReserve) -> None:
    """Raise DrillFailed (SOURCES_DIFFER) unless both know the same coins."""
    if set(told.coins) != set(on_disk.coins):
        detail = f"{len(told.coins)} coins were told, {len(on_disk.coins)} are on disk, and they are not the same"
        raise DrillFailed(DrillReason.SOURCES_DIFFER, detail)


async def require_node_refuses(client: L1Client, transaction: Transaction, what: str) -> str:
    """The Bitcoin node's words when it does not take a transaction. Raises DrillFailed (NOT_REFUSED)."""
    verdict = await client.test_mempool_accept(transaction.serialize())
    if verdict.allowed:
        raise DrillFailed(DrillReason.NOT_REFUSED, f"the Bitcoin node would take {what}")
    return verdict.reject_reason


async def require_recovered(client: L1Client, left: Survey, requests: Sequence[RecoveryRequest], payee: Script) -> None:
    """Raise DrillFailed (NOT_RECOVERED) unless the Bitcoin node has the payments and no coin in the reserve.

    left: a survey after the recovery.
    """
    remaining = [item for item in left.coins if item.state is not CoinState.GONE]
    if remaining:
        raise DrillFailed(DrillReason.NOT_RECOVERED, f"{len(remaining)} coins are still in the reserve")
    for request in requests:
        transaction = request.psbt.transaction
        found = await client.txout(transaction.outpoint(0), include_mempool=False)
        expected = transaction.outputs[0]
        if found is None or (found.value_sats, found.script) != (expected.value_sats, payee):
            raise DrillFailed(DrillReason.NOT_RECOVERED, f"the Bitcoin node does not show {expected.value_sats} sats")
