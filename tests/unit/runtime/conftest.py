"""Lets the tests of the runtime share one module of helpers."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
