"""What a process must have heard before it plans: all that its predecessor did.

A watch tells late, now and then by seconds. Who leads from now on on such news would give a place away that a pod has
just been bound to. So it asks once, as of now, which pods wait, and begins when it knows the same of them.
"""

import asyncio
import logging
from collections.abc import Iterable

import msgspec

from heddle.api.errors import ApiError
from heddle.api.pod import Pod
from heddle.api.registry import PODS
from heddle.store.informer import Informer
from heddle.store.port import Store

_log = logging.getLogger(__name__)

_PAGE = 2000
_LOOK, _AGAIN = 0.02, 0.5
"""Seconds between two looks at what was heard, and between two questions that nobody answers."""


class _Meta(msgspec.Struct):
    uid: str


class _Head(msgspec.Struct):
    metadata: _Meta


_HEAD = msgspec.json.Decoder(_Head)


async def caught_up(store: Store, pods: Informer[Pod], scheduler: str) -> None:
    """Wait until it is known of each pod that waits for this scheduler whether it still did when this was called."""
    waiting = set(_waiting(pods.objects.values(), scheduler))
    if not waiting:
        return
    unheard = waiting - await _waiting_now(store, scheduler)
    if unheard:
        _log.info("it is not known yet what became of %d pods", len(unheard))
    while unheard:
        await asyncio.sleep(_LOOK)
        unheard &= set(_waiting(pods.objects.values(), scheduler))


def _waiting(pods: Iterable[Pod], scheduler: str) -> Iterable[str]:
    return (p.metadata.uid for p in pods if not p.spec.node_name and p.spec.scheduler_name == scheduler)


async def _waiting_now(store: Store, scheduler: str) -> set[str]:
    """UIDs of the pods that wait, by the API server itself, as soon as it answers."""
    while True:
        try:
            return await _listed(store, f"spec.nodeName=,spec.schedulerName={scheduler}")
        except ApiError as error:
            _log.warning("which pods wait is not known: %s", error)
            await asyncio.sleep(_AGAIN)


async def _listed(store: Store, selector: str) -> set[str]:
    found: set[str] = set()
    more = ""
    while True:
        page = await store.list(PODS, field_selector=selector, limit=_PAGE, continue_=more)
        found.update(_HEAD.decode(blob).metadata.uid for blob in page.items)
        more = page.continue_
        if not more:
            return found
