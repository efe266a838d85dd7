"""The world of an engine as a JSON document: what a live heddle writes down and a simulation starts from.

The document is ``{"kind": "heddle-snapshot", "version": 1, "at": <seconds>, "snapshot": {...}}``. Below ``snapshot``
are the fields of :class:`heddle.engine.Snapshot` under their own names; ``docs/traces.md`` tells more. A field that
heddle does not know is refused: a world of which a part was overlooked would be simulated wrongly without anybody's
notice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from heddle.engine.snapshot import Snapshot
from heddle.simulator.tables import TableError, opened, written

KIND = "heddle-snapshot"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Recorded:
    """A world and its moment.

    Attributes:
        snapshot: the world.
        at: seconds on the clock on which its times are.
    """

    snapshot: Snapshot
    at: float = 0.0


def document(recorded: Recorded) -> dict[str, Any]:
    """The document as plain values; equal worlds give equal ones, in the same order."""
    snapshot = msgspec.to_builtins(recorded.snapshot, order="deterministic")
    return {"kind": KIND, "version": VERSION, "at": recorded.at, "snapshot": snapshot}


def dump(recorded: Recorded) -> bytes:
    """The document, on one line; equal worlds give equal bytes."""
    return msgspec.json.encode(document(recorded)) + b"\n"


def load(data: bytes, where: str = "snapshot") -> Recorded:
    """The world of a document.

    Args:
        data: what :func:`dump` made.
        where: what errors call it.

    Raises:
        TableError: it is none, of another version, or a field is broken.
    """
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TableError(f"{where}: is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise TableError(f"{where}: kind: is no snapshot of heddle; give a document with kind {KIND!r}")
    if document.get("version") != VERSION:
        found = document.get("version")
        raise TableError(f"{where}: version: {found!r} is not known; this heddle reads version {VERSION}")
    at = document.get("at", 0.0)
    if isinstance(at, bool) or not isinstance(at, int | float):
        raise TableError(f"{where}: at: {at!r} is not valid; give seconds")
    if strange := sorted(document.keys() - {"kind", "version", "at", "snapshot"}):
        raise TableError(f"{where}: {strange[0]}: is not known; leave it out")
    try:
        snapshot = msgspec.convert(document.get("snapshot"), Snapshot)
    except msgspec.ValidationError as error:
        raise TableError(f"{where}: snapshot: {error}") from error
    if strange_at := _unknown(document["snapshot"], msgspec.to_builtins(snapshot), "snapshot"):
        raise TableError(f"{where}: {strange_at}: is not known to this heddle; leave it out")
    return Recorded(snapshot, float(at))


def write(path: Path, recorded: Recorded) -> None:
    """Writes a world to a file, compressed if its name ends in ``.gz``, ``.bz2`` or ``.xz``."""
    written(path, dump(recorded))


def read(path: Path) -> Recorded:
    """The world of a file, plain or compressed.

    Raises:
        TableError: it cannot be read or is no snapshot.
    """
    with opened(path) as file:
        data = file.read()
    return load(data, str(path))


def _unknown(told: Any, understood: Any, where: str) -> str | None:
    """The first field that was told and is not in what was understood."""
    if isinstance(told, dict) and isinstance(understood, dict):
        for key, value in told.items():
            if key not in understood:
                return f"{where}.{key}"
            if found := _unknown(value, understood[key], f"{where}.{key}"):
                return found
    elif isinstance(told, list) and isinstance(understood, list | tuple):
        for at, (one, other) in enumerate(zip(told, understood, strict=False)):
            if found := _unknown(one, other, f"{where}[{at}]"):
                return found
    return None
