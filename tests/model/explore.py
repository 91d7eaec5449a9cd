"""Every state that three honest members and a Byzantine one can come to, within a bound on views.

A global state is the three honest members' states. What was ever said may reach anybody at any time, or never, and the
Byzantine member has said everything: so the network is no part of the state, it follows from what the honest ones said.

Steps that say nothing are not interleaved. What a member may hear only grows, and nobody sees it hear: so such a step
can wait until just before its member's next word. A step of the exploration is therefore one member's way to its next
vote. Of several states that it may have then, those are kept from which the others can be reached without a word.
"""

import time
from collections.abc import Iterator

from tests.model.fair import FairRun
from tests.model.local import LocalGraph
from tests.model.member import RuleBroken
from tests.model.result import Bounds, Result, Violation
from tests.model.rules import check_soup, sights
from tests.model.universe import SIZE, Universe
from tests.model.walk import Walk

Global = tuple[int, ...]


class Explorer:
    """One exploration, breadth first, so that the first violation is one of the shortest."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.universe = Universe(bounds.views, bounds.byzantine, plain=bounds.plain)
        self.members = self.universe.honest
        self.alike = self._alike()
        graphs = {
            index: LocalGraph(self.universe, index, plain=bounds.plain, crashes=bounds.crashes)
            for index in {self._role(index) for index in self.members}
        }
        self.graphs = tuple(graphs[self._role(index)] for index in self.members)
        self.fair = FairRun(self.universe, self.members, self.graphs)
        self._closures: dict[tuple[int, int, int], tuple[tuple[int, ...], tuple[int, ...]]] = {}
        self._nexts: dict[tuple[int, int, int], tuple[int, ...]] = {}
        self._from: dict[Global, Global | None] = {}
        self.soups: set[Global] = set()
        """What the honest members said, in every state that was seen."""
        self._result = Result(bounds)

    def run(self) -> Result:
        """Explore to the end, or to the first violation."""
        began = time.process_time()
        result = self._result
        result.symmetry = max(1, len(self.alike))
        first = self._canonical(tuple(graph.initial for graph in self.graphs))
        self._from[first] = None
        level = [first]
        try:
            self._visit(first)
            while level and result.complete:
                level = self._next_level(level)
                result.depth += bool(level)
        except _Found as found:
            result.violation = self._violation(found)
        distinct = {id(graph): graph for graph in self.graphs}.values()
        result.states = len(self._from)
        result.soups = len(self.soups)
        result.local_states = sum(len(graph.states) for graph in distinct)
        result.machine_steps = sum(graph.steps_taken for graph in distinct)
        result.fair_states = len(self.fair.live)
        if sum(graph.restarts_in_mid_view for graph in distinct):
            result.sights.add("a restart in mid-view")
        result.seconds = time.process_time() - began
        return result

    # states

    def _next_level(self, level: list[Global]) -> list[Global]:
        fresh: list[Global] = []
        for state in level:
            for target in self._successors(state):
                self._result.transitions += 1
                if target not in self._from:
                    self._from[target] = state
                    self._visit(target)
                    fresh.append(target)
            if self.bounds.max_states is not None and len(self._from) >= self.bounds.max_states:
                self._result.complete = False
                break
        return fresh

    def _successors(self, state: Global) -> Iterator[Global]:
        offered = self.universe.offered(self._words(state))
        for position, number in enumerate(state):
            try:
                targets = self._targets(position, number, offered)
            except RuleBroken as broken:
                if self._looks_for(broken.rule):
                    raise _Found(broken, state, position) from broken
                continue
            for target in targets:
                yield self._canonical((*state[:position], target, *state[position + 1 :]))

    def _visit(self, state: Global) -> None:
        """Check a new state."""
        words = self._words(state)
        soup = self._canonical(words)
        if soup not in self.soups:
            self.soups.add(soup)
            self._result.sights |= sights(self.universe, words)
            for broken in check_soup(self.universe, words):
                if self._looks_for(broken.rule):
                    raise _Found(broken, state, None)
        if self.bounds.liveness and self._looks_for("stuck") and not self.fair.makes_progress(state):
            raise _Found(RuleBroken("stuck", "nothing more becomes final though everything arrives"), state, None)

    def _looks_for(self, rule: str) -> bool:
        return self.bounds.rules is None or rule in self.bounds.rules

    def _words(self, state: Global) -> tuple[int, ...]:
        return tuple(graph.states[number].word for graph, number in zip(self.graphs, state, strict=True))

    # symmetry

    def _alike(self) -> tuple[int, ...]:
        """Honest members that lead none of the views: they can change places."""
        leaders = {self.universe.membership.leader(view) for view in range(1, self.bounds.views + 1)}
        alike = tuple(index for index in self.members if index not in leaders)
        return alike if 1 < len(alike) < SIZE - 1 else ()

    def _role(self, index: int) -> int:
        return self.alike[0] if index in self.alike else index

    def _canonical(self, state: Global) -> Global:
        if not self.alike:
            return state
        places = [position for position, index in enumerate(self.members) if index in self.alike]
        numbers = dict(zip(places, sorted(state[place] for place in places), strict=True))
        return tuple(numbers.get(position, number) for position, number in enumerate(state))

    # one member's steps

    def closure(self, position: int, number: int, offered: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The states that a member can come to without a word, and those with one more. Raises RuleBroken."""
        graph = self.graphs[position]
        key = (id(graph), number, offered)
        if key not in self._closures:
            word = graph.states[number].word
            silent, spoken = {number: None}, dict[int, None]()
            queue = [number]
            while queue:
                for target in self._steps(position, queue.pop(), offered):
                    reached = silent if graph.states[target].word == word else spoken
                    if target not in reached:
                        reached[target] = None
                        if reached is silent:
                            queue.append(target)
            self._closures[key] = (tuple(silent), tuple(spoken))
        return self._closures[key]

    def _steps(self, position: int, number: int, offered: int) -> Iterator[int]:
        """Where one step of the machine leads. Raises RuleBroken."""
        graph = self.graphs[position]
        for step in graph.possible(number, offered):
            for way in graph.ways(number, step):
                yield way.target
            broken = graph.broken.get((number, step))
            if broken is not None and self._looks_for(broken.rule):
                raise broken

    def _targets(self, position: int, number: int, offered: int) -> tuple[int, ...]:
        """Where a step of the exploration leads this member. Raises RuleBroken."""
        if self.bounds.interleaved:
            return tuple(self._steps(position, number, offered))
        return self._next(position, number, offered)

    def _next(self, position: int, number: int, offered: int) -> tuple[int, ...]:
        """The states after a member's next word, without those that another of them leads to silently."""
        graph = self.graphs[position]
        key = (id(graph), number, offered)
        if key not in self._nexts:
            _, spoken = self.closure(position, number, offered)
            by_word: dict[int, dict[int, None]] = {}
            for target in spoken:
                settled = self._restarted(position, target, offered)
                by_word.setdefault(graph.states[settled].word, {})[settled] = None
            self._nexts[key] = tuple(
                target for group in by_word.values() for target in self._least(position, tuple(group), offered)
            )
        return self._nexts[key]

    def _restarted(self, position: int, number: int, offered: int) -> int:
        """The state after a loss of power, if what was lost can be heard again; else the same."""
        graph = self.graphs[position]
        if not self.bounds.crashes:
            return number
        restarted = graph.after(number, "restart") if graph.is_down(number) else graph.after_power_loss(number)
        if graph.states[restarted].word != graph.states[number].word:
            return number
        is_same = graph.is_down(number) or number in self.closure(position, restarted, offered)[0]
        return restarted if is_same else number

    def _least(self, position: int, group: tuple[int, ...], offered: int) -> Iterator[int]:
        kept: list[int] = []
        reach = {number: set(self.closure(position, number, offered)[0]) for number in group}
        for number in group:
            if not any(number in reach[other] for other in kept):
                kept = [other for other in kept if other not in reach[number]]
                kept.append(number)
        yield from kept

    # the way to a violation

    def _violation(self, found: "_Found") -> Violation:
        """Walk the way again with the machines, member by member, to tell it step by step."""
        states: list[Global] = []
        state: Global | None = found.state
        while state is not None:
            states.append(state)
            state = self._from[state]
        walk = Walk(self.universe, self.members, self.graphs)
        actual = tuple(graph.initial for graph in self.graphs)
        for target in reversed(states[:-1]):
            offered = self.universe.offered(self._words(actual))
            position, number = next(
                (place, number)
                for place, start in enumerate(actual)
                for number in self._targets(place, start, offered)
                if self._canonical((*actual[:place], number, *actual[place + 1 :])) == target
            )
            walk.move(position, actual[position], number, offered)
            actual = (*actual[:position], number, *actual[position + 1 :])
        if found.position is not None:
            offered = self.universe.offered(self._words(actual))
            walk.fall(actual, offered, found.broken.rule)
        return Violation(found.broken.rule, str(found.broken), walk.lines)


class _Found(Exception):  # noqa: N818 -- ends an exploration
    """A rule was broken. position: by this one alone, on its way on from `state`; None: by all together, in it."""

    def __init__(self, broken: RuleBroken, state: Global, position: int | None) -> None:
        super().__init__(str(broken))
        self.broken = broken
        self.state = state
        self.position = position
