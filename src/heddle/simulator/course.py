"""The figures of a simulation over time: sums that are exact, and a curve of at most a few thousand points."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heddle.engine.state import State

if TYPE_CHECKING:
    from heddle.simulator.records import Record

MOST = 2000
"""Points of a curve; when there are more every second one is left out."""


class Course:
    """What was used, and what waited.

    Attributes:
        points: (seconds, GPUs there, in use, waited for, jobs that run, jobs that wait), thinned out evenly in events.
        used: GPU-seconds in use.
        there: GPU-seconds that there were.
        by_queue: GPU-seconds in use per queue.
        broken: (seconds, thousandths of all GPUs that are idle and of no use for what usually arrives), sampled.
    """

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self.points: list[tuple[float, int, float, float, int, int]] = []
        self.broken: list[tuple[float, float]] = []
        self.used = 0.0
        self.there = 0.0
        self.by_queue: dict[str, float] = {}
        self._holds: dict[str, float] = {}  # GPUs in use per queue, now
        self._since: dict[str, float] = {}
        self._now = 0.0
        self._begun = False
        self._in_use = 0.0
        self._wanted = 0.0
        self._running = 0
        self._waiting = 0
        self._tasks: dict[str, float] = {}  # GPUs that a job holds, while it holds some
        self._every = 1
        self._noted = 0

    def _advance(self, now: float) -> None:
        if self._begun:
            spent = now - self._now
            self.used += spent * self._in_use
            self.there += spent * self.gpus
        self._begun = True
        self._now = now

    def arrived(self, now: float, record: Record) -> None:
        """A job waits."""
        self._advance(now)
        self._wanted += record.job.gpus
        self._waiting += 1

    def ended(self, now: float, record: Record) -> None:
        """A job is over, whether it ran or not."""
        self._advance(now)
        held = self._tasks.pop(record.job.name, None)
        if held is None:
            self._wanted -= record.job.gpus
            self._waiting -= 1
        else:
            self._running -= 1
            self._wanted -= record.job.gpus - held
            self._hold(now, record.job.queue, -held)

    def ran(self, now: float, record: Record) -> None:
        """More or fewer tasks of a job run now."""
        self._advance(now)
        name = record.job.name
        held = self._tasks.get(name)
        gpus, tasks = record.gpus, record.tasks
        if held is None and tasks:
            self._running += 1
            self._waiting -= 1
        elif held is not None and not tasks:
            self._running -= 1
            self._waiting += 1
        if tasks:
            self._tasks[name] = gpus
        else:
            self._tasks.pop(name, None)
        self._wanted -= gpus - (held or 0.0)
        self._hold(now, record.job.queue, gpus - (held or 0.0))

    def _hold(self, now: float, queue: str, gpus: float) -> None:
        before = self._holds.get(queue, 0.0)
        self.by_queue[queue] = self.by_queue.get(queue, 0.0) + before * (now - self._since.get(queue, now))
        self._holds[queue] = before + gpus
        self._since[queue] = now
        self._in_use += gpus

    def resized(self, now: float, gpus: int) -> None:
        """There are more or fewer GPUs from now on."""
        self._advance(now)
        self.gpus = gpus

    def note(self, now: float, state: State) -> None:
        """Takes down a point, after a cycle."""
        self._noted += 1
        if self._noted % self._every:
            return
        self._advance(now)
        point = (now, self.gpus, self._in_use, self._wanted, self._running, self._waiting)
        if self.points and self.points[-1][0] == now:
            self.points[-1] = point
        else:
            self.points.append(point)
        if len(self.points) % 16 == 1 and self.gpus and (not self.broken or self.broken[-1][0] < now):
            self.broken.append((now, state.broken_room()))
        if len(self.points) >= MOST:
            self.points = self.points[::2]
            self.broken = self.broken[::2]
            self._every *= 2

    def close(self, now: float) -> None:
        """The end, for now."""
        self._advance(now)
        for queue in self._holds:
            self._hold(now, queue, 0.0)
        self.points.append((now, self.gpus, self._in_use, self._wanted, self._running, self._waiting))
