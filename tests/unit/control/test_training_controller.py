"""The training controller over a store of its own; the test stands for scheduler and node."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from heddle.api.admission import admit
from heddle.api.clock import to_text
from heddle.api.meta import ObjectMeta
from heddle.api.pod import Pod, run_id
from heddle.api.registry import CONFIGMAPS, PODS, TRAININGJOBS, WORKLOADS
from heddle.api.trainingjob import Checkpoint, TrainingJob, TrainingJobSpec
from heddle.api.workload import POD_SET_LABEL, RESTART_ANNOTATION
from heddle.control.training.controller import TrainingController
from heddle.embedded.checkpoints import last_saved
from heddle.store.client import Client
from heddle.store.informer import Informers
from heddle.store.sqlite import SQLiteStore


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A store with a running training controller."""
    store = SQLiteStore.open(tmp_path / "heddle.db", admit)
    informers = Informers(store)
    controller = TrainingController(informers, lambda _job, _first: ("127.0.0.1", 29500), last_saved)
    running = asyncio.gather(informers.run(), controller.run())
    yield Client(store)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.close()


async def submit(client: Client, **spec: Any) -> None:
    spec = {"command": ["true"], "queue": "default"} | spec
    job = TrainingJob(metadata=ObjectMeta(name="job", namespace="default"), spec=TrainingJobSpec(**spec))
    await client.create(TRAININGJOBS, job)


async def pods(client: Client, count: int) -> list[Pod]:
    """The job's pods, once there are so many."""

    async def look() -> list[Pod] | None:
        found = await client.list(PODS, "default")
        return found if len(found) == count else None

    found: list[Pod] = await until(look)
    return found


async def bind(client: Client, *names: str, bound: int) -> None:
    for name in names:
        await client.bind(PODS, name, "default", "node")
    await client.patch_status(WORKLOADS, "job", {"bound": bound}, "default")


async def world(client: Client, generation: int) -> dict[str, str]:
    async def look() -> dict[str, str] | None:
        found = [c for c in await client.list(CONFIGMAPS, "default") if c.metadata.name == "job-rendezvous"]
        return found[0].data if found and found[0].data["generation"] == str(generation) else None

    found: dict[str, str] = await until(look)
    return found


async def marked(client: Client, name: str, generation: int) -> None:
    async def look() -> bool:
        pod = await client.get(PODS, name, "default")
        return bool(pod.metadata.annotations.get(RESTART_ANNOTATION) == str(generation))

    await until(look)


async def job_with(client: Client, holds: Callable[[TrainingJob], bool]) -> TrainingJob:
    async def look() -> TrainingJob | None:
        found: TrainingJob = await client.get(TRAININGJOBS, "job", "default")
        return found if holds(found) else None

    found: TrainingJob = await until(look)
    return found


async def fail(client: Client, name: str, code: int, generation: str) -> None:
    ended = {"exitCode": code, "reason": "Error", "containerID": run_id(generation, 0)}
    status = {"phase": "Running", "containerStatuses": [{"name": "main", "state": {"terminated": ended}}]}
    await client.patch_status(PODS, name, status, "default")


async def test_a_world_forms_only_once_it_is_whole(client: Client) -> None:
    await submit(client, nodes=2)
    await pods(client, 2)
    await bind(client, "job-0", bound=1)
    await job_with(client, lambda job: job.status.phase == "Pending")
    assert not await client.list(CONFIGMAPS, "default")
    await bind(client, "job-1", bound=2)
    formed = await world(client, 1)
    assert (formed["nodes"], formed["node-rank.job-0"], formed["node-rank.job-1"]) == ("2", "0", "1")
    assert formed["restart"] == ""


async def test_a_smaller_world_is_formed_and_members_restart_when_one_is_deleted(client: Client) -> None:
    await submit(client, nodes=3, min_nodes=2)
    await pods(client, 3)
    await bind(client, "job-0", "job-1", "job-2", bound=3)
    await world(client, 1)
    await client.delete(PODS, "job-1", "default", grace_period=0)
    await client.patch_status(WORKLOADS, "job", {"bound": 2}, "default")
    formed = await world(client, 2)
    assert (formed["nodes"], formed["node-rank.job-2"]) == ("2", "1")
    assert formed["restart"] == "job-0,job-2"
    for name in ("job-0", "job-2"):
        await marked(client, name, 2)
    resized = await job_with(client, lambda job: job.status.resizes == 1)
    assert resized.status.restarts == 0


async def test_what_is_left_of_a_step_does_not_join_the_world(client: Client) -> None:
    await submit(client, nodes=5, min_nodes=1, node_step=2)
    await pods(client, 5)
    await bind(client, "job-0", "job-1", "job-2", "job-3", bound=4)
    formed = await world(client, 1)
    assert (formed["nodes"], formed["restart"]) == ("3", "")
    await bind(client, "job-4", bound=5)
    assert (await world(client, 2))["nodes"] == "5"


async def test_only_whole_groups_are_in_the_world_and_the_others_go_on_without_a_torn_one(client: Client) -> None:
    await submit(client, nodes=2, groups=3, min_groups=2)
    made = await pods(client, 6)
    sets = [pod.metadata.labels[POD_SET_LABEL] for pod in sorted(made, key=lambda pod: pod.metadata.name)]
    assert sets == ["group-0", "group-0", "group-1", "group-1", "group-2", "group-2"]
    asked = (await client.get(WORKLOADS, "job", "default")).spec
    assert [(s.name, s.group, s.count) for s in asked.pod_sets] == [(f"group-{i}", f"group-{i}", 2) for i in range(3)]
    assert asked.min_groups == 2
    await bind(client, "job-0", "job-1", "job-2", bound=3)
    await job_with(client, lambda job: job.status.phase == "Pending")
    assert not await client.list(CONFIGMAPS, "default"), "one whole group is too few"
    await bind(client, "job-4", "job-5", bound=5)
    formed = await world(client, 1)
    assert (formed["nodes"], formed["groups"]) == ("4", "2")
    assert "node-rank.job-2" not in formed, "half a group waits for the rest of it"
    assert (formed["group-rank.job-1"], formed["node-rank.job-4"], formed["group-rank.job-4"]) == ("0", "2", "1")
    await bind(client, "job-3", bound=6)
    assert (await world(client, 2))["groups"] == "3"
    await client.delete(PODS, "job-0", "default", grace_period=0)
    await client.patch_status(WORKLOADS, "job", {"bound": 5}, "default")
    torn = await world(client, 3)
    assert (torn["nodes"], torn["node-rank.job-2"]) == ("4", "0")
    assert "node-rank.job-1" not in torn


async def test_a_walltime_is_over_by_the_speed_of_the_gpus_that_the_job_got(client: Client) -> None:
    gpus: dict[str, Any] = {"nvidia.com/gpu": 1}
    await submit(client, walltime_seconds=1, gpu_speeds={"A100": "0.001"}, resources_per_node=gpus)
    await pods(client, 1)
    await client.patch_status(WORKLOADS, "job", {"walltimeSeconds": 1000}, "default")
    await bind(client, "job-0", bound=1)
    await world(client, 1)
    await client.patch_status(PODS, "job-0", {"startTime": "2020-01-01T00:00:00Z"}, "default")
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": to_text(time.time() - 900)}
    await client.patch_status(PODS, "job-0", {"conditions": [scheduled], "phase": "Running"}, "default")
    await job_with(client, lambda job: job.status.phase == "Running")
    await client.patch_status(WORKLOADS, "job", {"walltimeSeconds": 800}, "default")
    ended = await job_with(client, lambda job: job.status.phase == "Failed")
    assert (ended.status.exit_code, ended.status.message) == (124, "ended by its walltime of 800 s")


async def test_a_job_that_does_not_resize_waits_for_a_lost_member(client: Client) -> None:
    await submit(client, nodes=4, min_nodes=1, resizable=False)
    await pods(client, 4)
    for name in ("job-0", "job-1", "job-2"):
        await client.bind(PODS, name, "default", "node")
    await client.patch_status(WORKLOADS, "job", {"bound": 3, "admittedCounts": {"nodes": 3}}, "default")
    assert (await world(client, 1))["nodes"] == "3"
    await client.delete(PODS, "job-1", "default", grace_period=0)
    await client.patch_status(WORKLOADS, "job", {"bound": 2}, "default")
    assert (await world(client, 2)).get("members", "") == ""
    await pods(client, 4)
    await bind(client, "job-1", bound=3)
    assert (await world(client, 3))["nodes"] == "3"


async def test_an_edited_job_is_scheduled_as_it_says_now(client: Client) -> None:
    await submit(client, gang_grace_seconds=300, priority=3)
    await pods(client, 1)
    made = await client.get(WORKLOADS, "job", "default")
    assert (made.spec.gang_grace_seconds, made.spec.priority) == (300, 3)
    edit = {"gangGraceSeconds": None, "priority": None, "walltimeSeconds": 60, "preemptible": False}
    await client.patch(TRAININGJOBS, "job", {"spec": edit}, namespace="default")

    async def followed() -> bool:
        spec = (await client.get(WORKLOADS, "job", "default")).spec
        told = (spec.gang_grace_seconds, spec.priority, spec.walltime_seconds, spec.preemptible)
        return told == (None, 0, 60, False)

    await until(followed)


async def test_a_job_fails_once_its_restarts_are_used(client: Client) -> None:
    await submit(client, nodes=1, max_restarts=1)
    await pods(client, 1)
    await bind(client, "job-0", bound=1)
    await world(client, 1)
    await fail(client, "job-0", 3, "")
    await marked(client, "job-0", 2)
    again = await job_with(client, lambda job: job.status.rendezvous == 2 and job.status.restarts == 1)
    assert again.status.phase != "Failed"  # the old process' end counts once
    await fail(client, "job-0", 42, "2")
    ended = await job_with(client, lambda job: job.status.phase == "Failed")
    assert (ended.status.exit_code, ended.status.restarts) == (42, 1)
    assert "1 of 1 restarts were used" in ended.status.message


async def test_a_process_that_fails_because_a_peer_leaves_counts_as_no_failure(client: Client) -> None:
    await submit(client, nodes=3, min_nodes=2, max_restarts=0)
    await pods(client, 3)
    await bind(client, "job-0", "job-1", "job-2", bound=3)
    await world(client, 1)
    await client.delete(PODS, "job-1", "default")  # graceful: it is there until its node has stopped it
    await fail(client, "job-0", 1, "")
    await client.patch_status(WORKLOADS, "job", {"bound": 2}, "default")
    assert (await world(client, 2))["nodes"] == "2"
    await marked(client, "job-0", 2)
    resized = await job_with(client, lambda job: job.status.resizes == 1)
    assert (resized.status.phase, resized.status.restarts) == ("Restarting", 0)


async def test_nobody_joins_a_world_whose_members_have_begun_to_finish(client: Client) -> None:
    await submit(client, nodes=3, min_nodes=2)
    await pods(client, 3)
    await bind(client, "job-0", "job-1", bound=2)
    await world(client, 1)
    await client.patch_status(PODS, "job-0", {"phase": "Succeeded"}, "default")
    await bind(client, "job-2", bound=3)  # on the room that job-0 left
    await client.patch_status(PODS, "job-1", {"phase": "Succeeded"}, "default")
    ended = await job_with(client, lambda job: job.status.phase == "Succeeded")
    assert (ended.status.rendezvous, ended.status.exit_code) == (1, 0)


async def test_a_member_lost_while_others_have_finished_makes_all_resume(client: Client) -> None:
    await submit(client, nodes=2)
    first = {p.metadata.name: p.metadata.uid for p in await pods(client, 2)}
    await bind(client, "job-0", "job-1", bound=2)
    await world(client, 1)
    await client.patch_status(PODS, "job-0", {"phase": "Succeeded"}, "default")
    await client.delete(PODS, "job-1", "default", grace_period=0)

    async def anew() -> bool:
        now = {p.metadata.name: p.metadata.uid for p in await client.list(PODS, "default")}
        return len(now) == 2 and all(now[name] != uid for name, uid in first.items())

    await until(anew)
    assert (await client.get(TRAININGJOBS, "job", "default")).status.phase != "Succeeded"


async def test_the_scheduler_is_told_when_the_job_last_saved(client: Client, tmp_path: Path) -> None:
    saved = tmp_path / "checkpoints" / "step-5" / "weights"
    saved.parent.mkdir(parents=True)
    saved.touch()
    for path in (saved, saved.parent, saved.parent.parent):
        os.utime(path, (1_000_000, 1_000_000))
    await submit(client, nodes=1, checkpoint=Checkpoint(path=str(tmp_path / "checkpoints")))
    await pods(client, 1)
    await bind(client, "job-0", bound=1)
    told = await job_with(client, lambda job: job.status.checkpoint_time is not None)
    assert told.status.checkpoint_time == "1970-01-12T13:46:40Z"

    async def look() -> bool:
        workload = await client.get(WORKLOADS, "job", "default")
        return bool(workload.status.checkpoint_time == told.status.checkpoint_time)

    await until(look)


def test_a_checkpoint_is_the_newest_file_and_nothing_where_there_is_none(tmp_path: Path) -> None:
    def seen(path: str) -> float | None:
        spec = TrainingJobSpec(command=["true"], working_dir=str(tmp_path), checkpoint=Checkpoint(path=path))
        return last_saved(TrainingJob(metadata=ObjectMeta(name="job"), spec=spec))

    assert seen("missing") is None
    (tmp_path / "some").mkdir()
    assert seen("some") is None
    for name, at in (("a", 10), ("b", 30), ("c", 20)):
        (tmp_path / "some" / name).touch()
        os.utime(tmp_path / "some" / name, (at, at))
    assert seen("some") == 30
    assert seen(str(tmp_path / "some")) == 30, "an absolute path stays one"
    (tmp_path / "some" / "ahead").touch()
    os.utime(tmp_path / "some" / "ahead", (1e11, 1e11))
    assert seen("some") < 1e10, "a clock that is ahead counts as now"
