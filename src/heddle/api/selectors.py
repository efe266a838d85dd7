"""Label and field selectors, as query parameters write them."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from heddle.api.errors import BadRequest
from heddle.api.meta import Struct

_SET = re.compile(r"^(?P<key>[^\s=!(),]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s=!(),]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!(),]*)$")
_EXISTS = re.compile(r"^(?P<no>!?)\s*(?P<key>[^\s=!(),]+)$")
_COMMA = re.compile(r",(?![^(]*\))")


@dataclass(frozen=True, slots=True)
class _Term:
    key: str
    values: frozenset[str] | None  # None: any value
    wanted: bool

    @property
    def text(self) -> str:
        if self.values is None:
            return self.key if self.wanted else f"!{self.key}"
        values = sorted(self.values)
        if len(values) == 1:
            return f"{self.key}{'=' if self.wanted else '!='}{values[0]}"
        return f"{self.key} {'in' if self.wanted else 'notin'} ({', '.join(values)})"

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        held = value is not None and (self.values is None or value in self.values)
        return held is self.wanted


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """`app=a,tier in (x, y),!legacy`; the empty selector matches everything."""

    terms: tuple[_Term, ...] = ()

    @staticmethod
    def parse(text: str) -> "LabelSelector":
        """Parse a selector.

        Raises:
            BadRequest: names the part that is not a selector.
        """
        terms = []
        for part in filter(None, (p.strip() for p in _COMMA.split(text or ""))):
            if match := _SET.match(part):
                values = frozenset(v.strip() for v in match["values"].split(","))
                terms.append(_Term(match["key"], values, match["op"] == "in"))
            elif match := _EQUAL.match(part):
                terms.append(_Term(match["key"], frozenset([match["value"]]), match["op"] != "!="))
            elif match := _EXISTS.match(part):
                terms.append(_Term(match["key"], None, not match["no"]))
            else:
                raise BadRequest(f"unable to parse label selector {part!r}; write key=value or key in (a, b)")
        return LabelSelector(tuple(terms))

    @staticmethod
    def of(demands: Iterable[tuple[str, str, Collection[str]]]) -> "LabelSelector":
        """The selector of (label, In | NotIn | Exists | DoesNotExist, values)."""
        return LabelSelector(
            tuple(
                _Term(key, frozenset(values) if values else None, operator in ("In", "Exists"))
                for key, operator, values in demands
            )
        )

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether an object with these labels is selected."""
        return all(term.matches(labels or {}) for term in self.terms)

    @property
    def text(self) -> str:
        """As people write it; equal for selectors with equal demands."""
        return ",".join(sorted({term.text for term in self.terms}))

    @property
    def anchors(self) -> list[tuple[str, str]]:
        """(label, value) of which whatever is selected has one; none = nothing is known of it."""
        wanted = (term for term in self.terms if term.wanted and term.values is not None)
        return next(([(term.key, value) for value in sorted(term.values or ())] for term in wanted), [])


class SelectorRequirement(Struct):
    """A demand on one label."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = "In"
    values: list[str] = []


class Selector(Struct):
    """Labels that must all hold; an empty one selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: list[SelectorRequirement] = []

    def parsed(self) -> LabelSelector:
        """The same as a selector that matches."""
        return LabelSelector.of(
            [(key, "In", [value]) for key, value in self.match_labels.items()]
            + [(demand.key, demand.operator, demand.values) for demand in self.match_expressions]
        )


FIELDS: dict[str, frozenset[str]] = {
    "Pod": frozenset(["spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
                      "status.phase", "status.podIP", "status.nominatedNodeName"]),
    "Node": frozenset(["spec.unschedulable"]),
    "Namespace": frozenset(["status.phase"]),
    "Secret": frozenset(["type"]),
    "Event": frozenset(["involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
                        "involvedObject.uid", "involvedObject.apiVersion", "involvedObject.resourceVersion",
                        "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type"]),
}  # fmt: skip
"""Selectable fields by kind, beside name and namespace (kubernetes pkg/apis/core/v1/conversion.go)."""

_EVERYWHERE = frozenset(["metadata.name", "metadata.namespace"])


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """`spec.nodeName=a,status.phase!=Failed`; the empty selector matches everything."""

    terms: tuple[tuple[str, str, bool], ...] = ()

    @staticmethod
    def parse(text: str, kind: str = "") -> "FieldSelector":
        """Parse a selector; with a kind, fields that it cannot be selected by are refused, as Kubernetes does.

        Raises:
            BadRequest: names the part that is not a selector, or the field.
        """
        terms = []
        for part in filter(None, (p.strip() for p in (text or "").split(","))):
            match = re.match(r"^(?P<key>[\w./-]+)\s*(?P<op>==|=|!=)\s*(?P<value>.*)$", part)
            if match is None:
                raise BadRequest(f"unable to parse field selector {part!r}; write field=value")
            key = match["key"]
            if kind and key not in _EVERYWHERE and key not in FIELDS.get(kind, frozenset()):
                raise BadRequest(f"field label not supported: {key}")
            terms.append((key, match["value"], match["op"] != "!="))
        return FieldSelector(tuple(terms))

    def matches(self, obj: Mapping[str, Any]) -> bool:
        """Whether the object (as decoded JSON) is selected; an absent field counts as the empty string."""
        return all((_field(obj, key) == value) is wanted for key, value, wanted in self.terms)


def _field(obj: Mapping[str, Any], path: str) -> str:
    value: Any = obj
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):  # Event.source: its component
        value = value.get("component")
    if value is True or value is False:
        return str(value).lower()
    return "" if value is None else str(value)
