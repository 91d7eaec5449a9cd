"""The errors of this package: one root, and rejections that carry a stable reason."""

import enum


class Reason(enum.StrEnum):
    """Base of every enumeration of rejection reasons. A value is stable: tests, logs and RPC replies name it."""


class BridgeError(Exception):
    """Root of every error raised by `bridge`."""


class MalformedError(BridgeError):
    """Bytes that are not a canonical encoding. The boundary that received them decides whose fault that is."""


class Rejected(BridgeError):  # noqa: N818 -- a verdict, named as the field names it
    """An input that breaks a rule.

    reason: which rule, stable across releases.  detail: for people; never holds a secret.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail
