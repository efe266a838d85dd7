"""The kinds whose pods belong together: a table (`kinds.toml`), and how it is read."""

import tomllib
from collections.abc import Mapping
from importlib import resources
from math import prod
from typing import Any

import msgspec

from heddle.api.meta import Struct
from heddle.api.pod import Pod
from heddle.api.registry import Resource

Owner = dict[str, Any]
"""An object of such a kind as decoded JSON."""


class Only(Struct, rename=None, forbid_unknown_fields=True):
    """Owners of which the pods belong together: those with one of the values at the path."""

    path: str
    values: list[str]


class Part(Struct, rename=None, forbid_unknown_fields=True):
    """Parts of an owner, and how many pods each has."""

    each: str = ""
    named: str = ""
    name: str = "pods"
    count: list[str] = []
    most: str = ""


class OwnerKind(Struct, rename=None, forbid_unknown_fields=True):
    """A row of the table; `kinds.toml` says what its fields mean."""

    group: str
    version: str
    kind: str
    plural: str
    name_label: str
    marks: dict[str, str] = {}
    part_label: str = ""
    group_label: str = ""
    only: Only | None = None
    parts: tuple[Part, ...] = ()

    @property
    def resource(self) -> Resource:
        """Where its objects are."""
        return Resource(self.group, self.version, self.kind, self.plural, True)

    def owns(self, pod: Pod) -> bool:
        """Whether a pod's labels say that it is made for an object of this kind."""
        labels = pod.metadata.labels
        return self.name_label in labels and all(labels.get(name) == value for name, value in self.marks.items())

    def together(self, owner: Owner) -> bool:
        """Whether the pods of this owner belong together."""
        return self.only is None or str(_at(owner, self.only.path)) in self.only.values

    def counts(self, owner: Owner) -> dict[str, int]:
        """How many pods each part of an owner has; parts without pods are left out."""
        found: dict[str, int] = {}
        for part in self.parts:
            for name, holder in _parts(part, owner):
                number = prod(_number(_at(holder, path)) for path in part.count)
                if part.most and (most := _at(holder, part.most)) is not None:
                    number = min(number, _number(most))
                if number > 0:
                    found[name] = found.get(name, 0) + number
        return found

    def part(self, pod: Pod) -> str:
        """The part that a pod belongs to."""
        return pod.metadata.labels.get(self.part_label, "").lower() if self.part_label else Part().name


class _Table(Struct, rename=None, forbid_unknown_fields=True):
    kind: list[OwnerKind] = []


def read(text: str) -> tuple[OwnerKind, ...]:
    """The rows of a table.

    Raises:
        ValueError: it is no such table; names the field.
    """
    try:
        return tuple(msgspec.convert(tomllib.loads(text), _Table).kind)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"table of kinds: {error}") from None


def known() -> tuple[OwnerKind, ...]:
    """The kinds that heddle knows of itself."""
    return read(resources.files(__package__).joinpath("kinds.toml").read_text())


def _parts(part: Part, owner: Owner) -> list[tuple[str, Any]]:
    if not part.each:
        return [(part.name, owner)]
    found = _at(owner, part.each)
    if isinstance(found, Mapping):
        return [(str(name).lower(), holder) for name, holder in found.items()]
    holders = found if isinstance(found, list) else []
    return [(str(_at(holder, part.named or "name") or "").lower(), holder) for holder in holders]


def _at(holder: Any, path: str) -> Any:
    for step in path.split("."):
        if not isinstance(holder, Mapping):
            return None
        holder = holder.get(step)
    return holder


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 1
