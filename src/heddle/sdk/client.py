"""heddle from Python: the verbs of the command line, as calls.

    >>> client = heddle.Client()
    >>> job = client.run(["python", "train.py"], gpus=2, nodes=2)
    >>> for line in client.logs(job.metadata.name): print(line.decode(), end="")
    >>> client.wait(job.metadata.name).status.exit_code

Calls block; a thread of the client's own runs the connection. Errors are those of `heddle.api.errors`.
"""

import asyncio
import math
import queue
import secrets
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from heddle.api.core import ConfigMap
from heddle.api.errors import ApiError, BadRequest, Expired, Invalid, NotFound, Unavailable
from heddle.api.meta import LocalObjectReference, ObjectMeta, Resources
from heddle.api.mig import resource_of, unknown, well_formed
from heddle.api.pod import EnvFromSource, EnvVar
from heddle.api.registry import CONFIGMAPS, PODS, TRAININGJOBS, Resource, by_kind, find
from heddle.api.trainingjob import Checkpoint, JobVolume, TrainingJob, TrainingJobSpec
from heddle.api.validate import check
from heddle.api.workload import POD_SET_LABEL
from heddle.control.training import ledger
from heddle.control.training.ownership import JOB_LABEL, owner
from heddle.sdk import caller, identity, mounted
from heddle.sdk.asking import Asking
from heddle.sdk.connection import connect
from heddle.sdk.upload import MOUNT, Upload, pack
from heddle.store.client import Client as TypedClient
from heddle.store.client import decode
from heddle.store.port import PatchType

T = TypeVar("T")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Client:
    """A connection to an embedded heddle or a cluster. Close it, or use it as a context manager."""

    def __init__(
        self, *, kubeconfig: str | Path | None = None, context: str | None = None, namespace: str = "default"
    ) -> None:
        """Connect: to the kubeconfig that is given, else $KUBECONFIG, else the embedded heddle that is up.

        Raises:
            Unavailable: there is none of these.
        """
        self.namespace = namespace
        self._closed = False
        self._open = threading.Lock()  # held where work is handed over, so that none comes after the end of the loop
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="heddle-client", daemon=True)
        self._thread.start()
        try:
            self._store = self._do(_opened(Path(kubeconfig) if kubeconfig else None, context))
        except BaseException:
            self._end_loop()
            raise
        self._client = TypedClient(self._store)
        self._asking = Asking(self._store)

    def close(self) -> None:
        """End the connection."""
        with self._open:
            if self._closed:
                return
            self._closed = True
        self._result(asyncio.run_coroutine_threadsafe(self._store.close(), self._loop))
        self._end_loop()

    def _end_loop(self) -> None:
        async def cancel() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Hand work over to the connection's thread.

        Raises:
            Unavailable: the client is closed, by another thread perhaps.
        """
        with self._open:
            if not self._closed:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise Unavailable("this client is closed")

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._result(self._begin(work))

    def _result(self, future: Future[T]) -> T:
        try:
            return future.result()
        except (CancelledError, RuntimeError) as error:
            if self._closed:  # by another thread, meanwhile
                raise Unavailable("this client is closed") from None
            raise error
        except BaseException:
            future.cancel()
            raise

    def _each(self, source: AsyncIterator[T]) -> Iterator[T]:
        """The items of an asynchronous source, as they come, until the client is closed."""
        items: queue.Queue[tuple[str, Any]] = queue.Queue()

        async def pump() -> None:
            try:
                async for item in source:
                    items.put(("item", item))
                items.put(("end", None))
            except ApiError as error:
                items.put(("error", error))
            except asyncio.CancelledError:
                items.put(("end", None))
                raise

        future = self._begin(pump())
        try:
            while True:
                what, value = items.get()
                if what == "end":
                    return
                if what == "error":
                    raise value
                yield value
        finally:
            future.cancel()

    # objects

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> Any:
        """One object as its Struct; `kind` as kubectl takes it ("queue", "po", "trainingjobs")."""
        r = resource(kind)
        return self._do(self._client.get(r, name, self._scope(r, namespace)))

    def list(
        self, kind: str, *, namespace: str | None = None, all_namespaces: bool = False, selector: str = ""
    ) -> list[Any]:
        """Objects of a kind, in one namespace or all."""
        r = resource(kind)
        scope = "" if all_namespaces else self._scope(r, namespace)
        return self._do(self._client.list(r, scope, label_selector=selector))

    def raw(self, kind: str, name: str, *, namespace: str | None = None) -> dict[str, Any]:
        """One object as decoded JSON, with fields that the Structs do not know."""
        r = resource(kind)
        found: dict[str, Any] = msgspec.json.decode(self._do(self._store.get(r, name, self._scope(r, namespace))))
        return found

    def watch(self, kind: str, *, namespace: str | None = None, **options: Any) -> Iterator[Any]:
        """Changes of objects of a kind, until the caller stops iterating; `options` as in `Store.watch`."""
        r = resource(kind)
        return self._each(self._client.watch(r, self._scope(r, namespace), **options))

    def apply(self, manifest: dict[str, Any], *, dry_run: bool = False) -> tuple[Any, str]:
        """Create or change an object so that it is as the manifest says (client-side, as `kubectl apply`).

        Fields that an earlier apply set and this one leaves out are removed; others' fields stay.

        Returns:
            The object, and "created", "configured" or "unchanged".
        """
        r = by_kind(str(manifest.get("apiVersion", "")), str(manifest.get("kind", "")))
        if r is None:
            missing = [field for field in ("apiVersion", "kind") if not manifest.get(field)]
            if missing:
                name = (manifest.get("metadata") or {}).get("name", "")
                which = f"the manifest of {name!r}" if name else "the manifest"
                raise BadRequest(f"{which} has no {' and no '.join(missing)}; see: heddle api-resources")
            kind = f"{manifest['apiVersion']}/{manifest['kind']}"
            raise BadRequest(f"{kind} is no kind that heddle serves; see: heddle api-resources")
        return self._do(self._apply(r, manifest, dry_run))

    async def _apply(self, r: Resource, manifest: dict[str, Any], dry_run: bool) -> tuple[Any, str]:
        meta = manifest.get("metadata") or {}
        namespace = (meta.get("namespace") or self.namespace) if r.namespaced else ""
        wish = {**manifest, "metadata": {**meta} | ({"namespace": namespace} if namespace else {})}
        applied = msgspec.json.encode(wish, order="sorted").decode()
        stamped = {**wish, "metadata": {**wish["metadata"]}}
        stamped["metadata"]["annotations"] = {**(meta.get("annotations") or {}), LAST_APPLIED: applied}
        name = meta.get("name", "")
        try:
            old = msgspec.json.decode(await self._store.get(r, name, namespace)) if name else None
        except NotFound:
            old = None
        patch = stamped
        try:
            if old is None:
                blob = await self._store.create(r, stamped, namespace, dry_run=dry_run, strict=True)
                return decode(r, blob), "created"
            before = (old["metadata"].get("annotations") or {}).get(LAST_APPLIED)
            patch = _merge_patch(msgspec.json.decode(before) if before else {}, stamped)
            blob = await self._store.patch(
                r, name, patch, namespace=namespace, type=PatchType.MERGE, dry_run=dry_run, strict=True
            )
        except (BadRequest, Invalid) as error:
            raise _clearer(r, old, patch, error) from None
        same = _content(msgspec.json.decode(blob)) == _content(old)
        return decode(r, blob), "unchanged" if same else "configured"

    def delete(self, kind: str, name: str, *, namespace: str | None = None) -> None:
        """Delete an object and what it owns."""
        r = resource(kind)
        self._do(self._client.delete(r, name, self._scope(r, namespace)))

    # jobs

    def run(
        self,
        command: Sequence[str],
        *,
        image: str = "",
        name: str = "",
        queue: str = "default",
        nodes: int = 1,
        min_nodes: int | None = None,
        node_step: int = 1,
        resizable: bool = True,
        groups: int = 1,
        min_groups: int | None = None,
        gpus: float = 0,
        gpu_memory: str | None = None,
        mig: str = "",
        gpu_models: Sequence[str] = (),
        gpu_speeds: Mapping[str, int | str] | None = None,
        separate_gpus: bool = False,
        cpus: float | None = None,
        memory: str | None = None,
        priority: int = 0,
        preemptible: bool = True,
        env: dict[str, str] | None = None,
        secret_env: Sequence[str] = (),
        service_account: str = "",
        image_pull_secrets: Sequence[str] = (),
        user: str = "",
        working_dir: str | Path = "",
        checkpoint: str = "",
        volumes: Sequence[str] = (),
        shared_memory: str | None = None,
        upload: str | Path = "",
        grace: int = 30,
        gang_grace: int | None = None,
        max_restarts: int = 3,
        topology: str = "",
        walltime: int | None = None,
        dry_run: bool = False,
    ) -> TrainingJob:
        """Submit a training; returns at once.

        The program gets `command` and `env` byte for byte (in manifests `$(VAR)` is expanded as Kubernetes does it).
        On the caller's own machine also the caller's PATH and VIRTUAL_ENV where `env` does not set them, and the
        caller's current directory where `working_dir` is empty; on a cluster these are the image's.

        Args:
            command: program and arguments of each node.
            image: container image that it runs in; a cluster needs one.
            name: the job's name; made from the program's when empty.
            queue: who pays.
            nodes: pods wished for.
            min_nodes: fewest with which it runs (elastic); None: all of them.
            resizable: False: it stays at as many nodes as it starts with, from min_nodes on.
            node_step: an elastic job grows and shrinks by so many nodes at a time.
            groups: replica groups of `nodes` pods each, which come and go whole.
            min_groups: fewest groups with which it runs; None: all of them.
            gpus: GPUs of each node; below 1 a share of one.
            gpu_memory: memory of one GPU that each node uses, such as "20Gi", in place of `gpus`.
            mig: profile of the MIG instance that each node uses, such as "3g.40gb", in place of `gpus`.
            gpu_models: models that it may use, the best first, as nodes are labelled; none: any GPUs.
            gpu_speeds: how fast such models are, as {"NVIDIA-A100-SXM4-80GB": "0.45"}, where `walltime` is for speed 1.
                Without `gpu_models`: those that it may use, the fastest first.
            separate_gpus: True: no two nodes' shares are on the same GPU.
            cpus: CPUs of each node.
            memory: memory of each node, such as "16Gi".
            priority: higher goes first in its queue.
            preemptible: False: never evicted for others, and only within quota.
            env: additional environment.
            secret_env: "NAME=SECRET:KEY" for a variable from a Secret of the namespace, "SECRET" for all that it holds.
            service_account: as which account of the namespace pods on a cluster run.
            image_pull_secrets: Secrets by which a cluster pulls the image.
            user: as whom programs on a cluster run, "UID" or "UID:GID"; whoever is not root also gets no way to become
                it, as Pod Security "restricted" asks.
            working_dir: where the command runs.
            checkpoint: directory that a restart resumes from; on a cluster, one of a volume.
            volumes: what pods on a cluster mount: "CLAIM:/path" of a PersistentVolumeClaim, or "/directory:/path" of
                the node, with ":ro" for read only.
            shared_memory: size of /dev/shm of pods on a cluster, such as "8Gi".
            upload: a small directory whose files pods on a cluster find in /workspace, where the command then runs.
            grace: seconds between SIGTERM and SIGKILL, to save a checkpoint.
            gang_grace: seconds that what is left of it waits for replacements of lost nodes; None: as heddle is set.
            max_restarts: restarts after failures.
            topology: node label of the level of which one domain must hold all nodes.
            walltime: seconds after which the job is ended; None: it may run for ever.
            dry_run: only check (`preview` tells what would come of the job).

        Raises:
            Invalid: lists every fault.
            BadRequest: the cluster needs an image, or something is for the other place.
        """
        here = self._do(self._asking.is_embedded())
        if not (here or image):
            raise BadRequest("spec.image: on a cluster a job runs in a container image; name one by --image")
        if mig and not here and not well_formed(mig):  # a cluster whose policies are not installed would let it wait
            raise BadRequest(f"--mig {mig}: {unknown(mig)}")
        if here and (volumes or shared_memory or upload):
            option = "--upload" if upload else "--volume" if volumes else "--shm"
            raise BadRequest(
                f"{option}: this is for clusters; embedded heddle runs programs on this machine, which see its files: "
                "leave it out"
            )
        if here and (service_account or image_pull_secrets or user):
            option = "--user" if user else "--service-account" if service_account else "--image-pull-secret"
            raise BadRequest(
                f"{option}: this is for clusters; embedded heddle runs programs of this machine, as the user who "
                "started it: leave it out"
            )
        from_secrets = [identity.secret(text) for text in secret_env]
        mounts = [mounted.parsed(text) for text in volumes]
        if shared_memory:
            mounts.append(JobVolume(mount_path="/dev/shm", memory=shared_memory))  # noqa: S108 - where programs look
        if checkpoint:
            own = Path(caller.directory(working_dir), checkpoint)
            checkpoint = str(own.resolve()) if here else mounted.checkpoint(checkpoint, mounts)
        packed = pack(upload) if upload else None
        sent = f"upload-{secrets.token_hex(5)}"
        if packed:
            mounts.append(packed.volume(sent))
            working_dir = working_dir or MOUNT
        given = caller.environment(env) if here else dict(env or {})
        resources: Resources = {}
        if gpus:
            resources["nvidia.com/gpu"] = _amount("gpus", gpus)
        if mig:
            resources[resource_of(mig)] = 1
        if cpus:
            resources["cpu"] = _amount("cpus", cpus)
        if memory:
            resources["memory"] = memory
        base = "".join(c if c.isalnum() else "-" for c in Path(command[0]).stem.lower()).strip("-") if command else ""
        job = TrainingJob(
            metadata=ObjectMeta(
                name=name, generate_name="" if name else f"{(base or 'job')[:40]}-", namespace=self.namespace
            ),
            spec=TrainingJobSpec(
                image=image,
                command=[caller.literal(word) for word in command],
                queue=queue,
                nodes=nodes,
                min_nodes=min_nodes,
                node_step=node_step,
                resizable=resizable,
                groups=groups,
                min_groups=min_groups,
                resources_per_node=resources,
                gpu_memory_per_node=gpu_memory,
                gpu_models=[*gpu_models],
                gpu_speeds=dict(gpu_speeds or {}),
                separate_gpus=separate_gpus,
                priority=priority,
                preemptible=preemptible,
                env=[EnvVar(name=k, value=caller.literal(v)) for k, v in given.items()]
                + [one for one in from_secrets if isinstance(one, EnvVar)],
                env_from=[one for one in from_secrets if isinstance(one, EnvFromSource)],
                service_account_name=service_account,
                image_pull_secrets=[LocalObjectReference(name=one) for one in image_pull_secrets],
                security_context=identity.user(user) if user else None,
                working_dir=caller.directory(working_dir) if here else str(working_dir),
                checkpoint=Checkpoint(path=checkpoint) if checkpoint else None,
                volumes=mounts,
                termination_grace_period_seconds=grace,
                gang_grace_seconds=gang_grace,
                max_restarts=max_restarts,
                walltime_seconds=walltime,
            ),
        )
        job.spec.topology.required = topology
        return self._do(self._submit(job, None if dry_run or not packed else (sent, packed), dry_run=dry_run))

    async def _submit(self, job: TrainingJob, sent: tuple[str, Upload] | None, *, dry_run: bool) -> TrainingJob:
        """Create a job, and before it what it is to find in its directory, which then is the job's."""
        if sent:
            name, packed = sent
            meta = ObjectMeta(name=name, namespace=self.namespace)
            config = ConfigMap(metadata=meta, binary_data=packed.data, immutable=True)
            await self._client.create(CONFIGMAPS, config, self.namespace)
        try:
            created: TrainingJob = await self._client.create(TRAININGJOBS, job, self.namespace, dry_run=dry_run)
        except BaseException:
            if sent:
                await self._client.delete(CONFIGMAPS, sent[0], self.namespace)
            raise
        if sent:
            labels = {JOB_LABEL: created.metadata.name}
            patch = {"metadata": {"labels": labels, "ownerReferences": [msgspec.to_builtins(owner(created))]}}
            await self._client.patch(CONFIGMAPS, sent[0], patch, self.namespace)
        return created

    def follow(self, kind: str, name: str, *, timeout: float | None = None) -> Iterator[Any]:
        """One object as it is now and after each change, for as long as the caller listens.

        A watch that ends or expires is begun anew; changes in between are seen as one.

        Raises:
            NotFound: it does not exist, or is deleted meanwhile.
            TimeoutError: `timeout` seconds have passed.
        """
        end = None if timeout is None else time.monotonic() + timeout
        seen = ""
        while True:
            obj = self.get(kind, name)  # says so where there is none
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"{kind} {name}: {timeout} s have passed")
            try:
                for event in self.watch(kind, field_selector=f"metadata.name={name}", timeout=left):
                    if event.type == "DELETED":
                        raise NotFound(f"{kind} {name} was deleted")
                    obj = event.object
                    if obj is not None and obj.metadata.resource_version != seen:
                        seen = obj.metadata.resource_version
                        yield obj
            except Expired:
                continue

    def wait(self, name: str, *, timeout: float | None = None) -> TrainingJob:
        """The job once it has ended.

        Raises:
            NotFound: it does not exist, or is deleted meanwhile.
            TimeoutError: it has not ended in `timeout` seconds.
        """
        for job in self.follow("trainingjob", name, timeout=timeout):
            if job.status.phase in ("Succeeded", "Failed"):
                ended: TrainingJob = job
                return ended
        raise AssertionError("following an object ends with an error or not at all")

    def pods(self, job: str, *, role: str = "") -> Sequence[Any]:
        """The pods of a job, or of one of its roles."""
        return self.list("pods", selector=self.pod_selector(job, role))

    @staticmethod
    def pod_selector(job: str, role: str = "") -> str:
        """The label selector of a job's pods, or of those of one of its roles."""
        return f"{JOB_LABEL}={job}" + (f",{POD_SET_LABEL}={role}" if role else "")

    def logs(
        self, pod: str, *, follow: bool = False, tail: int | None = None, previous: bool = False,
        timestamps: bool = False, since: int | None = None,
    ) -> Iterator[bytes]:  # fmt: skip
        """The log of a pod's newest run, in pieces.

        Args:
            pod: its name.
            follow: go on until the run has ended.
            tail: only so many of the last lines.
            previous: of the run before.
            timestamps: the time (RFC 3339) before each line.
            since: only lines of the last so many seconds.

        Raises:
            NotFound: no such pod.
            BadRequest: it has not started, or there was no run before.
        """
        query = {
            "follow": str(follow).lower(),
            "previous": str(previous).lower(),
            "timestamps": str(timestamps).lower(),
        }
        if tail is not None:
            query["tailLines"] = str(tail)
        if since is not None:
            query["sinceSeconds"] = str(since)
        return self._each(self._store.stream(PODS.path(self.namespace, pod, "log"), query))

    def explain(self, name: str) -> dict[str, Any]:
        """Why a workload (a job's has its name; on a cluster a pod's, or a Job's) waits, what helps, what it cost."""
        query = {"name": name, "namespace": self.namespace}
        found: dict[str, Any] = self._do(self._asking.explain(query))
        return found

    def preview(self, obj: Any) -> dict[str, Any]:
        """What would come of a job, a workload or a queue, were it written now; nothing is changed.

        Returns:
            `answer` (for work: `admitted`, and if not `reasons`, `changes`, `expected`), `nodes` (pods by node), and
            `started` and `stopped` (other workloads that would gain or lose pods).
        """
        found: dict[str, Any] = self._do(self._asking.preview(obj))
        return found

    def snapshot(self) -> dict[str, Any]:
        """What the scheduler knows, as one document: `heddle simulate --snapshot` goes on from it."""
        found: dict[str, Any] = self._do(self._asking.snapshot())
        return found

    def usage_data(self) -> dict[str, str]:
        """The ledger of what jobs have used; read it with `heddle.control.training.ledger`."""
        try:
            found: dict[str, str] = self.get("configmap", ledger.NAME, namespace=ledger.NAMESPACE).data
        except NotFound:
            return {}
        return found

    def _scope(self, r: Resource, namespace: str | None) -> str:
        return (namespace or self.namespace) if r.namespaced else ""


def resource(kind: str) -> Resource:
    """The resource that a word means.

    Raises:
        BadRequest: none; names the known ones.
    """
    found = find(kind)
    if found is None:
        raise BadRequest(f"{kind!r} is no kind that heddle serves; see: heddle api-resources")
    return found


async def _opened(kubeconfig: Path | None, context: str | None) -> Any:
    return connect(kubeconfig, context)


def _amount(name: str, amount: float) -> int | str:
    """A number as a quantity; what a quantity cannot say is refused: rounded, a small share would be no GPU at all."""
    if not math.isfinite(amount) or abs(amount * 1000 - round(amount * 1000)) > 1e-6:
        raise BadRequest(f"{name}: {amount:g} is not valid; give a number with three decimals at most, such as 0.25")
    return int(amount) if amount == int(amount) else f"{round(amount * 1000)}m"


def _content(obj: dict[str, Any]) -> dict[str, Any]:
    """What a manifest can say of an object: a dry run of Kubernetes changes this and leaves the resourceVersion."""
    counted = ("resourceVersion", "generation", "managedFields")
    meta = {key: value for key, value in obj["metadata"].items() if key not in counted}
    return {key: value for key, value in obj.items() if key != "status"} | {"metadata": meta}


def _clearer(r: Resource, old: dict[str, Any] | None, patch: dict[str, Any], error: ApiError) -> ApiError:
    """kube-apiserver's refusal as heddle's own server says it, where heddle finds a fault too: all of them at once."""
    from heddle.store.patch import merge

    whole = merge(old, patch)
    try:
        if r.own:
            check(r, whole)
    except Invalid as better:
        return better
    _, strict, said = str(error).partition("strict decoding error: ")  # before it, the whole object is repeated
    if not strict:
        return error
    name = (whole.get("metadata") or {}).get("name", "")
    return BadRequest(f"{r.kind}{'.' + r.group if r.group else ''} {name!r} is invalid: {said}")


def _merge_patch(before: Any, after: dict[str, Any]) -> dict[str, Any]:
    """The merge patch that sets all of `after` and removes what only `before` had."""
    patch: dict[str, Any] = {}
    for key, value in after.items():
        old = before.get(key) if isinstance(before, dict) else None
        patch[key] = _merge_patch(old or {}, value) if isinstance(value, dict) else value
    for key in before if isinstance(before, dict) else ():
        if key not in after:
            patch[key] = None
    return patch
