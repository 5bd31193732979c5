"""Rules that hold for every object's metadata: names, labels, annotations, finalizers, owners.

The wording is apimachinery's (``util/validation``), which people know from clusters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from cloudhub.standalone import fielderrors
from cloudhub.standalone.fielderrors import FieldError

_LABEL_RE: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_RE: Final = rf"{_LABEL_RE}(\.{_LABEL_RE})*"
_WORD_RE: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE_RE: Final = f"({_WORD_RE})?"
_DNS1035_RE: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
_KEY_RE: Final = "[-._a-zA-Z0-9]+"
_ANNOTATION_LIMIT: Final = 256 * 1024


def _regex_problem(message: str, pattern: str, *examples: str) -> str:
    shown = ",  or ".join(f"'{example}'" for example in examples)
    return f"{message} (e.g. {shown}, regex used for validation is '{pattern}')"


def subdomain_problem(text: str) -> str | None:
    """What keeps ``text`` from being a DNS-1123 subdomain, None when it is one."""
    if len(text) > 253:
        return "must be no more than 253 bytes"
    if re.fullmatch(_SUBDOMAIN_RE, text):
        return None
    return _regex_problem(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
        "start and end with an alphanumeric character",
        _SUBDOMAIN_RE,
        "example.com",
    )


def label_problem(text: str) -> str | None:
    """DNS-1123 label: a namespace's name."""
    if len(text) > 63:
        return "must be no more than 63 bytes"
    if re.fullmatch(_LABEL_RE, text):
        return None
    return _regex_problem(
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
        "end with an alphanumeric character",
        _LABEL_RE,
        "my-name",
        "123-abc",
    )


def dns1035_problem(text: str) -> str | None:
    """DNS-1035 label: names in a CustomResourceDefinition."""
    if len(text) > 63:
        return "must be no more than 63 bytes"
    if re.fullmatch(_DNS1035_RE, text):
        return None
    return _regex_problem(
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
        "character, and end with an alphanumeric character",
        _DNS1035_RE,
        "my-name",
        "abc-123",
    )


def qualified_name_problem(text: str) -> str | None:
    """Keys of labels, annotations and finalizers: ``name`` or ``prefix.example/name``."""
    prefix, slash, name = text.rpartition("/")
    if slash and (not prefix or "/" in prefix):
        return "prefix part must be non-empty" if not prefix else _name_part("a qualified name ")
    if slash and (problem := subdomain_problem(prefix)):
        return f"prefix part {problem}"
    if not name:
        return "name part must be non-empty"
    if len(name) > 63:
        return "name part must be no more than 63 bytes"
    return None if re.fullmatch(_WORD_RE, name) else _name_part("name part ")


def _name_part(what: str) -> str:
    return _regex_problem(
        f"{what}must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
        "alphanumeric character",
        _WORD_RE,
        "MyName",
        "my.name",
        "123-abc",
    )


def label_value_problem(text: str) -> str | None:
    if len(text) > 63:
        return "must be no more than 63 bytes"
    if re.fullmatch(_VALUE_RE, text):
        return None
    return _regex_problem(
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
        "start and end with an alphanumeric character",
        _VALUE_RE,
        "MyValue",
        "my_value",
        "12345",
    )


def data_key_problem(text: str) -> str | None:
    """Keys of a Secret's or a ConfigMap's data."""
    if len(text) > 253:
        return "must be no more than 253 characters"
    if text in (".", "..") or text.startswith(".."):
        return f"must not be '{text}'" if text in (".", "..") else "must not start with '..'"
    if re.fullmatch(_KEY_RE, text):
        return None
    return _regex_problem(
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
        _KEY_RE,
        "key.name",
        "KEY_NAME",
        "key-name",
    )


def validate_metadata(metadata: Mapping[str, Any], *, label_name: bool = False) -> list[FieldError]:
    """Faults of a decoded and type-checked ObjectMeta. ``label_name``: the name must be a DNS label."""
    errors: list[FieldError] = []
    problem_of = label_problem if label_name else subdomain_problem
    name = metadata.get("name")
    if not name:
        errors.append(fielderrors.required("metadata.name", "name or generateName is required"))
    elif problem := problem_of(name):
        errors.append(fielderrors.invalid("metadata.name", name, problem))
    for key, value in (metadata.get("labels") or {}).items():
        for text, problem in ((key, qualified_name_problem(key)), (value, label_value_problem(value))):
            if problem:
                errors.append(fielderrors.invalid("metadata.labels", text, problem))
    errors += _annotations(metadata.get("annotations") or {})
    for index, finalizer in enumerate(metadata.get("finalizers") or ()):
        if problem := qualified_name_problem(finalizer):
            errors.append(fielderrors.invalid(f"metadata.finalizers[{index}]", finalizer, problem))
    return errors + _owners(metadata.get("ownerReferences") or ())


def _annotations(annotations: Mapping[str, str]) -> list[FieldError]:
    errors = [
        fielderrors.invalid("metadata.annotations", key, problem)
        for key in annotations
        if (problem := qualified_name_problem(key.lower()))
    ]
    if sum(len(key) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATION_LIMIT:
        errors.append(fielderrors.too_long("metadata.annotations", _ANNOTATION_LIMIT))
    return errors


def _owners(owners: Any) -> list[FieldError]:
    errors = []
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        errors += [
            fielderrors.invalid(f"{path}.{key}", owner.get(key, ""), "must not be empty")
            for key in ("apiVersion", "kind", "name", "uid")
            if not owner.get(key)
        ]
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        why = "Only one reference can have Controller set to true"
        errors.append(fielderrors.invalid("metadata.ownerReferences", len(owners), why))
    return errors
