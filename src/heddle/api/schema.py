"""OpenAPI v3 schemas from the Structs: structural (nothing referenced), with descriptions and bounds.

Structural schemas are what CustomResourceDefinitions ask for:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from typing import Any

import msgspec
from msgspec import inspect as mi

from heddle.api.meta import Kind

Schema = dict[str, Any]


def schema_of(type_: Any) -> Schema:
    """The structural schema of any type that the kinds use."""
    return _schema(mi.type_info(type_))


def kind_schema(kind: type[Kind]) -> Schema:
    """The schema of a whole object; metadata is left to the server, as CRDs ask."""
    schema = schema_of(kind)
    for field in field_names(kind).values():
        if field.encode_name == "spec":
            _with_defaults(schema["properties"]["spec"], field.type)
    schema["properties"]["metadata"] = {"type": "object", "description": "Standard object metadata."}
    schema["properties"]["apiVersion"]["description"] = "Version of this schema."
    schema["properties"]["kind"]["description"] = "Kind of the object."
    return schema


def _with_defaults(schema: Schema, info: mi.Type) -> None:
    """Say the plain defaults of fields, so that what is stored shows what holds."""
    while isinstance(info, mi.Metadata):
        info = info.type
    if isinstance(info, mi.ListType):
        _with_defaults(schema["items"], info.item_type)
    if not isinstance(info, mi.StructType):
        return
    for field in info.fields:
        inner = schema["properties"][field.encode_name]
        if isinstance(field.default, int | str) and field.default != "":
            inner["default"] = field.default
        _with_defaults(inner, field.type)


def fill_defaults(schema: Schema, value: Any) -> None:
    """Write the defaults of a schema into an object (decoded JSON) where fields are absent, as the API server does."""
    if isinstance(value, list) and "items" in schema:
        for item in value:
            fill_defaults(schema["items"], item)
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if "default" in inner and value.get(name) is None:
                value[name] = inner["default"]
            elif name in value:
                fill_defaults(inner, value[name])


def _bounds(info: Any, names: dict[str, str]) -> Schema:
    return {wire: getattr(info, own) for own, wire in names.items() if getattr(info, own) is not None}


def _schema(info: mi.Type) -> Schema:
    match info:
        case mi.Metadata(type=inner, extra_json_schema=extra):
            return {**_schema(inner), **(extra or {})}
        case mi.StructType(cls=cls, fields=fields):
            properties = {f.encode_name: _schema(f.type) for f in fields}
            required = [f.encode_name for f in fields if f.required]
            schema: Schema = {"type": "object", "properties": properties}
            if cls.__doc__:
                schema["description"] = cls.__doc__.split("\n\n")[0].replace("\n", " ").strip()
            return schema | ({"required": required} if required else {})
        case mi.UnionType(types=types):
            inner_types = [t for t in types if not isinstance(t, mi.NoneType)]
            if len(inner_types) == 2 and {type(t) for t in inner_types} == {mi.IntType, mi.StrType}:
                return {"x-kubernetes-int-or-string": True}
            return _schema(inner_types[0])
        case mi.DictType(value_type=value):
            return {"type": "object", "additionalProperties": _schema(value)}
        case mi.ListType(item_type=item):
            bounds = _bounds(info, {"min_length": "minItems", "max_length": "maxItems"})
            return {"type": "array", "items": _schema(item)} | bounds
        case mi.StrType():
            names = {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}
            return {"type": "string"} | _bounds(info, names)
        case mi.BoolType():
            return {"type": "boolean"}
        case mi.IntType():
            return {"type": "integer", "format": "int64"} | _bounds(info, {"ge": "minimum", "le": "maximum"})
        case mi.LiteralType(values=values):
            return {"type": "string", "enum": list(values)}
        case _:
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def field_names(type_: type[msgspec.Struct]) -> dict[str, mi.Field]:
    """Wire name to field of a Struct."""
    info = mi.type_info(type_)
    assert isinstance(info, mi.StructType)
    return {f.encode_name: f for f in info.fields}
