"""Groups of pod sets of which a workload needs some: each is all or nothing. Knows counts per pod set only; is not
aware of tasks, nodes or policy."""

from __future__ import annotations

from collections.abc import Sequence

from heddle.engine.model import WorkloadSpec

Counts = Sequence[int]
"""Tasks per pod set."""


class Groups:
    """The groups of one workload, by the pod sets (as indices) that each is made of."""

    __slots__ = ("least", "mins", "of", "parts")

    def __init__(self, spec: WorkloadSpec, least: int) -> None:
        names = list(dict.fromkeys(pod_set.group for pod_set in spec.pod_sets if pod_set.group))
        self.mins = [pod_set.min for pod_set in spec.pod_sets]
        self.of = [names.index(pod_set.group) if pod_set.group else -1 for pod_set in spec.pod_sets]
        self.parts = [[part for part, at in enumerate(self.of) if at == group] for group in range(len(names))]
        self.least = least

    def whole(self, group: int, counts: Counts) -> bool:
        """Whether a group has the minimum of each of its pod sets."""
        return all(counts[part] >= self.mins[part] for part in self.parts[group])

    def torn(self, counts: Counts) -> list[int]:
        """Groups of which some run, and yet too few."""
        groups = range(len(self.parts))
        return [g for g in groups if any(counts[p] for p in self.parts[g]) and not self.whole(g, counts)]

    def enough(self, counts: Counts) -> bool:
        """Whether as many groups are whole as the workload needs, and all that is in no group."""
        if any(counts[part] < self.mins[part] for part, group in enumerate(self.of) if group < 0):
            return False
        return sum(self.whole(group, counts) for group in range(len(self.parts))) >= self.least

    def floor(self, bound: Counts, held: Counts, pending: Counts) -> list[int]:
        """What must run of each pod set: of as many groups as are needed, those first that need the least more.

        Args:
            bound: tasks that run.
            held: pending tasks that have a place promised.
            pending: tasks that may start.
        """

        def claim(group: int) -> tuple[bool, bool, bool, bool, int]:
            parts = self.parts[group]
            there = all(bound[p] + pending[p] >= self.mins[p] for p in parts)
            promised = [b + h for b, h in zip(bound, held, strict=True)]
            runs = any(bound[p] for p in parts)
            return (not self.whole(group, bound), not self.whole(group, promised), not there, not runs, group)

        chosen = sorted(range(len(self.parts)), key=claim)[: self.least]
        return [least if at < 0 or at in chosen else 0 for least, at in zip(self.mins, self.of, strict=True)]

    def next(self, counts: Counts, free: Counts) -> tuple[tuple[int, int], ...] | None:
        """What the next group beyond the minimum still needs, torn ones first; None = there is none that could start.

        Args:
            counts: tasks that run or have a place promised.
            free: tasks that have neither.
        """
        torn = self.torn(counts)
        for group in (*torn, *(g for g in range(len(self.parts)) if g not in torn)):
            need = tuple((p, self.mins[p] - counts[p]) for p in self.parts[group] if counts[p] < self.mins[p])
            if need and all(count <= free[part] for part, count in need):
                return need
        return None

    def spare(self, bound: Counts) -> list[int]:
        """Groups that may leave without breaking the workload: torn ones first, then the last in order."""
        torn = self.torn(bound)
        if not self.enough(bound):
            return []
        whole = [g for g in range(len(self.parts)) if self.whole(g, bound)]
        runs = [g for g in whole if any(bound[p] for p in self.parts[g])]
        return [*torn, *(reversed(runs) if len(whole) > self.least else ())]
