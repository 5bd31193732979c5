"""Which nodes a job is for."""

from __future__ import annotations

import pytest

from cloudhub.taskmanager.selection import Target, select
from cloudhub.taskmanager.spec import InvalidSpec, JobSpec, LabelSelector, Requirement
from tests.integration.taskmanager.world import FakeNodes


@pytest.fixture
def nodes() -> FakeNodes:
    nodes = FakeNodes()
    nodes.add("edge-b", zone="eu")
    nodes.add("edge-a", zone="eu")
    nodes.add("edge-c", zone="us")
    nodes.add("cloud", edge=False, zone="eu")
    return nodes


def _select(nodes: FakeNodes, spec: JobSpec, *connected: str) -> tuple[Target, ...]:
    return select(spec, nodes=nodes, connected=lambda node: node in connected)


def test_named_nodes_are_served_in_their_order(nodes: FakeNodes) -> None:
    spec = JobSpec(images=("i",), node_names=("edge-c", "edge-a"))
    assert _select(nodes, spec) == (Target("edge-c"), Target("edge-a"))


def test_a_node_that_is_connected_needs_no_node_object(nodes: FakeNodes) -> None:
    spec = JobSpec(images=("i",), node_names=("stranger",))
    assert _select(nodes, spec, "stranger") == (Target("stranger"),)


def test_a_name_that_nobody_bears_is_refused_and_the_others_are_served(nodes: FakeNodes) -> None:
    served, refused = _select(nodes, JobSpec(images=("i",), node_names=("edge-a", "nobody")))
    assert served == Target("edge-a")
    assert refused.node == "nobody"
    assert "no Node nobody" in refused.refusal
    assert "connected" in refused.refusal


def test_a_node_without_the_edge_label_is_refused_unless_it_is_connected(nodes: FakeNodes) -> None:
    spec = JobSpec(images=("i",), node_names=("cloud",))
    (refused,) = _select(nodes, spec)
    assert "node-role.kubernetes.io/edge" in refused.refusal
    assert _select(nodes, spec, "cloud") == (Target("cloud"),)


def test_a_selector_takes_edge_nodes_alone_by_name(nodes: FakeNodes) -> None:
    eu = LabelSelector((Requirement("zone", "In", ("eu",)),))
    assert _select(nodes, JobSpec(images=("i",), label_selector=eu)) == (Target("edge-a"), Target("edge-b"))
    everything = JobSpec(images=("i",), label_selector=LabelSelector())
    assert [target.node for target in _select(nodes, everything, "stranger")] == ["edge-a", "edge-b", "edge-c"]


def test_a_selector_that_matches_nothing_is_wrong(nodes: FakeNodes) -> None:
    nowhere = LabelSelector((Requirement("zone", "In", ("moon",)),))
    with pytest.raises(InvalidSpec, match=r"labelSelector.*matches none"):
        _select(nodes, JobSpec(images=("i",), label_selector=nowhere))
