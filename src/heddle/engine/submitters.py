"""What single submitters use, in queues that cap it. Knows counters; is not aware of nodes or policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heddle.engine.fairshare import UNBOUNDED


class Submitters:
    """A queue's cap per submitter and what each has: running, releasing and reserved amounts."""

    __slots__ = ("counts", "limit", "width")

    def __init__(self, limit: Mapping[str, int | None], resources: Sequence[str]) -> None:
        caps = [limit.get(name) for name in resources]
        self.limit = [UNBOUNDED if cap is None else cap for cap in caps]
        self.width = len(resources)
        self.counts: dict[str, tuple[list[int], list[int], list[int]]] = {}

    def of(self, user: str) -> tuple[list[int], list[int], list[int]]:
        """The counters of one submitter."""
        found = self.counts.get(user)
        if found is None:
            found = self.counts[user] = ([0] * self.width, [0] * self.width, [0] * self.width)
        return found

    def taken(self, user: str, column: int, *, land: bool) -> int:
        """What counts against the cap: with ``land`` once all who leave have left, else now."""
        if user not in self.counts:
            return 0
        running, releasing, reserved = self.counts[user]
        return running[column] + (reserved[column] if land else max(reserved[column], releasing[column]))
