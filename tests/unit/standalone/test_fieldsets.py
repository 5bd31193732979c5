"""Sets of fields: fieldsV1, paths, algebra."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudhub.standalone.fieldsets import FieldSet, key_element, value_element

V1 = {
    "f:metadata": {"f:labels": {".": {}, "f:a": {}}, "f:finalizers": {'v:"x/y"': {}}},
    "f:status": {"f:conditions": {'k:{"type":"Ready"}': {".": {}, "f:status": {}}}},
}

elements = st.sampled_from(["f:a", "f:b", 'v:"x"', 'k:{"n":1}'])
sets = st.recursive(
    st.builds(FieldSet, st.sets(elements, max_size=3)),
    lambda inner: st.builds(FieldSet, st.sets(elements, max_size=3), st.dictionaries(elements, inner, max_size=3)),
    max_leaves=8,
)


def test_fields_v1_is_read_and_written_the_same() -> None:
    assert FieldSet.from_v1(V1).to_v1() == V1


def test_paths_are_printed_as_the_api_server_prints_them() -> None:
    assert sorted(FieldSet.from_v1(V1).paths()) == [
        '.metadata.finalizers[="x/y"]',
        ".metadata.labels",
        ".metadata.labels.a",
        '.status.conditions[type="Ready"]',
        '.status.conditions[type="Ready"].status',
    ]


def test_elements_have_one_spelling() -> None:
    assert key_element({"b": 1, "a": "x"}) == 'k:{"a":"x","b":1}'
    assert value_element("x") == 'v:"x"'
    assert FieldSet.from_v1({'k:{"b": 1, "a": "x"}': {}}) == FieldSet(['k:{"a":"x","b":1}'])


@pytest.mark.parametrize(
    "fields",
    [None, [], {"x": {}}, {"f:a": 1}, {"k:[]": {}}, {"v:{": {}}, {"k:": {}}],
)
def test_what_is_no_fields_v1_is_refused(fields: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own error is one too
        FieldSet.from_v1(fields)


def test_fields_v1_nested_without_end_is_refused() -> None:
    fields: dict[str, Any] = {}
    for _ in range(500):
        fields = {"f:a": fields}

    with pytest.raises(ValueError, match="malformed"):
        FieldSet.from_v1(fields)


@given(sets)
def test_any_set_survives_fields_v1(fields: FieldSet) -> None:
    assert FieldSet.from_v1(fields.to_v1()) == fields


@given(sets, sets)
def test_the_algebra_is_that_of_the_paths(left: FieldSet, right: FieldSet) -> None:
    mine, others = set(left.paths()), set(right.paths())

    assert set(left.union(right).paths()) == mine | others
    assert set(left.intersection(right).paths()) == mine & others
    assert set(left.difference(right).paths()) == mine - others
    assert bool(left) is bool(mine)
    assert (left == right) is (mine == others)
