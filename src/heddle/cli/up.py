"""`heddle up`, `down`, `status`: the embedded heddle as a process."""

import asyncio
import errno
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import psutil
import typer

from heddle import collector
from heddle.cli.errors import (
    FAILED,
    INTERRUPTED,
    UNREACHABLE,
    USAGE,
    confirm,
    fail,
    refuse_off_terminal,
    told,
)
from heddle.cli.options import Output
from heddle.cli.show import console, gpus, node_rows, queue_tree, serialised, table, waiting
from heddle.embedded.places import Places

_START = 30.0
_STOP = 120.0


def up(
    simulate: Annotated[
        list[str] | None,
        typer.Option(
            help="Simulated nodes beside this machine: NODESxGPUSxMODEL, such as 2x8xH100; 1x8xH100:2x3g.40gb is cut "
            "into MIG instances. Repeatable."
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port on loopback; 0: any free one.", min=0, max=65535)] = 0,
    foreground: Annotated[bool, typer.Option("--foreground", "-f", help="Stay in the terminal.")] = False,
    restore_backup: Annotated[
        bool, typer.Option("--restore-backup", help="Put the last backup of a damaged database back first.")
    ] = False,
) -> None:
    """Start heddle on this machine."""
    from heddle.node.simulated import parse

    try:
        simulations = [parse(text) for text in simulate or []]
    except ValueError as error:
        raise fail(f"--simulate: {error}", USAGE) from None
    places = Places.default()
    if found := places.find():
        console.print(f"heddle is already up at {found.url} (pid {found.pid})")
        options = [word for text in simulate or [] for word in ("--simulate", text)]
        options += ["--port", str(port)] if port else []
        options += ["--restore-backup"] if restore_backup else []
        if options:
            said = shlex.join(options)
            console.print(f"not applied: {said}; to restart with it: heddle down && heddle up {said}")
        return
    if restore_backup:
        from heddle.store.schema import StoreFileError, restore_last_backup

        try:
            with _data_directory(places):
                console.print(str(restore_last_backup(places.database)))
        except StoreFileError as error:
            raise fail(str(error)) from None
    if foreground:
        _run(places, simulations, port)
        return
    argv = [sys.executable, "-m", "heddle.cli", "up", "--foreground", "--port", str(port)]
    for text in simulate or []:
        argv += ["--simulate", text]
    with _data_directory(places):
        places.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = places.log.open("ab")
    with log:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        _await_start(places, child)
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise fail("interrupted; heddle is not up", INTERRUPTED) from None


def _await_start(places: Places, child: "subprocess.Popen[bytes]") -> None:
    begun = time.monotonic()
    with console.status("starting heddle"):
        while time.monotonic() - begun < _START:
            found = places.find()
            if found and found.pid == child.pid:
                console.print(f"heddle is up at {found.url} ({time.monotonic() - begun:.1f} s)")
                console.print(f"kubectl works too:  export KUBECONFIG={places.kubeconfig}")
                return
            if child.poll() is not None:
                lines = places.log.read_text(errors="replace").strip().splitlines()
                last = lines[-1].removeprefix("heddle: ") if lines else "no message"
                raise fail(f"did not start: {last} (log: {places.log})")
            time.sleep(0.02)
    raise fail(f"not ready after {_START:.0f} s; see {places.log}")


@contextmanager
def _data_directory(places: Places) -> Iterator[None]:
    """An OSError within is one about the data directory."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename and str(error.filename) != str(places.root) else ""
        raise fail(
            f"cannot use the data directory {places.root}{where}: {error.strerror}; "
            "set HEDDLE_HOME to a directory that you may write to"
        ) from None


def _run(places: Places, simulations: list, port: int) -> None:  # type: ignore[type-arg]
    from heddle.embedded.heddle import AlreadyUp, EmbeddedHeddle
    from heddle.embedded.machine import simulated_nodes, this_node
    from heddle.store.schema import StoreFileError

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    node, absence = this_node()
    if absence:
        logging.info("no GPUs on this machine: %s", absence)
    heddle = EmbeddedHeddle(places, [node, *simulated_nodes(simulations)], port=port)

    up_at: list[str] = []

    def ready(url: str) -> None:
        up_at.append(url)
        logging.info("ready at %s", url)

    def stop(with_pods: bool) -> None:
        heddle.stop_pods = with_pods
        heddle.stop()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop, False)
        loop.add_signal_handler(signal.SIGINT, stop, False)
        loop.add_signal_handler(signal.SIGUSR1, stop, True)
        await heddle.run(ready)

    try:
        with told(), _data_directory(places):
            places.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        collector.relax()
        with told():
            asyncio.run(main())
    except AlreadyUp as error:
        raise fail(str(error)) from None
    except OSError as error:
        if up_at:
            raise
        if error.errno in (errno.EADDRINUSE, errno.EACCES) and error.filename is None:
            raise fail(f"cannot listen on port {port}: {error.strerror}; choose another with --port") from None
        raise fail(f"{error.filename or places.root}: {error.strerror or error}") from None
    except StoreFileError as error:
        raise fail(f"{error}; to put the last backup back: heddle up --restore-backup") from None


def down(
    keep_pods: Annotated[
        bool, typer.Option("--keep-pods", help="Leave running pods to be adopted by the next `heddle up`.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before stopping running pods.")] = False,
) -> None:
    """Stop heddle on this machine; running pods are stopped too."""
    places = Places.default()
    found = places.find()
    if found is None:
        console.print(f"no heddle is up in {places.root}")
        return
    if not keep_pods and not yes:
        from heddle.sdk import Client

        with told(), waiting("asking what runs"), Client(kubeconfig=places.kubeconfig) as client:
            running = [p for p in client.list("pods", all_namespaces=True) if p.bound]
        if running:
            refuse_off_terminal(f"{len(running)} running pods would be stopped (or left running with --keep-pods)")
            console.print(f"{len(running)} running pods will be stopped:")
            table(
                ("NAMESPACE", "POD", "NODE"),
                [(p.metadata.namespace, p.metadata.name, p.spec.node_name) for p in running],
            )
            with told():
                if not confirm("Stop them?"):
                    raise fail("heddle is left up", FAILED)
    try:
        process = psutil.Process(found.pid)
        os.kill(found.pid, signal.SIGTERM if keep_pods else signal.SIGUSR1)
        deadline = time.monotonic() + _STOP
        # a process that ended but that nobody has reaped, as in a container without an init, is gone too
        with console.status("stopping pods, then heddle"):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                if time.monotonic() > deadline:
                    raise fail(f"heddle (pid {found.pid}) has not stopped after {_STOP:.0f} s; see {places.log}")
                time.sleep(0.02)
    except (psutil.NoSuchProcess, ProcessLookupError):
        pass
    console.print("heddle is down")


def status(output: Output = "") -> None:
    """Whether heddle is up on this machine, and what it has. `-o wide` adds CPU and memory of nodes."""
    from heddle.sdk import Client

    places = Places.default()
    found = places.find()
    if found is None:
        if output in ("json", "yaml"):
            serialised({"up": False, "data": str(places.root)}, output)
        else:
            console.print(f"no heddle is up in {places.root}; start one with: heddle up")
        raise SystemExit(UNREACHABLE)
    with told(), waiting("asking heddle"), Client(kubeconfig=places.kubeconfig) as client:
        nodes, queues = client.list("nodes"), client.list("queues")
        jobs = client.list("trainingjobs", all_namespaces=True)
    memory = psutil.Process(found.pid).memory_info().rss / 2**20
    since = time.time() - found.started
    active = [j for j in jobs if j.status.phase not in ("Succeeded", "Failed")]
    rows: list[list[Any]] = []
    for n in nodes:
        ready = next((c.status for c in n.status.conditions if c.type == "Ready"), "Unknown")
        more = node_rows(n)
        rows.append(
            [n.metadata.name, "Ready" if ready == "True" else "NotReady", gpus(n.status.allocatable),
             *(more if output == "wide" else more[:1])]
        )  # fmt: skip
    if output in ("json", "yaml"):
        answer = {
            "up": True,
            "url": found.url,
            "pid": found.pid,
            "seconds": round(since),
            "memoryMiB": round(memory),
            "data": str(places.root),
            "nodes": [{"name": r[0], "status": r[1], "gpus": float(r[2]), "product": r[3]} for r in rows],
            "queues": [q.metadata.name for q in queues],
            "jobs": {"active": len(active), "all": len(jobs)},
        }
        serialised(answer, output)
        return
    console.print(f"up at {found.url}, pid {found.pid}, for {since:.0f} s, {memory:.0f} MiB, data in {places.root}")
    table(("NODE", "STATUS", "GPUS", "PRODUCT", *(("CPU", "MEMORY") if output == "wide" else ())), rows)
    queue_tree(queues, wide=output == "wide")
    console.print(f"{len(active)} active jobs of {len(jobs)}")
