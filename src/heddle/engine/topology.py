"""Domains: which nodes lie in one rack, one block, one zone.

Levels are node labels, outermost first. A domain is the path of labels from the outermost level down, so
that racks of the same name in two zones stay apart; a node without a label somewhere on the path is in
no domain there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """The tree of domains, worked out again only after nodes or levels changed."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.labels: tuple[str, ...] = ()
        self._levels: dict[str, Level] = {}
        self._seen = -1

    def set(self, labels: Sequence[str]) -> None:
        """Replaces the levels, outermost first."""
        self.labels = tuple(labels)
        self._seen = -1

    def level(self, label: str) -> Level | None:
        """A level by its label; None when it is none."""
        if self._seen != len(self.nodes.spec_log):
            self._levels = {}
            self._seen = len(self.nodes.spec_log)
        found = self._levels.get(label)
        if found is None and (label in self.labels or label == NODE):
            found = self._levels[label] = self._build(label)
        return found

    def depth(self, label: str) -> int:
        """How far in a level is, 0 = outermost; single nodes are innermost."""
        return self.labels.index(label) if label in self.labels else len(self.labels)

    def _build(self, label: str) -> Level:
        nodes = self.nodes
        by_path: dict[tuple[str, ...], list[int]] = {}
        if label not in self.labels:
            by_path.update(((name,), [row]) for name, row in nodes.row.items())
        else:
            keys = self.labels[: self.labels.index(label) + 1]
            for row in nodes.row.values():
                spec = nodes.specs[row]
                labels = spec.labels if spec else {}
                path = tuple([labels.get(key, "") for key in keys])
                if all(path):
                    by_path.setdefault(path, []).append(row)
        paths = tuple(sorted(by_path))
        rows = tuple(np.array(by_path[path], np.int64) for path in paths)
        domain = np.full(nodes.open.size, -1, np.int64)
        if rows:
            domain[np.concatenate(rows)] = np.repeat(np.arange(len(rows)), [members.size for members in rows])
        return Level(label, paths, rows, domain, np.array([members[0] for members in rows], np.int64))
