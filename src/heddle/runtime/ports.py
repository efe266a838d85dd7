"""What the runtime needs from those around it."""

from typing import Protocol

from heddle.api.core import ConfigMap, Secret
from heddle.api.pod import Pod, PodStatus


class References(Protocol):
    """Looks up what environments refer to."""

    async def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        """Return the ConfigMap, or None."""
        ...

    async def secret(self, namespace: str, name: str) -> Secret | None:
        """Return the Secret, or None."""
        ...


class StatusSink(Protocol):
    """Hears about pods. Calls for one pod come in order; a raised exception is logged and the report repeated."""

    async def pod_status(self, pod: Pod, status: PodStatus) -> None:
        """The pod's status is now this."""
        ...

    async def pod_gone(self, pod: Pod) -> None:
        """A pod with a deletionTimestamp has ended: delete it with grace 0."""
        ...

    async def pod_event(self, pod: Pod, kind: str, reason: str, message: str) -> None:
        """Something worth an Event: kind is Normal or Warning."""
        ...
