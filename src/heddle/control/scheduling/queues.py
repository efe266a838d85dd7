"""Queue.status: what the scheduler last saw of each queue, written at most a few times a second."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import msgspec

from heddle.api.clock import to_seconds, to_text
from heddle.api.meta import Condition, set_condition
from heddle.api.queue import Queue, QueueStatus
from heddle.api.workload import Workload
from heddle.control import tree
from heddle.control.scheduling import adapter
from heddle.control.scheduling.writes import Writes
from heddle.engine import State, fair_shares

EVERY = 0.25
"""Seconds between writes: under a flood of jobs queues change with every cycle, and nobody reads that fast."""

_SHARE = 20
"""And so many times as long as the last one took to work out: with thousands of jobs that is tens of milliseconds."""

_PAST_EVERY = 60.0
"""Seconds between writes of past usage where nothing else of a queue changed: it always changes a little."""

_FIELDS = (
    "observedGeneration", "conditions", "usage", "fairShare", "pending", "running", "pastUsage", "pastUsageTime"
)  # fmt: skip
_ZERO = {"pending": 0, "running": 0}


class QueueReporter:
    """Keeps the status of all queues true."""

    def __init__(self, writes: Writes) -> None:
        self._writes = writes
        self._last, self._took = float("-inf"), 0.0

    def due_in(self, now: float) -> float:
        """Seconds until the next report may be written; 0 when it may be now."""
        return max(0.0, self._last + max(EVERY, _SHARE * self._took) - now)

    async def report(
        self, state: State, queues: Mapping[str, Queue], workloads: Iterable[Workload], now: float
    ) -> None:
        """Write what has changed; `now` in seconds since 1970."""
        begun = time.perf_counter()
        self._last = now
        faults = tree.faults({name: q.spec.parent for name, q in queues.items()})
        shares = fair_shares(state)
        phases = _phases(queues, workloads)
        past = state.past_usage()
        self._took = time.perf_counter() - begun
        for name, queue in list(queues.items()):
            reason, message = faults.get(name) or _stop(state, name)
            ready = Condition(
                type="Ready",
                status="True" if reason == "Ready" else "False",
                reason=reason,
                message=message,
                last_transition_time=to_text(now),
                observed_generation=queue.metadata.generation,
            )
            rows = shares.get(name, {})
            usage = {r: int(row["usage"] or 0) for r, row in rows.items() if row["usage"] or r == "gpu"}
            gpu_share = rows.get("gpu", {}).get("share")
            status = QueueStatus(
                observed_generation=queue.metadata.generation,
                conditions=set_condition(queue.status.conditions, ready),
                usage=adapter.resources(usage),
                fair_share={} if gpu_share is None else adapter.resources({"gpu": int(gpu_share)}),
                pending=phases[name]["Pending"],
                running=phases[name]["Running"],
                past_usage=queue.status.past_usage if name in past else {},
                past_usage_time=queue.status.past_usage_time if name in past else None,
            )
            if name in past and (
                status != queue.status or past[name].at - to_seconds(status.past_usage_time) >= _PAST_EVERY
            ):
                status.past_usage = adapter.past_resources(past[name])
                status.past_usage_time = to_text(past[name].at, micro=True)
            if status != queue.status:
                queue.status = status
                body = msgspec.to_builtins(status)
                await self._writes.queue(name, {field: body.get(field, _ZERO.get(field)) for field in _FIELDS})


def _stop(state: State, name: str) -> tuple[str, str]:
    """Condition reason and message of a queue that is in order, which may be stopped all the same."""
    queue = state.tree.queues.get(name)
    if queue is None or queue.stopped is None:
        return ("Ready", "")
    return ("Stopped", f"spec.stopPolicy of queue {queue.stopped.name} is {queue.stopped.spec.stop_policy}")


def _phases(queues: Mapping[str, Queue], workloads: Iterable[Workload]) -> dict[str, Counter[str]]:
    """Workloads by phase, below each queue."""
    own = Counter((w.spec.queue, w.status.phase) for w in workloads)
    phases: dict[str, Counter[str]] = defaultdict(Counter)
    for (queue, phase), count in own.items():
        name, seen = queue, set[str]()
        while name in queues and name not in seen:
            seen.add(name)
            phases[name][phase] += count
            name = queues[name].spec.parent
    return phases
