"""All resources that heddle serves: names, scope, Struct, and how kubectl shows them."""

import builtins
from dataclasses import dataclass

from heddle.api.core import ConfigMap, Event, Lease, Namespace, Node, Secret
from heddle.api.license import License
from heddle.api.meta import Kind
from heddle.api.pod import Pod
from heddle.api.queue import Queue
from heddle.api.topology import Topology
from heddle.api.trainingjob import TrainingJob
from heddle.api.workload import Workload


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`: title, JSONPath, type, and whether only `-o wide` shows it."""

    name: str
    path: str
    type: str = "string"
    wide: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class Resource:
    """A collection of the API."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    type: builtins.type[Kind] | None = None
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ("status",)
    columns: tuple[Column, ...] = ()

    @property
    def api_version(self) -> str:
        """`v1`, or `group/version`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        """Kind of the collection."""
        return f"{self.kind}List"

    @property
    def own(self) -> bool:
        """Whether heddle defines it (and so refuses unknown fields)."""
        return self.group == "heddle.dev"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path below the server's address; all namespaces when none is given."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


_GROUP, _VERSION = "heddle.dev", "v1alpha1"
_AGE = Column("Age", ".metadata.creationTimestamp", "date")

PODS = Resource("", "v1", "Pod", "pods", True, Pod, ("po",), ("all",), ("status", "binding", "log"))
NODES = Resource("", "v1", "Node", "nodes", False, Node, ("no",))
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", False, Namespace, ("ns",))
EVENTS = Resource("", "v1", "Event", "events", True, Event, ("ev",), (), ())
CONFIGMAPS = Resource("", "v1", "ConfigMap", "configmaps", True, ConfigMap, ("cm",), (), ())
SECRETS = Resource("", "v1", "Secret", "secrets", True, Secret, (), (), ())
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases", True, Lease, (), (), ())
QUEUES = Resource(
    _GROUP, _VERSION, "Queue", "queues", False, Queue, ("hq",), ("heddle",),
    columns=(
        Column("Parent", ".spec.parent"),
        Column("Quota", ".spec.quota.nvidia\\.com/gpu"),
        Column("Used", ".status.usage.nvidia\\.com/gpu"),
        Column("Share", ".status.fairShare.nvidia\\.com/gpu"),
        Column("Pending", ".status.pending", "integer"),
        Column("Running", ".status.running", "integer", wide=True),
        Column("Weight", ".spec.weight", "integer", wide=True),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        _AGE,
    ),
)  # fmt: skip
TOPOLOGIES = Resource(
    _GROUP, _VERSION, "Topology", "topologies", False, Topology, ("htopo",), ("heddle",), (),
    columns=(Column("Levels", ".spec.levels[*].nodeLabel"), _AGE),
)  # fmt: skip
LICENSES = Resource(
    _GROUP, _VERSION, "License", "licenses", False, License, ("hlic",), ("heddle",), (),
    columns=(Column("Count", ".spec.count", "integer"), _AGE),
)  # fmt: skip
WORKLOADS = Resource(
    _GROUP, _VERSION, "Workload", "workloads", True, Workload, ("hwl",), ("heddle",),
    columns=(
        Column("Queue", ".spec.queue"),
        Column("Phase", ".status.phase"),
        Column("Position", ".status.position", "integer"),
        Column("Bound", ".status.bound", "integer"),
        Column("Reason", ".status.reasons[0].code", wide=True),
        _AGE,
    ),
)  # fmt: skip
TRAININGJOBS = Resource(
    _GROUP, _VERSION, "TrainingJob", "trainingjobs", True, TrainingJob, ("htj",), ("heddle", "all"),
    columns=(
        Column("Queue", ".spec.queue"),
        Column("Phase", ".status.phase"),
        Column("Nodes", ".status.activeNodes", "integer"),
        Column("Wanted", ".status.nodes", "integer"),
        Column("Groups", ".spec.groups", "integer", wide=True),
        Column("Restarts", ".status.restarts", "integer"),
        Column("Message", ".status.message", wide=True),
        _AGE,
    ),
)  # fmt: skip

ALL: tuple[Resource, ...] = (
    PODS, NODES, NAMESPACES, EVENTS, CONFIGMAPS, SECRETS, LEASES, QUEUES, TOPOLOGIES, WORKLOADS, TRAININGJOBS,
    LICENSES,
)  # fmt: skip


def find(name: str) -> Resource | None:
    """The resource that a user means by `pods`, `pod`, `Pod`, `po`, `queue`, `hq` or `queues.heddle.dev`."""
    wanted = name.lower()
    for resource in ALL:
        names = {resource.plural, resource.kind.lower(), *resource.short_names}
        if wanted in names or wanted == f"{resource.plural}.{resource.group}":
            return resource
    return None


def by_kind(api_version: str, kind: str) -> Resource | None:
    """The resource of an object's `apiVersion` and `kind`."""
    return next((r for r in ALL if r.kind == kind and r.api_version == api_version), None)
