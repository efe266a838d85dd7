"""`heddle install` without a cluster: values, and what is refused before one is asked."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from heddle.cli import install
from heddle.cli.__main__ import app
from heddle.deploy.values import convert, spelled_out


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """A kubeconfig of a server that does not answer."""
    path = tmp_path / "config"
    named = {"name": "only"}
    cluster, user = {"server": "https://127.0.0.1:1"}, {"token": "none"}
    context = {"cluster": "only", "user": "only"}
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "only",
                "clusters": [{**named, "cluster": cluster}],
                "users": [{**named, "user": user}],
                "contexts": [{**named, "context": context}],
            }
        )
    )
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ((), 3, "no cluster answers at https://127.0.0.1:1"),
        (("--context", "elsewhere"), 2, "elsewhere"),
        (("--kubeconfig", "/nowhere"), 2, "/nowhere"),
        (("--set", "replica=3"), 2, "no value is named replica; there are: image,"),
        (("--set", "image.name=x"), 2, "no value is named image.name; there are: image.repository,"),
        (("--set", "replicas=many"), 2, "heddle: replicas: Expected `int`, got `str`"),
        (("--set", "replicas=10"), 2, "heddle: replicas: Expected `int` <="),
        (("--set", "resources.requests.cpu=lots"), 2, "resources.requests.cpu: 'lots' is not valid; give a quantity"),
        (("--set", "replicas"), 2, "write name=value"),
        (("--values", "/nowhere.yaml"), 2, "No such file"),
        (("--keep-crds",), 2, "goes with --uninstall"),
        (("--uninstall", "--set", "replicas=3"), 2, "do not go with --uninstall"),
    ],
)
def test_what_makes_no_sense_is_refused(nowhere: Path, arguments: tuple[str, ...], code: int, complaint: str) -> None:
    result = CliRunner().invoke(app, ["install", "--kubeconfig", str(nowhere), *arguments, "--yes"])
    assert result.exit_code == code
    assert complaint in result.output


def test_later_values_win_and_names_with_dots_keep_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("replicas: 3\nimage: {repository: one, tag: a}\n")
    second.write_text("image: {tag: b}\n")
    given = [r"nodeSelector.kubernetes\.io/os=linux", "extraArgs=[--log-level, debug]", "image.pullPolicy=Always"]
    told = spelled_out(install.chosen([first, second], given))
    assert told["replicas"] == 3
    assert told["image"] == {"repository": "one", "tag": "b", "pullPolicy": "Always"}
    assert told["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert told["extraArgs"] == ["--log-level", "debug"]


@pytest.mark.parametrize(
    "raw",
    [
        {"resources": {"requests": {"cpu": 1, "nvidia.com/gpu": "2"}}},
        {"affinity": {"nodeAffinity": {"any": ["thing"]}}},
        {"defaultQueue": {"spec": {"quota": {"nvidia.com/gpu": 8}}}},
    ],
)
def test_what_is_kubernetes_own_is_not_looked_into(raw: dict[str, Any]) -> None:
    told = spelled_out(convert(raw))
    for name, value in raw.items():
        for key, inner in value.items():
            assert told[name][key] == inner
