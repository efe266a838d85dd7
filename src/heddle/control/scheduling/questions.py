"""What people ask the server that is no object: why a job waits, what would come of another, what there is."""

import asyncio
import time
from typing import Any

import msgspec

from heddle.api.admission import admit, stamp
from heddle.api.clock import to_text
from heddle.api.errors import BadRequest
from heddle.api.queue import Queue
from heddle.api.registry import QUEUES, TRAININGJOBS
from heddle.api.trainingjob import TrainingJob
from heddle.control.scheduling.answers import Answer, Preview
from heddle.control.scheduling.inquiries import Inquiries
from heddle.control.training import pods as build
from heddle.server.auth import User
from heddle.simulator.snapshot import Recorded, document

_KINDS = {resource.kind: resource for resource in (TRAININGJOBS, QUEUES)}


async def explained_job(inquiries: Inquiries, query: dict[str, str]) -> Answer:
    """Why a workload waits.

    Raises:
        BadRequest: the query names none.
        NotFound: there is no such workload.
    """
    name, namespace = query.get("name", ""), query.get("namespace", "default")
    if not name:
        raise BadRequest("name: give the name of a workload")
    return await inquiries.explain(f"{namespace}/{name}")


async def recorded_world(inquiries: Inquiries) -> dict[str, Any]:
    """What the scheduler knows, as a document that a simulation goes on from."""
    found = await inquiries.snapshot()
    recorded = Recorded(found, time.time())
    return await asyncio.to_thread(document, recorded)


async def previewed_object(inquiries: Inquiries, query: dict[str, str], user: User, *, here: bool = True) -> Preview:
    """What would come of a TrainingJob or a Queue, were it written now; `here`: to embedded heddle, not to a cluster.

    Raises:
        BadRequest: the body is none of these.
        Invalid: it breaks its rules.
    """
    try:
        obj = msgspec.json.decode(query.get("object", ""))
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is no JSON: {error}") from None
    resource = _KINDS.get(obj.get("kind", "")) if isinstance(obj, dict) else None
    if resource is None:
        raise BadRequest(f"kind: a preview is made of {' and '.join(_KINDS)} only")
    stamp(obj, user.name, user.groups)
    admitted = admit(resource, None, obj, "CREATE", here=here)
    kind: type[TrainingJob] | type[Queue] = TrainingJob if resource is TRAININGJOBS else Queue
    found: TrainingJob | Queue = msgspec.convert(admitted, kind)
    meta = found.metadata
    meta.creation_timestamp = meta.creation_timestamp or to_text(time.time())
    meta.name = meta.name or f"{meta.generate_name}preview"
    if isinstance(found, Queue):
        return await inquiries.preview(found, [])
    workload = build.workload(found)
    workload.metadata.creation_timestamp = meta.creation_timestamp
    return await inquiries.preview(workload, [build.pod(found, index) for index in range(found.spec.size)])
