"""What a demonstration ends with when something did not hold."""

from bridge.errors import Reason
from pegnode.errors import ReasonedError


class DemoReason(Reason):
    """What did not hold."""

    TOO_SLOW = "demo-too-slow"
    """Something that should have happened had not when its deadline passed."""
    EQUALITY = "demo-equality"
    """The peg's equality, or what it says about the supply."""
    CREDIT = "demo-credit"
    """A user has not what arithmetic says."""
    PAYOUT = "demo-payout"
    """The Bitcoin node does not show what the sidechain says was paid."""
    DIVERGED = "demo-diverged"
    """Members have different blocks at one height."""
    AUDIT = "demo-audit"
    """A member's recount found something."""
    ENDED = "demo-ended"
    """A process has ended that nobody ended."""
    LOGGED_ERROR = "demo-logged-error"
    """A member's log holds an error."""
    NO_DIRECTORY = "demo-no-directory"  # The demo's directory can't be made or used.
    NOT_CLEARED = "demo-not-cleared"
    """A process or the directory is still there."""


class DemoFailed(ReasonedError):  # noqa: N818 -- a verdict, as in pegnode.errors
    """Something did not hold. detail: what was expected and what was found, in one line."""

    reason: DemoReason
