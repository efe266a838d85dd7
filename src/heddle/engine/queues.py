"""The queue tree: usage, caps, fair shares, and who may take from whom.

Usage has four counters per queue and resource: ``running``, ``releasing`` (evicted, still there),
``reserved`` (promised), and ``fixed`` (running or reserved work that is not preemptible). They are plain
Python lists, since the tree is walked one queue at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from heddle.engine.counters import Counters
from heddle.engine.fairshare import UNBOUNDED, divide
from heddle.engine.lending import Lending
from heddle.engine.living import Living
from heddle.engine.model import Ageing, QueueSpec
from heddle.engine.nodes import by_name
from heddle.engine.slack import Slack
from heddle.engine.submitters import Submitters
from heddle.engine.usage import PastUsage, advanced, burden

Amounts = list[int]


class Queue:
    """A queue and its counters; ``path`` runs from it up to the top."""

    __slots__ = (
        "active", "below", "burden", "ceiling", "children", "drain_after", "fixed", "growing", "keep", "keeps",
        "kinds", "limit", "live", "most", "name", "number", "parent", "past", "path", "place", "preempt_min",
        "priority", "quota", "reclaim_min", "releasing", "request", "reserved", "rows", "running", "share", "spec",
        "stood", "stopped", "submitters", "tick", "waiting", "want", "weight", "works",
    )  # fmt: skip

    def __init__(self, spec: QueueSpec, width: int) -> None:
        self.name = spec.name
        self.running: Amounts = [0] * width
        self.releasing: Amounts = [0] * width
        self.reserved: Amounts = [0] * width
        self.fixed: Amounts = [0] * width
        self.request: Amounts = [0] * width  # all tasks of its own workloads, running or not
        self.want: Amounts | None = None  # what it and those below ask for, within caps; None = to be summed up anew
        self.below: Amounts = []  # what its children ask for in all, each within its caps
        self.share: Amounts = [0] * width
        self.stood: Standing | None = None  # its standing, while nothing that it rests on changes
        self.waiting: list[tuple[int, float, str]] = []  # keys of own workloads with pending tasks, sorted
        self.kinds: dict[tuple[object, ...], list[tuple[int, float, str]]] = {}  # the same by kind (kinds.Kind)
        self.number = 0  # among all queues
        self.place = 0  # among those of its level
        self.growing: dict[str, Any] = {}  # those of them of which something runs (work.Work)
        self.works: dict[str, Any] = {}  # own workloads by name (work.Work)
        self.rows: dict[int, int] = {}  # of nodes, with how many tasks of preemptible work run or are promised a place
        self.live = Living()  # those of them that run or are promised a place
        self.children: list[Queue] = []
        self.parent: Queue | None = None
        self.path: tuple[Queue, ...] = (self,)
        self.tick = 0  # up to which ages in its line are counted (Ageing.tick)
        self.past: PastUsage | None = None  # decayed use, as last noted or given
        self.burden = 0.0  # what past use counts for in this cycle
        self.active = True
        self.preempt_min = self.reclaim_min = 0.0  # seconds for which work below keeps its minimum
        self.drain_after = math.inf  # seconds after which a claim has nodes kept for it, whatever is known of ends
        self.stopped: Queue | None = None  # itself or the nearest above that starts nothing new
        self.submitters: Submitters | None = None  # counted only where a queue caps them
        self.spec = spec
        self.priority = spec.priority
        self.quota: Amounts = []  # this and the next are filled in by QueueTree.settle
        self.limit: Amounts = []
        self.ceiling: Amounts = []  # quota and what may be borrowed
        self.most: Amounts = []  # the lower of limit and ceiling
        self.keep: Amounts = []  # what is not lent of the quota
        self.keeps = False  # it or one below keeps anything
        self.weight: list[float] = []

    def settle_on(self, row: int, sign: int) -> None:
        """Counts a task of preemptible work into, or out of, those on a row of nodes."""
        there = self.rows.get(row, 0) + sign
        if there:
            self.rows[row] = there
        else:
            del self.rows[row]

    @property
    def starts(self) -> bool:
        """Whether work may be placed from it."""
        return self.active and not self.children and not self.stopped

    def used(self, column: int) -> int:
        """What counts as the queue's own: running and promised."""
        return self.running[column] + self.reserved[column]

    def taken(self, column: int, *, land: bool) -> int:
        """What counts against caps: with ``land`` once all who leave have left, else now."""
        reserved = self.reserved[column]
        return self.running[column] + (reserved if land else max(reserved, self.releasing[column]))


def past_at(queue: Queue, resources: Sequence[str], now: float) -> PastUsage | None:
    """A queue's decayed use at a moment, with what runs since it was last noted; None = it does not count."""
    if queue.spec.usage_half_life is None or queue.past is None:
        return None
    amounts = zip(resources, queue.running, queue.releasing, strict=True)
    used = {name: runs + leaves for name, runs, leaves in amounts if runs or leaves}
    return advanced(queue.past, used, queue.spec.usage_half_life, now)


class CapKind(StrEnum):
    """Which number of a queue stands in the way."""

    LIMIT = "limit"
    QUOTA = "quota"
    BORROWING = "borrowing"
    LENDING = "lending"
    USER = "user"
    COUNTER = "counter"


@dataclass(frozen=True, slots=True)
class Cap:
    """A cap that stops a demand: whose, in which resource, and the figures.

    Attributes:
        everywhere: it is the cluster's, and the queue only that of the demand.
        user: whose use a cap per submitter counts.
    """

    queue: Queue
    column: int
    cap: int
    used: int
    wanted: int
    kind: CapKind = CapKind.LIMIT
    everywhere: bool = False
    user: str = ""

    def relieved_by(self, queue: Queue, user: str) -> bool:
        """Whether the cap would have more room were work of this queue and submitter gone."""
        if self.kind is CapKind.USER and user != self.user:
            return False
        return self.everywhere or self.queue in queue.path


class Division:
    """How a resource was last divided among the queues of a level."""

    __slots__ = ("owed", "plenty", "shares", "total", "want")

    def __init__(self, total: int, want: Amounts, shares: Amounts, *, owed: bool, plenty: bool) -> None:
        self.total = total
        self.want = want
        self.shares = shares
        self.owed = owed  # nobody asked for more than his quota: whatever there is, each has what he asks for
        self.plenty = plenty  # everybody got what he asked for


class QueueTree:
    """All queues. Specs may come in any order; :meth:`settle` works the tree out again when they changed."""

    def __init__(self, resources: list[str], free: Callable[[int, bool], int]) -> None:
        """A tree over resources; ``free`` says how much of one is free now, or once all who leave have left."""
        self.resources = resources
        self.queues: dict[str, Queue] = {}
        self.tops: list[Queue] = []
        # those of whom a policy speaks that most queues do not have, by name
        self.halted: list[Queue] = []
        self.strict: list[Queue] = []
        self.ageing: list[Queue] = []
        self.decaying: list[Queue] = []
        self.patient: list[Queue] = []
        self.stale = True
        self.columns: list[int] = []  # of resources, whichever was heard of first
        self.moved = 0  # moves with every counter: what is remembered of them must be worked out again
        self.version = 0  # of the counters; what was rolled back leaves them, and this, as they were before
        self.changed: set[Queue] = set()  # whose counters, share or work in places did, since `slack` was last asked
        self._slack = Slack((), 0)
        self.shares = 0  # moves whenever somebody's share does of what not everybody gets as much of as he asks for
        self.lending = Lending(self, free)
        self.counts_users = False
        self.counters = Counters()
        # of those below a queue ("" = the tops): what they divide, and how it was divided, per resource
        self._given: dict[str, Amounts] = {}
        self._divided: dict[tuple[str, int], Division] = {}
        self._nothing: Amounts = []
        self._total: Amounts = []  # what there was of each resource when it was last divided
        self._asked: dict[Queue, None] = {}  # those whose own work has asked for something else since
        self.ages: list[Ageing] = []  # by which lines age, each once

    def widen(self) -> None:
        """Adds counters for resources that were appended to the shared list."""
        for queue in self.queues.values():
            extra = len(self.resources) - len(queue.running)
            for name in ("running", "releasing", "reserved", "fixed", "request", "share"):
                getattr(queue, name).extend([0] * extra)
        self.stale = True

    def settle(self) -> None:
        """Links parents, finds missing ones and cycles, sums counters upwards. Only after specs changed."""
        if not self.stale:
            return
        self.stale = False
        self.tops = []
        self.columns = by_name(range(len(self.resources)), self.resources)
        self.counters.sort(self.columns)
        self._given, self._divided, self._nothing = {}, {}, [0] * len(self.resources)
        self._total = []
        self.shares += 1
        self.counts_users = any(queue.spec.user_limit for queue in self.queues.values())
        for number, queue in enumerate(self.queues.values()):
            queue.number = number
            queue.want, queue.burden = None, 0.0
            queue.submitters = Submitters(queue.spec.user_limit, self.resources) if queue.spec.user_limit else None
            queue.children = []
            spec = queue.spec
            queue.priority = spec.priority
            queue.quota = [_bound(spec.quota.get(name)) for name in self.resources]
            queue.limit = [_bound(spec.limit.get(name)) for name in self.resources]
            queue.weight = [spec.weight_of(name) for name in self.resources]
            borrows = [_bound(spec.borrowing_limit.get(name)) for name in self.resources]
            queue.ceiling = [min(a + b, UNBOUNDED) for a, b in zip(queue.quota, borrows, strict=True)]
            queue.most = [min(a, b) for a, b in zip(queue.limit, queue.ceiling, strict=True)]
            lends = [_bound(spec.lending_limit.get(name)) for name in self.resources]
            queue.keep = [
                max(0, min(quota, most) - lent) if lent < UNBOUNDED else 0
                for quota, most, lent in zip(queue.quota, queue.most, lends, strict=True)
            ]
        for name in sorted(self.queues):
            queue = self.queues[name]
            path, seen, at = [queue], {name}, queue
            queue.active = True
            while at.spec.parent is not None:
                above = self.queues.get(at.spec.parent)
                if above is None or above.name in seen:
                    queue.active = False
                    break
                seen.add(above.name)
                path.append(above)
                at = above
            queue.path = tuple(path) if queue.active else (queue,)
            if not queue.active:
                queue.share = [0] * len(self.resources)  # nothing is divided among such as it
            queue.preempt_min = _nearest(at.spec.preempt_min_runtime for at in queue.path)
            queue.reclaim_min = _nearest(at.spec.reclaim_min_runtime for at in queue.path)
            queue.drain_after = _nearest((at.spec.drain_after for at in queue.path), math.inf)
            queue.stopped = next((at for at in queue.path if at.spec.stop_policy != "None"), None)
            queue.parent = path[1] if queue.active and len(path) > 1 else None
            if queue.active:
                level = queue.parent.children if queue.parent else self.tops
                queue.place = len(level)
                level.append(queue)
        every = [self.queues[name] for name in sorted(self.queues)]
        self.halted = [queue for queue in every if queue.stopped]
        self.strict = [queue for queue in every if queue.spec.ordering == "StrictFIFO"]
        self.ageing = [queue for queue in every if queue.spec.ageing is not None]
        self.ages = [*{queue.spec.ageing: None for queue in every if queue.spec.ageing is not None}]
        self.decaying = [queue for queue in every if queue.spec.usage_half_life is not None]
        self.patient = [queue for queue in every if queue.drain_after < math.inf]
        self.lending.settle()
        self._slack = Slack([*self.queues.values()], len(self.resources))
        self.changed = {*self.queues.values()}
        for queue in self.changed:
            queue.stood = None

    def move_on(self) -> None:
        """Some counter is about to change."""
        self.moved += 1
        self.version = self.moved

    def touch(self, queue: Queue) -> None:
        """Counters of a queue, and of all above it, or its work in places, are about to change."""
        for at in queue.path:
            self.changed.add(at)
            at.stood = None

    @property
    def slack(self) -> Slack:
        """What each queue has left, as it is now."""
        if self.changed:
            self._slack.update(self.changed)
        return self._slack

    # -- caps --------------------------------------------------------------------------------------

    def stopped_by(
        self, queue: Queue, demand: Sequence[int], *, fixed: bool, user: str, land: bool, included: bool = False
    ) -> Cap | None:
        """The first cap, from the queue upwards, that a further demand of a submitter would break; None = admitted.

        With ``included`` the demand is in the counters already, and the question is whether a cap is broken.
        """
        for at in queue.path:
            for column in self.columns:
                wanted = demand[column]
                if not wanted:
                    continue
                used = at.running[column] - wanted * included
                used += at.reserved[column] if land else max(at.reserved[column], at.releasing[column])
                if used + wanted > at.most[column]:
                    if used + wanted > at.limit[column]:
                        return Cap(at, column, at.limit[column], used, wanted)
                    if used + wanted > at.ceiling[column]:
                        return Cap(at, column, at.ceiling[column], used, wanted, CapKind.BORROWING)
                if fixed and at.fixed[column] + wanted * (not included) > at.quota[column]:
                    return Cap(at, column, at.quota[column], at.fixed[column], wanted, CapKind.QUOTA)
        if self.counts_users and (cap := self._stops_user(queue, demand, user, land=land, included=included)):
            return cap
        if self.counters.cap and (less := self.counters.short(demand, land=land, included=included)):
            return Cap(queue, *less, CapKind.COUNTER, everywhere=True)
        if self.lending.columns and (found := self.lending.shortage(queue, demand, land=land, included=included)):
            where, column, most, used, more = found
            return Cap(where or queue, column, most, used, more, CapKind.LENDING, everywhere=where is None)
        return None

    def _stops_user(self, queue: Queue, demand: Sequence[int], user: str, *, land: bool, included: bool) -> Cap | None:
        for at in queue.path:
            if at.submitters is None:
                continue
            for column in self.columns:
                wanted = demand[column]
                used = at.submitters.taken(user, column, land=land) - wanted * included
                cap = at.submitters.limit[column]
                if wanted and used + wanted > cap:
                    return Cap(at, column, cap, used, wanted, CapKind.USER, user=user)
        return None

    # -- fair share --------------------------------------------------------------------------------

    def asked(self, queue: Queue) -> None:
        """What the work of a queue asks for has changed."""
        self._asked[queue] = None

    def divide(self, total: Sequence[int]) -> None:
        """Writes every queue's fair share, level by level from the top. Costs what changed since the last time."""
        if self._total != total:
            self._total = list(total)
            for queue in self.queues.values():
                queue.stood = None
        elif not self.halted and self._all_taken_up():
            return
        for queue in (*self._asked, *self.halted):
            for at in queue.path:
                at.want = None
        self._asked = {}
        anew: set[str] = set()
        if any(queue.want is None for queue in self.tops):
            self._sum_up("", self.tops, anew)
        self._divide("", self.tops, list(total), anew)

    def _all_taken_up(self) -> bool:
        """Takes up what queues ask for now, as long as no other's share depends on it."""
        while self._asked:
            queue = next(iter(self._asked))
            if not self._taken_up(queue):
                return False
            del self._asked[queue]
        return True

    def _taken_up(self, queue: Queue) -> bool:
        """Takes up what one queue asks for now. False = shares have to be divided anew: it, or one above it, had what
        it asked for, or will have, and not because nobody asks for more than his quota."""
        if queue.children or not queue.active:
            return True  # what it asks for itself counts for nothing
        steps: list[tuple[Queue, Amounts, Amounts]] = []
        asks = queue.request
        for at in queue.path:
            before = at.want
            if before is None:
                return False
            now = self._within_caps(at, asks)
            if now == before:
                break
            steps.append((at, before, now))
            if at.parent is not None:
                at.parent.below = asks = [
                    total + more - less for total, more, less in zip(at.parent.below, now, before, strict=True)
                ]
        divided: set[int] = set()  # resources of which the level gets another total than before
        for at, before, now in reversed(steps):
            above, moved = at.parent.name if at.parent else "", set[int]()
            for column, (had, amount) in enumerate(zip(before, now, strict=True)):
                if had == amount:
                    continue
                known = self._divided[above, column]
                if known.owed and amount <= at.quota[column]:
                    at.share[column] = known.shares[at.place] = amount
                    moved.add(column)
                    self.changed.add(at)  # it stays so, also where all has to be divided anew for another resource
                    at.stood = None
                elif column in divided or at.share[column] >= min(had, amount):
                    return False
                known.want[at.place] = amount
            at.want, divided = now, moved
        return True

    @staticmethod
    def _within_caps(queue: Queue, asks: Amounts) -> Amounts:
        """What of that which a queue asks for counts."""
        want = list(map(min, asks, queue.most))
        if queue.keeps:  # what is kept back is nobody's surplus: it counts as asked for
            want = list(map(max, want, queue.keep))
        return want

    def _sum_up(self, above: str, level: list[Queue], anew: set[str]) -> Amounts:
        """What the queues of a level ask for in all; ``anew`` receives the names of those above levels that changed."""
        total = [0] * len(self.resources)
        for queue in level:
            want = queue.want
            if want is None:
                anew.add(above)
                asks = queue.request
                if queue.children:
                    asks = queue.below = self._sum_up(queue.name, queue.children, anew)
                if queue.stopped:  # what cannot start asks for nothing
                    asks = [queue.used(column) for column in range(len(asks))]
                want = queue.want = self._within_caps(queue, asks)
            for column, amount in enumerate(want):
                total[column] += amount
        return total

    def _divide(self, above: str, level: list[Queue], total: Amounts, anew: set[str]) -> None:
        if self._given.get(above) == total and above not in anew:
            return  # and what is below it has not changed either: it would have changed what this level asks for
        self._given[above] = list(total)
        wants = [queue.want or self._nothing for queue in level]
        for column, there in enumerate(total):
            self._divide_one(above, level, column, there, [want[column] for want in wants])
        for queue in level:
            if queue.children:
                self._divide(queue.name, queue.children, queue.share, anew)

    def _divide_one(self, above: str, level: list[Queue], column: int, total: int, want: Amounts) -> None:
        known = self._divided.get((above, column))
        if known is not None and known.total == total:
            if known.want == want:
                return
            if _still_short(known, want):
                known.want = want
                return
        owed = all(asks <= queue.quota[column] for queue, asks in zip(level, want, strict=True))
        shares = list(want) if owed else self._share_out(level, column, total, want)
        plenty = owed or all(share >= asks for share, asks in zip(shares, want, strict=True))
        self._divided[above, column] = Division(total, want, shares, owed=owed, plenty=plenty)
        # where everybody gets what he asks for, nobody is above his share, and whoever waits is within it
        alike = plenty and known is not None and known.plenty
        for queue, share in zip(level, shares, strict=True):
            if queue.share[column] != share:
                queue.share[column] = share
                self.changed.add(queue)
                queue.stood = None
                self.shares += not alike

    @staticmethod
    def _share_out(level: list[Queue], column: int, total: int, want: Amounts) -> Amounts:
        return divide(
            total,
            want,
            [queue.quota[column] for queue in level],
            [queue.most[column] for queue in level],
            [queue.weight[column] for queue in level],
            [queue.priority for queue in level],
        )

    def weigh_past(self, total: Sequence[int], now: float) -> None:
        """Works out what past use counts for at a moment; O(queues that count it)."""
        for queue in self.decaying:
            if queue.past is None:
                counts = 0.0
            else:
                past = past_at(queue, self.resources, now)
                counts = burden(past, self.resources, total, queue.weight) if past else 0.0
            if counts != queue.burden:
                queue.burden, queue.stood = counts, None

    @staticmethod
    def within(queue: Queue, demand: Sequence[int], bound: str, top: Queue | None = None) -> bool:
        """Whether a queue, and all above it up to ``top``, end within ``bound`` ("share" or "quota")."""
        for at in queue.path:
            bounds: Amounts = getattr(at, bound)
            for column, wanted in enumerate(demand):
                if wanted and at.running[column] + at.reserved[column] + wanted > bounds[column]:
                    return False
            if at is top:
                break
        return True

    @staticmethod
    def sides(gainer: Queue, loser: Queue) -> tuple[Queue, Queue] | None:
        """The two queues just below the common ancestor; None when one contains the other."""
        ours, theirs = gainer.path[::-1], loser.path[::-1]
        for mine, other in zip(ours, theirs, strict=False):
            if mine is not other:
                return mine, other
        return None


def _still_short(known: Division, want: Amounts) -> bool:
    """Whether all who ask for something else than before had less than they asked for, and would have still: then
    nobody's share changes."""
    before = zip(known.want, want, known.shares, strict=True)
    return all(asked == asks or (share < asked and share < asks) for asked, asks, share in before)


def _nearest(values: Iterable[float | None], otherwise: float = 0.0) -> float:
    return next((value for value in values if value is not None), otherwise)


def _bound(value: int | None) -> int:
    return UNBOUNDED if value is None else value


Standing = tuple[int, int, float, float, float]


def standing(queue: Queue, total: Sequence[int]) -> Standing:
    """Where a queue stands: below quota first, then by saturation of its share (dominant resource as in DRF),
    then by what it used lately.

    Ghodsi et al., Dominant Resource Fairness, NSDI 2011, with the fair share in the place of an equal split. The total
    is what was last divided.
    """
    found = queue.stood
    if found is None:
        found = queue.stood = _standing(queue, total)
    return found


def _standing(queue: Queue, total: Sequence[int]) -> Standing:
    owed = spent = part = 0.0
    for used, held, quota, share, whole in zip(
        queue.running, queue.reserved, queue.quota, queue.share, total, strict=True
    ):
        taken = used + held
        if not taken:
            continue
        ratio = taken / quota if quota else 1e9
        if ratio > owed:
            owed = ratio
        ratio = taken / share if share else 1e9
        if ratio > spent:
            spent = ratio
        ratio = taken / whole if whole else 0.0
        if ratio > part:
            part = ratio
    if owed < 1:
        return (0, 0, owed, part, queue.burden)
    return (1, -queue.priority, spent, part, queue.burden)
