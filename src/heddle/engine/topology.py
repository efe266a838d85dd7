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

from heddle.engine.nodes import Ints, Nodes


@dataclass(frozen=True, slots=True)
class Level:
    """One level: the domains by path, each with its rows, and the domain of each row (-1 = none)."""

    label: str
    paths: tuple[tuple[str, ...], ...]
    rows: tuple[Ints, ...]
    domain: Ints


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
            self._levels = {name: self._build(at) for at, name in enumerate(self.labels)}
            self._seen = len(self.nodes.spec_log)
        return self._levels.get(label)

    def path(self, row: int) -> tuple[str, ...]:
        """The labels of a row from the outermost level down, as far as it has them."""
        spec = self.nodes.specs[row]
        labels = spec.labels if spec else {}
        return tuple(takewhile(bool, (labels.get(label, "") for label in self.labels)))

    def _build(self, depth: int) -> Level:
        by_path: dict[tuple[str, ...], list[int]] = {}
        for row in self.nodes.row.values():
            spec = self.nodes.specs[row]
            labels = spec.labels if spec else {}
            path = tuple(labels.get(label, "") for label in self.labels[: depth + 1])
            if all(path):
                by_path.setdefault(path, []).append(row)
        paths = tuple(sorted(by_path))
        domain = np.full(self.nodes.open.size, -1, np.int64)
        rows = tuple(np.array(by_path[path], np.int64) for path in paths)
        for at, members in enumerate(rows):
            domain[members] = at
        return Level(self.labels[depth], paths, rows, domain)
