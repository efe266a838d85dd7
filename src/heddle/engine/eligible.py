"""Which nodes admit a task, whatever room they have: selectors and tolerations against labels and taints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from heddle.engine.model import NodeSpec, Toleration
from heddle.engine.nodes import Bools, Nodes


@dataclass(frozen=True, slots=True)
class Where:
    """What a task demands of a node's labels and taints; equal demands are looked up once for all classes."""

    selector: tuple[tuple[str, str], ...] = ()
    tolerations: tuple[tuple[str, str | None], ...] = ()

    def accepts(self, spec: NodeSpec | None) -> bool:
        """Whether a node is admitted (not whether it has room)."""
        if spec is None or not spec.schedulable:
            return False
        for label, value in self.selector:
            if spec.labels.get(label) != value:
                return False
        for taint in spec.taints:
            if not any(k == taint.key and (v is None or v == taint.value) for k, v in self.tolerations):
                return False
        return True


def where(selector: Mapping[str, str], tolerations: Iterable[Toleration]) -> Where:
    """The demand in a form that compares."""
    return Where(
        tuple(sorted(selector.items())),
        tuple(sorted(((t.key, t.value) for t in tolerations), key=str)),
    )


class EligibleRows:
    """Per demand: which rows admit it, brought up to date by the nodes' own log of changed specs."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self._masks: dict[Where, Bools] = {}
        self._seen: dict[Where, int] = {}

    def of(self, demand: Where) -> Bools:
        """One truth value per row (do not write to it)."""
        nodes = self.nodes
        end = len(nodes.spec_log)
        mask = self._masks.get(demand)
        if mask is None or mask.size != nodes.open.size:
            mask = self._masks[demand] = np.zeros(nodes.open.size, np.bool_)
            known = len(nodes.specs)
            mask[:known] = np.fromiter((demand.accepts(spec) for spec in nodes.specs), np.bool_, known)
        else:
            for row in nodes.spec_log[self._seen[demand] :]:
                mask[row] = demand.accepts(nodes.specs[row])
        self._seen[demand] = end
        return mask
