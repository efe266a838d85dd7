"""Who may do what in embedded mode: administrators everything; everybody else what this table says.

Kubernetes has RBAC for this. Embedded heddle knows two kinds of users (group `system:masters`, and the others), and
the controllers, which do not come through the server. Whatever a scheduler or controller relies on is not for users to
write: a Workload's status, a pod's node, a rank in a rendezvous.
"""

import msgspec

from heddle.api.errors import Forbidden, NotFound
from heddle.api.meta import Kind
from heddle.api.registry import CONFIGMAPS, SECRETS, TRAININGJOBS, Resource
from heddle.api.workload import USER_ANNOTATION
from heddle.server.auth import ADMINS, User
from heddle.server.paths import Target
from heddle.store.port import Store

SYSTEM_NAMESPACES = ("heddle-system", "kube-node-lease", "kube-system")

WRITABLE: dict[Resource, str] = {
    TRAININGJOBS: "anybody submits; a job is changed and deleted by who submitted it",
    CONFIGMAPS: "anybody, unless a controller owns it",
    SECRETS: "anybody writes; only administrators read",
}
"""Resources that users write, outside the system's namespaces. Everything else is the administrators'."""


async def authorise(store: Store, user: User, method: str, target: Target) -> None:
    """Refuse what this user may not do.

    Raises:
        Forbidden: says what, and who may.
    """
    if ADMINS in user.groups:
        return
    r = target.resource
    reads = method in ("GET", "HEAD")
    if reads and r is not SECRETS:
        return
    if reads or r not in WRITABLE or target.subresource or target.namespace in SYSTEM_NAMESPACES:
        raise _forbidden(user, method, target, f"only group {ADMINS} may")
    if not target.name:
        if method == "DELETE":
            raise _forbidden(user, method, target, f"only group {ADMINS} may delete whole collections")
        return
    try:
        held = msgspec.json.decode(await store.get(r, target.name, target.namespace), type=_Any)
    except NotFound:
        return
    meta = held.metadata
    if any(owner.controller for owner in meta.owner_references):
        raise _forbidden(user, method, target, "it belongs to a controller")
    submitter = meta.annotations.get(USER_ANNOTATION, "")
    if r is TRAININGJOBS and submitter != user.name:
        raise _forbidden(user, method, target, f"only {submitter or 'its submitter'} or group {ADMINS} may")


class _Any(Kind):
    """Any object, as far as its metadata."""


def _forbidden(user: User, method: str, target: Target, why: str) -> Forbidden:
    what = target.resource.plural + (f"/{target.subresource}" if target.subresource else "")
    name = f" {target.name!r}" if target.name else ""
    verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(method, "read")
    return Forbidden(f"user {user.name!r} may not {verb} {what}{name}: {why}", kind=what, name=target.name)


__all__ = ["SYSTEM_NAMESPACES", "WRITABLE", "authorise"]
