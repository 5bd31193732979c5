"""Validation by schema: the API server's words, and that what did not change is not looked at."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloudhub.standalone import validation
from cloudhub.standalone.fielderrors import FieldError, Reason, invalid_status
from cloudhub.standalone.validation import Validator

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "maxProperties": 20,
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 9},
                "below": {"type": "number", "maximum": 5, "exclusiveMaximum": True, "multipleOf": 0.5},
                "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 5},
                "color": {"type": "string", "enum": ["red", "blue"]},
                "maybe": {"type": "string", "nullable": True, "enum": ["x"]},
                "port": {"x-kubernetes-int-or-string": True},
                "when": {"type": "string", "format": "date-time"},
                "data": {"type": "string", "format": "byte"},
                "small": {"type": "integer", "format": "int32"},
                "list": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
                "map": {"type": "object", "additionalProperties": {"type": "integer"}},
                "one": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                        "oneOf": [{"required": ["a"]}, {"required": ["b"]}], "not": {"required": ["c"]}},
            },
        }
    },
}  # fmt: skip


def faults(spec: Any, old: Any = None) -> list[str]:
    errors = Validator(SCHEMA).validate({"spec": spec}, None if old is None else {"spec": old})
    return [str(error) for error in errors]


def test_a_sound_object_has_no_fault() -> None:
    assert faults(
        {
            "size": 3, "below": 4.5, "name": "abc", "color": "red", "maybe": None, "port": "http", "small": -5,
            "when": "2026-01-01T00:00:00.5+02:00", "data": "YQ==", "list": ["a"], "map": {"a": 1}, "one": {"a": 1},
        }
    ) == []  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("size", "x", 'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"'),
        ("size", 1.5, 'spec.size: Invalid value: "number": spec.size in body must be of type integer: "number"'),
        ("size", True, 'spec.size: Invalid value: "boolean": spec.size in body must be of type integer: "boolean"'),
        ("size", None, 'spec.size: Invalid value: "null": spec.size in body must be of type integer: "null"'),
        ("name", {}, 'spec.name: Invalid value: "object": spec.name in body must be of type string: "object"'),
        ("list", "a", 'spec.list: Invalid value: "string": spec.list in body must be of type array: "string"'),
        ("list", [1], 'spec.list[0]: Invalid value: "integer": spec.list[0] in body must be of type string: "integer"'),
        ("map", {"k": ""}, 'spec.map.k: Invalid value: "string": spec.map.k in body must be of type integer: "string"'),
        ("port", [], 'spec.port: Invalid value: "array": spec.port in body must be of type integer,string: "array"'),
        ("size", 0, "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"),
        ("size", 10, "spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9"),
        ("below", 5, "spec.below: Invalid value: 5: spec.below in body should be less than 5"),
        ("below", 0.3, "spec.below: Invalid value: 0.3: spec.below in body should be a multiple of 0.5"),
        ("name", "ABC", "spec.name: Invalid value: \"ABC\": spec.name in body should match '^[a-z]+$'"),
        ("name", "a", 'spec.name: Invalid value: "a": spec.name in body should be at least 2 chars long'),
        ("name", "abcdef", "spec.name: Too long: may not be more than 5 bytes"),
        ("color", "green", 'spec.color: Unsupported value: "green": supported values: "red", "blue"'),
        ("list", [], "spec.list: Invalid value: 0: spec.list in body should have at least 1 items"),
        ("list", ["a"] * 3, "spec.list: Too many: 3: must have at most 2 items"),
        ("when", "now", 'spec.when: Invalid value: "now": spec.when in body must be of type date-time: "now"'),
        ("when", "2026-13-01T00:00:00Z", "must be of type date-time"),
        ("data", "%", 'spec.data: Invalid value: "%": spec.data in body must be of type byte: "%"'),
        ("small", 2**31, "spec.small in body must be of type int32"),
        ("one", {}, '"spec.one" must validate one and only one schema (oneOf). Found none valid'),
        ("one", {"a": 1, "b": 1}, '"spec.one" must validate one and only one schema (oneOf). Found more than one'),
        ("one", {"a": 1, "c": 1}, '"spec.one" must not validate the schema (not)'),
    ],
)  # fmt: skip
def test_each_fault_has_the_servers_words(field: str, value: Any, fault: str) -> None:
    found = faults({"size": 3, field: value})

    assert any(fault in text for text in found), found


def test_what_is_required_is_asked_for() -> None:
    assert faults({}) == ["spec.size: Required value"]


def test_all_faults_are_told_at_once_up_to_a_bound() -> None:
    assert len(faults({"size": 0, "color": "green", "list": []})) == 3
    assert len(faults({"size": 1, "map": {f"k{i}": "x" for i in range(500)}})) == 50


def test_a_pattern_takes_linear_time() -> None:
    validator = Validator({"type": "string", "pattern": "^(a+)+$"})
    start = time.process_time()

    assert validator.validate("a" * 50_000 + "!", None)
    assert time.process_time() - start < 1


def test_an_old_fault_is_tolerated_where_nothing_changed_and_nowhere_else() -> None:
    old = {"size": 3, "map": {"a": "bad"}, "list": [1, "x"], "one": {"a": 1}}

    assert faults({**old, "size": 4}, old) == []
    assert len(faults({**old, "map": {"a": "bad", "b": 1}}, old)) == 1
    assert faults({**old, "size": 0}, old) == [
        "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"
    ]


def scalars() -> st.SearchStrategy[Any]:
    times = st.sampled_from(["2026-01-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-01"])
    numbers = st.sampled_from([0, 1, -1, 2**31, 2**63, 1.0, True])
    return st.none() | numbers | times | st.sampled_from(["", "red", "abc", "x" * 64])


def values() -> st.SearchStrategy[Any]:
    names = st.sampled_from(["a", "b", "c", "when", "color", "size", "list", "map", "again"])
    return st.recursive(
        scalars(), lambda below: st.lists(below, max_size=4) | st.dictionaries(names, below, max_size=5)
    )


SHORT: dict[str, Any] = {
    "type": "object",
    "required": ["a"],
    "properties": {
        "a": {"type": "object", "additionalProperties": {"type": "integer", "format": "int64"}},
        "b": {"type": "object", "properties": {"c": {"type": "boolean"}}, "additionalProperties": {"type": "string"}},
        "c": {"type": "string", "nullable": True, "maxLength": 3},
        "when": {"type": "string", "format": "date-time"},
        "color": {"type": "string", "enum": ["red", "blue"]},
        "size": {"type": "integer", "format": "int32"},
        "list": {"type": "array", "maxItems": 1, "items": {"type": "integer"}},
        "map": {"type": "object"},
    },
}
SHORT["properties"]["again"] = SHORT


def objects() -> st.SearchStrategy[dict[str, Any]]:
    numbers = st.lists(st.sampled_from([1, 2, "x"]), max_size=3)
    return st.dictionaries(st.sampled_from([*SHORT["properties"], "unknown"]), values() | st.builds(dict) | numbers)


@example({"list": [1, 2]})
@given(objects())
def test_what_the_short_cut_passes_the_library_passes(value: dict[str, Any]) -> None:
    found = Validator(SHORT).validate(value, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "_shortcut", lambda schema, known: None)
        by_the_library = Validator(SHORT).validate(value, None)

    assert [str(error) for error in found] == [str(error) for error in by_the_library]


def entry(node: int) -> dict[str, Any]:
    image = {"image": "registry.example/team/app:v1", "state": "Successful", "reason": "x" * 30}
    status = {"nodeName": f"edge-{node:05}", "state": "Successful", "time": "2026-01-01T00:00:00Z", "reason": "y" * 90}
    return {"nodeStatus": status, "imageStatus": [dict(image) for _ in range(4)]}


TEXT = {"type": "string"}
STATUS_SCHEMA = {
    "type": "object",
    "properties": {
        "status": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "nodeStatus": {"type": "object", "properties": dict.fromkeys(entry(0)["nodeStatus"], TEXT)},
                    "imageStatus": {
                        "type": "array",
                        "items": {"type": "object", "properties": dict.fromkeys(("image", "state", "reason"), TEXT)},
                    },
                },
            },
        }
    },
}


def test_a_large_status_that_hardly_changed_is_validated_in_milliseconds() -> None:
    old = {"status": [entry(node) for node in range(800)]}
    new = copy.deepcopy(old)
    new["status"][17]["nodeStatus"]["state"] = "Failed"
    validator = Validator(STATUS_SCHEMA)

    def cost(former: Any) -> float:
        start = time.process_time()
        assert validator.validate(new, former) == []
        return time.process_time() - start

    assert min(cost(None) for _ in range(3)) < 0.3
    assert min(cost(old) for _ in range(3)) < 0.03


def test_faults_become_a_status_object() -> None:
    errors = [FieldError("spec.size", Reason.REQUIRED, "Required value"), FieldError("a", Reason.INVALID, "b")]

    status = invalid_status(group="acme.example", kind="Widget", name="w", errors=errors)

    assert status["code"] == 422
    assert status["message"] == 'Widget.acme.example "w" is invalid: [spec.size: Required value, a: b]'
    assert status["details"]["causes"][0] == {
        "reason": "FieldValueRequired", "message": "Required value", "field": "spec.size",
    }  # fmt: skip
