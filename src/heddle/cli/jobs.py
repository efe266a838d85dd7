"""Verbs about jobs: run, ps, logs, explain."""

import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from heddle.api.errors import ApiError, BadRequest
from heddle.cli.errors import INTERRUPTED, USAGE, fail, told
from heddle.cli.show import ago, console, gpus, serialised, table

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace.")]
Output = Annotated[str, typer.Option("--output", "-o", help="json, yaml or wide.")]


def client(namespace: str = "default") -> Any:
    """A connection; importing it takes longer than parsing the command line."""
    from heddle.sdk import Client

    return Client(namespace=namespace)


def run(
    command: Annotated[list[str], typer.Argument(help="Program and arguments, after --.")],
    gpus_: Annotated[float, typer.Option("--gpus", help="GPUs of each node; below 1 a share of one.", min=0)] = 0,
    nodes: Annotated[int, typer.Option(help="Nodes (pods).", min=1)] = 1,
    min_nodes: Annotated[int | None, typer.Option(help="Elastic: runs with as few as these.")] = None,
    cpus: Annotated[float | None, typer.Option(help="CPUs of each node.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory of each node, such as 16Gi.")] = None,
    name: Annotated[str, typer.Option(help="Name of the job.")] = "",
    queue: Annotated[str, typer.Option("--queue", "-q", help="Queue that pays.")] = "default",
    priority: Annotated[int, typer.Option(help="Higher goes first in its queue.")] = 0,
    non_preemptible: Annotated[
        bool, typer.Option("--non-preemptible", help="Never evicted; only within quota.")
    ] = False,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE. Repeatable.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Directory of checkpoints (HEDDLE_CHECKPOINT_DIR).")] = "",
    max_restarts: Annotated[int, typer.Option(help="Restarts after failures.", min=0)] = 3,
    topology: Annotated[str, typer.Option(help="Node label of the level that must hold all nodes.")] = "",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Submit and return.")] = False,
    namespace: Namespace = "default",
) -> None:
    """Submit a training, follow its logs, and exit with its code.

    heddle run --gpus 2 --nodes 2 -- python train.py
    """
    pairs = {}
    for text in env or []:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise fail(f"--env {text!r}: write NAME=VALUE", USAGE)
        pairs[key] = value
    with told(), client(namespace) as c:
        job = c.run(
            command,
            name=name,
            queue=queue,
            nodes=nodes,
            min_nodes=min_nodes,
            gpus=gpus_,
            cpus=cpus,
            memory=memory,
            priority=priority,
            preemptible=not non_preemptible,
            env=pairs,
            working_dir=str(Path.cwd()),
            checkpoint=str(Path(checkpoint).resolve()) if checkpoint else "",
            max_restarts=max_restarts,
            topology=topology,
        )
        made = job.metadata.name
        print(f"job {made} submitted to queue {queue}", file=sys.stderr)
        if detach:
            print(made)
            return
        raise SystemExit(_follow(c, made))


def _follow(c: Any, name: str) -> int:
    """Print the job's news and logs until it ends; returns its exit code."""
    seen: set[str] = set()
    readers: list[threading.Thread] = []
    said = ""
    try:
        for job in c.follow("trainingjob", name):
            status = job.status
            news = f"{status.phase}: {status.message}" if status.message else status.phase
            if news and news != said:
                print(f"[{name}] {news}", file=sys.stderr)
                said = news
            if status.phase in ("Running", "Succeeded", "Failed"):
                for pod in c.pods(name):
                    run_id = f"{pod.metadata.uid}/{status.rendezvous}"
                    if run_id not in seen and pod.spec.node_name:
                        seen.add(run_id)
                        reader = threading.Thread(target=_print_log, args=(c, pod.metadata.name), daemon=True)
                        reader.start()
                        readers.append(reader)
            if status.phase in ("Succeeded", "Failed"):
                for reader in readers:
                    reader.join(timeout=5)
                return status.exit_code or (0 if status.phase == "Succeeded" else 1)
    except KeyboardInterrupt:
        if not sys.stdin.isatty() or typer.confirm(f"\nStop job {name}?"):
            c.delete("trainingjob", name)
            print(f"job {name} stopped", file=sys.stderr)
        else:
            print(f"job {name} goes on; follow it with: heddle logs -f {name}", file=sys.stderr)
        return INTERRUPTED
    return 1


def _print_log(c: Any, pod: str) -> None:
    rest = b""
    try:
        for chunk in c.logs(pod, follow=True):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                print(f"{pod}: {line.decode(errors='replace')}", flush=True)
    except ApiError as error:
        print(f"{pod}: (no log: {error})", file=sys.stderr)
    if rest:
        print(f"{pod}: {rest.decode(errors='replace')}", flush=True)


def ps(
    all_: Annotated[bool, typer.Option("--all", "-a", help="Ended jobs too.")] = False,
    namespace: Namespace = "default",
    output: Output = "",
) -> None:
    """List jobs: where they stand, and why they wait."""
    with told(), client(namespace) as c:
        jobs = [j for j in c.list("trainingjobs") if all_ or j.status.phase not in ("Succeeded", "Failed")]
    if output in ("json", "yaml"):
        serialised(jobs, output)
        return
    rows = [
        (
            j.metadata.name, j.spec.queue, j.status.phase or "Pending", f"{j.status.active_nodes}/{j.spec.nodes}",
            gpus(j.spec.resources_per_node), j.status.restarts, ago(j.metadata.creation_timestamp),
            j.status.message,
        )
        for j in jobs
    ]  # fmt: skip
    table(("JOB", "QUEUE", "PHASE", "NODES", "GPUS/NODE", "RESTARTS", "AGE", "NEWS"), rows)


def logs(
    name: Annotated[str, typer.Argument(help="Job or pod.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it ends.")] = False,
    tail: Annotated[int | None, typer.Option(help="Only the last lines.", min=0)] = None,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Of the run before.")] = False,
    timestamps: Annotated[bool, typer.Option(help="Time before each line.")] = False,
    namespace: Namespace = "default",
) -> None:
    """Print the log of a job's pods, or of one pod."""
    with told(), client(namespace) as c:
        pods = [p.metadata.name for p in c.pods(name) if p.spec.node_name] or [name]

        def one(pod: str, prefix: str) -> None:
            rest = b""
            for chunk in c.logs(pod, follow=follow, tail=tail, previous=previous, timestamps=timestamps):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    print(prefix + line.decode(errors="replace"), flush=True)
            if rest:
                print(prefix + rest.decode(errors="replace"), flush=True)

        if len(pods) == 1 or not follow:
            for pod in pods:
                one(pod, f"{pod}: " if len(pods) > 1 else "")
            return
        readers = [threading.Thread(target=one, args=(pod, f"{pod}: "), daemon=True) for pod in pods]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()


def explain(
    name: Annotated[str, typer.Argument(help="Job (or workload).")],
    namespace: Namespace = "default",
    output: Output = "",
) -> None:
    """Why a job waits, and the smallest change that would admit it."""
    with told(), client(namespace) as c:
        found = c.explain(name)
    if output in ("json", "yaml"):
        serialised(found, output)
        return
    console.print(f"[bold]{found['workload']}[/bold]: {'admitted' if found['admitted'] else 'pending'}")
    for title, rows in (("why not now", found["reasons"]), ("what would help", found["changes"])):
        if rows:
            console.print(f"{title}:")
            for row in rows:
                console.print(f"  - {row['message']}  [dim]({row['code']})[/dim]")
    if not found["admitted"] and not found["changes"]:
        console.print("what would help: no single change that heddle tries")


def check_output(form: str) -> None:
    """Refuse an unknown -o."""
    if form not in ("", "json", "yaml", "wide"):
        raise BadRequest(f"--output {form!r}: choose json, yaml or wide")
