"""Schemas of resources: defaults, pruning, validation, CEL rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudhub.standalone.fielderrors import FieldError


@dataclass(frozen=True, slots=True)
class Decoded:
    object: dict[str, Any]
    duplicates: tuple[str, ...] = ()
    """Paths of keys that stood twice: ``spec.images``."""


class InvalidBody(ValueError):
    """The body is no JSON or YAML object; the text is safe to answer with (400)."""


def decode_body(raw: bytes, content_type: str = "application/json") -> Decoded:
    """A request body as an object. Any YAML media type is read as YAML. Raises `InvalidBody`."""
    raise NotImplementedError


def strict_decoding_error(unknown: list[str], duplicates: tuple[str, ...] = ()) -> str:
    """``strict decoding error: unknown field "spec.foo"``: for 400 under fieldValidation=Strict. Under Warn, each of
    `field_warnings` goes in a Warning header."""
    raise NotImplementedError


def field_warnings(unknown: list[str], duplicates: tuple[str, ...] = ()) -> list[str]:
    """``unknown field "spec.foo"``, each, for fieldValidation=Warn."""
    raise NotImplementedError


class ResourceSchema:
    """One version of one kind. Compile once, keep, use for every request."""

    def __init__(self, openapi: Mapping[str, Any], *, group: str, version: str, kind: str, core: bool = False) -> None:
        """``openapi`` is a structural schema (a CRD's openAPIV3Schema or a built-in one); apiVersion, kind and
        metadata are added when it has none. ``core``: strategic merge patch is allowed."""
        self.openapi: Mapping[str, Any] = openapi
        self.group, self.version, self.kind, self.core = group, version, kind, core

    def default(self, obj: dict[str, Any]) -> None:
        """Fill in defaults, in place. Also for objects read from the store, as the API server does."""
        raise NotImplementedError

    def prune(self, obj: dict[str, Any]) -> list[str]:
        """Drop unknown fields, in place; returns their paths (``spec.foo``) in the words of strict decoding."""
        raise NotImplementedError

    def validate(self, obj: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[FieldError]:
        """Types, bounds, enums, CEL rules, metadata, and for built-in kinds their own rules. ``old`` on update: CEL
        transition rules, immutable fields, and parts that did not change are not validated again."""
        raise NotImplementedError


def schemas_of_crd(crd: Mapping[str, Any]) -> dict[str, ResourceSchema]:
    """By served version name. The CRD must have passed `validate_crd`."""
    raise NotImplementedError


def validate_crd(crd: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[FieldError]:
    """What is wrong with a CustomResourceDefinition: names, versions, schemas that are not structural, CEL that does
    not compile. (`builtin.schema_of` of CustomResourceDefinition calls it from `validate`.)"""
    raise NotImplementedError
