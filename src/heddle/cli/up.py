"""`heddle up`, `down`, `status`: the embedded heddle as a process."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from typing import Annotated

import psutil
import typer

from heddle.cli.errors import UNREACHABLE, USAGE, fail, told
from heddle.cli.show import console, queue_tree, table
from heddle.embedded.places import Places

_START = 30.0
_STOP = 120.0


def up(
    simulate: Annotated[
        list[str] | None,
        typer.Option(help="Simulated nodes beside this machine: NODESxGPUSxMODEL, such as 2x8xH100. Repeatable."),
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
        return
    if restore_backup:
        from heddle.store.schema import StoreFileError, restore_last_backup

        try:
            console.print(str(restore_last_backup(places.database)))
        except StoreFileError as error:
            raise fail(str(error)) from None
    if foreground:
        _run(places, simulations, port)
        return
    places.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "heddle.cli", "up", "--foreground", "--port", str(port)]
    for text in simulate or []:
        argv += ["--simulate", text]
    begun = time.monotonic()
    with places.log.open("ab") as log:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
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


def _run(places: Places, simulations: list, port: int) -> None:  # type: ignore[type-arg]
    from heddle.embedded.heddle import AlreadyUp, EmbeddedHeddle
    from heddle.embedded.machine import simulated_nodes, this_node
    from heddle.store.schema import StoreFileError

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    node, absence = this_node()
    if absence:
        logging.info("no GPUs on this machine: %s", absence)
    heddle = EmbeddedHeddle(places, [node, *simulated_nodes(simulations)], port=port)

    def stop(with_pods: bool) -> None:
        heddle.stop_pods = with_pods
        heddle.stop()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop, False)
        loop.add_signal_handler(signal.SIGINT, stop, False)
        loop.add_signal_handler(signal.SIGUSR1, stop, True)
        await heddle.run(lambda url: logging.info("ready at %s", url))

    try:
        with told():
            asyncio.run(main())
    except AlreadyUp as error:
        raise fail(str(error)) from None
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
    if not keep_pods and not yes and sys.stdin.isatty():
        from heddle.sdk import Client

        with told(), Client() as client:
            running = [p for p in client.list("pods", all_namespaces=True) if p.bound]
        if running:
            console.print(f"{len(running)} running pods will be stopped:")
            table(
                ("NAMESPACE", "POD", "NODE"),
                [(p.metadata.namespace, p.metadata.name, p.spec.node_name) for p in running],
            )
            typer.confirm("Stop them?", abort=True)
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


def status() -> None:
    """Whether heddle is up, and what it has."""
    from heddle.sdk import Client

    places = Places.default()
    found = places.find()
    if found is None:
        console.print(f"no heddle is up in {places.root}; start one with: heddle up")
        raise SystemExit(UNREACHABLE)
    with told(), Client() as client:
        nodes, queues = client.list("nodes"), client.list("queues")
        jobs = client.list("trainingjobs", all_namespaces=True)
    memory = psutil.Process(found.pid).memory_info().rss / 2**20
    since = time.time() - found.started
    console.print(f"up at {found.url}, pid {found.pid}, for {since:.0f} s, {memory:.0f} MiB, data in {places.root}")
    rows = []
    for n in nodes:
        ready = next((c.status for c in n.status.conditions if c.type == "Ready"), "Unknown")
        product = n.metadata.labels.get("nvidia.com/gpu.product", "")
        rows.append((n.metadata.name, "Ready" if ready == "True" else "NotReady",
                     n.status.allocatable.get("nvidia.com/gpu", 0), product))  # fmt: skip
    table(("NODE", "STATUS", "GPUS", "PRODUCT"), rows)
    queue_tree(queues)
    active = [j for j in jobs if j.status.phase not in ("Succeeded", "Failed")]
    console.print(f"{len(active)} active jobs of {len(jobs)}")
