"""Jobs of several roles: who starts when, what each is told, and what ends them; the test stands for scheduler and
nodes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from heddle.api.admission import admit
from heddle.api.meta import ObjectMeta
from heddle.api.pod import EnvVar, Pod, run_id
from heddle.api.registry import CONFIGMAPS, EVENTS, PODS, TRAININGJOBS, WORKLOADS
from heddle.api.trainingjob import Role, SuccessPolicy, TrainingJob, TrainingJobSpec, TrainingJobStatus
from heddle.api.workload import POD_SET_LABEL, RESTART_ANNOTATION
from heddle.control.training import pods as build
from heddle.control.training import roles
from heddle.control.training.controller import TrainingController
from heddle.store.client import Client
from heddle.store.informer import Informers
from heddle.store.sqlite import SQLiteStore

GPU = "nvidia.com/gpu"
SERVER = Role(name="server", command=["serve"])
WORKER = Role(name="worker", nodes=2, command=["work"], after=["server"], resources_per_node={GPU: 1})


async def _running(store: SQLiteStore, controller: TrainingController, informers: Informers) -> AsyncIterator[Client]:
    tasks = asyncio.gather(informers.run(), controller.run())
    yield Client(store)
    tasks.cancel()
    await asyncio.gather(tasks, return_exceptions=True)
    await store.close()


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A store with a training controller whose nodes restart processes in place."""
    store = SQLiteStore.open(tmp_path / "heddle.db", admit)
    informers, ports = Informers(store), iter(range(29500, 29600))
    controller = TrainingController(informers, lambda _job, _first: ("127.0.0.1", next(ports)))
    async for one in _running(store, controller, informers):
        yield one


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """The same where nodes are kubelets."""
    store = SQLiteStore.open(tmp_path / "heddle.db", admit)
    informers = Informers(store)
    controller = TrainingController(informers, lambda _, pod: (pod.status.pod_ip, 29400), restarts_in_place=False)

    async def served(job: TrainingJob) -> bool:
        return True

    monkeypatch.setattr(controller, "_serve", served)
    async for one in _running(store, controller, informers):
        yield one


def job(*given: Role, name: str = "job", **spec: Any) -> TrainingJob:
    meta = ObjectMeta(name=name, namespace="default", uid="u")
    return TrainingJob(metadata=meta, spec=TrainingJobSpec(roles=[*given], **spec))


async def pods(client: Client, count: int) -> dict[str, Pod]:
    async def look() -> dict[str, Pod] | None:
        found = {pod.metadata.name: pod for pod in await client.list(PODS, "default")}
        return found if len(found) == count else None

    found: dict[str, Pod] = await until(look)
    return found


async def bind(client: Client, *names: str, bound: int) -> None:
    for at, name in enumerate(names):
        await client.bind(PODS, name, "default", "node")
        await client.patch_status(PODS, name, {"podIP": f"10.0.{bound}.{at}"}, "default")
    await client.patch_status(WORKLOADS, "job", {"bound": bound}, "default")


async def serve(client: Client, *names: str, generation: str | None = "") -> None:
    """The programs of these pods run, those of a generation where nodes say it (None: they do not)."""
    number = "containerd://1" if generation is None else run_id(generation, 0)
    ready = [{"type": "Ready", "status": "True"}]
    state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    containers = [{"name": "main", "ready": True, "state": state, "containerID": number}]
    for name in names:
        status = {"phase": "Running", "conditions": ready, "containerStatuses": containers}
        await client.patch_status(PODS, name, status, "default")


async def end(client: Client, *names: str) -> None:
    for name in names:
        await client.patch_status(PODS, name, {"phase": "Succeeded"}, "default")


async def world(client: Client, generation: int, *, of: int) -> dict[str, str]:
    """The world of a generation, once so many pods are in it."""

    async def look() -> dict[str, str] | None:
        found = [c for c in await client.list(CONFIGMAPS, "default") if c.metadata.name == "job-rendezvous"]
        data = found[0].data if found else {}
        there = len([one for one in data.get("members", "").split(",") if one])
        return data if (data.get("generation"), there) == (str(generation), of) else None

    found: dict[str, str] = await until(look)
    return found


async def phase(client: Client, wanted: str) -> TrainingJob:
    async def look() -> TrainingJob | None:
        found: TrainingJob = await client.get(TRAININGJOBS, "job", "default")
        return found if found.status.phase == wanted else None

    found: TrainingJob = await until(look)
    return found


async def unchanged(client: Client, data: dict[str, str]) -> None:
    """The world stays as it is, whatever the controller was told."""
    await asyncio.sleep(0.2)
    found = await client.get(CONFIGMAPS, "job-rendezvous", "default")
    assert found.data == data


def test_all_roles_are_one_gang_each_a_pod_set_of_its_own() -> None:
    made = build.workload(job(SERVER, WORKER))
    assert [(s.name, s.count, s.after, s.resources) for s in made.spec.pod_sets] == [
        ("server", 1, [], {}),
        ("worker", 2, ["server"], {GPU: 1}),
    ]


def test_a_role_says_itself_what_the_job_says_of_all() -> None:
    plain = Role(name="plain", command=["a"], nodes=2)
    env = [EnvVar(name="A", value="of the role")]
    own = Role(name="own", command=["b"], image="mine", working_dir="/b", env=env, node_selector={"disk": "ssd"})
    shared = [EnvVar(name="A", value="of all"), EnvVar(name="B", value="of all")]
    made = [build.pod(job(plain, own, image="all", working_dir="/a", env=shared), index) for index in range(3)]
    assert [pod.metadata.name for pod in made] == ["job-plain-0", "job-plain-1", "job-own-0"]
    assert [pod.metadata.labels[POD_SET_LABEL] for pod in made] == ["plain", "plain", "own"]
    first, _, second = (pod.spec.containers[0] for pod in made)
    assert (first.image, first.working_dir, first.command) == ("all", "/a", ["a"])
    assert (second.image, second.working_dir, second.command) == ("mine", "/b", ["b"])
    for container, value in ((first, "of all"), (second, "of the role")):
        said = {one.name: one.value for one in container.env if one.value}
        assert (said["A"], said["B"]) == (value, "of all")
    assert [pod.spec.node_selector for pod in made] == [{}, {}, {"disk": "ssd"}]


def test_a_role_is_told_of_those_that_start_with_it_or_before() -> None:
    spec = job(SERVER, WORKER, Role(name="data-loader", command=["load"]))
    told = [{one.name for one in build.pod(spec, at).spec.containers[0].env} for at in (0, 1)]
    assert {"HEDDLE_HOSTS_SERVER", "HEDDLE_HOSTS_DATA_LOADER"} <= told[0]
    assert "HEDDLE_HOSTS_WORKER" not in told[0], "its places may not be known yet"
    assert {"HEDDLE_ADDRESS_SERVER", "HEDDLE_ADDRESS_DATA_LOADER", "HEDDLE_HOSTS_WORKER"} <= told[1]


def test_gpus_are_counted_by_role() -> None:
    running = job(SERVER, WORKER)
    running.status = TrainingJobStatus(active_nodes=2, active_by_role={"server": 1, "worker": 1})
    assert roles.gpus_held(running) == 1


async def test_a_role_joins_the_world_once_those_before_it_run_and_nobody_restarts(client: Client) -> None:
    await client.create(TRAININGJOBS, job(SERVER, WORKER))
    await pods(client, 3)
    await bind(client, "job-server-0", bound=1)
    first = await world(client, 1, of=1)
    assert (first["nodes.server"], first["rank.job-server-0"]) == ("1", "0")
    assert "nodes.worker" not in first
    await serve(client, "job-server-0")
    await bind(client, "job-worker-0", bound=2)
    await unchanged(client, first)
    await bind(client, "job-worker-1", bound=3)
    whole = await world(client, 1, of=3)
    assert (whole["nodes.worker"], whole["processes.worker"], whole["rank.job-worker-1"]) == ("2", "2", "1")
    assert whole["coordinator.server"] == first["coordinator.server"], "it listens there by now"
    assert whole["coordinator.worker"] != whole["coordinator.server"]
    assert whole["restart"] == ""
    assert RESTART_ANNOTATION not in (await pods(client, 3))["job-server-0"].metadata.annotations
    await serve(client, "job-worker-0", "job-worker-1")
    running = await phase(client, "Running")
    assert running.status.message == "server 1 of 1, worker 2 of 2"
    assert running.status.active_by_role == {"server": 1, "worker": 2}
    assert (running.status.active_nodes, running.status.nodes) == (3, 3)


async def test_a_role_that_has_its_places_waits_until_those_before_it_run(client: Client) -> None:
    await client.create(TRAININGJOBS, job(SERVER, WORKER))
    await pods(client, 3)
    await bind(client, "job-server-0", "job-worker-0", "job-worker-1", bound=3)
    first = await world(client, 1, of=1)
    await unchanged(client, first)
    await serve(client, "job-server-0")
    await world(client, 1, of=3)


async def test_a_restart_keeps_the_order_and_waits_for_the_new_run_of_who_goes_first(client: Client) -> None:
    await whole_job(client)
    ended = {"exitCode": 3, "reason": "Error", "containerID": run_id("", 0)}
    status = {"phase": "Running", "containerStatuses": [{"name": "main", "state": {"terminated": ended}}]}
    await client.patch_status(PODS, "job-worker-1", status, "default")
    second = await world(client, 2, of=1)
    assert second["restart"] == "job-server-0,job-worker-0,job-worker-1"
    assert "rank.job-worker-0" not in second
    await serve(client, "job-server-0")  # still the run of the first world
    await unchanged(client, second)
    await serve(client, "job-server-0", generation="2")
    waiting = await phase(client, "Restarting")
    assert waiting.status.restarts == 1
    await world(client, 2, of=3)
    await serve(client, "job-worker-0", "job-worker-1", generation="2")
    await phase(client, "Running")


async def test_a_member_lost_makes_all_start_anew_in_order(client: Client) -> None:
    await whole_job(client)
    await client.delete(PODS, "job-worker-1", "default", grace_period=0)
    await client.patch_status(WORKLOADS, "job", {"bound": 2}, "default")
    await world(client, 2, of=1)

    async def told() -> bool:
        found = await client.list(EVENTS, "default")
        return any(one.message.startswith("all roles start anew, in order: ") for one in found)

    await until(told)
    assert (await client.get(TRAININGJOBS, "job", "default")).status.restarts == 0


async def whole_job(client: Client, **spec: Any) -> None:
    await client.create(TRAININGJOBS, job(SERVER, WORKER, **spec))
    await pods(client, 3)
    await bind(client, "job-server-0", bound=1)
    await world(client, 1, of=1)
    await serve(client, "job-server-0")
    await bind(client, "job-worker-0", "job-worker-1", bound=3)
    await world(client, 1, of=3)
    await serve(client, "job-worker-0", "job-worker-1")
    await phase(client, "Running")


async def test_the_roles_of_the_success_policy_end_the_job_and_the_others_are_stopped(client: Client) -> None:
    await whole_job(client, success_policy=SuccessPolicy(roles=["worker"]))
    await end(client, "job-worker-0")
    await asyncio.sleep(0.1)
    assert (await client.get(TRAININGJOBS, "job", "default")).status.phase == "Running"
    await end(client, "job-worker-1")
    ended = await phase(client, "Succeeded")
    assert (ended.status.exit_code, ended.status.message) == (0, "worker succeeded")

    async def stopped() -> bool:
        found = await client.get(PODS, "job-server-0", "default")
        return found.spec.active_deadline_seconds == 1

    await until(stopped)


async def test_without_a_policy_all_roles_must_succeed_those_that_start_later_too(client: Client) -> None:
    await client.create(TRAININGJOBS, job(SERVER, WORKER))
    await pods(client, 3)
    await bind(client, "job-server-0", bound=1)
    await world(client, 1, of=1)
    await end(client, "job-server-0")  # as one that only prepares something
    await bind(client, "job-worker-0", "job-worker-1", bound=3)
    await world(client, 1, of=3)
    assert (await client.get(TRAININGJOBS, "job", "default")).status.phase != "Succeeded"
    await end(client, "job-worker-0", "job-worker-1")
    await phase(client, "Succeeded")


async def test_an_elastic_role_runs_with_fewer(client: Client) -> None:
    elastic = Role(name="worker", nodes=3, min_nodes=1, command=["work"])
    await client.create(TRAININGJOBS, job(SERVER, elastic))
    await pods(client, 4)
    await bind(client, "job-server-0", "job-worker-0", bound=2)
    assert (await world(client, 1, of=2))["nodes.worker"] == "1"
    await bind(client, "job-worker-2", bound=3)
    grown = await world(client, 2, of=3)
    assert (grown["nodes.worker"], grown["rank.job-worker-2"], grown["nodes.server"]) == ("2", "1", "1")


async def test_a_pod_of_the_name_that_is_somebody_elses_is_told(client: Client) -> None:
    other = TrainingJob(
        metadata=ObjectMeta(name="job-server", namespace="default"), spec=TrainingJobSpec(command=["true"])
    )
    await client.create(TRAININGJOBS, other)
    await pods(client, 1)
    await client.create(TRAININGJOBS, job(SERVER))

    async def told() -> bool:
        found = await client.get(TRAININGJOBS, "job", "default")
        return found.status.message == (
            "there is a pod job-server-0 already that is not its own: delete it, or name the job otherwise"
        )

    await until(told)


async def test_on_a_cluster_roles_find_each_other_by_address_and_are_made_anew_in_order(cluster: Client) -> None:
    await cluster.create(TRAININGJOBS, job(SERVER, WORKER, image="trainer"))
    first = await pods(cluster, 3)
    await bind(cluster, "job-server-0", bound=1)
    await world(cluster, 1, of=1)
    await serve(cluster, "job-server-0", generation=None)
    await bind(cluster, "job-worker-0", "job-worker-1", bound=3)
    whole = await world(cluster, 1, of=3)
    assert (whole["hosts.server"], whole["coordinator.server"]) == ("10.0.1.0", "10.0.1.0:29400")
    assert whole["hosts.worker"] == "10.0.3.0,10.0.3.1"
    ended = {"exitCode": 3, "reason": "Error", "containerID": "containerd://1"}
    status = {"phase": "Failed", "containerStatuses": [{"name": "main", "state": {"terminated": ended}}]}
    await cluster.patch_status(PODS, "job-worker-0", status, "default")
    over = await world(cluster, 2, of=0)
    assert len(over["restart"].split(",")) == 3
    for name, pod in first.items():

        async def leaving(name: str = name, uid: str = pod.metadata.uid) -> bool:
            found = {p.metadata.name: p for p in await cluster.list(PODS, "default")}
            return name not in found or found[name].metadata.uid != uid or bool(found[name].metadata.deletion_timestamp)

        await until(leaving)
        found = {p.metadata.name: p for p in await cluster.list(PODS, "default")}
        if name in found and found[name].metadata.uid == pod.metadata.uid:
            await cluster.delete(PODS, name, "default", grace_period=0)
    await cluster.patch_status(WORKLOADS, "job", {"bound": 0}, "default")

    async def anew() -> bool:
        found = {p.metadata.uid for p in await cluster.list(PODS, "default")}
        return len(found) == 3 and not found & {p.metadata.uid for p in first.values()}

    await until(anew)
    await bind(cluster, "job-server-0", bound=1)
    await world(cluster, 3, of=1)
    await serve(cluster, "job-server-0", generation=None)
    await bind(cluster, "job-worker-0", "job-worker-1", bound=3)
    await world(cluster, 3, of=3)
