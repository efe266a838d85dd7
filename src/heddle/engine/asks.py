"""What the kinds of claims that wait in a queue ask for at least, as rows of one array.

A long line asks for far more than is idle. One comparison over all rows says whose claims are worth hearing at all;
and a kind that found no room is not heard again before room has become free.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heddle.engine.kinds import Kind, may_be_timed
from heddle.engine.nodes import Ints

_NEVER = 2**62
"""Of rows that nobody has: more than there can be."""


class Asks:
    """One row for each kind; rows of kinds that are gone are used again."""

    def __init__(self, width: int) -> None:
        self._least: Ints = np.full((16, width), _NEVER, np.int64)
        self._barren: Ints = np.full(16, -1, np.int64)  # value of `State.freed` at which no room was found
        self._kinds: list[Kind | None] = []
        self._row: dict[Kind, int] = {}
        self._free: list[int] = []
        self.timed = 0  # kinds that may have a walltime

    def widen(self, width: int) -> None:
        """Adds columns for new resources: nobody who is known asks for them."""
        extra = width - self._least.shape[1]
        self._least = np.pad(self._least, ((0, 0), (0, extra)))
        self._least[self._least[:, 0] == _NEVER] = _NEVER

    def add(self, kind: Kind, least: Sequence[int]) -> None:
        """A kind that asks for no less than this, per resource."""
        if self._free:
            row = self._free.pop()
            self._kinds[row] = kind
        else:
            row = len(self._kinds)
            self._kinds.append(kind)
            if row == self._least.shape[0]:
                self._least = np.pad(self._least, ((0, row), (0, 0)), constant_values=_NEVER)
                self._barren = np.pad(self._barren, (0, row), constant_values=-1)
        self._least[row] = least
        self._barren[row] = -1
        self._row[kind] = row
        self.timed += may_be_timed(kind)

    def remove(self, kind: Kind) -> None:
        """Nobody of this kind waits any longer."""
        row = self._row.pop(kind)
        self._least[row] = _NEVER
        self._kinds[row] = None
        self._free.append(row)
        self.timed -= may_be_timed(kind)

    def found_none(self, kind: Kind, freed: int) -> None:
        """No room for this kind in the state as it is, until more room has become free than so often."""
        row = self._row.get(kind)
        if row is not None:
            self._barren[row] = freed

    def within(self, idle: Ints, freed: int) -> list[Kind]:
        """The kinds that ask for no more than what is idle, and did not fail since room was freed so often."""
        size = len(self._kinds)
        fits = (self._least[:size] <= idle).all(axis=1) & (self._barren[:size] != freed)
        return [kind for row in np.flatnonzero(fits).tolist() if (kind := self._kinds[row]) is not None]
