"""The status of a CustomResourceDefinition: accepted names, stored versions, and the conditions that say it is served.

In a cluster controllers set `NamesAccepted` and `Established` a moment after the write; here they stand in the answer
to it, since the resource is served as soon as the write is committed. A name that another definition of the group, or
a built-in kind, has already is refused with 422, where a cluster keeps the definition and does not serve it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudhub.standalone.fielderrors import FieldError, Reason


def prepare(crd: dict[str, Any], live: Mapping[str, Any] | None, now: str) -> None:
    """The status that follows from the spec. Leaves an unusable spec to the validation."""
    spec = crd.get("spec")
    if not isinstance(spec, dict) or not isinstance(names := spec.get("names"), dict):
        return
    status = dict(live.get("status") or {}) if live is not None else {}
    stored = list(status.get("storedVersions") or [])
    if (version := _storage_version(spec)) and version not in stored:
        stored.append(version)
    status["acceptedNames"] = dict(names)
    status["storedVersions"] = stored
    status["conditions"] = _conditions(status.get("conditions") or [], crd, now)
    crd["status"] = status


def _storage_version(spec: Mapping[str, Any]) -> str:
    versions = spec.get("versions")
    for version in versions if isinstance(versions, list) else []:
        if isinstance(version, dict) and version.get("storage") is True and isinstance(version.get("name"), str):
            return str(version["name"])
    return ""


def _conditions(before: list[Any], crd: Mapping[str, Any], now: str) -> list[Any]:
    wanted = [
        ("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
        ("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
    ]
    if crd["metadata"].get("deletionTimestamp"):
        message = "CustomResource deletion is in progress"
        wanted.append(("Terminating", "True", "InstanceDeletionInProgress", message))
    known = {item.get("type"): item for item in before if isinstance(item, dict)}
    for kind, status, reason, message in wanted:
        if known.get(kind, {}).get("status") != status:
            known[kind] = {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": now,
            }
    return list(known.values())


def served_elsewhere(crd: Mapping[str, Any], owner: str) -> FieldError:
    """For a definition whose kind or plural is taken. A cluster accepts it and sets NamesAccepted to False."""
    kind = crd["spec"]["names"]["kind"]
    return FieldError("spec.names", Reason.DUPLICATE, f'Duplicate value: "{kind}": kind or plural is served by {owner}')
