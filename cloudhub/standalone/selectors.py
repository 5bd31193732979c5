"""Label and field selectors, as they come in a list's or a watch's query.

A selector is parsed once and asked for each object. What does not parse raises `InvalidSelector` with the API server's
words (400). Field selectors know just the fields that the API server indexes for a kind: another one is refused, not
ignored, since an ignored filter shows objects that were not asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_NAME: Final = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_DNS: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_WORD: Final = re.compile(r"\s*(!=|==|[=!,()<>]|[^\s=!,()<>]+)")
_MAX_SELECTOR: Final = 64 * 1024


class InvalidSelector(ValueError):
    """The selector does not parse; the text is the API server's message."""


@dataclass(frozen=True, slots=True)
class _Requirement:
    key: str
    operator: str
    values: frozenset[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        present = self.key in labels
        match self.operator:
            case "exists":
                return present
            case "!":
                return not present
            case "in":
                return present and labels[self.key] in self.values
            case "notin":
                return not present or labels[self.key] not in self.values
            case _:
                return present and self._compares(labels[self.key])

    def _compares(self, text: str) -> bool:
        """``gt`` and ``lt``: whole numbers on both sides, else no match."""
        try:
            number, bound = int(text), int(next(iter(self.values)))
        except ValueError:
            return False
        return number > bound if self.operator == "gt" else number < bound


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must hold; none at all matches everything."""

    requirements: tuple[_Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        return all(requirement.matches(labels or {}) for requirement in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements)


def parse_label_selector(text: str) -> LabelSelector:
    """``a=b,c!=d,e in (f,g),h notin (i),j,!k,l>5``. Raises `InvalidSelector`."""
    if len(text) > _MAX_SELECTOR:
        raise InvalidSelector("unable to parse requirement: selector is too long")
    return LabelSelector(tuple(_LabelParser(text).parse()))


class _LabelParser:
    def __init__(self, text: str) -> None:
        self._tokens = _WORD.findall(text)
        self._at = 0

    def parse(self) -> list[_Requirement]:
        requirements: list[_Requirement] = []
        if not self._tokens:
            return requirements
        while True:
            requirements.append(self._requirement())
            word = self._next()
            if not word:
                return requirements
            if word != ",":
                raise InvalidSelector(f"found '{word}', expected: ',' or 'end of string'")
            if self._peek() in ("", ","):
                raise InvalidSelector(f"found '{self._peek()}', expected: identifier after ','")

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        word = self._peek()
        self._at += 1
        return word

    def _requirement(self) -> _Requirement:
        negated = self._peek() == "!"
        if negated:
            self._next()
        key = self._next()
        if not _is_word(key):
            raise InvalidSelector(f"unable to parse requirement: found '{key}', expected: identifier")
        _check_key(key)
        if negated:
            return _Requirement(key, "!", frozenset())
        match self._peek():
            case "" | ",":
                return _Requirement(key, "exists", frozenset())
            case "=" | "==" | "!=":
                return self._equality(key)
            case "in" | "notin":
                operator = self._next()
                return _Requirement(key, operator, self._value_set(key, operator))
            case "<" | ">":
                return self._comparison(key)
            case other:
                raise InvalidSelector(
                    f"unable to parse requirement: found '{other}', expected: in, notin, =, ==, !=, gt, lt"
                )

    def _equality(self, key: str) -> _Requirement:
        operator = "notin" if self._next() == "!=" else "in"
        value = ""
        if self._peek() not in ("", ","):
            value = self._next()
            if not _is_word(value):
                raise InvalidSelector(f"unable to parse requirement: found '{value}', expected: identifier")
        _check_value(key, value)
        return _Requirement(key, operator, frozenset((value,)))

    def _comparison(self, key: str) -> _Requirement:
        operator = "gt" if self._next() == ">" else "lt"
        value = self._next()
        if not re.fullmatch(r"-?\d+", value):
            raise InvalidSelector(
                f'unable to parse requirement: values[0][{key}]: Invalid value: "{value}": '
                "for 'Gt', 'Lt' operators, the value must be an integer"
            )
        return _Requirement(key, operator, frozenset((value,)))

    def _value_set(self, key: str, operator: str) -> frozenset[str]:
        opening = self._next()
        if opening != "(":
            raise InvalidSelector(f"unable to parse requirement: found '{opening}' expected: '('")
        values: set[str] = set()
        expect_value = True
        while (word := self._next()) != ")":
            if not word:
                raise InvalidSelector("unable to parse requirement: found '', expected: ',', or identifier")
            if word == ",":
                if expect_value:
                    values.add("")
                expect_value = True
                continue
            if not expect_value or not _is_word(word):
                raise InvalidSelector(f"unable to parse requirement: found '{word}', expected: ',', ')' or identifier")
            _check_value(key, word)
            values.add(word)
            expect_value = False
        if expect_value:
            values.add("")
        return frozenset(values)


def _is_word(word: str) -> bool:
    return bool(word) and word[0] not in "=!,()<>"


def _check_key(key: str) -> None:
    prefix, slash, name = key.rpartition("/")
    problem = ""
    if slash and (not prefix or len(prefix) > 253 or not _DNS.fullmatch(prefix)):
        problem = (
            "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
            "'.', and must start and end with an alphanumeric character"
        )
    elif len(name) > 63:
        problem = "name part must be no more than 63 bytes"
    elif not _NAME.fullmatch(name):
        problem = (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        )
    if problem:
        raise InvalidSelector(f'unable to parse requirement: key: Invalid value: "{key}": {problem}')


def _check_value(key: str, value: str) -> None:
    problem = ""
    if len(value) > 63:
        problem = "must be no more than 63 bytes"
    elif value and not _NAME.fullmatch(value):
        problem = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
            "for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        )
    if problem:
        raise InvalidSelector(f'unable to parse requirement: values[0][{key}]: Invalid value: "{value}": {problem}')


# --- field selectors --------------------------------------------------------------------------------------------------

_EVENT_FIELDS: Final = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)
_FIELDS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("", "Secret"): ("type",),
    ("", "Node"): ("spec.unschedulable",),
    ("", "Namespace"): ("status.phase", "name"),
    ("", "Event"): _EVENT_FIELDS,
    ("events.k8s.io", "Event"): _EVENT_FIELDS,
}
_BY_NAME_ALONE: Final = (
    ("", "ConfigMap"),
    ("coordination.k8s.io", "Lease"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
)


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Pairs of field and value; all must hold."""

    terms: tuple[tuple[str, str, bool], ...] = ()
    """Field path, value, and whether it must be equal (else it must differ)."""

    def matches(self, obj: Mapping[str, Any]) -> bool:
        return all((_field(obj, path) == value) is equal for path, value, equal in self.terms)

    def exact(self, path: str) -> str | None:
        """The one value that ``path`` must have, if the selector says so: a list by name can be a get."""
        return next((value for field, value, equal in self.terms if equal and field == path), None)

    def __bool__(self) -> bool:
        return bool(self.terms)


def parse_field_selector(text: str, *, group: str, kind: str, selectable: Sequence[str] = ()) -> FieldSelector:
    """``metadata.name=x,type!=y``. ``selectable`` is a CRD's ``selectableFields`` (``spec.color``, no leading dot).
    Raises `InvalidSelector` on bad syntax and on a field that this kind cannot be selected by."""
    if len(text) > _MAX_SELECTOR:
        raise InvalidSelector("invalid selector: too long")
    known = {"metadata.name", "metadata.namespace", *_FIELDS.get((group, kind), ()), *selectable}
    terms: list[tuple[str, str, bool]] = []
    for term in _split_unescaped(text):
        if not term:
            continue
        path, value, equal = _split_term(term, text)
        if path not in known:
            raise InvalidSelector(_unknown_field(path, group, kind))
        terms.append((path, value, equal))
    return FieldSelector(tuple(terms))


def _unknown_field(path: str, group: str, kind: str) -> str:
    if (group, kind) in _BY_NAME_ALONE:
        return f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"'
    return f"field label not supported: {path}"


def _split_unescaped(text: str) -> list[str]:
    """At commas, but not at ``\\,``."""
    return re.split(r"(?<!\\),", text)


def _split_term(term: str, whole: str) -> tuple[str, str, bool]:
    for operator, equal in (("!=", False), ("==", True), ("=", True)):
        at = _find_operator(term, operator)
        if at >= 0:
            return term[:at], _unescape(term[at + len(operator) :], whole), equal
    raise InvalidSelector(f"invalid selector: '{whole}'; can't understand '{term}'")


def _find_operator(term: str, operator: str) -> int:
    match = re.search(r"(?<!\\)" + re.escape(operator), term)
    first = re.search(r"(?<!\\)(!=|==|=)", term)
    if match is None or first is None or match.start() != first.start():
        return -1
    return match.start()


def _unescape(text: str, whole: str) -> str:
    if re.search(r"(?<!\\)[=,]", text):
        raise InvalidSelector(f"invalid field selector: unescaped character in '{whole}'")
    return re.sub(r"\\([\\,=])", r"\1", text)


def _event_source(obj: Mapping[str, Any]) -> Any:
    return (obj.get("source") or {}).get("component") or obj.get("reportingComponent") or ""


_COMPUTED: Final[dict[str, Callable[[Mapping[str, Any]], Any]]] = {
    "source": _event_source,
    "name": lambda obj: obj["metadata"].get("name", ""),
    "spec.unschedulable": lambda obj: "true" if (obj.get("spec") or {}).get("unschedulable") else "false",
}


def _field(obj: Mapping[str, Any], path: str) -> str:
    """The field as text; an absent one is empty, as in the API server's field sets."""
    if path in _COMPUTED:
        return str(_COMPUTED[path](obj))
    value: Any = obj
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
