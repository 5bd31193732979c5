"""What is wrong with one field of an object, in the API server's own words.

A client shows these texts as they are (kubectl prints them line by line), and people search the web for them, so the
wording is Kubernetes' (apimachinery ``field.Error``, ``StatusDetails.causes``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """metav1.CauseType."""

    INVALID = "FieldValueInvalid"
    TYPE_INVALID = "FieldValueTypeInvalid"
    REQUIRED = "FieldValueRequired"
    NOT_SUPPORTED = "FieldValueNotSupported"
    DUPLICATE = "FieldValueDuplicate"
    FORBIDDEN = "FieldValueForbidden"
    TOO_LONG = "FieldValueTooLong"
    TOO_MANY = "FieldValueTooMany"


_TITLES = {
    Reason.INVALID: "Invalid value",
    Reason.TYPE_INVALID: "Invalid value",
    Reason.REQUIRED: "Required value",
    Reason.NOT_SUPPORTED: "Unsupported value",
    Reason.DUPLICATE: "Duplicate value",
    Reason.FORBIDDEN: "Forbidden",
    Reason.TOO_LONG: "Too long",
    Reason.TOO_MANY: "Too many",
}


def show(value: Any) -> str:
    """A value as Go's ``field.Error`` prints it, cut so that no error repeats a whole object."""
    if isinstance(value, (dict, list)):
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    elif isinstance(value, str) or value is None or isinstance(value, bool):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = str(value)
    return text if len(text) <= 512 else text[:512] + "..."


@dataclass(frozen=True, slots=True)
class FieldError:
    """One cause of a refusal. ``field`` is the path (``spec.images[0]``); ``body`` is all that follows the path."""

    field: str
    reason: Reason
    body: str

    def __str__(self) -> str:
        return f"{self.field}: {self.body}" if self.field else self.body

    def cause(self) -> dict[str, str]:
        return {"reason": self.reason.value, "message": self.body, "field": self.field}


def invalid(field: str, value: Any, detail: str) -> FieldError:
    return FieldError(field, Reason.INVALID, f"Invalid value: {show(value)}: {detail}")


def type_invalid(field: str, shown: str, detail: str) -> FieldError:
    """``shown`` is a type name in quotes: schema errors name the type that came, not the value."""
    return FieldError(field, Reason.TYPE_INVALID, f"Invalid value: {shown}: {detail}")


def required(field: str, detail: str = "") -> FieldError:
    return FieldError(field, Reason.REQUIRED, "Required value" + (f": {detail}" if detail else ""))


def not_supported(field: str, value: Any, allowed: Iterable[Any]) -> FieldError:
    listed = ", ".join(show(item) for item in allowed)
    return FieldError(field, Reason.NOT_SUPPORTED, f"Unsupported value: {show(value)}: supported values: {listed}")


def duplicate(field: str, value: Any) -> FieldError:
    return FieldError(field, Reason.DUPLICATE, f"Duplicate value: {show(value)}")


def forbidden(field: str, detail: str) -> FieldError:
    return FieldError(field, Reason.FORBIDDEN, f"Forbidden: {detail}")


def too_long(field: str, limit: int) -> FieldError:
    return FieldError(field, Reason.TOO_LONG, f"Too long: may not be more than {limit} bytes")


def too_many(field: str, actual: int, limit: int) -> FieldError:
    return FieldError(field, Reason.TOO_MANY, f"Too many: {actual}: must have at most {limit} items")


def aggregate(errors: Sequence[object]) -> str:
    """The texts of several errors as Go's ``ToAggregate`` prints them: duplicates once, brackets from two on."""
    texts = list(dict.fromkeys(str(error) for error in errors))
    return texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"


def invalid_status(*, group: str, kind: str, name: str, errors: Sequence[FieldError]) -> dict[str, Any]:
    """The Status object (422) that the API server answers to an object with these errors."""
    shown_kind = f"{kind}.{group}" if group else kind
    details: dict[str, Any] = {"name": name, "kind": kind, "causes": [error.cause() for error in errors]}
    if group:
        details["group"] = group
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"{shown_kind} {json.dumps(name)} is invalid: {aggregate(errors)}",
        "reason": "Invalid",
        "details": details,
        "code": 422,
    }
