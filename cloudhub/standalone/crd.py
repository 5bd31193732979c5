"""What is wrong with a CustomResourceDefinition, before anything is served by it.

A definition that passes can be compiled and served: its schemas are structural, its patterns, defaults, printer columns
and CEL rules hold. `schemaprops` looks at the schemas themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cloudhub.standalone import fielderrors
from cloudhub.standalone.cel import compile_rules
from cloudhub.standalone.fielderrors import FieldError
from cloudhub.standalone.jsonpath import InvalidPath, parse_path
from cloudhub.standalone.objectmeta import dns1035_problem, subdomain_problem
from cloudhub.standalone.schemaprops import structural_faults

_COLUMN_TYPES: Final = ("boolean", "date", "integer", "number", "string")
_KIND: Final = re.compile(r"[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?")


def default_crd(obj: dict[str, Any]) -> None:
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return
    names = spec.setdefault("names", {})
    if kind := names.get("kind"):
        names.setdefault("singular", str(kind).lower())
        names.setdefault("listKind", f"{kind}List")
    spec.setdefault("conversion", {"strategy": "None"})


def validate_crd(crd: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[FieldError]:
    """Call it on a defaulted and type-checked definition."""
    spec = crd.get("spec") or {}
    if old is not None and old.get("spec") == spec:
        return _stored_version_faults(crd)
    errors = _name_faults(crd, spec)
    errors += _version_faults(spec.get("versions") or ())
    for index, version in enumerate(spec.get("versions") or ()):
        errors += _one_version_faults(version, f"spec.versions[{index}]")
    strategy = (spec.get("conversion") or {}).get("strategy")
    if strategy != "None":
        errors.append(fielderrors.not_supported("spec.conversion.strategy", strategy, ("None",)))
    if spec.get("preserveUnknownFields"):
        why = "must be false: set x-kubernetes-preserve-unknown-fields in the schema instead"
        errors.append(fielderrors.invalid("spec.preserveUnknownFields", True, why))
    return errors + _stored_version_faults(crd) + _immutable_faults(spec, old)


def _name_faults(crd: Mapping[str, Any], spec: Mapping[str, Any]) -> list[FieldError]:
    errors = []
    group, names = spec.get("group", ""), spec.get("names") or {}
    name, wanted = (crd.get("metadata") or {}).get("name", ""), f"{names.get('plural', '')}.{group}"
    if name != wanted:
        errors.append(fielderrors.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    if not group:
        errors.append(fielderrors.required("spec.group"))
    elif problem := subdomain_problem(group):
        errors.append(fielderrors.invalid("spec.group", group, problem))
    elif "." not in group:
        errors.append(fielderrors.invalid("spec.group", group, "should be a domain with at least one dot"))
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        allowed = ("Cluster", "Namespaced")
        errors.append(
            fielderrors.not_supported("spec.scope", spec["scope"], allowed)
            if spec.get("scope")
            else fielderrors.required("spec.scope")
        )
    errors += [
        _name_fault(f"spec.names.{key}", names.get(key, ""), problem)
        for key in ("plural", "singular")
        if (problem := dns1035_problem(names.get(key, "")))
    ]
    errors += [
        _name_fault(f"spec.names.{key}", names.get(key, ""), "must be a name in CamelCase")
        for key in ("kind", "listKind")
        if not _KIND.fullmatch(names.get(key, ""))
    ]
    for key in ("shortNames", "categories"):
        for index, word in enumerate(names.get(key) or ()):
            if problem := dns1035_problem(word):
                errors.append(fielderrors.invalid(f"spec.names.{key}[{index}]", word, problem))
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        errors.append(
            fielderrors.invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same")
        )
    return errors


def _name_fault(path: str, value: str, problem: str) -> FieldError:
    return fielderrors.invalid(path, value, problem) if value else fielderrors.required(path)


def _version_faults(versions: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    errors = []
    if not versions:
        return [fielderrors.required("spec.versions", "must have at least one version")]
    names = [version.get("name", "") for version in versions]
    for index, name in enumerate(names):
        if problem := dns1035_problem(name):
            errors.append(fielderrors.invalid(f"spec.versions[{index}].name", name, problem))
        if name in names[:index]:
            errors.append(fielderrors.invalid("spec.versions", name, "must contain unique version names"))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        why = "must have exactly one version marked as storage version"
        errors.append(fielderrors.invalid("spec.versions", names, why))
    return errors


def _one_version_faults(version: Mapping[str, Any], path: str) -> list[FieldError]:
    schema_path = f"{path}.schema.openAPIV3Schema"
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if not schema:
        return [fielderrors.required(schema_path, "schemas are required")]
    errors = structural_faults(schema, schema_path)
    if not errors:
        errors += compile_rules(schema, schema_path)[1]
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        errors += _column_faults(column, f"{path}.additionalPrinterColumns[{index}]")
    for index, field in enumerate(version.get("selectableFields") or ()):
        errors += _path_faults(field.get("jsonPath", ""), f"{path}.selectableFields[{index}].jsonPath")
    return errors


def _column_faults(column: Mapping[str, Any], path: str) -> list[FieldError]:
    errors = [] if column.get("name") else [fielderrors.required(f"{path}.name")]
    kind = column.get("type")
    if not kind:
        errors.append(fielderrors.required(f"{path}.type", f"must be one of {','.join(_COLUMN_TYPES)}"))
    elif kind not in _COLUMN_TYPES:
        why = f"must be one of {','.join(_COLUMN_TYPES)}"
        errors.append(fielderrors.invalid(f"{path}.type", kind, why))
    return errors + _path_faults(column.get("jsonPath", ""), f"{path}.jsonPath")


def _path_faults(text: str, path: str) -> list[FieldError]:
    if not text:
        return [fielderrors.required(path)]
    if not text.startswith("."):
        return [fielderrors.invalid(path, text, "must be a simple json path starting with .")]
    try:
        parse_path(text)
    except InvalidPath as error:
        return [fielderrors.invalid(path, text, f"is an invalid path: {error}")]
    return []


def _stored_version_faults(crd: Mapping[str, Any]) -> list[FieldError]:
    names = [version.get("name") for version in (crd.get("spec") or {}).get("versions") or ()]
    return [
        fielderrors.invalid(f"status.storedVersions[{index}]", stored, "must appear in spec.versions")
        for index, stored in enumerate((crd.get("status") or {}).get("storedVersions") or ())
        if stored not in names
    ]


def _immutable_faults(spec: Mapping[str, Any], old: Mapping[str, Any] | None) -> list[FieldError]:
    if old is None:
        return []
    former = old.get("spec") or {}
    pairs = [
        ("spec.group", spec.get("group"), former.get("group")),
        ("spec.scope", spec.get("scope"), former.get("scope")),
    ]
    names, former_names = spec.get("names") or {}, former.get("names") or {}
    pairs += [(f"spec.names.{key}", names.get(key), former_names.get(key)) for key in ("kind", "plural")]
    return [fielderrors.invalid(path, now, "field is immutable") for path, now, before in pairs if now != before]
