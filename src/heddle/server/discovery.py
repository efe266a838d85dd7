"""What the server serves, as clients ask for it: versions, groups, resources."""

from typing import Any

from heddle import __version__
from heddle.api import registry
from heddle.api.registry import Resource

_KUBERNETES = "v1.36.3"  # the API level that the core kinds follow

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_SUBRESOURCE_VERBS = {"status": ["get", "patch", "update"], "binding": ["create"], "log": ["get"]}


def version() -> dict[str, Any]:
    """The answer to `/version`."""
    major, minor = _KUBERNETES.lstrip("v").split(".")[:2]
    return {
        "major": major, "minor": minor, "gitVersion": f"{_KUBERNETES}+heddle-{__version__}", "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "",
        "platform": "",
    }  # fmt: skip


def core_versions() -> dict[str, Any]:
    """The answer to `/api`."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups() -> dict[str, Any]:
    """The answer to `/apis`."""
    seen = dict.fromkeys((r.group, r.version) for r in registry.ALL if r.group)
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(g, v) for g, v in seen]}


def group(name: str) -> dict[str, Any] | None:
    """The answer to `/apis/GROUP`."""
    for r in registry.ALL:
        if r.group == name and name:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(r.group, r.version)}
    return None


def resources(group_name: str, version_name: str) -> dict[str, Any] | None:
    """The answer to `/api/v1` and `/apis/GROUP/VERSION`."""
    served = [r for r in registry.ALL if (r.group, r.version) == (group_name, version_name)]
    if not served:
        return None
    entries = [entry for r in served for entry in _entries(r)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": served[0].api_version,
        "resources": entries,
    }


def _group(name: str, version_name: str) -> dict[str, Any]:
    entry = {"groupVersion": f"{name}/{version_name}", "version": version_name}
    return {"name": name, "versions": [entry], "preferredVersion": entry}


def _entries(r: Resource) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {
        "name": r.plural,
        "singularName": r.kind.lower(),
        "namespaced": r.namespaced,
        "kind": r.kind,
        "verbs": _VERBS,
    }
    if r.short_names:
        entry["shortNames"] = list(r.short_names)
    if r.categories:
        entry["categories"] = list(r.categories)
    below = [
        {
            "name": f"{r.plural}/{sub}",
            "singularName": "",
            "namespaced": r.namespaced,
            "kind": "Binding" if sub == "binding" else r.kind,
            "verbs": _SUBRESOURCE_VERBS[sub],
        }
        for sub in r.subresources
    ]
    return [entry, *below]
