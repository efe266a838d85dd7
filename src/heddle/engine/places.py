"""Places in the words of callers, and the tasks, rows and devices that they stand for.

Knows the names of nodes, devices, workloads and tasks, and which devices are free; is not aware of queues or of who
should be where.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from heddle.engine.model import WHOLE, Placement
from heddle.engine.nodes import Nodes
from heddle.engine.work import Task, Work


class Places:
    """What the names mean that callers use, as of now."""

    def __init__(self, nodes: Nodes, works: Mapping[str, Work]) -> None:
        self._nodes = nodes
        self._works = works

    def work(self, name: str) -> Work:
        """A workload by its name.

        Raises:
            ValueError: there is no such workload.
        """
        work = self._works.get(name)
        if work is None:
            raise ValueError(f"workload: {name!r} is not known; set it first")
        return work

    def task(self, workload: str, name: str) -> Task:
        """A task by the names of its workload and its own.

        Raises:
            ValueError: there is no such workload or task.
        """
        task = self.work(workload).tasks.get(name)
        if task is None:
            raise ValueError(f"task: {name!r} is not a task of {workload}; name it in a pod set first")
        return task

    def _row(self, field: str, node: str) -> int:
        row = self._nodes.row.get(node)
        if row is None:
            raise ValueError(f"{field}: {node!r} is not known; set the node first")
        return row

    def resolve(self, placement: Placement) -> tuple[Task, int, tuple[int, ...]]:
        """The task, row and devices that a place in the words of callers stands for.

        Raises:
            ValueError: workload, task, node or device is not known, or the devices are not as the task uses them.
        """
        task = self.task(placement.workload, placement.task)
        row = self._row("placement.node", placement.node)
        index = self._nodes.device_index[row]
        if task.cls.key.mig or placement.instance is not None:
            return task, row, self._slots(placement, task, row)
        unknown = [device for device in placement.devices if device not in index]
        if unknown:
            raise ValueError(f"placement.devices: {unknown!r} are not on {placement.node}; name its own devices")
        wanted = task.cls.at(row).width
        if len(set(placement.devices)) != wanted or len(placement.devices) != wanted:
            raise ValueError(
                f"placement.devices: {placement.devices!r} is not valid; {task.work.name} uses {wanted} devices a task"
            )
        return task, row, tuple(sorted(index[device] for device in placement.devices))

    def _slots(self, placement: Placement, task: Task, row: int) -> tuple[int, ...]:
        """The slots of a MIG instance."""
        wanted, index = task.cls.key.mig, self._nodes.device_index[row]
        if placement.instance is None or placement.instance[0] != wanted or len(placement.devices) != 1:
            remedy = f"give one device and ({wanted!r}, start)" if wanted else "leave it out: it uses no MIG profile"
            raise ValueError(f"placement.instance: {placement.instance!r} is not valid; {remedy}")
        first, start = index.get(f"{placement.devices[0]}#0", -1), placement.instance[1]
        for cut in task.cls.at(row).cuts:
            if cut.first == first and start in cut.geometry.starts(cut.profile):
                return cut.slots(start)
        raise ValueError(
            f"placement.instance: {wanted} at {start} is not on {placement.devices[0]!r} of {placement.node}; "
            "name a GPU in MIG mode, and a start at which it has or can have the profile"
        )

    def require_free(self, placement: Placement, task: Task, row: int, devices: tuple[int, ...]) -> None:
        """Sees to it that nobody holds the devices to which a task is to be bound; promises do not count.

        Raises:
            ValueError: somebody does.
        """
        nodes, cls = self._nodes, task.cls.at(row)
        for device in devices:
            held = nodes.dev_land[row, device] + nodes.dev_reserved[row, device] - nodes.dev_releasing[row, device]
            if held < cls.floor:
                name, slot, _ = nodes.device_ids(row, (device,))[0].partition("#")
                raise ValueError(
                    f"placement.devices: MIG slice of {name} on {placement.node} is taken, {task.work.name} needs it; "
                    "release its holder first"
                    if slot and cls.key.mig
                    else f"placement.devices: device {device} of {placement.node} has {held} thousandths free, "
                    f"{task.work.name} needs {cls.share}; release its holder first"
                )

    def width_of(self, placement: Placement) -> int:
        """How many whole devices the task of a place needs there; 0 = none, a share of one, or a slice.

        Raises:
            ValueError: workload, task or node is not known.
        """
        task = self.task(placement.workload, placement.task)
        row = self._row("placement.node", placement.node)
        return task.cls.at(row).count

    def free_devices(
        self, node: str, count: int, *, land: bool = False, without: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Devices of a node of which nothing is in use, in its own numbering.

        Args:
            node: its name.
            count: how many.
            land: those count too whose users are leaving.
            without: ids that are spoken for.

        Raises:
            ValueError: the node is not known, or has not so many.
        """
        found = [name for name in self.unused_devices(node, land=land) if name not in without]
        if len(found) < count:
            raise ValueError(f"node: {node} has {len(found)} free devices, {count} are asked for; release some first")
        return tuple(found[:count])

    def unused_devices(self, node: str, *, land: bool = False) -> tuple[str, ...]:
        """All devices of a node of which nothing is in use, in its own numbering; ``land``: nor will be, once all who
        leave have left.

        Raises:
            ValueError: the node is not known.
        """
        row = self._row("node", node)
        free = self._nodes.dev_land[row] if land else self._nodes.dev_bind[row]
        return tuple(name for name, at in self._nodes.device_index[row].items() if free[at] >= WHOLE)

    def of(self, task: Task, row: int, devices: tuple[int, ...]) -> Placement:
        """A place in the words of callers."""
        work = task.work
        ids = self._nodes.device_ids(row, devices)
        instance = None
        if task.cls.key.mig:
            name, _, start = ids[0].rpartition("#")
            ids, instance = (name,), (task.cls.key.mig, int(start))
        name = work.spec.pod_sets[task.part].name
        return Placement(work.name, name, task.name, self._nodes.names[row], ids, instance)
