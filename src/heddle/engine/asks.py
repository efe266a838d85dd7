"""What the kinds of claims that wait ask for at least, as rows of one array: one comparison says whom to hear.

A long line asks for far more than is idle, and what found nothing yesterday finds nothing today unless something
changed. Of each kind in each queue it is remembered at which state of the world it was tried in vain, so that a cycle
costs what changed since the last one, not what waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum

import numpy as np

from heddle.engine.kinds import Ask, Kind, Wish
from heddle.engine.nodes import Bools, Ints
from heddle.engine.stamps import NEVER, Stamp

_ENDLESS = 2**62
"""Of rows that nobody has: more than there can be."""
_UNTRIED = -1
_FEW = 16
"""Rows of nodes, freed one after the other, that are looked at singly."""

NONE: Ints = np.zeros(0, np.int64)

Heard = dict[str, list[Kind]]
"""Kinds by queue."""


class Tried(IntEnum):
    """What a kind of claim was tried for; each is remembered with a number that says how the world was."""

    ROOM = 0
    """A free place: no node has room. With the value of ``State.freed``."""
    CAP = 1
    """Admission: a cap stands in the way. With the same."""
    GATHER = 2
    """Moving others. With a number of ``Cycle.held_stamp``."""
    GAIN = 3
    """Making others leave. With a number of ``Cycle.stamp``."""


class Asks:
    """One row for each kind of each queue; rows of kinds that are gone are used again."""

    def __init__(self, width: int) -> None:
        self._least: Ints = np.full((16, width), _ENDLESS, np.int64)
        self._one: Bools = np.zeros(16, np.bool_)  # `least` is what one task asks of one node
        self._priority: Ints = np.zeros(16, np.int64)
        self._queue: Ints = np.zeros(16, np.int64)
        self._timed: Bools = np.zeros(16, np.bool_)
        self._what: Ints = np.zeros(16, np.int64)  # bits of Wish
        self._vain: Ints = np.full((len(Tried), 16), _UNTRIED, np.int64)
        self._kinds: list[tuple[str, Kind] | None] = []
        self._row: dict[tuple[str, Kind], int] = {}
        self._free: list[int] = []
        self._nobody: dict[Tried, int] = {}  # the state of the world in which none of these kinds may get something
        self.timed = 0  # kinds that wait for their start and have a walltime
        self.growing = 0  # kinds that may grow

    def __len__(self) -> int:
        """How many kinds wait."""
        return len(self._row)

    def widen(self, width: int) -> None:
        """Adds columns for new resources: nobody who is known asks for them."""
        extra = width - self._least.shape[1]
        self._least = np.pad(self._least, ((0, 0), (0, extra)))
        self._least[self._least[:, 0] == _ENDLESS] = _ENDLESS

    def add(self, queue: str, number: int, kind: Kind, ask: Ask) -> None:
        """Somebody of a kind waits in a queue, which has this number among all queues."""
        if self._free:
            row = self._free.pop()
            self._kinds[row] = (queue, kind)
        else:
            row = len(self._kinds)
            self._kinds.append((queue, kind))
            if row == self._one.shape[0]:
                self._least = np.pad(self._least, ((0, row), (0, 0)), constant_values=_ENDLESS)
                self._vain = np.pad(self._vain, ((0, 0), (0, row)), constant_values=_UNTRIED)
                self._one = np.pad(self._one, (0, row))
                self._priority = np.pad(self._priority, (0, row))
                self._queue = np.pad(self._queue, (0, row))
                self._timed = np.pad(self._timed, (0, row))
                self._what = np.pad(self._what, (0, row))
        self._least[row] = ask.least
        self._one[row] = ask.alone
        self._priority[row] = ask.priority
        self._queue[row] = number
        self._vain[:, row] = _UNTRIED
        self._nobody = {}
        self._row[queue, kind] = row
        self._timed[row] = ask.timed
        self._what[row] = ask.what
        self.timed += ask.timed
        self.growing += (ask.what & Wish.GROW) > 0

    def remove(self, queue: str, kind: Kind) -> None:
        """Nobody of this kind waits any longer."""
        row = self._row.pop((queue, kind))
        self._least[row] = _ENDLESS
        self._kinds[row] = None
        self._free.append(row)
        self.timed -= bool(self._timed[row])
        self.growing -= (int(self._what[row]) & Wish.GROW) > 0

    # -- what was tried ----------------------------------------------------------------------------

    def in_vain(self, what: Tried, queue: str, kind: Kind, stamp: int) -> None:
        """A kind was tried for something and got it not, when the world was as a number says."""
        row = self._row.get((queue, kind))
        if row is not None:
            self._vain[what, row] = stamp

    def rows_known(self, freed: int, since: Mapping[int, int]) -> bool:
        """Whether the last time that room became free was on a row that is known, and kinds had been tried before."""
        size = len(self._kinds)
        barren: Ints = self._vain[Tried.ROOM, :size]
        return since.get(freed, -1) >= 0 and bool(np.any((barren >= freed - _FEW) & (barren >= 0)))

    def to_place(
        self,
        idle: Callable[[], Ints],
        freed: int,
        since: Mapping[int, int],
        room: Ints,
        among: Ints | None,
        *,
        note: bool,
    ) -> Ints:
        """The rows of the kinds that ask for no more than what is idle, and were not found to have no place or to break
        a cap.

        Args:
            idle: says what is idle in all, per resource.
            freed: the value of ``State.freed``.
            since: which row of nodes became freer with which value of it; others are unknown.
            room: what is idle, per row of nodes and resource.
            among: only of these; None = of all.
            note: remember those for whom nothing is there: the state is not one on trial.
        """
        if note and self._nobody.get(Tried.ROOM) == freed:
            return NONE
        size = len(self._kinds)
        barren = self._vain[Tried.ROOM, :size]
        rows = among
        if rows is None:
            rows = ((barren != freed) & (self._vain[Tried.CAP, :size] != freed)).nonzero()[0]
        if rows.size:
            fits = self._fit(rows, barren[rows], idle, freed, since, room)
            if note:
                barren[rows[~fits]] = freed  # nor is there room until more becomes free
            rows = rows[fits]
        if note and not rows.size:
            self._nobody[Tried.ROOM] = freed
        return rows

    def _fit(
        self, rows: Ints, before: Ints, idle: Callable[[], Ints], freed: int, since: Mapping[int, int], room: Ints
    ) -> Bools:
        """For each of some rows, whether it may fit; ``before`` = as of when it was known to fit nowhere."""
        asked, stamp = self._least[rows], int(before[0])
        freer = self._freer(stamp, freed, since)
        if freer is not None and bool((before == stamp).all()) and bool(self._one[rows].all()):
            return _on(asked, freer, room)  # as a rule all were last looked at together
        fits: Bools = np.ones(rows.size, np.bool_)
        idly = ~self._one[rows]
        for stamp in set(before[self._one[rows]].tolist()):
            mine = self._one[rows] & (before == stamp)
            freer = self._freer(stamp, freed, since)
            if freer is not None:
                fits &= _on(asked, freer, room) | ~mine
            else:
                idly |= mine
        if idly.any():
            fits &= ~idly | (asked <= idle()).all(axis=1)
        return fits

    @staticmethod
    def _freer(before: int, freed: int, since: Mapping[int, int]) -> set[int] | None:
        """The few rows of nodes that alone became freer meanwhile; None = others may have too."""
        if before < 0 or freed - before > _FEW:
            return None
        found = {since.get(value, -1) for value in range(before + 1, freed + 1)}
        return None if -1 in found else found

    def last_row(self, queue: str, kind: Kind, freed: int, since: Mapping[int, int]) -> int:
        """The only row of nodes that may have room for one task of a kind, since it alone became freer after there was
        none anywhere; -1 = others may have too. Arguments as of :meth:`to_place`."""
        row = self._row.get((queue, kind))
        if row is None or not self._one[row]:
            return -1
        freer = self._freer(int(self._vain[Tried.ROOM, row]), freed, since)
        return freer.pop() if freer is not None and len(freer) == 1 else -1

    def of(self, rows: Ints, what: Wish, left: Ints | None) -> Heard:
        """Of the kinds of some rows those that wish for this, and for no more than what their queue has left (one row
        per queue, none below 0; None = whatever they wish for)."""
        if self.growing:
            rows = rows[(self._what[rows] & what) > 0]
        if rows.size and left is not None:
            rows = rows[(self._least[rows] <= left[self._queue[rows]]).all(axis=1)]
        return self._named(rows)

    def known(self, what: Tried, queue: str, kind: Kind, stamp: Stamp) -> bool:
        """Whether a kind was found to get nothing when the world was as these numbers say."""
        row = self._row.get((queue, kind))
        return row is not None and int(self._vain[what, row]) in stamp

    def _untried(self, what: Tried, stamp: Stamp) -> Bools:
        """Per row, whether it was not found to get nothing when the world was as these numbers say."""
        vain = self._vain[what, : len(self._kinds)]
        untried: Bools = (vain != stamp.lasting) & (vain != stamp.dated)
        return untried

    def to_gather(self, idle: Ints, stamp: Stamp) -> Heard:
        """The kinds that ask for no more than what is idle in all, now or once all who leave have left; nobody, if all
        of them were found to get nothing (known before: :meth:`nobody`).

        Those that were found to get nothing get something perhaps once others have.
        """
        fits: Bools = np.all(self._least[: len(self._kinds)] <= idle, axis=1)
        return self._heard(fits, Tried.GATHER, stamp.dated, self._untried(Tried.GATHER, stamp))

    def nobody(self, what: Tried, stamp: Stamp) -> bool:
        """Whether it is known that :meth:`to_gather`, or :meth:`to_gain`, finds nobody."""
        return self._nobody.get(what) == stamp.dated

    def to_gain(self, stamp: Stamp, slacks: Sequence[Ints], lowest: Ints, idle: Ints | None) -> Heard:
        """The kinds that others might leave for, as :meth:`to_gather` gives them.

        Args:
            stamp: how the world is.
            slacks: what each queue has left of its share, and of its quota: one row per queue, none below 0.
            lowest: per queue the lowest priority of what has a place.
            idle: what will be idle in all once all who leave have left; None = nobody leaves.
        """
        size = len(self._kinds)
        fits = self._within(slacks, size)
        fits |= self._priority[:size] > lowest[self._queue[:size]]
        if idle is not None:
            fits |= (self._least[:size] <= idle).all(axis=1)
        return self._heard(fits, Tried.GAIN, stamp.dated, self._untried(Tried.GAIN, stamp))

    def owed(self, slacks: Sequence[Ints]) -> Heard:
        """The kinds that ask for no more than what their queue has left of its share, or of its quota; arguments as of
        :meth:`to_gain`."""
        size = len(self._kinds)
        return self._named(self._within(slacks, size).nonzero()[0])

    def _within(self, slacks: Sequence[Ints], size: int) -> Bools:
        least, queue = self._least[:size], self._queue[:size]
        fits: Bools = np.zeros(size, np.bool_)
        for slack in slacks:
            fits |= (least <= slack[queue]).all(axis=1)
        return fits

    def _heard(self, fits: Bools, what: Tried, stamp: int, untried: Bools) -> Heard:
        """Those who fit, if any of them is untried; else nobody, which is noted."""
        found = self._named(fits.nonzero()[0]) if (fits & untried).any() else {}
        if not found and stamp != NEVER:
            self._nobody[what] = stamp
        return found

    def _named(self, rows: Ints) -> Heard:
        found: Heard = {}
        for row in rows.tolist():
            if (each := self._kinds[row]) is not None:
                found.setdefault(each[0], []).append(each[1])
        return found


def _on(asked: Ints, rows: Iterable[int], room: Ints) -> Bools:
    """For each of some tasks, whether one of a few rows has as much idle as it asks for."""
    found: Bools = np.zeros(len(asked), np.bool_)
    for row in rows:
        found |= (asked <= np.maximum(room[row], 0)).all(axis=1)
    return found
