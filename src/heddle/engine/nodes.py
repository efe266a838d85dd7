"""Nodes as arrays: what is there, what is free now, what will be free once evicted work has left.

Two ledgers describe every node and every device. ``bind`` is what a task may start on now: capacity less
what runs, less the larger of what is still leaving and what is reserved. ``land`` is what may be
promised: capacity less what runs, less what is reserved. They differ only where work is leaving or
places are reserved.

Every change of a row is noted in ``dirty``, from which score caches learn what to look at again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from heddle.engine.hardware import NONE, Hardware, hardware_of, in_order, slots_of
from heddle.engine.mig import geometry_of
from heddle.engine.model import WHOLE, NodeSpec
from heddle.engine.together import close_together

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TENANCY = 3
"""Column that counts tenants in place of a resource: a task takes one of :data:`SOLE`, an exclusive one all of it."""
TENANCY_NAME = ""
"""No resource can have this name."""
SOLE = 1 << 20
LABEL_BITS = 34
_STEP = 1 << 12
_FEW = 3
"""Up to so many devices, or rows, are quicker to change one by one."""
_REMEMBERED = 4096
"""Sets of devices, as rows."""
_TOP = (1 << LABEL_BITS) - 1


_DEVICES = ("dev_capacity", "dev_bind", "dev_land", "dev_releasing", "dev_reserved")


def by_name(columns: Iterable[int], resources: Sequence[str]) -> list[int]:
    """Columns in an order in which it is of no account which resource was heard of first."""
    return sorted(columns, key=lambda at: (min(at, TENANCY + 1), resources[at]))


class Nodes:
    """All nodes, one row each. Rows of removed nodes are used again; their number never decides anything."""

    def __init__(self, resources: list[str]) -> None:
        self.resources = resources
        self.names: list[str] = []
        self.specs: list[NodeSpec | None] = []
        self.row: dict[str, int] = {}
        self.free_rows: list[int] = []
        self._sorted: list[str] = []
        width = len(resources)
        self.capacity: Ints = np.zeros((0, width), np.int64)
        self.bind: Ints = np.zeros((0, width), np.int64)
        self.land: Ints = np.zeros((0, width), np.int64)
        self.releasing: Ints = np.zeros((0, width), np.int64)
        self.reserved: Ints = np.zeros((0, width), np.int64)
        self.dev_capacity: Ints = np.zeros((0, 1), np.int64)
        self.dev_bind: Ints = np.zeros((0, 1), np.int64)
        self.dev_land: Ints = np.zeros((0, 1), np.int64)
        self.dev_releasing: Ints = np.zeros((0, 1), np.int64)
        self.dev_reserved: Ints = np.zeros((0, 1), np.int64)
        self.open: Bools = np.zeros(0, np.bool_)
        self.order: Ints = np.zeros(0, np.int64)  # larger = earlier by name
        self.kind: Ints = np.zeros(0, np.int64)  # number of the row's hardware in `kinds`
        self.kinds: list[Hardware] = [NONE]
        self._kind_of = {NONE: 0}
        self._there: list[int] = [0]  # nodes of each kind
        self.kinds_version = 0  # moves when there is a kind that there was not, or no longer
        self.device_index: list[dict[str, int]] = []
        self.links: list[tuple[tuple[int, int], ...] | None] = []
        self.dirty: list[int] = []
        self.fence = 0  # a reader has seen the log up to here: what repeats after it must be noted again
        self.spec_version = 0  # moves when every cached score is void
        self.spec_log: list[int] = []  # rows whose spec changed, in order
        self.total: Ints = np.zeros(width, np.int64)
        self._rows = (-1, np.zeros(0, np.int64))  # as of so many specs
        self._vectors: dict[tuple[tuple[int, ...], int], Ints] = {}
        self.leaving = 0  # tasks that were told to stop and are still there
        self._changed: set[int] = set()  # rows that were touched since idle amounts were last summed up
        self._idle: Ints = np.zeros((2, 0, width), np.int64)  # per ledger (bind, land) and row
        self._sums: Ints = np.zeros((2, width), np.int64)

    # -- shape -------------------------------------------------------------------------------------

    def widen(self) -> None:
        """Adds columns for resources that were appended to the shared list."""
        extra = len(self.resources) - self.capacity.shape[1]
        if extra <= 0:
            return
        for name in ("capacity", "bind", "land", "releasing", "reserved"):
            setattr(self, name, np.pad(getattr(self, name), ((0, 0), (0, extra))))
        self.total = np.pad(self.total, (0, extra))
        self._idle = np.pad(self._idle, ((0, 0), (0, 0), (0, extra)))
        self._sums = np.pad(self._sums, ((0, 0), (0, extra)))
        self.spec_version += 1

    def _grow(self) -> int:
        if self.free_rows:
            return self.free_rows.pop()
        row = len(self.names)
        if row == self.capacity.shape[0]:
            more = max(16, row)
            for name in ("capacity", "bind", "land", "releasing", "reserved"):
                setattr(self, name, np.pad(getattr(self, name), ((0, more), (0, 0))))
            for name in _DEVICES:
                fill = 0 if name in ("dev_releasing", "dev_reserved") else -1
                setattr(self, name, np.pad(getattr(self, name), ((0, more), (0, 0)), constant_values=fill))
            self.open = np.pad(self.open, (0, more))
            self.order = np.pad(self.order, (0, more))
            self.kind = np.pad(self.kind, (0, more))
            self._idle = np.pad(self._idle, ((0, 0), (0, more), (0, 0)))
        self.names.append("")
        self.specs.append(None)
        self.device_index.append({})
        self.links.append(None)
        return row

    def _deepen(self, devices: int) -> None:
        extra = devices - self.dev_bind.shape[1]
        if extra > 0:
            for name in _DEVICES:
                fill = 0 if name in ("dev_releasing", "dev_reserved") else -1
                setattr(self, name, np.pad(getattr(self, name), ((0, 0), (0, extra)), constant_values=fill))

    def _place_in_order(self, name: str, row: int) -> None:
        """Gives the row a label between its neighbours by name, so that ties break by name with one
        argmax."""
        at = bisect_left(self._sorted, name)
        low = int(self.order[self.row[self._sorted[at]]]) if at < len(self._sorted) else 0
        high = int(self.order[self.row[self._sorted[at - 1]]]) if at else _TOP
        self._sorted.insert(at, name)
        label = high - _STEP if at + 1 == len(self._sorted) else (low + high) // 2
        if low < label < high:
            self.order[row] = label
            return
        gap = _TOP // (len(self._sorted) + 1)
        for position, other in enumerate(self._sorted):
            self.order[row if other == name else self.row[other]] = _TOP - (position + 1) * gap
        self.spec_version += 1

    # -- nodes -------------------------------------------------------------------------------------

    def add(self, spec: NodeSpec, column: dict[str, int]) -> int:
        """Adds an empty node and returns its row."""
        row = self._grow()
        slots = slots_of(spec)
        self._deepen(len(slots))
        self._place_in_order(spec.name, row)
        self.row[spec.name] = row
        self.names[row] = spec.name
        self.capacity[row] = 0
        for resource, value in spec.resources.items():
            self.capacity[row, column[resource]] = value
        self.capacity[row, 0] = len(spec.devices) * WHOLE
        self.capacity[row, TENANCY] = SOLE
        self.bind[row] = self.land[row] = self.capacity[row]
        self.releasing[row] = self.reserved[row] = 0
        self.dev_capacity[row] = -1
        self.dev_capacity[row, : len(slots)] = [free for _, free in slots]
        self.dev_bind[row] = self.dev_land[row] = self.dev_capacity[row]
        self.dev_releasing[row] = self.dev_reserved[row] = 0
        self._describe(row, spec)
        return row

    def _describe(self, row: int, spec: NodeSpec) -> None:
        if self.specs[row] is not None and self.open[row]:
            self.total -= self.capacity[row]
        self.specs[row] = spec
        self.open[row] = spec.schedulable
        if spec.schedulable:
            self.total += self.capacity[row]
        self.device_index[row] = {name: at for at, (name, _) in enumerate(slots_of(spec))}
        self._count_kind(int(self.kind[row]), hardware_of(spec))
        self.kind[row] = self._kind_of[hardware_of(spec)]
        groups = tuple(
            (device.link, device.numa)
            for device in in_order(spec)
            for _ in range(1 if device.mig is None else geometry_of(device.mig.geometry).slots)
        )
        self.links[row] = groups if len(set(groups)) > 1 else None
        self.spec_log.append(row)
        self.dirty.append(row)
        self._changed.add(row)

    def rows(self) -> Ints:
        """The rows of all nodes that there are, in ascending order (do not write to it)."""
        if self._rows[0] != len(self.spec_log):
            self._rows = (len(self.spec_log), np.array(sorted(self.row.values()), np.int64))
        return self._rows[1]

    def _count_kind(self, old: int, new: Hardware | None) -> None:
        """A node's hardware is now this (None = the node is gone)."""
        at = self._kind_of.get(new, -1) if new is not None else 0
        if new is not None and at < 0:
            at = self._kind_of[new] = len(self.kinds)
            self.kinds.append(new)
            self._there.append(0)
        if at == old:
            return
        for kind, count in ((old, -1), (at, 1)):
            if kind:  # none at all is always there
                self._there[kind] += count
                self.kinds_version += self._there[kind] == (count > 0)

    def number(self, hardware: Hardware) -> int:
        """The number of a kind of hardware; -1 = no node was ever of it."""
        return self._kind_of.get(hardware, -1)

    def known_kinds(self) -> list[int]:
        """Numbers of the kinds that some node is of."""
        return [kind for kind, count in enumerate(self._there) if count]

    def relabel(self, row: int, spec: NodeSpec) -> None:
        """New labels, taints or schedulability for a node whose capacity stays."""
        self._describe(row, spec)

    def remove(self, row: int) -> None:
        """Forgets an emptied node."""
        name = self.names[row]
        if self.open[row]:
            self.total -= self.capacity[row]
        self._count_kind(int(self.kind[row]), None)
        self.kind[row] = 0
        del self._sorted[bisect_left(self._sorted, name)]
        del self.row[name]
        self.names[row] = ""
        self.specs[row] = None
        self.capacity[row] = self.bind[row] = self.land[row] = 0
        self.dev_bind[row] = self.dev_land[row] = self.dev_capacity[row] = -1
        self.open[row] = False
        self.free_rows.append(row)
        self.spec_log.append(row)
        self.dirty.append(row)
        self._changed.add(row)

    # -- usage -------------------------------------------------------------------------------------

    def touch(self, row: int) -> None:
        """Notes that a row changed."""
        if len(self.dirty) <= self.fence or self.dirty[-1] != row:
            self.dirty.append(row)
        self._changed.add(row)

    def occupy(self, row: int, need: Ints, devices: Sequence[int], share: int, sign: int = 1) -> None:
        """A task starts (or, with ``sign=-1``, is gone). ``share``: milli-units on each of its devices."""
        # rows as views: what is changed in them need not be assigned to them again
        bind, land = self.bind[row], self.land[row]
        if sign > 0:
            bind -= need
            land -= need
        else:
            bind += need
            land += need
            share = -share
        if len(devices) > _FEW:
            taken = self._vector(tuple(devices), share)
            bind, land = self.dev_bind[row], self.dev_land[row]
            bind -= taken
            land -= taken
        else:
            for device in devices:
                self.dev_bind[row, device] -= share
                self.dev_land[row, device] -= share
        self.touch(row)

    def vacate(self, rows: Sequence[int], needs: Ints, used: Sequence[tuple[int, int, int]]) -> None:
        """Many tasks are gone at once: so much was on each of these rows, and of devices (row, device, thousandths)."""
        for ledger in (self.bind, self.land):
            np.add.at(ledger, rows, needs)
        if used:
            where, devices, shares = zip(*used, strict=True)
            for ledger in (self.dev_bind, self.dev_land):
                np.add.at(ledger, (where, devices), shares)
        for row in dict.fromkeys(rows):
            self.touch(row)

    def _vector(self, devices: tuple[int, ...], share: int) -> Ints:
        """So much of each of some devices, as a row of all."""
        found = self._vectors.get((devices, share))
        if found is None or found.size != self.dev_bind.shape[1]:
            if len(self._vectors) >= _REMEMBERED:
                self._vectors.clear()
            found = np.zeros(self.dev_bind.shape[1], np.int64)
            found[list(devices)] = share
            self._vectors[devices, share] = found
        return found

    def leave(self, row: int, need: Ints, devices: Sequence[int], share: int, sign: int = 1) -> None:
        """A running task begins to leave (``sign=-1``: takes that back). It still occupies its place."""
        self.leaving += sign
        self.land[row] += sign * need
        self.releasing[row] += sign * need
        for device in devices:
            self.dev_land[row, device] += sign * share
            self.dev_releasing[row, device] += sign * share
        self._settle(row)

    def gone(self, row: int, need: Ints, devices: Sequence[int], share: int, sign: int = 1) -> None:
        """A leaving task is gone (``sign=-1``: takes that back)."""
        self.leaving -= sign
        self.releasing[row] -= sign * need
        for device in devices:
            self.dev_releasing[row, device] -= sign * share
        self._settle(row)

    def reserve(self, row: int, need: Ints, devices: Sequence[int], share: int, sign: int = 1) -> None:
        """A place is promised (``sign=-1``: no longer)."""
        self.land[row] -= sign * need
        self.reserved[row] += sign * need
        for device in devices:
            self.dev_land[row, device] -= sign * share
            self.dev_reserved[row, device] += sign * share
        self._settle(row)

    def _settle(self, row: int) -> None:
        held = self.reserved[row]
        self.bind[row] = self.land[row] + held - np.maximum(held, self.releasing[row])
        held = self.dev_reserved[row]
        self.dev_bind[row] = self.dev_land[row] + held - np.maximum(held, self.dev_releasing[row])
        self.touch(row)

    def free(self, column: int, land: bool) -> int:
        """How much of a resource is free on schedulable nodes now, or (``land``) once all who leave have left."""
        return int(self.idle(land=land)[column])

    def idle(self, *, land: bool) -> Ints:
        """How much of each resource is idle on schedulable nodes now, or (``land``) once all who leave have left (do
        not write to it). Costs what changed since it was last asked."""
        if 0 < len(self._changed) <= _FEW:  # then this is cheaper than arrays of rows
            for row in self._changed:
                for at, ledger in enumerate((self.bind, self.land)):
                    amounts = np.maximum(ledger[row], 0) * self.open[row]
                    self._sums[at] += amounts - self._idle[at, row]
                    self._idle[at, row] = amounts
            self._changed.clear()
        elif self._changed:
            rows = np.fromiter(self._changed, np.int64, len(self._changed))
            self._changed.clear()
            there = self.open[rows][:, None]
            for at, ledger in enumerate((self.bind, self.land)):
                now = np.maximum(ledger[rows], 0) * there
                self._sums[at] += (now - self._idle[at, rows]).sum(axis=0)
                self._idle[at, rows] = now
        found: Ints = self._sums[int(land)]
        return found

    def roomiest(self, rows: Ints, first: int = 64) -> Iterator[int]:
        """Some rows, those with most GPUs free once all who leave have left first, then by name.

        Few are looked at as a rule: only so many are sorted at ``first``.
        """
        keys = (self.land[rows, 0] << LABEL_BITS) + self.order[rows]  # most rows of a full cluster have as much free
        while rows.size > first:
            parted = np.argpartition(keys, -first)
            here = parted[-first:]
            yield from rows[here[np.argsort(-keys[here])]].tolist()
            rows, keys = rows[parted[:-first]], keys[parted[:-first]]
            first *= 8
        yield from rows[np.argsort(-keys)].tolist()

    # -- devices -----------------------------------------------------------------------------------

    def choose_devices(self, row: int, gpu: int, free: Sequence[int], *, spread: bool = False) -> tuple[int, ...]:
        """Devices for one task on a node that has room for it: best fit for a share, close together for
        several. ``free``: thousandths that may be used of each device."""
        if not gpu:
            return ()
        groups = self.links[row]
        if gpu < WHOLE:
            fitting = [(left, at) for at, left in enumerate(free) if left >= gpu]
            if spread:
                return (min(fitting, key=lambda item: (-item[0], item[1]))[1],)
            left, at = min(fitting)
            if left < WHOLE or groups is None:
                return (at,)
            gpu = WHOLE  # none that is in use has room: the idle one whose going spoils least
        count = gpu // WHOLE
        idle = [at for at, left in enumerate(free) if left >= WHOLE]
        if groups is None or len(idle) == count:
            return tuple(idle[:count])
        return close_together(tuple(idle), groups, count)

    def device_ids(self, row: int, devices: Sequence[int]) -> tuple[str, ...]:
        """Ids for device numbers."""
        ids = list(self.device_index[row])
        return tuple(ids[at] for at in devices)
