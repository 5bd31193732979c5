"""JSON patch and JSON merge patch."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudhub.standalone.merge import InvalidPatch, json_patch, merge_patch

scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.text("abc", max_size=3)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(st.text("abc", max_size=2), values, max_size=4)


def test_a_json_patch_changes_a_copy() -> None:
    obj = {"a": {"b": [1, 2]}}

    patched = json_patch(
        obj,
        [
            {"op": "test", "path": "/a/b/0", "value": 1},
            {"op": "add", "path": "/a/b/-", "value": 3},
            {"op": "replace", "path": "/a/b/0", "value": 9},
            {"op": "copy", "from": "/a/b", "path": "/c"},
            {"op": "remove", "path": "/a"},
        ],
    )

    assert patched == {"c": [9, 2, 3]}
    assert obj == {"a": {"b": [1, 2]}}


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ({}, 400),
        ("x", 400),
        ([1], 400),
        ([{"op": "conjure", "path": "/a"}], 400),
        ([{"path": "/a"}], 400),
        ([{"op": "add", "path": "a"}], 422),
        ([{"op": "test", "path": "/a", "value": 2}], 422),
        ([{"op": "remove", "path": "/nope"}], 422),
        ([{"op": "add", "path": "/x/y", "value": 1}], 422),
        ([{"op": "replace", "path": "", "value": 5}], 422),
        ([{"op": "add", "path": "/b", "value": 1}] * 10_001, 413),
        ([{"op": "copy", "from": "/a", "path": "/b"}] * 1_001, 413),
    ],
)
def test_a_json_patch_that_fails_says_how(patch: Any, code: int) -> None:
    with pytest.raises(InvalidPatch) as caught:
        json_patch({"a": 1}, patch)

    assert caught.value.code == code


def test_a_failed_test_repeats_no_value() -> None:
    with pytest.raises(InvalidPatch) as caught:
        json_patch({"password": "tiger"}, [{"op": "test", "path": "/password", "value": "lion"}])

    assert "tiger" not in str(caught.value)
    assert "lion" not in str(caught.value)


operations = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "x"])},
    optional={
        "path": st.sampled_from(["", "/", "/a", "/a/b", "/a/0", "/a/-", "b", "/~", "/a/01"]) | scalars,
        "from": st.sampled_from(["", "/a", "/b/c", "/a/0"]) | scalars,
        "value": values,
    },
)


@given(objects, st.lists(operations, max_size=4))
def test_whatever_a_json_patch_says_it_applies_or_is_refused(obj: dict[str, Any], patch: list[Any]) -> None:
    before = copy.deepcopy(obj)
    with contextlib.suppress(InvalidPatch):
        assert isinstance(json_patch(obj, patch), dict)
    assert obj == before


@pytest.mark.parametrize(
    ("obj", "patch", "result"),
    [
        # The examples of RFC 7386, appendix A, whose target is an object.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_merges_as_the_rfc_says(
    obj: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]
) -> None:
    before = copy.deepcopy(obj)

    assert merge_patch(obj, patch) == result
    assert obj == before


@pytest.mark.parametrize("patch", [[], "x", 1, None])
def test_a_merge_patch_must_be_an_object(patch: Any) -> None:
    with pytest.raises(InvalidPatch, match="a merge patch is an object"):
        merge_patch({}, patch)


@given(objects, objects)
def test_a_merge_patch_twice_is_as_once_and_spares_the_original(obj: dict[str, Any], patch: dict[str, Any]) -> None:
    before = copy.deepcopy(obj)
    once = merge_patch(obj, patch)

    assert merge_patch(once, patch) == once
    assert obj == before
