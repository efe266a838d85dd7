"""Every fault of an object at once, each with its field path, the value and the remedy.

msgspec stops at the first fault, so a tolerant walk over the same type information comes first: it reports wrong
types, broken bounds, missing and (in heddle's own kinds) unknown fields. Where an object has the right shape, the
rules of its kind, which compare fields with each other, follow.
"""

import difflib
import math
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect as mi

from heddle.api import quantity
from heddle.api.errors import Invalid
from heddle.api.fault import Fault
from heddle.api.registry import Resource
from heddle.api.rules import LABEL, RULES
from heddle.api.status import StatusCause


def faults(resource: Resource, obj: Any) -> list[Fault]:
    """All faults of an object (as decoded JSON or YAML) of this resource, in field order."""
    if resource.type is None:
        return []
    if not isinstance(obj, dict):
        return [Fault("(object)", "FieldValueTypeInvalid", obj, "give an object with apiVersion, kind and metadata")]
    found = list(_identity(resource, obj)) + list(_walk(_info(resource.type), obj, "", strict=resource.own))
    if not found and (rules := RULES.get(resource.type)):
        found = list(rules(msgspec.convert(obj, resource.type)))
    return found


def check(resource: Resource, obj: Any) -> None:
    """Refuse an object with faults.

    Raises:
        Invalid: lists every fault.
    """
    if found := faults(resource, obj):
        name = obj.get("metadata", {}).get("name", "") if isinstance(obj, dict) else ""
        lines = "; ".join(map(str, found)) if len(found) == 1 else "[" + ", ".join(map(str, found)) + "]"
        raise Invalid(
            f"{resource.kind}{'.' + resource.group if resource.group else ''} {name!r} is invalid: {lines}",
            kind=resource.kind,
            group=resource.group,
            name=str(name),
            causes=[StatusCause(reason=f.reason, message=str(f).split(": ", 1)[1], field=f.field) for f in found],
        )


@cache
def _info(type_: type[msgspec.Struct]) -> mi.StructType:
    info = mi.type_info(type_)
    assert isinstance(info, mi.StructType)
    return info


_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def _identity(resource: Resource, obj: dict[str, Any]) -> Iterator[Fault]:
    for field, wanted in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        if obj.get(field, wanted) != wanted:
            yield Fault(field, "FieldValueInvalid", obj[field], f"write {wanted}")
    meta = obj.get("metadata")
    if not isinstance(meta, dict):
        if meta is not None:
            return
        meta = {}
    name = meta.get("name")
    if not name and not meta.get("generateName"):
        yield Fault("metadata.name", "FieldValueRequired", name, "give name or generateName")
    elif isinstance(name, str) and name and (len(name) > 253 or not _NAME.fullmatch(name)):
        remedy = "use lower case letters, digits, '-' and '.', 253 at most, beginning and ending with a letter or digit"
        yield Fault("metadata.name", "FieldValueInvalid", name, remedy)
    labels = meta.get("labels")
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if isinstance(value, str) and value and (len(value) > 63 or not LABEL.fullmatch(value)):
            remedy = "use letters, digits, '-', '_' and '.', 63 at most"
            yield Fault(f"metadata.labels[{key}]", "FieldValueInvalid", value, remedy)


_WORDS: dict[type, str] = {
    mi.StructType: "an object", mi.DictType: "an object", mi.ListType: "a list", mi.StrType: "a string",
    mi.BoolType: "true or false", mi.IntType: "a whole number",
}  # fmt: skip


def _walk(info: mi.Type, value: Any, path: str, *, strict: bool) -> Iterator[Fault]:
    """Faults of a value against a type; goes on past each."""
    match info:
        case mi.Metadata(type=inner):
            yield from _walk(inner, value, path, strict=strict)
        case mi.StructType() if isinstance(value, dict):
            yield from _walk_struct(info, value, path, strict=strict)
        case mi.DictType(value_type=inner) if isinstance(value, dict):
            for key, item in value.items():
                yield from _walk(inner, item, f"{path}[{key}]", strict=strict)
        case mi.ListType(item_type=inner) if isinstance(value, list):
            yield from _length(info, value, path, "entries")
            for i, item in enumerate(value):
                yield from _walk(inner, item, f"{path}[{i}]", strict=strict)
        case mi.StrType() if isinstance(value, str):
            yield from _length(info, value, path, "characters")
            if info.pattern and not re.search(info.pattern, value):
                yield Fault(path, "FieldValueInvalid", value, f"it must match {info.pattern}")
        case mi.BoolType() if isinstance(value, bool):
            pass
        case mi.IntType() if isinstance(value, int) and not isinstance(value, bool):
            if info.ge is not None and value < info.ge:
                yield Fault(path, "FieldValueInvalid", value, f"give {info.ge} or more")
            elif info.le is not None and value > info.le:
                yield Fault(path, "FieldValueInvalid", value, f"give {info.le} or less")
        case mi.LiteralType(values=values):
            if value not in values:
                choice = ", ".join(str(v) for v in values if v != "")
                yield Fault(path, "FieldValueNotSupported", value, f"choose one of {choice}")
        case mi.UnionType(types=types):
            yield from _walk_union(types, value, path, strict=strict)
        case mi.AnyType():
            pass
        case _:
            yield Fault(path or "(object)", "FieldValueTypeInvalid", value, f"give {_WORDS.get(type(info), 'a value')}")


def _walk_struct(info: mi.StructType, value: dict[str, Any], path: str, *, strict: bool) -> Iterator[Fault]:
    known = {f.encode_name: f for f in info.fields}
    for name, field in known.items():
        where = f"{path}.{name}" if path else name
        if name in value and not (value[name] is None and not field.required):
            # the server's own fields in metadata need no second opinion
            yield from _walk(field.type, value[name], where, strict=strict and name != "managedFields")
        elif field.required:
            yield Fault(where, "FieldValueRequired", None, f"give {_words_of(field.type)}")
    if strict and path != "metadata":
        for name in value:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                remedy = f"did you mean {close[0]}?" if close else f"known fields: {', '.join(sorted(known))}"
                yield Fault(f"{path}.{name}" if path else name, "FieldValueUnknown", value[name], remedy)


def _walk_union(types: tuple[mi.Type, ...], value: Any, path: str, *, strict: bool) -> Iterator[Fault]:
    concrete = [t for t in types if not isinstance(t, mi.NoneType)]
    if value is None and len(concrete) < len(types):
        return
    if {type(t) for t in concrete} == {mi.IntType, mi.StrType}:
        yield from _quantity(value, path)
    else:
        yield from _walk(concrete[0], value, path, strict=strict)


def _quantity(value: Any, path: str) -> Iterator[Fault]:
    if isinstance(value, float) and not math.isfinite(value):
        yield Fault(path, "FieldValueInvalid", value, "give a finite number")
        return
    if isinstance(value, float):
        yield Fault(path, "FieldValueTypeInvalid", value, f'write it as "{round(value * 1000)}m"')
        return
    try:
        if quantity.milli(value) < 0:
            yield Fault(path, "FieldValueInvalid", value, "give 0 or more")
    except (ValueError, ArithmeticError, TypeError):
        yield Fault(path, "FieldValueInvalid", value, 'give a quantity such as 4, "500m" or "16Gi"')


def _length(info: mi.ListType | mi.StrType, value: Any, path: str, what: str) -> Iterator[Fault]:
    if info.min_length and len(value) < info.min_length:
        if not value:
            yield Fault(path, "FieldValueRequired", value, "it must not be empty")
        else:
            yield Fault(path, "FieldValueInvalid", value, f"give at least {info.min_length} {what}")
    elif info.max_length is not None and len(value) > info.max_length:
        yield Fault(path, "FieldValueInvalid", value, f"give at most {info.max_length} {what}")


def _words_of(info: mi.Type) -> str:
    while isinstance(info, mi.Metadata):
        info = info.type
    return _WORDS.get(type(info), "a value")
