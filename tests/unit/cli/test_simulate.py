"""`heddle simulate` on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from heddle.cli.__main__ import app
from heddle.cli.durations import span

WORK = "synthetic:jobs=60,gpus=1|2|4,load=0.9,duration=30m,seed=2"


def simulate(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["simulate", *words])
    return result.exit_code, result.output


def test_policies_side_by_side_as_a_table() -> None:
    code, text = simulate(WORK, "--cluster", "4x4xA100", "--policy", "fifo,heddle")
    assert code == 0
    assert [line.split()[:2] for line in text.splitlines()[2:4]] == [["fifo", "4"], ["heddle", "4"]]


def test_json_is_the_same_whatever_the_number_of_processes() -> None:
    words = (WORK, "--cluster", "4x4xA100", "--policy", "fifo,easy", "--sweep", "nodes=2,4", "--json")
    _, one = simulate(*words, "--processes", "1")
    _, two = simulate(*words, "--processes", "2")
    assert one == two
    runs = json.loads(one)["runs"]
    assert [(run["policy"], run["cluster"]["nodes"]) for run in runs] == [
        ("fifo", 2),
        ("fifo", 4),
        ("easy", 2),
        ("easy", 4),
    ]


def test_the_smallest_cluster_that_will_do() -> None:
    code, text = simulate(WORK, "--cluster", "4x4xA100", "--sweep", "nodes=1..16", "--goal", "p95 wait < 1h")
    assert code == 0
    assert "smallest cluster that keeps to a p95 wait of at most 3600 s:" in text
    assert simulate(WORK, "--cluster", "4x4xA100", "--sweep", "nodes=1..2", "--goal", "max wait < 0s")[0] == 1


def test_the_report_is_one_file(tmp_path: Path) -> None:
    pytest.importorskip("heddle.simulator.report")
    out = tmp_path / "out.html"
    code, text = simulate(WORK, "--cluster", "2x4xA100", "--report", str(out))
    assert code == 0
    assert str(out) in text.replace("\n", "")
    assert "<html" in out.read_text()


def test_policies_are_listed_with_their_sources() -> None:
    code, text = simulate("--policies")
    assert code == 0
    assert "NSDI 2019" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((WORK,), "--cluster"),
        ((WORK, "--cluster", "4x"), "128x8xH100"),
        ((WORK, "--cluster", "4x4xA100", "--policy", "nice"), "use some of"),
        ((WORK, "--cluster", "4x4xA100", "--sweep", "gpus=4"), "nodes=64..256"),
        ((WORK, "--cluster", "4x4xA100", "--goal", "p95 wait < 1h"), "--sweep"),
        ((WORK, "--cluster", "4x4xA100", "--failures", "30d"), "30d/4h"),
        ((WORK, "--cluster", "4x4xA100", "--interval", "10"), "--interval"),
        (("no/such.csv", "--cluster", "4x4xA100"), "no/such.csv"),
    ],
)
def test_what_is_not_understood_is_said_with_the_remedy(words: tuple[str, ...], says: str) -> None:
    code, text = simulate(*words)
    assert code == 2
    assert says in text


def test_a_quota_is_tried_from_a_manifest(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs.csv"
    rows = [f"{name}{at},{at},1000,4,{name}" for at in range(8) for name in "ab"]
    jobs.write_text("\n".join(["name,submit_s,duration_s,gpus,queue", *rows]))
    spec = "spec: {{limit: {{nvidia.com/gpu: {}}}}}"
    queue = f"{{{{apiVersion: heddle.dev/v1alpha1, kind: Queue, metadata: {{{{name: {{}}}}}}, {spec}}}}}"
    file = tmp_path / "queues.yaml"
    waits = []
    for limit in (4, 8):
        file.write_text("\n---\n".join([queue.format("a", limit), queue.format("b", 16)]))
        code, text = simulate(str(jobs), "--cluster", "4x8xA100", "--queues", str(file), "--json")
        assert code == 0
        waits.append(json.loads(text)["runs"][0]["figures"]["by_queue"]["a"]["wait"]["max"])
    assert waits[0] > waits[1] > 0
    file.write_text(queue.format("a", -1))
    assert "spec.limit" in simulate(str(jobs), "--cluster", "4x8xA100", "--queues", str(file))[1]
    file.write_text("kind: Pod")
    assert "is no Queue" in simulate(str(jobs), "--cluster", "4x8xA100", "--queues", str(file))[1]


def test_ctrl_c_gives_what_there_is() -> None:
    work = "synthetic:jobs=60000,gpus=1|2|4|8,load=1.5,duration=2h,seed=1"
    command = [sys.executable, "-m", "heddle.cli", "simulate", work, "--cluster", "64x8xH100", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as child:
        time.sleep(6)
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 130
    entry = json.loads(out)["runs"][0]
    assert not entry["complete"]
    assert 0 < entry["figures"]["jobs"]["arrived"] < 60_000


def test_spans() -> None:
    assert [span(s) for s in (None, 0, 59.6, 61, 3600, 3700, 90_000)] == ["", "0s", "1m", "1m1s", "1h", "1h1m", "1d1h"]
