"""The scheduler as a pure function of state and time: no I/O, no clock, no random number."""

from heddle.engine.explain import Explanation, explain
from heddle.engine.forward import Expectation, Forward, expect, expect_all
from heddle.engine.model import (
    COUNTER,
    MODEL,
    Ageing,
    Device,
    NodeSpec,
    Placement,
    PodSet,
    QueueSpec,
    Taint,
    Toleration,
    WorkloadSpec,
)
from heddle.engine.plan import Action, Bind, Budget, Evict, Plan, Reserve, Verdict
from heddle.engine.reasons import Reason, ReasonCode, render
from heddle.engine.scheduler import fair_shares, schedule
from heddle.engine.state import Snapshot, State, TaskFact, TaskState
from heddle.engine.usage import PastUsage

__all__ = [
    "COUNTER",
    "MODEL",
    "Action",
    "Ageing",
    "Bind",
    "Budget",
    "Device",
    "Evict",
    "Expectation",
    "Explanation",
    "Forward",
    "NodeSpec",
    "PastUsage",
    "Placement",
    "Plan",
    "PodSet",
    "QueueSpec",
    "Reason",
    "ReasonCode",
    "Reserve",
    "Snapshot",
    "State",
    "Taint",
    "TaskFact",
    "TaskState",
    "Toleration",
    "Verdict",
    "WorkloadSpec",
    "expect",
    "expect_all",
    "explain",
    "fair_shares",
    "render",
    "schedule",
]
