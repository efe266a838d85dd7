"""Microsoft Philly, September to December 2017: jobs with the virtual cluster that ran them, and the machines.

Where to get it: ``philly.csv`` (timestamp, duration, num_gpus, gpu_time, cluster) in the artifact of Pollux,
https://github.com/petuum/adaptdl (branch osdi21-artifact, ``simulator/traces``); ``philly_vc.csv`` (vc, node num) in
https://github.com/S-Lab-System-Group/HeliosArtifact (``framework/QSSF Service/data``); ``cluster_machine_list`` in
https://github.com/msr-fiddle/philly-traces (CC-BY-4.0). Source: Jeon et al., "Analysis of Large-Scale Multi-Tenant
GPU Clusters for DNN Training Workloads" (USENIX ATC 2019).

``philly.csv`` is filtered: it holds half the GPU-hours of the cluster, and with the published sizes hardly anything
waits. What a simulation says about waiting times on it is nobody's published figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from heddle.engine.model import GPU, WHOLE, Device, NodeSpec, QueueSpec
from heddle.simulator.jobs import Job, Trace, split
from heddle.simulator.tables import Row, of_a_node, seconds, stem, table, whole
from heddle.simulator.traces.rows import trace

COLUMNS = ("timestamp", "duration", "num_gpus", "cluster")
SIZES = ("vc", "node num")
MACHINES = ("machineId", "number of GPUs")
_EPOCH = datetime(1970, 1, 1)


def read(path: Path, node_gpus: int = 8) -> Trace:
    """Jobs of ``philly.csv``, named by their lines, since they have no other name. Seconds count from the first
    arrival; queues are virtual clusters. Jobs of more GPUs than a node has become gangs.

    Raises:
        TableError: a row is broken.
    """

    def job(row: Row) -> Job:
        tasks, gpus = split(row.read("num_gpus", whole), node_gpus)
        return Job(
            f"{row.line:07}",
            row.read("timestamp", _moment),
            row.read("duration", seconds),
            tasks=tasks,
            gpu=gpus * WHOLE,
            queue=row.read("cluster", str),
        )

    found = trace(stem(path), table(path, COLUMNS), job)
    begin = found.jobs[0].submit if found.jobs else 0.0
    return replace(found, jobs=tuple(replace(job, submit=job.submit - begin) for job in found.jobs))


def _moment(text: str) -> float:
    """Seconds since 1970 on the cluster's own clock; without a zone, since the file names none."""
    try:
        return (datetime.fromisoformat(text) - _EPOCH).total_seconds()
    except (ValueError, TypeError) as error:  # TypeError: it names a zone
        raise ValueError("write it as 2017-10-09 07:01:55") from error


def sizes(path: Path) -> Mapping[str, int]:
    """Nodes of each virtual cluster, from ``philly_vc.csv``.

    Raises:
        TableError: a row is broken, or names a virtual cluster again.
    """
    found = dict[str, int]()
    for row in table(path, SIZES):
        name = row.read("vc", str)
        if name in found:
            raise row.fault(f"vc: {name!r} was named before; give each virtual cluster one row")
        found[name] = row.read("node num", whole)
    return found


def queues(of: Mapping[str, int], node_gpus: int = 8) -> tuple[QueueSpec, ...]:
    """A queue for each virtual cluster, with its GPUs as quota: what it leaves idle others may borrow."""
    return tuple(QueueSpec(name, quota={GPU: nodes * node_gpus * WHOLE}) for name, nodes in of.items())


def machines(path: Path) -> tuple[NodeSpec, ...]:
    """Nodes of ``cluster_machine_list.csv``: machineId, number of GPUs, single GPU mem (``12GB``). Their CPUs and
    memory are not told; the nodes have none."""
    found = []
    for row in table(path, MACHINES):
        memory = row.read("single GPU mem", _gigabytes, 0)
        devices = tuple(Device(f"g{at}", at, memory_mib=memory) for at in range(row.read("number of GPUs", of_a_node)))
        found.append(NodeSpec(row.read("machineId", str), {}, devices))
    return tuple(found)


def _gigabytes(text: str) -> int:
    """MiB of ``12GB``: what its maker calls GB of a GPU are GiB."""
    if not text.endswith("GB"):
        raise ValueError("write it as 12GB")
    return int(text[:-2]) * 1024
