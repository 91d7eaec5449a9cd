"""Whether a further block becomes final from a state, once everything arrives and the Byzantine member falls silent."""

from collections.abc import Sequence

from tests.model.local import LocalGraph, Step
from tests.model.universe import Offer, Universe

MAX_ROUNDS = 64
"""Far more than the views until an honest leader's turn."""


class FairRun:
    """Runs from any state, remembering the states from which a run came to a new final block.

    In a run everybody is up, what one honest member knows reaches all, and the time for a proposal comes before any
    timer fires. A member that shares its states with another leads no view: that makes it harder, never easier.
    """

    def __init__(self, universe: Universe, members: Sequence[int], graphs: Sequence[LocalGraph]) -> None:
        self.live: set[tuple[int, ...]] = set()
        self._universe = universe
        self._graphs = graphs
        shared = [id(graph) for graph in graphs]
        self._leaders = [place for place in range(len(members)) if shared.count(shared[place]) == 1]

    def makes_progress(self, state: tuple[int, ...]) -> bool:
        """From here, and from where the Byzantine member's last words bring every honest one."""
        words = tuple(graph.states[number].word for graph, number in zip(self._graphs, state, strict=True))
        certified = self._universe.offers_for(self._universe.certified(words))
        return self._run(state) and self._run(self._delivered(state, certified))

    def _run(self, state: tuple[int, ...]) -> bool:
        base = max(self._heights(state))
        past: list[tuple[int, ...]] = []
        for _ in range(MAX_ROUNDS):
            if state in self.live:
                self._remember(past, max(self._heights(state)) + 1)
                return True
            past.append(state)
            if min(self._heights(state)) > base:
                self._remember(past, min(self._heights(state)))
                return True
            after = self._delivered(state, None)
            after = self._all_do(state, "lead", self._leaders) if after == state else after
            after = self._all_do(state, "timer", range(len(state))) if after == state else after
            if after == state:
                return False
            state = after
        return False

    def _remember(self, past: list[tuple[int, ...]], height: int) -> None:
        self.live.update(state for state in past if max(self._heights(state)) < height)

    def _heights(self, state: tuple[int, ...]) -> list[int]:
        return [graph.states[number].tip_height for graph, number in zip(self._graphs, state, strict=True)]

    def _delivered(self, state: tuple[int, ...], offered: int | None) -> tuple[int, ...]:
        """Everybody has heard what was offered; None: what the honest ones know and propose."""
        universe = self._universe
        if offered is None:
            held = [graph.states[number] for graph, number in zip(self._graphs, state, strict=True)]
            known = universe.certified(tuple(one.word for one in held), byzantine_helps=False)
            for one in held:
                known |= one.known
            offered = universe.offers_for(known) | universe.honest_proposals(tuple(one.word for one in held))
        steps: tuple[Step, ...] = ("restart", *universe.offers_of(offered), "fetch")
        numbers = list(state)
        for place, graph in enumerate(self._graphs):
            for step in steps:
                if graph.is_down(numbers[place]) is not (step == "restart"):
                    continue
                if not isinstance(step, Offer) or graph.is_news(numbers[place], step):
                    numbers[place] = graph.after(numbers[place], step)
        return tuple(numbers)

    def _all_do(self, state: tuple[int, ...], step: str, places: Sequence[int]) -> tuple[int, ...]:
        numbers = list(state)
        for place in places:
            numbers[place] = self._graphs[place].after(numbers[place], step)
        return tuple(numbers)
