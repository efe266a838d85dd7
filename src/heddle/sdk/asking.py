"""Questions to the scheduler: of an embedded heddle directly, of a cluster's through the API server's proxy."""

from typing import Any

import msgspec

from heddle.api.errors import ApiError, Forbidden, NotFound, Unauthorized, Unavailable
from heddle.sdk.connection import ClusterStore
from heddle.store.kubernetes import KubernetesStore

NAMESPACE = "heddle-system"
PROXY = f"/api/v1/namespaces/{NAMESPACE}/services/https:heddle:answers/proxy"
"""The controller, as the API server reaches it."""


class Asking:
    """explain, preview and snapshot."""

    def __init__(self, store: KubernetesStore) -> None:
        self._store = store
        self._embedded: bool | None = None if isinstance(store, ClusterStore) else True

    async def explain(self, query: dict[str, str]) -> dict[str, Any]:
        """Why a workload waits."""
        if await self.is_embedded():
            return _decoded(await self._store.read("/heddle/v1/explain", query))
        return await self._of_controller("explain", {"query": query})

    async def preview(self, obj: Any) -> dict[str, Any]:
        """What would come of an object."""
        if await self.is_embedded():
            return _decoded(await self._store.ask("/heddle/v1/preview", obj))
        return await self._of_controller("preview", {"object": obj})

    async def snapshot(self) -> dict[str, Any]:
        """What the scheduler knows."""
        if await self.is_embedded():
            return _decoded(await self._store.read("/heddle/v1/snapshot", {}))
        return await self._of_controller("snapshot", {})

    async def is_embedded(self) -> bool:
        """Whether the server of a kubeconfig is heddle's own."""
        if self._embedded is None:
            version = _decoded(await self._store.read("/version"))
            self._embedded = "+heddle-" in str(version.get("gitVersion", ""))
        return self._embedded

    async def _of_controller(self, name: str, question: dict[str, Any]) -> dict[str, Any]:
        token = self._store.token if isinstance(self._store, ClusterStore) else ""
        if not token:
            raise Unauthorized(
                f"{name}: the kubeconfig's user has a client certificate and no token, so that heddle's controller "
                "cannot know who asks; use a context whose user has a token, such as one of: kubectl create token NAME"
            )
        try:
            return _decoded(await self._store.ask(f"{PROXY}/heddle/v1/{name}", {"token": token, **question}))
        except (NotFound, Forbidden, Unavailable) as error:
            raise _clearer(error) from None


def _clearer(error: ApiError) -> ApiError:
    """What the API server says of its proxy, as what to do about it; the controller's own errors stay."""
    said = error.status.message
    kind = error.status.details.kind if error.status.details else ""
    if isinstance(error, NotFound) and kind in ("services", "namespaces"):
        return Unavailable(
            f"nothing answers for heddle in this cluster: there is no Service heddle in {NAMESPACE}, or nothing behind "
            "it; see: heddle install"
        )
    if isinstance(error, NotFound) and "heddle.dev" not in said:
        return Unavailable(
            "heddle's controller in this cluster does not answer such questions; renew it: heddle install"
        )
    if "no service port" in said:
        return Unavailable(
            "heddle in this cluster is older than this one and does not answer it; renew it: heddle install"
        )
    if "no endpoints" in said or "error trying to reach service" in said:
        return Unavailable(f"heddle's controller is not up; look at: kubectl -n {NAMESPACE} get pods")
    if isinstance(error, Forbidden) and "services/proxy" in said:
        return Forbidden(
            f"you may not ask heddle's controller; an administrator lets you by the Role heddle-asker in {NAMESPACE} "
            "(the chart's value userRoles.enabled)"
        )
    return error


def _decoded(blob: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(blob)
    return found
