"""Down and up again is boring."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Heddle = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def heddle(tmp_path: Path, command: Heddle) -> Iterator[Heddle]:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = command(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
        return done

    yield call
    command(tmp_path, "down", "--yes")


def status(heddle: Heddle, job: str) -> Any:
    return json.loads(heddle("get", "trainingjob", job, "-o", "json").stdout)["status"]


def until(heddle: Heddle, job: str, phase: str) -> Any:
    for _ in range(60):
        found = status(heddle, job)
        if found["phase"] == phase:
            return found
    pytest.fail(f"{job} never became {phase}: {found}")


def test_a_job_that_heddle_stopped_goes_on_at_the_next_start_without_a_failure(heddle: Heddle, tmp_path: Path) -> None:
    heddle("up")
    mark = tmp_path / "mark"
    program = f"test -e {mark} && exit 0; trap 'touch {mark}; exit 1' TERM; while :; do sleep 0.1; done"
    heddle("run", "--detach", "--name", "j", "--max-restarts", "0", "--", "sh", "-c", program)
    until(heddle, "j", "Running")
    heddle("down", "--yes")
    assert mark.exists()  # it had its SIGTERM
    heddle("up")
    ended = until(heddle, "j", "Succeeded")
    assert ended.get("restarts", 0) == 0


def test_a_heddle_that_slept_with_its_machine_goes_on(heddle: Heddle, tmp_path: Path) -> None:
    heddle("up")
    pid = json.loads((tmp_path / "running.json").read_text())["pid"]
    os.kill(pid, signal.SIGSTOP)
    time.sleep(10.5)  # a Lease of controllers on a cluster is given up after 10 s without a renewal
    os.kill(pid, signal.SIGCONT)
    time.sleep(2.5)  # it looks every 2 s
    heddle("run", "--", "true")
    assert json.loads((tmp_path / "running.json").read_text())["pid"] == pid


def test_kept_pods_are_adopted(heddle: Heddle, tmp_path: Path) -> None:
    heddle("up")
    go = tmp_path / "go"
    program = f"while ! test -e {go}; do sleep 0.1; done; exit 5"
    heddle("run", "--detach", "--name", "k", "--max-restarts", "0", "--", "sh", "-c", program)
    until(heddle, "k", "Running")
    heddle("down", "--keep-pods")
    go.touch()
    heddle("up")
    assert until(heddle, "k", "Failed")["exitCode"] == 5


def test_simulated_nodes_of_an_earlier_start_are_gone(heddle: Heddle) -> None:
    heddle("up", "--simulate", "2x8xH100")
    assert "sim-1" in heddle("get", "nodes").stdout
    heddle("down", "--yes")
    heddle("up", "--simulate", "1x4xA100-40GB")
    nodes = heddle("get", "nodes").stdout
    assert "sim-1" not in nodes
    assert "A100" in nodes
