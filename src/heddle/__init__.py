"""heddle turns GPUs - one workstation, a cluster, a fleet - into one shared AI platform."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heddle.sdk import Client

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> Any:
    """`heddle.Client` without making every import of a part of heddle pay for it."""
    if name == "Client":
        from heddle.sdk import Client

        return Client
    raise AttributeError(f"module 'heddle' has no attribute {name!r}")
