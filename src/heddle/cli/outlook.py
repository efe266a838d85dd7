"""`heddle snapshot`, and `heddle simulate --snapshot`: what is expected to become of a live heddle's work."""

import json
import math
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
import yaml

from heddle.api.admission import admit
from heddle.api.clock import to_text
from heddle.api.errors import ApiError
from heddle.api.queue import Queue
from heddle.api.registry import QUEUES, TRAININGJOBS
from heddle.api.trainingjob import TrainingJob
from heddle.api.validate import faults
from heddle.cli.durations import span
from heddle.cli.errors import fail, told
from heddle.cli.options import client
from heddle.cli.show import console, table, waiting
from heddle.control.scheduling.adapter import models_of, queue_spec, workload_spec
from heddle.control.training import pods as build
from heddle.engine.model import QueueSpec
from heddle.simulator import clusters, present, snapshot, sources
from heddle.simulator.clusters import Cluster
from heddle.simulator.jobs import Job
from heddle.simulator.outlook import Figures, outlook
from heddle.simulator.snapshot import Recorded

LIVE = "live"
"""In place of a file: the heddle that is up."""


def recorded(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; .gz, .bz2 and .xz are compressed.")
    ] = None,
) -> None:
    """Write down what the scheduler knows, for heddle simulate --snapshot (docs/simulator.md)."""
    found = _live()
    if output is None:
        sys.stdout.write(snapshot.dump(found).decode())
        return
    try:
        snapshot.write(output, found)
    except OSError as error:
        raise fail(f"{output}: cannot be written: {error.strerror}") from None
    world = found.snapshot
    print(f"{len(world.nodes)} nodes, {len(world.queues)} queues and {len(world.workloads)} workloads are in {output}")


def _live() -> Recorded:
    with told(), waiting("asking the scheduler"), client() as c:
        return snapshot.load(msgspec.json.encode(c.snapshot()), "the answer")


@dataclass(frozen=True)
class WhatIf:
    """What is tried with the world of a snapshot.

    Attributes:
        trace: jobs that come on top, from the moment of the snapshot on.
        form: of the trace.
        first: only so many of them.
        submit: files of TrainingJobs that are submitted at that moment.
        queues: file of Queues that are otherwise, or new.
        nodes: ``4``, or ``4xNODE``: so many more, like the largest or that one.
    """

    trace: str | None = None
    form: str | None = None
    first: int | None = None
    submit: tuple[Path, ...] = ()
    queues: Path | None = None
    nodes: str | None = None

    def __bool__(self) -> bool:
        return any((self.trace, self.submit, self.queues, self.nodes))


def simulated(
    source: str, tried: WhatIf, *, assumed: float | None = None, until: float = math.inf, as_json: bool = False
) -> bool:
    """Prints who starts when, beside when it would without what is tried; returns whether nothing was cut short.

    Args:
        source: a file, or :data:`LIVE`.
        tried: what else is so.
        assumed: seconds that work without a walltime is taken to run.
        until: seconds after the snapshot at which to stop.
        as_json: all of it as one document.

    Raises:
        ValueError: something of it is broken.
    """
    found = _live() if source == LIVE and not Path(LIVE).exists() else snapshot.read(Path(source))
    now = present.of(found, assumed)
    there = clusters.of_snapshot(source, now.snapshot)
    other, jobs = _tried(there, tried, found.at, assumed)
    with stoppable() as stopped:

        def watch(_: object) -> bool:
            return not stopped()

        before = outlook(there, now, until=found.at + until, watch=watch) if tried else None
        after = outlook(other, now, jobs, until=found.at + until, watch=watch)
    if as_json:
        print(json.dumps({"outlook": after} | ({"as_it_is": before} if before else {}), indent=1))
    else:
        _print(after, before)
    return not stopped()


@contextmanager
def stoppable() -> Iterator[Any]:
    """While this lasts Ctrl-C is heard and no more: yields whether it came."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)


# -- what is tried ---------------------------------------------------------------------------------


def _tried(there: Cluster, tried: WhatIf, at: float, assumed: float | None) -> tuple[Cluster, list[Job]]:
    """The cluster and the jobs on top."""
    models = frozenset[str]().union(*map(models_of, there.queues))
    cut = any(device.mig for node in there.nodes for device in node.devices)  # heddle says who gets which instance
    if tried.nodes is not None:
        count, _, like = tried.nodes.partition("x")
        if not count.isascii() or not count.isdigit():
            raise ValueError(f"--add-nodes: {tried.nodes!r} is not valid; give 4, or 4xNODE for four like that node")
        there = there.grown(int(count), like)
    if tried.queues is not None:
        wanted = {queue.name: queue for queue in queues(tried.queues)}
        if strange := sorted(frozenset[str]().union(*map(models_of, wanted.values())) - models):
            raise ValueError(f"{tried.queues}: the snapshot does not count GPUs of {strange[0]}; leave that model out")
        kept = (queue for queue in there.queues if queue.name not in wanted)
        there = replace(there, queues=(*kept, *wanted.values()))
    jobs: list[Job] = []
    for path in tried.submit:
        for document in documents(path):
            job = present.job_of(_workload(path, document, at, models, picks=cut), at, assumed)
            if job.queue not in {queue.name for queue in there.queues}:
                raise ValueError(f"{path}: queue {job.queue!r} is not there; name one that is, or give it in --queues")
            jobs.append(replace(job, submit=at))
    if tried.trace is not None:
        trace = sources.read(tried.trace, form=tried.form, node_gpus=there.node_gpus, capacity=there.gpus)
        coming = trace.jobs[: tried.first]
        jobs += [_later(job, at - coming[0].submit) for job in coming]
    return there, jobs


def _later(job: Job, seconds: float) -> Job:
    cancel = None if job.cancel is None else job.cancel + seconds
    return replace(job, submit=job.submit + seconds, cancel=cancel)


def documents(path: Path) -> list[Any]:
    """The manifests of a file of YAML.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None


def queues(path: Path) -> tuple[QueueSpec, ...]:
    """Queues of a file of manifests.

    Raises:
        ValueError: it cannot be read, or holds anything else.
    """
    found = []
    for at, document in enumerate(documents(path)):
        where = f"{path}: manifest {at + 1}"
        if not isinstance(document, dict) or document.get("kind") != "Queue":
            raise ValueError(f"{where}: is no Queue; leave anything else out")
        if wrong := faults(QUEUES, document):
            raise ValueError(f"{where}: {wrong[0]}")
        found.append(queue_spec(msgspec.convert(document, Queue)))
    if not found:
        raise ValueError(f"{path}: holds no Queue")
    return tuple(found)


def _workload(path: Path, document: Any, at: float, models: frozenset[str], *, picks: bool) -> Any:
    if not isinstance(document, dict) or document.get("kind") != "TrainingJob":
        raise ValueError(f"{path}: holds something that is no TrainingJob; leave it out")
    try:
        document.setdefault("metadata", {}).setdefault("namespace", "default")
        job = msgspec.convert(admit(TRAININGJOBS, None, document, "CREATE"), TrainingJob)
    except (ApiError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from None
    job.metadata.name = job.metadata.name or f"{job.metadata.generate_name}new"
    workload = build.workload(job)
    if any(pod_set.seeks_company for pod_set in workload.spec.pod_sets):
        raise ValueError(f"{path}: spec.podAffinity: a snapshot does not know the labels of pods; leave it out")
    workload.metadata.creation_timestamp = to_text(at)
    return workload_spec(
        workload, [build.pod(job, index) for index in range(job.spec.size)], models=models, picks=picks
    )


# -- printing --------------------------------------------------------------------------------------


def _print(after: Figures, before: Figures | None) -> None:
    rows = after["jobs"]
    runs = sum(row["state"] == "running" for row in rows)
    waits = [row for row in rows if row["state"] != "running"]
    there = after["cluster"]
    console.print(
        f"at {to_text(after['at'])}, with {there['nodes']} nodes ({there['gpus']:,} GPUs): {_jobs(runs)} running, "
        f"{len(waits)} waiting",
        markup=False,
    )
    was = {row["name"]: row for row in before["jobs"]} if before else {}
    if waits:
        head = ("JOB", "QUEUE", "GPUS", "STARTS", "ENDS", *(("AS IT IS",) if before else ()))
        table(head, [_line(row, was) for row in waits])
    starts = [row["start"] for row in waits if row["start"] is not None]
    if starts:
        mean = math.fsum(starts) / len(starts)
        console.print(
            f"{_jobs(len(starts))} to start, after {span(mean)} in the mean, the last after {span(starts[-1])}"
        )
    if silent := len(waits) - len(starts):
        why = "nothing that is known to end makes room; see --assume"
        if not after["complete"] or after["until"] is not None:
            why = "cut short" if not after["complete"] else f"not within {span(after['until'])}"
        console.print(f"{_jobs(silent)} of which nobody can say: {why}", markup=False)
    for names, what in ((_evicted(after, was), "loses its place"), (_spared(after, was), "keeps its place now")):
        for name in names:
            console.print(f"{name} {what}", markup=False)


def _line(row: Figures, was: dict[str, Figures]) -> Sequence[str]:
    found = (row["name"], row["queue"], f"{row['gpus']:g}", _when(row["start"]), _when(row["end"]))
    if not was:
        return found
    old = was.get(row["name"])
    return (*found, "new" if old is None else _when(old["start"]))


def _evicted(after: Figures, was: dict[str, Figures]) -> list[str]:
    return [r["name"] for r in after["jobs"] if r["evictions"] > was.get(r["name"], {"evictions": 0})["evictions"]]


def _spared(after: Figures, was: dict[str, Figures]) -> list[str]:
    return [r["name"] for r in after["jobs"] if r["evictions"] < was.get(r["name"], {"evictions": 0})["evictions"]]


def _jobs(count: int) -> str:
    return f"{count} job{'s' * (count != 1)}"


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return "now" if seconds <= 0 else f"in {span(seconds)}"
