"""Alibaba's ``cluster-trace-gpu-v2023`` ("openb"): a list of nodes and lists of pods with shares of GPUs.

Where to get it: https://github.com/alibaba/clusterdata (cluster-trace-gpu-v2023), further pod lists in
https://github.com/hkust-adsl/kubernetes-scheduler-simulator. Source: Weng et al., USENIX ATC 2023.
"""

from __future__ import annotations

import math
from pathlib import Path

from heddle.engine.model import WHOLE, Device, NodeSpec
from heddle.simulator.jobs import MODEL_LABEL, Job, Trace
from heddle.simulator.tables import Row, of_a_node, seconds, table, whole
from heddle.simulator.traces.rows import trace

_MIB = 1 << 20


def nodes(path: Path) -> tuple[NodeSpec, ...]:
    """Nodes of a list with columns sn, cpu_milli, memory_mib, gpu, model."""
    found = []
    for row in table(path, ("sn", "cpu_milli", "memory_mib", "gpu")):
        model = row.get("model", "")
        devices = tuple(Device(f"g{at}", at, model) for at in range(row.read("gpu", of_a_node)))
        resources = {"cpu": row.read("cpu_milli", whole), "memory": row.read("memory_mib", whole) * _MIB}
        found.append(NodeSpec(row["sn"], resources, devices, {MODEL_LABEL: model} if model else {}))
    return tuple(found)


def pods(path: Path) -> Trace:
    """Pods of a list with columns name, cpu_milli, memory_mib, num_gpu, gpu_milli; also read where they are there:
    gpu_spec (models, divided by ``|``), qos, creation_time, deletion_time [s]."""
    return trace(path.name.split(".")[0], table(path, ("name", "cpu_milli", "num_gpu")), _pod)


def _pod(row: Row) -> Job:
    count = row.read("num_gpu", whole)
    milli = row.read("gpu_milli", whole, WHOLE) if count == 1 else WHOLE
    if count and not 0 < milli <= WHOLE:
        raise row.fault(f"gpu_milli: {milli} is not valid; give 1 to {WHOLE}")
    submit = row.read("creation_time", seconds, 0.0)
    end = row.read("deletion_time", seconds, math.inf)
    if end < submit:
        raise row.fault(f"deletion_time: {end:g} is before the creation at {submit:g}")
    return Job(
        row["name"],
        submit,
        end - submit,
        gpu=count * WHOLE if milli == WHOLE else milli,
        cpu=row.read("cpu_milli", whole),
        memory=row.read("memory_mib", whole, 0) * _MIB,
        models=tuple(name for name in row.get("gpu_spec", "").split("|") if name),
    )
