"""Texts without the names of workloads that the reader may not know of: who holds room is told, not as whom."""

import re
from collections.abc import Collection
from typing import Any

HIDDEN = "a workload of another namespace"

_KEY = re.compile(
    r"""(?<![\w./-])
    (?P<namespace>[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)/   # resources and labels have a dot in what is before the slash
    (?:\(pod\)[ ])?[A-Za-z0-9](?:[\w.-]*\w)?""",
    re.VERBOSE,
)
"""`namespace/name`, as the engine calls workloads and disruption budgets."""


def namespaces(value: Any) -> set[str]:
    """Namespaces of which an answer names a workload."""
    return {found["namespace"] for text in _texts(value) for found in _KEY.finditer(text)}


def redacted(value: Any, readable: Collection[str]) -> Any:
    """The same answer, with names only of workloads in these namespaces."""
    if isinstance(value, str):
        return _KEY.sub(lambda found: found[0] if found["namespace"] in readable else HIDDEN, value)
    if isinstance(value, dict):
        return {key: redacted(inner, readable) for key, inner in value.items()}
    if isinstance(value, list):
        return [redacted(inner, readable) for inner in value]
    return value


def told_in(text: str, namespace: str, known: Collection[str]) -> str:
    """What is written where everybody in a namespace reads it: names only of workloads there.

    Args:
        text: it.
        namespace: where.
        known: the namespaces that there are; a slash behind another word is no workload's.
    """

    def hidden(found: re.Match[str]) -> str:
        return HIDDEN if found["namespace"] != namespace and found["namespace"] in known else found[0]

    return _KEY.sub(hidden, text)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in inner for text in _texts(each)]
