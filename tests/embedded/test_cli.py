"""The command line against a real embedded heddle."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Heddle = Callable[..., Any]


VERBS = (
    ("ps",), ("top",), ("status",), ("api-resources",), ("history",), ("queue", "tree"), ("events",), ("get", "nodes"),
)  # fmt: skip


def queue(name: str, **spec: object) -> str:
    return yaml.safe_dump(
        {"apiVersion": "heddle.dev/v1alpha1", "kind": "Queue", "metadata": {"name": name}, "spec": spec}
    )


def test_run_follows_the_logs_and_exits_with_the_jobs_code(heddle: Heddle) -> None:
    done = heddle("run", "--gpus", "2", "--nodes", "2", "--", "sh", "-c", "echo rank $RANK of $WORLD_SIZE")
    assert done.returncode == 0, done.stderr
    assert "rank 0 of 2" in done.stdout
    assert "rank 1 of 2" in done.stdout
    failed = heddle("run", "--max-restarts", "0", "--", "sh", "-c", "exit 7")
    assert failed.returncode == 7
    assert "exit code 7" in failed.stderr


def test_a_pod_sees_the_devices_it_was_given(heddle: Heddle) -> None:
    done = heddle("run", "--name", "see", "--gpus", "3", "--", "sh", "-c", "echo gpus=$CUDA_VISIBLE_DEVICES")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "gpus=" in line)
    assert len(line.split("gpus=")[1].split(",")) == 3
    again = heddle("logs", "see")
    assert "gpus=" in again.stdout


def test_a_job_is_restarted_until_its_restarts_are_used(heddle: Heddle) -> None:
    done = heddle(
        "run", "--name", "retry", "--max-restarts", "2", "--", "sh", "-c", "echo try $HEDDLE_GENERATION; exit 3"
    )
    assert done.returncode == 3
    job = json.loads(heddle("get", "trainingjob", "retry", "-o", "json").stdout)
    assert job["status"]["restarts"] == 2
    assert job["status"]["phase"] == "Failed"
    assert "2 of 2 restarts were used" in job["status"]["message"]


def test_a_gang_larger_than_the_cluster_waits_with_its_reason(heddle: Heddle) -> None:
    made = heddle("run", "--detach", "--name", "huge", "--gpus", "8", "--nodes", "9", "--", "true")
    assert made.returncode == 0
    explained = heddle("explain", "huge")
    assert "impossible on this cluster even when empty" in explained.stdout
    assert "2 of 9" in explained.stdout
    assert "when:" not in explained.stdout, "what is impossible has no start"
    assert heddle("delete", "trainingjob", "huge", "--yes").returncode == 0
    assert heddle("get", "workload", "huge").returncode == 4


def test_groups_come_whole_and_know_their_rank(heddle: Heddle) -> None:
    told = "echo rank $PET_NODE_RANK is in group $HEDDLE_GROUP_RANK of $HEDDLE_GROUPS"
    done = heddle("run", "--name", "grouped", "--groups", "2", "--nodes", "2", "--gpus", "4", "--", "sh", "-c", told)
    assert done.returncode == 0, done.stderr
    said = sorted(line.partition("rank ")[2] for line in done.stdout.splitlines())
    assert said == ["0 is in group 0 of 2", "1 is in group 0 of 2", "2 is in group 1 of 2", "3 is in group 1 of 2"]
    assert heddle("delete", "trainingjob", "grouped", "--yes").returncode == 0


def test_a_job_with_too_many_groups_is_told_with_how_many_it_would_start(heddle: Heddle) -> None:
    made = heddle("run", "-d", "--name", "groups", "--groups", "3", "--nodes", "2", "--gpus", "4", "--", "true")
    assert made.returncode == 0, made.stderr
    assert "2 groups" in heddle("explain", "groups").stdout
    assert heddle("delete", "trainingjob", "groups", "--yes").returncode == 0


def test_a_job_waits_for_the_company_that_it_seeks(heddle: Heddle) -> None:
    spec = {"command": ["sleep", "300"], "resourcesPerNode": {"nvidia.com/gpu": 1}}
    labels = {"labelSelector": {"matchLabels": {"app": "cache"}}, "topologyKey": "kubernetes.io/hostname"}
    head = {"apiVersion": "heddle.dev/v1alpha1", "kind": "TrainingJob"}
    seeker = {**head, "metadata": {"name": "seeker"}, "spec": {**spec, "podAffinity": {"required": [labels]}}}
    cache = {**head, "metadata": {"name": "cache"}, "spec": {**spec, "podLabels": {"app": "cache"}}}
    assert heddle("apply", "-f", "-", given=json.dumps(seeker)).returncode == 0
    told = poll(lambda: heddle("explain", "seeker").stdout, "NoMatchingNeighbour")
    assert "pods with app=cache of namespace default" in told
    assert heddle("apply", "-f", "-", given=json.dumps(cache)).returncode == 0
    poll(lambda: heddle("get", "trainingjob", "seeker", "-o", "json").stdout, '"phase": "Running"')
    pods = [json.loads(heddle("get", "pod", f"{name}-0", "-o", "json").stdout) for name in ("seeker", "cache")]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 1
    assert heddle("delete", "trainingjob", "seeker", "cache", "--yes").returncode == 0


def poll(look: Callable[[], str], words: str) -> str:
    said = ""
    for _ in range(60):
        said = look()
        if words in said:
            return said
    pytest.fail(f"{words!r} was never said: {said}")


def test_the_order_of_applying_queues_never_matters(heddle: Heddle) -> None:
    child = heddle("apply", "-f", "-", given=queue("child", parent="parent"))
    assert child.returncode == 0, child.stderr
    wait_for(heddle, "child", "ParentNotFound")
    assert heddle("apply", "-f", "-", given=queue("parent")).returncode == 0
    wait_for(heddle, "child", "Ready")
    assert heddle("apply", "-f", "-", given=queue("parent", parent="child")).returncode == 0
    wait_for(heddle, "child", "Cycle")
    assert "Cycle" in heddle("queue", "tree").stdout
    assert heddle("delete", "queue", "child", "parent", "--yes").returncode == 0


def wait_for(heddle: Heddle, name: str, reason: str) -> None:
    for _ in range(40):
        found = json.loads(heddle("get", "queue", name, "-o", "json").stdout)
        conditions = found.get("status", {}).get("conditions", [])
        if any(c["type"] == "Ready" and c["reason"] == reason for c in conditions):
            return
    pytest.fail(f"queue {name} never became {reason}: {conditions}")


MOUNTS = """
apiVersion: heddle.dev/v1alpha1
kind: TrainingJob
metadata: {name: mounts}
spec: {command: ["true"], queue: default, volumes: [{mountPath: /data, claim: data}]}
"""


ACCOUNT = """
apiVersion: heddle.dev/v1alpha1
kind: TrainingJob
metadata: {name: account}
spec: {command: ["true"], queue: default, serviceAccountName: trainer, securityContext: {runAsUser: 1000}}
"""


@pytest.mark.parametrize(
    ("arguments", "given", "code", "words"),
    [
        (("apply", "-f", "-"), queue("q", quta={}), 1, ["spec.quta", "did you mean quota?"]),
        (("apply", "-f", "-"), queue("q", quota={"cpu": 4}, limit={"cpu": 2}), 1, ["quota is over the limit"]),
        (("apply", "-f", "-"), queue("q", weight=-1, quota={"cpu": float("nan")}), 1, ["2 faults", "weight", "cpu"]),
        (("apply", "-f", "-"), "kind: [", 2, ["is not YAML"]),
        (("apply", "-f", "-"), "kind: Nothing\napiVersion: v1\nmetadata: {name: x}", 1, ["no kind that heddle serves"]),
        (("apply", "-f", "/nowhere.yaml"), "", 2, ["No such file"]),
        (("get", "quueues"), "", 1, ["no kind that heddle serves"]),
        (("get", "queue", "nobody"), "", 4, ["not found"]),
        (("explain", "nobody"), "", 4, ["not found"]),
        (("run", "--env", "X", "--", "true"), "", 2, ["NAME=VALUE"]),
        (("run", "--upload", ".", "--", "true"), "", 1, ["--upload: this is for clusters", "leave it out"]),
        (("run", "--volume", "data:/data", "--", "true"), "", 1, ["--volume: this is for clusters"]),
        (("run", "--shm", "1Gi", "--", "true"), "", 1, ["--shm: this is for clusters"]),
        (("run", "--user", "1000:100", "--", "true"), "", 1, ["--user: this is for clusters", "leave it out"]),
        (("run", "--service-account", "a", "--", "true"), "", 1, ["--service-account: this is for clusters"]),
        (("run", "--image-pull-secret", "a", "--", "true"), "", 1, ["--image-pull-secret: this is for clusters"]),
        (("run", "--secret-env", "A=B", "--", "true"), "", 1, ["--secret-env 'A=B': write NAME=SECRET:KEY"]),
        (("run", "--grace", "soon", "--", "true"), "", 2, ["--grace:"]),
        (("run", "--gang-grace", "5", "--", "true"), "", 2, ["--gang-grace: '5' is no span of time"]),
        (("apply", "-f", "-"), MOUNTS, 1, ["spec.volumes: embedded heddle runs programs of this machine"]),
        (("apply", "-f", "-"), ACCOUNT, 1, ["spec.serviceAccountName: embedded heddle runs programs as the user who"]),
        (("run", "--name", "Bad_Name", "--", "true"), "", 1, ["metadata.name", "lower case"]),
        (("up", "--simulate", "2xH100"), "", 2, ["2x8xH100"]),
        (("up", "--simulate", "1x1xH100:9g.90gb"), "", 2, ["do not fit on one H100", "3g.40gb"]),
        (("apply", "-f", "-"), "metadata: {name: x}", 1, ["manifest of 'x' has no apiVersion and no kind"]),
        (("apply", "-f", "-"), "kind: Topology\nmetadata: {name: x}", 1, ["has no apiVersion;"]),
        (("apply", "-f", "-"), "[1]", 2, ["must be an object"]),
        (("delete", "queue", "default", "nobody", "noone"), "", 4, ["queue nobody, noone not found", "nothing was"]),
        (("logs", "-f", "-p", "x"), "", 2, ["--previous"]),
        (("--kubeconfig", "/nowhere", "ps"), "", 3, ["/nowhere: no such kubeconfig"]),
        *(((*verb, "-o", "bogus"), "", 2, ["--output 'bogus': choose json"]) for verb in VERBS),
        *(((*verb, "-o", "wide"), "", 2, ["choose json or yaml"]) for verb in (("history",), ("api-resources",))),
    ],
)
def test_bad_input_gives_one_clear_error(
    heddle: Heddle, arguments: tuple[str, ...], given: str, code: int, words: list[str]
) -> None:
    done = heddle(*arguments, given=given)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert done.stderr.startswith("heddle: ")


def test_a_missing_program_fails_the_job_with_its_reason(heddle: Heddle) -> None:
    done = heddle("run", "--max-restarts", "0", "--", "no-such-program")
    assert done.returncode == 128
    assert "no-such-program" in done.stderr.split("StartError")[1]
    assert "Traceback" not in done.stderr


def test_a_duplicate_name_is_refused_and_the_first_job_is_left_alone(heddle: Heddle) -> None:
    assert heddle("run", "--name", "dup", "--", "true").returncode == 0
    again = heddle("run", "--name", "dup", "--", "true")
    assert again.returncode == 1
    assert again.stderr.strip() == 'heddle: trainingjobs.heddle.dev "dup" already exists'
    assert json.loads(heddle("get", "trainingjob", "dup", "-o", "json").stdout)["status"]["phase"] == "Succeeded"


def test_the_log_of_a_pod_that_has_not_started_is_refused_plainly(heddle: Heddle) -> None:
    assert heddle("run", "--detach", "--name", "later", "--gpus", "8", "--nodes", "9", "--", "true").returncode == 0
    for arguments in (("logs", "later-0"), ("logs", "-f", "later-0")):
        done = heddle(*arguments)
        assert done.returncode != 0
        assert "waiting to start" in done.stderr
        assert "Traceback" not in done.stderr
    assert heddle("delete", "trainingjob", "later", "--yes").returncode == 0


def test_what_a_job_used_is_known_after_it_is_gone(heddle: Heddle) -> None:
    assert heddle("run", "--name", "spent", "--gpus", "8", "--", "sleep", "1").returncode == 0
    for _ in range(40):
        history = json.loads(heddle("history", "-o", "json").stdout)["items"]
        found = [e for e in history if e["name"] == "default/spent"]
        if found:
            break
    assert found[0]["gpuSeconds"] >= 8
    assert found[0]["user"] == "admin"
    assert heddle("delete", "trainingjob", "spent", "--yes").returncode == 0
    assert "default/spent" in heddle("history").stdout
    assert "GPU-HOURS" in heddle("top").stdout


@pytest.mark.parametrize("verb", VERBS)
def test_whatever_is_listed_can_be_had_as_data(heddle: Heddle, verb: tuple[str, ...]) -> None:
    as_json = heddle(*verb, "-o", "json")
    assert as_json.returncode == 0, as_json.stderr
    as_yaml = heddle(*verb, "-o", "yaml")
    assert json.loads(as_json.stdout).keys() == yaml.safe_load(as_yaml.stdout).keys()


def test_wide_says_more(heddle: Heddle) -> None:
    assert heddle("run", "--name", "broad", "--priority", "7", "--", "true").returncode == 0
    head, *rows = heddle("ps", "-a", "-o", "wide").stdout.splitlines()
    row = next(r for r in rows if r.startswith("broad "))
    assert "USER   " in head
    assert " admin " in row
    assert " 7 " in row
    assert " -/1 " in row  # it has ended: no node is its own any more
    for verb, word in (("top", "MEMORY"), ("status", "CPU"), ("events", "FIRST SEEN")):
        assert word in heddle(verb, "-o", "wide").stdout
        assert word not in heddle(verb).stdout


def test_up_says_what_it_did_not_apply(heddle: Heddle) -> None:
    again = heddle("up", "--simulate", "3x8xH100")
    assert again.returncode == 0
    assert "not applied: --simulate 3x8xH100" in again.stdout
    assert "not applied" not in heddle("up").stdout


def test_a_data_directory_that_cannot_be_used_is_named(command: Heddle, tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    for arguments in (("up",), ("up", "--foreground")):
        done = command(taken, *arguments)
        assert done.returncode == 1
        assert f"heddle: cannot use the data directory {taken}" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_pod_sees_the_mig_instance_that_it_was_given(command: Heddle, tmp_path: Path) -> None:
    home = tmp_path / "mig"
    up = command(home, "up", "--simulate", "1x1xH100:3g.40gb,4g.40gb")
    assert up.returncode == 0, up.stderr
    try:
        done = command(home, "run", "--mig", "3g.40gb", "--", "sh", "-c", "echo sees $CUDA_VISIBLE_DEVICES")
        assert done.returncode == 0, done.stderr
        assert "sees MIG-" in done.stdout
        assert command(home, "run", "-d", "--name", "holds", "--mig", "3g.40gb", "--", "sleep", "300").returncode == 0
        made = command(home, "run", "-d", "--name", "waits", "--mig", "3g.40gb", "--nodes", "2", "--", "true")
        assert made.returncode == 0, made.stderr
        assert "impossible on this cluster" in command(home, "explain", "waits").stdout
        refused = command(home, "run", "--mig", "3g.40gb", "--gpus", "1", "--", "true")
        assert refused.returncode == 1
        assert "a pod uses one MIG instance and no other GPU" in refused.stderr
        unknown = command(home, "run", "--mig", "3g.40g", "--", "true")
        assert unknown.returncode == 1
        assert "did you mean nvidia.com/mig-3g.40gb? profiles: 1g.5gb, " in unknown.stderr
        model = json.loads(command(home, "get", "node", "sim-0", "-o", "json").stdout)["metadata"]["labels"]
        named = ("--mig", "4g.40gb", "--gpu-model", model["nvidia.com/gpu.product"])
        assert command(home, "run", *named, "--", "true").returncode == 0
        (row,) = [line.split() for line in command(home, "top").stdout.splitlines() if line.startswith("sim-0")]
        assert row == ["sim-0", "0", "0", "1/2", "1"]
    finally:
        assert command(home, "down", "--yes").returncode == 0
