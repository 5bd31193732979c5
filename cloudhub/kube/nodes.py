"""Nodes: the informer. Of each Node only what selecting and registering need is kept, about 1 KB."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cloudhub.kube.client import KubeClient
from cloudhub.kube.informer import Informer
from cloudhub.taskmanager.ports import NodeObject
from shared.wire import NodeInfo

NODES_PATH: Final = "/api/v1/nodes"
MANAGED_ANNOTATION: Final = "cloudhub.kubeedge.io/managed"
"""On Node objects that cloudhub made; only those are ever written to."""

_INFO_FIELDS: Final = tuple(NodeInfo.model_fields)


@dataclass(frozen=True, slots=True)
class KubeNode(NodeObject):
    """A NodeObject and what the registrar wants to know of it."""

    managed: bool = False
    ready: str = ""
    """Status of the Ready condition of a managed Node: True, False, Unknown or nothing."""
    info: tuple[str, ...] = ()
    """nodeInfo of a managed Node, in the order of NodeInfo's fields."""
    resource_version: str = field(default="", compare=False)


def node_object(item: Mapping[str, Any]) -> KubeNode:
    """Raises KeyError or TypeError when it is no object."""
    about = item["metadata"]
    status = item.get("status") or {}
    info = status.get("nodeInfo") or {}
    managed = MANAGED_ANNOTATION in (about.get("annotations") or {})
    return KubeNode(
        name=str(about["name"]),
        # Thousands of Nodes share these few texts.
        labels={sys.intern(key): sys.intern(value) for key, value in (about.get("labels") or {}).items()},
        kubelet_version=sys.intern(str(info.get("kubeletVersion") or "")),
        managed=managed,
        ready=_ready(status) if managed else "",
        info=tuple(sys.intern(str(info.get(name) or "")) for name in _INFO_FIELDS) if managed else (),
        resource_version=str(about["resourceVersion"]),
    )


def info_of(info: NodeInfo | None) -> tuple[str, ...]:
    """As `KubeNode.info`, from what an agent said of itself."""
    return tuple(getattr(info or NodeInfo(), name) for name in _INFO_FIELDS)


def _ready(status: Mapping[str, Any]) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready":
            return str(condition.get("status") or "")
    return ""


class NodeInformer(Informer[KubeNode]):
    """`cloudhub.taskmanager.ports.Nodes`."""

    def __init__(self, *, client: KubeClient, **options: Any) -> None:
        super().__init__(client=client, path=NODES_PATH, convert=node_object, **options)
