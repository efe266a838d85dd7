"""What a job prints reaches who follows it: all of it, once, as it was printed."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import heddle as package

Heddle = Callable[..., Any]


def test_a_flood_of_lines_is_printed_to_its_end(heddle: Heddle) -> None:
    done = heddle("run", "--name", "flood", "--", "python", "-c", "for i in range(60000): print('line', i)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"flood-0: line {i}" for i in range(60000)]


def test_every_run_of_a_restarted_job_is_printed_once(heddle: Heddle) -> None:
    script = "echo attempt $HEDDLE_GENERATION; exit 9"
    done = heddle("run", "--max-restarts", "2", "--name", "rst", "--", "sh", "-c", script)
    assert done.returncode == 9
    assert done.stdout.splitlines() == [f"rst-0: attempt {n}" for n in (1, 2, 3)]


def test_following_a_job_goes_on_through_its_restarts(heddle: Heddle, home: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"  # the first run ends only once somebody follows it
    script = f"echo begin; while [ ! -e {seen} ]; do sleep 0.05; done; echo end; exit 5"
    assert heddle("run", "-d", "--max-restarts", "1", "--name", "again", "--", "sh", "-c", script).returncode == 0
    following = subprocess.Popen(
        [sys.executable, "-m", "heddle.cli", "logs", "-f", "again"],
        env={**os.environ, "HEDDLE_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    limit = Timer(60, following.kill)
    limit.start()
    with following:
        assert following.stdout is not None
        first = following.stdout.readline()
        seen.touch()
        rest = following.stdout.read()
    limit.cancel()
    assert following.returncode == 0
    assert (first + rest).splitlines() == ["begin", "end"] * 2
    stamped = heddle("logs", "-f", "--tail", "1", "--timestamps", "again").stdout
    assert stamped.startswith("20")
    assert stamped.endswith(" end\n")
    assert stamped.count("\n") == 1


def test_lines_of_several_pods_stay_whole(heddle: Heddle) -> None:
    script = "for i in $(seq 500); do echo $RANK$RANK$RANK$RANK; done"
    done = heddle("run", "--name", "many", "--nodes", "3", "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert Counter(done.stdout.splitlines()) == {f"many-{n}: {str(n) * 4}": 500 for n in range(3)}


def test_a_program_gets_its_arguments_byte_for_byte(heddle: Heddle) -> None:
    typed = ["$$", "$(HOME)", "$$(HOME)", "$$$", "$HOME", "a b"]
    script = "import os, sys; print(sys.argv[1:], os.environ['X'])"
    done = heddle("run", "--name", "bytes", "-e", "X=$$ $(HOME)", "--", "python", "-c", script, *typed)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"bytes-0: {typed} $$ $(HOME)\n"


def test_the_logs_of_a_job_without_pods_are_refused_plainly(heddle: Heddle) -> None:
    assert heddle("run", "-d", "--name", "early", "--gpus", "8", "--nodes", "9", "--", "true").returncode == 0
    done = heddle("logs", "early")
    assert done.returncode == 1
    assert "no pod of job early has a node" in done.stderr
    assert heddle("delete", "trainingjob", "early", "--yes").returncode == 0


def test_a_job_from_python_runs_where_its_caller_is(home: Path) -> None:
    with package.Client(kubeconfig=home / "kubeconfig") as client:
        job = client.run(["sh", "-c", "pwd; echo $(basename $PWD)"], name="where")
        assert client.wait("where", timeout=30).status.exit_code == 0
        assert job.spec.working_dir == str(Path.cwd())
        said = b"".join(client.logs("where-0")).decode().splitlines()
    assert said == [str(Path.cwd()), Path.cwd().name]
    assert "PATH" in {variable.name for variable in job.spec.env}
