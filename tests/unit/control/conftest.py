"""Lets the tests of controllers share how they wait, and what writes later."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heddle.control.scheduling.afterwards import Afterwards

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
async def after() -> AsyncIterator[Afterwards]:
    """Writes that may wait, being written."""
    found = Afterwards()
    work = asyncio.create_task(found.run())
    yield found
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
