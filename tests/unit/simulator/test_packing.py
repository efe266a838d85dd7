"""Filling a cluster: the published experiment in small, and the published figures where the trace is at hand."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import pytest

from heddle.engine import Device, NodeSpec
from heddle.simulator.jobs import MODEL_LABEL, Job
from heddle.simulator.packing import arrivals, fill, shuffled, typical
from heddle.simulator.traces import openb

OPENB = Path(__file__).parents[4] / "shared" / "traces" / "openb"
STRATEGIES = ["fragmentation", "fgd", "best-fit", "dot-product", "gpu-packing", "gpu-clustering", "random", "pack"]


def nodes(count: int = 6) -> list[NodeSpec]:
    return [
        NodeSpec(
            f"n{at}",
            {"cpu": 32_000 + 16_000 * (at % 2), "memory": 2**38},
            tuple(Device(f"g{d}", d) for d in range(4)),
            {MODEL_LABEL: "AB"[at % 2]},
        )
        for at in range(count)
    ]


def jobs() -> list[Job]:
    sizes = [(0, 6000), (250, 1000), (470, 3000), (810, 4000), (1000, 8000), (2000, 12000), (4000, 16000)]
    return [
        Job(f"j{at:03}", 0.0, 1.0, gpu=gpu, cpu=cpu, memory=2**32, models=("A",) if at % 5 == 0 and gpu else ())
        for at, (gpu, cpu) in enumerate(sizes * 6)
    ]


def test_arrivals_are_the_list_shuffled_then_drawn_again() -> None:
    capacity = 24_000
    found = arrivals(jobs(), capacity, 7, ratio=3.0)
    assert found == arrivals(jobs(), capacity, 7, ratio=3.0)
    assert found != arrivals(jobs(), capacity, 8, ratio=3.0)
    assert sorted(job.gpu for job in found[:42]) == sorted(job.gpu for job in jobs())
    assert 2.8 * capacity < sum(job.gpu for job in found) <= 3.0 * capacity + 4000


def test_names_are_dealt_out_at_random() -> None:
    found = shuffled(nodes(), 3)
    assert [node.name.split("-")[1] for node in found] == [node.name for node in nodes()]
    assert len({node.name for node in found}) == 6
    assert [node.name for node in found] != [node.name for node in shuffled(nodes(), 4)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_by_one_or_together_is_the_same(strategy: str) -> None:
    coming, mix = arrivals(jobs(), 24_000, 5), typical(jobs())
    together = fill(nodes(), coming, strategy, mix)
    assert fill(nodes(), coming, strategy, mix, together=1) == together
    assert fill(nodes(), coming, strategy, mix, together=7) == together
    assert 60 < together.at(100) <= 100
    assert together.given[-1] <= together.capacity


@pytest.mark.skipif(not OPENB.is_dir(), reason="the openb trace is not beside this checkout (shared/traces/openb)")
@pytest.mark.parametrize(("strategy", "published", "apart"), [("best-fit", "05-BestFit", 0.7), ("fgd", "06-FGD", 0.7)])
def test_published_figures_come_out(strategy: str, published: str, apart: float) -> None:
    with (OPENB / "expected_allocation.csv").open() as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["workload"], row["sc_policy"]) == ("openb_pod_list_default", published)
        ]
    expected = statistics.fmean(float(row["100"]) for row in rows)
    here, pods = (
        openb.nodes(OPENB / "openb_node_list_gpu_node.csv"),
        openb.pods(OPENB / "openb_pod_list_default.csv").jobs,
    )
    capacity = sum(len(node.devices) for node in here) * 1000
    found = [
        fill(shuffled(here, seed), arrivals(pods, capacity, seed), strategy, typical(pods)).at(100) for seed in (42, 43)
    ]
    assert statistics.fmean(found) == pytest.approx(expected, abs=apart)
