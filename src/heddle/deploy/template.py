"""Objects with holes: one description, filled in by Python or written out as a template of Helm.

A hole knows how both fill it. Templates of Helm need no more than `toJson` in place of a value (JSON is YAML) and an
`if` around an object, so that they stay readable and everything else is Python.
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import yaml

from heddle.deploy.values import Values, spelled_out


@dataclass(frozen=True)
class Hole:
    """A place that values fill."""

    helm: str
    """What stands there in a template: it must print YAML on one line."""
    fill: Callable[[dict[str, Any]], Any]
    """What stands there, given all values by their names on the wire."""


def value(path: str) -> Hole:
    """The hole that one value fills, such as `image.pullPolicy`."""
    return Hole(f"{{{{ toJson .Values.{path} }}}}", lambda values: at(values, path))


def at(values: dict[str, Any], path: str) -> Any:
    """The value of a path with dots."""
    found: Any = values
    for name in path.split("."):
        found = found[name]
    return found


@dataclass(frozen=True)
class Part:
    """One object of the installation."""

    body: dict[str, Any]
    when: str = ""
    """Path of the value that decides whether it is there."""
    needs: str = ""
    """Kind that the cluster must serve (`group/version/Kind`), or the object is left out."""
    chart: bool = True
    """Whether it belongs to the chart: Helm makes the namespace itself."""
    once: bool = field(default=False)
    """Whether it is only made with the first installation and never changed afterwards."""


def filled(parts: Iterable[Part], values: Values, served: Callable[[str], bool]) -> list[Part]:
    """Parts as they are for these values on a cluster that serves some kinds."""
    told = spelled_out(values)
    return [
        Part(_filled(part.body, told), part.when, part.needs, part.chart, part.once)
        for part in parts
        if (not part.when or at(told, part.when)) and (not part.needs or served(part.needs))
    ]


def _filled(node: Any, values: dict[str, Any]) -> Any:
    match node:
        case Hole(fill=fill):
            return fill(values)
        case dict():
            return {key: _filled(inner, values) for key, inner in node.items()}
        case list() | tuple():
            return [_filled(inner, values) for inner in node]
        case _:
            return node


class _Dumper(yaml.SafeDumper):
    """YAML as people write it: lists indented below their name."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(node: Any) -> str:
    """An object as YAML."""
    return yaml.dump(node, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)


def written(part: Part) -> str:
    """A part as a document of a template."""
    holes: list[Hole] = []

    def mark(node: Any) -> Any:
        match node:
            case Hole():
                holes.append(node)
                return f"HOLE{len(holes) - 1}END"
            case dict():
                return {key: mark(inner) for key, inner in node.items()}
            case list() | tuple():
                return [mark(inner) for inner in node]
            case _:
                return node

    text = to_yaml(mark(part.body))
    if "{{" in text:
        raise ValueError(f"{part.body['metadata']}: Helm would take its braces for its own")
    text = re.sub(r"HOLE([0-9]+)END", lambda found: holes[int(found[1])].helm, text)
    conditions = [f".Values.{part.when}"] if part.when else []
    if part.needs:
        conditions.append(f"(.Capabilities.APIVersions.Has {json.dumps(part.needs)})")
    if not conditions:
        return text
    condition = conditions[0] if len(conditions) == 1 else f"and {' '.join(conditions)}"
    return f"{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n"
