"""events.k8s.io/v1 over core v1 Events: one stored object, two spellings.

Kubernetes keeps one Event and serves it in two groups whose fields have other names. The stored form here is the core
one, which kubectl and most recorders use.
"""

from __future__ import annotations

from typing import Any, Final

_CORE_TO_V1: Final = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_V1_TO_CORE: Final = {new: old for old, new in _CORE_TO_V1.items()}


def from_core(obj: dict[str, Any]) -> dict[str, Any]:
    return {_CORE_TO_V1.get(name, name): value for name, value in obj.items()}


def to_core(obj: dict[str, Any]) -> dict[str, Any]:
    core = {_V1_TO_CORE.get(name, name): value for name, value in obj.items()}
    if "involvedObject" not in core:
        core["involvedObject"] = {}
    return core
