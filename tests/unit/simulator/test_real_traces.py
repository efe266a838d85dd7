"""The published traces themselves, where they lie beside the checkout: docs/traces.md says where to get them."""

from __future__ import annotations

from pathlib import Path

import pytest

from heddle.simulator import clusters
from heddle.simulator.sources import read
from heddle.simulator.traces import own

TRACES = Path(__file__).parents[4] / "shared" / "traces"


def real(name: str) -> Path:
    path = TRACES / name
    if not path.exists():
        pytest.skip(f"the published trace {name} is not beside this checkout")
    return path


def test_itp_cluster04(tmp_path: Path) -> None:
    found = read(real("itp/cluster04.csv"))
    assert len(found.jobs) == 15802
    hours = sum(job.gpus * job.duration for job in found.jobs) / 3600
    assert round(hours) == 705_683
    assert {job.gpu for job in found.jobs if job.tasks > 1} == {8000}
    own.write(found, tmp_path / "cluster04.csv.gz")
    assert read(tmp_path / "cluster04.csv.gz") == found


def test_philly() -> None:
    found = read(real("philly/philly.csv"))
    assert len(found.jobs) == 82247
    assert found.jobs[0].submit == 0
    assert round(sum(job.gpus * job.duration for job in found.jobs) / 3600e3) == 978
    sizes = clusters.read(real("philly/philly_vc.csv"))
    assert (len(sizes.nodes), sizes.gpus) == (352, 2816)
    sized = {queue.name for queue in sizes.queues}
    assert sum(job.queue in sized for job in found.jobs) == 82229
    machines = clusters.read(real("philly/cluster_machine_list.csv"))
    assert (len(machines.nodes), machines.gpus) == (552, 2490)


def test_openb() -> None:
    assert len(read(real("openb/openb_pod_list_default.csv")).jobs) == 8152
    found = clusters.read(real("openb/openb_node_list_gpu_node.csv"))
    assert (len(found.nodes), found.gpus) == (1213, 6212)
    assert len(clusters.read(real("openb/openb_node_list_all_node.csv")).nodes) == 1523


def test_lingjun() -> None:
    found = clusters.along(clusters.parse("847x8"), real("lingjun/topo.csv"))
    assert found.topology == ("DSW", "PSW", "ASW")
    assert not any("copy" in value for node in found.nodes for value in node.labels.values())
