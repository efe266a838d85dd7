"""`kubectl get` as people see it: Table answers (meta.k8s.io/v1)."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from heddle.api.registry import Column, Resource

_STEP = re.compile(r"\.((?:\\.|[^.\[])+)|\[(\d+|\*|\?\(@\.(\w+)==\"(\w+)\"\))\]")

Cells = Callable[[dict[str, Any]], list[Any]]


def table(resource: Resource, objects: list[bytes], *, metadata: dict[str, Any], headers: bool = True) -> bytes:
    """A Table of these objects (JSON); rows carry the objects' metadata, as kubectl asks by default."""
    columns, cells = _columns(resource)
    rows = []
    for blob in objects:
        obj = msgspec.json.decode(blob)
        meta = obj.get("metadata", {})
        partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        rows.append({"cells": cells(obj), "object": partial})
    definitions = [
        {
            "name": c.name,
            "type": "string" if c.type == "date" else c.type,
            "format": "name" if c.name == "Name" else "",
            "description": c.description,
            "priority": int(c.wide),
        }
        for c in columns
    ]
    answer = {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions if headers else [],
        "rows": rows,
    }
    return msgspec.json.encode(answer)


def age(timestamp: str | None, now: datetime | None = None) -> str:
    """How long ago, in kubectl's short form: 5s, 3m20s, 4h, 2d."""
    if not timestamp:
        return "<unknown>"
    then = datetime.fromisoformat(timestamp)
    seconds = max(0, int(((now or datetime.now(UTC)) - then).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    return f"{hours}h" if days < 2 else f"{days}d"


def lookup(obj: Any, path: str) -> Any:
    """The value at a JSONPath of the simple kind that columns use; None where there is none."""
    value = obj
    for name, index, key, wanted in _STEP.findall(path):
        if name:
            value = value.get(name.replace("\\.", ".")) if isinstance(value, dict) else None
        elif index == "*":
            rest = path.split("[*]", 1)[1]
            return ",".join(str(lookup(item, rest)) for item in value or [])
        elif key:
            value = next((v for v in value or [] if v.get(key) == wanted), None)
        else:
            value = value[int(index)] if isinstance(value, list) and len(value) > int(index) else None
        if value is None:
            return None
    return value


def _columns(resource: Resource) -> tuple[list[Column], Cells]:
    name = Column("Name", ".metadata.name")
    if resource.kind in _CORE:
        own, cells = _CORE[resource.kind]
        return [name, *own], cells
    own = list(resource.columns) or [Column("Age", ".metadata.creationTimestamp", "date")]
    return [name, *own], lambda obj: [obj["metadata"].get("name"), *(_cell(c, obj) for c in own)]


def _cell(column: Column, obj: dict[str, Any]) -> Any:
    value = lookup(obj, column.path)
    if column.type == "date":
        return age(value)
    if value is None and column.type == "string":
        return ""
    return value


_AGE = Column("Age", "", "date")


def _pod(obj: dict[str, Any]) -> list[Any]:
    meta, status = obj["metadata"], obj.get("status", {})
    containers = status.get("containerStatuses", [])
    total = len(obj.get("spec", {}).get("containers", []))
    state = status.get("reason") or status.get("phase", "")
    for container in containers:
        inner = container.get("state", {})
        if "waiting" in inner or "terminated" in inner:
            state = next(iter(inner.values())).get("reason") or state
    if meta.get("deletionTimestamp"):
        state = "Terminating"
    restarts = sum(c.get("restartCount", 0) for c in containers)
    ready = sum(bool(c.get("ready")) for c in containers)
    node = obj.get("spec", {}).get("nodeName") or "<none>"
    return [
        meta.get("name"), f"{ready}/{total}", state, str(restarts), age(meta.get("creationTimestamp")),
        status.get("podIP") or "<none>", node,
    ]  # fmt: skip


def _node(obj: dict[str, Any]) -> list[Any]:
    meta, status = obj["metadata"], obj.get("status", {})
    ready: dict[str, Any] = next((c for c in status.get("conditions", []) if c.get("type") == "Ready"), {})
    text = "Ready" if ready.get("status") == "True" else "NotReady"
    if obj.get("spec", {}).get("unschedulable"):
        text += ",SchedulingDisabled"
    info = status.get("nodeInfo", {})
    gpus = str(status.get("allocatable", {}).get("nvidia.com/gpu", 0))
    product = meta.get("labels", {}).get("nvidia.com/gpu.product", "")
    return [meta.get("name"), text, gpus, product, age(meta.get("creationTimestamp")), info.get("kubeletVersion", "")]


def _event(obj: dict[str, Any]) -> list[Any]:
    about = obj.get("involvedObject", {})
    seen = obj.get("lastTimestamp") or obj.get("eventTime") or obj["metadata"].get("creationTimestamp")
    subject = f"{about.get('kind', '').lower()}/{about.get('name', '')}"
    return [obj["metadata"].get("name"), age(seen), obj.get("type"), obj.get("reason"), subject, obj.get("message")]


def _with_age(*cells: Callable[[dict[str, Any]], Any]) -> Cells:
    return lambda obj: [
        obj["metadata"].get("name"),
        *(cell(obj) for cell in cells),
        age(obj["metadata"].get("creationTimestamp")),
    ]


_CORE: dict[str, tuple[list[Column], Cells]] = {
    "Pod": (
        [Column("Ready", ""), Column("Status", ""), Column("Restarts", ""), _AGE, Column("IP", "", wide=True),
         Column("Node", "", wide=True)],
        _pod,
    ),
    "Node": (
        [Column("Status", ""), Column("GPUs", ""), Column("Product", ""), _AGE, Column("Version", "", wide=True)],
        _node,
    ),
    "Event": (
        [Column("Last Seen", ""), Column("Type", ""), Column("Reason", ""), Column("Object", ""),
         Column("Message", "")],
        _event,
    ),
    "Namespace": ([Column("Status", ""), _AGE], _with_age(lambda o: o.get("status", {}).get("phase", "Active"))),
    "ConfigMap": (
        [Column("Data", "", "integer"), _AGE],
        _with_age(lambda o: len(o.get("data") or {}) + len(o.get("binaryData") or {})),
    ),
    "Secret": (
        [Column("Type", ""), Column("Data", "", "integer"), _AGE],
        _with_age(lambda o: o.get("type"), lambda o: len(o.get("data") or {})),
    ),
    "Lease": ([Column("Holder", ""), _AGE], _with_age(lambda o: o.get("spec", {}).get("holderIdentity"))),
}  # fmt: skip
"""Columns of the kinds whose text Kubernetes computes (kubernetes pkg/printers/internalversion)."""
