"""CEL rules: what holds, what is said when it does not, what does not compile."""

from __future__ import annotations

from typing import Any

import pytest
from celpy import celtypes

from cloudhub.standalone.cel import compile_rules
from cloudhub.standalone.celvalues import to_cel

FIELDS: dict[str, Any] = {
    "n": {"type": "integer"},
    "f": {"type": "number"},
    "s": {"type": "string"},
    "foo-bar": {"type": "string"},
    "namespace": {"type": "string"},
    "list": {"type": "array", "items": {"type": "string"}},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "when": {"type": "string", "format": "date-time"},
    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "parts": {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {"name": {"type": "string"}, "count": {"type": "integer"}}},
    },
}
OBJECT = {
    "n": 2, "f": 1.5, "s": "abc", "foo-bar": "x", "namespace": "y", "list": ["a", "b"], "map": {"k": "v"},
    "when": "2026-01-01T00:00:00Z", "free": {"any": 1}, "parts": [{"name": "p", "count": 1}],
}  # fmt: skip


def schema(rule: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": FIELDS, "x-kubernetes-validations": [{"rule": rule, **more}]}


def faults(rule: str, value: Any, old: Any = None, **more: Any) -> list[str]:
    tree, errors = compile_rules(schema(rule, **more), "schema")
    assert errors == []
    return [str(error) for error in tree.validate(value, old, "spec")]


def compile_faults(rule: str, **more: Any) -> list[str]:
    return [str(error) for error in compile_rules(schema(rule, **more), "schema")[1]]


@pytest.mark.parametrize(
    "rule",
    [
        "self.n > 1 && self.f < 2.0",
        "has(self.s) && !(has(self.list) && self.list.size() > 9)",
        "self.list.all(x, x.size() == 1) && self.list.exists(x, x == 'a') && self.list.exists_one(x, x == 'b')",
        "self.list.map(x, x + '!') == ['a!', 'b!'] && self.list.filter(x, x != 'a').size() == 1",
        "'k' in self.map && self.map['k'] == 'v' && self.map.all(k, k != '')",
        "self.foo__dash__bar == 'x' && self.__namespace__ == 'y'",
        "self.when < timestamp('2027-01-01T00:00:00Z') && duration('1h') > duration('1m')",
        "self.s.matches('^[a-c]+$') && self.s.startsWith('a') && self.s.contains('b') && self.s.endsWith('c')",
        "self.list.isSorted() && [1, 2].sum() == 3 && [1, 2].max() == 2 && self.list.indexOf('b') == 1",
        "self.list.join('-') == 'a-b' && self.s.upperAscii() == 'ABC' && 'a,b'.split(',') == self.list",
        "self.s.find('b.') == 'bc' && 'aXbX'.findAll('X').size() == 2 && self.s.substring(1) == 'bc'",
        "self.s.replace('a', 'z') == 'zbc' && ' x '.trim() == 'x' && self.s.charAt(0) == 'a'",
        "self.n == 2 ? true : false",
        "double('0.3') <= 1.0 && int('3') == 3 && string(self.n) == '2' && type(self.n) == int",
        "self.parts.all(p, p.count > 0) && self.parts[0].name == 'p'",
        "!(self.n in [3, 4])",
    ],
)
def test_a_rule_that_holds_says_nothing(rule: str) -> None:
    assert faults(rule, OBJECT) == []


def test_a_broken_rule_says_its_message_or_itself() -> None:
    assert faults("self.n > 5", OBJECT) == ['spec: Invalid value: "object": failed rule: self.n > 5']
    assert faults("self.n > 5", OBJECT, message="n is small") == ['spec: Invalid value: "object": n is small']
    assert faults("self.n > 5", OBJECT, messageExpression="'n is ' + string(self.n)") == [
        'spec: Invalid value: "object": n is 2'
    ]
    assert faults("self.n > 5", OBJECT, message="m", fieldPath=".n", reason="FieldValueForbidden") == [
        "spec.n: Forbidden: m"
    ]


def test_a_missing_field_is_named_without_the_objects_values() -> None:
    (fault,) = faults("self.n > 5", {"s": "hidden"})

    assert fault == 'spec: Invalid value: "object": no such key: n evaluating rule: self.n > 5'


def test_a_transition_rule_is_asked_on_updates_alone() -> None:
    assert faults("self.n >= oldSelf.n", {"n": 1}) == []
    assert faults("self.n >= oldSelf.n", {"n": 1}, {"n": 1, "s": "x"}) == []
    assert len(faults("self.n >= oldSelf.n", {"n": 1}, {"n": 2})) == 1


def test_nothing_is_asked_where_nothing_changed() -> None:
    broken = {"n": 1}

    assert len(faults("self.n > 5", broken)) == 1
    assert faults("self.n > 5", broken, dict(broken)) == []


def test_items_of_a_list_of_type_map_are_compared_by_their_keys() -> None:
    item = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "count": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.count >= oldSelf.count", "message": "count went down"}],
    }
    parts = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item}
    tree, errors = compile_rules({"type": "object", "properties": {"parts": parts}}, "schema")
    assert errors == []
    old = {"parts": [{"name": "a", "count": 5}, {"name": "b", "count": 1}]}
    new = {"parts": [{"name": "b", "count": 2}, {"name": "a", "count": 4}, {"name": "c", "count": 0}]}

    assert [str(error) for error in tree.validate(new, old)] == ['parts[1]: Invalid value: "object": count went down']


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("self.nope == 1", "<input>:1:6: undefined field 'nope'\n | self.nope == 1\n | .....^"),
        ("has(self.nope)", "undefined field 'nope'"),
        ("self.free.any == 1", "undefined field 'any'"),
        ("self.parts.all(p, p.nope == 1)", "undefined field 'nope'"),
        ("self.list.all(x, y == 1)", "undeclared reference to 'y'"),
        ("selv.n == 1", "undeclared reference to 'selv'"),
        ("self.s.reverseX() == 'x'", "undeclared reference to 'reverseX'"),
        ("conjure(self.n)", "undeclared reference to 'conjure'"),
        ("self.n.x == 1", "type 'integer' does not support field selection"),
        ("self.n", "must evaluate to a bool"),
        ("self.n ==", "Syntax error"),
        ("self.n &&& self.s", "Syntax error"),
        ("has(self)", "invalid argument to has() macro"),
        ("self.list.all(1, true)", "takes a variable name"),
        ("", "rule is not specified"),
        ("(" * 400 + "true" + ")" * 400, "compilation failed"),
        ("true " * 5000, "longer than"),
    ],
)
def test_what_does_not_compile_is_refused(rule: str, problem: str) -> None:
    found = compile_faults(rule)

    assert len(found) == 1
    assert problem in found[0]
    assert found[0].startswith("schema.x-kubernetes-validations[0].rule: ")


def test_the_rest_of_a_rule_is_checked_too() -> None:
    assert "line breaks" in compile_faults("true", message="a\nb")[0]
    assert "Unsupported value" in compile_faults("true", reason="Whim")[0]
    assert "must be a valid path" in compile_faults("true", fieldPath=".nope")[0]
    assert "optional types are not served" in compile_faults("true", optionalOldSelf=True)[0]
    assert "messageExpression" in compile_faults("true", messageExpression="nope")[0]


def test_old_self_cannot_be_used_in_lists_without_keys() -> None:
    item = {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}
    _, errors = compile_rules({"type": "object", "properties": {"l": {"type": "array", "items": item}}}, "schema")

    assert "uncorrelatable portion" in str(errors[0])


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_whole_number_beyond_64_bits_is_a_float_as_in_kubernetes(number: int) -> None:
    assert isinstance(to_cel(number, {"type": "integer"}), celtypes.DoubleType)
    assert isinstance(to_cel(2**63 - 1, {"type": "integer"}), celtypes.IntType)
