"""Counts of things that no node has, such as floating licences: capped in the whole cluster. Knows who uses how
much; is not aware of nodes, queues or policy."""

from __future__ import annotations

from collections.abc import Sequence


class Counters:
    """What there is of each counter, and what tasks use of it: running, releasing and reserved amounts.

    A task counts whatever becomes of its queue, so that what is held is never given twice.
    """

    __slots__ = ("cap", "releasing", "reserved", "running")

    def __init__(self) -> None:
        self.cap: dict[int, int] = {}  # by resource column; a counter that nobody set is 0
        self.running: dict[int, int] = {}
        self.releasing: dict[int, int] = {}
        self.reserved: dict[int, int] = {}

    def add(self, column: int) -> None:
        """A counter was named for the first time."""
        for amounts in (self.cap, self.running, self.releasing, self.reserved):
            amounts[column] = 0

    def sort(self, order: Sequence[int]) -> None:
        """In which order they are looked at."""
        self.cap = {column: self.cap[column] for column in order if column in self.cap}

    def taken(self, column: int, *, land: bool) -> int:
        """What counts against the cap: with ``land`` once all who leave have left, else now."""
        reserved = self.reserved[column]
        return self.running[column] + (reserved if land else max(reserved, self.releasing[column]))

    def free(self, column: int, *, land: bool) -> int:
        """What is left of a counter."""
        return max(0, self.cap[column] - self.taken(column, land=land))

    def short(self, demand: Sequence[int], *, land: bool, included: bool) -> tuple[int, int, int, int] | None:
        """The first counter that a further demand would overdraw: (column, cap, used, wanted); None = enough is left.

        With ``included`` the demand is in the counters already.
        """
        for column, cap in self.cap.items():
            wanted = demand[column]
            used = self.taken(column, land=land) - wanted * included if wanted else 0
            if wanted and used + wanted > cap:
                return column, cap, used, wanted
        return None
