"""A way through the model, told for people: each step as the machines take it."""

from collections.abc import Sequence

from tests.model.local import LocalGraph, Step, Way
from tests.model.universe import Offer, Universe

_OWN_STEPS = {
    "lead": "proposes",
    "timer": "has its timer fire",
    "fetch": "gets the blocks that it lacks, and finds them valid",
    "crash": "crashes",
    "restart": "restarts from its journal",
}


class Walk:
    """Collects lines: who did or heard what, and what it said."""

    def __init__(self, universe: Universe, members: Sequence[int], graphs: Sequence[LocalGraph]) -> None:
        self.lines: list[str] = []
        self._universe = universe
        self._members = members
        self._graphs = graphs

    def move(self, position: int, start: int, end: int, offered: int) -> None:
        """Tell how this member came from one state to another."""
        graph = self._graphs[position]
        before: dict[int, tuple[int, Step, Way]] = {}
        queue = [start]
        while queue and end not in before:
            number = queue.pop(0)
            for step in graph.possible(number, offered) if number != end else ():
                for way in graph.ways(number, step):
                    if way.target not in before and way.target != start:
                        before[way.target] = (number, step, way)
                        queue.append(way.target)
        if end not in before:  # it was found to be like the state after a loss of power
            self._tell_restarted(position, start, end, offered)
            return
        told: list[tuple[int, Step, Way]] = []
        while end != start:
            told.append(before[end])
            end = before[end][0]
        for number, step, way in reversed(told):
            self._tell(position, number, step, way)

    def fall(self, state: Sequence[int], offered: int, rule: str) -> None:
        """Tell how one of the members comes to break the rule."""
        for position, graph in enumerate(self._graphs):
            seen, queue = {state[position]}, [state[position]]
            while queue:
                number = queue.pop(0)
                for step in graph.possible(number, offered):
                    targets = {way.target for way in graph.ways(number, step)}
                    broken = graph.broken.get((number, step))
                    if broken is not None and broken.rule == rule:
                        self.move(position, state[position], number, offered)
                        self.lines.append(f"{self._what(position, step)}: {broken}")
                        return
                    queue.extend(targets - seen)
                    seen |= targets

    def _tell_restarted(self, position: int, start: int, end: int, offered: int) -> None:
        graph = self._graphs[position]
        seen, queue = {start}, [start]
        while queue:
            number = queue.pop(0)
            for step in graph.possible(number, offered):
                for way in graph.ways(number, step):
                    if way.target not in seen:
                        seen.add(way.target)
                        queue.append(way.target)
                        same = graph.states[way.target].word == graph.states[end].word
                        if same and end in (graph.after_power_loss(way.target), graph.after(way.target, "restart")):
                            self.move(position, start, way.target, offered)
                            return

    def _tell(self, position: int, number: int, step: Step, way: Way) -> None:
        graph = self._graphs[position]
        news = self._universe.said(graph.states[way.target].word & ~graph.states[number].word)
        says = "".join(f"; votes {self._universe.phrase(statement)}" for statement in news)
        crash = ", and crashes" if way.crashed and step != "crash" else ""
        self.lines.append(f"{self._what(position, step)}{says}{crash}")

    def _what(self, position: int, step: Step) -> str:
        who = f"member {self._members[position]}"
        if isinstance(step, Offer):
            about = self._universe.phrase(step.statement)
            article = "the " if step.what != "votes" else ""
            return f"{who} hears {article}{step.what} {about}"
        return f"{who} {_OWN_STEPS.get(step, step)}"
