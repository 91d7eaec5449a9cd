"""The errors of this package: one root, and errors that name the member who is provably at fault."""

from bridge.errors import Reason


class FederationError(Exception):
    """Root of every error raised by `federation`."""


class Refused(FederationError):  # noqa: N818 -- a verdict, named as the field names it
    """Something this package will not accept or not sign.

    reason: which rule, stable across releases.  detail: for people; never holds a secret.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class FaultySigner(Refused):
    """A member whose contribution is provably wrong. member: the index in the membership."""

    def __init__(self, member: int, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, f"member {member}" + (f": {detail}" if detail else ""))
        self.member = member
