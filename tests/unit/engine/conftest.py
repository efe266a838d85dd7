"""Lets the tests of the engine share one module of invariants."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
