"""Who is where: the tasks of each crowd by row, where the rules of :class:`Neighbours` let a task go, and where it
would rather go.

Like Kubernetes' inter-pod affinity and its topology spread constraints: looked at when a task is placed, of no account
for what runs. Nothing here is asked, nor counted, for workloads of which no pod set names a crowd or a rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from heddle.engine.eligible import EligibleRows, Where
from heddle.engine.model import Apart, Even, Liked, Near, Neighbours, Toleration
from heddle.engine.nodes import Bools, Ints, Nodes

if TYPE_CHECKING:
    from heddle.engine.work import Task, Work

_ANY_TAINT = (Toleration(""),)
_NO_WISH = Neighbours()
GLAD = 63
"""The most that a wish is worth, as much as all preferences of nodes together."""
_NOBODY: Ints = np.zeros(0, np.int64)


class Presence(IntEnum):
    """How a task is on a row."""

    RUNS = 0
    LEAVES = 1
    """It was told to stop."""
    HELD = 2
    """A place is promised to it."""


@dataclass(frozen=True, slots=True)
class KeptAway:
    """The rule of others that keeps a crowd away from them.

    Attributes:
        level: label of nodes.
        crowd: whose company they shun.
    """

    level: str
    crowd: str


Rule = Near | Apart | Even | KeptAway

_NOW = (Presence.RUNS, Presence.LEAVES, Presence.HELD)
_THEN = (Presence.RUNS, Presence.HELD)


class _Rows:
    """How many of some tasks are on each row, by presence."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at: tuple[dict[int, int], dict[int, int], dict[int, int]] = ({}, {}, {})

    def count(self, how: Presence, row: int, sign: int) -> None:
        left = self.at[how].get(row, 0) + sign
        if left:
            self.at[how][row] = left
        else:
            del self.at[how][row]

    def rows(self, *how: Presence) -> Ints:
        found = [np.fromiter(self.at[one], np.int64, len(self.at[one])) for one in how if self.at[one]]
        return np.concatenate(found) if found else _NOBODY

    def counts(self, *how: Presence) -> tuple[Ints, Ints]:
        """Rows, and how many are there."""
        numbers = [np.fromiter(self.at[one].values(), np.int64, len(self.at[one])) for one in how if self.at[one]]
        return self.rows(*how), np.concatenate(numbers) if numbers else _NOBODY


class _Label:
    """The values of a label of nodes as numbers, by row; -1 = the node has none. All have the same of the label ""."""

    __slots__ = ("domain", "number", "seen")

    def __init__(self) -> None:
        self.domain: Ints = _NOBODY
        self.number: dict[str, int] = {}
        self.seen = 0

    def touched(self, rows: Ints) -> Bools:
        """All rows whose value one of these rows has."""
        hit = np.zeros(len(self.number) + 1, np.bool_)  # the last stands for those without a value
        hit[self.domain[rows]] = True
        hit[-1] = False
        found: Bools = hit[self.domain]
        return found


class Crowds:
    """The crowds of a state: where their tasks are, and who shuns or seeks them."""

    def __init__(self, nodes: Nodes, eligible: EligibleRows) -> None:
        self.nodes = nodes
        self.eligible = eligible
        self._members: dict[str, _Rows] = {}
        self._shunning: dict[str, dict[str, _Rows]] = {}  # crowd -> level -> those who keep apart from it by that
        self._sought: dict[str, int] = {}  # crowd -> pod sets whose room depends on where it is
        self._labels: dict[str, _Label] = {}

    # -- what there is -----------------------------------------------------------------------------

    def know(self, wish: Neighbours, sign: int) -> bool:
        """A pod set is known to the state from now on (``sign=-1``: no longer); whether it is the first to mind some
        crowd: who came of that while nobody did was not reported."""
        first = False
        for crowd in _sought_by(wish):
            self._sought[crowd] = self._sought.get(crowd, 0) + sign
            first |= sign > 0 and self._sought[crowd] == 1
            if not self._sought[crowd]:
                del self._sought[crowd]
        return first

    def sought(self, wish: Neighbours) -> bool:
        """Whether anybody's room depends on where the tasks of such a pod set are."""
        return bool(self._sought) and any(crowd in self._sought for crowd in wish.crowds)

    def count(self, wish: Neighbours, how: Presence, row: int, sign: int) -> bool:
        """A task of such a pod set is on a row (``sign=-1``: no longer); whether others may find room by that."""
        opens = False
        for crowd in wish.crowds:
            if crowd not in self._members:
                self._members[crowd] = _Rows()
            self._members[crowd].count(how, row, sign)
            if not any(self._members[crowd].at):
                del self._members[crowd]
            if sign > 0 and crowd in self._sought:
                opens = True
        for rule in wish.apart:
            by_level = self._shunning.setdefault(rule.crowd, {})
            if rule.level not in by_level:
                by_level[rule.level] = _Rows()
            by_level[rule.level].count(how, row, sign)
            if not any(by_level[rule.level].at):
                del by_level[rule.level]
                if not by_level:
                    del self._shunning[rule.crowd]
        return opens

    # -- where a task may go -----------------------------------------------------------------------

    def allowed(self, work: Work, part: int, *, land: bool) -> Bools | None:
        """Of each row, whether a task of a pod set may go there beside those who are there now, or (``land``) once all
        who leave have left; None = anywhere.

        Promised places count as taken, but nobody relies on the company of others who have only a promise: two who rely
        on each other would never start.
        """
        wish = work.spec.pod_sets[part].neighbours
        found: Bools | None = None
        for _, rows in self.rules(work, part, wish, land=land) if wish is not None else ():
            found = rows if found is None else found & rows
        return found

    def reachable(self, work: Work, part: int) -> Bools | None:
        """Of each row, whether a task might go there if others left that row; never wrongly False, None = anywhere."""
        wish = work.spec.pod_sets[part].neighbours
        return self._near(work, wish, wish.near, land=True) if wish is not None and wish.near is not None else None

    def admits(self, task: Task, row: int, *, land: bool) -> bool:
        """Whether a task that has no place may have one on this row."""
        rows = self.allowed(task.work, task.part, land=land)
        return rows is None or bool(rows[row])

    def accompanied(self, task: Task, lost: set[str]) -> bool:
        """Whether a task that runs has the company that it needs, and keeps crowds even of which some were lost."""
        wish = task.work.spec.pod_sets[task.part].neighbours
        if wish is None or (wish.near is None and not wish.even):
            return True
        work, row = task.work, task.row
        self.count(wish, Presence.RUNS, row, -1)
        near = wish.near is None or bool(self._near(work, wish, wish.near, land=False)[row])
        rules = (rule for rule in wish.even if rule.crowd in lost)
        found = near and all(self._even(work, task.part, wish, rule, land=False)[row] for rule in rules)
        self.count(wish, Presence.RUNS, row, 1)
        return found

    def stands(self, task: Task) -> bool:
        """Whether the place promised to a task is one where it may be, once all who leave have left."""
        wish = task.work.spec.pod_sets[task.part].neighbours
        if wish is None or task.hold is None:
            return True
        row = task.hold[0]
        self.count(wish, Presence.HELD, row, -1)
        hold, task.hold = task.hold, None
        rows = self.allowed(task.work, task.part, land=True)
        task.hold = hold
        self.count(wish, Presence.HELD, row, 1)
        return rows is None or bool(rows[row])

    def rules(self, work: Work, part: int, wish: Neighbours, *, land: bool) -> Iterator[tuple[Rule, Bools]]:
        """Each rule about a task of a pod set, its own and those of others, and the rows that it leaves."""
        there = _THEN if land else _NOW
        for rule in wish.apart:
            yield rule, ~self.label(rule.level).touched(self._of(rule.crowd).rows(*there))
        for crowd in wish.crowds:
            for level, shunning in sorted(self._shunning.get(crowd, {}).items()):
                rows = shunning.rows(*there)
                if rows.size:
                    yield KeptAway(level, crowd), ~self.label(level).touched(rows)
        if wish.near is not None:
            yield wish.near, self._near(work, wish, wish.near, land=land)
        for even in wish.even:
            yield even, self._even(work, part, wish, even, land=land)

    def running(self, crowd: str) -> int:
        """How many of a crowd run."""
        return sum(self._of(crowd).at[Presence.RUNS].values())

    def _of(self, crowd: str) -> _Rows:
        return self._members.get(crowd) or _Rows()

    def _near(self, work: Work, wish: Neighbours, rule: Near, *, land: bool) -> Bools:
        labels = [self.label(level) for level in rule.levels]
        found = np.ones(self.nodes.open.size, np.bool_)
        for label in labels:
            found &= label.domain >= 0
        crowd = self._of(rule.crowd)
        if land:
            there = np.concatenate((crowd.rows(Presence.RUNS), _promised(work, rule.crowd)))
        else:
            there = crowd.rows(Presence.RUNS, Presence.LEAVES)
        if not _anywhere(labels, there):
            if rule.crowd not in wish.crowds:
                return np.zeros_like(found)
            there = crowd.rows(Presence.HELD)  # who comes first goes where the first of them will be
            if not _anywhere(labels, there):
                return found
        for label in labels:
            found &= label.touched(there)
        return found

    def _even(self, work: Work, part: int, wish: Neighbours, rule: Even, *, land: bool) -> Bools:
        label = self.label(rule.level)
        size = len(label.number) + 1
        inside = self._counted(wish.even, rule, work.parts[part].key.where)
        rows, numbers = self._of(rule.crowd).counts(Presence.RUNS)
        runs = np.bincount(label.domain[rows] + 1, weights=numbers * inside[rows], minlength=size)
        rows, numbers = self._of(rule.crowd).counts(Presence.HELD)
        held = runs + np.bincount(label.domain[rows] + 1, weights=numbers * inside[rows], minlength=size)
        least = runs
        if land:
            rows = _promised(work, rule.crowd)
            least = runs + np.bincount(label.domain[rows] + 1, weights=inside[rows], minlength=size)
        counted = np.unique(label.domain[inside])
        low = least[counted + 1].min(initial=1 << 40) if counted.size >= rule.values else 0
        own = rule.crowd in wish.crowds
        found: Bools = (label.domain >= 0) & (held[label.domain + 1] + own - low <= rule.skew)
        return found

    def _counted(self, rules: tuple[Even, ...], rule: Even, demand: Where) -> Bools:
        """Rows whose values, and whose tasks, are counted for one of some rules."""
        if rule.admitted:
            asked = Where(demand.selector, demand.tolerations if rule.tolerated else _ANY_TAINT, demand.affinity)
        else:
            asked = Where((), demand.tolerations if rule.tolerated else _ANY_TAINT)
        # a cordoned node counts as one with a taint
        found = self.eligible.of(asked).copy() if rule.tolerated else self.eligible.if_open(asked)
        for other in rules:
            found &= self.label(other.level).domain >= 0
        return found

    # -- where it would rather go ------------------------------------------------------------------

    def liking(self, work: Work, part: int, rows: Ints, *, land: bool) -> Ints | None:
        """How glad a task of a pod set would be of each of some rows, for those who are there: from 0 to :data:`GLAD`
        for whom it likes and dislikes, and as much again for evenness; None = it is all the same.

        Scaled as by kube-scheduler (plugins InterPodAffinity and PodTopologySpread): company between the least and the
        most that one of the rows offers, evenness by how much fewer there are than where there are most.
        """
        wish = work.spec.pod_sets[part].neighbours
        if wish is None or not wish.wishful or not rows.size:
            return None
        found = np.zeros(rows.size, np.int64)
        if wish.liked:
            there = _THEN if land else _NOW
            points = sum(one.weight * self._around(one, rows, self._of(one.crowd).counts(*there)) for one in wish.liked)
            low, high = np.min(points), np.max(points)
            if high > low:
                found += np.floor(GLAD * (points - low) / (high - low)).astype(np.int64)
        if wish.evened:
            crowded, outside = np.zeros(rows.size), np.zeros(rows.size, np.bool_)
            for rule in wish.evened:
                inside = self._counted(wish.evened, rule, work.parts[part].key.where)
                at, numbers = self._of(rule.crowd).counts(Presence.RUNS, Presence.HELD)
                domain = self.label(rule.level).domain[rows]
                outside |= domain < 0
                many = np.log(np.unique(domain[domain >= 0]).size + 2)  # a crowd over few values weighs less
                crowded += many * self._around(rule, rows, (at, numbers * inside[at]))
            known = crowded[~outside]
            if known.size and (most := known.max()) > 0:
                glad = np.floor(GLAD * (most + known.min() - crowded) / most).astype(np.int64)
                found += np.where(outside, 0, glad)
            else:
                found += np.where(outside, 0, GLAD)
        return found

    def _around(self, rule: Liked | Even, rows: Ints, counts: tuple[Ints, Ints]) -> Ints:
        """How many there are where each of some rows is, by what is counted at rows."""
        label = self.label(rule.level)
        at, numbers = counts
        found = np.bincount(label.domain[at] + 1, weights=numbers, minlength=len(label.number) + 1)
        found[0] = 0
        return found[label.domain[rows] + 1]

    def first_domains(self, rule: Near) -> list[tuple[tuple[str, ...], Ints]]:
        """Where the first of a crowd might go so that others can join it: rows that have the same values of all its
        labels, by these values."""
        labels = [self.label(level) for level in rule.levels]
        together = np.stack([label.domain for label in labels])
        inside = np.flatnonzero((together >= 0).all(axis=0))
        if not inside.size:
            return []
        values, group = np.unique(together[:, inside], axis=1, return_inverse=True)
        names = [list(label.number) for label in labels]
        rows = np.split(inside[np.argsort(group.reshape(-1), kind="stable")], np.cumsum(np.bincount(group.reshape(-1))))
        paths = [tuple(known[at] for known, at in zip(names, each, strict=True)) for each in values.T.tolist()]
        return sorted(zip(paths, rows, strict=False), key=lambda item: item[0])

    def is_first(self, wish: Neighbours, *, land: bool) -> bool:
        """Whether a task seeks a crowd that it is of itself, and of which nobody is anywhere yet."""
        rule = wish.near
        if rule is None or rule.crowd not in wish.crowds:
            return False
        rows = self._of(rule.crowd).rows(*(_THEN if land else _NOW))
        return not _anywhere([self.label(level) for level in rule.levels], rows)

    # -- labels ------------------------------------------------------------------------------------

    def label(self, name: str) -> _Label:
        """A label of nodes, brought up to date."""
        nodes = self.nodes
        found = self._labels.get(name)
        if found is None:
            found = self._labels[name] = _Label()
        size = nodes.open.size
        if found.domain.size != size:
            found.domain = np.concatenate((found.domain, np.full(size - found.domain.size, -1, np.int64)))
            if not found.seen:
                rows: Iterable[int] = range(len(nodes.specs))
            else:
                rows = nodes.spec_log[found.seen :]
        else:
            rows = nodes.spec_log[found.seen :]
        for row in rows:
            spec = nodes.specs[row]
            value = None if spec is None else spec.labels.get(name) if name else ""
            found.domain[row] = -1 if value is None else found.number.setdefault(value, len(found.number))
        found.seen = len(nodes.spec_log)
        return found


def _sought_by(wish: Neighbours) -> set[str]:
    return {rule.crowd for rule in (*((wish.near,) if wish.near else ()), *wish.even)}


def _promised(work: Work, crowd: str) -> Ints:
    """Rows of the places that are promised to those of a workload who are of a crowd."""
    sets = work.spec.pod_sets
    mine = [
        task.hold[0]
        for task in (work.tasks.values() if work.held else ())
        if task.hold and crowd in (sets[task.part].neighbours or _NO_WISH).crowds
    ]
    return np.array(mine, np.int64)


def _anywhere(labels: list[_Label], rows: Ints) -> bool:
    return any(bool((label.domain[rows] >= 0).any()) for label in labels)
