"""The real control plane, shared by all tests of the run; they are skipped, with the reason, where it cannot be had."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "controlplane.py"


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
