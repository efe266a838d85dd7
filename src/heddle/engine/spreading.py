"""Tasks of one pod set kept apart: how many each domain holds, and which may take one more.

``skew`` is the ``maxSkew`` of Kubernetes' topology spread constraints with ``DoNotSchedule``, over the domains that
have a node which admits the pod set.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from heddle.engine.model import Spread
from heddle.engine.nodes import Bools, Ints
from heddle.engine.topology import Level

_MANY = 1 << 40


class Spreading:
    """The tasks of one pod set per domain of one level."""

    def __init__(self, rule: Spread, level: Level, eligible: Bools, rows: Iterable[int]) -> None:
        """``eligible``: per row, whether it admits the pod set; ``rows``: where its tasks are."""
        self.rule = rule
        self.level = level
        self.held = np.zeros(len(level.paths), np.int64)
        self.inside = np.flatnonzero(eligible & (level.domain >= 0))
        self.counted = np.zeros(len(level.paths), np.bool_)
        self.counted[level.domain[self.inside]] = True
        self._best: Ints | None = None  # per domain: the best score of its rows
        self._stale = -1
        for row in rows:
            self.add(row)

    def add(self, row: int) -> None:
        """One task more is on this row."""
        if self.level.domain[row] >= 0:
            self._stale = int(self.level.domain[row])
            self.held[self._stale] += 1

    def anew(self) -> None:
        """Scores have changed elsewhere than in the domain of the row chosen last: look at all of them again."""
        self._best = None

    def rows(self, within: Ints | None) -> Ints:
        """Rows (of the given ones) whose domain may take one more task."""
        rows = self.inside if within is None else within
        rows = rows[self.level.domain[rows] >= 0]  # there may be no domain at all
        return rows[self._open()[self.level.domain[rows]]]

    def choose(self, scores: Ints, within: Ints | None) -> int:
        """The row of best score (of the given ones) that may take one more task; -1 = none.

        Between two calls nothing may change but that the row chosen took a task and was added: then only its
        domain is looked at again. All calls name the same rows.
        """
        level = self.level
        if self._best is None:
            self._arena = np.zeros(scores.size, np.bool_)
            self._arena[self.inside if within is None else within] = True
            rows = self.inside[self._arena[self.inside]]
            self._best = np.full(self.held.size, -1, np.int64)
            np.maximum.at(self._best, level.domain[rows], scores[rows])
        elif self._stale >= 0:
            rows = level.rows[self._stale]
            self._best[self._stale] = scores[rows[self._arena[rows]]].max(initial=-1)
        if not self._best.size:
            return -1
        open_best = np.where(self._open(), self._best, -1)
        domain = int(open_best.argmax())
        if open_best[domain] < 0:
            return -1
        rows = level.rows[domain]
        rows = rows[self._arena[rows]]
        return int(rows[scores[rows].argmax()])

    def _open(self) -> Bools:
        rule = self.rule
        free = self.counted.copy()
        if rule.most is not None:
            free &= self.held < rule.most
        if rule.skew is not None and self.counted.any():
            free &= self.held + 1 - self.held[self.counted].min() <= rule.skew
        return free

    def capacity(self, fits: Ints) -> int:
        """How many more tasks could be placed at most, if so many fit on each row of the cluster."""
        if not self.counted.any():
            return 0
        domain = self.level.domain[self.inside]
        room = np.bincount(domain, weights=np.minimum(fits[self.inside], 1 << 20), minlength=self.held.size)
        ends = self.held + room.astype(np.int64)
        if self.rule.most is not None:
            ends = np.minimum(ends, self.rule.most)
        if self.rule.skew is not None:
            ends = np.minimum(ends, ends[self.counted].min(initial=_MANY) + self.rule.skew)
        return int(np.maximum(ends - self.held, 0).sum())
