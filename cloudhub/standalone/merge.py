"""The two patches of RFC 6902 and RFC 7386; the strategic one is in `strategic`.

Each takes an object and gives a new one; what it was given is left alone, since it may be shared with watchers. What is
malformed or does not apply raises `InvalidPatch`, whose ``code`` and text are the API server's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

import jsonpatch
import jsonpointer

from cloudhub.standalone.strategic import InvalidPatch, strategic_merge_patch

__all__ = ["InvalidPatch", "json_patch", "merge_patch", "strategic_merge_patch"]

_MAX_OPERATIONS: Final = 10_000
_MAX_COPIED: Final = 1000
"""Copy operations in one patch. Each may double an object, so their number is bounded."""


def json_patch(obj: Mapping[str, Any], operations: Any) -> dict[str, Any]:
    """RFC 6902. Raises `InvalidPatch`: 400 when it is no patch, 413 with too many operations, 422 when one fails."""
    if not isinstance(operations, list) or not all(isinstance(operation, dict) for operation in operations):
        raise InvalidPatch("error decoding patch: a JSON patch is a list of operations, each an object")
    if len(operations) > _MAX_OPERATIONS:
        raise InvalidPatch(
            f"The allowed maximum operations in a JSON patch is {_MAX_OPERATIONS}, got {len(operations)}", code=413
        )
    if sum(operation.get("op") == "copy" for operation in operations) > _MAX_COPIED:
        raise InvalidPatch(f"The allowed maximum copy operations in a JSON patch is {_MAX_COPIED}", code=413)
    try:
        patched = jsonpatch.JsonPatch(operations).apply(copy.deepcopy(dict(obj)))
    except jsonpatch.InvalidJsonPatch as error:
        raise InvalidPatch(f"error decoding patch: {error}") from error
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, IndexError) as error:
        raise InvalidPatch(_failure(error), code=422) from error
    if not isinstance(patched, dict):
        raise InvalidPatch("the patched document is no object", code=422)
    return patched


def _failure(error: Exception) -> str:
    """A failed test quotes the values compared, which may be a Secret's: name the kind of failure alone."""
    if isinstance(error, jsonpatch.JsonPatchTestFailed):
        return "testing value failed: the value at the path of a test operation is another one"
    return f"JSON patch operation does not apply: {str(error)[:256]}"


def merge_patch(obj: Mapping[str, Any], patch: Any) -> dict[str, Any]:
    """RFC 7386. Raises `InvalidPatch` when ``patch`` is no object: the result would not be one either."""
    if not isinstance(patch, dict):
        raise InvalidPatch("error decoding patch: a merge patch is an object")
    return _merge(obj, patch)


def _merge(target: Any, patch: Mapping[str, Any]) -> dict[str, Any]:
    # Shallow copies along the patch's paths only: the rest is shared with the original, which nobody writes to.
    merged: dict[str, Any] = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = _merge(merged.get(key), value)
        else:
            merged[key] = value
    return merged
