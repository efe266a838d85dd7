"""Whose turn it is: the queue furthest below its share, level by level; inside it, its next claim.

Only the queue whose turn it was changes its standing between two claims, so each level is a heap of which only the
head is worked out again, and only when something moved. Inside a queue the first claim of each kind stands in a heap;
a kind that fails is gone with all its members.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from heddle.engine.kinds import GROW, PROMISED, START, Kind, apart_from_time
from heddle.engine.queues import Queue, Standing, standing
from heddle.engine.work import Work

if TYPE_CHECKING:
    from heddle.engine.cycle import Cycle

Line = list[tuple[tuple[int, float, str], int, Kind]]
"""A heap: per kind its first open claim (key, place among its kind)."""


class Turns:
    """The claims of all queues in the order in which they are heard."""

    def __init__(
        self,
        cycle: Cycle,
        *,
        grow: bool | None = None,
        without: set[tuple[str, Kind]] | None = None,
        heard: Mapping[str, Sequence[Kind]] | None = None,
        everyone: Callable[[], bool] = lambda: False,
        calm: bool = False,
    ) -> None:
        """Line up the claims as they are now.

        Args:
            cycle: the cycle.
            grow: True: only those whose minimum runs; False: only the others; None: all.
            without: (queue, kind) that need not be heard.
            heard: by queue, the kinds that may get something: no others are heard. None = all are.
            everyone: with ``heard``, as long as this holds all are heard in their order nevertheless; those of a strict
                line always are.
            calm: nobody is displaced meanwhile: a line is made only when its turn comes.
        """
        self.cycle = cycle
        self.total = cycle.total
        self.lines: dict[str, Line] = {}
        self.heaps: dict[str, list[tuple[Standing, str, Queue]]] = {}
        self._restacked = False
        self._everyone = everyone
        self._walks: dict[str, Walk] = {}
        self._grow = grow
        self._unmade: dict[str, Collection[Kind]] = {}  # kinds of lines that are made once their turn comes
        # (queue, what was asked for in vain) -> value of `State.freed` then, and the shortest time it was asked for
        self._lost: dict[tuple[str, Kind], tuple[int, float]] = {}
        walk = heard is not None and everyone()
        for queue in cycle.lines if heard is None or walk else self._some(heard):
            kinds: Collection[Kind] = queue.kinds
            if heard is not None:
                kinds = heard.get(queue.name, ())
                if walk or queue.spec.ordering == "StrictFIFO":
                    self._walks[queue.name] = Walk(queue, set(kinds), grow=grow)
                elif calm:
                    self.lines[queue.name], self._unmade[queue.name] = [], kinds
                    continue
            line = line_up(cycle, queue, kinds, grow=grow, without=without or set())
            if line or queue.name in self._walks:
                self.lines[queue.name] = line
                if not self._walk(queue):
                    del self.lines[queue.name]
        self._stack()

    def _some(self, heard: Mapping[str, Sequence[Kind]]) -> list[Queue]:
        """Those who wait in whose queue some are heard, or started in this cycle, or whose line is strict."""
        cycle = self.cycle
        if not heard and not cycle.started_in and not cycle.state.tree.strict:
            return []
        some = {*heard, *cycle.started_in, *(queue.name for queue in cycle.state.tree.strict)}
        return [queue for queue in cycle.lines if queue.name in some]

    def _walk(self, queue: Queue) -> bool:
        """Adds those who come before the head of the line but ask for more than is idle; whether anybody is left."""
        line = self.lines[queue.name]
        walk = self._walks.get(queue.name)
        if walk is None:
            return bool(line)
        if queue.spec.ordering != "StrictFIFO" and not self._everyone():
            del self._walks[queue.name]
            return bool(line)
        works = self.cycle.state.works
        while walk.at < len(queue.waiting):
            key = queue.waiting[walk.at]
            if line and key > line[0][0]:
                break
            walk.at += 1
            kind = works[key[2]].kind
            if kind is None or kind in walk.met:
                continue
            walk.met.add(kind)
            strict = queue.spec.ordering == "StrictFIFO"
            if not _other(kind, walk.grow, strict=strict):
                at = _first(self.cycle, queue, kind)
                keys = queue.kinds[kind]
                if at < len(keys):
                    heappush(line, (keys[at], at, kind))
        return bool(line)

    # -- turns -------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[tuple[Queue, str]]:
        """Yields (queue, workload); the same workload comes again until :meth:`done` is called."""
        state = self.cycle.state
        lines = self.lines
        while (heaps := self.heaps)[""]:
            queue = heaps[""][0][2]
            while queue.children:
                queue = heaps[queue.name][0][2]
            line = lines[queue.name]
            if queue.name in self._unmade:
                kinds = self._unmade.pop(queue.name)
                line[:] = line_up(self.cycle, queue, kinds, grow=self._grow, without=set())
                if not line:
                    self._again(queue, over=True)
                    continue
            moves = state.checkpoint()
            if self._lost and self._hopeless(queue, line[0][2]):
                heappop(line)
            else:
                yield queue, line[0][0][2]
            if self._restacked:
                self._restacked = False
                continue
            if self._walks:
                self._walk(queue)
            if not line or state.checkpoint() != moves:
                self._again(queue, over=not line)

    def kind(self, queue: Queue) -> Kind:
        """The kind of the claim at the head of a queue."""
        return self.lines[queue.name][0][2]

    def done(self, queue: Queue) -> None:
        """The claim at the head of this queue needs no further turn."""
        line = self.lines[queue.name]
        _, at, kind = line[0]
        keys = queue.kinds[kind] if len(kind) > 1 else []
        following = _first(self.cycle, queue, kind, at) if keys else 0
        if following < len(keys):
            heapreplace(line, (keys[following], following, kind))
        else:
            heappop(line)

    def give_up(self, queue: Queue, work: Work, *, alike: bool = True) -> None:
        """The claim at the head of this queue got nothing: no further turn for it, nor for those it holds up.

        With ``alike``, what it asked for has no room, and so has nobody of its kind.
        """
        line = self.lines[queue.name]
        if self.cycle.holds_up(queue, work):
            line.clear()
            self._walks.pop(queue.name, None)
        elif alike:
            _, _, kind = heappop(line)
            self._note(queue, kind)
        else:
            self.done(queue)

    def _note(self, queue: Queue, kind: Kind) -> None:
        found = apart_from_time(kind)
        if found is not None:
            wish, length = found
            freed, least = self._lost.get((queue.name, wish), (-1, math.inf))
            now = self.cycle.state.freed
            self._lost[queue.name, wish] = (now, min(length, least) if freed == now else length)

    def _hopeless(self, queue: Queue, kind: Kind) -> bool:
        """Whether those of a kind find no room since others who asked for the same, for no longer, found none.

        They are heard nevertheless where being heard may keep them room ahead of time, or holds up others.
        """
        if queue.spec.ordering == "StrictFIFO" or self._everyone():
            return False
        found = apart_from_time(kind)
        if found is None:
            return False
        freed, least = self._lost.get((queue.name, found[0]), (-1, math.inf))
        return freed == self.cycle.state.freed and found[1] >= least

    def only(self, heard: Mapping[str, Collection[Kind]]) -> None:
        """Nobody is heard any more but these kinds, those who just started, and those of strict lines."""
        if not heard and not self._walks:
            self.lines, self._unmade, self.heaps, self._restacked = {}, {}, {"": []}, True
            return
        self._unmade = {name: heard[name] for name in self._unmade if name in heard}
        for name, line in self.lines.items():
            if line and name not in self._walks:
                kinds = set(heard.get(name, ()))
                line[:] = [entry for entry in line if len(entry[2]) == 1 or entry[2] in kinds]
                heapify(line)
        self.restack()

    def restack(self) -> None:
        """Works all standings out again: those of other queues changed too."""
        for name in [name for name in self._walks if name in self.lines]:
            self._walk(self.cycle.state.tree.queues[name])  # whoever is first now may not stand in the heap yet
        self._stack()
        self._restacked = True

    def _stack(self) -> None:
        """Puts the queues in which anybody waits for a turn, and those above them, into heaps: level by level."""
        self.heaps = {"": []}
        queues = self.cycle.state.tree.queues
        for name in self.lines:
            if not self._waits(name):
                continue
            for queue in queues[name].path:
                heap = self.heaps.setdefault(queue.parent.name if queue.parent else "", [])
                heap.append((standing(queue, self.total), queue.name, queue))
                if len(heap) > 1:
                    break  # those above stand in theirs already
        for heap in self.heaps.values():
            heapify(heap)

    def _waits(self, name: str) -> bool:
        """Whether anybody in a queue may have a turn."""
        return name in self._unmade or bool(self.lines.get(name))

    def _again(self, leaf: Queue, *, over: bool) -> None:
        for queue in leaf.path:
            heap = self.heaps[queue.parent.name if queue.parent else ""]
            if over:
                heappop(heap)
                over = not heap
            else:
                heapreplace(heap, (standing(queue, self.total), queue.name, queue))


class Walk:
    """How far a line was gone through in its order, beside those of it that may fit."""

    __slots__ = ("at", "grow", "met")

    def __init__(self, queue: Queue, met: set[Kind], *, grow: bool | None) -> None:
        self.at = 0
        self.met = met
        self.grow = grow


def line_up(
    cycle: Cycle, queue: Queue, kinds: Iterable[Kind], *, grow: bool | None, without: set[tuple[str, Kind]]
) -> Line:
    """The first open claim of some kinds of a queue; arguments as of :class:`Turns`."""
    line: Line = []
    strict = queue.spec.ordering == "StrictFIFO"
    for kind in kinds:
        if _other(kind, grow, strict=strict) or (queue.name, kind) in without:
            continue
        keys = queue.kinds[kind]
        at = _first(cycle, queue, kind)
        if at < len(keys):
            line.append((keys[at], at, kind))
    if grow is not False:  # those that started in this very cycle may grow at once
        for work in cycle.started_in.get(queue.name, {}).values():
            own: Kind = (work.name,)
            if work.kind not in (None, own) and any(work.pending) and (queue.name, own) not in without:
                line.append((cycle.state.lines.key_of(work), 0, own))
    heapify(line)
    return line


def _other(kind: Kind, grow: bool | None, *, strict: bool) -> bool:
    """Whether claims of a kind are not among those asked for; in a strict line everybody counts."""
    if len(kind) == 1 or strict:
        return False
    return grow is not None and (kind[0] == GROW) != grow


def _first(cycle: Cycle, queue: Queue, kind: Kind, after: int = -1) -> int:
    """The first member of a kind, behind a place, that still claims something; their number = none does."""
    works, keys = cycle.state.works, queue.kinds[kind]
    start = after + 1 if after >= 0 else cycle.passed.get((queue.name, kind), 0)
    found = start
    while found < len(keys) and not _claims(works[keys[found][2]], kind):
        found += 1
    if after < 0 and found > start:
        cycle.passed[queue.name, kind] = found
    return found


def _claims(work: Work, kind: Kind) -> bool:
    """Whether a workload still claims what its kind says."""
    if len(kind) == 1:
        return any(work.pending)
    if kind[0] == PROMISED:
        return work.pending[0] > 0  # a free place may come sooner than the one that it was promised
    if kind[0] == START and work.bound[0] >= work.spec.pod_sets[0].min:
        return False
    return work.pending[0] - work.held >= (work.spec.pod_sets[0].step if kind[0] == GROW else 1)
