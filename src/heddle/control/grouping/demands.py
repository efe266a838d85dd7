"""What a pod demands of the node that it runs on, in heddle's words, and what of it heddle cannot keep yet."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec

from heddle.api.core import NODE_NAME_FIELD
from heddle.api.meta import Resources
from heddle.api.pod import NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec
from heddle.api.workload import (
    GPU_MEMORY_ANNOTATION,
    GPU_SHARE_ANNOTATION,
    LabelExpression,
    NodeAffinity,
    NodeTerm,
    PreferredNodes,
)
from heddle.control.grouping import requests
from heddle.control.grouping.matching import Terms
from heddle.control.grouping.volumes import Where

_FIELDS = {"metadata.name": NODE_NAME_FIELD}
_NOWHERE = NodeTerm(match_expressions=[LabelExpression(key=NODE_NAME_FIELD, operator="DoesNotExist")])
"""What a term without demands means to Kubernetes: no node meets it."""
_MOST = 4096
"""Shapes that are known; those that were met first are forgotten."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What all pods of one shape ask for."""

    shape: bytes
    """Equal for pods that ask for the same."""
    resources: Resources
    node_selector: dict[str, str]
    node_affinity: NodeAffinity
    faults: tuple[str, ...]
    """Fields that heddle does not support, with the reason: the pod waits."""


class Demands:
    """The demands of pods, worked out once for each shape."""

    def __init__(self, volumes: Where) -> None:
        """`volumes` knows where those of pods are."""
        self._volumes = volumes
        self._known: dict[bytes, Demand] = {}

    def of(self, pod: Pod) -> Demand:
        """What a pod demands."""
        where, faults = self._volumes.of(pod) if pod.spec.volumes else ((), ())
        shape = _shape(pod, where, faults, self._volumes.asked(pod) if pod.spec.volumes else {})
        found = self._known.get(shape)
        if found is None:
            if len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            found = self._known[shape] = _demand(pod, shape, where, faults)
        return found

    def reach(self, pod: Pod, beside: Collection[Pod] = ()) -> tuple[list[NodeTerm], tuple[str, ...]]:
        """What the volumes alone of a pod demand (nothing: any node will do), and why it must wait for them; `beside`
        are pods that are not there yet and will be."""
        where, waits = self._volumes.of(pod, beside) if pod.spec.volumes else ((), ())
        faults: list[str] = []
        return _reached([], where, faults), (*faults, *waits)


def _shape(pod: Pod, where: tuple[Terms, ...], faults: tuple[str, ...], attached: dict[str, int]) -> bytes:
    spec = pod.spec
    annotations = pod.metadata.annotations
    return msgspec.msgpack.encode(
        (
            [(c.resources, c.ports) for c in spec.containers],
            [(c.resources, c.restart_policy, c.ports) for c in spec.init_containers],
            spec.node_selector, spec.affinity, spec.tolerations, spec.topology_spread_constraints, spec.overhead,
            where, faults, attached,
            len(spec.resource_claims), spec.resources,
            [name in annotations for name in (GPU_SHARE_ANNOTATION, GPU_MEMORY_ANNOTATION)],
        )
    )  # fmt: skip


def _demand(pod: Pod, shape: bytes, where: tuple[Terms, ...], waits: tuple[str, ...]) -> Demand:
    spec = pod.spec
    required, preferred, faults = _affinity(spec)
    required = _reached(required, where, faults)
    return Demand(
        shape=shape,
        resources=requests.resources(requests.of(pod)),
        node_selector=dict(spec.node_selector),
        node_affinity=NodeAffinity(required=required, preferred=preferred),
        faults=(*faults, *waits, *unsupported(pod)),
    )


def _affinity(spec: PodSpec) -> tuple[list[NodeTerm], list[PreferredNodes], list[str]]:
    wish = spec.affinity.node_affinity if spec.affinity else None
    if wish is None:
        return [], [], []
    faults: list[str] = []
    must = wish.required_during_scheduling_ignored_during_execution
    where = "spec.affinity.nodeAffinity"
    required = [_term(term, where, faults) or _NOWHERE for term in must.node_selector_terms] if must else []
    preferred = [
        PreferredNodes(weight=better.weight, preference=term)
        for better in wish.preferred_during_scheduling_ignored_during_execution
        if (term := _term(better.preference, where, faults)) is not None
    ]
    return required, preferred, faults


def _term(term: NodeSelectorTerm, where: str, faults: list[str]) -> NodeTerm | None:
    """A term in heddle's words; None = it demands nothing."""
    found = [_expression(m, m.key) for m in term.match_expressions]
    for m in term.match_fields:
        if m.key in _FIELDS:
            found.append(_expression(m, _FIELDS[m.key]))
        else:
            faults.append(f"{where}: matchFields of {m.key!r} is not supported; use metadata.name")
    return NodeTerm(match_expressions=found) if found else None


def _reached(required: list[NodeTerm], where: tuple[Terms, ...], faults: list[str]) -> list[NodeTerm]:
    for terms in where:
        reached = [_term(term, "nodeAffinity of a volume", faults) or _NOWHERE for term in terms]
        required = meeting_both(required, reached)
    return required


def meeting_both(one: list[NodeTerm], other: list[NodeTerm]) -> list[NodeTerm]:
    """Terms of nodes that meet a term of each; without terms any node will do."""
    if not one or not other:
        return one or other
    return [NodeTerm(match_expressions=[*a.match_expressions, *b.match_expressions]) for a in one for b in other]


def _expression(m: NodeSelectorRequirement, key: str) -> LabelExpression:
    return LabelExpression(key=key, operator=m.operator, values=list(m.values))  # type: ignore[arg-type]


def unsupported(pod: Pod) -> Iterator[str]:
    """What a pod on a cluster must not ask for yet."""
    spec = pod.spec
    if spec.resource_claims:
        yield "spec.resourceClaims: dynamic resource allocation is not supported yet"
    for name in (GPU_SHARE_ANNOTATION, GPU_MEMORY_ANNOTATION):
        if name in pod.metadata.annotations:
            yield f"annotation {name}: shares of a GPU are not supported on Kubernetes yet; ask for whole ones or MIG"
