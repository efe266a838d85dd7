"""An embedded heddle in a process of its own, with two simulated nodes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Heddle = Callable[..., subprocess.CompletedProcess[str]]


def run_heddle(home: Path, *arguments: str, timeout: float = 60, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HEDDLE_HOME": str(home)}
    environment.pop("KUBECONFIG", None)
    return subprocess.run(
        [sys.executable, "-m", "heddle.cli", *arguments],
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("heddle")
    up = run_heddle(folder, "up", "--simulate", "2x8xH100")
    assert up.returncode == 0, up.stderr
    yield folder
    down = run_heddle(folder, "down", "--yes")
    assert down.returncode == 0, down.stderr


@pytest.fixture
def heddle(home: Path) -> Heddle:
    def call(*arguments: str, timeout: float = 60, given: str = "") -> subprocess.CompletedProcess[str]:
        return run_heddle(home, *arguments, timeout=timeout, given=given)

    return call


@pytest.fixture(scope="session")
def command() -> Heddle:
    """`heddle` in any home: the first argument is the folder."""
    return run_heddle
