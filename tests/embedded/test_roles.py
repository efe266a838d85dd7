"""Jobs of several roles against a real embedded heddle: the example, its order, and restarts."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Heddle = Callable[..., Any]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "roles"


def submit(heddle: Heddle, name: str, **spec: Any) -> None:
    obj = {"apiVersion": "heddle.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": name}, "spec": spec}
    done = heddle("apply", "-f", "-", given=yaml.safe_dump(obj))
    assert done.returncode == 0, done.stderr


def ended(heddle: Heddle, name: str) -> tuple[dict[str, Any], str]:
    """The status of a job once it has ended, and what its pods said."""
    followed = heddle("logs", "-f", name, timeout=120)
    assert followed.returncode == 0, followed.stderr
    job = json.loads(heddle("get", "trainingjob", name, "-o", "json").stdout)
    return job["status"], heddle("logs", name).stdout


def test_the_example_trains_with_a_parameter_server(heddle: Heddle) -> None:
    manifest = (EXAMPLE / "job.yaml").read_text().replace("python3", sys.executable)
    spec = yaml.safe_load(manifest)["spec"]
    submit(heddle, "digits-ps", **spec | {"workingDir": str(EXAMPLE)})
    status, logs = ended(heddle, "digits-ps")
    assert (status["phase"], status["message"]) == ("Succeeded", "worker succeeded"), logs
    for rank in range(2):
        assert f"digits-ps-worker-{rank}: worker {rank} of 2: 400 steps" in logs
    assert "digits-ps-evaluator-0: after " in logs
    assert "server: 0, worker: 1, evaluator: 0" in heddle("ps", "--all").stdout
    only = heddle("logs", "--role", "evaluator", "digits-ps").stdout
    assert "held-out accuracy" in only
    assert "worker" not in only
    unknown = heddle("logs", "--role", "launcher", "digits-ps")
    assert unknown.returncode == 2
    assert "choose one of server, worker, evaluator" in unknown.stderr


def test_a_launcher_knows_its_workers_and_a_restart_keeps_the_order(heddle: Heddle, tmp_path: Path) -> None:
    log = tmp_path / "log"
    worker = {
        "name": "worker",
        "nodes": 2,
        "command": ["sh", "-c", f"echo worker $HEDDLE_GENERATION >> {log}; exec sleep 300"],
        "resourcesPerNode": {"nvidia.com/gpu": 1},
    }
    launch = (
        f"echo launcher $HEDDLE_GENERATION $HEDDLE_HOSTS_WORKER $WORLD_SIZE >> {log}; "
        "sleep 0.5; test $HEDDLE_GENERATION = 2"
    )
    launcher = {"name": "launcher", "after": ["worker"], "command": ["sh", "-c", launch]}
    submit(heddle, "mpi", roles=[worker, launcher], successPolicy={"roles": ["launcher"]})
    status, _ = ended(heddle, "mpi")
    assert (status["phase"], status["restarts"]) == ("Succeeded", 1)
    told = log.read_text().splitlines()
    assert [line for line in told if line.startswith("launcher")] == [
        "launcher 1 127.0.0.1,127.0.0.1 1",
        "launcher 2 127.0.0.1,127.0.0.1 1",
    ]
    assert told.count("worker 1") == told.count("worker 2") == 2


def test_roles_start_together_or_not_at_all(heddle: Heddle) -> None:
    small = {"name": "small", "command": ["true"]}
    large = {"name": "large", "nodes": 3, "command": ["true"], "resourcesPerNode": {"nvidia.com/gpu": 8}}
    submit(heddle, "whole", roles=[small, large])
    explained = heddle("explain", "whole")
    assert "impossible on this cluster even when empty" in explained.stdout, explained.stdout
    pods = json.loads(heddle("get", "pods", "-o", "json").stdout)["items"]
    mine = [pod for pod in pods if pod["metadata"]["name"].startswith("whole-")]
    assert len(mine) == 4
    assert not any(pod["spec"].get("nodeName") for pod in mine)
    assert heddle("delete", "trainingjob", "whole", "--yes").returncode == 0
    refused = heddle("apply", "-f", "-", given=yaml.safe_dump({
        "apiVersion": "heddle.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "both"},
        "spec": {"roles": [small], "nodes": 2, "groups": 2},
    }))  # fmt: skip
    assert refused.returncode != 0
    assert "spec.nodes: 2 is not valid; say it in each of roles, or leave out roles" in refused.stderr
    assert "spec.groups" in refused.stderr


def test_a_role_that_prepares_and_ends_lets_the_next_one_start(heddle: Heddle) -> None:
    prepare = {"name": "prepare", "command": ["true"], "resourcesPerNode": {"cpu": "100m"}}
    check = {"name": "check", "command": ["sh", "-c", "sleep 1"]}
    train = {
        "name": "train", "nodes": 2, "after": ["prepare"],
        "command": ["sh", "-c", "sleep 1; echo $RANK of $WORLD_SIZE"],
        "resourcesPerNode": {"nvidia.com/gpu": 4},
    }  # fmt: skip
    submit(heddle, "prepared", roles=[prepare, check, train])
    status, logs = ended(heddle, "prepared")
    assert (status["phase"], status.get("restarts", 0), status.get("resizes", 0)) == ("Succeeded", 0, 0)
    assert "prepared-train-1: 1 of 2" in logs


def test_a_lost_node_of_a_role_makes_all_roles_start_anew(heddle: Heddle, tmp_path: Path) -> None:
    log = tmp_path / "log"
    serve = {"name": "serve", "command": ["sh", "-c", f"echo serve $HEDDLE_GENERATION >> {log}; exec sleep 300"]}
    train = {
        "name": "train", "nodes": 2, "after": ["serve"],
        "command": ["sh", "-c", f"echo train $HEDDLE_GENERATION >> {log}; sleep $((HEDDLE_GENERATION == 1 ? 300 : 1))"],
    }  # fmt: skip
    submit(heddle, "lost", roles=[serve, train], successPolicy={"roles": ["train"]}, maxRestarts=0)

    def lines() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    until = time.monotonic() + 30
    while lines().count("train 1") < 2:
        assert time.monotonic() < until, lines()
        time.sleep(0.05)
    assert heddle("delete", "pod", "lost-train-1", "--yes").returncode == 0
    status, _ = ended(heddle, "lost")
    assert (status["phase"], status.get("restarts", 0)) == ("Succeeded", 0), status
    assert lines().count("serve 2") == 1, lines()
    assert lines().count("train 2") == 2, lines()
    assert max(i for i, line in enumerate(lines()) if line == "serve 2") < lines().index("train 2")


def test_an_elastic_role_yields_and_grows_again_and_all_roles_start_anew_with_it(
    heddle: Heddle, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    serve = {"name": "serve", "command": ["sh", "-c", f"echo serve >> {log}; exec sleep 300"]}
    train = {
        "name": "train", "nodes": 4, "minNodes": 2, "after": ["serve"], "resourcesPerNode": {"nvidia.com/gpu": 4},
        "command": ["sh", "-c", f"echo train $RANK of $WORLD_SIZE >> {log}; exec sleep 300"],
    }  # fmt: skip
    submit(heddle, "elastic", roles=[serve, train])

    def world(size: int, count: int) -> None:
        """Until so many worlds of this size have formed."""
        until = time.monotonic() + 30
        while (log.read_text() if log.exists() else "").count(f"train 0 of {size}\n") < count:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)

    world(4, 1)
    done = heddle("run", "--name", "urgent", "--priority", "5", "--gpus", "8", "--", "sleep", "2")
    assert done.returncode == 0, done.stderr
    world(2, 1)
    world(4, 2)
    status = json.loads(heddle("get", "trainingjob", "elastic", "-o", "json").stdout)["status"]
    assert (status.get("restarts", 0), status["resizes"]) == (0, 2)
    assert log.read_text().count("serve\n") == 3
    assert heddle("delete", "trainingjob", "elastic", "--yes").returncode == 0
