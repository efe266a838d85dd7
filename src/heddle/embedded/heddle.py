"""Embedded heddle as one process: store, API server, controllers, node agent.

Start: take the lock, open the store, listen, then start controllers; `running.json` appears once requests are
answered. Stop (SIGTERM, SIGINT): controllers first, then the agent lets go of the pods, which run on under their
shims, then the store closes. After kill -9 the next start takes the lock (the kernel released it), adopts the pods and
goes on from the objects.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec
import uvicorn
import yaml

from heddle.api.admission import admit
from heddle.api.core import Namespace, Node
from heddle.api.errors import AlreadyExists, BadRequest
from heddle.api.meta import ObjectMeta
from heddle.api.pod import Pod
from heddle.api.queue import Queue
from heddle.api.registry import NAMESPACES, QUEUES
from heddle.api.trainingjob import DEFAULT_QUEUE, TrainingJob
from heddle.control.leader import LeaderElection
from heddle.control.nodes import LEASE_NAMESPACE, NodeController
from heddle.control.scheduling.controller import SchedulingController
from heddle.control.scheduling.questions import explained_job, previewed_object, recorded_world
from heddle.control.training.controller import TrainingController
from heddle.embedded.agent import Agent
from heddle.embedded.checkpoints import last_saved
from heddle.embedded.places import Places, Running
from heddle.runtime.logs import NoLogs
from heddle.server.app import Server
from heddle.server.auth import Tokens, User, ensure_token_file
from heddle.server.tls import ensure_certificate
from heddle.server.web import Web
from heddle.store.client import Client
from heddle.store.informer import Informers
from heddle.store.schema import backup_age
from heddle.store.sqlite import SQLiteStore

_log = logging.getLogger(__name__)


_BACKUP_AT_STOP = 600.0  # seconds: a clean stop leaves a backup that is no older
_LOCK_TRIES = 10  # twenty a second
_YEARS = 10 * 365 * 86400.0


class AlreadyUp(Exception):
    """Another heddle holds this data directory."""


def meet_on_loopback(job: TrainingJob, first: Pod) -> tuple[str, int]:
    """All processes are on this machine: loopback, and a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1", int(probe.getsockname()[1])


class EmbeddedHeddle:
    """One machine's heddle."""

    def __init__(self, places: Places, nodes: Sequence[Node], *, port: int = 0) -> None:
        """Serve on loopback at `port` (0: any free one) for these nodes; everything is kept in `places`."""
        self._places, self._nodes, self._port = places, list(nodes), port
        self._stop = asyncio.Event()
        self._problem = "starting"
        self.stop_pods = False

    def stop(self) -> None:
        """Shut down."""
        self._stop.set()

    async def run(self, ready: Callable[[str], None] = lambda url: None) -> None:
        """Run until `stop`; `ready` is called with the URL once requests are answered.

        Raises:
            AlreadyUp: another heddle runs in this directory.
        """
        self._places.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._places.lock.open("w") as lock:
            await self._lock(lock)
            self._places.running.unlink(missing_ok=True)  # left by a heddle that was killed
            store = SQLiteStore.open(self._places.database, admit)
            try:
                await self._serve(store, ready)
                if backup_age(self._places.database) > _BACKUP_AT_STOP:
                    await store.backup()
            finally:
                await store.close()
                self._places.running.unlink(missing_ok=True)

    async def _lock(self, lock: IO[str]) -> None:
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError:  # perhaps only for a moment, by who looks whether heddle is up
                await asyncio.sleep(0.05)
        raise AlreadyUp(f"heddle is already up in {self._places.root}; stop it with: heddle down")

    async def _serve(self, store: SQLiteStore, ready: Callable[[str], None]) -> None:
        places = self._places
        token = ensure_token_file(places.tokens, "admin")
        certificate, key = ensure_certificate(places.root / "tls")
        await _bootstrap(Client(store))
        informers = Informers(store)
        scheduling = SchedulingController(informers)
        training = TrainingController(informers, meet_on_loopback, last_saved)
        nodes = NodeController(informers)
        agent = Agent(informers, places.runtime, self._nodes)

        async def explained(query: dict[str, str], user: User) -> Any:
            return await explained_job(scheduling.inquiries, query)

        async def previewed(query: dict[str, str], user: User) -> Any:
            return await previewed_object(scheduling.inquiries, query, user)

        async def snapshot(query: dict[str, str], user: User) -> Any:
            return await recorded_world(scheduling.inquiries)

        server = Server(
            store,
            Tokens.read(places.tokens),
            logs=_Logs(agent),
            ready=lambda: self._problem,
            actions={"explain": explained, "preview": previewed, "snapshot": snapshot},
        )
        # asyncio sets TCP_NODELAY only where the protocol is named; without it each answer waits 40 ms for an ACK
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        web = Web(
            uvicorn.Config(
                server.app,
                ssl_certfile=certificate,
                ssl_keyfile=key,
                log_level="warning",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=2,
            )
        )
        serving = asyncio.create_task(web.serve(sockets=[listener]))

        async def lead() -> None:
            async with asyncio.TaskGroup() as group:
                for controller in (scheduling, training, nodes):
                    group.create_task(controller.run())

        # The lock on the directory already keeps other processes away; under the same name a restart need not wait, and
        # nobody takes over from one that was asleep with its machine.
        election = LeaderElection(store, "heddle-controllers", "embedded", duration=_YEARS, renew_deadline=_YEARS - 1)
        parts = (agent.run(), informers.run(), election.run(lead))
        workers = [asyncio.create_task(part) for part in parts]
        try:
            write_kubeconfig(places.kubeconfig, url, token, certificate)
            while not web.started and not serving.done():  # noqa: ASYNC110 - uvicorn offers a flag, no event
                await asyncio.sleep(0.005)
            self._problem = ""
            running = Running(pid=os.getpid(), url=url, started=time.time())
            _write(places.running, msgspec.json.encode(running))
            ready(url)
            stopped = asyncio.create_task(self._stop.wait())
            done, _ = await asyncio.wait([serving, stopped, *workers], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task is not stopped:
                    _log.error("a part of heddle ended", exc_info=task.exception())
            stopped.cancel()
        finally:
            await _end(workers[2])  # the controllers first: nobody makes new pods for those that we stop
            await agent.stop(pods=self.stop_pods)
            await _end(*workers[:2])
            server.stop()
            web.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)
            listener.close()


async def _end(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Logs:
    """Pods' logs for the server, with errors that it knows."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def check(self, uid: str, container: str, *, previous: bool) -> None:
        try:
            self._agent.runtime.check_logs(uid, container, previous=previous)
        except NoLogs as error:
            raise BadRequest(str(error)) from None

    async def read(
        self,
        uid: str,
        container: str,
        *,
        follow: bool,
        tail: int | None,
        previous: bool,
        since: float | None,
        timestamps: bool,
        limit_bytes: int | None,
    ) -> AsyncIterator[bytes]:
        async for line in self._agent.runtime.read_logs(
            uid,
            container,
            follow=follow,
            tail=tail,
            previous=previous,
            since=None if since is None else time.time() - since,
            timestamps=timestamps,
            limit_bytes=limit_bytes,
        ):
            yield line


async def _bootstrap(client: Client) -> None:
    """What is always there: namespaces, and a queue for who names none."""
    for name in ("default", LEASE_NAMESPACE, "heddle-system"):
        with contextlib.suppress(AlreadyExists):
            await client.create(NAMESPACES, Namespace(metadata=ObjectMeta(name=name)))
    with contextlib.suppress(AlreadyExists):
        await client.create(QUEUES, Queue(metadata=ObjectMeta(name=DEFAULT_QUEUE)))


def write_kubeconfig(path: Path, url: str, token: str, certificate: Path) -> None:
    """A kubeconfig for this server, readable by its owner only."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "heddle", "cluster": {"server": url, "certificate-authority": str(certificate)}}],
        "users": [{"name": "heddle", "user": {"token": token}}],
        "contexts": [{"name": "heddle", "context": {"cluster": "heddle", "user": "heddle", "namespace": "default"}}],
        "current-context": "heddle",
    }
    _write(path, yaml.safe_dump(config, sort_keys=False).encode())


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(content)
    temporary.replace(path)
