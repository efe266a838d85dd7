"""A cluster on which heddle is installed, without a running controller."""

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from heddle.deploy.objects import parts
from heddle.deploy.template import filled
from heddle.deploy.values import Values

sys.path.insert(0, str(Path(__file__).parent))

from clusters import Cluster


@pytest.fixture(scope="module")
def plane(bed: Any) -> Iterator[Any]:
    """A control plane for the tests of a module, with kwok's nodes; who needs other controllers has one of its own."""
    with bed.running(controllers="garbage-collector-controller,namespace-controller") as plane:
        plane.start_kwok()
        yield plane


@pytest.fixture
async def cluster(plane: Any, tmp_path: Path) -> AsyncIterator[Cluster]:
    """A namespace, nodes and controllers of the test's own in the control plane that its module starts."""
    found = Cluster(plane, tmp_path)
    try:
        await found.prepare()
        yield found
    finally:
        await found.close()


def _applied(plane: Any, objects: list[dict[str, Any]]) -> None:
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    command = [str(plane.kubectl), "--kubeconfig", str(plane.kubeconfig), "apply", "--server-side", "-f", "-"]
    subprocess.run(command, input=given, capture_output=True, text=True, check=True, timeout=60)


@pytest.fixture(scope="session")
def installed(bed: Any) -> Iterator[Any]:
    """A control plane of its own with everything that the chart and `heddle install` make."""
    with bed.running() as plane:
        bodies = [part.body for part in filled(parts(), Values(), lambda _: True)]
        definitions = [body for body in bodies if body["kind"] in ("Namespace", "CustomResourceDefinition")]
        _applied(plane, definitions)
        command = [str(plane.kubectl), "--kubeconfig", str(plane.kubeconfig), "wait", "crd", "--all"]
        subprocess.run(
            [*command, "--for=condition=Established", "--timeout=30s"], check=True, stdout=subprocess.DEVNULL
        )
        _applied(plane, [body for body in bodies if body not in definitions])
        _policies_hold(plane)
        yield plane


@pytest.fixture(scope="session")
def inhabited(bed: Any) -> Iterator[Any]:
    """A cluster as foreign work knows it: stock controllers and scheduler, two fake nodes of eight GPUs, on kwok."""
    with bed.running(controllers=bed.REALISTIC, service_accounts=True) as plane:
        plane.start_kwok(bed.gpu_nodes(2, prefix="fake"))
        plane.start_scheduler()
        yield plane


@pytest.fixture(scope="session")
def everything() -> Callable[[Any], set[str]]:
    """Tells every object of a cluster, but for what the control plane itself makes and drops as it goes."""

    def told(plane: Any) -> set[str]:
        command = [str(plane.kubectl), "--kubeconfig", str(plane.kubeconfig)]

        def kubectl(*arguments: str) -> str:
            return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, timeout=60).stdout

        passing = ("events", "leases", "componentstatuses", "ipaddresses", "endpoints")
        kinds = [k for k in kubectl("api-resources", "--verbs=list", "-o", "name").split() if not k.startswith(passing)]
        form = "jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name} {end}"
        return set(kubectl("get", ",".join(kinds), "-A", "-o", form).split())

    return told


def _policies_hold(plane: Any) -> None:
    """The API server takes a moment to take policies up, each by itself: the last one made is taken up last."""
    end = time.monotonic() + 30
    while True:
        told = []
        for path, body in _FAULTY:
            try:
                plane.create(f"{path}?dryRun=All&fieldManager=test", [body])
                told.append("")
            except RuntimeError as error:
                told.append(str(error))
        if all("denied request" in one for one in told):
            return
        assert time.monotonic() < end, told
        time.sleep(0.1)


_API = {"apiVersion": "heddle.dev/v1alpha1"}
_META = {"metadata": {"name": "x" * 51}}
_SETS = [{"name": "a", "count": 1}, {"name": "a", "count": 1}]
_LEVELS = [{"nodeLabel": "a"}, {"nodeLabel": "a"}]
_FAULTY: list[tuple[str, dict[str, Any]]] = [
    (
        "/apis/heddle.dev/v1alpha1/namespaces/default/trainingjobs",
        {**_API, **_META, "kind": "TrainingJob", "spec": {"command": ["true"]}},
    ),
    (
        "/apis/heddle.dev/v1alpha1/namespaces/default/workloads",
        {**_API, **_META, "kind": "Workload", "spec": {"queue": "default", "podSets": _SETS}},
    ),
    (
        "/apis/heddle.dev/v1alpha1/queues",
        {**_API, **_META, "kind": "Queue", "spec": {"quota": {"licenses.heddle.dev/": "1"}}},
    ),
    ("/apis/heddle.dev/v1alpha1/topologies", {**_API, **_META, "kind": "Topology", "spec": {"levels": _LEVELS}}),
]
