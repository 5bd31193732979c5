"""Which nodes a job is for, and which of the named ones cannot be served and why. Pure, but for what it is given to
ask.

A named node is served when it has a Node object with the edge label or a live session: an agent that has joined may
have no Node object. Else it gets an entry of its own that has failed from the start, so that the rest of the job goes
on and the user sees which name is wrong. A label selector looks at Node objects with the edge label, since only these
have labels; it is evaluated once, when the job is first seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cloudhub.taskmanager.ports import NodeObject, Nodes
from cloudhub.taskmanager.spec import InvalidSpec, JobSpec, LabelSelector
from shared.jobs import EDGE_LABEL


@dataclass(frozen=True, slots=True)
class Target:
    node: str
    refusal: str = ""
    """Why this node cannot be served; empty when it can."""


def select(spec: JobSpec, *, nodes: Nodes, connected: Callable[[str], bool]) -> tuple[Target, ...]:
    """In the order of ``nodeNames``, or by name. Raises `InvalidSpec` when a selector matches nothing: a job that
    says it succeeded and pulled onto no node would deceive."""
    if spec.label_selector is None:
        return tuple(Target(name, _refusal(name, nodes.get(name), connected)) for name in spec.node_names)
    targets = _matching(spec.label_selector, nodes)
    if not targets:
        raise InvalidSpec(
            "imagePrePullTemplate.labelSelector", f"matches none of the nodes that have the label {EDGE_LABEL}"
        )
    return targets


def _matching(selector: LabelSelector, nodes: Nodes) -> tuple[Target, ...]:
    return tuple(
        Target(name)
        for name in sorted(
            node.name for node in nodes.list() if EDGE_LABEL in node.labels and selector.matches(node.labels)
        )
    )


def _refusal(name: str, node: NodeObject | None, connected: Callable[[str], bool]) -> str:
    if connected(name) or (node is not None and EDGE_LABEL in node.labels):
        return ""
    if node is None:
        return f"there is no Node {name}, and no node of this name is connected"
    return f"Node {name} has no label {EDGE_LABEL}, and is not connected"
