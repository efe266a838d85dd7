"""heddle's kinds on a real API server."""

import json
import subprocess
from typing import Any

import pytest

from heddle.api import crd

pytestmark = pytest.mark.kubernetes


def kubectl(plane: Any, *arguments: str, given: str = "") -> str:
    command = [str(plane.kubectl), "--kubeconfig", str(plane.kubeconfig), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_versions_are_stamped(controlplane: Any) -> None:
    told = json.loads(kubectl(controlplane, "version", "-o", "json"))
    assert told["clientVersion"]["gitVersion"] == told["serverVersion"]["gitVersion"] == "v1.36.3"


@pytest.mark.parametrize("manifest", crd.manifests(), ids=lambda m: m["spec"]["names"]["plural"])
def test_a_definition_is_accepted_and_established(controlplane: Any, manifest: dict[str, Any]) -> None:
    kubectl(controlplane, "apply", "--server-side", "-f", "-", given=json.dumps(manifest))
    name = f"crd/{manifest['metadata']['name']}"
    kubectl(controlplane, "wait", "--for=condition=Established", "--timeout=30s", name)
    conditions = json.loads(kubectl(controlplane, "get", name, "-o", "json"))["status"]["conditions"]
    assert not [c for c in conditions if c["type"] == "NonStructuralSchema"]
