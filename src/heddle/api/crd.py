"""CustomResourceDefinitions for Kubernetes, from the same Structs that heddle runs on."""

from typing import Any

from heddle.api import registry
from heddle.api.immutable import transitions
from heddle.api.registry import Resource
from heddle.api.schema import kind_schema

_RULES: dict[str, dict[str, list[dict[str, str]]]] = {
    "Queue": {
        "spec": [
            {
                "rule": "!has(self.quota) || !has(self.limit) || self.quota.all(r, !(r in self.limit) || "
                "quantity(string(self.quota[r])).compareTo(quantity(string(self.limit[r]))) <= 0)",
                "message": "quota is over the limit; lower quota or raise limit",
            },
            {
                "rule": "!has(self.borrowingLimit) || self.borrowingLimit.all(r, r == 'nvidia.com/gpu' || "
                "(has(self.quota) && r in self.quota))",
                "message": "borrowingLimit names a resource without a quota; give a quota of it too",
            },
            {
                "rule": "!has(self.lendingLimit) || self.lendingLimit.all(r, has(self.quota) && r in self.quota && "
                "quantity(string(self.lendingLimit[r])).compareTo(quantity(string(self.quota[r]))) <= 0)",
                "message": "lendingLimit is over the quota; lower it or raise quota",
            },
        ],
        "": [
            {
                "rule": "!has(self.spec) || !has(self.spec.parent) || self.spec.parent != self.metadata.name",
                "message": "a queue is not its own parent; name another",
            }
        ],
    },
    "TrainingJob": {
        "spec": [
            {
                "rule": "!has(self.minNodes) || self.minNodes <= (has(self.nodes) ? self.nodes : 1)",
                "message": "minNodes is over nodes; lower it",
            }
        ],
        "roles": [
            {
                "rule": "!has(self.minNodes) || self.minNodes <= self.nodes",
                "message": "minNodes is over nodes; lower it",
            }
        ],
    },
    "Workload": {
        "podSets": [
            {
                "rule": "!has(self.minCount) || self.minCount <= self.count",
                "message": "minCount is over count; lower it",
            }
        ]
    },
}
"""What a type cannot say, by kind and place."""

_MAX_ENTRIES = 64  # a map in a CEL rule needs a bound, or the API server's cost estimate refuses the rule
_MAX_QUANTITY = 32  # and so does a string


def manifest(resource: Resource) -> dict[str, Any]:
    """The CustomResourceDefinition of one of heddle's kinds."""
    assert resource.type is not None
    schema = kind_schema(resource.type)
    schema["properties"]["metadata"] = {"type": "object"}  # nothing else is allowed there
    rules = _RULES.get(resource.kind, {})
    spec = schema["properties"]["spec"]
    if "" in rules:
        schema["x-kubernetes-validations"] = rules[""]
    if of_spec := [*rules.get("spec", ()), *transitions(resource.kind)]:
        spec["x-kubernetes-validations"] = of_spec
    for name in ("podSets", "roles"):
        if name in rules:
            spec["properties"][name]["items"]["x-kubernetes-validations"] = rules[name]
    for name in ("quota", "limit", "borrowingLimit", "lendingLimit", "userLimit"):
        if name in spec["properties"]:
            spec["properties"][name]["maxProperties"] = _MAX_ENTRIES
            spec["properties"][name]["additionalProperties"]["maxLength"] = _MAX_QUANTITY
    columns = [
        {"name": c.name, "jsonPath": c.path, "type": c.type}
        | ({"priority": 1} if c.wide else {})
        | ({"description": c.description} if c.description else {})
        for c in resource.columns
    ]
    version = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": columns,
    }
    if "status" in resource.subresources:
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{resource.group}"},
        "spec": {
            "group": resource.group,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": {
                "kind": resource.kind,
                "listKind": resource.list_kind,
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": list(resource.short_names),
                "categories": list(resource.categories),
            },
            "versions": [version],
        },
    }


def manifests() -> list[dict[str, Any]]:
    """All of heddle's CustomResourceDefinitions."""
    return [manifest(resource) for resource in registry.ALL if resource.own]
