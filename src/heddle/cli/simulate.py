"""`heddle simulate`: what would have become of recorded or made-up work, under other policies and on other clusters."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from heddle import collector
from heddle.cli.durations import duration, span
from heddle.cli.errors import FAILED, USAGE, fail
from heddle.cli.outlook import WhatIf, simulated, stoppable
from heddle.cli.outlook import queues as read_queues
from heddle.cli.show import console, table
from heddle.simulator import clusters, sources
from heddle.simulator.measures import Figures
from heddle.simulator.policies import POLICIES
from heddle.simulator.studies import Case, Goal, impossible, run, run_all, sizes, smallest

INTERRUPTED = 130


def simulate(
    trace: Annotated[
        str | None,
        typer.Argument(
            help="A trace (docs/traces.md: heddle's own CSV, openb, ITP, Philly, SWF; .gz, .bz2, .xz as "
            "they are), or made-up work as synthetic:jobs=1000,gpus=1|2|8,load=0.9,seed=1.",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="128x8xH100 (nodes x GPUs x model), several joined with +, or a file of nodes."),
    ] = None,
    policies: Annotated[
        str, typer.Option("--policy", help="One or several, comma-separated; --policies lists them.")
    ] = "heddle",
    list_policies: Annotated[bool, typer.Option("--policies", help="List the policies and their sources.")] = False,
    sweep: Annotated[
        str | None, typer.Option(help="Several sizes: nodes=64..256 (5 of them), nodes=64..256:32 or nodes=64,96,128.")
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option(help="With --sweep: the fewest nodes in its range that keep to this, as 'p95 wait < 10m'."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help=f"Of the trace, if it is not seen: {', '.join(sources.FORMS)}."),
    ] = None,
    racks: Annotated[
        str | None, typer.Option(help="Nodes of a rack, and racks of a block: 16 or 16/8. Gives a topology.")
    ] = None,
    topology: Annotated[
        Path | None, typer.Option(help="A CSV that says for hosts where they are: host, then levels, outermost first.")
    ] = None,
    queues: Annotated[
        Path | None, typer.Option(help="Queues of heddle (YAML manifests): quotas, limits and weights to try.")
    ] = None,
    failing: Annotated[
        str | None,
        typer.Option("--failures", help="Mean time between failures of a node, and of a repair: 30d/4h."),
    ] = None,
    interval: Annotated[
        str | None, typer.Option(help="At most one cycle in so long a time (10s): quicker, and a little coarser.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Stop so long after the first arrival (30d).")] = None,
    first: Annotated[int | None, typer.Option(help="Only the first so many jobs.")] = None,
    seed: Annotated[int, typer.Option(help="For failures.")] = 0,
    world: Annotated[
        str | None,
        typer.Option(
            "--snapshot",
            help="What heddle snapshot wrote, or live for the heddle that is up: says who will start when. A trace, "
            "--submit, --add-nodes and --queues (others than there, or more) say what else to try.",
        ),
    ] = None,
    add_nodes: Annotated[
        str | None, typer.Option(help="With --snapshot: so many nodes more, like the largest; or like one: 4xNODE.")
    ] = None,
    submit: Annotated[
        list[Path] | None, typer.Option(help="With --snapshot: a TrainingJob (YAML) that is submitted. Repeatable.")
    ] = None,
    assume: Annotated[
        str | None,
        typer.Option(help="With --snapshot: how long work without a walltime runs; what runs already, from now on."),
    ] = None,
    processes: Annotated[
        int, typer.Option(help="Simulations at once; the figures do not depend on it. 0 = as many as there are CPUs.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="All figures as one JSON document.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots to this file (HTML).")] = None,
) -> None:
    """Run work through heddle's scheduler in virtual time, and compare policies and cluster sizes (docs/simulator.md).

    heddle simulate jobs.csv --cluster 16x8xH100 --policy heddle,fifo,easy --report out.html

    heddle simulate --snapshot live --add-nodes 4

    Ctrl-C gives what there is by then.
    """
    if list_policies:
        table(("NAME", "WHAT IT DOES", "SOURCE"), [(p.name, p.title, p.source) for p in POLICIES.values()])
        return
    if world is not None:
        refused = {
            "--cluster": cluster, "--policy": policies != "heddle", "--sweep": sweep, "--goal": goal, "--racks": racks,
            "--topology": topology, "--failures": failing, "--interval": interval, "--report": report,
        }  # fmt: skip
        if strange := [option for option, value in refused.items() if value]:
            raise fail(f"{strange[0]}: a snapshot goes on as it is; leave it out with --snapshot", USAGE)
        tried = WhatIf(trace, form, None if first is None else max(first, 0), tuple(submit or ()), queues, add_nodes)
        try:
            whole = simulated(
                world,
                tried,
                assumed=_seconds("--assume", assume) if assume else None,
                until=_seconds("--until", until) if until else math.inf,
                as_json=as_json,
            )
        except ValueError as error:
            raise fail(str(error), USAGE) from None
        if not whole:
            raise SystemExit(INTERRUPTED)
        return
    if alone := [
        name for name, value in (("--add-nodes", add_nodes), ("--submit", submit), ("--assume", assume)) if value
    ]:
        raise fail(f"{alone[0]}: is for --snapshot FILE", USAGE)
    if trace is None or cluster is None:
        raise fail("say what to run and where: heddle simulate TRACE --cluster 128x8xH100 (see --help)", USAGE)
    try:
        cases = _cases(trace, cluster, policies, form, racks, topology, queues, failing, interval, until, first, seed)
        counts = _counts(sweep, goal)
        wanted = Goal.of(goal) if goal else None
    except ValueError as error:
        raise fail(str(error), USAGE) from None
    study, complete = _study(cases, counts, wanted, processes or os.cpu_count() or 1)
    if report is not None:
        from heddle.simulator.report import html

        report.write_text(html(study), encoding="utf-8")
    if as_json:
        print(json.dumps(study, indent=1))
    else:
        _print(study)
        if report is not None:
            console.print(f"The report is in {report}.", markup=False)
    if not complete:
        raise SystemExit(INTERRUPTED)
    if wanted is not None and any(answer["nodes"] is None for answer in study["answers"]):
        raise SystemExit(FAILED)


def _cases(
    trace: str,
    cluster: str,
    policies: str,
    form: str | None,
    racks: str | None,
    topology: Path | None,
    queues: Path | None,
    failing: str | None,
    interval: str | None,
    until: str | None,
    first: int | None,
    seed: int,
) -> list[Case]:
    there = clusters.read(cluster)
    if racks is not None:
        size, _, blocks = racks.partition("/")
        there = clusters.in_racks(there, clusters.Racks(_number("--racks", size), _number("--racks", blocks or "0")))
    if topology is not None:
        there = clusters.along(there, topology)
    if queues is not None:
        there = replace(there, queues=read_queues(queues))
    found = sources.read(trace, form=form, node_gpus=there.node_gpus, capacity=there.gpus)
    if first is not None:
        found = replace(found, jobs=found.jobs[: max(first, 0)])
    if not found.jobs:
        raise ValueError(f"{trace}: there is no job in it")
    names = [name.strip() for name in policies.split(",")]
    for name in names:
        if name not in POLICIES:
            raise ValueError(f"--policy: {name!r} is not known; use some of {', '.join(POLICIES)}")
    return [
        Case(
            name,
            there,
            found,
            interval=_seconds("--interval", interval) if interval else 0.0,
            failing=_failing(failing, seed),
            until=found.jobs[0].submit + _seconds("--until", until) if until else None,
        )
        for name in names
    ]


def _counts(sweep: str | None, goal: str | None) -> tuple[int, ...] | None:
    if sweep is None:
        if goal is not None:
            raise ValueError("--goal: say in which range to look, as --sweep nodes=16..256")
        return None
    what, _, text = sweep.partition("=")
    if what != "nodes":
        raise ValueError(f"--sweep: {sweep!r} is not valid; give nodes=64..256")
    return sizes(text)


def _failing(text: str | None, seed: int) -> tuple[float, float, int] | None:
    if text is None:
        return None
    between, _, repair = text.partition("/")
    if not repair:
        raise ValueError(f"--failures: {text!r} is not valid; give two times as 30d/4h")
    return _seconds("--failures", between), _seconds("--failures", repair), seed


def _seconds(option: str, text: str) -> float:
    try:
        return float(duration(text))
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _number(option: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{option}: {text!r} is not valid; give a whole number")
    return int(text)


# -- running ---------------------------------------------------------------------------------------


def _study(
    cases: list[Case], counts: Sequence[int] | None, goal: Goal | None, processes: int
) -> tuple[dict[str, Any], bool]:
    """All runs as a study, and whether none was cut short."""
    entries: dict[int, Figures] = {}
    answers: list[dict[str, Any]] = []
    complete = True
    trace = cases[0].trace
    if goal is None and counts is not None:
        cases = [replace(case, cluster=case.cluster.resized(count)) for case in cases for count in counts]
    for case in cases if goal is None else []:
        if lost := impossible(case):
            many = f"job {lost[0].name} asks" if len(lost) == 1 else f"{len(lost):,} jobs, as {lost[0].name}, ask"
            where = f"{case.cluster.name} ({len(case.cluster.nodes)} nodes)"
            note(f"{where}: {many} for more GPUs than there are, and will wait for ever")
    collector.relax()
    with _Bars(len(cases), len(trace.jobs)) as progress:
        try:
            if goal is not None and counts is not None:
                for case in cases:
                    fewest, tried = smallest(case, goal, counts[0], counts[-1])
                    entries.update(enumerate(tried, len(entries)))
                    answers.append(_answer(case, goal, fewest, counts))
            elif len(cases) == 1:
                entries[0] = _one(cases[0], progress)
            else:
                entries.update(run_all(cases, processes, progress.tell))  # Ctrl-C leaves those that are done
        except KeyboardInterrupt:
            complete = False
    complete = complete and all(entry["complete"] or cases[0].until is not None for entry in entries.values())
    last = max(job.submit for job in trace.jobs)
    study = {
        "trace": {
            "name": trace.name,
            "jobs": len(trace.jobs),
            "gpu_hours": round(math.fsum(j.gpus * j.duration for j in trace.jobs if j.duration < math.inf) / 3600, 3),
            "seconds": round(last - trace.jobs[0].submit, 3),
        },
        "seed": cases[0].failing[2] if cases[0].failing else None,
        "runs": [entries[at] for at in sorted(entries)],
    }
    if answers:
        study["answers"] = answers
    return study, complete


def _one(case: Case, progress: "_Bars") -> Figures:
    """One simulation, of which Ctrl-C leaves what there is."""
    with stoppable() as stopped:

        def watch(world: Any) -> bool:
            progress.tell(0, world.ended)
            return not stopped()

        return run(case, watch)


def _answer(case: Case, goal: Goal, fewest: int | None, counts: Sequence[int]) -> dict[str, Any]:
    found = "none" if fewest is None else f"{fewest} nodes ({case.cluster.resized(fewest).gpus:,} GPUs)"
    return {
        "question": f"smallest cluster that keeps to a {goal}",
        "policy": case.policy,
        "answer": f"none of {counts[0]} to {counts[-1]} nodes" if fewest is None else found,
        "nodes": fewest,
        "detail": "found by halving: more nodes are taken to be no worse",
    }


class _Bars:
    """Progress of all simulations on standard error; nothing where that is no terminal."""

    def __init__(self, runs: int, jobs: int) -> None:
        shown = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("jobs, {task.fields[speed]}/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=shown,
            disable=not shown.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task(f"{runs} run{'s' * (runs != 1)}", total=runs * jobs, speed="")
        self._done = [0] * runs
        self._told = 0

    def __enter__(self) -> "_Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tell(self, at: int, done: int) -> None:
        """A run came so far."""
        self._done[at] = done
        total = sum(self._done)
        if total - self._told >= 50 or total < self._told:
            self._told = total
            task = self._progress.tasks[0]
            speed = f"{task.speed:,.0f}" if task.speed else ""
            self._progress.update(self._task, completed=total, speed=speed)


def note(message: str) -> None:
    """A remark on standard error."""
    typer.echo(f"heddle: {message}", err=True)


# -- printing --------------------------------------------------------------------------------------


def _print(study: dict[str, Any]) -> None:
    trace = study["trace"]
    hours = f"{trace['gpu_hours']:,.0f} GPU-hours" if trace["gpu_hours"] else "no GPU time"
    console.print(f"{trace['name']}: {trace['jobs']:,} jobs over {span(trace['seconds'])}, {hours}", markup=False)
    rows = []
    for entry in study["runs"]:
        found, jobs = entry["figures"], entry["figures"]["jobs"]
        wait, turn = found["wait"] or {}, found["turnaround"] or {}
        left = jobs["running"] + jobs["waiting"]
        rows.append(
            (
                entry["policy"],
                f"{entry['cluster']['nodes']} ({entry['cluster']['gpus']:,})",
                f"{jobs['done'] + jobs['timed out']:,}" + (f" ({left:,} left)" if left else ""),
                *(span(wait.get(which)) for which in ("mean", "p50", "p95", "p99")),
                span(turn.get("mean")),
                span(found["makespan"]),
                "" if found["utilisation"] is None else f"{found['utilisation']:.1%}",
                f"{found['evictions']:,}",
                f"{found['gpu_hours']['lost']:,.0f}",
                "" if entry["complete"] else "cut short",
            )
        )
    head = "POLICY", "NODES (GPUS)", "DONE", "WAIT MEAN", "P50", "P95", "P99", "TURNAROUND", "MAKESPAN", "IN USE"
    table((*head, "EVICTIONS", "LOST GPU-H", ""), rows)
    for answer in study.get("answers", ()):
        console.print(f"{answer['policy']}: {answer['question']}: {answer['answer']}", markup=False)
