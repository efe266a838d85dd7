"""Where objects live: one port, and an implementation for each place."""

from heddle.store.client import Client
from heddle.store.informer import Informer
from heddle.store.port import INITIAL_EVENTS_END, Page, PatchType, Store, Watched

__all__ = ["INITIAL_EVENTS_END", "Client", "Informer", "Page", "PatchType", "Store", "Watched"]
