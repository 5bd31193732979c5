"""Objects as server-side apply sees them: their fields, their differences, their merge."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloudhub.standalone import typed

PART = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "proto": {"type": "string", "default": "tcp"},
        "count": {"type": "integer"},
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "scalar": {"type": "integer"},
        "struct": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
        "atomic": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "list": {"type": "array", "items": {"type": "string"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "parts": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name", "proto"],
            "items": PART,
        },
    },
}


def paths(fields: Any) -> set[str]:
    return set(fields.paths())


def part(name: str, count: int | None = None) -> dict[str, Any]:
    return {"name": name, "proto": "tcp"} | ({} if count is None else {"count": count})


def test_the_fields_of_an_object_are_those_that_can_be_owned() -> None:
    obj = {
        "scalar": 1,
        "struct": {"a": "x"},
        "atomic": {"a": "x"},
        "map": {"k": "v"},
        "list": ["x"],
        "set": ["s"],
        "parts": [{"name": "p", "count": 1}],
    }

    assert paths(typed.to_set(obj, SCHEMA)) == {
        ".scalar",
        ".struct.a",
        ".atomic",
        ".map.k",
        ".list",
        '.set[="s"]',
        '.parts[name="p",proto="tcp"]',
        '.parts[name="p",proto="tcp"].name',
        '.parts[name="p",proto="tcp"].count',
    }


def test_an_empty_map_is_a_field_itself() -> None:
    assert paths(typed.to_set({"struct": {}, "map": {}}, SCHEMA)) == {".struct", ".map"}


def test_a_comparison_tells_what_was_added_changed_and_removed() -> None:
    old = {"scalar": 1, "map": {"a": "1", "b": "2"}, "list": ["x"], "parts": [part("p", 1), part("q")]}
    new = {
        "scalar": 2,
        "map": {"a": "1", "c": "3"},
        "list": ["x", "y"],
        "parts": [part("r"), part("p", 2)],
        "set": ["s"],
    }

    found = typed.compare(old, new, SCHEMA)

    key = '.parts[name="{}",proto="tcp"]'
    assert paths(found.modified) == {".scalar", ".list", key.format("p") + ".count"}
    assert paths(found.removed) == {".map.b", key.format("q"), key.format("q") + ".name", key.format("q") + ".proto"}
    assert paths(found.added) == {
        ".map.c", ".set", '.set[="s"]', key.format("r"), key.format("r") + ".name", key.format("r") + ".proto",
    }  # fmt: skip


def test_absent_null_and_empty_are_different() -> None:
    assert paths(typed.compare({}, {"map": {}}, SCHEMA).added) == {".map"}
    assert paths(typed.compare({"map": {}}, {"map": None}, SCHEMA).modified) == {".map"}
    assert paths(typed.compare({"map": {"a": "1"}}, {"map": {}}, SCHEMA).removed) == {".map.a"}
    assert paths(typed.compare({"map": {"a": "1"}}, {"map": None}, SCHEMA).removed) == {".map.a"}


@pytest.mark.parametrize(
    ("old", "new", "merged"),
    [
        ([], [part("a", 1)], [part("a", 1)]),
        ([part("a", 1), part("b")], [part("a", 2)], [part("a", 2), part("b")]),
        ([part("a"), part("b")], [part("b"), part("a")], [part("b"), part("a")]),
        ([part("a"), part("own"), part("b")], [part("b"), part("a")], [part("own"), part("b"), part("a")]),
        ([part("a"), part("own")], [part("new"), part("a")], [part("new"), part("a"), part("own")]),
    ],
)
def test_lists_merge_by_key_in_the_order_of_the_new_one(old: Any, new: Any, merged: Any) -> None:
    assert typed.merge({"parts": old}, {"parts": new}, SCHEMA) == {"parts": merged}


def test_merging_goes_into_maps_and_stops_at_what_is_atomic() -> None:
    old = {"struct": {"a": "1", "b": "2"}, "atomic": {"a": "1", "z": 1}, "list": ["x"], "set": ["s", "t"]}
    new = {"struct": {"a": "9"}, "atomic": {"b": "2"}, "list": ["y"], "set": ["t", "u"]}

    merged = typed.merge(old, new, SCHEMA)

    assert merged == {
        "struct": {"a": "9", "b": "2"}, "atomic": {"b": "2"}, "list": ["y"], "set": ["s", "t", "u"],
    }  # fmt: skip


def test_removing_takes_away_what_it_empties() -> None:
    obj = {"struct": {"a": "1"}, "map": {"k": "v", "l": "w"}, "parts": [part("p", 1), part("q")], "scalar": 0}
    fields = typed.to_set({"struct": {"a": "1"}, "map": {"k": "v"}, "parts": [part("p", 1)]}, SCHEMA)

    assert typed.remove(obj, fields, SCHEMA) == {"map": {"l": "w"}, "parts": [part("q")], "scalar": 0}


names = st.sampled_from("abcd")
objects = st.fixed_dictionaries(
    {},
    optional={
        "scalar": st.integers(0, 2),
        "struct": st.dictionaries(st.sampled_from("ab"), names, min_size=1),
        "map": st.dictionaries(names, names, min_size=1),
        "list": st.lists(names, max_size=2),
        "set": st.lists(names, unique=True, min_size=1),
        "parts": st.lists(st.builds(part, names, st.integers(0, 2)), unique_by=lambda item: item["name"], min_size=1),
    },
)


@given(objects, objects)
def test_a_merge_holds_all_of_the_new_and_every_field_of_both(old: dict[str, Any], new: dict[str, Any]) -> None:
    merged = typed.merge(old, new, SCHEMA)

    fields = paths(typed.to_set(merged, SCHEMA))
    assert fields == paths(typed.to_set(old, SCHEMA)) | paths(typed.to_set(new, SCHEMA))
    assert typed.merge(merged, new, SCHEMA) == merged
    for part_of in new.get("parts", ()):
        assert part_of in merged["parts"]


def without_order(obj: dict[str, Any]) -> dict[str, Any]:
    """As fields see it: items of a set and of a list by key are known by what they are, not by their place."""
    ordered = {"set": sorted(obj.get("set", ())), "parts": sorted(obj.get("parts", ()), key=lambda item: item["name"])}
    return obj | ordered


@given(objects, objects)
@example({"set": ["a", "b"]}, {"set": ["b", "a"]})
@example({"parts": [part("a"), part("b")]}, {"parts": [part("b"), part("a")]})
@example({"list": ["a", "b"]}, {"list": ["b", "a"]})
def test_a_comparison_accounts_for_every_field(old: dict[str, Any], new: dict[str, Any]) -> None:
    found = typed.compare(old, new, SCHEMA)
    before, after = paths(typed.to_set(old, SCHEMA)), paths(typed.to_set(new, SCHEMA))

    assert after - before <= paths(found.added)
    assert before - after <= paths(found.removed)
    assert paths(found.modified) <= before & after
    assert (not (found.added or found.removed or found.modified)) is (
        without_order(typed.merge(old, new, SCHEMA)) == without_order(old) and before == after
    )


@given(objects)
def test_removing_all_fields_leaves_nothing(obj: dict[str, Any]) -> None:
    everything = typed.with_named(typed.to_set(obj, SCHEMA), SCHEMA)

    assert typed.remove(obj, everything, SCHEMA) == {}
