"""Which node is best for a task: a class x node score cache with a dirty log.

Tasks that ask for the same form a class. For each class and ledger one array holds the score of every
node; before it is used, only rows that changed since its last use are scored again, then one ``argmax``
decides. That is exact: a property test compares it with a full rescore. A score is one int64: 8 bits of what
the task prefers of labels and taints, 20 bits of its strategy, 35 bits of name order, so that equals break by
node name. -1 = does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from heddle.engine.eligible import DEMERIT_BITS, EligibleRows, Where, where
from heddle.engine.fragmentation import PUBLISHED, Fragmentation
from heddle.engine.hardware import FREE, TAKEN, Hardware, hardware_of
from heddle.engine.mig import NEVER, Geometry, Profile, Table, table
from heddle.engine.model import COUNTER, CPU, GPU, MODEL, WHOLE, NodeSpec, PodSet, TypicalTask, WorkloadSpec
from heddle.engine.nodes import LABEL_BITS, SOLE, TENANCY, Bools, Ints, Nodes, by_name
from heddle.engine.packing import NOWHERE, Packing
from heddle.engine.rankings import RANKINGS, Ranking, Tenants

_SHIFT = LABEL_BITS + 1
_COST_BITS = 20
_WORST = (1 << _COST_BITS + DEMERIT_BITS) - 1
_LOG_KEEP = 200_000
_REMEMBERED = 4096
"""Pod sets of which the class is known without a look at what they ask for."""
_FEW = 6
"""Up to so many rows are quicker to score one by one."""
_NONE = 1 << 40
_NO_HINT = (-1, 0, 0)


def preferred(scores: Ints) -> tuple[Ints, Ints]:
    """What is in the scores of rows that have room: first how few soft taints (0 to 3), then how many of the preferred
    labels (0 to 63) they have."""
    top = scores >> _SHIFT + _COST_BITS
    return top >> 6, top & 63


@dataclass(frozen=True, slots=True)
class ClassKey:
    """What two tasks must have in common to be interchangeable for placement."""

    request: tuple[tuple[str, int], ...]
    gpu: int
    where: Where
    spread: bool
    fragmentation: bool = False
    exclusive: bool = False
    gpu_memory: int = 0
    separate: bool = False
    models: tuple[str, ...] = ()
    mig: str = ""
    ranking: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """A GPU in MIG mode that has a profile: its first slot, what it is, and where instances go on it."""

    first: int
    geometry: Geometry
    profile: Profile
    table: Table

    def slots(self, start: int) -> tuple[int, ...]:
        """The slots of an instance."""
        return tuple(self.first + slot for slot in self.profile.slots(start, self.geometry.slices))

    def free(self, devices: Ints) -> Ints:
        """The free slots as bits, per row of what is free of devices."""
        slots = self.geometry.slots
        weights = 1 << np.arange(slots)
        found: Ints = (devices[..., self.first : self.first + slots] == FREE) @ weights
        return found


def class_key(pod_set: PodSet, spec: WorkloadSpec) -> ClassKey:
    """The class of the tasks of a workload's pod set."""
    strategy = spec.strategy
    shares = pod_set.gpu_memory > 0 or 0 < pod_set.gpu < WHOLE
    return ClassKey(
        tuple(sorted((name, value) for name, value in pod_set.request.items() if value)),
        pod_set.gpu,
        where(pod_set.node_selector, pod_set.tolerations, pod_set.node_affinity, pod_set.node_preferences),
        strategy == "spread",
        strategy in ("fragmentation", PUBLISHED),
        pod_set.exclusive,
        pod_set.gpu_memory,
        spec.separate_gpus and shares,
        pod_set.gpu_models,
        pod_set.mig,
        strategy if strategy in RANKINGS or strategy == PUBLISHED else "",
    )


def typical(pod_set: PodSet) -> TypicalTask | None:
    """What a pod set's tasks add to the learned mix; None = nothing, as their size depends on where they are."""
    if pod_set.gpu_memory or pod_set.mig:
        return None
    demand = where(pod_set.node_selector, pod_set.tolerations, pod_set.node_affinity)
    cpu = pod_set.request.get(CPU, 0)
    return TypicalTask(pod_set.gpu, cpu, demand.selector, demand.tolerations, demand.affinity)


class RequestClass:
    """One class: its need as a row of amounts, and its cached scores per ledger.

    What some tasks take depends on the hardware where they land, as a share by memory does. Such a class is not
    ``fixed``: :meth:`on` gives the fixed class that its tasks are on hardware of some kind, and :meth:`at` the one by
    which ledgers count a task that is there. Its own amounts are then the most that any known hardware makes of them:
    by these caps are asked before a place is known.
    """

    __slots__ = (
        "_astray",
        "_on",
        "charged",
        "count",
        "counted",
        "cuts",
        "demerits",
        "dev",
        "eligible",
        "fit",
        "fixed",
        "floor",
        "gpu",
        "hint",
        "key",
        "least",
        "mix",
        "need",
        "needs",
        "nodes",
        "options",
        "packing",
        "packs",
        "scores",
        "seen",
        "share",
        "spec_seen",
        "steady",
        "typical",
        "used",
        "version",
        "wanted",
        "width",
    )

    def __init__(
        self,
        key: ClassKey,
        column: dict[str, int],
        typical: TypicalTask | None,
        nodes: Nodes,
        *,
        exclusive: bool,
        cuts: tuple[Cut, ...] | None = None,
    ) -> None:
        self.key = key
        self.typical = typical
        self.nodes = nodes
        self.mix = -1  # version of the mix that the scores were made with
        self.fixed = not key.gpu_memory and not key.models and (not key.mig or cuts is not None)
        self.cuts = cuts or ()
        self.options: tuple[RequestClass, ...] = ()  # where several models may do: the class of each, best first
        self._on: dict[int, RequestClass | None] = {}
        self._astray = self
        self.scores: list[Ints | None] = [None, None]
        self.seen = [0, 0]
        self.version = -1
        self.spec_seen = 0
        self.hint = [_NO_HINT, _NO_HINT]
        whole = not key.gpu_memory and not key.mig and (key.gpu >= WHOLE or key.gpu == 0)
        self.steady = whole and not key.spread and not key.fragmentation and not key.ranking
        self.eligible: Bools = np.zeros(0, np.bool_)
        self.demerits: Ints | None = None
        self.dev = key.gpu > 0 or not self.fixed
        self.resize(column, exclusive=exclusive)

    def resize(self, column: dict[str, int], *, exclusive: bool) -> None:
        """Adapts the row of amounts after resources were added, or the first class that is exclusive.

        ``used`` are the columns that queues are charged for, ``fit`` those that a node must have free: tenancy
        need not be looked at while nobody is exclusive. ``least`` is what the most favourable hardware makes of it.
        """
        gpus: list[int] = [self.key.gpu]
        known: list[RequestClass | None] = []
        models = {MODEL + model for model in self.key.models}
        if not self.fixed:
            whole = replace(self.key, gpu=self.key.gpu or WHOLE, gpu_memory=0, models=())
            self._astray = RequestClass(whole, column, None, self.nodes, exclusive=exclusive, cuts=())
            self._on = {kind: self._made(kind, column, exclusive=exclusive) for kind in range(len(self.nodes.kinds))}
            known = [self._on[kind] for kind in self.nodes.known_kinds()]
            gpus = [cls.key.gpu for cls in known if cls is not None] or [WHOLE]
        self.gpu = max(gpus)
        self.count = self.gpu // WHOLE if self.gpu >= WHOLE and not self.key.mig else 0
        self.share = WHOLE if self.count else FREE - TAKEN if self.key.mig else self.gpu  # taken of each device
        self.floor = FREE if self.key.mig else self.share  # what is free of a device that may be taken
        self.width = self.count or int(self.dev)  # devices that a task uses
        cpu = sum(value for name, value in self.key.request if name == CPU)
        self.packing = Packing(self.gpu, cpu, self.count, self.key.spread)
        self.packs = self.fixed and not (self.key.mig or self.key.fragmentation or self.key.ranking)
        self.need: Ints = np.zeros(len(column), np.int64)
        for name, value in self.key.request:
            self.need[column[name]] = value
        self.need[column[GPU]] = self.gpu
        counted = {at for cls in known if cls is not None for at in cls.charged if self.nodes.resources[at] in models}
        if len(self.key.models) == 1:
            self.need[list(counted)] = self.gpu
        named: list[int] = np.flatnonzero(self.need).tolist()
        self.charged: list[int] = by_name(named, self.nodes.resources)  # to queues
        self.wanted = sorted({*self.charged, *counted})  # of queues: GPUs of each model that it may get
        self.counted = [column[name] for name, _ in self.key.request if name.startswith(COUNTER)]
        self.need[TENANCY] = SOLE if self.key.exclusive else 1
        self.needs: list[int] = self.need.tolist()
        self.least = self.needs if self.fixed else [min(gpus), *self.needs[1:]]
        self.need[self.counted] = 0  # of nodes it needs the rest
        self.used: list[int] = [at for at in self.charged if at not in self.counted and at not in counted]
        self.fit: list[int] = [*self.used, TENANCY] if exclusive else self.used

    @property
    def size(self) -> tuple[object, ...]:
        """Sorts the largest first; which resource was heard of first is of no account."""
        return (-self.gpu, self.needs[: TENANCY + 1], self.key.request)

    def _made(self, kind: int, column: dict[str, int], *, exclusive: bool) -> RequestClass | None:
        hardware = self.nodes.kinds[kind]
        if self.key.models and hardware.model not in self.key.models:
            return None
        gpu = hardware.share_of(self.key.gpu_memory) if self.key.gpu_memory else self.key.gpu
        if gpu is None:
            return None
        cuts = self._cuts(hardware)
        if self.key.mig:
            if not cuts:
                return None
            gpu = max(cut.geometry.share(cut.profile) for cut in cuts)
        request = dict(self.key.request)
        if self.key.models and hardware.counted:
            request[MODEL + hardware.model] = gpu
        key = replace(self.key, gpu=gpu, gpu_memory=0, models=(), request=tuple(sorted(request.items())))
        return RequestClass(key, column, None, self.nodes, exclusive=exclusive, cuts=cuts)

    def _cuts(self, hardware: Hardware) -> tuple[Cut, ...]:
        """The GPUs of a node that have, or can have, instances of its profile."""
        found = []
        for first, geometry in hardware.cut if self.key.mig else ():
            profile, there = geometry.profile(self.key.mig), table(geometry, self.key.mig)
            if profile is not None and there is not None:
                found.append(Cut(first, geometry, profile, there))
        return tuple(found)

    def cut(self, free: Ints) -> tuple[int, ...]:
        """The slots of the instance of its profile that spoils least, where so much is free of devices."""
        bits = [int(cut.free(free)) for cut in self.cuts]
        at = min(range(len(bits)), key=lambda at: (int(self.cuts[at].table.spoils[bits[at]]), at))
        return self.cuts[at].slots(int(self.cuts[at].table.start[bits[at]]))

    def holds(self, row: int, devices: Sequence[int]) -> bool:
        """Whether these devices of a row are what one of its tasks takes there."""
        cls = self.at(row)
        if cls.key.mig:
            return any(tuple(devices) == cut.slots(at) for cut in cls.cuts for at in cut.geometry.starts(cut.profile))
        return len(devices) == cls.width and all(self.nodes.dev_capacity[row, at] == WHOLE for at in devices)

    def on(self, kind: int) -> RequestClass | None:
        """The fixed class of its tasks on hardware of a kind; None = that has no place for them."""
        return self if self.fixed else self._on[kind]

    def at(self, row: int) -> RequestClass:
        """The fixed class of a task that is on a row. Where it should not be it counts as on a whole device."""
        if self.fixed:
            return self
        return self._on[int(self.nodes.kind[row])] or self._astray

    def beside(self, row: int) -> RequestClass | None:
        """The class of further tasks of a pod set of which some are on a row; None = it may not use that model."""
        if not self.options:
            return self
        model = self.nodes.kinds[int(self.nodes.kind[row])].model
        return next((cls for cls in self.options if cls.key.models == (model,)), None)

    def suits(self, rows: Ints) -> Bools:
        """Of which rows the hardware has a place for its tasks."""
        table = np.array([self.on(kind) is not None for kind in range(len(self.nodes.kinds))], np.bool_)
        found: Bools = table[self.nodes.kind[rows]]
        return found

    def accepts(self, spec: NodeSpec | None) -> bool:
        """Whether selector, affinity, tolerations and hardware admit a node (not whether it has room)."""
        if not self.key.where.accepts(spec) or spec is None:
            return False
        return self.fixed or self._on.get(self.nodes.number(hardware_of(spec))) is not None


class ScoreCache:
    """All classes and their scores over one set of nodes."""

    def __init__(self, nodes: Nodes, column: dict[str, int], tenants: Tenants) -> None:
        self.nodes = nodes
        self.column = column
        self.tenants = tenants
        self.rankings: dict[str, Ranking] = {}  # those that were asked for
        self.classes: dict[ClassKey, RequestClass] = {}
        # of those met of late: by what their class depends on, as it was written
        self._met: dict[tuple[object, ...], RequestClass] = {}
        self.base = 0
        self.exclusive = False  # whether any class is
        self.loose = False  # whether any class is not fixed
        self._kinds_seen = nodes.kinds_version
        self.eligible = EligibleRows(nodes)
        self.fragmentation = Fragmentation(nodes, self.eligible)
        self._known = [(-1, 0), (-1, 0)]  # per ledger: mix and size for which fragmentation has figures
        self._measured = [0, 0]  # per ledger: how far it has read the log

    def of(self, pod_set: PodSet, spec: WorkloadSpec) -> RequestClass:
        """The class of a pod set, made when first met."""
        met = (
            *(pod_set.gpu, pod_set.gpu_memory, pod_set.mig, pod_set.gpu_models, pod_set.exclusive),
            *(spec.strategy, spec.separate_gpus, *pod_set.request.items()),
            where(pod_set.node_selector, pod_set.tolerations, pod_set.node_affinity, pod_set.node_preferences),
        )
        found = self._met.get(met)
        if found is None:
            found = self._of(class_key(pod_set, spec), typical(pod_set))
            if len(self._met) >= _REMEMBERED:
                self._met.clear()
            self._met[met] = found
        return found

    def packing(self, cls: RequestClass) -> RequestClass:
        """The class of tasks that ask for the same, and are packed."""
        return self._of(replace(cls.key, spread=False, fragmentation=False, ranking=""), cls.typical)

    def _of(self, key: ClassKey, typical: TypicalTask | None) -> RequestClass:
        found = self.classes.get(key)
        if found is None:
            if key.exclusive and not self.exclusive:
                self.exclusive = True
                self.resize()
            found = RequestClass(key, self.column, typical, self.nodes, exclusive=self.exclusive)
            self.classes[key] = found
            if len(key.models) > 1:
                found.options = tuple(self._of(replace(key, models=(model,)), typical) for model in key.models)
            self.loose = self.loose or not found.fixed
        return found

    def learn_hardware(self) -> bool:
        """Adapts classes after kinds of hardware came or went; whether what a task counts for may have changed."""
        if self._kinds_seen == self.nodes.kinds_version:
            return False
        self._kinds_seen = self.nodes.kinds_version
        if self.loose:
            self.resize()
        return self.loose

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
            cls.eligible = self.admitted(cls)
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
            changed = {*log[since:end]}
            if cls.packs and len(changed) <= _FEW:
                for row in changed:
                    scores[row] = self._score_one(cls, row, land=land)
            else:
                rows = np.fromiter(changed, np.int64, len(changed))
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

    def admitted(self, cls: RequestClass, *, cordoned: bool = False) -> Bools:
        """Which rows admit a class, whatever room they have (do not write to it); ``cordoned``: as if no node were."""
        found = self.eligible.if_open(cls.key.where) if cordoned else self.eligible.of(cls.key.where)
        return found if cls.fixed else found & cls.suits(np.arange(found.size))

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

    def broken_room(self) -> float:
        """See :meth:`State.broken_room`."""
        self._measure(land=False)
        total = int(self.nodes.total[0])
        return self.fragmentation.sum() / total if total else 0.0

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
            if cls.gpu <= free[0] <= gpu and free[1] <= cpu and cls.version == nodes.spec_version and (
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
        if not cls.fixed:
            found = np.full(rows.size, -1, np.int64)
            for alike, there in self._alike(cls, rows):
                found[there] = self.score(alike, rows[there], free[there], devices[there], land=land)
            return found
        ok = cls.eligible[rows]
        for column in cls.fit:
            ok = ok & (free[:, column] >= cls.needs[column])
        if cls.key.mig:
            return self._ranked(cls, rows, *self._cut_cost(cls, rows, free, devices, ok))
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
        cost, enough = cls.packing.costs(free, devices, nodes.capacity[rows])
        ok = ok & enough
        return self._ranked(cls, rows, cost, ok)

    def _score_one(self, cls: RequestClass, row: int, *, land: bool) -> int:
        """The score of one row for a class that packs or spreads: without arrays."""
        nodes = self.nodes
        free: list[int] = (nodes.land if land else nodes.bind)[row].tolist()
        if not cls.eligible[row]:
            return -1
        for column in cls.fit:
            if free[column] < cls.needs[column]:
                return -1
        devices: list[int] = (nodes.dev_land if land else nodes.dev_bind)[row].tolist() if cls.dev else []
        cost = cls.packing.cost(free, devices, nodes.capacity[row, :2].tolist())
        if cost == NOWHERE:
            return -1
        if cls.demerits is not None:
            cost += int(cls.demerits[row]) << _COST_BITS
        return (_WORST - cost << _SHIFT) + int(nodes.order[row])

    def _ranking(self, name: str) -> Ranking:
        if name not in self.rankings:
            self.rankings[name] = RANKINGS[name](self.tenants)
        return self.rankings[name]

    def _cut_cost(self, cls: RequestClass, rows: Ints, free: Ints, devices: Ints, ok: Bools) -> tuple[Ints, Bools]:
        """What a MIG instance spoils, then how full the node is; and where there is room for it."""
        spoils = np.full(rows.size, NEVER)
        for cut in cls.cuts:
            spoils = np.minimum(spoils, cut.table.spoils[cut.free(devices)])
        gpu_left = np.clip((free[:, 0] - cls.gpu) // 64, 0, 255)
        cpu_left = np.minimum((free[:, 1] - cls.needs[1]) * 31 // np.maximum(self.nodes.capacity[rows, 1], 1), 31)
        worse = np.minimum(spoils, 127)
        if cls.key.spread:
            cost = (255 - gpu_left << 12) + (worse << 5) + (31 - cpu_left)
        else:
            cost = (worse << 13) + (gpu_left << 5) + cpu_left
        return cost, ok & (spoils < NEVER)

    def _alike(self, cls: RequestClass, rows: Ints) -> Iterator[tuple[RequestClass, Ints]]:
        """The fixed classes that a class is on some rows, and where among these each is so."""
        kinds = self.nodes.kind[rows]
        for kind in np.unique(kinds).tolist():
            alike = cls.on(kind)
            if alike is not None:
                alike.eligible, alike.demerits = cls.eligible, cls.demerits
                yield alike, np.flatnonzero(kinds == kind)

    def _ranked(self, cls: RequestClass, rows: Ints, cost: Ints, ok: Bools) -> Ints:
        if cls.demerits is not None:
            cost = cost + (cls.demerits[rows] << _COST_BITS)
        return np.where(ok, ((_WORST - cost) << _SHIFT) + self.nodes.order[rows], -1)

    def fits(self, cls: RequestClass, row: int, *, land: bool) -> int:
        """How many tasks of a class fit on a node that admits it."""
        nodes = self.nodes
        ledgers = (nodes.land, nodes.dev_land) if land else (nodes.bind, nodes.dev_bind)
        alike = cls.on(int(nodes.kind[row])) if not cls.fixed else cls
        return self._fits_in(alike, ledgers[0][row], ledgers[1][row]) if alike is not None else 0

    def fits_on(self, cls: RequestClass, row: int, devices: Ints, *, land: bool) -> int:
        """The same where so much of each device may be used."""
        nodes = self.nodes
        alike = cls.on(int(nodes.kind[row]))
        return self._fits_in(alike, (nodes.land if land else nodes.bind)[row], devices) if alike is not None else 0

    def _fits_in(self, cls: RequestClass, free: Ints, devices_free: Ints) -> int:
        most = _NONE
        amounts = free.tolist()
        for column in cls.used:
            most = min(most, amounts[column] // cls.needs[column])
        if self.exclusive:  # how many tenants there are is of no account, only whether one is exclusive
            most = min(most, int(amounts[TENANCY] >= SOLE)) if cls.key.exclusive else most * (amounts[TENANCY] > 0)
        if cls.key.mig and most > 0:
            return max(0, min(most, sum(int(cut.table.fits[cut.free(devices_free)]) for cut in cls.cuts)))
        if cls.dev and most > 0:
            devices = devices_free.tolist()
            if cls.count:
                whole = 0
                for left in devices:
                    whole += left >= WHOLE
                most = min(most, whole // cls.count)
            elif cls.key.separate:
                most = min(most, sum(left >= cls.gpu for left in devices))
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
        admitted = self.admitted(cls, cordoned=True) if cordoned else nodes.open if anywhere else cls.eligible
        if cls.fixed:
            return self._count(cls, rows, admitted, land=land, empty=empty, shared=shared)
        found = np.zeros(rows.size, np.int64)
        for alike, there in self._alike(cls, rows):
            found[there] = self._count(alike, rows[there], admitted, land=land, empty=empty, shared=shared)
        return found

    def _count(self, cls: RequestClass, rows: Ints, admitted: Bools, *, land: bool, empty: bool, shared: bool) -> Ints:
        nodes = self.nodes
        free = (nodes.capacity if empty else nodes.land if land else nodes.bind)[rows]
        most = np.where(admitted[rows], _NONE, 0)
        for column in cls.used:
            most = np.minimum(most, free[:, column] // cls.needs[column])
        if self.exclusive and not shared:
            tenancy = free[:, TENANCY]
            most = np.minimum(most, tenancy >= SOLE) if cls.key.exclusive else np.where(tenancy > 0, most, 0)
        if cls.dev:
            devices = (nodes.dev_land if land else nodes.dev_bind)[rows]
            if empty:
                devices = nodes.dev_capacity[rows]
            if cls.key.mig:
                instances = sum((cut.table.fits[cut.free(devices)] for cut in cls.cuts), np.zeros(rows.size, np.int64))
                most = np.minimum(most, instances)
            elif cls.count:
                most = np.minimum(most, (devices >= WHOLE).sum(axis=1) // cls.count)
            elif cls.key.separate:
                most = np.minimum(most, (devices >= cls.gpu).sum(axis=1))
            else:
                most = np.minimum(most, (np.maximum(devices, 0) // cls.gpu).sum(axis=1))
        return np.maximum(most, 0)
