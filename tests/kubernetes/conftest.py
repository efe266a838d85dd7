"""Lets the tests of the Kubernetes side share one module."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
