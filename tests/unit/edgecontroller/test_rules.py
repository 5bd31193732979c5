"""What a node may write of its Node and Lease, and what is left of a bolder one's words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudhub.edgecontroller.rules import (
    MAX_BYTES,
    MAX_NAMES,
    Refused,
    lease,
    legacy_status,
    new_node,
    own,
    status_patch,
)

EDGE_LABELS = {
    "beta.kubernetes.io/arch": "arm64",
    "beta.kubernetes.io/os": "linux",
    "kubernetes.io/arch": "arm64",
    "kubernetes.io/hostname": "edge-1",
    "kubernetes.io/os": "linux",
    "node-role.kubernetes.io/agent": "",
    "node-role.kubernetes.io/edge": "",
    "node.kubernetes.io/instance-type": "box",
    "topology.kubernetes.io/zone": "west",
    "example.com/rack": "7",
    "team": "web",
}


def node(**about: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "edge-1", "creationTimestamp": None, "labels": EDGE_LABELS} | about,
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "False"}], "capacity": {"cpu": "4"}},
    }


def refused(call: Any, *arguments: Any, **settings: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        call(*arguments, **settings)
    return caught.value


def test_what_a_kubelet_registers_with_is_kept() -> None:
    given = node(annotations={"volumes.kubernetes.io/controller-managed-attach-detach": "true"})
    given["spec"] = {"taints": [{"key": "edge", "effect": "NoSchedule"}], "unschedulable": True, "providerID": "x://1"}
    made = new_node("edge-1", given)
    assert made["metadata"] == {
        "name": "edge-1",
        "labels": EDGE_LABELS,
        "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
    }
    assert made["spec"] == given["spec"]
    assert made["status"] == given["status"]
    assert (made["apiVersion"], made["kind"]) == ("v1", "Node")
    assert new_node("edge-1", json.dumps(given)) == made, "a Go string is the bytes of the document"


def test_the_rest_of_a_new_node_is_left_out() -> None:
    given = node(
        uid="u",
        resourceVersion="7",
        finalizers=["keep/me"],
        ownerReferences=[{"kind": "Node", "name": "other", "uid": "u", "apiVersion": "v1"}],
        namespace="kube-system",
        generateName="x",
        annotations={"cloudhub.kubeedge.io/managed": "true", "mine": "1"},
    )
    given["spec"] = {"configSource": {"configMap": {}}, "podCIDR": "10.0.0.0/8", "externalID": "x", "taints": "none"}
    made = new_node("edge-1", given)
    assert set(made["metadata"]) == {"name", "labels", "annotations"}
    assert made["metadata"]["annotations"] == {"mine": "1"}
    assert made["spec"] == {}


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("node-role.kubernetes.io/control-plane", ""),
        ("node-role.kubernetes.io/edge", "yes"),
        ("node-restriction.kubernetes.io/tenant", "a"),
        ("x.node-restriction.kubernetes.io/tenant", "a"),
        ("kubernetes.io/anything", "a"),
        ("k8s.io/x", "a"),
        ("apps.k8s.io/x", "a"),
        ("evil-node.kubernetes.io/x", "a"),
        ("kubernetes.io/cluster-service", "true"),
    ],
)
def test_labels_that_kubernetes_keeps_for_others_are_refused_by_name(label: str, value: str) -> None:
    error = refused(new_node, "edge-1", node(labels={"team": "web", label: value}))
    assert (error.code, error.reason) == (403, "Forbidden")
    assert label in str(error)
    assert "team" not in str(error)


@pytest.mark.parametrize("label", ["kubelet.kubernetes.io/x", "a.node.kubernetes.io/x", "notkubernetes.io/x", "x"])
def test_labels_that_a_kubelet_may_set_are_not(label: str) -> None:
    assert new_node("edge-1", node(labels={label: "a"}))["metadata"]["labels"] == {label: "a"}


def test_only_the_own_name_will_do() -> None:
    own("edge-1", "edge-1", "Node")
    for call in (
        lambda: own("edge-1", "edge-2", "Node"),
        lambda: new_node("edge-1", node(name="edge-2")),
        lambda: status_patch("edge-1", {"metadata": {"name": "edge-2"}}),
        lambda: lease("edge-1", {"metadata": {"name": "edge-2"}}, new=True),
        lambda: lease("edge-1", {"metadata": {"namespace": "kube-system"}}, new=True),
        lambda: lease("edge-1", {"spec": {"holderIdentity": "edge-2"}}, new=False),
    ):
        assert refused(call).code == 403


def test_of_a_patch_the_status_is_left_and_the_version_that_it_is_meant_for() -> None:
    text = json.dumps(
        {
            "$patch": "replace",
            "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}, "uid": "u", "resourceVersion": "7"},
            "spec": {"taints": [], "unschedulable": False},
            "status": {
                "$setElementOrder/conditions": [{"type": "Ready"}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
    )
    patch = status_patch("edge-1", text)
    assert set(patch) == {"status", "metadata"}
    assert patch["metadata"] == {"uid": "u", "resourceVersion": "7"}
    assert set(patch["status"]) == {"$setElementOrder/conditions", "conditions"}
    assert status_patch("edge-1", "{}") == {"status": {}}


def test_a_lease_is_cut_to_what_a_kubelet_writes() -> None:
    owner = {"apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": "u"}
    given = {
        "metadata": {
            "name": "edge-1",
            "namespace": "kube-node-lease",
            "resourceVersion": "7",
            "uid": "l",
            "finalizers": ["x"],
            "labels": {"a": "b"},
            "ownerReferences": [owner | {"name": "edge-2"}, owner | {"controller": True}, owner],
        },
        "spec": {
            "holderIdentity": "edge-1",
            "leaseDurationSeconds": 40,
            "renewTime": "2026-01-02T03:04:05.000000Z",
            "acquireTime": None,
            "strategy": "x",
        },
    }
    made = lease("edge-1", given, new=False)
    about = {"name": "edge-1", "namespace": "kube-node-lease", "ownerReferences": [owner]}
    assert made["metadata"] == about | {"resourceVersion": "7", "uid": "l"}
    assert set(made["spec"]) == {"holderIdentity", "leaseDurationSeconds", "renewTime"}
    assert lease("edge-1", given, new=True)["metadata"] == about


def test_the_older_status_report_has_gos_names_and_leaves_the_volumes_alone() -> None:
    report = {"UID": "u", "Status": {"phase": "Running", "volumesAttached": []}, "ExtendResources": None}
    assert legacy_status(report) == {"status": {"phase": "Running"}}
    assert refused(legacy_status, {"UID": "u"}).code == 400


@pytest.mark.parametrize("content", [None, 7, [], "", "{", "[]", "null", {"metadata": []}, {"status": "x"}, "[" * 5000])
def test_what_is_no_object_is_refused(content: Any) -> None:
    for call in (new_node, status_patch):
        assert refused(call, "edge-1", content).code == 400


def test_what_is_too_large_or_has_too_many_names_is_refused() -> None:
    large = {"status": {"x": "y" * MAX_BYTES}}
    assert refused(status_patch, "edge-1", large).code == 413
    assert refused(status_patch, "edge-1", json.dumps(large)).code == 413
    many = {f"label-{number}": "x" for number in range(MAX_NAMES + 1)}
    assert refused(new_node, "edge-1", node(labels=many)).code == 400
    assert refused(new_node, "edge-1", node(annotations={"a": 1})).code == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metadata", "name", "labels", "spec", "status", "ownerReferences", "taints", "uid"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=200)
@given(JSON)
def test_whatever_comes_ends_in_an_object_of_the_node_or_is_refused(content: Any) -> None:
    for call in (new_node, status_patch, lambda name, given: lease(name, given, new=True)):
        try:
            made = call("edge-1", content)
        except Refused:
            continue
        assert made.get("metadata", {}).get("name", "edge-1") == "edge-1"
        assert set(made) <= {"apiVersion", "kind", "metadata", "spec", "status"}
