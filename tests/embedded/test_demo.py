"""The demo, from its first line to its last."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo" / "demo.py"


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_demo_passes_and_leaves_nothing(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, DEMO], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.stdout.splitlines()[-1] == "demo: passed", done.stdout
    assert done.returncode == 0
    assert list(tmp_path.glob("heddle-demo-*")) == []
    resumed = re.search(r"resumed at step (\d+); the checkpoint of the larger world is of step (\d+)", done.stdout)
    assert resumed
    assert int(resumed[1]) == int(resumed[2]) > 0
    accuracy = re.findall(r"^\[.*with accuracy ([\d.]+) % on held-out digits$", done.stdout, re.MULTILINE)
    assert len(accuracy) == 2
    assert min(map(float, accuracy)) >= 95
