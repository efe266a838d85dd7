"""Verbs about jobs: run, ps, logs, explain."""

import sys
import threading
from typing import Annotated, Any

import typer

from heddle.api.errors import ApiError, NotFound, Unavailable
from heddle.api.mig import asked_of
from heddle.api.trainingjob import NodeSet, Role, TrainingJob
from heddle.api.workload import USER_ANNOTATION
from heddle.cli.answers import cost, preview, waits
from heddle.cli.durations import duration
from heddle.cli.errors import FAILED, INTERRUPTED, USAGE, confirm, fail, quiet_end, told
from heddle.cli.follow import ENDED, JobLogs, Printer
from heddle.cli.options import Namespace, Output, PlainOutput, client
from heddle.cli.show import ago, console, gpus, serialised, table, waiting


def run(
    command: Annotated[list[str], typer.Argument(help="Program and arguments, after --.")],
    image: Annotated[str, typer.Option(help="Container image that it runs in; a cluster needs one.")] = "",
    gpus_: Annotated[float, typer.Option("--gpus", help="GPUs of each node; below 1 a share of one.", min=0)] = 0,
    gpu_memory: Annotated[
        str | None, typer.Option(help="Memory of one GPU that each node uses, such as 20Gi, instead of --gpus.")
    ] = None,
    mig: Annotated[
        str, typer.Option(help="MIG instance that each node uses, such as 3g.40gb, instead of --gpus.")
    ] = "",
    gpu_model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model of GPUs, as nodes are labelled (heddle top -o wide). Repeatable: the best first. "
            "MODEL=0.45 also says how fast it is, where --time is for speed 1: the fastest first."
        ),
    ] = None,
    separate_gpus: Annotated[
        bool, typer.Option("--separate-gpus", help="No two nodes' shares are on the same GPU.")
    ] = False,
    nodes: Annotated[int, typer.Option(help="Nodes (pods).", min=1)] = 1,
    min_nodes: Annotated[int | None, typer.Option(help="Elastic: runs with as few as these.")] = None,
    node_step: Annotated[int, typer.Option(help="Elastic: so many nodes more or less at a time.", min=1)] = 1,
    no_resize: Annotated[
        bool, typer.Option("--no-resize", help="With --min-nodes: stays at as many nodes as it starts with.")
    ] = False,
    groups: Annotated[int, typer.Option(help="Replica groups of so many nodes each.", min=1)] = 1,
    min_groups: Annotated[int | None, typer.Option(help="Elastic: runs with as few groups as these.")] = None,
    cpus: Annotated[float | None, typer.Option(help="CPUs of each node.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory of each node, such as 16Gi.")] = None,
    name: Annotated[str, typer.Option(help="Name of the job.")] = "",
    queue: Annotated[str, typer.Option("--queue", "-q", help="Queue that pays.")] = "default",
    priority: Annotated[int, typer.Option(help="Higher goes first in its queue.")] = 0,
    non_preemptible: Annotated[
        bool, typer.Option("--non-preemptible", help="Never evicted; only within quota.")
    ] = False,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE. Repeatable.")] = None,
    secret_env: Annotated[
        list[str] | None,
        typer.Option(help="NAME=SECRET:KEY, or SECRET for all that it holds: from a Secret. Repeatable."),
    ] = None,
    service_account: Annotated[str, typer.Option(help="On a cluster: as which account its pods run.")] = "",
    image_pull_secret: Annotated[
        list[str] | None, typer.Option(help="On a cluster: Secret by which the image is pulled. Repeatable.")
    ] = None,
    user: Annotated[
        str,
        typer.Option(help="On a cluster: UID or UID:GID as whom it runs; Pod Security restricted takes any but 0."),
    ] = "",
    checkpoint: Annotated[
        str, typer.Option(help="Directory of checkpoints (HEDDLE_CHECKPOINT_DIR); on a cluster, one of a --volume.")
    ] = "",
    volume: Annotated[
        list[str] | None,
        typer.Option("--volume", help="On a cluster: CLAIM:/path[:ro], or /directory:/path of the node. Repeatable."),
    ] = None,
    shm: Annotated[str, typer.Option(help="On a cluster: size of /dev/shm, such as 8Gi.")] = "",
    upload: Annotated[
        str, typer.Option(help="On a cluster: a small directory of code (1 MB) to run in, as /workspace.")
    ] = "",
    grace: Annotated[
        str, typer.Option(help="Time to save a checkpoint when told to stop (SIGTERM), such as 2m; default 30s.")
    ] = "",
    gang_grace: Annotated[
        str, typer.Option(help="How long nodes left of it wait for replacements of lost ones, such as 5m; default 60s.")
    ] = "",
    max_restarts: Annotated[int, typer.Option(help="Restarts after failures.", min=0)] = 3,
    topology: Annotated[str, typer.Option(help="Node label of the level that must hold all nodes.")] = "",
    walltime: Annotated[
        str, typer.Option("--time", "-t", help="Ends the job after so long, such as 90m, 2h30m or 1-12:00:00.")
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say whether it would start now, where, at whose cost, and when else."),
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Submit and return.")] = False,
    namespace: Namespace = "default",
) -> None:
    """Submit a training, follow its logs, and exit with its code.

    heddle run --gpus 2 --nodes 2 -- python train.py

    On your machine it runs in the present directory, with your PATH and VIRTUAL_ENV; on a cluster in --image, to which
    --upload . adds your code. Ctrl-C asks whether to stop the job; off a terminal it leaves it running.
    """
    pairs = {}
    for text in env or []:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise fail(f"--env {text!r}: write NAME=VALUE", USAGE)
        pairs[key] = value
    limit, patience, waits_for = (
        _seconds(option, text) for option, text in (("time", walltime), ("grace", grace), ("gang-grace", gang_grace))
    )
    speeds = _speeds(gpu_model or [])
    with told(), client(namespace) as c:
        job = c.run(
            command,
            image=image,
            name=name,
            queue=queue,
            nodes=nodes,
            min_nodes=min_nodes,
            node_step=node_step,
            resizable=not no_resize,
            groups=groups,
            min_groups=min_groups,
            gpus=gpus_,
            gpu_memory=gpu_memory,
            mig=mig,
            gpu_models=() if speeds else gpu_model or (),
            gpu_speeds=speeds,
            separate_gpus=separate_gpus,
            cpus=cpus,
            memory=memory,
            priority=priority,
            preemptible=not non_preemptible,
            env=pairs,
            secret_env=secret_env or (),
            service_account=service_account,
            image_pull_secrets=image_pull_secret or (),
            user=user,
            checkpoint=checkpoint,
            volumes=volume or (),
            shared_memory=shm or None,
            upload=upload,
            grace=30 if patience is None else patience,
            gang_grace=waits_for,
            max_restarts=max_restarts,
            topology=topology,
            walltime=limit,
            dry_run=dry_run,
        )
        if dry_run:
            preview(c.preview(job))
            return
        made = job.metadata.name
        print(f"job {made} submitted to queue {queue}", file=sys.stderr)
        if detach:
            print(made)
            return
        raise SystemExit(_follow(c, made))


def _speeds(models: list[str]) -> dict[str, int | str]:
    """How fast each of the models is, where that is said of any."""
    named = [text.partition("=") for text in models]
    return {model: speed or 1 for model, _, speed in named} if any(sign for _, sign, _ in named) else {}


def _seconds(option: str, text: str) -> int | None:
    """The span of time that an option says; None where it is not given."""
    try:
        return duration(text) if text else None
    except ValueError as error:
        raise fail(f"--{option}: {error}", USAGE) from None


def _follow(c: Any, name: str) -> int:
    """Print the job's news and logs until it ends; returns its exit code."""
    printer = Printer()
    said = ""
    logs: JobLogs | None = None
    try:
        for job in c.follow("trainingjob", name):
            status = job.status
            logs = logs or JobLogs(c, job, printer, earlier=True, prefixed=True)
            news = f"{status.phase}: {status.message}" if status.message else status.phase
            if status.phase in ENDED:
                logs.finish()
            if news and news != said:
                pending = f"job {name} waits; why: heddle explain {name}" if status.phase == "Pending" else ""
                printer.say(f"[{name}] {news}", waiting=pending)
                said = news
            if status.phase in ENDED:
                if printer.broken.is_set():
                    quiet_end()
                return status.exit_code or (0 if status.phase == "Succeeded" else FAILED)
    except KeyboardInterrupt:
        with printer.held():
            return _interrupted(c, name)
    except Unavailable:
        printer.say(f"job {name} does not end with this; once heddle answers, follow it with: heddle logs -f {name}")
        raise
    return FAILED


def _interrupted(c: Any, name: str) -> int:
    """Ask whether to stop the job where somebody can answer; it goes on otherwise."""
    stop = False
    try:
        if sys.stdin.isatty() and sys.stderr.isatty():
            print(file=sys.stderr)
            stop = confirm(f"Stop job {name}?")
        if stop:
            c.delete("trainingjob", name)
            print(f"job {name} stopped", file=sys.stderr)
            return INTERRUPTED
    except KeyboardInterrupt:
        print(file=sys.stderr)
    follow, end = f"heddle logs -f {name}", f"heddle delete trainingjob {name} --yes"
    print(f"job {name} goes on; follow it with: {follow}; stop it with: {end}", file=sys.stderr)
    return INTERRUPTED


def ps(
    all_: Annotated[bool, typer.Option("--all", "-a", help="Ended jobs too.")] = False,
    namespace: Namespace = "default",
    output: Output = "",
) -> None:
    """List jobs: where they stand, and why they wait. `-o wide` adds user, priority, start, end and GPU-hours."""
    with told(), waiting("asking for jobs"), client(namespace) as c:
        jobs = [j for j in c.list("trainingjobs") if all_ or j.status.phase not in ENDED]
    if output in ("json", "yaml"):
        serialised(jobs, output)
        return
    headers = ["JOB", "QUEUE", "PHASE", "NODES", "GPUS/NODE", "RESTARTS", "AGE", "NEWS"]
    rows = [_row(j) for j in jobs]
    if output == "wide":
        headers[-1:-1] = ["USER", "PRIORITY", "STARTED", "ENDED", "GPU-HOURS"]
        for row, job in zip(rows, jobs, strict=True):
            row[-1:-1] = _wide(job)
    table(headers, rows)


def _row(job: TrainingJob) -> list[Any]:
    status = job.status
    active = "-" if status.phase in ENDED else status.active_nodes
    return [
        job.metadata.name, job.spec.queue, status.phase or "Pending", f"{active}/{job.spec.size}",
        ", ".join(_asked(nodes) for nodes in job.spec.node_sets), status.restarts,
        ago(job.metadata.creation_timestamp), status.message,
    ]  # fmt: skip


def _asked(nodes: NodeSet) -> str:
    """What one node has of GPUs."""
    asked = nodes.gpu_memory_per_node or ",".join(asked_of(nodes.resources_per_node)) or gpus(nodes.resources_per_node)
    return f"{nodes.name}: {asked}" if isinstance(nodes, Role) else str(asked)


def _wide(job: TrainingJob) -> list[Any]:
    status = job.status
    user = job.metadata.annotations.get(USER_ANNOTATION, "")
    hours = f"{status.gpu_seconds / 3600:.3f}"
    return [user, job.spec.priority, status.start_time or "-", status.completion_time or "-", hours]


def logs(
    name: Annotated[str, typer.Argument(help="Job or pod.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Until it ends: a job through all its restarts, a pod's present run.")
    ] = False,
    tail: Annotated[int | None, typer.Option(help="Only the last lines.", min=0)] = None,
    role: Annotated[str, typer.Option(help="Only of the job's pods with this role.")] = "",
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Of the run before.")] = False,
    timestamps: Annotated[bool, typer.Option(help="Time before each line.")] = False,
    namespace: Namespace = "default",
) -> None:
    """Print the log of a job's pods, or of one pod."""
    if follow and previous:
        raise fail("--follow and --previous: a run that has ended has nothing to follow", USAGE)
    printer = Printer()
    with told(), client(namespace) as c:
        try:
            job = c.get("trainingjob", name)
        except NotFound:
            job = None
        _known_role(job, role)
        if job is not None and follow:
            _follow_logs(c, job, printer, role=role, tail=tail, timestamps=timestamps)
            return
        pods = [name]
        if job is not None:
            pods = [p.metadata.name for p in c.pods(name, role=role) if p.spec.node_name]
            if not pods:
                why = f": {job.status.message}" if job.status.message else f"; why: heddle explain {name}"
                raise fail(f"no pod of job {name} has a node, so that there is no log yet{why}")
        for pod in pods:
            prefix = f"{pod}: ".encode() if len(pods) > 1 else b""
            rest = b""
            for chunk in c.logs(pod, follow=follow, tail=tail, previous=previous, timestamps=timestamps):
                *lines, rest = (rest + chunk).split(b"\n")
                printer.lines(prefix, lines)
                if printer.broken.is_set():
                    quiet_end()
                    return
            if rest:
                printer.lines(prefix, [rest])


def _known_role(job: TrainingJob | None, role: str) -> None:
    known = [one.name for one in job.spec.roles] if job is not None else []
    if role and role not in known:
        raise fail(f"--role {role}: " + (f"choose one of {', '.join(known)}" if known else "it has no roles"), USAGE)


def _follow_logs(c: Any, job: TrainingJob, printer: Printer, *, role: str, tail: int | None, timestamps: bool) -> None:
    name, several = job.metadata.name, job.spec.size > 1
    reading = JobLogs(c, job, printer, role=role, earlier=False, prefixed=several, tail=tail, timestamps=timestamps)
    ended = threading.Event()
    faults: list[ApiError] = []

    def until_end() -> None:
        try:
            c.wait(name)
            reading.finish()
        except ApiError as error:
            faults.append(error)
        ended.set()

    threading.Thread(target=until_end, daemon=True).start()
    while not ended.wait(0.2):
        if printer.broken.is_set():
            break
    if printer.broken.is_set():
        quiet_end()
    elif faults:
        raise faults[0]


def explain(
    name: Annotated[str, typer.Argument(help="Job; on a cluster also a workload, a pod, or a Job of Kubernetes.")],
    namespace: Namespace = "default",
    output: PlainOutput = "",
) -> None:
    """Why a job waits, the smallest change that would admit it, when it may start, and what it cost others."""
    with told(), waiting("asking the scheduler"), client(namespace) as c:
        found = c.explain(name)
    if output in ("json", "yaml"):
        serialised(found, output)
        return
    console.print(f"[bold]{found['workload']}[/bold]: {'admitted' if found['admitted'] else 'pending'}")
    waits(found)
    cost(found)
