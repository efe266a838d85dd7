"""The real control plane, shared by all tests of the run; they are skipped, with the reason, where it cannot be had."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "controlplane.py"
ENGINE = Path(__file__).parents[1] / "src" / "heddle" / "engine"


def pytest_sessionstart() -> None:
    """Compiled modules that are older than their sources would be tested in their place."""
    for made in ENGINE.rglob("*.so"):
        source = made.with_name(made.name.partition(".")[0] + ".py")
        if not source.exists() or source.stat().st_mtime > made.stat().st_mtime:
            pytest.exit(f"{made.name} is older than its source: `make compile` again, or `make pure`", returncode=2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Compiled code cannot be replaced in parts."""
    if next(ENGINE.rglob("*.so"), None) is not None:
        for item in items:
            if item.get_closest_marker("interpreted"):
                item.add_marker(pytest.mark.skip(reason="the engine is compiled"))


def tool() -> Any:
    """tools/controlplane.py as a module, loaded once for the process."""
    name = "heddle_tools_controlplane"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TOOL)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def bed() -> Any:
    """tools/controlplane.py, for tests that need a cluster of their own."""
    module = tool()
    try:
        module.build()
    except module.Unavailable as why:
        pytest.skip(str(why))
    return module


@pytest.fixture(scope="session")
def real(bed: Any) -> Any:
    """tools/node.py, for tests on which pods really run."""
    import node

    try:
        if why := node.obstacle():
            pytest.skip(why)
        bed.KUBELET.build()
        node.build()
    except bed.Unavailable as why:
        pytest.skip(str(why))
    return node


@pytest.fixture(scope="session")
def controlplane() -> Any:
    """url, token, ca, kubectl, kubeconfig of a real kube-apiserver with etcd and the garbage collector."""
    module = tool()
    try:
        return module.shared()
    except module.Unavailable as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def kubectl_binary() -> Path:
    """The stock kubectl."""
    module = tool()
    try:
        return Path(module.build()) / "kubectl"
    except module.Unavailable as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def helm_binary() -> Path:
    """The stock helm."""
    module = tool()
    try:
        return Path(module.helm())
    except module.Unavailable as why:
        pytest.skip(str(why))
