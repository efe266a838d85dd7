"""What became of each job of a simulation."""

from __future__ import annotations

import math

from heddle.simulator.jobs import Job


class Record:
    """A job's course so far.

    Attributes:
        job: what it is.
        first: seconds at which it first ran; None = never.
        end: seconds at which it was done, cut off at its walltime, or given up; None = not yet.
        outcome: ``done``, ``timed out``, ``cancelled`` or, while it has no end, ``running`` or ``waiting``.
        evictions: how often it lost its place, for others or with a node.
        lost: GPU-seconds of work that were done in vain.
        used: GPU-seconds that it held GPUs.
        progress: seconds of work done, as if with all its tasks.
        saved: those of them that a new start begins with.
        extra: seconds of work that its restarts cost so far.
        slow: seconds that a second of work takes on the GPUs that it runs on.
    """

    __slots__ = (
        "at", "end", "evictions", "extra", "first", "job", "lost", "outcome", "priority", "progress", "rate", "saved",
        "since", "slow", "tasks", "used", "version",
    )  # fmt: skip

    def __init__(self, job: Job) -> None:
        self.job = job
        self.first: float | None = None
        self.end: float | None = None
        self.outcome = "waiting"
        self.evictions = 0
        self.lost = 0.0
        self.used = 0.0
        self.progress = 0.0
        self.saved = 0.0
        self.extra = 0.0
        self.tasks = 0  # that run
        self.slow = 1.0
        self.rate = 0.0  # seconds of work a second
        self.at = job.submit  # up to when progress is counted
        self.since = math.inf  # start of this run
        self.priority = 0  # as the engine was told, where the policy decides it
        self.version = 0  # of what was foreseen of it

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.rate > 0

    @property
    def gpus(self) -> float:
        """GPUs that it holds."""
        return self.job.gpus_of(self.tasks)

    def left(self) -> float:
        """Seconds of work that are still to do."""
        return max(0.0, self.job.duration + self.extra - self.progress)

    def count(self, now: float) -> None:
        """Counts what was done up to now."""
        spent = now - self.at
        if spent > 0:
            if self.tasks:
                self.used += spent * self.gpus
            if self.rate:
                self.progress += spent * self.rate
        self.at = now

    def run(self, now: float, tasks: int, *, whole: bool | None = None, slow: float = 1.0) -> None:
        """So many of its tasks run from now on; ``whole``: whether with them it works (None = as its job says)."""
        self.count(now)
        self.slow = slow
        job = self.job
        least = job.tasks if job.least is None else job.least
        before, self.tasks = self.rate, tasks
        whole = tasks >= least if whole is None else whole and tasks > 0
        self.rate = 0.0 if not whole else 1.0 if tasks == job.tasks else (tasks / job.tasks) ** job.speedup
        self.rate /= slow
        self.version += 1
        if self.rate and not before:
            if self.first is None:
                self.first = now
            elif self.since == math.inf:
                self.extra += job.restart
            self.since = min(self.since, now)
            self.outcome = "running"
        elif before and not self.rate:
            self.stop()

    def stop(self) -> None:
        """It lost its place, and with it what it had not saved."""
        job = self.job
        kept = self.saved
        if job.checkpoint is not None:
            kept = max(kept, math.floor(self.progress / job.checkpoint) * job.checkpoint)
        self.lost += max(0.0, self.progress - kept) * job.gpus
        self.progress = self.saved = kept
        self.evictions += 1
        self.since = math.inf
        self.outcome = "waiting"

    def finish(self, now: float, outcome: str) -> None:
        """It is over."""
        self.count(now)
        self.tasks, self.rate = 0, 0.0
        self.version += 1
        self.end = now
        self.outcome = outcome

    def ends(self) -> tuple[float, str]:
        """When it ends if nothing changes, and as what."""
        done = self.at + self.left() / self.rate
        limit = self.since + self.job.walltime * self.slow if self.job.walltime is not None else math.inf
        return (done, "done") if done <= limit else (limit, "timed out")

    @property
    def wait(self) -> float | None:
        """Seconds from arrival to its first start; None = it never ran."""
        return None if self.first is None else self.first - self.job.submit

    @property
    def turnaround(self) -> float | None:
        """Seconds from arrival to its end; None = it has none, or was given up."""
        return None if self.end is None or self.outcome == "cancelled" else self.end - self.job.submit
