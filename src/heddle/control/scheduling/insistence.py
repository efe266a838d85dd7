"""Writing until it is known what became of it.

Where nobody answers a write may have been made all the same: only a further try tells, since that finds what the first
has done, or does it. So all that is insisted on must come to the same when it is done twice.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from heddle.api.errors import ApiError, Unreachable

_log = logging.getLogger(__name__)

T = TypeVar("T")

_PAUSE, _LONGEST = 0.05, 2.0
"""Seconds between two tries: at first, and at most."""
_TRIES = 6
"""So often a server may answer that it has failed, before it is believed."""


async def insist(write: Callable[[], Awaitable[T]]) -> T:
    """Do this until there is an answer.

    Raises:
        ApiError: the answer is no; or the server has failed at it again and again.
    """
    pause, failed = _PAUSE, 0
    while True:
        try:
            return await write()
        except ApiError as error:
            failed += not isinstance(error, Unreachable)
            if error.status.code < 500 or failed >= _TRIES:
                raise
            _log.info("trying again: %s", error)
        await asyncio.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, _LONGEST)
