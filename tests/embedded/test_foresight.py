"""Walltimes, expected starts, previews and moves against a real embedded heddle with two nodes of eight GPUs."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

Heddle = Callable[..., Any]


def job(heddle: Heddle, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(heddle("get", "trainingjob", name, "-o", "json").stdout)
    return found


def until(holds: Callable[[], object], what: str) -> None:
    limit = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < limit, what
        time.sleep(0.1)


@pytest.fixture(autouse=True, scope="module")
def wide(home: Path, command: Heddle, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A queue that is owed the whole cluster."""
    path = tmp_path_factory.mktemp("queue") / "wide.yaml"
    path.write_text(yaml.safe_dump(wide_queue(16)))
    assert command(home, "apply", "-f", str(path)).returncode == 0


def wide_queue(gpus: int) -> dict[str, Any]:
    spec = {"quota": {"nvidia.com/gpu": gpus}}
    return {"apiVersion": "heddle.dev/v1alpha1", "kind": "Queue", "metadata": {"name": "wide"}, "spec": spec}


@pytest.fixture
def submit(heddle: Heddle) -> Iterator[Callable[..., None]]:
    """Submits sleeping jobs, waits for those that should run, and deletes them at the end."""
    made: list[str] = []

    def start(name: str, *options: str, runs: bool = True) -> None:
        done = heddle("run", "-d", "--name", name, *options, "--", "sleep", "300")
        assert done.returncode == 0, done.stderr
        made.append(name)
        if runs:
            until(lambda: job(heddle, name)["status"].get("phase") == "Running", f"{name} does not run")

    yield start
    for name in made:
        heddle("delete", "trainingjob", name, "--yes")


def test_a_job_is_ended_by_its_walltime(heddle: Heddle) -> None:
    done = heddle("run", "--time", "2s", "--name", "short", "--", "sleep", "60")
    assert done.returncode == 124
    assert "ended by its walltime of 2 s" in done.stderr
    assert job(heddle, "short")["status"]["phase"] == "Failed"


def test_a_walltime_is_for_speed_1_and_over_sooner_on_a_faster_model(heddle: Heddle) -> None:
    fast = ("--gpus", "1", "--gpu-model", "NVIDIA-H100-80GB-HBM3=2")
    done = heddle("run", "--time", "4s", "--name", "fast", *fast, "--", "sleep", "60")
    assert done.returncode == 124, done.stderr
    assert "ended by its walltime of 2 s" in done.stderr


@pytest.mark.parametrize("text", ["90", "2x", "0m", "-1h", ""])
def test_a_span_of_time_that_is_none_is_refused_with_the_way_to_write_it(heddle: Heddle, text: str) -> None:
    done = heddle("run", "--time", text or " ", "--", "true")
    assert done.returncode == 2
    assert "write it as 90m, 2h30m, 1d12h or 1-12:00:00" in done.stderr


def test_explain_says_when_and_a_dry_run_says_so_before(heddle: Heddle, submit: Callable[..., None]) -> None:
    submit("one", "--gpus", "8", "--time", "1h", "--non-preemptible", "-q", "wide")
    submit("two", "--gpus", "8", "--time", "2h", "--non-preemptible", "-q", "wide")
    before = heddle("run", "--dry-run", "--gpus", "8", "--time", "30m", "--name", "next", "--", "true")
    assert before.returncode == 0, before.stderr
    assert "trainingjob default/next would wait" in before.stdout
    assert "after default/one" in before.stdout
    assert "work ends when its walltime is over" in before.stdout
    assert heddle("get", "trainingjob", "next").returncode == 4, "a dry run submits nothing"
    submit("next", "--gpus", "8", "--time", "30m", runs=False)
    explained = json.loads(heddle("explain", "next", "-o", "json").stdout)
    assert explained["expected"]["code"] == "ExpectedStart"
    assert explained["start"] > job(heddle, "one")["metadata"]["creationTimestamp"]
    assert {row["code"] for row in explained["assumptions"]} == {"AssumesNoArrivals", "AssumesWalltimes"}
    assert "RoomKept" in {row["code"] for row in explained["reasons"]}


def test_a_dry_run_of_a_job_that_fits_names_its_nodes(heddle: Heddle) -> None:
    done = heddle("run", "--dry-run", "--gpus", "8", "--nodes", "2", "--name", "fits", "--", "true")
    assert done.returncode == 0, done.stderr
    assert "would start now: 1 on sim-0, 1 on sim-1" in done.stdout.replace("sim-h100-", "sim-")


def test_a_dry_run_of_a_queue_says_who_would_gain_and_lose(
    heddle: Heddle, submit: Callable[..., None], tmp_path: Path
) -> None:
    def edit(gpus: int) -> Any:
        path = tmp_path / "queue.yaml"
        path.write_text(yaml.safe_dump(wide_queue(gpus)))
        return path

    heddle("apply", "-f", str(edit(0)))
    submit("greedy", "--gpus", "8", "--nodes", "2", "--min-nodes", "1")
    submit("poor", "--gpus", "8", "-q", "wide", "--non-preemptible", runs=False)
    until(lambda: job(heddle, "poor")["status"].get("phase") == "Pending", "poor is not seen")
    until(lambda: job(heddle, "greedy")["status"].get("activeNodes") == 2, "greedy does not grow")
    done = heddle("apply", "--dry-run", "-f", str(edit(16)))
    assert done.returncode == 0, done.stderr
    assert "would start because of it: default/poor" in done.stdout
    assert "would lose: default/greedy (1 pod): reclaimed for default/poor" in done.stdout
    assert job(heddle, "poor")["status"]["phase"] == "Pending", "a dry run changes nothing"
    heddle("apply", "-f", str(edit(16)))


def test_a_job_with_a_checkpoint_moves_so_that_a_larger_one_fits(
    heddle: Heddle, submit: Callable[..., None], tmp_path: Path
) -> None:
    for name in ("left", "fill-1", "right", "fill-2"):
        submit(name, "--gpus", "4", "--checkpoint", str(tmp_path / name))
    for name in ("fill-1", "fill-2"):
        heddle("delete", "trainingjob", name, "--yes")
    submit("whole", "--gpus", "8")
    for name in ("left", "right"):
        until(lambda name=name: job(heddle, name)["status"]["phase"] == "Running", f"{name} does not run again")
    places = {
        pod["metadata"]["name"]: pod["spec"]["nodeName"]
        for pod in json.loads(heddle("get", "pods", "-o", "json").stdout)["items"]
        if pod["spec"].get("nodeName") and pod.get("status", {}).get("phase") == "Running"
    }
    assert places["left-0"] == places["right-0"] != places["whole-0"]
    assert "moved to another place" in heddle("events").stdout


def test_a_job_without_a_checkpoint_stays_where_it_is(heddle: Heddle, submit: Callable[..., None]) -> None:
    for name in ("left", "fill-1", "right", "fill-2"):
        submit(name, "--gpus", "4")
    for name in ("fill-1", "fill-2"):
        heddle("delete", "trainingjob", name, "--yes")
    submit("whole", "--gpus", "8", runs=False)
    until(lambda: "8 GPUs are free" in heddle("explain", "whole").stdout, "the room is not there")
    assert job(heddle, "whole")["status"]["phase"] == "Pending"
    assert job(heddle, "left")["status"]["phase"] == "Running"


def test_a_world_that_is_written_down_goes_on_in_virtual_time(
    heddle: Heddle, submit: Callable[..., None], tmp_path: Path
) -> None:
    submit("one", "--gpus", "8", "--time", "1h")
    submit("two", "--gpus", "8", "--time", "2h")
    submit("next", "--gpus", "8", "--time", "30m", runs=False)
    submit("wide", "--gpus", "8", "--nodes", "2", runs=False)
    until(lambda: job(heddle, "wide")["status"].get("phase") == "Pending", "wide is not seen")
    file = tmp_path / "world.json.gz"
    done = heddle("snapshot", "-o", str(file))
    assert done.returncode == 0, done.stderr
    assert "4 workloads are in" in done.stdout

    def starts(source: str, *options: str) -> dict[str, float]:
        done = heddle("simulate", "--snapshot", source, *options, "--json")
        assert done.returncode == 0, done.stderr
        return {row["name"]: row["start"] for row in json.loads(done.stdout)["outlook"]["jobs"]}

    found = starts(str(file))
    assert -60 < found["default/one"] <= found["default/two"] + 1 <= 1, "they run already"
    assert 3500 < found["default/next"] < 3600
    assert 7100 < found["default/wide"] < 7200
    assert json.loads(heddle("explain", "next", "-o", "json").stdout)["start"]
    more = starts("live", "--add-nodes", "1")
    assert more["default/next"] == 0
    assert more["default/wide"] < found["default/wide"]
    assert job(heddle, "next")["status"]["phase"] == "Pending", "a simulation changes nothing"
