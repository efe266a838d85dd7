"""Which workloads of a queue run or are promised a place, and the lowest priority among them.

Knows workloads by name and priority; is not aware of what they use or of who asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heddle.engine.work import Work


class Living(dict[str, "Work"]):
    """Workloads by name; change it by `add` and `discard` only."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[int, int] = {}

    def add(self, work: Work) -> None:
        """It runs, or has a promise."""
        if work.name not in self:
            self[work.name] = work
            self._counts[work.spec.priority] = self._counts.get(work.spec.priority, 0) + 1

    def discard(self, work: Work) -> None:
        """It does so no longer."""
        if self.pop(work.name, None) is not None:
            self._counts[work.spec.priority] -= 1
            if not self._counts[work.spec.priority]:
                del self._counts[work.spec.priority]

    def below(self, priority: int) -> bool:
        """Whether any of them has a lower priority."""
        return any(known < priority for known in self._counts)

    def lowest(self, otherwise: int) -> int:
        """The lowest priority among them."""
        return min(self._counts, default=otherwise)
