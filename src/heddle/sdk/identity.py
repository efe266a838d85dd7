"""Users and secrets as they are written on a command line."""

import re

from heddle.api.errors import BadRequest
from heddle.api.meta import LocalObjectReference
from heddle.api.pod import EnvFromSource, EnvVar, EnvVarSource, KeySelector
from heddle.api.security import RunAs

_NAME = r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?"
_VARIABLE = re.compile(rf"(?P<variable>[A-Za-z_][A-Za-z0-9_]*)=(?P<secret>{_NAME}):(?P<key>[-._A-Za-z0-9]+)")


def user(text: str) -> RunAs:
    """As whom `UID` or `UID:GID` runs; the group owns the volumes, too.

    Raises:
        BadRequest: it names nobody.
    """
    match = re.fullmatch(r"(\d{1,10})(?::(\d{1,10}))?", text)
    if match is None:
        raise BadRequest(f"--user {text!r}: write UID or UID:GID in numbers, as 1000:1000")
    uid, gid = int(match[1]), int(match[2]) if match[2] else None
    return RunAs(run_as_user=uid, run_as_group=gid, fs_group=gid, run_as_non_root=True if uid else None)


def secret(text: str) -> EnvVar | EnvFromSource:
    """The variable that `NAME=SECRET:KEY` means, or all that `SECRET` holds.

    Raises:
        BadRequest: it means neither.
    """
    if match := _VARIABLE.fullmatch(text):
        key = KeySelector(name=match["secret"], key=match["key"])
        return EnvVar(name=match["variable"], value_from=EnvVarSource(secret_key_ref=key))
    if re.fullmatch(_NAME, text):
        return EnvFromSource(secret_ref=LocalObjectReference(name=text))
    raise BadRequest(f"--secret-env {text!r}: write NAME=SECRET:KEY for one variable, or SECRET for all that it holds")
