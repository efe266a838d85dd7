"""How much longer work runs on the GPU models that it got than its walltime says.

A walltime is stated for GPUs of speed 1. What is decided of several pod sets is the slowest of their models: work that
runs together waits for it. Knows workloads and hardware; is not aware of who chooses a model, or why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heddle.engine.work import Work


def slowness(work: Work) -> float:
    """Seconds that a second of its walltime takes, on the models where it is or, while a choice is tried, would be;
    before either on the slowest that it may use."""
    if not work.paced:
        return 1.0
    decided, possible = [], []
    for part, pod_set in enumerate(work.spec.pod_sets):
        if not pod_set.gpu_speeds:
            continue
        model = _model(work, part)
        if model is not None:
            decided.append(pod_set.gpu_speeds.get(model, 1.0))
        possible += [pod_set.gpu_speeds.get(name, 1.0) for name in pod_set.gpu_models]
    return 1.0 / min(decided or possible)


def _model(work: Work, part: int) -> str | None:
    """The model that a pod set is on or is tried on; None = that is not decided."""
    tried = work.parts[part].key.models
    if len(tried) == 1:
        return tried[0]
    base = work.bases[part]
    row = work.home(part)
    return None if row < 0 else base.nodes.kinds[int(base.nodes.kind[row])].model
