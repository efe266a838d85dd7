"""The Helm chart: current, sound, the same as what Python makes; installed, upgraded and removed with the real helm."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import Kubectl

from heddle.deploy import chart
from heddle.deploy.objects import MANAGED_BY, parts
from heddle.deploy.template import filled
from heddle.deploy.values import convert

pytestmark = pytest.mark.kubernetes

Everything = Callable[[Any], set[str]]
CHART = Path(__file__).parents[2] / "deploy" / "helm" / "heddle"
VERSION = ("--kube-version", "1.36.3")
STAMPS = "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"

CHANGED: dict[str, Any] = {
    "image": {"repository": "registry.example/heddle", "tag": "1.2.3", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "replicas": 3,
    "extraArgs": ["--log-level", "debug: {yes}"],
    "nodeSelector": {"pool": "system"},
    "tolerations": [{"key": "system", "operator": "Exists"}],
    "podAnnotations": {"team": 'it\'s "platform"'},
    "podDisruptionBudget": {"enabled": False},
    "crds": {"keep": True},
    "defaultQueue": {"spec": {"quota": {"nvidia.com/gpu": 8}}},
    "userRoles": {"enabled": False},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """helm's own files, away from those of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("helm")
    names = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
    return {**os.environ, **{name: str(folder / name) for name in names}}


class Helm(Kubectl):
    def __init__(self, binary: Path, home: dict[str, str], plane: Any = None) -> None:
        self.plane = plane
        self._command = [str(binary), *(["--kubeconfig", str(plane.kubeconfig)] if plane else [])]
        self._home = home

    def refused(self, *arguments: str) -> str:
        done = self._run(*arguments)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def __call__(self, *arguments: str) -> str:
        done = self._run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments], env=self._home, capture_output=True, text=True, check=False, timeout=100
        )


@pytest.fixture
def helm(helm_binary: Path, home: dict[str, str]) -> Helm:
    return Helm(helm_binary, home)


def test_the_chart_is_what_the_description_says() -> None:
    found = {str(path.relative_to(CHART)): path.read_text() for path in CHART.rglob("*") if path.is_file()}
    assert found == chart.files(), "run `make chart`"


def test_helm_finds_no_fault(helm: Helm, tmp_path: Path) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", *VERSION, "--namespace", "heddle-system", str(CHART))
    changed = tmp_path / "values.yaml"
    changed.write_text(yaml.safe_dump(CHANGED))
    helm("lint", "--strict", *VERSION, "--namespace", "heddle-system", "--values", str(changed), str(CHART))


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """An object without the marks of who installed it."""
    body = json.loads(json.dumps(body))
    for meta in (body["metadata"], body["spec"]["template"]["metadata"] if body["kind"] == "Deployment" else {}):
        meta.get("labels", {}).pop(MANAGED_BY, None)
    return body


@pytest.mark.parametrize("served", [True, False], ids=["1.36", "before"])
@pytest.mark.parametrize("values", [{}, CHANGED, {"crds": {"install": False}, "admission": {"enabled": False}}])
def test_helm_and_python_make_the_same(helm: Helm, tmp_path: Path, values: dict[str, Any], served: bool) -> None:
    given = tmp_path / "values.yaml"
    given.write_text(yaml.safe_dump(values))
    apis = [f"--api-versions={STAMPS}", f"--api-versions={STAMPS}Binding"] if served else []
    text = helm(
        "template", "heddle", str(CHART), "--namespace=heddle-system", *VERSION, *apis, "--values", str(given)
    )  # fmt: skip
    by_helm = [plain(body) for body in yaml.safe_load_all(text) if body]
    wanted = [part.body for part in filled(parts(), convert(values), lambda _: served) if part.chart]

    def name(body: dict[str, Any]) -> tuple[str, str]:
        return body["kind"], body["metadata"]["name"]

    assert sorted(by_helm, key=name) == sorted(map(plain, wanted), key=name)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("replicas=many", "replicas"),
        ("replicas=-1", "replicas"),
        ("replica=2", "additional properties 'replica' not allowed"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
    ],
)
def test_values_that_make_no_sense_are_refused(helm: Helm, given: str, complaint: str) -> None:
    said = helm.refused("template", "heddle", str(CHART), "--namespace=heddle-system", *VERSION, "--set", given)
    assert complaint in said


@pytest.mark.parametrize(("name", "namespace"), [("heddle", "elsewhere"), ("other", "heddle-system")])
def test_another_place_is_refused_with_the_remedy(helm: Helm, name: str, namespace: str) -> None:
    said = helm.refused("template", name, str(CHART), f"--namespace={namespace}", *VERSION)
    assert "helm install heddle ... --namespace heddle-system --create-namespace" in said


# What follows is one life of a release: each test takes up where the one before it ends.


@pytest.fixture(scope="module")
def cluster(bed: Any, helm_binary: Path, home: dict[str, str]) -> Iterator[Helm]:
    with bed.running() as plane:
        yield Helm(helm_binary, home, plane)


@pytest.fixture(scope="module")
def before(cluster: Helm, everything: Everything) -> set[str]:
    """What there was before heddle."""
    cluster.kubectl("create", "namespace", "heddle-system")
    return everything(cluster.plane)


@pytest.fixture(scope="module")
def previous(cluster: Helm, before: set[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """An earlier release: a field and a rule less, an object that is no longer needed."""
    folder = tmp_path_factory.mktemp("previous")
    for name, text in chart.files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "Chart.yaml").write_text((CHART / "Chart.yaml").read_text().replace("version: 0.1.0", "version: 0.0.9"))
    for definitions in folder.rglob("crds.yaml"):
        definitions.write_text(definitions.read_text().replace("usageHalfLifeSeconds:", "formerName:"))
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "former", "namespace": "heddle-system"}}
    (folder / "templates" / "former.yaml").write_text(yaml.safe_dump(extra))
    cluster("install", "heddle", str(folder), "--namespace=heddle-system", "--set=admission.enabled=false")


def test_what_the_chart_makes_is_accepted(cluster: Helm, previous: None) -> None:
    deployment = cluster.get("deployment", "heddle-controller", "-n", "heddle-system")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "ghcr.io/heddle/heddle:0.1.0"
    assert container["args"] == ["controller"]
    assert cluster.get("queue", "default")["spec"]["weight"] == 1  # a default of the definition


def test_an_upgrade_keeps_what_users_made_and_brings_what_is_new(
    cluster: Helm, previous: None, everything: Everything
) -> None:
    cluster.kubectl("patch", "queue", "default", "--type=merge", "-p", '{"spec":{"weight":5}}')
    running = {
        "apiVersion": "heddle.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "running", "namespace": "default"},
        "spec": {"command": ["true"]},
    }
    cluster.kubectl("create", "-f", "-", given=running)
    uids = {kind: cluster.get(*kind)["metadata"]["uid"] for kind in (("queue", "default"), ("trainingjob", "running"))}
    cluster("upgrade", "heddle", str(CHART), "--namespace=heddle-system", "--set=replicas=3")
    assert {kind: cluster.get(*kind)["metadata"]["uid"] for kind in uids} == uids
    assert cluster.get("queue", "default")["spec"]["weight"] == 5
    assert cluster.get("deployment", "heddle-controller", "-n", "heddle-system")["spec"]["replicas"] == 3
    assert "ConfigMap/heddle-system/former" not in everything(cluster.plane)
    assert cluster.get("validatingadmissionpolicies")["items"]
    cluster.kubectl("patch", "queue", "default", "--type=merge", "-p", '{"spec":{"usageHalfLifeSeconds":60}}')
    assert cluster.get("queue", "default")["spec"]["usageHalfLifeSeconds"] == 60


def test_removed_with_definitions_kept_the_jobs_stay_and_are_taken_up_again(
    cluster: Helm, previous: None, everything: Everything
) -> None:
    cluster("upgrade", "heddle", str(CHART), "--namespace=heddle-system", "--set=crds.keep=true")
    cluster("uninstall", "heddle", "--namespace=heddle-system")
    uid = cluster.get("trainingjob", "running")["metadata"]["uid"]
    left = {name.split("/")[0] for name in everything(cluster.plane) if "heddle" in name}
    assert left == {"Namespace", "CustomResourceDefinition", "APIService"}
    assert cluster.get("queue", "default")["spec"]["weight"] == 5
    cluster("install", "heddle", str(CHART), "--namespace=heddle-system")
    assert cluster.get("trainingjob", "running")["metadata"]["uid"] == uid


def test_removed_it_leaves_nothing(cluster: Helm, previous: None, before: set[str], everything: Everything) -> None:
    cluster("uninstall", "heddle", "--namespace=heddle-system", "--wait")
    cluster.kubectl("wait", "--for=delete", "crd/trainingjobs.heddle.dev", "--timeout=30s")
    assert everything(cluster.plane) == before
