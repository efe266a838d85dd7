"""When jobs of this machine last saved a checkpoint: read off their files, so that no training has to tell."""

import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from heddle.api.trainingjob import TrainingJob

_DEPTH = 2
"""Levels below the directory: step-500/shard-0/weights is as deep as common trainers write."""
_MOST = 10_000
"""Entries looked at; in a larger tree the time of the directories themselves says when something was added."""


def last_saved(job: TrainingJob) -> float | None:
    """When something below the job's checkpoint directory last changed, in seconds since 1970.

    None where there is no such directory, it cannot be read, or nothing is in it. A checkpoint that is being written
    counts already. Times ahead of this machine's clock count as now.
    """
    if job.spec.checkpoint is None:
        return None
    root = Path(job.spec.working_dir) / job.spec.checkpoint.path
    found = max(islice(_times(root, _DEPTH), _MOST), default=None)
    return None if found is None else min(found, time.time())


def _times(directory: Path, depth: int) -> Iterator[float]:
    try:
        with os.scandir(directory) as found:
            entries = list(islice(found, _MOST))
    except OSError:
        return
    folders = []
    for entry in entries:
        try:
            yield entry.stat(follow_symlinks=False).st_mtime
            if depth and entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
        except OSError:  # removed meanwhile, as trainers do with old checkpoints
            continue
    for folder in folders:
        yield from _times(folder, depth - 1)
