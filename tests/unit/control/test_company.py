"""Jobs that must, or must not, run beside others: the fields of TrainingJobs and Workloads, in embedded mode."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from machine import machine
from waiting import until, workload_with

from heddle.api.company import Company, PodTerm
from heddle.api.core import Namespace
from heddle.api.meta import ObjectMeta
from heddle.api.queue import Queue
from heddle.api.registry import NAMESPACES, PODS, QUEUES, WORKLOADS
from heddle.api.selectors import Selector
from heddle.api.trainingjob import TrainingJob, TrainingJobSpec
from heddle.control.scheduling.controller import SchedulingController
from heddle.control.training import pods as build
from heddle.store.client import Client

HOST = "kubernetes.io/hostname"


@pytest.fixture
async def scheduling(tmp_path: Path) -> AsyncIterator[tuple[Client, SchedulingController]]:
    """A store with two nodes of eight GPUs and a running scheduler."""
    async with machine(tmp_path, "2x8xH100") as (client, controller):
        await client.create(QUEUES, Queue(metadata=ObjectMeta(name="default")))
        yield client, controller


def job(name: str, space: str = "default", gpus: int = 1, **spec: Any) -> TrainingJob:
    asked: dict[str, int | str] = {"nvidia.com/gpu": gpus}
    return TrainingJob(
        metadata=ObjectMeta(name=name, namespace=space, creation_timestamp="2030-01-01T00:00:00Z"),
        spec=TrainingJobSpec(command=["true"], resources_per_node=asked, **spec),
    )


def beside(app: str, **more: Any) -> Company:
    selector = Selector(match_labels={"app": app})
    return Company(required=[PodTerm(topology_key=HOST, label_selector=selector, **more)])


async def submit(client: Client, made: TrainingJob, *, pods_first: bool = False) -> None:
    """What the training controller makes of a job."""
    if not pods_first:
        await client.create(WORKLOADS, build.workload(made))
    for index in range(made.spec.size):
        await client.create(PODS, build.pod(made, index))
    if pods_first:
        await client.create(WORKLOADS, build.workload(made))


async def node_of(client: Client, pod: str, space: str = "default") -> str:
    async def look() -> str:
        return str((await client.get(PODS, pod, space)).spec.node_name)

    found: str = await until(look)
    return found


Scheduling = tuple[Client, SchedulingController]


@pytest.mark.parametrize("pods_first", [False, True])
async def test_a_job_runs_where_the_pods_are_that_it_seeks(scheduling: Scheduling, pods_first: bool) -> None:
    client, _ = scheduling
    await submit(client, job("alone", pod_affinity=beside("server")), pods_first=pods_first)
    waits = await workload_with(client, "alone", lambda w: w.status.reasons)
    assert waits.status.reasons[0].code == "NoMatchingNeighbour"
    await submit(client, job("server", pod_labels={"app": "server"}, node_selector={HOST: "sim-1"}))
    assert await node_of(client, "server-0") == "sim-1"
    assert await node_of(client, "alone-0") == "sim-1"


async def test_pods_that_shun_each_other_are_on_different_nodes_whoever_came_first(scheduling: Scheduling) -> None:
    client, _ = scheduling
    await submit(client, job("first", pod_labels={"app": "loud"}))
    there = await node_of(client, "first-0")
    await submit(client, job("second", pod_anti_affinity=beside("loud"), pod_labels={"app": "quiet"}))
    assert await node_of(client, "second-0") != there
    await submit(client, job("third", pod_labels={"app": "loud"}, nodes=9))
    await workload_with(client, "third", lambda w: [r.code for r in w.status.reasons][:1] == ["KeptAway"])
    own = beside("self")
    await submit(client, job("apart", nodes=3, pod_labels={"app": "self"}, pod_anti_affinity=own))
    await workload_with(client, "apart", lambda w: [r.code for r in w.status.reasons][:1] == ["AntiAffinity"])


async def test_pods_of_another_namespace_count_where_its_labels_are_asked_for(scheduling: Scheduling) -> None:
    client, _ = scheduling
    await client.create(NAMESPACES, Namespace(metadata=ObjectMeta(name="served")))
    spaces = Selector(match_labels={"tier": "serving"})
    await submit(client, job("client", pod_affinity=beside("server", namespace_selector=spaces)))
    await workload_with(client, "client", lambda w: w.status.reasons)
    await submit(client, job("server", "served", pod_labels={"app": "server"}))
    there = await node_of(client, "server-0", "served")
    await workload_with(client, "client", lambda w: w.status.reasons[0].code == "NoMatchingNeighbour")
    await client.patch(NAMESPACES, "served", {"metadata": {"labels": {"tier": "serving"}}})
    assert await node_of(client, "client-0") == there


async def test_a_preview_knows_whom_a_job_would_run_beside_and_leaves_no_trace(scheduling: Scheduling) -> None:
    client, controller = scheduling
    await submit(client, job("first", pod_labels={"app": "loud"}))
    there = await node_of(client, "first-0")
    for wish, expected in (("pod_affinity", {there}), ("pod_anti_affinity", {"sim-0", "sim-1"} - {there})):
        made = job("second", **{wish: beside("loud")})
        found = await controller.inquiries.preview(build.workload(made), [build.pod(made, 0)])
        assert found.answer is not None
        assert found.answer.admitted
        assert set(found.nodes) == expected
    nobody = job("lonely", pod_affinity=beside("nobody"))
    found = await controller.inquiries.preview(build.workload(nobody), [build.pod(nobody, 0)])
    assert found.answer is not None
    assert found.answer.reasons[0].code == "NoMatchingNeighbour"
    await submit(client, job("shy", pod_anti_affinity=beside("late")))
    shy = await node_of(client, "shy-0")
    bold = job("shy")  # a preview under the name of a job that there is
    await controller.inquiries.preview(build.workload(bold), [build.pod(bold, 0)])
    await submit(client, job("late", pod_labels={"app": "late"}))
    assert await node_of(client, "late-0") != shy
