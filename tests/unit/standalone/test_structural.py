"""Defaults and pruning."""

from __future__ import annotations

from typing import Any

from cloudhub.standalone.structural import Defaults, drop_nulls, prune

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "default": {},
            "properties": {
                "size": {"type": "integer", "default": 3},
                "maybe": {"type": "string", "nullable": True, "default": "x"},
                "parts": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}},
                },
                "labels": {
                    "type": "object",
                    "additionalProperties": {"type": "object", "properties": {"v": {"type": "string", "default": "w"}}},
                },
                "free": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": True,
                    "properties": {"known": {"type": "object", "properties": {"a": {"type": "string"}}}},
                },
                "whole": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {}},
                "port": {"x-kubernetes-int-or-string": True},
            },
        }
    },
}
METADATA = {"type": "object", "properties": {"name": {"type": "string"}}}


def test_defaults_fill_in_what_is_missing_at_every_depth() -> None:
    obj: dict[str, Any] = {"spec": {"parts": [{}, {"n": 5}], "labels": {"a": {}}}}
    Defaults(SCHEMA).fill(obj)

    assert obj["spec"] == {
        "size": 3, "maybe": "x", "parts": [{"n": 1}, {"n": 5}], "labels": {"a": {"v": "w"}},
    }  # fmt: skip


def test_a_defaulted_object_gets_the_defaults_below_it() -> None:
    obj: dict[str, Any] = {}
    Defaults(SCHEMA).fill(obj)

    assert obj == {"spec": {"size": 3, "maybe": "x"}}


def test_defaults_are_not_shared_between_objects() -> None:
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    Defaults(SCHEMA).fill(first)
    first["spec"]["size"] = 9
    Defaults(SCHEMA).fill(second)

    assert second["spec"]["size"] == 3


def test_null_gets_the_default_where_null_is_not_allowed() -> None:
    obj: dict[str, Any] = {"spec": {"size": None, "maybe": None}}
    Defaults(SCHEMA).fill(obj)

    assert obj["spec"] == {"size": 3, "maybe": None}


def test_unknown_fields_are_removed_and_named() -> None:
    obj: dict[str, Any] = {
        "apiVersion": "v1", "kind": "K", "metadata": {"name": "n", "nam": 1}, "extra": 1,
        "spec": {"sise": 1, "parts": [{"n": 1}, {"m": 2}], "labels": {"a": {"v": "x", "u": 1}}, "port": "http"},
    }  # fmt: skip

    removed = prune(obj, SCHEMA, METADATA, root=True)

    assert removed == ["metadata.nam", "extra", "spec.sise", "spec.parts[1].m", "spec.labels.a.u"]
    assert obj["spec"] == {"parts": [{"n": 1}, {}], "labels": {"a": {"v": "x"}}, "port": "http"}


def test_unknown_fields_stay_where_the_schema_keeps_them() -> None:
    obj: dict[str, Any] = {"spec": {"free": {"any": {"thing": 1}, "known": {"a": "b", "c": 1}}}}

    assert prune(obj, SCHEMA, METADATA, root=True) == ["spec.free.known.c"]
    assert obj["spec"]["free"] == {"any": {"thing": 1}, "known": {"a": "b"}}


def test_an_embedded_resource_keeps_its_identity() -> None:
    whole = {"apiVersion": "v1", "kind": "K", "metadata": {"name": "n", "x": 1}, "y": 1}
    obj: dict[str, Any] = {"spec": {"whole": whole}}

    assert prune(obj, SCHEMA, METADATA, root=True) == ["spec.whole.metadata.x", "spec.whole.y"]


def test_nulls_are_dropped_except_inside_free_form_values() -> None:
    obj: dict[str, Any] = {"a": None, "spec": {"size": None, "free": {"x": None}, "parts": [{"n": None}]}}
    drop_nulls(obj, SCHEMA)

    assert obj == {"spec": {"free": {"x": None}, "parts": [{}]}}
