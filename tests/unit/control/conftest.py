"""Lets the tests of controllers share how they wait."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
