"""Which volumes fit a claim, and which nodes reach a volume.

As Kubernetes sees it: FindMatchingVolume of k8s.io/component-helpers/storage/volume, the volumebinding plugin.
"""

from collections.abc import Iterable, Mapping

from heddle.api import quantity
from heddle.api.core import NODE_NAME_FIELD
from heddle.api.meta import Quantity
from heddle.api.pod import NodeSelectorRequirement, NodeSelectorTerm
from heddle.api.volumes import CSIStorageCapacity, PersistentVolume, PersistentVolumeClaim, StorageClass
from heddle.engine import LabelMatch

Terms = tuple[NodeSelectorTerm, ...]
"""A node must meet one of these."""

_FIELDS = {"metadata.name": NODE_NAME_FIELD}


def size_of(claim: PersistentVolumeClaim) -> int:
    """Bytes that a claim asks for."""
    return quantity.whole(claim.spec.resources.requests.get("storage", 0))


def room_of(volume: PersistentVolume) -> int:
    """Bytes of a volume."""
    return quantity.whole(volume.spec.capacity.get("storage", 0))


def is_for(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether a volume belongs to a claim, or is kept for it by whoever made it."""
    reference, meta = volume.spec.claim_ref, claim.metadata
    return (
        reference is not None
        and (reference.namespace, reference.name) == (meta.namespace, meta.name)
        and reference.uid in ("", meta.uid)
    )


def serves(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether a volume is large enough for a claim, and of its mode."""
    return (
        room_of(volume) >= size_of(claim)
        and volume.spec.volume_mode == claim.spec.volume_mode
        and volume.spec.volume_attributes_class_name == claim.spec.volume_attributes_class_name
        and not volume.metadata.deletion_timestamp
    )


def fits(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether a volume that is nobody's could be a claim's."""
    return volume.spec.claim_ref is None and volume.status.phase == "Available" and suits(volume, claim)


def suits(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """The same, were it nobody's."""
    return (
        volume.storage_class == claim.storage_class
        and serves(volume, claim)
        and set(claim.spec.access_modes) <= set(volume.spec.access_modes)
        and (claim.spec.selector is None or claim.spec.selector.parsed().matches(volume.metadata.labels))
    )


def reached_from(volume: PersistentVolume) -> Terms | None:
    """The nodes that reach a volume; None = all."""
    affinity = volume.spec.node_affinity
    return tuple(affinity.required.node_selector_terms) if affinity and affinity.required else None


def allowed_by(found: StorageClass) -> Terms | None:
    """The nodes for which a class makes volumes; None = all."""
    if not found.allowed_topologies:
        return None
    return tuple(
        NodeSelectorTerm(
            match_expressions=[
                NodeSelectorRequirement(key=demand.key, operator="In", values=list(demand.values))
                for demand in term.match_label_expressions
            ]
        )
        for term in found.allowed_topologies
    )


def with_room(capacities: Iterable[CSIStorageCapacity], found: StorageClass, claim: PersistentVolumeClaim) -> Terms:
    """The nodes on which a class has room for a claim, as its driver says."""
    size = size_of(claim)
    terms = []
    for capacity in capacities:
        topology = capacity.node_topology
        limit = _limit(capacity.maximum_volume_size, capacity.capacity)
        if capacity.storage_class_name != found.metadata.name or topology is None or limit < size:
            continue
        demands = [
            NodeSelectorRequirement(key=key, operator="In", values=[value])
            for key, value in topology.match_labels.items()
        ] + [
            NodeSelectorRequirement(key=demand.key, operator=demand.operator, values=list(demand.values))
            for demand in topology.match_expressions
        ]
        # a selector without demands is met by all nodes, a term without demands by none
        terms.append(NodeSelectorTerm(match_expressions=demands or [anywhere()]))
    return tuple(terms)


def _limit(first: Quantity | None, other: Quantity | None) -> int:
    value = first if first is not None else other
    return -1 if value is None else quantity.whole(value)


def anywhere() -> NodeSelectorRequirement:
    """A demand that every node meets."""
    return NodeSelectorRequirement(key=NODE_NAME_FIELD, operator="Exists")


def only(node: str) -> Terms:
    """One node."""
    return (
        NodeSelectorTerm(match_fields=[NodeSelectorRequirement(key="metadata.name", operator="In", values=[node])]),
    )


def both(one: Terms | None, other: Terms | None) -> Terms | None:
    """The nodes that meet both; None = all."""
    if one is None or other is None:
        return one if other is None else other
    return tuple(
        NodeSelectorTerm(
            match_expressions=[*a.match_expressions, *b.match_expressions],
            match_fields=[*a.match_fields, *b.match_fields],
        )
        for a in one
        for b in other
        if _asks(a) and _asks(b)
    )


def either(parts: Iterable[Terms]) -> Terms:
    """The nodes that meet any; terms that name one label, such as those of local volumes, become one."""
    values: dict[str, dict[str, None]] = {}
    others: dict[str, NodeSelectorTerm] = {}
    for term in (term for terms in parts for term in terms):
        if len(term.match_expressions) == 1 and not term.match_fields and term.match_expressions[0].operator == "In":
            values.setdefault(term.match_expressions[0].key, {}).update(dict.fromkeys(term.match_expressions[0].values))
        elif _asks(term):
            others[repr(term)] = term
    merged = [
        NodeSelectorTerm(match_expressions=[NodeSelectorRequirement(key=key, operator="In", values=sorted(found))])
        for key, found in sorted(values.items())
    ]
    return (*merged, *(others[text] for text in sorted(others)))


def without(terms: Terms | None, nodes: Iterable[str]) -> Terms | None:
    """The same nodes but for some; None = all."""
    named = sorted(nodes)
    if not named:
        return terms
    others = NodeSelectorRequirement(key="metadata.name", operator="NotIn", values=named)
    return both(terms, (NodeSelectorTerm(match_fields=[others]),))


def meets(labels: Mapping[str, str], terms: Terms | None) -> bool:
    """Whether a node with these labels, its name among them, meets one of some terms; None = all nodes do."""
    if terms is None:
        return True
    return any(_asks(term) and all(match.holds(labels) for match in _matches(term)) for term in terms)


def _asks(term: NodeSelectorTerm) -> bool:
    """Whether a term demands anything; none meets one that does not."""
    return bool(term.match_expressions or term.match_fields)


def _matches(term: NodeSelectorTerm) -> Iterable[LabelMatch]:
    for demand in term.match_expressions:
        yield LabelMatch(demand.key, demand.operator, tuple(demand.values))
    for demand in term.match_fields:
        yield LabelMatch(_FIELDS.get(demand.key, demand.key), demand.operator, tuple(demand.values))
