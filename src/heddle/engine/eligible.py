"""Which nodes admit a task, whatever room they have, and which of those it would rather have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from heddle.engine.model import NodePreference, NodeSpec, Term, Toleration
from heddle.engine.nodes import Bools, Ints, Nodes

DEMERIT_BITS = 8
_LEVELS = 63
_MOST = 4096
"""Demands of which it is known which rows admit them; those that were met first are forgotten."""


@dataclass(frozen=True, slots=True)
class Where:
    """What a task demands of a node's labels and taints; equal demands are looked up once for all classes."""

    selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    affinity: tuple[Term, ...] = ()
    preferences: tuple[NodePreference, ...] = ()

    def accepts(self, spec: NodeSpec | None) -> bool:
        """Whether a node is admitted (not whether it has room)."""
        return spec is not None and spec.schedulable and self.matches(spec)

    def matches(self, spec: NodeSpec) -> bool:
        """The same of a node that takes nothing new at the moment."""
        for label, value in self.selector:
            if spec.labels.get(label) != value:
                return False
        for taint in spec.taints:
            if taint.effect != "PreferNoSchedule" and not any(t.accepts(taint) for t in self.tolerations):
                return False
        return not self.affinity or any(all(m.holds(spec.labels) for m in term) for term in self.affinity)

    def demerit(self, spec: NodeSpec | None) -> int:
        """How little a node is wanted, 0 = not at all unwanted, in :data:`DEMERIT_BITS` bits: first the number
        of ``PreferNoSchedule`` taints that are not tolerated (3 = or more), then the weight of the preferences
        that it does not meet, in 63rds of all weight."""
        if spec is None:
            return 0
        soft = [taint for taint in spec.taints if taint.effect == "PreferNoSchedule"]
        shunned = sum(not any(t.accepts(taint) for t in self.tolerations) for taint in soft)
        total = sum(p.weight for p in self.preferences)
        unmet = sum(p.weight for p in self.preferences if not all(m.holds(spec.labels) for m in p.term))
        return min(shunned, 3) << 6 | (_LEVELS * unmet // total if total else 0)


ANYWHERE = Where()


def where(
    selector: Mapping[str, str],
    tolerations: Sequence[Toleration],
    affinity: Sequence[Term] = (),
    preferences: Sequence[NodePreference] = (),
) -> Where:
    """The demand in a form that compares: equal demands are one object, as long as few others were met since."""
    if not (selector or tolerations or affinity or preferences):
        return ANYWHERE
    return _where(tuple(sorted(selector.items())), tuple(tolerations), tuple(affinity), tuple(preferences))


@lru_cache(maxsize=_MOST)
def _where(
    selector: tuple[tuple[str, str], ...],
    tolerations: tuple[Toleration, ...],
    affinity: tuple[Term, ...],
    preferences: tuple[NodePreference, ...],
) -> Where:
    return Where(
        selector,
        tuple(sorted(set(tolerations), key=str)),
        tuple(sorted(set(affinity), key=str)),
        tuple(sorted(preferences, key=str)),
    )


class _Rows:
    """What is known of every row for one demand."""

    __slots__ = ("demerits", "mask", "plain", "seen")

    def __init__(self, size: int) -> None:
        self.mask: Bools = np.zeros(size, np.bool_)
        self.demerits: Ints = np.zeros(size, np.int64)
        self.plain = True  # no row has a demerit
        self.seen = 0


class EligibleRows:
    """Per demand: which rows admit it, brought up to date by the nodes' own log of changed specs."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self._known: dict[Where, _Rows] = {}

    def of(self, demand: Where) -> Bools:
        """One truth value per row: whether it admits the demand (do not write to it)."""
        return self._rows(demand).mask

    def if_open(self, demand: Where) -> Bools:
        """The same, were no node cordoned."""
        mask = self.of(demand).copy()
        for row in np.flatnonzero(~self.nodes.open[: len(self.nodes.specs)]).tolist():
            spec = self.nodes.specs[row]
            mask[row] = spec is not None and demand.matches(spec)
        return mask

    def demerits(self, demand: Where) -> Ints | None:
        """How little each row is wanted; None = no row is less wanted than any other."""
        found = self._rows(demand)
        return None if found.plain else found.demerits

    def _rows(self, demand: Where) -> _Rows:
        nodes = self.nodes
        end = len(nodes.spec_log)
        found = self._known.get(demand)
        if found is None and len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        if found is None or found.mask.size != nodes.open.size:
            found = self._known[demand] = _Rows(nodes.open.size)
            known = len(nodes.specs)
            found.mask[:known] = np.fromiter((demand.accepts(spec) for spec in nodes.specs), np.bool_, known)
            for row, spec in enumerate(nodes.specs):
                if spec is not None and (spec.taints or demand.preferences):
                    found.demerits[row] = demand.demerit(spec)
            found.plain = not found.demerits.any()
        elif found.seen < end:
            for row in nodes.spec_log[found.seen :]:
                found.mask[row] = demand.accepts(nodes.specs[row])
                found.demerits[row] = demand.demerit(nodes.specs[row])
            found.plain = not found.demerits.any()
        found.seen = end
        return found
