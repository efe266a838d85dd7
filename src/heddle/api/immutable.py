"""Fields of spec that pods are already made of: a new job is the way to change them.

One table for embedded mode (`heddle.api.admission`) and the CustomResourceDefinitions. Fields that are not named as
editable are fixed, so that none is accepted and has no effect.
"""

from heddle.api.meta import Kind
from heddle.api.schema import field_names
from heddle.api.trainingjob import TrainingJob, TrainingJobSpec
from heddle.api.workload import Workload, WorkloadSpec

IMMUTABLE = "is immutable: pods are made of it; delete the job and submit it anew"

_EDITABLE: dict[type[Kind], tuple[str, ...]] = {
    # who decides about running pods looks at these each time
    TrainingJob: ("priority", "preemptible", "minGroups", "separateGpus", "walltimeSeconds", "movable",
                  "gangGraceSeconds", "restartPolicy", "maxRestarts", "ttlSecondsAfterFinished"),
    Workload: tuple(name for name in field_names(WorkloadSpec) if name != "podSets"),
}  # fmt: skip

FIXED: dict[str, tuple[str, ...]] = {
    kind.KIND: tuple(name for name in field_names(spec) if name not in _EDITABLE[kind])
    for kind, spec in ((TrainingJob, TrainingJobSpec), (Workload, WorkloadSpec))
}
"""By kind, in the order of their Structs."""


def transitions(kind: str) -> list[dict[str, str]]:
    """CEL rules of `spec` in a CustomResourceDefinition that refuse to change these."""
    return [
        {
            "rule": f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})",
            "message": f"{name} {IMMUTABLE}",
            "fieldPath": f".{name}",
        }
        for name in FIXED.get(kind, ())
    ]
