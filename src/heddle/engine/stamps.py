"""Numbers for how the world is: as long as what a decision rests on stays the same, so does the number.

What was tried in vain is remembered with one, so that it is tried again only when something has changed.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

_Answer = TypeVar("_Answer")

_REMEMBERED = 4096
"""Answers for which there is room."""

NEVER = -2
"""A number that no state of the world has: whatever was tried in vain is tried again."""


class Stamp(NamedTuple):
    """How the world is.

    Attributes:
        lasting: as long as the facts do not change.
        dated: as long as, beside these, lost work is reckoned as of the same moment (:func:`lostwork.reckoned_at`).
    """

    lasting: int
    dated: int


ON_TRIAL = Stamp(NEVER, NEVER)
"""Of a state that will be rolled back: nothing is remembered of it."""


class Stamps:
    """Gives out numbers for some facts; one that was given is not given again once the facts have changed."""

    def __init__(self) -> None:
        self._facts: tuple[object, ...] | None = None
        self._moment = -1.0
        self._given = 0
        self._stamp = ON_TRIAL

    def of(self, facts: tuple[object, ...], moment: float) -> Stamp:
        """The numbers for facts, and a moment as of which lost work is reckoned."""
        if facts != self._facts:
            self._facts, self._moment = facts, moment
            self._given += 2
            self._stamp = Stamp(self._given - 1, self._given)
        elif moment != self._moment:
            self._moment = moment
            self._given += 1
            self._stamp = Stamp(self._stamp.lasting, self._given)
        return self._stamp


class Answers(Generic[_Answer]):
    """Answers that were worked out, by question, for as long as the facts stay the same on which they rest."""

    def __init__(self) -> None:
        self._facts: tuple[object, ...] | None = None
        self._found: dict[tuple[object, ...], _Answer] = {}

    def of(self, facts: tuple[object, ...]) -> dict[tuple[object, ...], _Answer]:
        """What is known with these facts, and where to add to it."""
        if facts != self._facts or len(self._found) >= _REMEMBERED:
            self._facts, self._found = facts, {}
        return self._found
