"""The scheduling controller over a store of its own: gangs, reasons, access."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from machine import machine
from waiting import until, workload_with

from heddle.api.clock import to_text
from heddle.api.errors import Conflict
from heddle.api.license import License, LicenseSpec
from heddle.api.meta import ObjectMeta, find_condition
from heddle.api.pod import Container, Pod, PodSpec
from heddle.api.queue import Queue, QueueAccess, QueueSpec, Subject
from heddle.api.registry import LICENSES, NODES, PODS, QUEUES, WORKLOADS, Resource
from heddle.api.workload import (
    DEVICES_ANNOTATION,
    POD_GROUP_LABEL,
    POD_SET_LABEL,
    USER_ANNOTATION,
    PodSet,
    Workload,
    WorkloadSpec,
)
from heddle.control.scheduling import adapter
from heddle.control.scheduling.mirror import Mirror
from heddle.embedded.machine import simulated_nodes
from heddle.engine import Bind, PastUsage, schedule
from heddle.node.simulated import parse
from heddle.store.client import Client


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A store with two nodes of eight GPUs and a running scheduler."""
    async with machine(tmp_path, "2x8xH100") as (client, _):
        yield client


async def submit(
    client: Client,
    name: str,
    *,
    pods: int,
    gpus: int,
    queue: str = "team",
    user: str = "",
    selector: dict[str, str] | None = None,
    more: dict[str, int] | None = None,
    priority: int = 0,
    least: int | None = None,
    speeds: dict[str, int | str] | None = None,
) -> None:
    annotations = {USER_ANNOTATION: user} if user else {}
    pod_set = PodSet(
        name="nodes", count=pods, resources={"nvidia.com/gpu": gpus, **(more or {})}, node_selector=selector or {}
    )
    pod_set.min_count, pod_set.resizable, pod_set.gpu_speeds = least, least is None, speeds or {}
    workload = Workload(
        metadata=ObjectMeta(name=name, namespace="default", annotations=annotations),
        spec=WorkloadSpec(queue=queue, pod_sets=[pod_set], priority=priority, walltime_seconds=100 if speeds else None),
    )
    await client.create(WORKLOADS, workload)
    for index in range(pods):
        labels = {POD_GROUP_LABEL: name, POD_SET_LABEL: "nodes"}
        spec = PodSpec(containers=[Container(name="main", command=["true"])], scheduler_name="heddle")
        meta = ObjectMeta(name=f"{name}-{index}", namespace="default", labels=labels)
        await client.create(PODS, Pod(metadata=meta, spec=spec))


async def nodes_of(client: Client, name: str) -> list[str]:
    pods = await client.list(PODS, "default", label_selector=f"{POD_GROUP_LABEL}={name}")
    return [p.spec.node_name for p in pods]


async def test_a_gang_that_fits_is_bound_whole(client: Client) -> None:
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team")))
    await submit(client, "fits", pods=4, gpus=4)
    await workload_with(client, "fits", lambda w: w.status.phase == "Running" and w.status.bound == 4)
    assert sorted(await nodes_of(client, "fits")) == ["sim-0", "sim-0", "sim-1", "sim-1"]


async def test_a_gang_that_does_not_fit_gets_no_node_and_a_reason(client: Client) -> None:
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team")))
    await submit(client, "large", pods=3, gpus=8)
    waiting = await workload_with(client, "large", lambda w: w.status.reasons)
    assert waiting.status.phase == "Pending"
    assert waiting.status.reasons[0].message
    admitted = find_condition(waiting.status.conditions, "Admitted")
    assert admitted is not None
    assert (admitted.status, admitted.reason) == ("False", waiting.status.reasons[0].code)
    assert not any(await nodes_of(client, "large"))


async def test_who_a_queue_does_not_name_is_refused(client: Client) -> None:
    access = QueueAccess(submitters=[Subject(kind="User", name="ann")])
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team"), spec=QueueSpec(access=access)))
    await submit(client, "bobs", pods=1, gpus=1, user="bob")
    await submit(client, "anns", pods=1, gpus=1, user="ann")
    refused = await workload_with(client, "bobs", lambda w: w.status.reasons)
    assert refused.status.reasons[0].code == "NotPermitted"
    admitted = find_condition(refused.status.conditions, "Admitted")
    assert admitted is not None
    assert admitted.reason == "NotPermitted"
    assert "bob may not submit to queue team" in admitted.message
    await workload_with(client, "anns", lambda w: w.status.phase == "Running")
    assert not any(await nodes_of(client, "bobs"))


async def test_a_pod_made_anew_under_its_name_gives_up_its_predecessors_place(tmp_path: Path) -> None:
    def pod(uid: str, **spec: Any) -> Pod:
        meta = ObjectMeta(name="w-0", namespace="default", uid=uid, labels={POD_SET_LABEL: "nodes"})
        return Pod(metadata=meta, spec=PodSpec(**spec))

    mirror = Mirror()
    for node in simulated_nodes([parse("1x8xH100")]):
        mirror.node(node.metadata.name, node)
    pod_set = PodSet(name="nodes", count=1, resources={"nvidia.com/gpu": 8})
    workload = Workload(
        metadata=ObjectMeta(name="w", namespace="default"), spec=WorkloadSpec(queue="q", pod_sets=[pod_set])
    )
    mirror.queue("q", Queue(metadata=ObjectMeta(name="q")))
    bound = pod("first", node_name="sim-0")
    devices = ",".join(f"{d.id}" for d in adapter.node_spec(simulated_nodes([parse("1x8xH100")])[0]).devices)
    bound.metadata.annotations = {DEVICES_ANNOTATION: devices}
    mirror.workload("default/w", workload, [bound])
    assert mirror.bound("default/w") == 1
    leaving = pod("first", node_name="sim-0")
    leaving.metadata.annotations = bound.metadata.annotations
    leaving.metadata.deletion_timestamp = "2026-01-01T00:00:00Z"
    mirror.workload("default/w", workload, [leaving])
    mirror.workload("default/w", workload, [pod("second")])
    assert mirror.uid("default/w", "w-0") == "second"
    assert mirror.bound("default/w") == 0
    plan = schedule(mirror.state, 0.0)
    assert [type(action) for action in plan.actions] == [Bind]


async def test_a_bind_means_the_pod_that_was_planned_and_no_other_of_its_name(client: Client) -> None:
    await submit(client, "gone", pods=1, gpus=8, queue="absent")
    with pytest.raises(Conflict, match="UID"):
        await client.bind(PODS, "gone-0", "default", "sim-0", uid="another")
    assert (await client.get(PODS, "gone-0", "default")).spec.node_name == ""


async def one_queue_holds_what_two_are_owed(client: Client) -> None:
    for name in ("a", "b"):
        spec = QueueSpec(quota={"nvidia.com/gpu": 8})
        await client.create(QUEUES, Queue(metadata=ObjectMeta(name=name), spec=spec))
    await submit(client, "holder", pods=2, gpus=8, queue="a")
    await workload_with(client, "holder", lambda w: w.status.phase == "Running")


async def test_a_promise_is_written_before_anyone_is_evicted_for_it(client: Client) -> None:
    await one_queue_holds_what_two_are_owed(client)
    before = (await client.store.list(PODS)).resource_version
    await submit(client, "owed", pods=1, gpus=8, queue="b")

    async def first(resource: Resource, holds: Callable[[Any], Any]) -> int:
        """The version in which an object of this resource first did so."""
        async for event in client.watch(resource, "default", resource_version=before, timeout=20):
            if event.object is not None and holds(event.object):
                return int(event.resource_version)
        raise AssertionError("never")

    promised = await first(WORKLOADS, lambda w: w.metadata.name == "owed" and w.status.reservation)
    evicted = await first(PODS, lambda p: p.metadata.deletion_timestamp)
    assert promised < evicted
    pod = await client.get(PODS, "holder-0", "default")
    target = find_condition(pod.status.conditions, "DisruptionTarget")
    assert target is not None
    assert "default/owed" in target.message


async def test_what_runs_counts_whoever_may_submit_now(client: Client) -> None:
    spec = QueueSpec(quota={"nvidia.com/gpu": 16})
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team"), spec=spec))
    await submit(client, "first", pods=2, gpus=8, user="ann")
    await workload_with(client, "first", lambda w: w.status.phase == "Running")
    access = {"submitters": [{"kind": "User", "name": "bob"}]}
    await client.patch(QUEUES, "team", {"spec": {"access": access}})
    await client.patch_status(WORKLOADS, "first", {"phase": "Finished"}, "default")  # as if its owner had said so
    await submit(client, "second", pods=1, gpus=8, user="bob")
    waiting = await workload_with(client, "second", lambda w: w.status.reasons)
    assert waiting.status.bound == 0
    assert await nodes_of(client, "second") == [""]
    await client.delete(WORKLOADS, "first", "default", propagation="Orphan")
    await submit(client, "third", pods=1, gpus=8, user="bob")
    await workload_with(client, "third", lambda w: w.status.reasons)
    assert await nodes_of(client, "third") == [""]
    for index in range(2):  # its pods end: now there is room
        await client.patch_status(PODS, f"first-{index}", {"phase": "Succeeded"}, "default")
    await workload_with(client, "second", lambda w: w.status.phase == "Running")


async def test_an_ending_workload_grows_no_more(client: Client) -> None:
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team")))
    pod_set = PodSet(name="nodes", count=3, min_count=1, resources={"nvidia.com/gpu": 8})
    workload = Workload(
        metadata=ObjectMeta(name="w", namespace="default"), spec=WorkloadSpec(queue="team", pod_sets=[pod_set])
    )
    await client.create(WORKLOADS, workload)
    for index in range(3):
        meta = ObjectMeta(name=f"w-{index}", namespace="default", labels={POD_GROUP_LABEL: "w", POD_SET_LABEL: "nodes"})
        await client.create(PODS, Pod(metadata=meta, spec=PodSpec(containers=[Container(name="main")])))
    await workload_with(client, "w", lambda w: w.status.bound == 2)
    await client.patch_status(PODS, "w-0", {"phase": "Succeeded"}, "default")
    await submit(client, "next", pods=1, gpus=8)
    await workload_with(client, "next", lambda w: w.status.phase == "Running")
    assert (await client.get(PODS, "w-2", "default")).spec.node_name == ""


async def test_a_drained_queue_says_so_and_its_pods_leave_with_the_reason(client: Client) -> None:
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team")))
    await submit(client, "soft", pods=1, gpus=1)
    await workload_with(client, "soft", lambda w: w.status.phase == "Running")
    await client.patch(QUEUES, "team", {"spec": {"stopPolicy": "HoldAndDrain"}})

    async def stopped() -> str:
        queue: Queue = await client.get(QUEUES, "team")
        found = find_condition(queue.status.conditions, "Ready")
        return found.message if found and found.reason == "Stopped" else ""

    assert await until(stopped) == "spec.stopPolicy of queue team is HoldAndDrain"

    async def evicted() -> bool:
        pods = await client.list(PODS, "default")
        found = [c for p in pods for c in p.status.conditions if c.type == "DisruptionTarget"]
        return bool(found) and found[0].reason == "QueueDrained"

    await until(evicted)


async def test_a_user_limit_counts_by_who_submitted(client: Client) -> None:
    spec = QueueSpec(user_limit={"nvidia.com/gpu": 2})
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team"), spec=spec))
    await submit(client, "anns", pods=1, gpus=2, user="ann")
    await submit(client, "anns-second", pods=1, gpus=1, user="ann")
    await submit(client, "bobs", pods=1, gpus=2, user="bob")
    await workload_with(client, "bobs", lambda w: w.status.phase == "Running")
    waiting = await workload_with(client, "anns-second", lambda w: w.status.reasons)
    assert waiting.status.reasons[0].code == "OverUserLimit"
    assert "user ann has 2 GPUs in use" in waiting.status.reasons[0].message


async def test_gpus_of_one_model_are_counted_for_pods_pinned_to_it(client: Client) -> None:
    model = "nvidia.com/gpu.product"
    (node, *_rest) = await client.list(NODES)
    label = node.metadata.labels[model]
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team")))
    await submit(client, "pinned", pods=1, gpus=2, selector={model: label})
    await submit(client, "free", pods=1, gpus=2)
    await workload_with(client, "free", lambda w: w.status.phase == "Running")
    await workload_with(client, "pinned", lambda w: w.status.phase == "Running")
    await client.patch(QUEUES, "team", {"spec": {"limit": {f"{model}={label}": 3}}})

    async def counted() -> bool:
        queue: Queue = await client.get(QUEUES, "team")
        return queue.status.usage.get(f"{model}={label}") == "2"

    await until(counted)
    await submit(client, "more", pods=1, gpus=2, selector={model: label})
    waiting = await workload_with(client, "more", lambda w: w.status.reasons)
    assert waiting.status.reasons[0].code == "OverLimit"
    assert f"limited to 3 GPUs ({label})" in waiting.status.reasons[0].message
    await client.patch(QUEUES, "team", {"spec": {"limit": None}})
    await workload_with(client, "more", lambda w: w.status.phase == "Running")


async def test_a_running_workload_says_its_walltime_on_the_gpus_that_it_got(client: Client) -> None:
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team"), spec=QueueSpec()))
    model = (await client.get(NODES, "sim-0")).metadata.labels["nvidia.com/gpu.product"]
    speeds: dict[str, int | str] = {"NVIDIA-B200": 2, model: "0.25"}
    await submit(client, "paced", pods=1, gpus=1, speeds=speeds)
    runs = await workload_with(client, "paced", lambda w: w.status.phase == "Running")
    assert (runs.spec.walltime_seconds, runs.status.walltime_seconds) == (100, 400)


async def test_past_use_is_kept_in_the_status_and_given_back_to_the_next_scheduler(client: Client) -> None:
    spec = QueueSpec(usage_half_life_seconds=1)
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team"), spec=spec))
    await submit(client, "first", pods=1, gpus=2)
    await workload_with(client, "first", lambda w: w.status.phase == "Running")
    await asyncio.sleep(0.3)
    await submit(client, "second", pods=1, gpus=1)

    async def noted() -> Queue | None:
        queue: Queue = await client.get(QUEUES, "team")
        return queue if queue.status.past_usage.get("nvidia.com/gpu") else None

    queue = await until(noted)
    assert 0 < float(queue.status.past_usage["nvidia.com/gpu"]) < 3
    mirror = Mirror()
    mirror.queue("team", queue)
    (past,) = mirror.state.past_usage().values()
    assert adapter.past_resources(past) == queue.status.past_usage
    assert to_text(past.at, micro=True) == queue.status.past_usage_time
    later = PastUsage(past.at + 1, {})
    mirror.state.set_past_usage("team", later)
    mirror.queue("team", queue)
    assert mirror.state.past_usage() == {"team": later}, "what the scheduler noted since is not lost"


async def test_licences_are_counted_in_the_whole_cluster_and_shown_in_the_queue(client: Client) -> None:
    seat = "licenses.heddle.dev/seat"
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team"), spec=QueueSpec(quota={"nvidia.com/gpu": 16})))
    await client.create(LICENSES, License(metadata=ObjectMeta(name="seat"), spec=LicenseSpec(count=1)))
    await submit(client, "first", pods=1, gpus=1, more={seat: 1})
    await workload_with(client, "first", lambda w: w.status.phase == "Running")
    await submit(client, "second", pods=1, gpus=1, more={seat: 1})
    waits = await workload_with(client, "second", lambda w: w.status.reasons)
    assert waits.status.reasons[0].code == "OverCounter"
    assert "held by default/first (1 seat)" in waits.status.reasons[0].message

    async def shown() -> bool:
        found: Queue = await client.get(QUEUES, "team")
        return found.status.usage.get(seat) == "1"

    await until(shown)
    await client.patch(LICENSES, "seat", {"spec": {"count": 2}})
    await workload_with(client, "second", lambda w: w.status.phase == "Running")


async def test_enough_groups_make_a_workload_run_and_a_torn_one_is_told_from_the_grace(client: Client) -> None:
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team"), spec=QueueSpec(quota={"nvidia.com/gpu": 16})))
    sets = [PodSet(name=f"r{at}", group=f"r{at}", count=2, resources={"nvidia.com/gpu": 4}) for at in range(2)]
    spec = WorkloadSpec(queue="team", pod_sets=sets, min_groups=1)
    await client.create(WORKLOADS, Workload(metadata=ObjectMeta(name="serve", namespace="default"), spec=spec))

    async def pod(group: int, index: int) -> None:
        labels = {POD_GROUP_LABEL: "serve", POD_SET_LABEL: f"r{group}"}
        container = PodSpec(containers=[Container(name="main", command=["true"])], scheduler_name="heddle")
        meta = ObjectMeta(name=f"r{group}-{index}", namespace="default", labels=labels)
        await client.create(PODS, Pod(metadata=meta, spec=container))

    for index in range(2):
        await pod(0, index)
    one = await workload_with(client, "serve", lambda w: w.status.phase == "Running")
    assert one.status.bound == 2
    for index in range(2):
        await pod(1, index)
    await workload_with(client, "serve", lambda w: w.status.bound == 4)
    await client.delete(PODS, "r1-1", "default", grace_period=0)
    torn = await workload_with(client, "serve", lambda w: w.status.broken_since)
    assert torn.status.phase == "Running"
    await pod(1, 1)
    await workload_with(client, "serve", lambda w: w.status.bound == 4 and not w.status.broken_since)


async def test_workers_get_their_reserved_nodes_once_the_leader_is_ready(client: Client) -> None:
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team"), spec=QueueSpec(quota={"nvidia.com/gpu": 16})))
    gpus = {"nvidia.com/gpu": 4}
    sets = [
        PodSet(name="leader", count=1, resources=gpus),
        PodSet(name="workers", count=2, resources=gpus, after=["leader"]),
    ]
    workload = Workload(
        metadata=ObjectMeta(name="led", namespace="default"), spec=WorkloadSpec(queue="team", pod_sets=sets)
    )
    await client.create(WORKLOADS, workload)
    for name, pod_set in (("l", "leader"), ("w-0", "workers"), ("w-1", "workers")):
        labels = {POD_GROUP_LABEL: "led", POD_SET_LABEL: pod_set}
        container = PodSpec(containers=[Container(name="main", command=["true"])], scheduler_name="heddle")
        await client.create(
            PODS, Pod(metadata=ObjectMeta(name=name, namespace="default", labels=labels), spec=container)
        )
    waits = await workload_with(
        client, "led", lambda w: w.status.reservation and [r.code for r in w.status.reasons] == ["WaitingForReady"]
    )
    assert {place.pod for place in waits.status.reservation} == {"w-0", "w-1"}
    assert (await client.get(PODS, "l", "default")).spec.node_name
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    await client.patch(PODS, "l", {"status": ready}, namespace="default", subresource="status")
    runs = await workload_with(client, "led", lambda w: w.status.phase == "Running")
    assert runs.status.bound == 3
    places = {place.pod: place.node for place in waits.status.reservation}
    for name, node in places.items():
        assert (await client.get(PODS, name, "default")).spec.node_name == node
    await workload_with(client, "led", lambda w: not w.status.reservation)  # what was promised is used up


async def test_the_rest_of_a_gang_is_evicted_after_the_grace_that_it_names(client: Client) -> None:
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team"), spec=QueueSpec(quota={"nvidia.com/gpu": 16})))
    await submit(client, "gang", pods=2, gpus=8)
    await client.patch(WORKLOADS, "gang", {"spec": {"gangGraceSeconds": 0}}, namespace="default")
    await workload_with(client, "gang", lambda w: w.status.phase == "Running")
    await client.delete(PODS, "gang-1", "default", grace_period=0)

    async def told_to_leave() -> bool:
        pod: Pod = await client.get(PODS, "gang-0", "default")
        target = find_condition(pod.status.conditions, "DisruptionTarget")
        return target is not None and target.reason == "GangBroken"

    await until(told_to_leave)


async def test_the_scheduler_wakes_when_a_minimum_runtime_ends(client: Client) -> None:
    spec = QueueSpec(quota={"nvidia.com/gpu": 16}, preempt_min_runtime_seconds=3)
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team"), spec=spec))
    await submit(client, "low", pods=2, gpus=8)
    await workload_with(client, "low", lambda w: w.status.phase == "Running")
    await submit(client, "high", pods=1, gpus=8, priority=1)
    told = await workload_with(client, "high", lambda w: "WithinMinRuntime" in [r.code for r in w.status.reasons])
    assert any("default/low" in reason.message for reason in told.status.reasons)

    async def told_to_leave() -> bool:
        pods = await client.list(PODS, "default")
        found = [c.reason for p in pods for c in p.status.conditions if c.type == "DisruptionTarget"]
        return found == ["Preempted", "Preempted"]

    await until(told_to_leave)


async def test_partial_admission_is_written_down_and_a_lost_pod_replaced(client: Client) -> None:
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team"), spec=QueueSpec(quota={"nvidia.com/gpu": 16})))
    await submit(client, "first", pods=1, gpus=8)
    await workload_with(client, "first", lambda w: w.status.phase == "Running")
    await submit(client, "part", pods=4, gpus=4, least=1)
    started = await workload_with(client, "part", lambda w: w.status.admitted_counts)
    assert started.status.admitted_counts == {"nodes": 2}
    await client.patch(WORKLOADS, "first", {"status": {"phase": "Finished"}}, namespace="default", subresource="status")
    await client.delete(PODS, "first-0", "default", grace_period=0)
    bound = [p for p in await client.list(PODS, "default") if p.metadata.name.startswith("part") and p.spec.node_name]
    await client.delete(PODS, bound[0].metadata.name, "default", grace_period=0)
    again = await workload_with(client, "part", lambda w: w.status.bound == 2 and w.status.phase == "Running")
    assert again.status.admitted_counts == {"nodes": 2}
    await asyncio.sleep(0.3)
    assert sum(bool(node) for node in await nodes_of(client, "part")) == 2, (
        "one of the waiting takes its place, no more"
    )


async def test_after_a_fault_the_state_is_made_anew_and_scheduling_goes_on(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise ArithmeticError("once")

    async def told() -> bool:
        return "the state is made anew" in caplog.text

    with monkeypatch.context() as fault:
        fault.setattr("heddle.control.scheduling.controller.schedule", broken)
        await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team")))
        await until(told)
    await submit(client, "late", pods=1, gpus=8)
    await workload_with(client, "late", lambda w: w.status.phase == "Running")


async def test_a_long_line_is_told_why_it_waits_a_part_at_a_time(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heddle.control.scheduling.reports._REFRESH_AT_ONCE", 2)
    monkeypatch.setattr("heddle.control.scheduling.reports._REFRESH_EVERY", 0.05)
    await client.create(QUEUES, Queue(metadata=ObjectMeta(name="team")))
    await submit(client, "runs", pods=2, gpus=8)
    await workload_with(client, "runs", lambda w: w.status.phase == "Running")
    for at in range(7):
        await submit(client, f"waits-{at}", pods=2, gpus=8)
    for at in range(7):
        await workload_with(
            client,
            f"waits-{at}",
            lambda w, at=at: w.status.position == at + 1 and w.status.reasons[0].code == "NoRoom",  # all its pods exist
        )


async def test_what_a_start_costs_others_is_put_down_to_it(client: Client) -> None:
    await one_queue_holds_what_two_are_owed(client)
    await submit(client, "owed", pods=1, gpus=8, queue="b")
    paid = await workload_with(client, "owed", lambda w: w.status.cost)
    assert [(cost.workload, cost.pods) for cost in paid.status.cost] == [("default/holder", 2)]
    assert 0 <= paid.status.cost[0].gpu_seconds < 16 * 60
    lost = await workload_with(client, "holder", lambda w: w.status.evictions)
    assert lost.status.evictions == 2
    assert not lost.status.cost
