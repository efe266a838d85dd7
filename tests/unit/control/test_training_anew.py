"""The training controller where nodes are kubelets: pods are made anew; the test stands for scheduler and kubelet."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from waiting import until

from heddle.api.admission import admit
from heddle.api.meta import LocalObjectReference, ObjectMeta
from heddle.api.pod import EnvFromSource, EnvVar, EnvVarSource, KeySelector
from heddle.api.registry import CONFIGMAPS, PODS, TRAININGJOBS, WORKLOADS
from heddle.api.security import RunAs
from heddle.api.trainingjob import Checkpoint, JobVolume, TrainingJob, TrainingJobSpec, VolumeFile
from heddle.api.workload import CHECKPOINT_ANNOTATION, RESTART_ANNOTATION, Workload
from heddle.control.training import controller as module
from heddle.control.training import pods as build
from heddle.control.training.controller import TrainingController
from heddle.store.client import Client
from heddle.store.informer import Informers
from heddle.store.sqlite import SQLiteStore


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """A store with a running training controller that makes pods anew."""
    monkeypatch.setattr(module, "_SETTLES", 2.5)  # times of creation have whole seconds
    store = SQLiteStore.open(tmp_path / "heddle.db", admit)
    informers = Informers(store)
    running = TrainingController(informers, lambda _, first: (first.status.pod_ip, 29400), restarts_in_place=False)
    monkeypatch.setattr(running, "_serve", _served)
    tasks = asyncio.gather(informers.run(), running.run())
    yield Client(store)
    tasks.cancel()
    await asyncio.gather(tasks, return_exceptions=True)
    await store.close()


async def _served(job: TrainingJob) -> bool:
    return True


def job(**spec: Any) -> TrainingJob:
    spec = {"command": ["true"], "queue": "default", "image": "trainer"} | spec
    return TrainingJob(metadata=ObjectMeta(name="job", namespace="default", uid="u"), spec=TrainingJobSpec(**spec))


async def present(client: Client, count: int, without: dict[str, str] | None = None) -> dict[str, str]:
    """UIDs of the job's pods by name, once there are so many and none of them is one of `without`."""

    async def look() -> dict[str, str] | None:
        found = {p.metadata.name: p.metadata.uid for p in await client.list(PODS, "default")}
        fresh = not set(found.values()) & set((without or {}).values())
        return found if len(found) == count and fresh else None

    found: dict[str, str] = await until(look)
    return found


async def bind(client: Client, *names: str, bound: int) -> None:
    for name in names:
        await client.bind(PODS, name, "default", "node")
        index = int(name.rpartition("-")[2])
        await client.patch_status(PODS, name, {"podIP": f"10.0.0.{index + 1}"}, "default")
    await client.patch_status(WORKLOADS, "job", {"bound": bound}, "default")


async def world(client: Client, generation: int) -> dict[str, str]:
    async def look() -> dict[str, str] | None:
        found = [c for c in await client.list(CONFIGMAPS, "default") if c.metadata.name == "job-rendezvous"]
        return found[0].data if found and found[0].data["generation"] == str(generation) else None

    found: dict[str, str] = await until(look)
    return found


async def job_with(client: Client, holds: Callable[[TrainingJob], bool]) -> TrainingJob:
    async def look() -> TrainingJob | None:
        found: TrainingJob = await client.get(TRAININGJOBS, "job", "default")
        return found if holds(found) else None

    found: TrainingJob = await until(look)
    return found


async def gone(client: Client, *names: str) -> None:
    """What a kubelet does with pods that are to go, once they are."""

    async def leaving() -> bool:
        found = {p.metadata.name: p for p in await client.list(PODS, "default")}
        return all(found[name].metadata.deletion_timestamp for name in names)

    await until(leaving)
    for name in names:
        await client.delete(PODS, name, "default", grace_period=0)


async def runs(client: Client, *names: str) -> None:
    for name in names:
        await client.patch_status(PODS, name, {"phase": "Running"}, "default")


async def fails(client: Client, name: str, code: int, message: str = "") -> None:
    state = {"terminated": {"exitCode": code, "reason": "Error", "message": message, "containerID": "containerd://1"}}
    status = {"phase": "Failed", "containerStatuses": [{"name": "main", "state": state}]}
    await client.patch_status(PODS, name, status, "default")


async def test_a_world_waits_for_the_address_of_its_first_pod_and_wakes_the_others(client: Client) -> None:
    await client.create(TRAININGJOBS, job(nodes=2))
    await present(client, 2)
    for name in ("job-0", "job-1"):
        await client.bind(PODS, name, "default", "node")
    await client.patch_status(WORKLOADS, "job", {"bound": 2}, "default")
    await asyncio.sleep(0.2)
    assert not await client.list(CONFIGMAPS, "default")
    await client.patch_status(PODS, "job-0", {"podIP": "10.0.0.1"}, "default")
    formed = await world(client, 1)
    assert (formed["coordinator"], formed["node-rank.job-1"], formed["restart"]) == ("10.0.0.1:29400", "1", "")

    async def woken() -> bool:
        found = await client.list(PODS, "default")
        return all(p.metadata.annotations.get(RESTART_ANNOTATION) == "1" for p in found)

    await until(woken)


async def test_a_failure_makes_all_pods_anew_and_they_form_the_next_world(client: Client) -> None:
    await client.create(TRAININGJOBS, job(nodes=2))
    first = await present(client, 2)
    await bind(client, *first, bound=2)
    await world(client, 1)
    await runs(client, *first)
    await fails(client, "job-1", 137, "step 7\nout of memory\n")
    over = await world(client, 2)
    assert (over.get("members", ""), over["restart"]) == ("", ",".join(f"{n}={u}" for n, u in sorted(first.items())))
    told = await job_with(client, lambda found: found.status.phase == "Restarting")
    assert told.status.message.startswith("job-1 failed with exit code 137 (Error: out of memory)")
    await gone(client, "job-0")
    second = await present(client, 2, without=first)
    await bind(client, *second, bound=2)
    formed = await world(client, 3)
    assert formed["members"] == ",".join(f"{name}={uid}" for name, uid in sorted(second.items()))
    await runs(client, *second)
    again = await job_with(client, lambda found: found.status.phase == "Running")
    assert (again.status.restarts, again.status.resizes) == (1, 0)


async def lose_the_second(client: Client) -> dict[str, str]:
    """A job of two forms a world, its second pod is deleted, and the first goes with that world; who they were."""
    first = await present(client, 2)
    await bind(client, *first, bound=2)
    await world(client, 1)
    await client.delete(PODS, "job-1", "default")
    await client.patch_status(WORKLOADS, "job", {"bound": 1}, "default")
    await world(client, 2)
    await gone(client, "job-0", "job-1")
    return first


async def test_a_member_that_is_deleted_costs_no_restart(client: Client) -> None:
    await client.create(TRAININGJOBS, job(nodes=2, max_restarts=0))
    first = await lose_the_second(client)
    second = await present(client, 2, without=first)
    await bind(client, *second, bound=2)
    await world(client, 3)
    await runs(client, *second)
    assert (await job_with(client, lambda found: found.status.phase == "Running")).status.restarts == 0


async def test_a_program_says_by_an_annotation_of_its_pod_when_it_saved(client: Client) -> None:
    await client.create(TRAININGJOBS, job(nodes=2))
    pods = await present(client, 2)
    await bind(client, *pods, bound=2)
    await world(client, 1)
    await runs(client, *pods)
    saved = {"metadata": {"annotations": {CHECKPOINT_ANNOTATION: "2026-01-31T10:00:00Z"}}}
    await client.patch(PODS, "job-1", saved, "default")
    told = await job_with(client, lambda found: found.status.checkpoint_time is not None)
    assert told.status.checkpoint_time == "2026-01-31T10:00:00Z"

    async def passed_on() -> bool:
        found: Workload = await client.get(WORKLOADS, "job", "default")
        return found.status.checkpoint_time == "2026-01-31T10:00:00Z"

    await until(passed_on)


async def test_a_job_grows_by_one_world_and_not_by_two(client: Client) -> None:
    await client.create(TRAININGJOBS, job(nodes=3, min_nodes=1, checkpoint=Checkpoint(path="/kept")))
    first = await present(client, 3)
    await bind(client, "job-0", "job-1", bound=2)
    await world(client, 1)
    await bind(client, "job-2", bound=3)
    over = await world(client, 2)
    assert over.get("members", "") == ""
    resized = await job_with(client, lambda found: found.status.resizes == 1)
    assert resized.status.message == "3 nodes instead of 2: resuming from its checkpoint"
    await client.patch_status(WORKLOADS, "job", {"bound": 1}, "default")
    await gone(client, "job-0", "job-1")

    async def remade() -> bool:
        found = {p.metadata.name: p.metadata.uid for p in await client.list(PODS, "default")}
        return len(found) == 3 and found["job-2"] == first["job-2"] and found["job-0"] != first["job-0"]

    await until(remade)  # the newcomer stays, and does not begin alone
    await bind(client, "job-0", bound=2)
    await bind(client, "job-1", bound=3)
    assert (await world(client, 3))["nodes"] == "3"


async def test_a_job_goes_on_with_fewer_once_its_lost_pod_finds_no_place(client: Client) -> None:
    await client.create(TRAININGJOBS, job(nodes=2, min_nodes=1))
    first = await lose_the_second(client)
    await present(client, 2, without=first)
    await bind(client, "job-0", bound=1)
    formed = await world(client, 3)
    assert (formed["nodes"], formed["restart"]) == ("1", "")


async def test_a_group_that_finds_too_few_places_again_is_left_out_of_the_next_world(client: Client) -> None:
    await client.create(TRAININGJOBS, job(nodes=2, groups=2, min_groups=1))
    first = await present(client, 4)
    await bind(client, *first, bound=4)
    assert (await world(client, 1))["groups"] == "2"
    await client.delete(PODS, "job-1", "default")
    await client.patch_status(WORKLOADS, "job", {"bound": 3}, "default")
    await world(client, 2)
    await gone(client, *first)
    await present(client, 4, without=first)
    await bind(client, "job-0", "job-2", "job-3", bound=3)
    formed = await world(client, 3)
    assert (formed["nodes"], formed["groups"], formed["node-rank.job-2"]) == ("2", "1", "0")
    assert "node-rank.job-0" not in formed


async def test_a_job_ends_when_all_its_pods_have_and_keeps_them_for_their_logs(client: Client) -> None:
    await client.create(TRAININGJOBS, job(nodes=2))
    first = await present(client, 2)
    await bind(client, *first, bound=2)
    await world(client, 1)
    for name in first:
        await client.patch_status(PODS, name, {"phase": "Succeeded"}, "default")
    await job_with(client, lambda found: found.status.phase == "Succeeded")
    assert await present(client, 2) == first


async def test_a_container_that_cannot_start_is_told(client: Client) -> None:
    await client.create(TRAININGJOBS, job())
    await present(client, 1)
    await bind(client, "job-0", bound=1)
    waiting = {"reason": "ImagePullBackOff", "message": "no such image: trainer"}
    status = {"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": waiting}}]}
    await client.patch_status(PODS, "job-0", status, "default")
    told = await job_with(client, lambda found: "ImagePullBackOff" in found.status.message)
    assert told.status.message == "job-0: ImagePullBackOff: no such image: trainer"


def test_a_pod_is_for_one_world_and_has_a_name_in_dns() -> None:
    made = build.pod(job(nodes=2), 1, restarts_in_place=False)
    assert (made.spec.restart_policy, made.spec.hostname, made.spec.subdomain) == ("Never", "job-1", "job")
    assert made.metadata.annotations == {}
    service = build.service(job())
    assert service is not None
    assert service["spec"]["selector"] == {build.JOB_LABEL: "job"}
    assert made.metadata.labels[build.JOB_LABEL] == "job"


def test_a_job_whose_name_is_none_in_dns_has_no_service() -> None:
    dotted = job()
    dotted.metadata.name = "a.b"
    assert build.service(dotted) is None
    assert build.pod(dotted, 0, restarts_in_place=False).spec.hostname == ""


def test_pods_run_as_whom_the_job_says_and_have_its_secrets() -> None:
    made = build.pod(
        job(
            env=[EnvVar(name="KEY", value_from=EnvVarSource(secret_key_ref=KeySelector(name="hub", key="token")))],
            env_from=[EnvFromSource(secret_ref=LocalObjectReference(name="s3"))],
            service_account_name="trainer",
            image_pull_secrets=[LocalObjectReference(name="registry")],
            security_context=RunAs(run_as_user=1000, run_as_group=100, fs_group=100),
        ),
        0,
        restarts_in_place=False,
    )
    spec = json.loads(msgspec.json.encode(made.spec))
    (container,) = spec["containers"]
    assert {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}} in container["env"]
    assert container["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert (spec["serviceAccountName"], spec["imagePullSecrets"]) == ("trainer", [{"name": "registry"}])
    assert spec["securityContext"] == {
        "runAsUser": 1000, "runAsGroup": 100, "fsGroup": 100, "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize("user", [None, RunAs(), RunAs(run_as_user=0, fs_group=100)])
def test_root_keeps_what_it_may(user: RunAs | None) -> None:
    spec = build.pod(job(security_context=user), 0, restarts_in_place=False).spec
    assert spec.containers[0].security_context is None
    assert spec.security_context is None or spec.security_context.seccomp_profile is None


def test_volumes_of_a_job_are_those_of_its_pods() -> None:
    volumes = [
        JobVolume(mount_path="/kept", claim="kept", sub_path="run-1"),
        JobVolume(mount_path="/data", host_path="/mnt/data", read_only=True),
        JobVolume(mount_path="/code", config_map="code", files=[VolumeFile(key="f0", path="a/b.sh", executable=True)]),
        JobVolume(mount_path="/dev/shm", memory="8Gi"),
    ]
    spec = json.loads(msgspec.json.encode(build.pod(job(volumes=volumes), 0).spec))
    assert spec["volumes"] == [
        {"name": "volume-0", "persistentVolumeClaim": {"claimName": "kept"}},
        {"name": "volume-1", "hostPath": {"path": "/mnt/data", "type": "DirectoryOrCreate"}},
        {"name": "volume-2", "configMap": {"name": "code", "items": [{"key": "f0", "path": "a/b.sh", "mode": 0o755}]}},
        {"name": "volume-3", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
    ]
    assert spec["containers"][0]["volumeMounts"] == [
        {"name": "volume-0", "mountPath": "/kept", "subPath": "run-1"},
        {"name": "volume-1", "mountPath": "/data", "readOnly": True},
        {"name": "volume-2", "mountPath": "/code"},
        {"name": "volume-3", "mountPath": "/dev/shm"},
    ]
