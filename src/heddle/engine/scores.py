"""Which node is best for a task: a class x node score cache with a dirty log.

Tasks that ask for the same form a class. For each class and ledger one array holds the score of every
node; before it is used, only rows that changed since its last use are scored again, then one ``argmax``
decides. That is exact: a property test compares it with a full rescore. A score is one int64: 8 bits of what
the task prefers of labels and taints, 20 bits of its strategy, 35 bits of name order, so that equals break by
node name. -1 = does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heddle.engine.eligible import DEMERIT_BITS, EligibleRows, Where, where
from heddle.engine.fragmentation import PUBLISHED, Fragmentation
from heddle.engine.model import COUNTER, CPU, GPU, WHOLE, NodeSpec, PodSet, TypicalTask
from heddle.engine.nodes import LABEL_BITS, SOLE, TENANCY, Bools, Ints, Nodes
from heddle.engine.rankings import RANKINGS, Ranking, Tenants

_SHIFT = LABEL_BITS + 1
_COST_BITS = 20
_WORST = (1 << _COST_BITS + DEMERIT_BITS) - 1
_LOG_KEEP = 200_000
_NONE = 1 << 40
_NO_HINT = (-1, 0, 0)


@dataclass(frozen=True, slots=True)
class ClassKey:
    """What two tasks must have in common to be interchangeable for placement."""

    request: tuple[tuple[str, int], ...]
    gpu: int
    where: Where
    spread: bool
    fragmentation: bool = False
    exclusive: bool = False
    ranking: str = ""


def class_key(pod_set: PodSet, strategy: str) -> ClassKey:
    """The class of a pod set's tasks."""
    return ClassKey(
        tuple(sorted((name, value) for name, value in pod_set.request.items() if value)),
        pod_set.gpu,
        where(pod_set.node_selector, pod_set.tolerations, pod_set.node_affinity, pod_set.node_preferences),
        strategy == "spread",
        strategy in ("fragmentation", PUBLISHED),
        pod_set.exclusive,
        strategy if strategy in RANKINGS or strategy == PUBLISHED else "",
    )


def typical(pod_set: PodSet) -> TypicalTask:
    """What a pod set's tasks add to the learned mix."""
    demand = where(pod_set.node_selector, pod_set.tolerations, pod_set.node_affinity)
    cpu = pod_set.request.get(CPU, 0)
    return TypicalTask(pod_set.gpu, cpu, demand.selector, demand.tolerations, demand.affinity)


class RequestClass:
    """One class: its need as a row of amounts, and its cached scores per ledger."""

    __slots__ = (
        "charged",
        "count",
        "counted",
        "demerits",
        "dev",
        "eligible",
        "fit",
        "gpu",
        "hint",
        "key",
        "mix",
        "need",
        "needs",
        "scores",
        "seen",
        "share",
        "spec_seen",
        "steady",
        "typical",
        "used",
        "version",
    )

    def __init__(self, key: ClassKey, column: dict[str, int], typical: TypicalTask, *, exclusive: bool) -> None:
        self.key = key
        self.typical = typical
        self.mix = -1  # version of the mix that the scores were made with
        self.gpu = key.gpu
        self.count = key.gpu // WHOLE if key.gpu >= WHOLE else 0
        self.share = WHOLE if self.count else key.gpu
        self.scores: list[Ints | None] = [None, None]
        self.seen = [0, 0]
        self.version = -1
        self.spec_seen = 0
        self.hint = [_NO_HINT, _NO_HINT]
        fixed = not key.spread and not key.fragmentation and not key.ranking
        self.steady = fixed and (self.count > 0 or key.gpu == 0)
        self.eligible: Bools = np.zeros(0, np.bool_)
        self.demerits: Ints | None = None
        self.dev = key.gpu > 0
        self.resize(column, exclusive=exclusive)

    def resize(self, column: dict[str, int], *, exclusive: bool) -> None:
        """Adapts the row of amounts after resources were added, or the first class that is exclusive.

        ``used`` are the columns that queues are charged for, ``fit`` those that a node must have free: tenancy
        need not be looked at while nobody is exclusive.
        """
        self.need: Ints = np.zeros(len(column), np.int64)
        for name, value in self.key.request:
            self.need[column[name]] = value
        self.need[column[GPU]] = self.gpu
        self.charged: list[int] = np.flatnonzero(self.need).tolist()  # to queues
        self.counted = [column[name] for name, _ in self.key.request if name.startswith(COUNTER)]
        self.need[TENANCY] = SOLE if self.key.exclusive else 1
        self.needs: list[int] = self.need.tolist()
        self.need[self.counted] = 0  # of nodes it needs the rest
        self.used: list[int] = [at for at in self.charged if at not in self.counted]
        self.fit: list[int] = [*self.used, TENANCY] if exclusive else self.used

    def accepts(self, spec: NodeSpec | None) -> bool:
        """Whether selector, affinity and tolerations admit a node (not whether it has room)."""
        return self.key.where.accepts(spec)


class ScoreCache:
    """All classes and their scores over one set of nodes."""

    def __init__(self, nodes: Nodes, column: dict[str, int], tenants: Tenants) -> None:
        self.nodes = nodes
        self.column = column
        self.tenants = tenants
        self.rankings: dict[str, Ranking] = {}  # those that were asked for
        self.classes: dict[ClassKey, RequestClass] = {}
        self.base = 0
        self.exclusive = False  # whether any class is
        self.eligible = EligibleRows(nodes)
        self.fragmentation = Fragmentation(nodes, self.eligible)
        self._known = [(-1, 0), (-1, 0)]  # per ledger: mix and size for which fragmentation has figures
        self._measured = [0, 0]  # per ledger: how far it has read the log

    def of(self, pod_set: PodSet, strategy: str) -> RequestClass:
        """The class of a pod set, made when first met."""
        key = class_key(pod_set, strategy)
        found = self.classes.get(key)
        if found is None:
            if key.exclusive and not self.exclusive:
                self.exclusive = True
                self.resize()
            found = RequestClass(key, self.column, typical(pod_set), exclusive=self.exclusive)
            self.classes[key] = found
        return found

    def resize(self) -> None:
        """Adapts every class after resources were added."""
        for cls in self.classes.values():
            cls.resize(self.column, exclusive=self.exclusive)
            cls.version = -1

    def scores(self, cls: RequestClass, *, land: bool) -> Ints:
        """The up-to-date scores of a class on a ledger (do not write to it)."""
        nodes = self.nodes
        log = nodes.dirty
        size = nodes.open.size
        at = int(land)
        if cls.version != nodes.spec_version or cls.eligible.size != size:
            cls.version = nodes.spec_version
            cls.scores = [None, None]
            cls.spec_seen = -1
        if cls.spec_seen != len(nodes.spec_log):
            cls.spec_seen = len(nodes.spec_log)
            cls.eligible = self.eligible.of(cls.key.where)
            cls.demerits = self.eligible.demerits(cls.key.where)
        if cls.key.fragmentation:
            self._measure(land=land)
            if cls.mix != self.fragmentation.version:
                cls.mix = self.fragmentation.version
                cls.scores = [None, None]
        scores = cls.scores[at]
        since = cls.seen[at] - self.base
        end = len(log)
        if scores is None or since < 0 or end - since > size:
            scores = cls.scores[at] = self.rescore(cls, np.arange(size), land=land)
        elif since < end:
            rows = np.fromiter(set(log[since:end]), np.int64)
            scores[rows] = self.rescore(cls, rows, land=land)
        cls.seen[at] = self.base + end
        cls.hint[at] = _NO_HINT
        nodes.fence = end
        if end > _LOG_KEEP:
            half = end // 2
            del log[:half]
            self.base += half
            nodes.fence = len(log)
        return scores

    def _measure(self, *, land: bool) -> None:
        """Lets fragmentation look at the rows that changed since it last did."""
        nodes = self.nodes
        at = int(land)
        self.fragmentation.settle()
        since, end = self._measured[at] - self.base, len(nodes.dirty)
        known = (self.fragmentation.version, nodes.open.size)
        if self._known[at] != known or since < 0:
            self._known[at] = known
            self.fragmentation.refresh(None, land=land)
        elif since < end:
            self.fragmentation.refresh(np.fromiter(set(nodes.dirty[since:end]), np.int64), land=land)
        self._measured[at] = self.base + end
        nodes.fence = end

    def best(self, cls: RequestClass, *, land: bool) -> int:
        """The best node for one task of a class; -1 = none fits.

        Packing whole devices makes the chosen node better still, so while nothing else changed and it
        has room it stays the best, and no array is touched.
        """
        nodes = self.nodes
        log = nodes.dirty
        at = int(land)
        since = cls.seen[at] - self.base
        row, gpu, cpu = cls.hint[at]
        ledger = nodes.land if land else nodes.bind
        if row >= 0 and 0 <= since < len(log) <= since + 1 and log[since] == row:
            free = ledger[row]
            if free[0] <= gpu and free[1] <= cpu and cls.version == nodes.spec_version and (
                cls.spec_seen == len(nodes.spec_log) and self.fits(cls, row, land=land)
            ):  # fmt: skip
                cls.hint[at] = (row, int(free[0]), int(free[1]))
                return row
        scores = self.scores(cls, land=land)
        row = int(scores.argmax()) if scores.size else -1
        if row >= 0 and scores[row] < 0:
            row = -1
        cls.hint[at] = (row, int(ledger[row, 0]), int(ledger[row, 1])) if cls.steady and row >= 0 else _NO_HINT
        return row

    def least_broken(self, cls: RequestClass, row: int, *, land: bool) -> int:
        """The device of a row whose use for a share adds least to fragmentation."""
        self._measure(land=land)
        return self.fragmentation.device(cls.gpu, cls.needs[1], row, land=land)

    def rescore(self, cls: RequestClass, rows: Ints, *, land: bool) -> Ints:
        """Scores of the given rows from nothing but the ledgers.

        What a term is worth where a task does not fit is of no account: those rows end at -1.
        """
        nodes = self.nodes
        free = (nodes.land if land else nodes.bind)[rows]
        devices = (nodes.dev_land if land else nodes.dev_bind)[rows]
        return self.score(cls, rows, free, devices, land=land)

    def score(self, cls: RequestClass, rows: Ints, free: Ints, devices: Ints, *, land: bool) -> Ints:
        """The same from what is said to be free: amounts of shape (rows, resources), devices (rows, devices).

        The ledger still says how broken up a node is.
        """
        nodes = self.nodes
        ok = cls.eligible[rows]
        for column in cls.fit:
            ok = ok & (free[:, column] >= cls.needs[column])
        if cls.key.fragmentation:
            if cls.dev:
                ok = ok & ((devices >= cls.share).sum(axis=1) >= max(cls.count, 1))
            cost = self.fragmentation.cost(cls.gpu, cls.needs[1], rows, land=land)
            if cls.key.ranking != PUBLISHED:
                if cls.dev:
                    cost = cost + self.fragmentation.wanted[rows]
                else:
                    cost = (cost << 9) + np.clip(free[:, 0] // 64, 0, 511)
            return self._ranked(cls, rows, cost, ok)
        if cls.key.ranking:
            if cls.dev:
                ok = ok & ((devices >= cls.share).sum(axis=1) >= max(cls.count, 1))
            ranked = self._ranking(cls.key.ranking).rank((cls.gpu, cls.needs[1]), rows, free, devices)
            return self._ranked(cls, rows, 100 - ranked, ok)
        gpu_left = free[:, 0] - cls.gpu
        cpu_left = (free[:, 1] - cls.needs[1]) * 31 // np.maximum(nodes.capacity[rows, 1], 1)
        cpu_left = np.minimum(cpu_left, 31)
        if not cls.dev:
            # work without GPUs prefers nodes without GPUs, then the fullest
            prefer = np.minimum(nodes.capacity[rows, 0] // WHOLE, 15) << 14
            used = np.minimum(gpu_left // 64, 255) << 5 if not cls.key.spread else 0
            cost = prefer + used + cpu_left if not cls.key.spread else prefer + (31 - cpu_left)
        else:
            if cls.count:
                ok = ok & ((devices >= WHOLE).sum(axis=1) >= cls.count)
                cost = np.minimum(gpu_left // 8, 4095) << 5
                if cls.key.spread:
                    cost = (4095 << 5) - cost
                    cpu_left = 31 - cpu_left
                cost = cost + cpu_left
            else:
                left = np.where(devices >= cls.gpu, devices - cls.gpu, _NONE).min(axis=1)
                ok = ok & (left < _NONE)
                if cls.key.spread:
                    most = devices.max(axis=1) - cls.gpu
                    cost = (((999 - np.minimum(most, 999)) // 8) << 13) + ((255 - np.minimum(gpu_left // 64, 255)) << 5)
                    cost = cost + (31 - cpu_left)
                else:
                    cost = ((np.minimum(left, 1016) // 8) << 13) + (np.minimum(gpu_left // 64, 255) << 5) + cpu_left
        return self._ranked(cls, rows, cost, ok)

    def _ranking(self, name: str) -> Ranking:
        if name not in self.rankings:
            self.rankings[name] = RANKINGS[name](self.nodes, self.tenants)
        return self.rankings[name]

    def _ranked(self, cls: RequestClass, rows: Ints, cost: Ints, ok: Bools) -> Ints:
        if cls.demerits is not None:
            cost = cost + (cls.demerits[rows] << _COST_BITS)
        return np.where(ok, ((_WORST - cost) << _SHIFT) + self.nodes.order[rows], -1)

    def fits(self, cls: RequestClass, row: int, *, land: bool) -> int:
        """How many tasks of a class fit on a node that admits it."""
        nodes = self.nodes
        ledgers = (nodes.land, nodes.dev_land) if land else (nodes.bind, nodes.dev_bind)
        return self.fits_in(cls, ledgers[0][row], ledgers[1][row])

    def fits_in(self, cls: RequestClass, free: Ints, devices_free: Ints) -> int:
        """The same from what is said to be free on it, in all and by device."""
        most = _NONE
        amounts = free.tolist()
        for column in cls.used:
            most = min(most, amounts[column] // cls.needs[column])
        if self.exclusive:  # how many tenants there are is of no account, only whether one is exclusive
            most = min(most, int(amounts[TENANCY] >= SOLE)) if cls.key.exclusive else most * (amounts[TENANCY] > 0)
        if cls.dev and most > 0:
            devices = devices_free.tolist()
            if cls.count:
                most = min(most, sum(left >= WHOLE for left in devices) // cls.count)
            else:
                most = min(most, sum(left // cls.gpu for left in devices if left > 0))
        return max(most, 0)

    def count(
        self,
        cls: RequestClass,
        rows: Ints,
        *,
        land: bool,
        empty: bool = False,
        cordoned: bool = False,
        anywhere: bool = False,
        shared: bool = False,
    ) -> Ints:
        """How many tasks of a class fit on each of these rows.

        ``empty``: if nothing ran there; ``cordoned``: as if no node were; ``anywhere``: on nodes that do not
        admit it too, if they are open; ``shared``: as if nobody were exclusive.
        """
        nodes = self.nodes
        self.scores(cls, land=land)  # refreshes eligibility
        free = (nodes.capacity if empty else nodes.land if land else nodes.bind)[rows]
        admitted = self.eligible.if_open(cls.key.where) if cordoned else nodes.open if anywhere else cls.eligible
        most = np.where(admitted[rows], _NONE, 0)
        for column in cls.used:
            most = np.minimum(most, free[:, column] // cls.needs[column])
        if self.exclusive and not shared:
            tenancy = free[:, TENANCY]
            most = np.minimum(most, tenancy >= SOLE) if cls.key.exclusive else np.where(tenancy > 0, most, 0)
        if cls.dev:
            devices = (nodes.dev_land if land else nodes.dev_bind)[rows]
            if empty:
                devices = np.where(np.arange(devices.shape[1]) < (free[:, :1] // WHOLE), WHOLE, -1)
            if cls.count:
                most = np.minimum(most, (devices >= WHOLE).sum(axis=1) // cls.count)
            else:
                most = np.minimum(most, (np.maximum(devices, 0) // cls.gpu).sum(axis=1))
        return np.maximum(most, 0)
