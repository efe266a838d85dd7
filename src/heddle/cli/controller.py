"""`heddle controller`: heddle's controllers in a Kubernetes cluster."""

import asyncio
import logging
import os
import secrets
import signal
import socket
from pathlib import Path
from typing import Annotated

import typer

from heddle import collector
from heddle.cli.errors import FAILED, USAGE, fail
from heddle.cli.options import Target


def controller(
    namespace: Annotated[
        str, typer.Option(help="Namespace of the Lease by which one process leads.")
    ] = "heddle-system",
    scheduler_name: Annotated[str, typer.Option(help="Pods whose spec.schedulerName is this are heddle's.")] = "heddle",
    listen: Annotated[
        str, typer.Option(help="Address of /healthz, /readyz and /metrics; port 0: any.")
    ] = "0.0.0.0:8080",
    answers: Annotated[
        str,
        typer.Option(
            help="Address for heddle explain and its like. Default: the host of --listen, port 8443 (or any)."
        ),
    ] = "",
    kinds: Annotated[
        Path | None, typer.Option(help="Further kinds whose pods belong together (docs/kubernetes.md), as TOML.")
    ] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Schedule the pods of a Kubernetes cluster; several may run, one leads.

    The cluster is that of --kubeconfig or $KUBECONFIG, else the one that this process runs in.
    """
    from heddle.cluster.process import ClusterHeddle, until_stopped
    from heddle.control.grouping.kinds import known, read
    from heddle.store.kubernetes import KubernetesStore

    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        raise fail(f"--log-level: {log_level!r} is none; use debug, info, warning or error", USAGE)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    health = _address("--listen", listen)
    # where any port will do for health, several processes share a host: any will do for answers as well
    answering = _address("--answers", answers) if answers else (health[0], 8443 if health[1] else 0)
    try:
        table = (*(read(kinds.read_text()) if kinds else ()), *known())
    except (OSError, ValueError) as error:
        raise fail(f"--kinds {kinds}: {error}", USAGE) from None

    def open_store() -> KubernetesStore:
        config = Target.kubeconfig or os.environ.get("KUBECONFIG") or None
        return KubernetesStore.from_config(config, Target.context)

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        heddle = ClusterHeddle(
            open_store, table, identity=f"{socket.gethostname()}-{secrets.token_hex(3)}", namespace=namespace,
            scheduler=scheduler_name, listen=health, answers=answering,
        )  # fmt: skip
        await until_stopped(heddle, stop)

    collector.relax()
    try:
        asyncio.run(run())
    except OSError as error:
        told = f"--listen {listen}, --answers {':'.join(map(str, answering))}"
        raise fail(f"{told}: {error.strerror or error}", FAILED) from None


def _address(option: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise fail(f"{option}: {text!r} is no address; write for instance 127.0.0.1:8080", USAGE)
    return host.strip("[]"), int(port)
