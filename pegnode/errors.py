"""The errors of this package: one root, under which each subpackage keeps its own verdicts."""

from bridge.errors import Reason


class PegnodeError(Exception):
    """Root of every error raised by `pegnode`."""


class ReasonedError(PegnodeError):
    """An error whose cause is a member of a stable enumeration.

    reason: which cause, stable across releases.  detail: for people; never holds a secret.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class Refusal(ReasonedError):  # noqa: N818 -- a verdict, as in bridge.errors
    """Something that breaks a rule of the sidechain or of its protocol."""
