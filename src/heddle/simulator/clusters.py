"""What a simulation runs on: nodes, their places in the network, queues.

A cluster is described in a string, ``128x8xH100`` (nodes x GPUs of a node x model) or ``128x8xH100:96c:1Ti`` (with
the CPUs and memory of a node), several joined by ``+``; or it is read from a file: see :data:`FORMS`. Where the CPUs
and memory of a node are not told it has what servers for training usually have: 24 CPUs and 256 GiB for each GPU (a
DGX H100 has 28 and 256), as much as eight GPUs' where it has none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

from heddle.api import quantity
from heddle.engine.model import COUNTER, CPU, GPU, MEMORY, NODE, Device, NodeSpec, QueueSpec
from heddle.engine.snapshot import Snapshot
from heddle.simulator import snapshot
from heddle.simulator.jobs import MODEL_LABEL, Trace
from heddle.simulator.tables import TableError, first, of_a_node, stem, table
from heddle.simulator.traces import openb, philly, swf
from heddle.simulator.traces.swf import check_processors

RACK = "rack"
BLOCK = "block"
"""Labels of the levels of generated topologies."""

_CPUS = 24_000
_MEMORY = 256 << 30
_PART = re.compile(r"(\d+)x(\d+)(?:x([^:+\s]+))?((?::[^:+\s]+)*)")
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Racks:
    """A generated topology: neighbours in the list of nodes are neighbours in the network.

    Attributes:
        nodes: of a rack.
        racks: of a block; 0 = there are no blocks.
    """

    nodes: int
    racks: int = 0

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise ValueError(f"racks: {self.nodes!r} is not valid; give 1 node or more in each")
        if self.racks < 0:
            raise ValueError(f"blocks: {self.racks!r} is not valid; give 1 rack or more in each, or 0 for no blocks")

    @property
    def levels(self) -> tuple[str, ...]:
        """Labels, outermost first."""
        return (BLOCK, RACK) if self.racks else (RACK,)

    def labels(self, at: int) -> dict[str, str]:
        """Of the node at a place in the list."""
        rack = at // self.nodes
        return {RACK: f"r{rack}"} | ({BLOCK: f"b{rack // self.racks}"} if self.racks else {})


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes with a topology, and queues.

    Attributes:
        name: for titles.
        nodes: in the order in which neighbours are near each other.
        topology: labels of the levels, outermost first; empty = none.
        queues: the tree; empty = one queue for each that the trace names, without quota.
        racks: how the topology was generated, so that it can be again for another size; None = it was not.
    """

    name: str
    nodes: tuple[NodeSpec, ...]
    topology: tuple[str, ...] = ()
    queues: tuple[QueueSpec, ...] = ()
    racks: Racks | None = None

    def __post_init__(self) -> None:
        if not self.nodes:
            raise ValueError(f"cluster {self.name}: it has no node; give at least one")
        if len({node.name for node in self.nodes}) != len(self.nodes):
            raise ValueError(f"cluster {self.name}: two nodes have one name; give each its own")

    @property
    def gpus(self) -> int:
        """Physical GPUs of all nodes."""
        return sum(len(node.devices) for node in self.nodes)

    @property
    def node_gpus(self) -> int:
        """GPUs of the nodes that have most of them together: for jobs of which only the number of GPUs is known."""
        counts = Counter[int]()
        for node in self.nodes:
            counts[len(node.devices)] += len(node.devices)
        return max(counts, key=lambda size: (counts[size], size)) or 1

    def queues_of(self, trace: Trace) -> tuple[QueueSpec, ...]:
        """Its queues, and one more for each that only the trace names: without quota where the cluster has no queues
        at all, else owed no GPUs, so that it runs on what others leave idle."""
        known = {queue.name for queue in self.queues}
        named = dict.fromkeys(job.queue for job in trace.jobs if job.queue not in known)
        quota = {GPU: 0} if self.queues else {}
        return (*self.queues, *(QueueSpec(name, quota=quota) for name in sorted(named)))

    def resized(self, nodes: int) -> Cluster:
        """The cluster with another number of nodes, in the same mix.

        Of each kind of node the first ones stay, so that whole racks go; what is more is a copy of the whole, with
        domains of its own. Quotas and limits of queues grow and shrink with the GPUs.

        Raises:
            ValueError: the number is below 1 or beyond reason.
        """
        if not 1 <= nodes <= _MOST:
            raise ValueError(f"nodes: {nodes!r} is not valid; give 1 to {_MOST}")
        if nodes == len(self.nodes):
            return self
        copies, rest = divmod(nodes, len(self.nodes))
        found = [self._copied(node, copy) for copy in range(copies) for node in self.nodes]
        found += [self._copied(node, copies) for node in _first(self.nodes, rest)]
        bare = replace(self, nodes=tuple(found))
        queues = tuple(_scaled(queue, bare.gpus, self.gpus) for queue in self.queues)
        bare = replace(bare, queues=queues)
        return bare if self.racks is None else in_racks(bare, self.racks)

    def grown(self, nodes: int, like: str = "") -> Cluster:
        """The cluster with so many nodes more; quotas and limits stay as they are.

        Args:
            nodes: how many.
            like: the node of which they are copies; empty = the first of those with most GPUs.

        Raises:
            ValueError: there is no such node, or the number is beyond reason.
        """
        if not 1 <= nodes <= _MOST:
            raise ValueError(f"nodes: {nodes!r} is not valid; give 1 to {_MOST}")
        model = next((node for node in self.nodes if node.name == like), None)
        if like and model is None:
            names = ", ".join(node.name for node in self.nodes[:8])
            raise ValueError(f"nodes: {like!r} is not one of the cluster; give one of {names}")
        model = replace(model or max(self.nodes, key=lambda node: len(node.devices)), schedulable=True)
        names_there = {node.name for node in self.nodes}
        copies = (copy for at in count(1) if (copy := self._copied(model, at)).name not in names_there)
        return replace(self, nodes=(*self.nodes, *islice(copies, nodes)), racks=None)

    def _copied(self, node: NodeSpec, copy: int) -> NodeSpec:
        if not copy:
            return node
        name = f"{node.name}-copy{copy}"
        outermost = self.topology[0] if self.topology else ""
        labels = dict(node.labels)
        if outermost in labels:
            labels[outermost] = f"{labels[outermost]}-copy{copy}"
        if NODE in labels:
            labels[NODE] = name
        return replace(node, name=name, labels=labels)


def _first(nodes: Sequence[NodeSpec], count: int) -> list[NodeSpec]:
    """So many nodes with each kind in its share: rounded by largest remainder, then the first of each."""
    kinds: dict[object, list[int]] = {}
    for at, node in enumerate(nodes):
        kind = (tuple(sorted(node.resources.items())), tuple(device.model for device in node.devices))
        kinds.setdefault(kind, []).append(at)
    shares = {kind: divmod(len(places) * count, len(nodes)) for kind, places in kinds.items()}
    left = count - sum(share for share, _ in shares.values())
    rests = [rest for _, rest in shares.values()]
    more = set(sorted(range(len(kinds)), key=lambda at: -rests[at])[:left])
    kept = [
        place for at, (kind, places) in enumerate(kinds.items()) for place in places[: shares[kind][0] + (at in more)]
    ]
    return [nodes[place] for place in sorted(kept)]


def _scaled(queue: QueueSpec, new: int, old: int) -> QueueSpec:
    """A queue of which all amounts but those of counters follow the GPUs of the cluster, rounded to the nearest."""

    def scaled(amounts: Mapping[str, int | None]) -> dict[str, int | None]:
        return {
            resource: amount
            if amount is None or resource.startswith(COUNTER)
            else (2 * amount * new + old) // (2 * old)
            for resource, amount in amounts.items()
        }

    if not old:
        return queue
    return replace(
        queue,
        quota=scaled(queue.quota),
        limit=scaled(queue.limit),
        borrowing_limit=scaled(queue.borrowing_limit),
        lending_limit=scaled(queue.lending_limit),
        user_limit=scaled(queue.user_limit),
    )


# -- generated -------------------------------------------------------------------------------------


def parse(text: str) -> Cluster:
    """The cluster of a description such as ``128x8xH100:96c:1Ti+64x4xA100``.

    Raises:
        ValueError: it is none.
    """
    nodes: list[NodeSpec] = []
    for part in text.split("+"):
        found = _PART.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"cluster: {part!r} is not valid; write nodes x GPUs x model, as 128x8xH100:96c:1Ti")
        count, gpus, model = int(found[1]), int(found[2]), found[3] or ""
        if not 1 <= count <= _MOST or gpus > 1024:
            raise ValueError(f"cluster: {part!r} is not valid; give 1 to {_MOST} nodes of at most 1024 GPUs")
        resources = _usual(gpus)
        for suffix in filter(None, found[4].split(":")):
            try:
                resource = CPU if suffix.endswith("c") else MEMORY
                resources[resource] = quantity.milli(suffix[:-1]) if resource == CPU else quantity.whole(suffix)
            except ValueError as error:
                raise ValueError(f"cluster: {suffix!r} is not valid; write CPUs as 96c and memory as 1Ti") from error
        nodes += [_node(f"n{len(nodes) + at:06}", gpus, model, resources) for at in range(count)]
    return Cluster(text, tuple(nodes))


def _usual(gpus: int) -> dict[str, int]:
    """CPUs and memory of a node that says none."""
    return {CPU: _CPUS * (gpus or 8), MEMORY: _MEMORY * (gpus or 8)}


def _node(name: str, gpus: int, model: str, resources: Mapping[str, int]) -> NodeSpec:
    devices = tuple(Device(f"g{at}", at, model) for at in range(gpus))
    return NodeSpec(name, resources, devices, {MODEL_LABEL: model} if model and gpus else {})


# -- from files ------------------------------------------------------------------------------------


def _own(path: Path, _: int) -> Cluster:
    found = []
    for row in table(path, ("name", "gpus")):
        gpus = row.read("gpus", of_a_node)
        usual = _usual(gpus)
        resources = {
            CPU: row.read("cpu", quantity.milli, usual[CPU]),
            MEMORY: row.read("memory", quantity.whole, usual[MEMORY]),
        }
        try:
            node = _node(row.read("name", str), gpus, row.get("model", ""), resources)
            found.append(replace(node, labels={**node.labels, **row.read("labels", _pairs, {})}))
        except TableError:
            raise
        except ValueError as error:
            raise row.fault(str(error)) from error
    return Cluster(stem(path), tuple(found))


def _pairs(text: str) -> dict[str, str]:
    """Labels of ``zone=a;rack=r1``."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ValueError("write labels as key=value;key=value")
        found[key.strip()] = value.strip()
    return found


def _openb(path: Path, _: int) -> Cluster:
    return Cluster(stem(path), openb.nodes(path))


def _philly(path: Path, node_gpus: int) -> Cluster:
    sizes = philly.sizes(path)
    count = _not_too_many(sum(sizes.values()))
    nodes = tuple(_node(f"n{at:06}", node_gpus, "", _usual(node_gpus)) for at in range(count))
    return Cluster(stem(path), nodes, queues=philly.queues(sizes, node_gpus))


def _machines(path: Path, _: int) -> Cluster:
    found = philly.machines(path)
    return Cluster(stem(path), tuple(replace(node, resources=_usual(len(node.devices))) for node in found))


def _swf(path: Path, node_gpus: int, processors: int = 1) -> Cluster:
    machine = swf.machine(path)
    total = -(-machine.processors // processors)
    each = -(-total // machine.nodes) if machine.nodes else node_gpus
    _not_too_many(-(-total // each))
    of_a_node(str(each))
    sizes = [min(each, total - at) for at in range(0, total, each)]
    nodes = (_node(f"n{at:06}", gpus, "", _usual(gpus)) for at, gpus in enumerate(sizes) if gpus > 0)
    return Cluster(stem(path), tuple(nodes))


def _not_too_many(nodes: int) -> int:
    if nodes > _MOST:
        raise ValueError(f"nodes: {nodes!r} is not valid; give at most {_MOST}")
    return nodes


def _snapshot(path: Path, _: int) -> Cluster:
    return of_snapshot(stem(path), snapshot.read(path).snapshot)


def of_snapshot(name: str, found: Snapshot) -> Cluster:
    """The cluster of a live heddle."""
    return Cluster(name, found.nodes, found.topology, found.queues)


FORMS: dict[str, Callable[[Path, int], Cluster]] = {
    "nodes": _own,
    "openb": _openb,
    "philly": _philly,
    "philly-machines": _machines,
    "snapshot": _snapshot,
    "swf": _swf,
}
"""Readers by the name of their format; they take a file and the GPUs of a node, where the file does not tell."""

_COLUMNS = {
    "openb": ("sn", "cpu_milli", "memory_mib", "gpu"),
    "philly": philly.SIZES,
    "philly-machines": philly.MACHINES,
    "nodes": ("name", "gpus"),
}


def read(text: str | Path, *, form: str | None = None, node_gpus: int = 8, processors: int = 1) -> Cluster:
    """A cluster of a description or of a file.

    Args:
        text: ``128x8xH100``, or a path.
        form: a name of :data:`FORMS`; None = seen from the file.
        node_gpus: GPUs of a node where a file tells only the number of nodes.
        processors: of a Standard Workload Format log that make one GPU.

    Raises:
        ValueError: the format is not known, or the description or file is broken.
    """
    check_processors(processors)
    if form is not None and form not in FORMS:
        raise ValueError(f"format: {form!r} is not known; use one of {', '.join(FORMS)}")
    if form is None and isinstance(text, str) and re.match(r"\d+x\d+", text) and not Path(text).exists():
        return parse(text)
    path = Path(text)
    try:
        form = form or _recognised(path)
        return _swf(path, node_gpus, processors) if form == "swf" else FORMS[form](path, node_gpus)
    except TableError:
        raise
    except ValueError as error:
        raise TableError(f"{path}: {error}") from error


def _recognised(path: Path) -> str:
    try:
        line = first(path)
    except TableError as error:
        raise TableError(f"{error}; a cluster is a file, or nodes x GPUs x model as 128x8xH100") from error
    if line.startswith(";"):
        return "swf"
    if line.startswith("{"):
        return "snapshot"
    cells = {cell.strip() for cell in line.split(",")}
    for form, needs in _COLUMNS.items():
        if cells.issuperset(needs):
            return form
    known = "; ".join(f"{form} ({', '.join(needs)})" for form, needs in _COLUMNS.items())
    raise TableError(f"{path}:1: {line[:80]!r} begins no list of nodes that is known: {known}; swf; snapshot")


# -- topology --------------------------------------------------------------------------------------


def in_racks(cluster: Cluster, racks: Racks) -> Cluster:
    """The cluster with its nodes in racks, and racks in blocks, in the order of the list."""
    nodes = (replace(node, labels={**node.labels, **racks.labels(at)}) for at, node in enumerate(cluster.nodes))
    return replace(cluster, nodes=tuple(nodes), topology=racks.levels, racks=racks)


def along(cluster: Cluster, path: Path) -> Cluster:
    """The cluster in a real network: a table of hosts whose first column is the host and whose others are levels,
    outermost first (Alibaba's ``topo.csv``: ip, DSW, PSW, ASW).

    If every node is a host of the table it gets its own place. Else places are dealt out in order, neighbours together,
    and once all are taken again in copies of the network.

    Raises:
        TableError: the table has no level or no host, or a row is broken.
    """
    levels: tuple[str, ...] = ()
    places: dict[str, tuple[str, ...]] = {}
    for row in table(path, ()):
        host, *levels_here = tuple(row)
        levels = tuple(levels_here)
        if not levels:
            raise TableError(f"{path}:1: has only the column {host}; give a column for each level, outermost first")
        name = row.read(host, str)
        if name in places:
            raise row.fault(f"{host}: {name!r} was named before; give each host one row")
        places[name] = tuple(row.read(level, str) for level in levels)
    if not places:
        raise TableError(f"{path}: has no host; give a row for each")
    return replace(cluster, nodes=tuple(_placed(cluster.nodes, levels, places)), topology=levels, racks=None)


def _placed(
    nodes: Sequence[NodeSpec], levels: Sequence[str], places: Mapping[str, tuple[str, ...]]
) -> Iterable[NodeSpec]:
    own = all(node.name in places for node in nodes)
    order = sorted(places.values())
    for at, node in enumerate(nodes):
        copy, place = divmod(at, len(order))
        found = list(places[node.name] if own else order[place])
        if copy and not own:
            found[0] = f"{found[0]}-copy{copy}"
        yield replace(node, labels={**node.labels, **dict(zip(levels, found, strict=True))})
