"""The scheduler as a pure function of state and time: no I/O, no clock, no random number."""

from heddle.engine.model import (
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

__all__ = [
    "Action",
    "Bind",
    "Budget",
    "Device",
    "Evict",
    "NodeSpec",
    "Placement",
    "Plan",
    "PodSet",
    "QueueSpec",
    "Reason",
    "ReasonCode",
    "Reserve",
    "Taint",
    "Toleration",
    "Verdict",
    "WorkloadSpec",
    "render",
]
