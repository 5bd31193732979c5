"""Strategic merge patch: lists by key, and its directives."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cloudhub.standalone.builtin import schema_of
from cloudhub.standalone.merge import InvalidPatch, strategic_merge_patch

NODE = schema_of("", "v1", "Node").openapi


def condition(kind: str, status: str = "True") -> dict[str, str]:
    return {"type": kind, "status": status}


def patched(obj: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    before = copy.deepcopy(obj)
    result = strategic_merge_patch(obj, patch, NODE)
    assert obj == before
    return result


def test_objects_in_a_list_are_merged_by_their_key_and_new_ones_added() -> None:
    node = {"status": {"conditions": [{**condition("Ready"), "reason": "Up"}, condition("Disk")]}}

    result = patched(node, {"status": {"conditions": [condition("Ready", "False"), condition("New")]}})

    assert result["status"]["conditions"] == [
        {**condition("Ready", "False"), "reason": "Up"},
        # What the server did not have goes before what the patch does not name, as in a cluster.
        condition("New"),
        condition("Disk"),
    ]


def test_an_element_is_deleted_by_directive() -> None:
    node = {"status": {"addresses": [{"type": "Hostname", "address": "h"}, {"type": "InternalIP", "address": "i"}]}}

    result = patched(node, {"status": {"addresses": [{"$patch": "delete", "type": "Hostname"}]}})

    assert result["status"]["addresses"] == [{"type": "InternalIP", "address": "i"}]


def test_a_list_or_a_map_is_replaced_by_directive() -> None:
    node = {"metadata": {"labels": {"a": "b"}}, "status": {"conditions": [condition("Ready"), condition("Disk")]}}

    result = patched(
        node,
        {
            "metadata": {"labels": {"$patch": "replace", "c": "d"}},
            "status": {"conditions": [{"$patch": "replace"}, condition("Only")]},
        },
    )

    assert result == {"metadata": {"labels": {"c": "d"}}, "status": {"conditions": [condition("Only")]}}


def test_a_map_is_emptied_by_directive() -> None:
    assert patched({"spec": {"podCIDR": "x"}}, {"spec": {"$patch": "delete"}}) == {"spec": {}}


def test_a_list_without_merge_strategy_is_replaced() -> None:
    taints = [{"key": "a", "effect": "NoSchedule"}]

    assert patched({"spec": {"taints": taints}}, {"spec": {"taints": []}}) == {"spec": {"taints": []}}


def test_sets_of_scalars_are_united_and_deleted_from() -> None:
    node = {"metadata": {"finalizers": ["a/x", "b/y"]}}

    assert patched(node, {"metadata": {"finalizers": ["b/y", "c/z"]}}) == {
        "metadata": {"finalizers": ["a/x", "b/y", "c/z"]}
    }
    assert patched(node, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/x", "gone"]}}) == {
        "metadata": {"finalizers": ["b/y"]}
    }


def test_deleting_and_adding_and_ordering_go_together() -> None:
    node = {"metadata": {"finalizers": ["a", "b", "c"]}}

    result = patched(
        node,
        {
            "metadata": {
                "$setElementOrder/finalizers": ["d", "c", "a"],
                "$deleteFromPrimitiveList/finalizers": ["b"],
                "finalizers": ["d"],
            }
        },
    )

    assert result == {"metadata": {"finalizers": ["d", "c", "a"]}}


def test_the_order_of_objects_is_set_and_the_servers_own_keep_their_place() -> None:
    node = {"status": {"conditions": [condition("A"), condition("Own"), condition("B")]}}

    result = patched(
        node,
        {
            "status": {
                "$setElementOrder/conditions": [{"type": "B"}, {"type": "A"}],
                "conditions": [condition("B", "False")],
            }
        },
    )

    assert [item["type"] for item in result["status"]["conditions"]] == ["Own", "B", "A"]
    assert result["status"]["conditions"][1] == condition("B", "False")


def test_retain_keys_drops_all_others() -> None:
    node = {"spec": {"podCIDR": "x", "providerID": "p"}}

    assert patched(node, {"spec": {"$retainKeys": ["providerID"], "providerID": "q"}}) == {"spec": {"providerID": "q"}}


def test_null_deletes_and_is_not_left_where_nothing_was() -> None:
    node = {"metadata": {"labels": {"a": "b"}}}

    assert patched(node, {"metadata": {"labels": {"a": None}, "annotations": {"x": None, "y": "z"}}}) == {
        "metadata": {"labels": {}, "annotations": {"y": "z"}}
    }


@pytest.mark.parametrize(
    "patch",
    [
        [],
        {"spec": {"$patch": "conjure"}},
        {"status": {"conditions": [{"status": "True"}]}},
        {"status": {"conditions": [{"$patch": "delete"}]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}},
        {"metadata": {"$setElementOrder/finalizers": "a"}},
        {"spec": {"$retainKeys": "podCIDR"}},
        {"spec": {"$retainKeys": [], "podCIDR": "y"}},
    ],
)
def test_a_malformed_patch_is_refused(patch: Any) -> None:
    node = {"metadata": {"finalizers": ["a"]}, "spec": {"podCIDR": "x"}, "status": {"conditions": [condition("A")]}}

    with pytest.raises(InvalidPatch):
        strategic_merge_patch(node, patch, NODE)
