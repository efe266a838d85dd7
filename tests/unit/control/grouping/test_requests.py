"""What a pod takes of its node, against the rules of k8s.io/component-helpers/resource."""

from typing import Any

import msgspec
import pytest

from heddle.api.pod import Pod
from heddle.control.grouping import requests


def container(cpu: str = "", restart: str = "", limits: dict[str, Any] | None = None) -> dict[str, Any]:
    asked = {"cpu": cpu} if cpu else {}
    found: dict[str, Any] = {"name": "c", "resources": {"requests": asked, "limits": limits or {}}}
    return found | ({"restartPolicy": restart} if restart else {})


def amounts(**spec: Any) -> dict[str, int]:
    found = requests.of(msgspec.convert({"metadata": {"name": "p"}, "spec": spec}, Pod))
    assert found.pop("pods") == 1000
    return found


@pytest.mark.parametrize(
    ("containers", "inits", "cpu"),
    [
        pytest.param([container("1"), container("500m")], [], 1500, id="containers run together"),
        pytest.param([container("1")], [container("3")], 3000, id="an init container may need more"),
        pytest.param([container("2")], [container("1"), container("1")], 2000, id="init containers run one by one"),
        pytest.param([container("1")], [container("1", "Always")], 2000, id="a sidecar stays"),
        pytest.param(
            [container("1")], [container("1", "Always"), container("3")], 4000, id="a sidecar runs beside later ones"
        ),
        pytest.param(
            [container("1")], [container("3"), container("1", "Always")], 3000, id="and not beside earlier ones"
        ),
    ],
)
def test_containers(containers: list[Any], inits: list[Any], cpu: int) -> None:
    assert amounts(containers=containers, initContainers=inits) == {"cpu": cpu}


def test_limits_stand_in_for_requests() -> None:
    assert amounts(containers=[container(limits={"nvidia.com/gpu": 2, "cpu": "4"})]) == {
        "nvidia.com/gpu": 2000,
        "cpu": 4000,
    }


def test_overhead_and_resources_of_the_pod() -> None:
    spec = {"containers": [container("1")], "resources": {"requests": {"cpu": "3"}}, "overhead": {"cpu": "250m"}}
    assert amounts(**spec) == {"cpu": 3250}


def test_amounts_as_kubernetes_writes_them() -> None:
    assert requests.resources({"cpu": 1500, "memory": 2**30 * 1000}) == {"cpu": "1500m", "memory": 2**30}
