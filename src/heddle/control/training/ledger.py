"""What jobs have used, kept after they are gone: GPU-seconds by user and queue.

One ConfigMap holds an entry for each of the last jobs and one total for each user and queue. When there are as many
entries as are kept, the older half is added to the totals in the same write, so that nothing is counted twice or lost
by a crash: a job is recorded if and only if its entry, or the condition `Recorded` of the job itself, exists.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from heddle.api.core import ConfigMap
from heddle.api.errors import AlreadyExists, Conflict, NotFound
from heddle.api.meta import ObjectMeta, Struct
from heddle.api.registry import CONFIGMAPS
from heddle.api.trainingjob import TrainingJob
from heddle.api.workload import USER_ANNOTATION
from heddle.store.client import Client

NAMESPACE, NAME = "heddle-system", "heddle-usage"
KEPT = 200
_JOB, _TOTAL = "job.", "total."


class Entry(Struct, kw_only=True, omit_defaults=False):
    """Use of one job, or the sum of many."""

    user: str = ""
    queue: str = ""
    gpu_seconds: int = 0
    jobs: int = 1
    name: str = ""
    phase: str = ""
    ended: str = ""


def entry_of(job: TrainingJob) -> Entry:
    """What there is to record of a job."""
    return Entry(
        user=job.metadata.annotations.get(USER_ANNOTATION, ""),
        queue=job.spec.queue,
        gpu_seconds=job.status.gpu_seconds,
        name=job.key,
        phase=job.status.phase,
        ended=job.status.completion_time or "",
    )


def entries(data: dict[str, str]) -> dict[str, Entry]:
    """Recorded jobs by UID, oldest first."""
    found = {
        key.removeprefix(_JOB): msgspec.json.decode(text, type=Entry)
        for key, text in data.items()
        if key.startswith(_JOB)
    }
    return dict(sorted(found.items(), key=lambda item: (item[1].ended, item[0])))


def usage(data: dict[str, str], living: Iterable[TrainingJob] = ()) -> dict[tuple[str, str], Entry]:
    """Use by (user, queue): totals, recorded jobs, and living ones that are not recorded yet."""
    recorded = entries(data)
    rows = [msgspec.json.decode(text, type=Entry) for key, text in data.items() if key.startswith(_TOTAL)]
    rows += recorded.values()
    rows += [entry_of(job) for job in living if job.metadata.uid not in recorded and not is_recorded(job)]
    found: dict[tuple[str, str], Entry] = {}
    for row in rows:
        total = found.setdefault((row.user, row.queue), Entry(user=row.user, queue=row.queue, jobs=0))
        total.gpu_seconds += row.gpu_seconds
        total.jobs += row.jobs
    return dict(sorted(found.items()))


def is_recorded(job: TrainingJob) -> bool:
    """Whether the job says that it is in the ledger."""
    return any(c.type == "Recorded" and c.status == "True" for c in job.status.conditions)


def change(data: dict[str, str], uid: str, entry: Entry, kept: int = KEPT) -> dict[str, str | None]:
    """The change of the ConfigMap's data that records a job; empty where it is there already."""
    if _JOB + uid in data:
        return {}
    patch: dict[str, str | None] = {_JOB + uid: _text(entry)}
    if sum(key.startswith(_JOB) for key in data) < kept:
        return patch
    recorded = entries(data)
    for old_uid in list(recorded)[: len(recorded) - kept // 2]:  # half at once, so that it is seldom done
        old = recorded[old_uid]
        key = _TOTAL + hashlib.sha256(f"{old.user}\0{old.queue}".encode()).hexdigest()[:32]
        text = patch.get(key) or data.get(key)
        total = msgspec.json.decode(text, type=Entry) if text else Entry(user=old.user, queue=old.queue, jobs=0)
        total.gpu_seconds += old.gpu_seconds
        total.jobs += old.jobs
        patch[key] = _text(total)
        patch[_JOB + old_uid] = None
    return patch


def _text(entry: Entry) -> str:
    return msgspec.json.encode(entry).decode()


class Ledger:
    """The ConfigMap, written by one at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = asyncio.Lock()

    async def record(self, uid: str, entry: Entry) -> None:
        """Record a job; done twice it changes nothing."""
        async with self._lock:
            while True:
                try:
                    found: ConfigMap = await self._client.get(CONFIGMAPS, NAME, NAMESPACE)
                except NotFound:
                    with contextlib.suppress(AlreadyExists):
                        meta = ObjectMeta(name=NAME, namespace=NAMESPACE)
                        await self._client.create(CONFIGMAPS, ConfigMap(metadata=meta))
                    continue
                if not (data := change(found.data, uid, entry)):
                    return
                patch: dict[str, Any] = {
                    "metadata": {"resourceVersion": found.metadata.resource_version},
                    "data": data,
                }
                with contextlib.suppress(Conflict):
                    await self._client.patch(CONFIGMAPS, NAME, patch, NAMESPACE)
                    return
