"""Disruption budgets: of some tasks so many keep running, whoever has a claim to their room.

The notion of Kubernetes' PodDisruptionBudget, in the form in which it needs no memory: how many must run. Its
``disruptionsAllowed`` is what runs beyond that; what was told to leave does not run any more, so that no cycle counts
on what an earlier one has used up. Knows tasks; is not aware of queues or of who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heddle.engine.ledger import Ledger
    from heddle.engine.work import Task


class Disruptions:
    """The budgets of the cluster, and the tasks that count against each."""

    __slots__ = ("_ledger", "_tasks", "least")

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._tasks: dict[str, dict[Task, None]] = {}
        self.least: Mapping[str, int] = {}

    def count(self, tasks: Iterable[Task], names: Iterable[str], *, known: bool) -> None:
        """Tasks became known to the state, or are no longer."""
        for name in names:
            mine = self._tasks.setdefault(name, {})
            for task in tasks:
                if known:
                    mine[task] = None
                else:
                    mine.pop(task, None)

    def running(self, name: str) -> int:
        """How many tasks of a budget run, and did so before this cycle."""
        return sum(map(self._ledger.ran_before, self._tasks.get(name, ())))

    def asked(self, tasks: Iterable[Task]) -> dict[str, int]:
        """How many of some tasks count against each budget."""
        found: dict[str, int] = {}
        for task in tasks if self.least else ():
            for name in task.work.spec.pod_sets[task.part].budgets:
                if name in self.least:
                    found[name] = found.get(name, 0) + 1
        return found

    def broken_by(self, tasks: Iterable[Task]) -> str:
        """The first budget that is broken if those of some tasks that run stop; "" = none."""
        if not self.least:
            return ""
        for name, count in self.asked(filter(self._ledger.ran_before, tasks)).items():
            if self.running(name) - count < self.least[name]:
                return name
        return ""
