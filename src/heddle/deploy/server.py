"""The API server of a cluster, as the installer needs it: any kind, server-side apply, dry runs."""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import DynamicApiError, ResourceNotFoundError

from heddle.api.errors import ApiError, NotFound, TooManyRequests, Unavailable
from heddle.deploy.objects import MANAGER
from kubernetes import client, config

Object = dict[str, Any]
T = TypeVar("T")
_PATIENCE = 30
"""Seconds for which "later" is taken for an answer."""


class Server:
    """A connection; its methods raise the errors of `heddle.api.errors`."""

    def __init__(self, kubeconfig: str | None = None, context: str | None = None) -> None:
        """Connect as a kubeconfig says; without one, as $KUBECONFIG or ~/.kube/config do.

        Raises:
            ValueError: the kubeconfig, or the context in it, is not there.
            Unavailable: nobody answers.
        """
        if kubeconfig and not Path(kubeconfig).is_file():
            raise ValueError(f"{kubeconfig}: no such file")
        configuration = client.Configuration()
        try:
            config.load_kube_config(kubeconfig, context, client_configuration=configuration)  # type: ignore[no-untyped-call]
        except (config.ConfigException, OSError) as error:
            raise ValueError(str(error)) from None
        configuration.retries = False
        self.address: str = configuration.host
        # what a server serves is remembered in a file, which must not be one that others can write
        self._folder = tempfile.TemporaryDirectory(prefix="heddle-install-")
        file = str(Path(self._folder.name) / "discovery.json")
        connect: Any = DynamicClient
        self._api = client.ApiClient(configuration)
        try:
            self._client = self._ask(lambda: connect(self._api, cache_file=file))
        except ApiError:
            self.close()
            raise

    def close(self) -> None:
        """Hang up, and forget what was remembered."""
        self._api.rest_client.pool_manager.clear()
        self._folder.cleanup()

    def _ask(self, call: Callable[[], T]) -> T:
        """The answer to a call; a server that says "later" (it does while it takes a definition up) is asked again."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return call()
            except ResourceNotFoundError:
                raise NotFound("the cluster does not serve this kind") from None
            except DynamicApiError as error:
                told = _error(error)
                if not isinstance(told, TooManyRequests) or time.monotonic() > end:
                    raise told from None
            except urllib3.exceptions.HTTPError as error:
                raise Unavailable(
                    f"no cluster answers at {self.address}: {error}; see --kubeconfig, --context"
                ) from error
            time.sleep(0.2)

    def served(self, kind: str) -> bool:
        """Whether the cluster has a kind, given as `group/version/Kind` or `v1/Kind`."""
        version, _, name = kind.rpartition("/")
        try:
            self._ask(lambda: self._client.resources.get(api_version=version, kind=name))
        except NotFound:
            return False
        return True

    def _resource(self, body: Object) -> Any:
        return self._client.resources.get(api_version=body["apiVersion"], kind=body["kind"])

    def get(self, body: Object) -> Object | None:
        """What is stored under the name of an object; None when it, or its kind, is not there."""
        meta = body["metadata"]
        try:
            found = self._ask(lambda: self._resource(body).get(name=meta["name"], namespace=meta.get("namespace")))
        except NotFound:
            return None
        told: Object = found.to_dict()
        return told

    def list(self, api_version: str, kind: str, selector: str = "") -> list[Object]:
        """All objects of a kind in the cluster; none when it is not served."""
        named = {"apiVersion": api_version, "kind": kind}
        try:
            found = self._ask(lambda: self._resource(named).get(label_selector=selector or None)).to_dict()
        except NotFound:
            return []
        return [{**item, **named} for item in found.get("items") or []]

    def apply(self, body: Object, *, dry_run: bool = False) -> Object:
        """Make an object so (server-side apply); what others wrote to other fields stays."""
        more = {"dry_run": "All"} if dry_run else {}
        meta = body["metadata"]
        applied = self._ask(
            lambda: self._resource(body).server_side_apply(
                body=body,
                name=meta["name"],
                namespace=meta.get("namespace"),
                field_manager=MANAGER,
                force_conflicts=True,
                **more,
            )
        )
        told: Object = applied.to_dict()
        return told

    def delete(self, body: Object) -> None:
        """Remove an object with what it owns; one that is gone already is fine."""
        meta = body["metadata"]
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        with contextlib.suppress(NotFound):
            self._ask(
                lambda: self._resource(body).delete(name=meta["name"], namespace=meta.get("namespace"), body=options)
            )


def _error(error: DynamicApiError) -> ApiError:
    try:
        body = json.loads(error.body or "")
    except ValueError:
        body = error.reason
    return ApiError.from_status(body, error.status)
