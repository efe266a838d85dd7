"""How objects look in a terminal."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import yaml
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.tree import Tree

from heddle.api import quantity
from heddle.api.clock import to_seconds
from heddle.api.core import GPU_RESOURCE
from heddle.api.meta import Kind, Resources
from heddle.api.mig import INSTANCE_PREFIX, asked_of, instances_in
from heddle.api.workload import DEVICES_ANNOTATION

console = Console(highlight=False, soft_wrap=True)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's is ten times as fast
_PATIENCE = 1.0  # seconds
_ENDLESS = 1000  # characters


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Columns as kubectl prints them: as wide as they are, so that other programs can read them too."""
    text = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headers), *text]) for i in range(len(headers))]
    for number, row in enumerate([list(headers), *text]):
        line = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        console.print(line, style="bold" if number == 0 else None, markup=False)


def serialised(objects: Kind | Sequence[Kind] | dict[str, Any], form: str) -> None:
    """JSON or YAML of one object or a list."""
    value: Any = msgspec.to_builtins(objects)
    if isinstance(value, list):
        value = {"apiVersion": "v1", "kind": "List", "items": value}
    if form == "json":
        print(msgspec.json.format(msgspec.json.encode(value)).decode())
    else:
        print(as_yaml(value), end="")


def as_yaml(value: Any) -> str:
    """YAML in the order of the fields."""
    text: str = yaml.dump(value, Dumper=_DUMPER, sort_keys=False)
    return text


def ago(timestamp: str | None) -> str:
    """How long ago, shortly."""
    if not timestamp:
        return ""
    seconds = max(0, int(time.time() - to_seconds(timestamp)))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def gpus(resources: Resources) -> str:
    """GPUs of a resource list, 0 where there are none."""
    value = resources.get(GPU_RESOURCE)
    return f"{quantity.milli(value) / 1000:g}" if value is not None else "0"


def gpus_in_use(pods: Sequence[Any]) -> float:
    """GPUs of a node that its pods hold: the devices that are named, else what is asked for (the kubelet chooses)."""
    devices: set[str] = set()
    unnamed = 0.0
    for pod in pods:
        if named := pod.metadata.annotations.get(DEVICES_ANNOTATION, ""):
            devices.update(device for device in named.split(",") if device and not device.startswith(INSTANCE_PREFIX))
        else:
            asked = [c.resources.requests or c.resources.limits for c in pod.spec.containers]
            unnamed += sum(float(gpus(resources)) for resources in asked)
    return len(devices) + unnamed


def instances(node: Any, pods: Sequence[Any]) -> tuple[int, int]:
    """MIG instances of a node that its pods use, and that it has."""
    used = 0
    for pod in pods:
        named = pod.metadata.annotations.get(DEVICES_ANNOTATION, "")
        asked = [c.resources.requests or c.resources.limits for c in pod.spec.containers]
        counted = sum(sum(asked_of(resources).values()) // 1000 for resources in asked)
        used += instances_in(named.split(",")) if named else counted
    return used, sum(asked_of(node.status.allocatable).values()) // 1000


def node_rows(node: Any) -> list[Any]:
    """What a wide table says more of a node: GPU product, CPU, memory."""
    can = node.status.allocatable
    memory = f"{quantity.milli(can['memory']) / 1000 / 2**30:.0f}Gi" if "memory" in can else ""
    return [node.metadata.labels.get("nvidia.com/gpu.product", ""), can.get("cpu", ""), memory]


def queue_tree(queues: Sequence[Any], *, wide: bool = False) -> None:
    """The queue tree with GPUs: used, quota, fair share, and what waits; wide: other resources too."""
    tree = Tree("queues (GPUs)", guide_style="dim")
    by_parent: dict[str, list[Any]] = {}
    names = {q.metadata.name for q in queues}
    for q in queues:
        parent = q.spec.parent if q.spec.parent in names else ""
        by_parent.setdefault(parent, []).append(q)
    shown: set[str] = set()

    def grow(branch: Tree, parent: str) -> None:
        for q in sorted(by_parent.get(parent, []), key=lambda q: q.metadata.name):
            if q.metadata.name in shown:
                continue
            shown.add(q.metadata.name)
            grow(branch.add(_queue_line(q, wide)), q.metadata.name)

    grow(tree, "")
    for q in queues:  # a cycle hangs from no root
        if q.metadata.name not in shown:
            shown.add(q.metadata.name)
            tree.add(_queue_line(q, wide))
    # a tree is cut at the width of the console, which is 80 where there is no terminal
    shown_at = console if console.is_terminal else Console(highlight=False, width=_ENDLESS)
    shown_at.print(tree)


def _queue_line(q: Any, wide: bool) -> str:
    status = q.status
    text = f"[bold]{q.metadata.name}[/bold]  used {gpus(status.usage)}, quota {gpus(q.spec.quota)}"
    if GPU_RESOURCE in status.fair_share:
        text += f", fair share {gpus(status.fair_share)}"
    if GPU_RESOURCE in q.spec.limit:
        text += f", limit {gpus(q.spec.limit)}"
    text += f", weight {q.spec.weight}, {status.running} running, {status.pending} pending"
    if wide:
        amounts = (("used", status.usage), ("quota", q.spec.quota), ("limit", q.spec.limit))
        for other in sorted({r for _, held in amounts for r in held} - {GPU_RESOURCE}):
            said = ", ".join(f"{what} {held[other]}" for what, held in amounts if other in held)
            text += f"; {other}: {said}"
    ready = next((c for c in status.conditions if c.type == "Ready"), None)
    if ready is not None and ready.status != "True":
        text += f"  [red]{ready.reason}: {ready.message}[/red]"
    return text


class Waiting:
    """A spinner on a terminal, from one second on; nothing elsewhere. It leaves standard output alone."""

    def __init__(self, text: str) -> None:
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._ended = False
        self._timer: threading.Timer | None = None
        if sys.stderr.isatty():
            self._timer = threading.Timer(_PATIENCE, self._show, (text,))
            self._timer.daemon = True
            self._timer.start()

    def _show(self, text: str) -> None:
        with self._lock:
            if not self._ended:
                self._live = Live(
                    Spinner("dots", text), console=Console(stderr=True), transient=True, refresh_per_second=8,
                    redirect_stdout=False, redirect_stderr=False,
                )  # fmt: skip
                self._live.start()

    def end(self) -> None:
        """Away with it; may be called again."""
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._ended = True
            if self._live is not None:
                self._live.stop()
                self._live = None


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """A spinner while something takes longer than a second; print nothing meanwhile."""
    spinner = Waiting(text)
    try:
        yield
    finally:
        spinner.end()
