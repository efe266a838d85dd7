"""One scheduling cycle: what its stages share, and how their outcome becomes a plan.

The stages move tasks inside one transaction on the state. The plan is the difference between the state
before and after; then everything is rolled back. So a task that one stage placed and a later one
displaced leaves no trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from heddle.engine import patience
from heddle.engine.asks import Heard, Tried
from heddle.engine.kinds import Kind, Wish
from heddle.engine.lostwork import reckoned_at
from heddle.engine.nodes import Ints
from heddle.engine.placement import Fence, Need, Placer
from heddle.engine.plan import Action, Bind, Budget, Evict, Reserve
from heddle.engine.queues import Queue
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.scores import RequestClass
from heddle.engine.shadow import Shadow, find_shadow, known_ends
from heddle.engine.speeds import slowness
from heddle.engine.stamps import ON_TRIAL, Stamp
from heddle.engine.state import State
from heddle.engine.steps import to_grow
from heddle.engine.work import Task, TaskState, Work

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
        self.losses_at = reckoned_at(now)
        self.dear: dict[Work, tuple[int, ...]] = {}  # how dear it is that they leave, of those that nothing was done to
        self.budget = budget
        self.total = state.totals()
        state.tree.divide(self.total)
        state.tree.weigh_past(self.total, now)
        self.lines = state.lines.queues()
        self.placer = Placer(state, now)
        self.bind_reason: dict[Task, Reason] = {}
        self.evict_reason: dict[Task, Reason] = {}
        self.unsearched: set[str] = set()
        self.unsearched_kinds: set[tuple[str, Kind]] = set()
        self.gainers: set[str] = set()  # others leave for these: what they gained is not taken again
        self.redeemed: set[str] = set()  # these took up promises made in earlier cycles
        self.passed: dict[tuple[str, Kind], int] = {}  # members of a kind, from the first, that claim nothing
        self.started_in: dict[str, dict[str, Work]] = {}  # by queue: what got a place in this cycle
        self._timed: dict[Work, None] = {}  # of known walltime, and placed in this cycle
        self.barren: dict[tuple[object, ...], set[int]] = {}  # rows on which a kind of search found nobody to evict
        self.searches = 0  # for work to evict, so far
        self.near = 0  # of these, those that failed by how tasks or gains fit: a lower priority might fare better
        self.loosened = False  # room fell free at once while room was made: it may serve others yet
        self.moves_left = budget.moves
        self.shadows: dict[str, Shadow] = {}  # room kept ahead of time, by workload
        self.spared_until = math.inf  # the earliest moment at which a minimum runtime ends that spared somebody
        self.budgets: set[str] = set()  # disruption budgets that kept somebody where he is
        self.impatient, self.patient_until = patience.outlook(state, now)
        self.company: set[tuple[Task, int]] = set()  # who had come, and where, when all who seek it were last heard
        self._shadow_searches = 0
        # as of which value of `freed` and how many moves there may be a free place for which rows of `asks`
        self._fitting: tuple[int, int, Ints | None] = (-1, 0, None)
        self._freed = state.freed
        # claims that got nothing while these stay get nothing now: as long as no share changes, and without shares
        self.stamp = state.stamp_of_gains(budget, self.losses_at)
        self.held_stamp = Stamp(state.placed, state.placed)
        self.doubts = 0  # decisions so far that rest on the time, on other claims, or on what protects somebody
        self.dated = 0  # such as rest on who loses less, as of `losses_at`
        self._reasons: dict[tuple[ReasonCode, str], Reason] = {}

    # -- claims ------------------------------------------------------------------------------------

    def holds_up(self, queue: Queue, work: Work) -> bool:
        """Whether nobody behind this workload may start before it: a strict line, and its start is not sure."""
        return queue.spec.ordering == "StrictFIFO" and not work.whole() and not work.promised_whole()

    def head(self, queue: Queue) -> Work | None:
        """The first in a strict line that holds up those behind it; None = nobody."""
        if queue.spec.ordering != "StrictFIFO":
            return None
        for key in queue.waiting:
            if self.holds_up(queue, work := self.state.works[key[2]]):
                return work
        return None

    def behind(self, queue: Queue, work: Work) -> Work | None:
        """The head of a strict line that this workload waits behind; None = it may start."""
        head = self.head(queue)
        return head if head and self.state.lines.key_of(head) < self.state.lines.key_of(work) else None

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
        """The next step (a task), or group, beyond the minimum; None when there is none or the minimum does not run."""
        return next(self.growths(work), None)

    def growths(self, work: Work) -> Iterator[Need]:
        """The same for each pod set and group: one that cannot grow keeps no room from the others."""
        if not any(work.pending) or not (work.whole() if not work.held else work.promised_whole()):
            return
        held = [0] * len(work.pending)
        for task in work.tasks.values() if work.held else ():
            held[task.part] += task.hold is not None and task.state is TaskState.PENDING
        free = [waiting - promised for waiting, promised in zip(work.pending, held, strict=True)]
        groups = work.groups
        counts = work.bound
        if work.held:  # also of those that still leave for the place that is promised to them
            counts = [runs + promised for runs, promised in zip(counts, work.promised(), strict=True)]
        if groups is not None and (need := groups.next(counts, free)):
            yield need
        for part, left in enumerate(free):
            # a task beyond a group's minimum starts only once the group runs, not when it is promised
            alone = groups is None or groups.of[part] < 0 or groups.whole(groups.of[part], work.bound)
            if not work.spec.pod_sets[part].resizable and any(map(self.state.ran_before, work.order[part])):
                continue
            count = to_grow(work.spec.pod_sets[part], counts[part])
            if left >= count and alone and work.unready(part) is None:
                yield ((part, count),)

    def open_need(self, work: Work) -> Need | None:
        """What a claim still lacks, promises of this cycle counted; None for those who wait on an earlier promise."""
        if not work.held:
            return self.minimum(work) or self.growth(work)
        if work.waits_in_order():
            return None  # its minimum is sure, and what is more can wait until that has started
        touched = self.state.touched or {}
        for task in work.tasks.values():
            if task.hold and (task not in touched or touched[task][3] is not None):
                return None
        return self.growth(work)

    def hold_back(self, placed: list[Task]) -> list[Task]:
        """Turns places of tasks that must wait for others of their workload into promises; returns those that start."""
        starts = [task for task in placed if task.work.unready(task.part) is None]
        for task in placed if len(starts) < len(placed) else ():
            if task not in starts:
                row, devices = task.row, task.devices
                self.state.move(task, TaskState.PENDING)
                self.state.hold(task, row, devices)
        return starts

    def placed_now(self, task: Task) -> bool:
        """Whether a task that runs was placed in this very cycle: taking it back stops nothing that ran before."""
        before = (self.state.touched or {}).get(task)
        return before is not None and before[0] is TaskState.PENDING

    def evict(self, task: Task, reason: Reason) -> None:
        """Makes a running task leave, and notes why."""
        self.state.move(task, TaskState.RELEASING, task.row, task.devices, task.since)
        self.evict_reason[task] = reason

    def reopen(self) -> None:
        """Placed work was displaced: its claims are open again."""
        self.passed = {}

    def demand(self, work: Work, need: Need) -> list[int]:
        """What a need amounts to, per resource: at most, where that depends on the place."""
        total = [0] * len(self.total)
        for part, count in need:
            cls = work.parts[part]
            for column in cls.charged:
                total[column] += cls.needs[column] * count
        return total

    def amounts(self, tasks: Mapping[RequestClass, int]) -> list[int]:
        """What so many tasks of some classes amount to, per resource."""
        total = [0] * len(self.total)
        for cls, count in tasks.items():
            for column in cls.charged:
                total[column] += cls.needs[column] * count
        return total

    @staticmethod
    def gpus(work: Work, need: Need) -> int:
        """The fewest GPUs, in thousandths, that a need takes wherever it lands."""
        return sum(work.parts[part].least[0] * count for part, count in need)

    def reason(self, code: ReasonCode, queue: str) -> Reason:
        """A shared reason that names only a queue."""
        key = (code, queue)
        found = self._reasons.get(key)
        if found is None:
            found = self._reasons[key] = Reason(code, queue=queue)
        return found

    def at_start(self) -> bool:
        """Whether nothing has been tried yet: what fails now fails until more room has become free."""
        return not self.state.checkpoint() and self.state.freed == self._freed

    def remembered_as(self, stamp: Stamp, doubts: int, dated: int) -> int | None:
        """With which number of a stamp it may be remembered that somebody gained nothing, if there had been so many
        doubts, and decisions that rest on losses, before he was tried; None = it may not."""
        if self.doubts != doubts or not self.untouched():
            return None
        return stamp.lasting if self.dated == dated else stamp.dated

    def known_in_vain(self, what: Tried, queue: Queue, kind: Kind, stamp: Stamp) -> bool:
        """Whether it is known that those of a kind get nothing as things stand."""
        return self.untouched() and self.state.lines.asks.known(what, queue.name, kind, stamp)

    def untouched(self) -> bool:
        """Whether nobody has a place more or less than at the start, and nobody is barred: what fails now fails until
        something changes."""
        return not self.state.checkpoint() and not self.barred

    def silent(self, heard: Heard) -> bool:
        """Whether nobody has a turn where only these kinds are heard: nor those who just started, or a strict line."""
        return not (heard or self.started_in or self.state.tree.strict)

    def may_be_placed(self, what: Wish, *, within: bool) -> Heard:
        """The kinds for whose wish there may be a free place; with ``within``, only such as may keep shares by it."""
        state = self.state
        asks, freed, fitting = state.lines.asks, state.freed, None
        if what is Wish.GROW and not asks.growing:
            return {}
        if self._fitting[0] == freed:  # what others took meanwhile left no more for anybody
            fitting = self._fitting[2]
            if fitting is not None and not fitting.size:
                return {}
        point = state.checkpoint()
        if self._fitting[:2] != (freed, point) and (fitting is None or fitting.size):
            fitting = asks.to_place(
                self._idle, freed, state.freed_rows, state.nodes.bind, fitting, note=self.at_start()
            )
        self._fitting = (freed, point, fitting)
        if fitting is None or not fitting.size:
            return {}
        return asks.of(fitting, what, state.tree.slack.to_start(within=within))

    def _idle(self) -> Ints:
        return self.state.nodes.idle(land=False)

    def few_rows_freed(self) -> bool:
        """Whether it is known on which few rows room became free since most claims were last tried in vain."""
        state = self.state
        return state.lines.asks.rows_known(state.freed, state.freed_rows)

    def may_gather(self) -> Heard:
        """The kinds for which enough may be idle, if only in many places."""
        state = self.state
        stamp = self.held_stamp if self.untouched() else ON_TRIAL
        if state.lines.asks.nobody(Tried.GATHER, stamp):
            return {}
        return state.lines.asks.to_gather(state.nodes.idle(land=True), stamp)

    def may_gain(self) -> Heard:
        """The kinds for which others may leave: those within their queue's share or quota, and those of a higher
        priority than something that has a place in their queue; with those that fit where others leave already."""
        state = self.state
        stamp = self.stamp if self.untouched() else ON_TRIAL
        if state.lines.asks.nobody(Tried.GAIN, stamp):
            return {}
        idle = state.nodes.idle(land=True) if state.holders or state.nodes.leaving else None
        return state.lines.asks.to_gain(stamp, state.tree.slack.own(), state.tree.slack.lowest(), idle)

    def gathers(self, work: Work, need: Need, demand: list[int]) -> bool:
        """Whether what is idle would be enough in sum: moving work makes no room, it only gathers it."""
        demand = [self.gpus(work, need), *demand[1:]]
        nodes = self.state.nodes
        counted = self.state.tree.counters.cap
        return all(
            not wanted or column in counted or nodes.free(column, land=True) >= wanted
            for column, wanted in enumerate(demand)
        )

    # -- room kept ahead of time -------------------------------------------------------------------

    def end_of(self, work: Work) -> float:
        """When a workload ends that runs or would start now; infinite where its walltime is not known."""
        if work.spec.walltime is None:
            return math.inf
        return (self.now if work.end is None else work.started) + work.spec.walltime * slowness(work)

    def may_keep_ahead(self) -> bool:
        """Whether a claim that cannot start might still have room kept ahead of time."""
        budget = self.budget
        if len(self.shadows) >= budget.shadows or self._shadow_searches >= budget.shadow_searches:
            return False
        return bool(self.impatient or self.state.lines.ends or self._timed or self.state.lines.asks.timed)

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

    def keep_ahead(self, work: Work, queue: Queue, need: Need, *, within: bool) -> bool:
        """Keeps room ahead of time for a claim that cannot start, as far as the budget goes; True when it does.

        ``within``: only if the claim will then keep its queue, and all above it, within share.
        """
        budget = self.budget
        if not self.may_keep_ahead():
            return False
        if work.held or work.name in self.shadows:
            return False
        lost = within and self.impatient and patience.due(work, queue) <= self.now
        if not (lost or self.state.lines.ends or self._timed):
            return False
        started = [other for other in self._timed if any(other.bound)]
        ends = known_ends(self.state, started, self.now, budget.overdue)
        if lost:
            ends += patience.unknown_ends(self.state, patience.due(work, queue))
        if not ends:
            return False
        self._shadow_searches += 1
        shadow = find_shadow(self.placer, work, queue, need, self.demand(work, need), ends, within=within)
        if shadow is None:
            return False
        if shadow.at >= patience.UNKNOWN:  # whoever starts now, however short, may be in its way
            shadow.at, shadow.drains = self.now, True
        self.shadows[work.name] = shadow
        return True

    def started(self, task: Task, reason: Reason) -> None:
        """Notes why a task got its place; binds are carried out in the order of these notes."""
        self.bind_reason.pop(task, None)
        self.bind_reason[task] = reason
        work = task.work
        if work.spec.walltime is not None:
            self._timed[work] = None
        if any(work.pending):
            self.started_in.setdefault(work.spec.queue, {})[work.name] = work

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
                binds.append(Bind(state.places.of(task, task.row, task.devices), reason))
        for task in sorted(touched, key=lambda task: (task.work.name, task.part, task.name)):
            was, _row, _devices, hold = touched[task]
            if was is TaskState.BOUND and task.state is TaskState.RELEASING:
                evicts.append(Evict(task.work.name, task.name, self.evict_reason[task]))
            if hold != task.hold and not (task.hold is None and task.state is TaskState.BOUND):
                promised[task.work.name] = None
        reserves: list[Action] = []
        for name in promised:
            tasks = state.works[name].tasks.values()
            held = [state.places.of(task, *task.hold) for task in tasks if task.hold]
            reserves.append(Reserve(name, tuple(held)))
        return (*binds, *evicts, *reserves)
