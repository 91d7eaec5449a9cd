"""The clock of one view: when its block is due, and when the view has lasted too long.

Arithmetic over the moments it was told; it reads no clock. Every time is in milliseconds on the driver's clock.
"""

from pegnode.consensus.parameters import ConsensusParams


class Pace:
    """Moments of the current view and of the newest certified block."""

    def __init__(self, params: ConsensusParams, now_ms: int) -> None:
        self._params = params
        self._entered_ms = now_ms
        self._block_ms = now_ms
        self._timer_from_ms: int | None = None
        self._retry_ms = now_ms

    def enter(self, now_ms: int) -> None:
        """A new view was entered: its timer has not started."""
        self._entered_ms = now_ms
        self._timer_from_ms = None
        self._retry_ms = now_ms

    def note_block(self, seen_ms: int) -> None:
        """The newest certified block was first seen then: block interval and heartbeat count from it."""
        self._block_ms = seen_ms

    def note_build_failed(self, now_ms: int) -> None:
        """The leader could not build: it tries again after a block interval."""
        self._retry_ms = now_ms + self._params.block_interval_ms

    @property
    def earliest_proposal_ms(self) -> int:
        """No block is proposed before this."""
        return self._block_ms + self._params.block_interval_ms

    @property
    def heartbeat_ms(self) -> int:
        """From this moment on a block is due even if there is nothing to include."""
        return self._block_ms + self._params.heartbeat_ms

    def proposal_ms(self, work: bool, unfinal: bool, timeout_ms: int) -> int:
        """When the leader proposes.

        Work goes as soon as the interval allows. Without work, a certified block that is not final gets a successor
        that carries it along, but only after its finalization had a quarter of the timeout to arrive.
        """
        due_ms = self.heartbeat_ms
        if unfinal:
            due_ms = min(due_ms, self._entered_ms + timeout_ms // 4)
        if work:
            due_ms = self.earliest_proposal_ms
        return max(due_ms, self.earliest_proposal_ms, self._retry_ms)

    @property
    def runs(self) -> bool:
        """Whether the view's timer runs: a block is due."""
        return self._timer_from_ms is not None

    def run_timer(self, due: bool, now_ms: int) -> None:
        """Start the view timer once a block is due, and stop it when none is any longer."""
        if not due and now_ms < self.heartbeat_ms:
            self._timer_from_ms = None
        elif self._timer_from_ms is None:
            self._timer_from_ms = now_ms

    @property
    def due_ms(self) -> int | None:
        """From when on the view's time counts: a block is due, and may be proposed. None while the timer stands."""
        return None if self._timer_from_ms is None else max(self._timer_from_ms, self.earliest_proposal_ms)
