"""Nodes and Leases on behalf of the kubelets that reach the API only through the hub.

What is written was checked by `cloudhub.edgecontroller.rules`; here it is brought to the API. A Node that the hub made
(`cloudhub.kube.registrar`) is handed over to the kubelet that speaks for it now: it loses our annotation, so that the
registrar and the keeper of Leases leave it alone from then on, and is schedulable unless the kubelet says otherwise.

managedFields are left out of all that is returned: they can be larger than the rest, and no kubelet wants them.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import structlog

from cloudhub.kube.client import MERGE_PATCH, STRATEGIC_MERGE_PATCH, KubeClient
from cloudhub.kube.errors import Conflict
from cloudhub.kube.nodes import MANAGED_ANNOTATION, NODES_PATH

log = structlog.get_logger(__name__)

LEASES_PATH: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
TIMEOUT: Final = 10.0
"""Seconds for each request; kubelet's own for a Lease."""

Object = dict[str, Any]


class EdgeNodes:
    """`cloudhub.edgecontroller.controller.NodeAPI`. Errors are those of `cloudhub.taskmanager.ports` and `Conflict`."""

    def __init__(self, *, client: KubeClient) -> None:
        self._client = client

    async def create_node(self, node: Object) -> Object:
        """Raises `Conflict` when there is one that is not ours to hand over."""
        name = node["metadata"]["name"]
        try:
            return await self._ask("POST", NODES_PATH, node)
        except Conflict:
            if not _is_ours(await self.get_node(name)):
                raise
        await self._hand_over(name, node)
        return await self._patch(f"{_node(name)}/status", {"status": node["status"]}, STRATEGIC_MERGE_PATCH)

    async def get_node(self, name: str) -> Object:
        return await self._ask("GET", _node(name))

    async def patch_status(self, name: str, patch: Object) -> Object:
        """A strategic merge patch, as a kubelet's."""
        found = await self._patch(f"{_node(name)}/status", patch, STRATEGIC_MERGE_PATCH)
        if not _is_ours(found):
            return found
        # Once more after the handing over: until then the registrar may have written its own view over it.
        await self._hand_over(name)
        return await self._patch(f"{_node(name)}/status", {"status": patch["status"]}, STRATEGIC_MERGE_PATCH)

    async def merge_status(self, name: str, patch: Object) -> Object:
        return await self._patch(f"{_node(name)}/status", patch, MERGE_PATCH)

    async def get_lease(self, name: str) -> Object:
        return await self._ask("GET", _lease(name))

    async def create_lease(self, lease: Object) -> Object:
        return await self._ask("POST", LEASES_PATH, lease)

    async def update_lease(self, lease: Object) -> Object:
        return await self._ask("PUT", _lease(lease["metadata"]["name"]), lease)

    async def _hand_over(self, name: str, node: Object | None = None) -> None:
        about: Object = {"annotations": {MANAGED_ANNOTATION: None}}
        spec: Object = {"unschedulable": None}
        if node is not None:
            about = {"labels": node["metadata"]["labels"], "annotations": node["metadata"]["annotations"]}
            about["annotations"] = about["annotations"] | {MANAGED_ANNOTATION: None}
            spec |= node["spec"]
        await self._patch(_node(name), {"metadata": about, "spec": spec}, MERGE_PATCH)
        log.info("a Node object of ours is the node's own from now on", node=name)

    async def _patch(self, path: str, patch: Object, content_type: str) -> Object:
        return await self._ask("PATCH", path, patch, content_type)

    async def _ask(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Object:
        found = await self._client.request(method, path, body=body, content_type=content_type, timeout=TIMEOUT)
        about = found.get("metadata")
        if isinstance(about, dict):
            about.pop("managedFields", None)
        return found


def _is_ours(node: Object) -> bool:
    return MANAGED_ANNOTATION in (node.get("metadata", {}).get("annotations") or {})


def _node(name: str) -> str:
    return f"{NODES_PATH}/{quote(name, safe='')}"


def _lease(name: str) -> str:
    return f"{LEASES_PATH}/{quote(name, safe='')}"
