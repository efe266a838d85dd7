"""Topology: the ordered levels of a cluster's network, by node label."""

from typing import Annotated

from msgspec import Meta, field

from heddle.api.meta import Kind, Struct
from heddle.api.queue import GROUP_VERSION


class TopologyLevel(Struct):
    """One level: nodes with the same value of this label (below the same parent) are one domain."""

    node_label: Annotated[
        str,
        Meta(description="Node label, for instance topology.kubernetes.io/zone.", min_length=1, max_length=317),
    ]


class TopologySpec(Struct):
    """The levels, outermost first."""

    levels: Annotated[
        list[TopologyLevel],
        Meta(
            description="Outermost first: zone, block, rack, NVLink domain, node.",
            min_length=1,
            max_length=16,
        ),
    ]


class Topology(Kind):
    """Ordered levels by node label (zone, block, rack, NVLink domain, node)."""

    API_VERSION = GROUP_VERSION
    KIND = "Topology"

    spec: TopologySpec = field(default_factory=lambda: TopologySpec(levels=[]))
