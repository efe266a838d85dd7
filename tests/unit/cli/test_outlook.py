"""`heddle simulate --snapshot` on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from heddle.cli.__main__ import app
from heddle.engine import Device, NodeSpec, Placement, PodSet, QueueSpec, Snapshot, TaskFact, WorkloadSpec
from heddle.simulator.snapshot import Recorded, write

NODE = NodeSpec("n0", {"cpu": 64_000}, tuple(Device(f"g{at}", at) for at in range(8)))


def work(name: str, gpus: int, **more: Any) -> WorkloadSpec:
    return WorkloadSpec(f"default/{name}", "q", (PodSet("main", (f"{name}-0",), 1, gpu=gpus * 1000),), **more)


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A node of 8 GPUs: one job holds 4 of the 6 that its queue may use, two wait."""
    path = tmp_path / "world.json.gz"
    queues = (QueueSpec("q", quota={"gpu": 8000}, limit={"gpu": 6000}),)
    works = (work("a", 4, walltime=7200.0), work("b", 4, created=1.0), work("c", 4, created=2.0))
    holds = TaskFact(Placement("default/a", "main", "a-0", "n0", ("g0", "g1", "g2", "g3")), 996_400.0, releasing=False)
    write(path, Recorded(Snapshot((), (NODE,), queues, works, (holds,), {}), 1_000_000.0))
    return path


def simulate(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["simulate", *map(str, words)])
    return result.exit_code, result.output


def starts(*words: object, part: str = "outlook") -> dict[str, float | None]:
    code, text = simulate(*words, "--json")
    assert code == 0, text
    return {row["name"].removeprefix("default/"): row["start"] for row in json.loads(text)[part]["jobs"]}


def test_who_waits_is_told_when_he_starts(world: Path) -> None:
    assert starts("--snapshot", world) == {"a": -3600, "b": 3600, "c": None}
    code, text = simulate("--snapshot", world)
    assert code == 0
    lines = [line.split() for line in text.splitlines()]
    assert lines[2:4] == [["default/b", "q", "4", "in", "1h", "?"], ["default/c", "q", "4", "?", "?"]]
    assert "1 job to start, after 1h in the mean" in text
    assert "1 job of which nobody can say: nothing that is known to end makes room; see --assume" in text


def test_it_looks_as_far_as_it_is_told(world: Path) -> None:
    assert starts("--snapshot", world, "--until", "30m") == {"a": -3600, "b": None, "c": None}
    assert "2 jobs of which nobody can say: not within 30m" in simulate("--snapshot", world, "--until", "30m")[1]


def test_work_is_taken_to_run_for_some_time(world: Path) -> None:
    assert starts("--snapshot", world, "--assume", "10m") == {"a": -3600, "b": 3600, "c": 4200}


def test_another_quota_is_tried_beside_what_is(world: Path, tmp_path: Path) -> None:
    file = tmp_path / "queues.yaml"
    spec = "spec: {quota: {nvidia.com/gpu: 8}, limit: {nvidia.com/gpu: 8}}"
    file.write_text(f"{{apiVersion: heddle.dev/v1alpha1, kind: Queue, metadata: {{name: q}}, {spec}}}")
    assert starts("--snapshot", world, "--queues", file) == {"a": -3600, "b": 0, "c": 3600}
    assert starts("--snapshot", world, "--queues", file, part="as_it_is") == {"a": -3600, "b": 3600, "c": None}
    text = simulate("--snapshot", world, "--queues", file)[1]
    assert ["default/b", "q", "4", "now", "?", "in", "1h"] in [line.split() for line in text.splitlines()]


def test_jobs_come_on_top_of_what_waits(world: Path, tmp_path: Path) -> None:
    trace = tmp_path / "jobs.csv"
    trace.write_text("name,submit_s,duration_s,gpus,queue\nt1,500,60,8,other\nt2,560,60,8,other\nt3,600,60,1,q\n")
    found = starts(trace, "--snapshot", world, "--first", "2", "--assume", "10m")
    assert found == {"a": -3600, "b": 3600, "c": 4200, "t1": 4800, "t2": 4860}
    manifest = tmp_path / "job.yaml"
    spec = "{queue: q, image: x, command: [x], walltimeSeconds: 600, resourcesPerNode: {nvidia.com/gpu: 2}}"
    job = f"{{apiVersion: heddle.dev/v1alpha1, kind: TrainingJob, metadata: {{name: small}}, spec: {spec}}}"
    manifest.write_text(job)
    assert starts("--snapshot", world, "--submit", manifest)["small"] == 0
    manifest.write_text(job.replace("queue: q", "queue: nobodys"))
    code, text = simulate("--snapshot", world, "--submit", manifest)
    assert (code, "queue 'nobodys' is not there" in text) == (2, True)
    manifest.write_text(job.replace("600", "-1"))
    assert "walltimeSeconds" in simulate("--snapshot", world, "--submit", manifest)[1]
    manifest.write_text("{kind: Pod}")
    assert "no TrainingJob" in simulate("--snapshot", world, "--submit", manifest)[1]


def test_more_nodes_are_tried(world: Path, tmp_path: Path) -> None:
    file = tmp_path / "queues.yaml"
    file.write_text("{apiVersion: heddle.dev/v1alpha1, kind: Queue, metadata: {name: q}, spec: {}}")
    assert starts("--snapshot", world, "--queues", file)["c"] == 3600
    assert starts("--snapshot", world, "--queues", file, "--add-nodes", "1xn0")["c"] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--cluster", "4x4xA100"), "--cluster: a snapshot goes on as it is"),
        (("--policy", "fifo"), "--policy: a snapshot goes on as it is"),
        (("--add-nodes", "few"), "--add-nodes: 'few' is not valid"),
        (("--add-nodes", "1xn7"), "'n7' is not one of the cluster"),
        (("--assume", "10"), "--assume: '10' is no span of time"),
    ],
)
def test_what_cannot_be_tried_is_said_with_the_remedy(world: Path, words: tuple[str, ...], says: str) -> None:
    code, text = simulate("--snapshot", world, *words)
    assert code == 2
    assert says in text


def test_what_is_for_snapshots_needs_one() -> None:
    code, text = simulate("synthetic:jobs=3", "--cluster", "1x8", "--add-nodes", "2")
    assert (code, "--add-nodes: is for --snapshot FILE" in text) == (2, True)
    assert "no/such.json: there is no such file" in simulate("--snapshot", "no/such.json")[1]
