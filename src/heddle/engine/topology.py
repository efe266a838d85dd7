"""Domains: which nodes lie in one rack, one block, one zone.

Levels are node labels, outermost first. A domain is the path of labels from the outermost level down, so
that racks of the same name in two zones stay apart; a node without a label somewhere on the path is in
no domain there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from heddle.engine.model import NODE
from heddle.engine.nodes import Ints, Nodes


@dataclass(frozen=True, slots=True)
class Level:
    """One level: its domains by path, their rows and the first of each, and the domain of each row (-1 = none)."""

    label: str
    paths: tuple[tuple[str, ...], ...]
    rows: tuple[Ints, ...]
    domain: Ints
    first: Ints

    def rows_in_domains(self) -> Ints:
        """All rows that are in some domain."""
        return np.flatnonzero(self.domain >= 0)


class Topology:
    """The tree of domains, worked out again only after a node came, went or changed its place."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.labels: tuple[str, ...] = ()
        self._levels: dict[str, Level] = {}
        self._seen = 0
        self._place: dict[int, tuple[str, ...]] = {}  # per row: its labels, outermost first, then its name

    def set(self, labels: Sequence[str]) -> None:
        """Replaces the levels, outermost first."""
        self.labels = tuple(labels)
        self._levels = {}
        self._place = {row: self._look(row) for row in self.nodes.row.values()}
        self._seen = len(self.nodes.spec_log)

    def level(self, label: str) -> Level | None:
        """A level by its label; None when it is none."""
        self.update()
        found = self._levels.get(label)
        if found is None and (label in self.labels or label == NODE):
            found = self._levels[label] = self._build(label)
        return found

    def path(self, row: int) -> tuple[str, ...]:
        """The labels of a row from the outermost level down, as far as it has them."""
        spec = self.nodes.specs[row]
        labels = spec.labels if spec else {}
        return tuple(takewhile(bool, [labels.get(label, "") for label in self.labels]))

    def depth(self, label: str) -> int:
        """How far in a level is, 0 = outermost; single nodes are innermost."""
        return self.labels.index(label) if label in self.labels else len(self.labels)

    def update(self) -> None:
        """Looks at the nodes that changed since it last did; cheap when done with every change."""
        log = self.nodes.spec_log
        if self._seen == len(log):
            return
        for row in set(log[self._seen :]):
            place = self._look(row)
            if self._place.get(row, ()) != place:
                self._levels = {}
                if place:
                    self._place[row] = place
                else:
                    del self._place[row]
        self._seen = len(log)

    def _look(self, row: int) -> tuple[str, ...]:
        spec = self.nodes.specs[row]
        if spec is None:
            return ()
        labels = spec.labels
        return (*[labels.get(label, "") for label in self.labels], spec.name)

    def _build(self, label: str) -> Level:
        by_path: dict[tuple[str, ...], list[int]] = {}
        if label in self.labels:
            depth = self.labels.index(label) + 1
            for row, place in self._place.items():
                path = place[:depth]
                if "" not in path:
                    by_path.setdefault(path, []).append(row)
        else:
            by_path.update(((place[-1],), [row]) for row, place in self._place.items())
        paths = tuple(sorted(by_path))
        rows = tuple(np.array(by_path[path], np.int64) for path in paths)
        domain = np.full(self.nodes.open.size, -1, np.int64)
        if rows:
            domain[np.concatenate(rows)] = np.repeat(np.arange(len(rows)), [members.size for members in rows])
        return Level(label, paths, rows, domain, np.array([members[0] for members in rows], np.int64))
