"""OpenAPI v3 of what the server serves, for `kubectl explain` and client-side checks."""

from functools import cache
from typing import Any

from heddle.api import registry
from heddle.api.meta import ObjectMeta
from heddle.api.registry import Resource
from heddle.api.schema import kind_schema, schema_of

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def index() -> dict[str, Any]:
    """The answer to `/openapi/v3`."""
    paths = dict.fromkeys(_root(r) for r in registry.ALL)
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in paths}}


@cache
def document(path: str) -> dict[str, Any] | None:
    """The answer to `/openapi/v3/api/v1` and `/openapi/v3/apis/GROUP/VERSION`; None where nothing is served."""
    served = [r for r in registry.ALL if _root(r) == path]
    if not served:
        return None
    schemas: dict[str, Any] = {_META: schema_of(ObjectMeta)}
    paths: dict[str, Any] = {}
    for r in served:
        assert r.type is not None
        schema = kind_schema(r.type)
        schema["properties"]["metadata"] = {"allOf": [{"$ref": f"#/components/schemas/{_META}"}]}
        schema["x-kubernetes-group-version-kind"] = [_gvk(r)]
        schemas[_schema_name(r)] = schema
        paths |= _paths(r)
    return {
        "openapi": "3.0.0",
        "info": {"title": "heddle", "version": "v1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _root(r: Resource) -> str:
    return f"apis/{r.group}/{r.version}" if r.group else f"api/{r.version}"


def _gvk(r: Resource) -> dict[str, str]:
    return {"group": r.group, "version": r.version, "kind": r.kind}


def _schema_name(r: Resource) -> str:
    if r.own:
        return f"dev.heddle.{r.version}.{r.kind}"
    group = r.group.split(".")[0] or "core"
    return f"io.k8s.api.{group}.{r.version}.{r.kind}"


_QUERY = [
    {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    for name in ("dryRun", "fieldManager", "fieldValidation")
]


def _paths(r: Resource) -> dict[str, Any]:
    ref = {"$ref": f"#/components/schemas/{_schema_name(r)}"}
    answer = {"200": {"description": "OK", "content": {"application/json": {"schema": ref}}}}

    def operation(action: str, *, body: bool) -> dict[str, Any]:
        op: dict[str, Any] = {
            "operationId": f"{action}{r.kind}",
            "responses": answer,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _gvk(r),
        }
        if body:
            op["parameters"] = _QUERY
            op["requestBody"] = {"content": {"application/json": {"schema": ref}}}
        return op

    namespace = "{namespace}" if r.namespaced else ""
    one = {
        "get": operation("get", body=False),
        "put": operation("put", body=True),
        "patch": operation("patch", body=True),
        "delete": operation("delete", body=False),
    }
    return {
        r.path(namespace): {"get": operation("list", body=False), "post": operation("post", body=True)},
        r.path(namespace, "{name}"): one,
    }
