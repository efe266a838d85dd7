"""A fault of an object: its field, what was there, and what to write instead."""

from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an object.

    Attributes:
        field: path such as `spec.quota[nvidia.com/gpu]`.
        reason: one of Kubernetes' cause types: FieldValueInvalid, FieldValueRequired, FieldValueNotSupported,
            FieldValueTypeInvalid, FieldValueUnknown (a field that does not exist), FieldValueForbidden.
        value: what was there.
        remedy: what to write instead.
    """

    field: str
    reason: str
    value: Any
    remedy: str

    def __str__(self) -> str:
        if self.reason == "FieldValueRequired":
            return f"{self.field}: required; {self.remedy}"
        if self.reason == "FieldValueUnknown":
            return f"{self.field}: unknown field; {self.remedy}"
        return f"{self.field}: {_show(self.value)} is not valid; {self.remedy}"


def _show(value: Any) -> str:
    text = repr(value) if isinstance(value, str | float | int | bool | None) else msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else text[:77] + "..."
