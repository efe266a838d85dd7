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
        for row in rows:
            self.add(row)

    def add(self, row: int) -> None:
        """One task more is on this row."""
        if self.level.domain[row] >= 0:
            self.held[self.level.domain[row]] += 1

    def rows(self, within: Ints | None) -> Ints:
        """Rows (of the given ones) whose domain may take one more task."""
        rows = self.inside if within is None else within
        return rows[self._open()[self.level.domain[rows]] & (self.level.domain[rows] >= 0)]

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
