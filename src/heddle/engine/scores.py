"""Which node is best for a task: a class x node score cache with a dirty log.

Tasks that ask for the same form a class. For each class and ledger one array holds the score of every
node; before it is used, only rows that changed since its last use are scored again, then one ``argmax``
decides. That is exact: a property test compares it with a full rescore. A score is one int64: 20 bits of
preference, 43 bits of name order, so that equal preferences break by node name. -1 = does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heddle.engine.model import COUNTER, GPU, WHOLE, NodeSpec, PodSet
from heddle.engine.nodes import LABEL_BITS, Bools, Ints, Nodes

_SHIFT = LABEL_BITS + 1
_LOG_KEEP = 200_000
_NONE = 1 << 40
_NO_HINT = (-1, 0, 0)


@dataclass(frozen=True, slots=True)
class ClassKey:
    """What two tasks must have in common to be interchangeable for placement."""

    request: tuple[tuple[str, int], ...]
    gpu: int
    selector: tuple[tuple[str, str], ...]
    tolerations: tuple[tuple[str, str | None], ...]
    spread: bool


def class_key(pod_set: PodSet, strategy: str) -> ClassKey:
    """The class of a pod set's tasks."""
    return ClassKey(
        tuple(sorted((name, value) for name, value in pod_set.request.items() if value)),
        pod_set.gpu,
        tuple(sorted(pod_set.node_selector.items())),
        tuple(sorted(((t.key, t.value) for t in pod_set.tolerations), key=str)),
        strategy == "spread",
    )


class RequestClass:
    """One class: its need as a row of amounts, and its cached scores per ledger."""

    __slots__ = (
        "charged",
        "columns",
        "count",
        "counted",
        "dev",
        "eligible",
        "gpu",
        "hint",
        "key",
        "need",
        "needs",
        "scores",
        "seen",
        "share",
        "spec_seen",
        "steady",
        "used",
        "version",
    )

    def __init__(self, key: ClassKey, column: dict[str, int]) -> None:
        self.key = key
        self.gpu = key.gpu
        self.count = key.gpu // WHOLE if key.gpu >= WHOLE else 0
        self.share = WHOLE if self.count else key.gpu
        self.scores: list[Ints | None] = [None, None]
        self.seen = [0, 0]
        self.version = -1
        self.spec_seen = 0
        self.hint = [_NO_HINT, _NO_HINT]
        self.steady = not key.spread and (self.count > 0 or key.gpu == 0)
        self.eligible: Bools = np.zeros(0, np.bool_)
        self.dev = key.gpu > 0
        self.resize(column)

    def resize(self, column: dict[str, int]) -> None:
        """Adapts the row of amounts after resources were added."""
        self.need: Ints = np.zeros(len(column), np.int64)
        for name, value in self.key.request:
            self.need[column[name]] = value
        self.need[column[GPU]] = self.gpu
        self.needs: list[int] = self.need.tolist()
        self.charged: list[int] = np.flatnonzero(self.need).tolist()  # to queues
        self.counted = [column[name] for name, _ in self.key.request if name.startswith(COUNTER)]
        self.need[self.counted] = 0  # of nodes it needs the rest
        self.columns = np.flatnonzero(self.need)
        self.used: list[int] = self.columns.tolist()

    def accepts(self, spec: NodeSpec | None) -> bool:
        """Whether selector and tolerations admit a node (not whether it has room)."""
        if spec is None or not spec.schedulable:
            return False
        for label, value in self.key.selector:
            if spec.labels.get(label) != value:
                return False
        for taint in spec.taints:
            if not any(k == taint.key and (v is None or v == taint.value) for k, v in self.key.tolerations):
                return False
        return True


class ScoreCache:
    """All classes and their scores over one set of nodes."""

    def __init__(self, nodes: Nodes, column: dict[str, int]) -> None:
        self.nodes = nodes
        self.column = column
        self.classes: dict[ClassKey, RequestClass] = {}
        self.base = 0

    def of(self, pod_set: PodSet, strategy: str) -> RequestClass:
        """The class of a pod set, made when first met."""
        key = class_key(pod_set, strategy)
        found = self.classes.get(key)
        if found is None:
            found = self.classes[key] = RequestClass(key, self.column)
        return found

    def resize(self) -> None:
        """Adapts every class after resources were added."""
        for cls in self.classes.values():
            cls.resize(self.column)
            cls.version = -1

    def scores(self, cls: RequestClass, *, land: bool) -> Ints:
        """The up-to-date scores of a class on a ledger (do not write to it)."""
        nodes = self.nodes
        log = nodes.dirty
        size = nodes.open.size
        at = int(land)
        if cls.version != nodes.spec_version or cls.eligible.size != size:
            cls.eligible = np.zeros(size, np.bool_)
            known = len(nodes.specs)
            cls.eligible[:known] = np.fromiter((cls.accepts(spec) for spec in nodes.specs), np.bool_, known)
            cls.version = nodes.spec_version
            cls.scores = [None, None]
        else:
            for row in nodes.spec_log[cls.spec_seen :]:
                cls.eligible[row] = cls.accepts(nodes.specs[row])
        cls.spec_seen = len(nodes.spec_log)
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

    def rescore(self, cls: RequestClass, rows: Ints, *, land: bool) -> Ints:
        """Scores of the given rows from nothing but the ledgers.

        What a term is worth where a task does not fit is of no account: those rows end at -1.
        """
        nodes = self.nodes
        free = (nodes.land if land else nodes.bind)[rows]
        devices = (nodes.dev_land if land else nodes.dev_bind)[rows]
        return self.score(cls, rows, free, devices)

    def score(self, cls: RequestClass, rows: Ints, free: Ints, devices: Ints) -> Ints:
        """The same from what is said to be free: amounts of shape (rows, resources), devices (rows, devices)."""
        nodes = self.nodes
        ok = cls.eligible[rows]
        for column in cls.used:
            ok = ok & (free[:, column] >= cls.needs[column])
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
        score = (((1 << 20) - 1 - cost) << _SHIFT) + nodes.order[rows]
        return np.where(ok, score, -1)

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
        if cls.dev and most > 0:
            devices = devices_free.tolist()
            if cls.count:
                most = min(most, sum(left >= WHOLE for left in devices) // cls.count)
            else:
                most = min(most, sum(left // cls.gpu for left in devices if left > 0))
        return max(most, 0)

    def count(self, cls: RequestClass, rows: Ints, *, land: bool, empty: bool = False) -> Ints:
        """How many tasks of a class fit on each of these rows (``empty``: if nothing ran there)."""
        nodes = self.nodes
        self.scores(cls, land=land)  # refreshes eligibility
        free = (nodes.capacity if empty else nodes.land if land else nodes.bind)[rows]
        most = np.where(cls.eligible[rows], _NONE, 0)
        for column in cls.used:
            most = np.minimum(most, free[:, column] // cls.needs[column])
        if cls.dev:
            devices = (nodes.dev_land if land else nodes.dev_bind)[rows]
            if empty:
                devices = np.where(np.arange(devices.shape[1]) < (free[:, :1] // WHOLE), WHOLE, -1)
            if cls.count:
                most = np.minimum(most, (devices >= WHOLE).sum(axis=1) // cls.count)
            else:
                most = np.minimum(most, (np.maximum(devices, 0) // cls.gpu).sum(axis=1))
        return np.maximum(most, 0)
