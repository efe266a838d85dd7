"""Volumes as they are written on a command line."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from heddle.api.errors import BadRequest
from heddle.api.trainingjob import JobVolume


def parsed(text: str) -> JobVolume:
    """The volume that `CLAIM:/path[:ro]` or `/directory:/path[:ro]` means.

    Raises:
        BadRequest: it means none.
    """
    source, _, rest = text.partition(":")
    path, _, mode = rest.partition(":")
    if not source or not path.startswith("/") or mode not in ("", "ro", "rw"):
        raise BadRequest(
            f"--volume {text!r}: write CLAIM:/path for a PersistentVolumeClaim or /directory:/path for a directory of "
            "the node, with :ro behind it for read only"
        )
    if source.startswith("/"):
        return JobVolume(mount_path=path, host_path=source, read_only=mode == "ro")
    return JobVolume(mount_path=path, claim=source, read_only=mode == "ro")


def checkpoint(path: str, volumes: Iterable[JobVolume]) -> str:
    """A directory of checkpoints that outlives a pod; a URL is the program's own business.

    Raises:
        BadRequest: it would go with its pod.
    """
    if "://" in path:
        return path
    kept = [v.mount_path for v in volumes if v.memory is None and not v.config_map and not v.read_only]
    if not any(PurePosixPath(path).is_relative_to(mount) for mount in kept):
        raise BadRequest(
            f"--checkpoint {path}: on a cluster pods are made anew when a job restarts, and what is not on a volume is "
            "lost; mount one and name a directory of it: --volume CLAIM:/checkpoints --checkpoint /checkpoints/run-1"
        )
    return path
