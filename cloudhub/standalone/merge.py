"""The three kinds of patch that carry a difference: JSON patch, JSON merge patch, strategic merge patch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class InvalidPatch(ValueError):
    """The patch is malformed or does not apply; the text is the API server's message."""


def json_patch(obj: Mapping[str, Any], operations: Any) -> dict[str, Any]:
    """RFC 6902: a new object; ``obj`` is left alone. Raises `InvalidPatch`."""
    raise NotImplementedError


def merge_patch(obj: Mapping[str, Any], patch: Any) -> dict[str, Any]:
    """RFC 7386: a new object; ``obj`` is left alone. Raises `InvalidPatch` when ``patch`` is no object."""
    raise NotImplementedError


def strategic_merge_patch(obj: Mapping[str, Any], patch: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Kubernetes' merge by list keys, for core types; ``schema`` is `ResourceSchema.openapi`. Raises `InvalidPatch`."""
    raise NotImplementedError
