"""The pace of consensus: this package's section of the parameters."""

from dataclasses import dataclass, fields

from bridge.errors import Reason
from pegnode.errors import Refusal

MAX_MS = 3_600_000
"""An hour: whoever waits longer waits for people."""


class ConsensusParamsReason(Reason):
    """Why the times are refused."""

    OUT_OF_RANGE = "consensus-params-out-of-range"
    """A time of nothing or less, or of more than an hour."""
    CAP_BELOW_TIMEOUT = "consensus-params-cap-below-timeout"
    """The longest view would be shorter than the first."""
    FLOOR_ABOVE_TIMEOUT = "consensus-params-floor-above-timeout"
    """The shortest view would be longer than the first."""
    HEARTBEAT_TOO_SHORT = "consensus-params-heartbeat-too-short"
    """An idle chain would make blocks faster than a busy one."""
    RESEND_TOO_LATE = "consensus-params-resend-too-late"
    """What was lost would be said again after the longest view has ended."""


class ConsensusParamsRefused(Refusal):
    """Times that can't work. reason: ConsensusParamsReason.  parameters: the names of those that it is about."""

    def __init__(self, reason: ConsensusParamsReason, detail: str, *parameters: str) -> None:
        super().__init__(reason, detail)
        self.parameters = parameters


@dataclass(frozen=True, slots=True)
class ConsensusParams:
    """Times in milliseconds.

    block_interval_ms: least time between a block and the proposal of the next.
    view_timeout_ms: how long a view may take once a block is due, before members vote to nullify it, while nothing
        was measured yet.
    min_view_timeout_ms: the least that measuring makes of it, and what a leader gets who was missed.
    max_view_timeout_ms: the most, also of the doubling that follows views waited for in vain.
    heartbeat_ms: an idle chain gets an empty block after this time.
    resend_ms: votes and certificates since the last final view are sent again this often.
    """

    block_interval_ms: int
    view_timeout_ms: int
    min_view_timeout_ms: int
    max_view_timeout_ms: int
    heartbeat_ms: int
    resend_ms: int

    def validate(self) -> None:
        """Raise ConsensusParamsRefused unless the times can work together."""
        for field in fields(self):
            if not 1 <= getattr(self, field.name) <= MAX_MS:
                detail = f"1 to {MAX_MS:,} milliseconds are allowed"
                raise ConsensusParamsRefused(ConsensusParamsReason.OUT_OF_RANGE, detail, field.name)
        if self.min_view_timeout_ms > self.view_timeout_ms:
            raise ConsensusParamsRefused(
                ConsensusParamsReason.FLOOR_ABOVE_TIMEOUT,
                f"above view_timeout_ms, {self.view_timeout_ms:,}, which shrinks down to it",
                "min_view_timeout_ms",
                "view_timeout_ms",
            )
        if self.max_view_timeout_ms < self.view_timeout_ms:
            raise ConsensusParamsRefused(
                ConsensusParamsReason.CAP_BELOW_TIMEOUT,
                f"below view_timeout_ms, {self.view_timeout_ms:,}, which doubles up to it",
                "max_view_timeout_ms",
                "view_timeout_ms",
            )
        if self.heartbeat_ms < self.block_interval_ms:
            raise ConsensusParamsRefused(
                ConsensusParamsReason.HEARTBEAT_TOO_SHORT,
                f"below block_interval_ms, {self.block_interval_ms:,}, the least time between blocks",
                "heartbeat_ms",
                "block_interval_ms",
            )
        if self.resend_ms > self.max_view_timeout_ms:
            raise ConsensusParamsRefused(
                ConsensusParamsReason.RESEND_TOO_LATE,
                f"above max_view_timeout_ms, {self.max_view_timeout_ms:,}: no view lasts so long",
                "resend_ms",
                "max_view_timeout_ms",
            )
