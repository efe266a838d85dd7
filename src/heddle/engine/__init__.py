"""The scheduler as a pure function of state and time: no I/O, no clock, no random number."""

from heddle.engine.explain import Explanation, explain
from heddle.engine.model import (
    NODE,
    Device,
    LabelMatch,
    NodePreference,
    NodeSpec,
    Placement,
    PodSet,
    QueueSpec,
    Slices,
    Spread,
    Taint,
    TaskMix,
    Term,
    Toleration,
    TypicalTask,
    WorkloadSpec,
)
from heddle.engine.plan import Action, Bind, Budget, Evict, Plan, Reserve, Verdict
from heddle.engine.reasons import Reason, ReasonCode, render
from heddle.engine.scheduler import fair_shares, schedule
from heddle.engine.state import Snapshot, State, TaskFact, TaskState

__all__ = [
    "NODE",
    "Action",
    "Bind",
    "Budget",
    "Device",
    "Evict",
    "Explanation",
    "LabelMatch",
    "NodePreference",
    "NodeSpec",
    "Placement",
    "Plan",
    "PodSet",
    "QueueSpec",
    "Reason",
    "ReasonCode",
    "Reserve",
    "Slices",
    "Snapshot",
    "Spread",
    "State",
    "Taint",
    "TaskFact",
    "TaskMix",
    "TaskState",
    "Term",
    "Toleration",
    "TypicalTask",
    "Verdict",
    "WorkloadSpec",
    "explain",
    "fair_shares",
    "render",
    "schedule",
]
