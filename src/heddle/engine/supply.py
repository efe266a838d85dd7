"""What there is, and how it is divided: resources, nodes and their topology, what no node has, the tree of queues.

Whatever may make something possible that was not moves a number here, so that what was tried in vain is tried again
only then. Knows hardware and specs; is not aware of tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heddle.engine.crowds import Crowds
from heddle.engine.model import COUNTER, CPU, GPU, MEMORY, MODEL, QueueSpec, TaskMix, check_counters
from heddle.engine.nodes import TENANCY_NAME, Nodes
from heddle.engine.queues import Queue, QueueTree
from heddle.engine.rankings import Tenants
from heddle.engine.reasons import Reason
from heddle.engine.scores import ScoreCache
from heddle.engine.stamps import Answers
from heddle.engine.topology import Topology

_REMEMBERED = 4096
"""Of so many times that room became free it is remembered where."""


class Supply:
    """What there is: the lowest layer of :class:`State`."""

    def __init__(self, tenants: Tenants) -> None:
        """Nothing yet; ``tenants`` says what each task on a row of nodes takes of GPUs."""
        self.resources = [GPU, CPU, MEMORY, TENANCY_NAME]  # the last is only of nodes: no queue is charged for it
        self.column = {name: at for at, name in enumerate(self.resources)}
        self.nodes = Nodes(self.resources)
        self.cache = ScoreCache(self.nodes, self.column, tenants)
        self.crowds = Crowds(self.nodes, self.cache.eligible)
        self.topology = Topology(self.nodes)
        self.tree = QueueTree(self.resources, self._free)
        self.impossible: Answers[Reason | None] = Answers()  # what not even the empty cluster has room for, and why
        self.freed = 0  # moves whenever room may have become free
        self.freed_rows: dict[int, int] = {}  # of late: on which row, by value of `freed`; -1 = anywhere
        self.placed = 0  # moves whenever places, nodes or rules change, not as claims come and go

    def set_topology(self, levels: Sequence[str]) -> None:
        """Names the node labels that make up the topology, outermost first.

        Raises:
            ValueError: a level is empty or named twice.
        """
        if len(set(levels)) != len(levels) or not all(levels):
            raise ValueError(f"topology.levels: {list(levels)!r} is not valid; name each level once")
        self.topology.set(levels)
        self._anew()

    def set_task_mix(self, mix: TaskMix | None) -> None:
        """Sets the mix by which ``fragmentation`` places; None (as at first) learns it from all workloads
        that are known, whether they run or wait."""
        self.cache.fragmentation.give(mix)
        self._anew()

    def set_counters(self, counts: Mapping[str, int]) -> None:
        """Says how many there are of what no node has, replacing what was said; one that is absent is 0.

        What runs keeps what it holds when there is less of it than before.

        Raises:
            ValueError: a name does not begin with ``counter:``, or an amount is no whole number from 0.
        """
        check_counters(counts)
        self._learn(counts)
        counters = self.tree.counters
        for column in counters.cap:
            counters.cap[column] = counts.get(self.resources[column], 0)
        self.tree.move_on()
        self._anew()

    def set_queue(self, spec: QueueSpec) -> None:
        """Adds or replaces a queue. A missing parent or a cycle is no error: such a queue is inactive."""
        self._learn(spec.quota, spec.limit, spec.borrowing_limit, spec.lending_limit, spec.user_limit)
        queue = self.tree.queues.get(spec.name)
        if queue is None:
            self.tree.queues[spec.name] = Queue(spec, len(self.resources))
        else:
            queue.spec = spec
            queue.tick = 0
            queue.past = queue.past if spec.usage_half_life is not None else None
        self.tree.stale = True
        self._anew()

    def remove_queue(self, name: str) -> None:
        """Forgets a queue; its workloads stay and wait for it to come back.

        Raises:
            ValueError: there is no such queue.
        """
        if name not in self.tree.queues:
            raise ValueError(f"queue.name: {name!r} is not known; remove a queue that was set")
        del self.tree.queues[name]
        self.tree.stale = True

    def counters(self) -> dict[str, int]:
        """How many there are of what no node has."""
        return {self.resources[column]: cap for column, cap in self.tree.counters.cap.items() if cap}

    def totals(self) -> list[int]:
        """What there is in the cluster, per resource."""
        found: list[int] = self.nodes.total.tolist()
        for column, cap in self.tree.counters.cap.items():
            found[column] = cap
        return found

    def broken_room(self) -> float:
        """The part of all GPUs that is idle but of no use for what usually arrives: the mean F of Weng et al. (see
        :mod:`heddle.engine.fragmentation`), 0 to 1."""
        return self.cache.broken_room()

    def _anew(self) -> None:
        """Anything may have become possible anywhere."""
        self.placed += 1
        self._free_up(-1)

    def _free_up(self, row: int) -> None:
        """Room may have become free on a row (-1 = anywhere)."""
        self.freed += 1
        if len(self.freed_rows) >= _REMEMBERED:
            self.freed_rows = {}
        self.freed_rows[self.freed] = row  # where `freed` is set back later, this is noted anew before it counts

    def _free(self, column: int, land: bool) -> int:
        counters = self.tree.counters
        return counters.free(column, land=land) if column in counters.cap else self.nodes.free(column, land)

    def _learn_hardware(self) -> None:
        """What a task that has no place yet counts for depends on what hardware there is: all is counted anew."""
        if self.cache.learn_hardware():
            self.tree.stale = True

    def _learn(self, *amounts: Mapping[str, object]) -> bool:
        """Takes up the resources that some amounts are of; returns whether one was not known."""
        column = self.column
        new = [name for part in amounts for name in part if name not in column]
        if not new:
            return False
        for name in sorted(set(new)):
            self.column[name] = len(self.resources)
            self.resources.append(name)
            if name.startswith(COUNTER):
                self.tree.counters.add(self.column[name])
            if name.startswith(MODEL) and self.cache.loose:
                self.tree.stale = True  # what runs on that model is counted by it from now on
        self.nodes.widen()
        self.tree.widen()
        self.cache.resize()
        return True
