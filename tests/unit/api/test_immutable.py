"""What pods are made of cannot be changed; the rest can."""

from pathlib import Path
from typing import Any

import pytest

from heddle.api import crd
from heddle.api.admission import admit
from heddle.api.errors import Invalid
from heddle.api.immutable import FIXED
from heddle.api.registry import TRAININGJOBS, WORKLOADS, Resource
from heddle.api.schema import field_names
from heddle.api.trainingjob import TrainingJobSpec

JOB = {"command": ["true"], "nodes": 2}
ROLE = {"name": "a", "command": ["true"]}
WORK = {"queue": "q", "podSets": [{"name": "a", "count": 1}]}


def obj(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x", "namespace": "default"}, "spec": spec}


@pytest.mark.parametrize(
    ("resource", "spec", "field", "value"),
    [
        (TRAININGJOBS, JOB, "nodes", 3),
        (TRAININGJOBS, JOB, "tolerations", [{"operator": "Exists"}]),
        (TRAININGJOBS, JOB, "checkpoint", {"path": "/kept"}),
        (TRAININGJOBS, JOB, "groups", 2),
        (TRAININGJOBS, JOB, "gpuSpeeds", {}),
        (TRAININGJOBS, {"roles": [ROLE]}, "roles", [ROLE | {"nodes": 2}]),
        (WORKLOADS, WORK, "podSets", [{"name": "a", "count": 2}]),
    ],
)
def test_a_fixed_field_is_refused_by_name(resource: Resource, spec: dict[str, Any], field: str, value: Any) -> None:
    old = admit(resource, None, obj(**spec), "CREATE")
    if field == "gpuSpeeds":
        old["spec"]["gpuSpeeds"] = {"A": 1}
    with pytest.raises(Invalid, match=rf"spec\.{field}: field is immutable: pods are made of it"):
        admit(resource, old, obj(**{**spec, field: value}), "UPDATE")


def test_what_is_decided_about_running_pods_can_be_edited() -> None:
    old = admit(TRAININGJOBS, None, obj(**JOB, groups=3), "CREATE")
    edits = {"priority": 3, "minGroups": 2, "walltimeSeconds": 60, "gangGraceSeconds": 0, "maxRestarts": 1}
    assert admit(TRAININGJOBS, old, obj(**JOB, groups=3, **edits), "UPDATE")["spec"]["priority"] == 3
    old = admit(WORKLOADS, None, obj(**WORK), "CREATE")
    assert admit(WORKLOADS, old, obj(**WORK | {"queue": "other"}), "UPDATE")["spec"]["queue"] == "other"


def test_a_field_that_is_younger_than_the_object_has_its_default() -> None:
    old = obj(**JOB)  # written before there were defaults for groups, placement and others
    assert admit(TRAININGJOBS, old, obj(**JOB), "UPDATE")["spec"]["groups"] == 1
    with pytest.raises(Invalid, match=r"spec\.groups"):
        admit(TRAININGJOBS, obj(**JOB), obj(**JOB, groups=2), "UPDATE")


def test_the_docs_name_every_field_that_can_be_edited() -> None:
    docs = (Path(__file__).parents[3] / "docs" / "embedded.md").read_text()
    editable = set(field_names(TrainingJobSpec)) - set(FIXED["TrainingJob"])
    assert [name for name in sorted(editable) if f"`{name}`" not in docs] == []


def test_the_definitions_say_the_same() -> None:
    for manifest in crd.manifests():
        schema = manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        rules = [rule for rule in schema.get("x-kubernetes-validations", ()) if "oldSelf" in rule["rule"]]
        fixed = FIXED.get(manifest["spec"]["names"]["kind"], ())
        assert [rule["fieldPath"] for rule in rules] == [f".{name}" for name in fixed]
        assert all(name in schema["properties"] for name in fixed)
