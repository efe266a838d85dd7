"""heddle from Python; `heddle.Client` is the front."""

from heddle.sdk.client import Client

__all__ = ["Client"]
