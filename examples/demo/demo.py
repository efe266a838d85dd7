"""Two teams share sixteen simulated GPUs, and really train models on them.

Run it with `make demo` (`make demo ARGS=--keep` leaves everything running to look at). It waits on conditions, never on
the clock; the last line is `demo: passed`, or `demo: failed: WHY` with exit status 1.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import heddle
from heddle.api.errors import ApiError

TRAINING = Path(__file__).resolve().parent.parent / "digits" / "train.py"
HEDDLE = Path(sys.executable).with_name("heddle")
DEADLINE = 175
SIMULATED = {"heddle.dev/demo": "simulated"}
FIRST_CHECKPOINT = 200
STEPS = 600
TARGET = 95.0
QUIET = {  # two cores for four processes
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


class Failure(Exception):
    """Why the demo failed."""


class Timeline:
    """What happened, and when."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._rows: list[tuple[float, str]] = []

    def say(self, text: str) -> None:
        """One line of news."""
        now = time.monotonic() - self._begin
        self._rows.append((now, text))
        print(f"[{now:6.1f} s] {text}", flush=True)

    def show(self) -> None:
        """All of it again, in short."""
        print("\ntimeline:")
        for now, text in self._rows:
            print(f"  {now:6.1f} s  {text}")
        print(flush=True)


def command(*words: str) -> None:
    """A heddle command, shown with its output."""
    print(f"\n$ heddle {' '.join(words)}", flush=True)
    done = subprocess.run([HEDDLE, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, flush=True)
    if done.returncode:
        raise Failure(f"heddle {' '.join(words)} exited with {done.returncode}: {done.stdout.strip()[-300:]}")


def queue(name: str, quota: int) -> dict[str, Any]:
    return {
        "apiVersion": "heddle.dev/v1alpha1",
        "kind": "Queue",
        "metadata": {"name": name},
        "spec": {"quota": {"nvidia.com/gpu": quota}},
    }


def training(
    name: str, team: str, home: Path, *, nodes: int, min_nodes: int, gpus: int = 4, seed: int = 0
) -> dict[str, Any]:
    finish = home / f"{name}.finish"
    return {
        "apiVersion": "heddle.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name},
        "spec": {
            "queue": team,
            "command": [sys.executable, str(TRAINING), "--steps", str(STEPS), "--until-file", str(finish),
                        "--seed", str(seed)],
            "workingDir": str(home),
            "nodes": nodes,
            "minNodes": min_nodes,
            "resourcesPerNode": {"nvidia.com/gpu": gpus},
            "nodeSelector": SIMULATED,
            "checkpoint": {"path": str(home / "checkpoints" / name)},
            "terminationGracePeriodSeconds": 5,
            "env": [{"name": k, "value": v} for k, v in QUIET.items()],
        },
    }  # fmt: skip


def until(client: heddle.Client, kind: str, name: str, holds: Callable[[Any], bool]) -> Any:
    """The object once it is so; a training that fails meanwhile ends the demo."""
    while True:
        for event in client.watch(kind, field_selector=f"metadata.name={name}"):
            obj = event.object
            if obj is None:
                continue
            if holds(obj):
                return obj
            if event.type == "DELETED":
                raise Failure(f"{kind} {name} is gone")
            if obj.status.phase == "Failed":
                raise Failure(f"{name} failed: {obj.status.message}")


def first_pod(client: heddle.Client, job: str) -> str:
    """The member that has rank 0, which does the talking."""
    data = client.get("configmap", f"{job}-rendezvous").data
    return next(k.removeprefix("rank.") for k, v in data.items() if k.startswith("rank.") and v == "0")


def lines(client: heddle.Client, pod: str) -> Iterator[str]:
    """Lines of a pod's log, as they come, until its process ends."""
    rest = b""
    for chunk in client.logs(pod, follow=True):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")


def hear(client: heddle.Client, job: str, pattern: str, world: int) -> re.Match[str]:
    """The first line of the world with this generation that matches."""
    while True:
        present = -1
        try:
            for line in lines(client, first_pod(client, job)):
                if begun := re.match(r"world (\d+):", line):
                    present = int(begun[1])
                if present >= world and (found := re.search(pattern, line)):
                    return found
        except ApiError:
            pass  # its process has not started yet
        until(client, "trainingjob", job, lambda j: j.status.phase in ("Running", "Succeeded"))
        status = client.get("trainingjob", job).status
        if status.phase == "Succeeded" and present >= world:
            raise Failure(f"{job} ended without saying {pattern!r}")


def newest_checkpoint(directory: Path, before: int) -> int:
    """The highest step that a world before this generation saved."""
    steps = []
    for path in directory.glob("step-*.npz"):
        try:
            with np.load(path) as found:
                if int(found["generation"]) < before:
                    steps.append(int(found["step"]))
        except FileNotFoundError:
            continue  # dropped for a newer one meanwhile
    if not steps:
        raise Failure(f"no checkpoint of an earlier world in {directory}")
    return max(steps)


def share(client: heddle.Client, home: Path, line: Timeline) -> None:
    """The story."""
    nodes = client.list("nodes")
    simulated = [n for n in nodes if n.metadata.name.startswith("sim-")]
    for n in simulated:
        client.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": n.metadata.name, "labels": SIMULATED}})
    gpus = {n.metadata.name: int(n.status.allocatable.get("nvidia.com/gpu", 0)) for n in nodes}
    line.say("heddle is up with " + ", ".join(f"{name} ({count} GPUs)" for name, count in gpus.items()))
    for team in ("team-a", "team-b"):
        client.apply(queue(team, 8))
    line.say("queues team-a and team-b are applied: each is owed 8 GPUs")

    client.apply(training("digits-a", "team-a", home, nodes=4, min_nodes=2))
    until(client, "trainingjob", "digits-a", lambda j: j.status.phase == "Running" and j.status.active_nodes == 4)
    line.say("team-a's elastic training takes the idle cluster: 4 nodes x 4 GPUs, 8 over its quota")
    saved = hear(client, "digits-a", rf"checkpoint at step ({FIRST_CHECKPOINT}|\d{{4,}}),", 1)
    line.say(f"team-a's four processes train together: {saved.string}")
    command("queue", "tree")

    client.apply(training("digits-b", "team-b", home, nodes=2, min_nodes=2, seed=1))
    line.say("team-b submits 2 nodes x 4 GPUs, within its quota")
    until(client, "trainingjob", "digits-b", lambda j: j.status.phase == "Running")
    line.say("team-b has reclaimed its share: digits-b runs on 8 GPUs")
    job = until(
        client,
        "trainingjob",
        "digits-a",
        lambda j: j.status.phase == "Running" and j.status.active_nodes == 2 and j.status.resizes >= 1,
    )
    line.say(f"team-a's training shrank from 4 nodes to {job.status.active_nodes}, and goes on in a smaller world")
    world = job.status.rendezvous
    resumed = int(hear(client, "digits-a", r"resumed at step (\d+)", world)[1])
    kept = newest_checkpoint(home / "checkpoints" / "digits-a", world)
    line.say(f"team-a resumed at step {resumed}; the checkpoint of the larger world is of step {kept}")
    if not resumed == kept > 0:
        raise Failure(f"resumed at step {resumed}, but the checkpoint is of step {kept}")
    command("queue", "tree")

    impossible = training("impossible", "team-b", home, nodes=1, min_nodes=1, gpus=64)
    del impossible["spec"]["nodeSelector"]
    client.apply(impossible)
    until(client, "workload", "impossible", lambda w: bool(w.status.reasons))
    line.say("team-b asks for 64 GPUs on one node: this waits, and heddle says why")
    command("explain", "impossible")

    for team in "ab":
        name = f"digits-{team}"
        (home / f"{name}.finish").touch()
        found = hear(client, name, r"finished at step (\d+): held-out accuracy ([\d.]+)%", 1)
        until(client, "trainingjob", name, lambda j: j.status.phase == "Succeeded")
        line.say(f"team-{team} finished at step {found[1]} with accuracy {found[2]} % on held-out digits")
        if float(found[2]) < TARGET:
            raise Failure(f"{name} has accuracy {found[2]} %, below {TARGET} %")
    ended = client.get("trainingjob", "digits-a").status
    if ended.restarts:
        raise Failure(f"digits-a was restarted {ended.restarts} times after failures")
    command("ps", "--all")
    command("events")


def late(*_: Any) -> None:
    raise Failure(f"not done after {DEADLINE} s")


def stopped(*_: Any) -> None:
    raise Failure("stopped by SIGTERM")


def main() -> int:
    parser = argparse.ArgumentParser(description="two teams share simulated GPUs and really train")
    parser.add_argument("--keep", action="store_true", help="leave heddle running, to look at")
    args = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="heddle-demo-"))
    os.environ["HEDDLE_HOME"] = str(home / "heddle")
    os.environ.pop("KUBECONFIG", None)
    signal.signal(signal.SIGALRM, late)
    signal.signal(signal.SIGTERM, stopped)
    signal.alarm(DEADLINE)
    line = Timeline()
    why = ""
    try:
        command("up", "--simulate", "2x8xH100")
        with heddle.Client() as client:
            share(client, home, line)
    except Failure as failure:
        why = str(failure)
    except ApiError as error:
        why = f"heddle answered: {error}"
    except KeyboardInterrupt:
        why = "interrupted"
    except Exception as error:  # whatever it is, all is cleaned up and the last line tells
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        if why and (log := home / "heddle" / "heddle.log").exists():
            print("the end of heddle's log:", *log.read_text(errors="replace").splitlines()[-20:], sep="\n  ")
        line.show()
        if args.keep:
            print(f"heddle is left running; look at it with:\n  export HEDDLE_HOME={home / 'heddle'}")
            print(
                "  heddle status; heddle ps --all; heddle queue tree; heddle logs digits-a; heddle explain impossible"
            )
            print(f"and end it with:\n  heddle down --yes && rm -r {home}\n")
        else:
            try:
                command("down", "--yes")
            except Failure as failure:
                why = why or str(failure)
            shutil.rmtree(home, ignore_errors=True)
            if home.exists():
                why = why or f"{home} could not be removed"
    print(f"demo: failed: {' '.join(why.split())}" if why else "demo: passed", flush=True)
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
