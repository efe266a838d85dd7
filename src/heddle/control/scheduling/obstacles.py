"""Why workloads wait that the engine knows nothing of: volumes, and devices that no node offers."""

from collections.abc import Collection, Iterable

from heddle.api.mig import MIG_PREFIX
from heddle.api.pod import Pod
from heddle.api.workload import Workload, WorkloadReason
from heddle.control.scheduling import instances
from heddle.control.scheduling.world import World


class Obstacles:
    """What stands in the way of workloads, beside what a plan says."""

    def __init__(self, world: World) -> None:
        """Obstacles of this world."""
        self._world = world

    def awaited(self, key: str) -> str:
        """The claims to volumes that a workload with a place waits for, in words; "" = none."""
        return self._world.claims.waiting.get(key, "") if self._world.claims is not None else ""

    def unattachable(self, pods: Iterable[Pod], beside: Collection[Pod] = ()) -> list[WorkloadReason]:
        """Nodes on which pods that wait cannot have their volumes, though else they might go there; `beside` are pods
        that are not there yet and will be."""
        waiting = [pod for pod in pods if pod.spec.volumes and not (pod.spec.node_name or pod.finished)]
        if self._world.claims is None or not waiting or not (full := self._world.claims.full(waiting, beside)):
            return []
        return [WorkloadReason(code="VolumeLimit", message="; ".join(full))]

    def not_offered(self, workload: Workload) -> list[WorkloadReason]:
        """MIG instances that it asks for and no node has, where nodes offer such instances as counts."""
        sets = workload.spec.pod_sets
        asked = {name for pod_set in sets for name in pod_set.resources if name.startswith(MIG_PREFIX)}
        if not asked or self._world.picks:
            return []
        missing = instances.not_offered(asked, self._world.mirror.offers(MIG_PREFIX))
        return [WorkloadReason(code="NoSuchInstance", message=text) for text in missing]
