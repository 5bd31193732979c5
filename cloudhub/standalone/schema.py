"""One version of one kind: everything the server asks of its schema, compiled once.

The order on a write is: `prune` (what is unknown is named, for fieldValidation), `default`, `validate`. For built-in
kinds `prune` also refuses what typed decoding would: a number where text belongs is a 400 there, not a 422.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from cloudhub.standalone import structural
from cloudhub.standalone.cel import compile_rules
from cloudhub.standalone.crd import validate_crd
from cloudhub.standalone.decode import (
    Decoded,
    InvalidBody,
    cannot_be_handled,
    decode_body,
    decode_value,
    field_warnings,
    strict_decoding_error,
)
from cloudhub.standalone.definitions import OBJECT_META, resolved
from cloudhub.standalone.fielderrors import FieldError, Reason
from cloudhub.standalone.listtypes import ListTypes
from cloudhub.standalone.objectmeta import validate_metadata
from cloudhub.standalone.validation import Validator

__all__ = [
    "Decoded",
    "InvalidBody",
    "ResourceSchema",
    "cannot_be_handled",
    "decode_body",
    "decode_value",
    "field_warnings",
    "schemas_of_crd",
    "strict_decoding_error",
    "validate_crd",
]

Object = Mapping[str, Any]
_TEXT: Final[Mapping[str, Any]] = {"type": "string"}


def _no_defaults(obj: dict[str, Any]) -> None:
    return


def _no_faults(obj: Object, old: Object | None) -> list[FieldError]:
    return []


class ResourceSchema:
    """Compile once, keep, use for every request. ``openapi`` is the resolved structural schema of the whole object, as
    strategic merge, server-side apply and pruning read it."""

    def __init__(
        self,
        openapi: Mapping[str, Any],
        *,
        group: str,
        version: str,
        kind: str,
        core: bool = False,
        defaults: Callable[[dict[str, Any]], None] = _no_defaults,
        faults: Callable[[Object, Object | None], list[FieldError]] = _no_faults,
    ) -> None:
        """``core``: strategic merge patch is allowed; ``defaults`` and ``faults``
        are the kind's own, beyond what a schema can say."""
        self._metadata = resolved(OBJECT_META)
        whole = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": self._metadata}
        self.openapi: Mapping[str, Any] = {**openapi, "properties": {**(openapi.get("properties") or {}), **whole}}
        self.group, self.version, self.kind, self.core = group, version, kind, core
        self._defaults, self._faults = defaults, faults
        self._validator = Validator(self.openapi)
        self._structural_defaults = structural.Defaults(self.openapi)
        # Cycles occur in built-in schemas alone, and those have no rules.
        self._rules = None if core else compile_rules(openapi, "")[0]
        self._list_types = None if core else ListTypes.of(openapi)

    def default(self, obj: dict[str, Any]) -> None:
        """Fill in defaults, in place. Also for objects read from the store, as the API server does."""
        self._structural_defaults.fill(obj)
        self._defaults(obj)

    def prune(self, obj: dict[str, Any]) -> list[str]:
        """Drop unknown fields, in place; returns their paths (``spec.foo``) in the words of strict decoding. Raises
        `InvalidBody` when a built-in kind's field, or any object's metadata, is of another type."""
        metadata = obj.get("metadata")
        if isinstance(metadata, dict):
            structural.drop_nulls(metadata, self._metadata)
        elif metadata is None:
            obj["metadata"] = {}
        if self.core:
            structural.drop_nulls(obj, self.openapi)
        removed = structural.prune(obj, self.openapi, self._metadata, root=True)
        self._check_types(obj)
        return removed

    def _check_types(self, obj: Object) -> None:
        checked = obj if self.core else {"metadata": obj["metadata"]}
        for error in self._validator.validate(checked, None):
            came, _, wanted = error.body.partition(" in body must be of type ")
            kind = wanted.partition(":")[0]
            if error.reason is Reason.TYPE_INVALID:
                shown = came.removeprefix('Invalid value: "').partition('"')[0]
                problem = (
                    f"json: cannot unmarshal {_GO_NAMES.get(shown, shown)} into Go struct field "
                    f"{self.kind}.{error.field} of type {_GO_TYPES.get(kind, kind)}"
                )
            elif kind == "byte":
                # Without the value: it may be a password in plain text.
                problem = f"illegal base64 data in {error.field}"
            else:
                continue
            raise InvalidBody(cannot_be_handled(self.kind, self.version, problem))

    def validate(self, obj: Object, old: Object | None = None) -> list[FieldError]:
        """Types, bounds, enums, CEL rules, metadata, and for built-in kinds their own rules. ``old`` on update: for CEL
        transition rules and immutable fields; parts that equal it are not validated again."""
        errors = self._validator.validate(obj, old)
        if any(error.reason in _BLOCKING for error in errors):
            # Rules and names presume well-formed values.
            return errors
        metadata = obj.get("metadata") or {}
        if old is None or metadata != old.get("metadata"):
            errors += validate_metadata(metadata, label_name=self.core and self.kind == "Namespace")
        if self._list_types is not None:
            errors += self._list_types.duplicates(obj, old)
        if self._rules is not None:
            errors += self._rules.validate(obj, old)
        return errors + self._faults(obj, old)


_BLOCKING: Final = frozenset(
    (Reason.TYPE_INVALID, Reason.REQUIRED, Reason.NOT_SUPPORTED, Reason.TOO_LONG, Reason.TOO_MANY)
)
_GO_NAMES: Final = {"integer": "number", "boolean": "bool"}
_GO_TYPES: Final = {
    "integer": "int64",
    "boolean": "bool",
    "object": "map[string]interface {}",
    "array": "[]interface {}",
}


def schemas_of_crd(crd: Mapping[str, Any]) -> dict[str, ResourceSchema]:
    """By the name of the version. The CRD must have passed `validate_crd`."""
    spec = crd["spec"]
    return {
        version["name"]: ResourceSchema(
            version["schema"]["openAPIV3Schema"],
            group=spec["group"],
            version=version["name"],
            kind=spec["names"]["kind"],
        )
        for version in spec["versions"]
    }
