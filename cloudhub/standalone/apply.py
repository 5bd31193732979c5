"""Server-side apply, and managedFields for every other write.

After Kubernetes' ``managedfields``: who applies an object owns the fields that the configuration names; a field that
another manager owns with another value is a conflict unless forced; a field that the manager applied before and now
leaves out goes, if nobody else owns it. Every other write makes its manager the owner of what it changed.

All of it speaks one version of the object: versions here differ in what they show, not in how fields are named.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from cloudhub.standalone import managers as entries
from cloudhub.standalone import structural, typed
from cloudhub.standalone.fieldsets import FieldSet
from cloudhub.standalone.managers import Managed, ManagerKey, Managers, manager_key

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_SERVER_METADATA: Final = FieldSet([
    f"f:{name}"
    for name in (
        "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields",
        "resourceVersion",
    )
])  # fmt: skip
_NOBODYS: Final = FieldSet(("f:apiVersion", "f:kind", "f:metadata"), {"f:metadata": _SERVER_METADATA})
"""Fields that no manager owns."""

Schema = Mapping[str, Any]


class ApplyConflict(Exception):
    """Another manager owns a field (409). The text is the API server's message; ``causes`` go in details.causes."""

    def __init__(self, message: str, causes: Sequence[Mapping[str, str]]) -> None:
        super().__init__(message)
        self.causes = list(causes)


class InvalidApply(ValueError):
    """The applied configuration cannot be applied; the text is the API server's message."""


class _Conflicts(Exception):
    def __init__(self, found: dict[ManagerKey, tuple[Managed, FieldSet]]) -> None:
        super().__init__()
        self.found = found


def server_side_apply(
    live: Mapping[str, Any] | None,
    applied: Mapping[str, Any],
    *,
    schema: Schema,
    manager: str,
    api_version: str,
    time: str,
    force: bool = False,
    subresource: str = "",
    ignored: Collection[str] = (),
) -> dict[str, Any]:
    """The object after ``manager`` applied ``applied`` onto ``live`` (None: it is created), with its managedFields.

    ``schema`` is `ResourceSchema.openapi`; ``ignored`` names top-level fields that this endpoint does not write
    (``status`` on the main one; ``spec`` and ``metadata`` on the status subresource): they are never owned.
    Returns an object equal to ``live``, times included, when nothing changed. Raises `ApplyConflict`, `InvalidApply`.
    """
    _check_configuration(applied, schema, api_version)
    request = _Request(manager, api_version, time, subresource, frozenset(f"f:{name}" for name in ignored), schema)
    base = dict(live or {})
    managers = entries.decode_or_none(base.get("metadata"))
    if live is not None and not managers:
        # Its fields had no owners yet; without one of them, applying less than all would remove nothing ever.
        everything = typed.to_set(live, schema).without({"f:status"}).difference(_NOBODYS)
        first = manager_key("before-first-apply", "Update", api_version, "")
        managers = {first: Managed(everything, api_version, time)} if everything else {}
    try:
        result, after = _apply(base, applied, managers, request, force=force)
    except _Conflicts as error:
        result, after = _settle(error, base, applied, managers, request)
    if manager == "kubectl" and LAST_APPLIED in (result.get("metadata") or {}).get("annotations", {}):
        result = _with_last_applied(result, applied)
    return _finish(live, result, entries.decode_or_none(base.get("metadata")), after)


def track_update(
    old: Mapping[str, Any] | None,
    new: dict[str, Any],
    *,
    schema: Schema,
    manager: str,
    api_version: str,
    time: str,
    operation: str = "Update",
    subresource: str = "",
    ignored: Collection[str] = (),
) -> None:
    """Set ``new["metadata"]["managedFields"]`` after a create, an update or a patch by ``manager``. Call it on the
    object as it will be stored, after defaults and with server-set metadata taken over from ``old``."""
    metadata = new.setdefault("metadata", {})
    given = metadata.pop("managedFields", None)
    former = entries.decode_or_none((old or {}).get("metadata"))
    managers = former
    if not subresource:
        if given == [{}]:
            # The documented way to stop tracking an object.
            return
        managers = entries.decode_or_none({"managedFields": given}) or former
    if old is not None and not managers:
        return
    request = _Request(manager, api_version, time, subresource, frozenset(f"f:{name}" for name in ignored), schema)
    after = entries.capped(_update(old or {}, new, managers, request, operation))
    if after:
        metadata["managedFields"] = entries.encode(_with_old_times(after, managers))


class _Request:
    """Who writes, where, when."""

    __slots__ = ("api_version", "ignored", "manager", "schema", "subresource", "time")

    def __init__(
        self, manager: str, api_version: str, time: str, subresource: str, ignored: frozenset[str], schema: Schema
    ) -> None:
        self.manager, self.api_version, self.time = manager, api_version, time
        self.subresource, self.ignored, self.schema = subresource, ignored, schema

    def key(self, operation: str) -> ManagerKey:
        return manager_key(self.manager, operation, self.api_version, self.subresource)

    def compare(self, old: Any, new: Any) -> typed.Comparison:
        return typed.compare(_plain(old), _plain(new), self.schema).without(set(self.ignored))


def _plain(obj: Mapping[str, Any]) -> dict[str, Any]:
    """Without managedFields, which nobody manages."""
    metadata = obj.get("metadata")
    if not isinstance(metadata, Mapping) or "managedFields" not in metadata:
        return dict(obj)
    return {**obj, "metadata": {key: value for key, value in metadata.items() if key != "managedFields"}}


def _update(
    old: Mapping[str, Any], new: Mapping[str, Any], managers: Managers, request: _Request, operation: str
) -> Managers:
    comparison = request.compare(old, new)
    taken = comparison.added.union(comparison.modified)
    after: Managers = {}
    for key, managed in managers.items():
        fields = managed.fields.difference(taken).difference(comparison.removed)
        if fields:
            after[key] = replace(managed, fields=fields)
    own = taken.difference(_NOBODYS)
    if own:
        key = request.key(operation)
        before = after[key].fields if key in after else FieldSet()
        after[key] = Managed(before.union(own), request.api_version, request.time)
    return after


def _apply(
    live: Mapping[str, Any], applied: Mapping[str, Any], managers: Managers, request: _Request, *, force: bool
) -> tuple[dict[str, Any], Managers]:
    key, schema = request.key("Apply"), request.schema
    merged = typed.merge(_plain(live), dict(applied), schema)
    owned = typed.to_set(applied, schema).without(request.ignored)
    last = managers.get(key)
    present = {**managers, key: Managed(owned, request.api_version, request.time)}
    result = _prune(merged, present, last.fields, schema) if last is not None else merged
    comparison = request.compare(live, result)
    changed = comparison.added.union(comparison.modified)
    conflicts = {
        other: (managed, common)
        for other, managed in managers.items()
        if other != key and (common := managed.fields.intersection(changed))
    }
    if conflicts and not force:
        raise _Conflicts(conflicts)
    after: Managers = {}
    for other, managed in present.items():
        fields = managed.fields if other == key else managed.fields.difference(changed).difference(comparison.removed)
        fields = fields.difference(_NOBODYS)
        if fields:
            after[other] = replace(managed, fields=fields)
    return result, after


def _prune(merged: dict[str, Any], managers: Managers, last: FieldSet, schema: Schema) -> dict[str, Any]:
    """``merged`` without what the manager applied last and nobody applies or owns now."""
    everything = typed.with_named(typed.to_set(merged, schema), schema)
    last_named = typed.with_named(last, schema)
    removed = typed.remove(merged, last_named, schema)
    left = typed.with_named(typed.to_set(removed, schema), schema)
    wanted = typed.with_named(entries.union(managed.fields for managed in managers.values()), schema)
    gone = everything.difference(left.union(wanted)).intersection(last_named)
    result: dict[str, Any] = typed.remove(merged, gone, schema)
    return result


def _settle(
    error: _Conflicts, live: Mapping[str, Any], applied: Mapping[str, Any], managers: Managers, request: _Request
) -> tuple[dict[str, Any], Managers]:
    """A kubectl that goes from client-side to server-side apply has no conflict with what it applied itself."""
    conflicts = error.found
    if request.manager == "kubectl":
        mine = _last_applied_set(live, request.schema)
        conflicts = {
            key: (managed, rest) for key, (managed, common) in conflicts.items() if (rest := common.difference(mine))
        }
        if not conflicts:
            return _apply(live, applied, managers, request, force=True)
    raise _conflict_error(conflicts) from None


def _last_applied_set(live: Mapping[str, Any], schema: Schema) -> FieldSet:
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    try:
        configuration = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return FieldSet()
    return typed.to_set(configuration, schema) if isinstance(configuration, dict) else FieldSet()


def _with_last_applied(obj: Mapping[str, Any], applied: Mapping[str, Any]) -> dict[str, Any]:
    """Keeps client-side apply's annotation true, so that one can go back to it."""
    configuration = _plain(applied)
    metadata = dict(configuration.get("metadata") or {})
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != LAST_APPLIED}
    configuration["metadata"] = {**metadata, "annotations": annotations}
    text = json.dumps(configuration, separators=(",", ":"), sort_keys=True, ensure_ascii=False) + "\n"
    live_metadata = obj["metadata"]
    return {
        **obj,
        "metadata": {**live_metadata, "annotations": {**live_metadata["annotations"], LAST_APPLIED: text}},
    }


def _conflict_error(conflicts: Mapping[ManagerKey, tuple[Managed, FieldSet]]) -> ApplyConflict:
    by_manager: dict[str, list[str]] = {}
    for key, (managed, fields) in conflicts.items():
        by_manager.setdefault(entries.shown(key, managed), []).extend(fields.paths())
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": path}
        for manager, paths in sorted(by_manager.items())
        for path in paths
    ]
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        lines = []
        for manager, paths in sorted(by_manager.items()):
            lines += [f"conflicts with {manager}:", *(f"- {path}" for path in paths)]
        message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
    return ApplyConflict(message, causes)


def _check_configuration(applied: Mapping[str, Any], schema: Schema, api_version: str) -> None:
    metadata = applied.get("metadata") or {}
    if metadata.get("managedFields"):
        raise InvalidApply("metadata.managedFields must be nil")
    if applied.get("apiVersion") != api_version:
        raise InvalidApply(
            "Incorrect version specified in apply patch. Specified patch version: "
            f"{str(applied.get('apiVersion'))[:128]}, expected: {api_version}"
        )
    trial = copy.deepcopy(dict(applied))
    unknown = structural.prune(trial, schema, schema["properties"]["metadata"], root=True)
    if unknown:
        problems = [f".{path}: field not declared in schema" for path in unknown]
        listed = problems[0] if len(problems) == 1 else "errors:\n" + "\n".join(f"  {problem}" for problem in problems)
        where = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}; {api_version}, Kind={applied.get('kind')}"
        raise InvalidApply(f"failed to create typed patch object ({where}): {listed}")


def _with_old_times(after: Managers, before: Managers) -> Managers:
    """Entries whose fields are as they were keep their time."""
    return {
        key: replace(managed, time=before[key].time)
        if key in before and before[key].fields == managed.fields
        else managed
        for key, managed in after.items()
    }


def _finish(
    live: Mapping[str, Any] | None, result: Mapping[str, Any], before: Managers, after: Managers
) -> dict[str, Any]:
    if live is not None and entries.same(before, after) and _plain(live) == _plain(result):
        return copy.deepcopy(dict(live))
    finished = copy.deepcopy(dict(result))
    finished.setdefault("metadata", {})["managedFields"] = entries.encode(
        _with_old_times(entries.capped(after), before)
    )
    return finished
