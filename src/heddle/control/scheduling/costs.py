"""What workloads cost others, and were made to give: kept in their status."""

from collections.abc import Iterable

from heddle.api.workload import Cost, Workload, WorkloadStatus

_NAMED = 20
"""So many workloads are named, those that lost most; the others are summed up without a name."""


class Costs:
    """What has happened since the objects were last written."""

    def __init__(self) -> None:
        self._new: dict[str, tuple[list[Cost], int]] = {}

    def charge(self, gainer: Workload | None, loser: Workload | None, name: str, seconds: float) -> None:
        """A pod of one workload was stopped for another.

        Args:
            gainer: for whom.
            loser: whose pod it was.
            name: the loser, as the gainer's people may know it.
            seconds: GPU-seconds of work that the loser does again.
        """
        if gainer is not None:
            costs, evictions = self._of(gainer)
            self._new[gainer.key] = (
                merged([*costs, Cost(workload=name, pods=1, gpu_seconds=round(seconds))]),
                evictions,
            )
        if loser is not None:
            costs, evictions = self._of(loser)
            self._new[loser.key] = (costs, evictions + 1)

    def _of(self, workload: Workload) -> tuple[list[Cost], int]:
        return self._new.get(workload.key) or (workload.status.cost, workload.status.evictions)

    def of(self, key: str, status: WorkloadStatus) -> tuple[list[Cost], int]:
        """What a status is to say of what others lost for it, and of the pods that it lost."""
        return self._new.get(key) or (status.cost, status.evictions)

    def forget(self, key: str) -> None:
        """A workload is gone."""
        self._new.pop(key, None)


def merged(costs: Iterable[Cost]) -> list[Cost]:
    """One entry a workload, those that lost most first."""
    by_name: dict[str, Cost] = {}
    for cost in costs:
        known = by_name.get(cost.workload, Cost(workload=cost.workload))
        by_name[cost.workload] = _sum(known, cost)
    rest = by_name.pop("", Cost())
    order = sorted(by_name.values(), key=lambda cost: (-cost.gpu_seconds, -cost.pods, cost.workload))
    for cost in order[_NAMED:]:
        rest = _sum(rest, cost)
    return order[:_NAMED] + ([rest] if rest.pods else [])


def _sum(one: Cost, other: Cost) -> Cost:
    return Cost(workload=one.workload, pods=one.pods + other.pods, gpu_seconds=one.gpu_seconds + other.gpu_seconds)


def told(costs: Iterable[Cost]) -> list[str]:
    """The same for people."""
    return [f"{cost.workload or 'others'}: {_lost(cost)}" for cost in costs]


def _lost(cost: Cost) -> str:
    return f"{_count(cost.pods)} stopped for it, {_time(cost.gpu_seconds)} of work to do again"


def _count(pods: int) -> str:
    return "1 pod" if pods == 1 else f"{pods} pods"


def _time(seconds: int) -> str:
    return f"{seconds} GPU-seconds" if seconds < 360 else f"{seconds / 3600:.1f} GPU-hours"
