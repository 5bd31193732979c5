"""Server-side apply and managedFields."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudhub.standalone import typed
from cloudhub.standalone.apply import (
    LAST_APPLIED,
    ApplyConflict,
    InvalidApply,
    server_side_apply,
    track_update,
)
from cloudhub.standalone.builtin import schema_of
from cloudhub.standalone.fieldsets import FieldSet

SCHEMA = schema_of("", "v1", "Node").openapi


def node(metadata: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", **(metadata or {})}, **rest}


def apply(live: Any, configuration: Any, manager: str = "kubectl", time: str = "T1", **more: Any) -> dict[str, Any]:
    return server_side_apply(
        live, configuration, schema=SCHEMA, manager=manager, api_version="v1", time=time,
        ignored=("status",), **more,
    )  # fmt: skip


def update(old: Any, new: dict[str, Any], manager: str = "hub", time: str = "T9", **more: Any) -> dict[str, Any]:
    new = copy.deepcopy(new)
    track_update(old, new, schema=SCHEMA, manager=manager, api_version="v1", time=time, **more)
    return new


def owners(obj: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {
        (entry["manager"], entry["operation"]): entry["fieldsV1"] for entry in obj["metadata"].get("managedFields", ())
    }


def test_the_first_apply_creates_and_owns_what_it_names() -> None:
    made = apply(None, node({"labels": {"a": "b"}}, spec={"podCIDR": "x"}, status={}))

    assert made["spec"] == {"podCIDR": "x"}
    assert made["metadata"]["managedFields"] == [
        {
            "manager": "kubectl",
            "operation": "Apply",
            "apiVersion": "v1",
            "time": "T1",
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}, "f:spec": {"f:podCIDR": {}}},
        }
    ]


def test_applying_the_same_again_changes_nothing_at_all() -> None:
    configuration = node({"labels": {"a": "b"}}, spec={"podCIDR": "x"})
    made = apply(None, configuration)

    assert apply(made, configuration, time="T2") == made


def test_what_is_not_applied_any_more_goes_unless_another_owns_it() -> None:
    made = apply(None, node({"labels": {"a": "1", "b": "2"}}, spec={"podCIDR": "x", "providerID": "p"}))
    shared = apply(made, node(spec={"providerID": "p"}), manager="other")

    after = apply(shared, node({"labels": {"b": "2"}}), time="T2")

    assert after["metadata"]["labels"] == {"b": "2"}
    assert after["spec"] == {"providerID": "p"}
    assert owners(after)["kubectl", "Apply"] == {"f:metadata": {"f:labels": {"f:b": {}}}}


def test_a_struct_that_loses_its_last_field_goes_too() -> None:
    made = apply(None, node({"labels": {"a": "1"}}, spec={"podCIDR": "x"}))

    after = apply(made, node())

    assert "spec" not in after
    assert "labels" not in after["metadata"]


def test_a_conflict_names_manager_and_field() -> None:
    made = apply(None, node(spec={"podCIDR": "x"}), manager="first")

    with pytest.raises(ApplyConflict) as caught:
        apply(made, node(spec={"podCIDR": "y"}), manager="second")

    assert str(caught.value) == 'Apply failed with 1 conflict: conflict with "first": .spec.podCIDR'
    assert caught.value.causes == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "first"', "field": ".spec.podCIDR"}
    ]


def test_several_conflicts_are_listed_by_manager() -> None:
    made = apply(None, node({"labels": {"a": "1"}}, spec={"podCIDR": "x"}), manager="first")
    made = update(made, {**made, "spec": {**made["spec"], "providerID": "p"}})

    with pytest.raises(ApplyConflict) as caught:
        apply(made, node({"labels": {"a": "2"}}, spec={"podCIDR": "y", "providerID": "q"}), manager="second")

    assert str(caught.value) == (
        'Apply failed with 3 conflicts: conflicts with "first":\n- .metadata.labels.a\n- .spec.podCIDR\n'
        'conflicts with "hub" using v1:\n- .spec.providerID'
    )


def test_the_same_value_is_no_conflict_but_shared() -> None:
    made = apply(None, node(spec={"podCIDR": "x"}), manager="first")

    after = apply(made, node(spec={"podCIDR": "x"}), manager="second")

    assert owners(after)["first", "Apply"] == owners(after)["second", "Apply"] == {"f:spec": {"f:podCIDR": {}}}


def test_an_applier_changes_its_own_value_without_conflict() -> None:
    made = apply(None, node(spec={"podCIDR": "x"}))

    assert apply(made, node(spec={"podCIDR": "y"}))["spec"] == {"podCIDR": "y"}


def test_force_takes_the_field_over() -> None:
    made = apply(None, node(spec={"podCIDR": "x", "providerID": "p"}), manager="first")

    after = apply(made, node(spec={"podCIDR": "y"}), manager="second", force=True)

    assert after["spec"] == {"podCIDR": "y", "providerID": "p"}
    assert owners(after)["first", "Apply"] == {"f:spec": {"f:providerID": {}}}


def test_a_list_item_is_owned_by_its_keys() -> None:
    conditions = [{"type": "Ready", "status": "True"}]
    live = node(status={"conditions": [{"type": "Disk", "status": "False"}]})

    after = server_side_apply(
        live, node(status={"conditions": conditions}), schema=SCHEMA, manager="m", api_version="v1", time="T1",
        subresource="status", ignored=("spec", "metadata"),
    )  # fmt: skip

    assert [item["type"] for item in after["status"]["conditions"]] == ["Disk", "Ready"]
    entry = next(entry for entry in after["metadata"]["managedFields"] if entry["manager"] == "m")
    assert entry["subresource"] == "status"
    assert entry["fieldsV1"] == {
        "f:status": {"f:conditions": {'k:{"type":"Ready"}': {".": {}, "f:status": {}, "f:type": {}}}}
    }


def test_an_object_without_owners_gets_one_for_what_was_there_before_the_first_apply() -> None:
    live = node({"uid": "u", "resourceVersion": "5"}, spec={"podCIDR": "x"})

    after = apply(live, node({"labels": {"a": "b"}}))

    assert owners(after)["before-first-apply", "Update"] == {"f:spec": {"f:podCIDR": {}}}


def test_a_kubectl_that_comes_from_client_side_apply_has_no_conflict_with_itself() -> None:
    old = json.dumps(node({"annotations": {}}, spec={"podCIDR": "x"}))
    live = update(None, node({"annotations": {LAST_APPLIED: old}}, spec={"podCIDR": "x"}), "kubectl-client-side-apply")

    after = apply(live, node(spec={"podCIDR": "y"}))

    assert after["spec"] == {"podCIDR": "y"}
    applied = json.loads(after["metadata"]["annotations"][LAST_APPLIED])
    assert applied["spec"] == {"podCIDR": "y"}
    with pytest.raises(ApplyConflict):
        apply(live, node(spec={"podCIDR": "y"}), manager="somebody")


@pytest.mark.parametrize(
    ("configuration", "problem"),
    [
        (node(spec={"foo": 1}), r"failed to create typed patch object \(/n; v1, Kind=Node\): \.spec\.foo: field not"),
        (node(foo=1, bar=2), r"errors:\n  \.foo: field not declared in schema\n  \.bar"),
        (node({"managedFields": [{}]}), "must be nil"),
        ({**node(), "apiVersion": "v2"}, "Incorrect version specified in apply patch"),
    ],
)
def test_a_configuration_that_cannot_be_applied_is_refused(configuration: Any, problem: str) -> None:
    with pytest.raises(InvalidApply, match=problem):
        apply(None, configuration)


def test_a_create_is_tracked_without_what_the_server_sets() -> None:
    made = update(None, node({"uid": "u", "creationTimestamp": "T", "labels": {"a": "b"}}, spec={"podCIDR": "x"}))

    assert owners(made)["hub", "Update"] == {
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {".": {}, "f:podCIDR": {}},
    }


def test_an_update_takes_what_it_changes_and_leaves_the_rest() -> None:
    made = update(None, node(spec={"podCIDR": "x", "providerID": "p"}), "creator", "T1")

    after = update(made, {**made, "spec": {"podCIDR": "y"}}, "changer", "T2")

    assert owners(after)["changer", "Update"] == {"f:spec": {"f:podCIDR": {}}}
    # What was removed has no owner any more, what another changed has another one.
    assert "podCIDR" not in json.dumps(owners(after)["creator", "Update"])
    assert "providerID" not in json.dumps(owners(after)["creator", "Update"])


def test_an_update_that_changes_nothing_keeps_every_time() -> None:
    made = update(None, node(spec={"podCIDR": "x"}), time="T1")

    assert update(made, made, time="T2") == made


def test_subresources_are_tracked_apart() -> None:
    made = update(None, node(spec={"podCIDR": "x"}))

    after = update(made, {**made, "status": {"phase": "x"}}, subresource="status", ignored=("spec", "metadata"))

    entries = {entry.get("subresource", ""): entry["fieldsV1"] for entry in after["metadata"]["managedFields"]}
    assert entries["status"] == {"f:status": {".": {}, "f:phase": {}}}


def test_managed_fields_sent_by_a_client_are_taken_and_nonsense_is_not() -> None:
    made = update(None, node(spec={"podCIDR": "x"}))
    renamed = copy.deepcopy(made)
    renamed["metadata"]["managedFields"][0].update(manager="kubectl", operation="Apply")
    broken = copy.deepcopy(made)
    broken["metadata"]["managedFields"] = [{"manager": "x", "operation": "Update", "fieldsV1": {"nonsense": {}}}]

    assert ("kubectl", "Apply") in owners(update(made, renamed))
    assert owners(update(made, broken)) == owners(made)


def test_tracking_can_be_reset_and_stays_off() -> None:
    made = update(None, node(spec={"podCIDR": "x"}))
    reset = copy.deepcopy(made)
    reset["metadata"]["managedFields"] = [{}]

    untracked = update(made, reset)

    assert "managedFields" not in untracked["metadata"]
    assert "managedFields" not in update(untracked, {**untracked, "spec": {"podCIDR": "y"}})["metadata"]


def test_many_updaters_do_not_fill_the_object() -> None:
    obj = update(None, node({"labels": {"l0": "x"}}), "m-00", "T00")
    for i in range(1, 40):
        labels = {**obj["metadata"].get("labels", {}), f"l{i}": "x"}
        obj = update(obj, node({**obj["metadata"], "labels": labels}), f"m-{i:02}", f"T{i:02}")

    managers = [entry["manager"] for entry in obj["metadata"]["managedFields"]]
    assert len(managers) <= 10
    assert "ancient-changes" in managers
    assert "m-39" in managers


words = st.sampled_from("xyz")
configurations = st.builds(
    lambda labels, finalizers, spec, conditions: node(
        {"labels": labels, "finalizers": finalizers}, spec=spec, status={"conditions": conditions}
    ),
    st.dictionaries(st.sampled_from("abc"), words, min_size=1),
    st.lists(st.sampled_from(["a/1", "a/2", "a/3"]), unique=True, min_size=1),
    st.dictionaries(st.sampled_from(["podCIDR", "providerID"]), words, min_size=1),
    st.lists(
        st.builds(lambda kind, status: {"type": kind, "status": status}, st.sampled_from("PQ"), words),
        unique_by=lambda item: item["type"],
        min_size=1,
    ),
)
NOBODYS = {".apiVersion", ".kind", ".metadata.name"}


@given(st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), configurations), min_size=1, max_size=6))
def test_after_any_applies_the_object_is_what_its_owners_own(steps: list[tuple[str, dict[str, Any]]]) -> None:
    live: dict[str, Any] | None = None
    for manager, configuration in steps:
        live = server_side_apply(
            live, configuration, schema=SCHEMA, manager=manager, api_version="v1", time="T", force=True
        )
        assert typed.merge(live, configuration, SCHEMA) == live
        plain = {**live, "metadata": {key: value for key, value in live["metadata"].items() if key != "managedFields"}}
        there = set(typed.to_set(plain, SCHEMA).paths())
        owned: set[str] = set()
        for entry in live["metadata"]["managedFields"]:
            owned |= set(FieldSet.from_v1(entry["fieldsV1"]).paths())
        assert owned <= there
        assert there - owned <= NOBODYS
