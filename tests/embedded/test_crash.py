"""heddle is killed with -9, again and again: no job loses its outcome, no pod runs twice at once, nothing is left over.

Programs report to one file (O_APPEND) and hold a lock on a file of their pod's name while they run: whoever finds it
held writes DOUBLE. Kills come after a number of reports that is drawn with a fixed seed.
"""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from heddle import Client
from heddle.api.trainingjob import TrainingJob
from heddle.embedded.places import Places

PROGRAM = """
import fcntl, os, sys, time
folder, code, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
pod, last = os.environ["HEDDLE_POD"], os.environ["PET_NODE_RANK"] == str(int(os.environ["PET_NNODES"]) - 1)
reports = os.open(folder + "/reports", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def say(what):
    line = f"{pod} {os.environ['HEDDLE_POD_UID']}/{os.environ['HEDDLE_GENERATION']} {what}\\n"
    os.write(reports, line.encode())
lock = os.open(f"{folder}/{pod}.lock", os.O_RDWR | os.O_CREAT)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    say("DOUBLE")
say("start")
time.sleep(seconds)
say("end")
sys.exit(code if last else 0)
"""
PATIENCE = 60.0


@dataclass(frozen=True, kw_only=True)
class Job:
    name: str
    nodes: int
    gpus: int
    code: int
    seconds: float
    max_restarts: int = 0


class World:
    """One data directory, the heddle that is killed in it, and what its programs report."""

    def __init__(self, root: Path) -> None:
        self.home, self.reports = root / "home", root / "programs"
        self.reports.mkdir()
        self.program = self.reports / "program.py"
        self.program.write_text(PROGRAM)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.home.mkdir(exist_ok=True)
        argv = [sys.executable, "-m", "heddle.cli", "up", "--foreground", "--simulate", "2x8xH100"]
        with (self.home / "heddle.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k != "KUBECONFIG"}
        return {**kept, "HEDDLE_HOME": str(self.home)}

    def ready(self) -> None:
        assert self.process is not None
        mine = self.process

        def up() -> bool:
            assert mine.poll() is None, (self.home / "heddle.log").read_text()[-3000:]
            found = Places(self.home).find()
            return found is not None and found.pid == mine.pid

        until(up, "heddle is not ready")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def client(self) -> Client:
        return Client(kubeconfig=self.home / "kubeconfig")

    def submit(self, client: Client, job: Job) -> None:
        client.run(
            [sys.executable, "-ISE", str(self.program), str(self.reports), str(job.code), str(job.seconds)],
            name=job.name,
            nodes=job.nodes,
            gpus=job.gpus,
            max_restarts=job.max_restarts,
        )

    def lines(self) -> list[list[str]]:
        try:
            return [line.split() for line in (self.reports / "reports").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def wait_for_news(self, count: int, patience: float = 1.5) -> None:
        """Until so many more reports are there, or none comes."""
        target, deadline = len(self.lines()) + count, time.monotonic() + patience
        while len(self.lines()) < target and time.monotonic() < deadline:
            time.sleep(0.005)

    def processes(self) -> list[psutil.Process]:
        """All processes of this data directory: heddle's, shims and programs."""
        found = []
        for process in psutil.process_iter(["cmdline", "pid", "status"]):
            line = " ".join(process.info["cmdline"] or ())
            marked = str(self.home) in line or str(self.program) in line
            if marked and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def shims(self) -> list[psutil.Process]:
        return [p for p in self.processes() if any(part.endswith("shim.py") for part in p.info["cmdline"])]

    def ended(self, jobs: list[Job]) -> dict[str, TrainingJob]:
        """All jobs, once each has its outcome."""
        found: dict[str, TrainingJob] = {}
        with self.client() as client:

            def done() -> bool:
                found.update({job.metadata.name: job for job in client.list("trainingjobs")})
                return all(found[job.name].status.phase in ("Succeeded", "Failed") for job in jobs)

            until(done, "jobs without an outcome", every=0.2)
        return found


def until(condition: Callable[[], bool], problem: str, *, every: float = 0.01) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(every)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()
    for process in made.processes():
        process.kill()


def crash(world: World, jobs: list[Job], kills: int, seed: int, *, shims: bool) -> None:
    """Submit the jobs bit by bit while heddle is killed at so many moments; afterwards heddle is up."""
    draw = random.Random(seed)
    waiting = list(jobs)
    rounds_with_news = kills * 2 // 3
    for i in range(kills):
        world.start()
        if i and draw.random() < 0.15:  # while it starts
            world.wait_for_news(draw.randint(1, 3), patience=draw.uniform(0.0, 1.0))
        else:
            world.ready()
            batch = -(-len(waiting) // max(1, rounds_with_news - i))
            with world.client() as client:
                for job in waiting[:batch]:
                    world.submit(client, job)
            del waiting[:batch]
            world.wait_for_news(draw.randint(0, 6))
        world.kill()
        if shims:
            for process in world.shims():
                if draw.random() < 0.5:
                    process.kill()
    world.start()
    world.ready()
    with world.client() as client:
        for job in waiting:
            world.submit(client, job)


def nothing_is_left(world: World) -> None:
    until(lambda: not world.shims(), "shims outlive their jobs", every=0.1)
    assert world.process is not None
    down = subprocess.Popen([sys.executable, "-m", "heddle.cli", "down", "--yes"], env=world.environment())
    try:
        world.process.wait(timeout=30)  # it is our child: gone only once we have asked
        assert down.wait(timeout=30) == 0
    finally:
        down.kill()
    left = [p.info["cmdline"] for p in world.processes()]
    assert not left


@pytest.mark.slow
def test_jobs_keep_their_outcome_when_heddle_is_killed_at_20_moments(world: World) -> None:
    draw = random.Random(20)
    jobs = [
        Job(
            name=f"job-{i}",
            nodes=draw.randint(1, 4),
            gpus=draw.choice((1, 2, 4)),
            code=draw.choice((0, 0, 3, 42)),
            seconds=round(draw.uniform(0.1, 1.2), 2),
        )
        for i in range(30)
    ]
    crash(world, jobs, kills=20, seed=1, shims=False)
    found = world.ended(jobs)
    outcomes = {name: (job.status.phase, job.status.exit_code) for name, job in found.items()}
    assert outcomes == {job.name: ("Failed" if job.code else "Succeeded", job.code) for job in jobs}
    nothing_is_left(world)
    reports = world.lines()
    assert not [line for line in reports if line[2] == "DOUBLE"]
    starts = Counter(line[0] for line in reports if line[2] == "start")
    assert starts == Counter(f"{job.name}-{i}" for job in jobs for i in range(job.nodes))


@pytest.mark.slow
def test_jobs_end_as_stated_when_shims_are_killed_too(world: World) -> None:
    draw = random.Random(10)
    jobs = [
        Job(
            name=f"job-{i}",
            nodes=draw.randint(1, 3),
            gpus=draw.choice((1, 2)),
            code=3 if i % 3 == 2 else 0,
            seconds=round(draw.uniform(0.2, 1.0), 2),
            max_restarts=0 if i % 3 == 2 else 1000,
        )
        for i in range(10)
    ]
    crash(world, jobs, kills=6, seed=2, shims=True)
    found = world.ended(jobs)
    for job in jobs:
        status = found[job.name].status
        if job.code == 0:
            assert (status.phase, status.exit_code) == ("Succeeded", 0), status.message
        else:
            assert status.phase == "Failed"
            assert status.exit_code == 3 or (status.exit_code == 137 and "ShimLost" in status.message), status.message
    nothing_is_left(world)
    assert not [line for line in world.lines() if line[2] == "DOUBLE"]
