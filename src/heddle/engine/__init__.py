"""The scheduler as a pure function of state and time: no I/O, no clock, no random number."""

from heddle.engine.explain import Explanation, explain
from heddle.engine.forward import Expectation, Forward, expect, expect_all
from heddle.engine.model import (
    MODEL,
    NODE,
    Ageing,
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
from heddle.engine.usage import PastUsage

__all__ = [
    "MODEL",
    "NODE",
    "Action",
    "Ageing",
    "Bind",
    "Budget",
    "Device",
    "Evict",
    "Expectation",
    "Explanation",
    "Forward",
    "LabelMatch",
    "NodePreference",
    "NodeSpec",
    "PastUsage",
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
    "expect",
    "expect_all",
    "explain",
    "fair_shares",
    "render",
    "schedule",
]
