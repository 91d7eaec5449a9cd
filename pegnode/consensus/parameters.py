"""The pace of consensus: this package's section of the parameters."""

from dataclasses import dataclass

from bridge.errors import Reason
from pegnode.errors import Refusal


class ConsensusParamsReason(Reason):
    """Why parameters are refused."""

    NOT_POSITIVE = "consensus-params-not-positive"
    CAP_BELOW_TIMEOUT = "consensus-params-cap-below-timeout"
    HEARTBEAT_TOO_SHORT = "consensus-params-heartbeat-too-short"


class ConsensusParamsRefused(Refusal):
    """Parameters that can't work. reason: ConsensusParamsReason."""


@dataclass(frozen=True, slots=True)
class ConsensusParams:
    """Times in milliseconds.

    block_interval_ms: least time between a block and the proposal of the next.
    view_timeout_ms: how long a view may take once a block is due, before members vote to nullify it.
    max_view_timeout_ms: cap of the doubling that follows f+1 nullified views in a row.
    heartbeat_ms: an idle chain gets an empty block after this time.
    resend_ms: votes and certificates since the last final view are sent again this often.
    """

    block_interval_ms: int
    view_timeout_ms: int
    max_view_timeout_ms: int
    heartbeat_ms: int
    resend_ms: int

    def validate(self) -> None:
        """Raise ConsensusParamsRefused unless the times can work together."""
        for name in ("block_interval_ms", "view_timeout_ms", "heartbeat_ms", "resend_ms"):
            if getattr(self, name) <= 0:
                raise ConsensusParamsRefused(ConsensusParamsReason.NOT_POSITIVE, name)
        if self.max_view_timeout_ms < self.view_timeout_ms:
            raise ConsensusParamsRefused(ConsensusParamsReason.CAP_BELOW_TIMEOUT)
        if self.heartbeat_ms < self.block_interval_ms:
            raise ConsensusParamsRefused(ConsensusParamsReason.HEARTBEAT_TOO_SHORT)
