"""One scheduling cycle: what its stages share, and how their outcome becomes a plan.

The stages move tasks inside one transaction on the state. The plan is the difference between the state
before and after; then everything is rolled back. So a task that one stage placed and a later one
displaced leaves no trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from heapq import heapify, heappop, heapreplace

import numpy as np

from heddle.engine.placement import Fence, Need, Placer
from heddle.engine.plan import Action, Bind, Budget, Evict, Reserve
from heddle.engine.queues import Queue, Standing, standing
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.shadow import Shadow, find_shadow, known_ends
from heddle.engine.state import State, Task, TaskState, Work

Place = tuple[Task, int, tuple[int, ...]]


class Cycle:
    """The state in transaction, the figures of this moment, and the reasons given so far."""

    def __init__(self, state: State, now: float, budget: Budget, barred: frozenset[str] = frozenset()) -> None:
        """Begins a cycle; for those who are ``barred`` nobody is made to leave."""
        state.settle()
        self.barred = barred
        state.age(now)
        self.state = state
        self.now = now
        self.budget = budget
        self.total: list[int] = state.nodes.total.tolist()
        state.tree.divide(self.total)
        state.tree.weigh_past(self.total, now)
        self.placer = Placer(state)
        self.bind_reason: dict[Task, Reason] = {}
        self.evict_reason: dict[Task, Reason] = {}
        self.unsearched: set[str] = set()
        self.gainers: set[str] = set()  # others leave for these: what they gained is not taken again
        self.redeemed: set[str] = set()  # these took up promises made in earlier cycles
        self._open: dict[str, list[str]] = {}
        self.searches = 0  # for work to evict, so far
        self.loosened = False  # room fell free at once while room was made: it may serve others yet
        self.moves_left = budget.moves
        self.shadows: dict[str, Shadow] = {}  # room kept ahead of time, by workload
        self._shadow_searches = 0
        self._reasons: dict[tuple[ReasonCode, str], Reason] = {}

    # -- claims ------------------------------------------------------------------------------------

    def active(self, queue: Queue) -> bool:
        """Whether work may be placed from this queue."""
        return queue.active and not queue.children and not queue.stopped

    def holds_up(self, queue: Queue, work: Work) -> bool:
        """Whether nobody behind this workload may start before it: a strict line, and its start is not sure."""
        return queue.spec.ordering == "StrictFIFO" and not work.whole() and not work.promised_whole()

    def head(self, queue: Queue) -> Work | None:
        """The first in a strict line that holds up those behind it; None = nobody."""
        if queue.spec.ordering != "StrictFIFO":
            return None
        waits = (self.state.works[key[2]] for key in queue.waiting)
        return next((work for work in waits if self.holds_up(queue, work)), None)

    def behind(self, queue: Queue, work: Work) -> Work | None:
        """The head of a strict line that this workload waits behind; None = it may start."""
        head = self.head(queue)
        return head if head and self.state.key_of(head) < self.state.key_of(work) else None

    def minimum(self, work: Work) -> Need | None:
        """The tasks that must start together; None when there are none to start, or too few exist."""
        missing = work.missing()
        if len(missing) == 1:
            count = missing[0]
            return ((0, count),) if 0 < count <= work.pending[0] else None
        if not any(missing):
            return None
        for wanted, there in zip(missing, work.pending, strict=True):
            if wanted > there:
                return None
        return tuple((part, count) for part, count in enumerate(missing) if count)

    def growth(self, work: Work) -> Need | None:
        """The next single task beyond the minimum; None when there is none or the minimum does not run."""
        return next(self.growths(work), None)

    def growths(self, work: Work) -> Iterator[Need]:
        """The same for each pod set: one that cannot grow keeps no room from the others."""
        if not any(work.pending) or not (work.whole() if not work.held else work.promised_whole()):
            return
        for part, waiting in enumerate(work.pending):
            if waiting > sum(1 for task in work.order[part] if task.hold and task.state is TaskState.PENDING):
                yield ((part, 1),)

    def open_need(self, work: Work) -> Need | None:
        """What a claim still lacks, promises of this cycle counted; None for those who wait on an earlier promise."""
        if not work.held:
            return self.minimum(work) or self.growth(work)
        touched = self.state.touched or {}
        for task in work.tasks.values():
            if task.hold and (task not in touched or touched[task][3] is not None):
                return None
        return self.growth(work)

    def open_claims(self, queue: Queue) -> list[str]:
        """Workloads of a queue that still have pending tasks, first claim first."""
        names = self._open.get(queue.name)
        if names is None:
            names = [key[2] for key in queue.waiting]
        else:
            works = self.state.works
            names = [name for name in names if any(works[name].pending)]
        self._open[queue.name] = names
        return names

    def reopen(self) -> None:
        """Placed work was displaced: its claims are open again."""
        self._open = {}

    def demand(self, work: Work, need: Need) -> list[int]:
        """What a need amounts to, per resource."""
        total = [0] * len(self.total)
        for part, count in need:
            cls = work.parts[part]
            for column in cls.used:
                total[column] += cls.needs[column] * count
        return total

    def reason(self, code: ReasonCode, queue: str) -> Reason:
        """A shared reason that names only a queue."""
        key = (code, queue)
        found = self._reasons.get(key)
        if found is None:
            found = self._reasons[key] = Reason(code, queue=queue)
        return found

    def gathers(self, demand: list[int]) -> bool:
        """Whether what is idle would be enough in sum: moving work makes no room, it only gathers it."""
        nodes = self.state.nodes
        rows = np.flatnonzero(nodes.open)
        return all(
            not wanted or int(np.maximum(nodes.land[rows, column], 0).sum()) >= wanted
            for column, wanted in enumerate(demand)
        )

    # -- room kept ahead of time -------------------------------------------------------------------

    def end_of(self, work: Work) -> float:
        """When a workload ends that runs or would start now; infinite where its walltime is not known."""
        if work.spec.walltime is None:
            return math.inf
        return (self.now if work.end is None else work.started) + work.spec.walltime

    def outlasts(self, work: Work) -> list[Shadow]:
        """The shadows of others that a workload would still be running in."""
        if not self.shadows:
            return []
        end = self.end_of(work)
        return [shadow for shadow in self.shadows.values() if shadow.at < end and shadow.work is not work]

    def leaves_room(self, work: Work, queue: Queue, demand: list[int], places: list[Place]) -> bool:
        """Whether places just found for a workload leave others what is kept for them; if so, it is noted."""
        kept = self.outlasts(work)
        fixed = not work.spec.preemptible
        if not all(shadow.admits(queue, demand, fixed=fixed) for shadow in kept):
            return False
        fence = Fence(kept, self.state.nodes)
        for task, row, devices in places:
            fence.take(task.cls, row, devices)
        if fence.overdrawn():
            fence.back()
            return False
        for shadow in kept:
            shadow.charge(queue, demand, fixed=fixed)
        return True

    def keep_ahead(self, work: Work, queue: Queue, need: Need, demand: list[int], *, within: bool) -> None:
        """Keeps room ahead of time for a claim that cannot start, as far as the budget goes.

        ``within``: only if the claim will then keep its queue, and all above it, within share.
        """
        budget = self.budget
        if len(self.shadows) >= budget.shadows or self._shadow_searches >= budget.shadow_searches:
            return
        if work.held or work.name in self.shadows:
            return
        started = {task.work for task in self.bind_reason if task.state is TaskState.BOUND}
        ends = known_ends(self.state, started, self.now, budget.overdue)
        if not ends:
            return
        self._shadow_searches += 1
        shadow = find_shadow(self.placer, work, queue, need, demand, ends, within=within)
        if shadow is not None:
            self.shadows[work.name] = shadow

    def started(self, task: Task, reason: Reason) -> None:
        """Notes why a task got its place; binds are carried out in the order of these notes."""
        self.bind_reason.pop(task, None)
        self.bind_reason[task] = reason

    # -- outcome -----------------------------------------------------------------------------------

    def actions(self) -> tuple[Action, ...]:
        """The difference that the transaction made: binds, then evictions, then reservations."""
        state = self.state
        binds: list[Action] = []
        evicts: list[Action] = []
        promised: dict[str, None] = {}
        touched = state.touched or {}
        for task, reason in self.bind_reason.items():
            if touched[task][0] is TaskState.PENDING and task.state is TaskState.BOUND:
                binds.append(Bind(state.place_of(task, task.row, task.devices), reason))
        for task in sorted(touched, key=lambda task: (task.work.name, task.part, task.name)):
            was, _row, _devices, hold = touched[task]
            if was is TaskState.BOUND and task.state is TaskState.RELEASING:
                evicts.append(Evict(task.work.name, task.name, self.evict_reason[task]))
            if hold != task.hold and not (task.hold is None and task.state is TaskState.BOUND):
                promised[task.work.name] = None
        reserves: list[Action] = []
        for name in promised:
            tasks = state.works[name].tasks.values()
            held = [state.place_of(task, *task.hold) for task in tasks if task.hold]
            reserves.append(Reserve(name, tuple(held)))
        return (*binds, *evicts, *reserves)


class Turns:
    """Whose turn it is: the queue furthest below its share, level by level; inside it, its next workload.

    Only the queue whose turn it was changes its standing between two calls, so each level is a heap of
    which only the head is worked out again, and only when something moved.
    """

    def __init__(self, cycle: Cycle) -> None:
        self.cycle = cycle
        self.total = cycle.total
        self.at: dict[str, int] = {}
        self.lists: dict[str, list[str]] = {}
        self.heaps: dict[str, list[tuple[Standing, str, Queue]]] = {}
        self._collect("", cycle.state.tree.tops)

    def _collect(self, above: str, level: list[Queue]) -> bool:
        heap = []
        for queue in level:
            if queue.children:
                some = self._collect(queue.name, queue.children)
            else:
                names = self.lists[queue.name] = self.cycle.open_claims(queue)
                some = bool(names) and self.cycle.active(queue)
            if some:
                heap.append((standing(queue, self.total), queue.name, queue))
        heapify(heap)
        self.heaps[above] = heap
        return bool(heap)

    def __iter__(self) -> Iterator[tuple[Queue, str]]:
        """Yields (queue, workload); the same workload comes again until :meth:`done` is called."""
        state = self.cycle.state
        heaps, lists, places = self.heaps, self.lists, self.at
        top = heaps[""]
        while top:
            queue = top[0][2]
            while queue.children:
                queue = heaps[queue.name][0][2]
            names = lists[queue.name]
            moves = state.checkpoint()
            yield queue, names[places.get(queue.name, 0)]
            over = places.get(queue.name, 0) >= len(names)
            if over or state.checkpoint() != moves:
                self._again(queue, over=over)

    def done(self, queue: Queue) -> None:
        """The workload at the head of this queue needs no further turn."""
        self.at[queue.name] = self.at.get(queue.name, 0) + 1

    def give_up(self, queue: Queue, work: Work) -> None:
        """The workload at the head of this queue got nothing: no further turn for it, nor for those it holds up."""
        if self.cycle.holds_up(queue, work):
            self.at[queue.name] = len(self.lists[queue.name])
        else:
            self.done(queue)

    def _again(self, leaf: Queue, *, over: bool) -> None:
        for queue in leaf.path:
            heap = self.heaps[queue.parent.name if queue.parent else ""]
            if over:
                heappop(heap)
                over = not heap
            else:
                heapreplace(heap, (standing(queue, self.total), queue.name, queue))
