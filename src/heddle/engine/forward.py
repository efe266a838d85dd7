"""Running the engine forward in virtual time: when will this start?

The same cycle decides at every step. Time jumps from one known end to the next, of work or of a minimum runtime: a
workload ends when its walltime is over, a workload without one never does; those that are evicted go at once and start
over; nobody new arrives and no node fails. :func:`expect` says which of these assumptions its answer rests on.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from heddle.engine.plan import Action, Bind, Budget, Evict
from heddle.engine.reasons import Reason, ReasonCode
from heddle.engine.scheduler import decide
from heddle.engine.state import State
from heddle.engine.work import TaskState

ROUNDS = 16
"""Cycles at one moment: the world comes to rest in fewer, unless evictions form a long chain."""


@dataclass(slots=True)
class Step:
    """One moment.

    Attributes:
        at: seconds.
        ended: workloads that ended at it.
        started: workloads whose minimum began to run at it.
        evicted: workloads that lost tasks at it.
    """

    at: float
    ended: tuple[str, ...] = ()
    started: list[str] = field(default_factory=list)
    evicted: list[str] = field(default_factory=list)


class Forward:
    """A world that moves by itself. It changes the state it is given: give it one of its own."""

    def __init__(self, state: State, now: float, budget: Budget | None = None) -> None:
        """Begin at ``now`` with what the state says; overdue work is taken to end at once."""
        # in virtual time everybody ends on time: nobody is overdue
        self.state = state
        self.now = now
        self.budget = replace(budget or Budget(), overdue=math.inf)
        self._again_at: float | None = None  # as the last cycle said

    def steps(self) -> Iterator[Step]:
        """Moment after moment, the present first, until no known end is left, of work or of a minimum runtime."""
        ended: tuple[str, ...] = ()
        while True:
            step = Step(self.now, ended)
            for action in self.settle():
                self._note(action, step)
            yield step
            known = [end for end, _ in self.state.lines.ends[:1]] + [at for at in (self._again_at,) if at is not None]
            if not known:
                return
            self.now = max(self.now, min(known))
            ended = tuple(name for end, name in self.state.lines.ends if end <= self.now)
            for name in ended:
                self.state.remove_workload(name)

    def settle(self) -> Iterator[Action]:
        """Cycle after cycle at this moment until nothing is left to do; yields what is done, after it was."""
        for _ in range(ROUNDS):
            get_ready(self.state)
            plan = decide(self.state, self.now, self.budget)
            actions, self._again_at = plan.actions, plan.again_at
            if not actions:
                return
            for action in actions:
                self.state.apply(action, self.now)
            for action in actions:
                if isinstance(action, Evict):
                    self.state.release_task(action.workload, action.task)
            yield from actions

    def _note(self, action: Action, step: Step) -> None:
        if isinstance(action, Evict):
            if action.workload not in step.evicted:
                step.evicted.append(action.workload)
        elif isinstance(action, Bind):
            work = self.state.works[action.placement.workload]
            if work.whole() and work.name not in step.started:
                step.started.append(work.name)


def get_ready(state: State) -> None:
    """In virtual time whatever runs is ready at once, so that what starts after it may."""
    for work in state.works.values():
        for task in work.tasks.values() if work.after is not None else ():
            if task.state is TaskState.BOUND:
                state.mark_ready(work.name, task.name)


@dataclass(frozen=True, slots=True)
class Expectation:
    """When a workload is expected to start.

    Attributes:
        workload: its name.
        start: seconds on the caller's clock; None = not foreseeable.
        reason: when and after what (``ExpectedStart``), or why nobody can say (``NoKnownStart``).
        assumptions: what must hold for it.
    """

    workload: str
    start: float | None
    reason: Reason
    assumptions: tuple[Reason, ...]


def expect(
    state: State, now: float, workload: str, budget: Budget | None = None, *, steps: int = 100_000
) -> Expectation:
    """When a pending workload will start, if nothing but what is known happens.

    Args:
        state: the world; left as it is.
        now: seconds.
        workload: its name.
        budget: as in :func:`heddle.engine.schedule`.
        steps: how many moments to look ahead at most.

    Raises:
        ValueError: the workload is not known.
    """
    if workload not in state.works:
        raise ValueError(f"workload: {workload!r} is not known; set it first")
    if any(state.works[workload].bound) and state.works[workload].whole():
        return Expectation(workload, now, Reason(ReasonCode.EXPECTED_START, at=now), ())
    return expect_all(state, now, (workload,), budget, steps=steps)[workload]


def expect_all(
    state: State, now: float, workloads: Collection[str], budget: Budget | None = None, *, steps: int = 100_000
) -> dict[str, Expectation]:
    """The same for several at once, in one run through time."""
    copy = state.copy()
    forward = Forward(copy, now, budget)
    waiting, found = set(workloads), dict[str, Expectation]()
    evicted = 0
    paced = any(work.paced for work in copy.works.values())
    for count, step in enumerate(forward.steps()):
        evicted += len(step.evicted)
        for name in step.started:
            if name in waiting:
                waiting.discard(name)
                after = tuple((ended, 0) for ended in step.ended)
                reason = Reason(ReasonCode.EXPECTED_START, queue=copy.works[name].spec.queue, at=step.at, holders=after)
                found[name] = Expectation(name, step.at, reason, _assumptions(copy, evicted, paced=paced))
        if not waiting or count >= steps:
            break
    endless = sum(any(work.bound) and work.spec.walltime is None for work in copy.works.values())
    for name in waiting:
        queue = copy.works[name].spec.queue if name in copy.works else ""
        found[name] = Expectation(name, None, Reason(ReasonCode.NO_KNOWN_START, queue=queue, tasks=endless), ())
    return found


def _assumptions(state: State, evicted: int, *, paced: bool) -> tuple[Reason, ...]:
    endless = sum(any(work.bound) and work.spec.walltime is None for work in state.works.values())
    found = [Reason(ReasonCode.ASSUMES_NO_ARRIVALS), Reason(ReasonCode.ASSUMES_WALLTIMES)]
    if paced:
        found.append(Reason(ReasonCode.ASSUMES_SPEEDS))
    if endless:
        found.append(Reason(ReasonCode.ASSUMES_ENDLESS, tasks=endless))
    if evicted:
        found.append(Reason(ReasonCode.ASSUMES_STARTS_OVER, tasks=evicted))
    return tuple(found)
