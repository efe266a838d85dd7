"""Plans: what an installation would do to each object, seen before it is done."""

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from heddle.api.errors import ApiError, InternalError, Unavailable
from heddle.api.queue import GROUP_VERSION
from heddle.api.workload import USER_ANNOTATION
from heddle.deploy import policies
from heddle.deploy.objects import MANAGED_BY, MANAGER, parts
from heddle.deploy.server import Object, Server
from heddle.deploy.template import filled
from heddle.deploy.values import Values

OWN = f"{MANAGED_BY}={MANAGER}"
_KEPT_KINDS = ("Namespace", "CustomResourceDefinition", "Queue")
"""What users' objects hang on: never removed because a later heddle, or other values, leave it out."""
_SECONDS = 100
"""Patience: the API server itself gives the objects of a removed definition a minute before it looks again."""
_API = "apps/v1/Deployment"
_POLICY = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"

Action = Literal["create", "change", "unchanged", "delete"]


@dataclass(frozen=True)
class Step:
    """What happens to one object."""

    action: Action
    body: Object
    changes: tuple[str, ...] = ()
    """Fields that change, as paths."""

    @property
    def name(self) -> str:
        """Such as `Deployment heddle-system/heddle-controller`."""
        meta = self.body["metadata"]
        return f"{self.body['kind']} {meta['namespace'] + '/' if meta.get('namespace') else ''}{meta['name']}"


class Refused(Exception):
    """This cluster cannot be installed to; the message says what to do."""


def check(server: Server, values: Values) -> None:
    """Refuse what is no cluster, or too old a one.

    Raises:
        Refused: says why.
    """
    if not server.served(_API):
        raise Refused(
            f"{server.address} is no Kubernetes cluster: it serves no Deployments; see --kubeconfig, --context"
        )
    if values.admission.enabled and not server.served(_POLICY):
        raise Refused(
            "this cluster is older than Kubernetes 1.30: leave the policies out, --set admission.enabled=false"
        )


def install(server: Server, values: Values) -> list[Step]:
    """Steps to an installation with these values, in their order; nothing is changed yet.

    Raises:
        Refused: Helm looks after an installation that is there.
    """
    wanted = filled(parts(), values, server.served)
    steps = []
    for part in wanted:
        live = server.get(part.body)
        if live is None:
            steps.append(Step("create", part.body))
            continue
        owner = (live["metadata"].get("labels") or {}).get(MANAGED_BY)
        if owner == "Helm":
            raise Refused("heddle was installed by Helm here; upgrade it by: helm upgrade heddle ...")
        # a namespace that was there before us stays its owner's; a queue that users changed stays as it is
        if part.once or (part.body["kind"] == "Namespace" and owner != MANAGER):
            steps.append(Step("unchanged", live))
            continue
        changes = tuple(_differences(live, server.apply(part.body, dry_run=True), ""))
        steps.append(Step("change" if changes else "unchanged", part.body, changes))
    names = {step.name for step in steps}
    stale = [step for step in _present(server) if step.name not in names and step.body["kind"] not in _KEPT_KINDS]
    return steps + stale


def uninstall(server: Server, *, keep_definitions: bool = False) -> list[Step]:
    """Steps that remove what `heddle install` made, the controller first.

    Args:
        server: the cluster.
        keep_definitions: whether users' objects stay: definitions, the default queue, and the namespace with the
            record of use.
    """
    return [step for step in _present(server) if not keep_definitions or step.body["kind"] not in _KEPT_KINDS]


def users_objects(server: Server) -> dict[str, int]:
    """How many objects of heddle's kinds there are, by kind: they go with their definitions."""
    found = {kind: len(server.list(GROUP_VERSION, kind)) for kind in ("TrainingJob", "Workload", "Queue")}
    return {kind: count for kind, count in found.items() if count}


def _present(server: Server) -> list[Step]:
    """Removal of every object that bears our label, in the order opposite to that in which they are made."""
    kinds = dict.fromkeys((part.body["apiVersion"], part.body["kind"]) for part in parts())
    found = [Step("delete", body) for kind in reversed(kinds) for body in server.list(*kind, OWN)]
    # the controller goes first, or it would complain of each thing that it loses
    return sorted(found, key=lambda step: step.body["kind"] != "Deployment")


def apply(server: Server, steps: Iterable[Step]) -> Iterable[Step]:
    """Take the steps, telling each that was taken.

    Raises:
        ApiError: the server refuses one; those before it are done, and another run takes up there.
    """
    removed = []
    taken_up = True
    for step in steps:
        if step.action == "unchanged":
            continue
        if step.action == "delete":
            server.delete(step.body)
            removed.append(step)
        else:
            server.apply(step.body)
            taken_up = taken_up and step.body["kind"] != policies.MUTATING
            if step.body["kind"] == "CustomResourceDefinition":
                _until(functools.partial(_established, server, step.body), f"{step.name} is not established")
        yield step
    if not taken_up:
        _until(functools.partial(_taken_up, server), "the cluster takes no jobs yet")
    for step in removed:
        _until(functools.partial(_gone, server, step.body), f"{step.name} is not gone")


_PROBE = {
    "apiVersion": GROUP_VERSION,
    "kind": "TrainingJob",
    "metadata": {"name": "heddle-install", "namespace": "default"},
    "spec": {"command": ["true"]},
}


def _taken_up(server: Server) -> bool:
    """Whether a job would be stamped: the policy looks for new kinds every five seconds, and refuses them till then."""
    try:
        job = server.apply(_PROBE, dry_run=True)
    except Unavailable:
        return False
    except ApiError:
        return True  # refused for a reason of its own, which is no matter of the installation
    return USER_ANNOTATION in (job["metadata"].get("annotations") or {})


def _gone(server: Server, body: Object) -> bool:
    live = server.get(body)
    return live is None or live["metadata"]["uid"] != body["metadata"]["uid"]


def _established(server: Server, body: Object) -> bool:
    """Whether a definition's kind is served: the condition comes first, discovery a moment later."""
    names, version = body["spec"]["names"], body["spec"]["versions"][0]["name"]
    if not server.served(f"{body['spec']['group']}/{version}/{names['kind']}"):
        return False
    conditions = ((server.get(body) or {}).get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def _until(holds: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + _SECONDS
    while not holds():
        if time.monotonic() > end:
            raise InternalError(f"{otherwise} after {_SECONDS} s; look at it, then run this again")
        time.sleep(0.1)


_BOOKKEEPING = ("metadata.managedFields", "metadata.resourceVersion", "metadata.generation", "status")


def _differences(live: Any, wanted: Any, path: str) -> Iterable[str]:
    """Paths at which two objects differ, but for what the server writes by itself."""
    if path in _BOOKKEEPING or live == wanted:
        return
    if isinstance(live, dict) and isinstance(wanted, dict):
        for key in sorted(live.keys() | wanted.keys()):
            yield from _differences(live.get(key), wanted.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(live, list) and isinstance(wanted, list) and len(live) == len(wanted):
        for index, (old, new) in enumerate(zip(live, wanted, strict=True)):
            yield from _differences(old, new, f"{path}[{index}]")
    else:
        yield path
