"""Who asks, and what they may: the API server's own answers, by TokenReview and SubjectAccessReview."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from heddle.api.errors import Forbidden, Unauthorized
from heddle.api.registry import Resource
from heddle.store.kubernetes import KubernetesStore

_TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Asker:
    """A user as the API server knows them; `uid` and `extra` are for authorizers that look at them."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, list[str]] = field(default_factory=dict)


class Reviews:
    """Questions about users, over a connection that also a process that does not lead may write on."""

    def __init__(self, store: KubernetesStore) -> None:
        self._store = store

    async def who(self, token: str) -> Asker:
        """Whose token this is.

        Raises:
            Unauthorized: nobody's.
        """
        if not token:
            raise Unauthorized("the question carries no token; ask with heddle's own client")
        status = await self._ask(_TOKENS, "authentication.k8s.io/v1", "TokenReview", {"token": token})
        user = status.get("user") or {}
        if not status.get("authenticated") or not user.get("username"):
            raise Unauthorized("the token is not valid, or no longer; log in to the cluster again")
        return Asker(
            user["username"], user.get("uid", ""), tuple(user.get("groups") or ()), dict(user.get("extra") or {})
        )

    async def may(self, asker: Asker, verb: str, resource: Resource, namespace: str = "", name: str = "") -> bool:
        """Whether a user may do this; no namespace means all, or none where the resource is not in one."""
        asked = {
            "user": asker.name,
            "uid": asker.uid,
            "groups": asker.groups,
            "extra": asker.extra,
            "resourceAttributes": {
                "verb": verb,
                "group": resource.group,
                "version": resource.version,
                "resource": resource.plural,
                "namespace": namespace,
                "name": name,
            },
        }
        status = await self._ask(_ACCESS, "authorization.k8s.io/v1", "SubjectAccessReview", asked)
        return bool(status.get("allowed")) and not status.get("denied")

    async def demand(self, asker: Asker, verb: str, resource: Resource, namespace: str = "", name: str = "") -> None:
        """Refuse what a user may not do.

        Raises:
            Forbidden: says which right is missing.
        """
        if not await self.may(asker, verb, resource, namespace, name):
            where = f" in namespace {namespace}" if namespace else " in the whole cluster"
            what = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
            raise Forbidden(f"user {asker.name} needs the right to {verb} {what}{where}; ask an administrator for it")

    async def _ask(self, path: str, version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        answer = await self._store.ask(path, {"apiVersion": version, "kind": kind, "spec": spec})
        status: dict[str, Any] = msgspec.json.decode(answer).get("status") or {}
        return status
