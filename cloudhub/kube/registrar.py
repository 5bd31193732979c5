"""Node objects for nodes that have none: made when such a node connects, Ready while its session lives.

No kubelet runs on a node that only cloudhub serves, so nobody else speaks for it. Under ``standalone`` this makes
`kubectl get nodes` and label selectors work; under ``run`` it is a setting, and the Node is unschedulable.

Guarantee: a Node that does not carry our annotation is never written to, not even when it takes a name of ours between
two of our requests (each write is for one resourceVersion). What a Node ends up as is the latest state of its session,
however often that changed meanwhile. Work is a set of names, at most one entry a node, done by a few workers, so that
10,000 nodes that connect at once are 10,000 small requests and nothing more; it waits while the API is away.

A Node that is deleted while its session lives stays away until the node connects anew. At a start, Nodes of ours that
have no session get `settle` seconds to connect before they become NotReady.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import structlog

from cloudhub.kube.client import STRATEGIC_MERGE_PATCH, KubeClient
from cloudhub.kube.errors import Conflict
from cloudhub.kube.nodes import MANAGED_ANNOTATION, NODES_PATH, KubeNode, NodeInformer, info_of, node_object
from cloudhub.taskmanager.ports import KubeError, NotFound, SessionInfo, Unavailable
from shared.jobs import EDGE_LABEL
from shared.wire import NodeInfo, rfc3339

log = structlog.get_logger(__name__)

AGENT_LABEL: Final = "node-role.kubernetes.io/agent"
_TRIES: Final = 5
_RETRY: Final = (0.5, 15.0)


class NodeRegistrar:
    """Told of sessions by `session_opened` and `session_closed`; `run` does the work."""

    def __init__(
        self,
        *,
        client: KubeClient,
        nodes: NodeInformer,
        unschedulable: bool,
        workers: int = 4,
        settle: float = 30.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._nodes = nodes
        self._unschedulable = unschedulable
        self._workers = workers
        self._settle = settle
        self._sleep = sleep
        self._now = now
        self._connected: dict[str, NodeInfo | None] = {}
        self._waiting: dict[str, None] = {}
        self._work = asyncio.Event()
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._written: dict[str, KubeNode] = {}
        """What our last write left, until the informer has seen it."""
        self._settled = False
        self._failures = 0
        nodes.on_change(self._node_changed)

    # --- What is told -----------------------------------------------------------------------------------------

    def session_opened(self, session: SessionInfo) -> None:
        self._connected[session.node] = session.info
        self._enqueue(session.node)

    def session_closed(self, session: SessionInfo) -> None:
        self._connected.pop(session.node, None)
        self._enqueue(session.node)

    def managed(self) -> list[str]:
        """Connected nodes whose Node object is ours."""
        return [name for name in self._connected if (node := self._view(name)) is not None and node.managed]

    def _node_changed(self, name: str) -> None:
        node = self._nodes.get(name)
        if node is None or not _before(node, self._written.get(name)):
            self._written.pop(name, None)
        if node is None or not node.managed or self._is_right(node):
            return
        # Someone else wrote its readiness: a node lifecycle controller, or a hub before us.
        if self._settled or name in self._connected:
            self._enqueue(name)

    def _enqueue(self, name: str) -> None:
        if name in self._busy:
            self._again.add(name)  # two workers on one Node could write in the wrong order
            return
        self._waiting[name] = None
        self._work.set()

    # --- The work ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._worker(), name=f"node-registrar-{number}")
            group.create_task(self._settle_down(), name="node-registrar-settle")

    async def _settle_down(self) -> None:
        await self._nodes.synced()
        await self._sleep(self._settle)
        self._settled = True
        for node in self._nodes.list():
            if node.managed and not self._is_right(node):
                self._enqueue(node.name)

    async def _worker(self) -> None:
        await self._nodes.synced()
        while True:
            while not self._waiting:
                self._work.clear()
                await self._work.wait()
            name = next(iter(self._waiting))
            del self._waiting[name]
            self._busy.add(name)
            try:
                await self._attend(name)
            finally:
                self._busy.discard(name)
                if name in self._again:
                    self._again.discard(name)
                    self._enqueue(name)

    async def _attend(self, name: str) -> None:
        """Brings one Node up to date, or arranges for another try."""
        try:
            await self._bring(name)
        except Unavailable as error:
            self._again.add(name)
            if self._failures == 0:
                log.info("Node objects wait for the Kubernetes API", reason=str(error))
            longest = min(_RETRY[1], _RETRY[0] * 2.0 ** min(self._failures, 8))
            self._failures += 1
            await self._sleep(longest)
        except KubeError as error:
            # Not to be mended by trying again: missing rights, or a name that Kubernetes does not take.
            log.warning("the Node object cannot be written", node=name, reason=str(error))
        else:
            self._failures = 0

    async def _bring(self, name: str) -> None:
        node = self._view(name)
        for _ in range(_TRIES):
            if node is None:
                if name not in self._connected:
                    return
                node = await self._create(name)
            elif not node.managed or self._is_right(node):
                return
            else:
                node = await self._patch(node)
        raise Unavailable(f"Node {name} is changed by others all the time")

    def _view(self, name: str) -> KubeNode | None:
        seen, written = self._nodes.get(name), self._written.get(name)
        return written if _before(seen, written) else seen

    def _is_right(self, node: KubeNode) -> bool:
        if node.name not in self._connected:
            return node.ready == "False"
        return node.ready == "True" and node.info == info_of(self._connected[node.name])

    async def _create(self, name: str) -> KubeNode | None:
        try:
            made = await self._client.request("POST", NODES_PATH, body=self._new_node(name))
        except Conflict:
            return await self._fetch(name)  # the informer has not told yet
        log.info("a Node object was made", node=name)
        return self._remember(made)

    async def _patch(self, node: KubeNode) -> KubeNode | None:
        status: dict[str, Any] = {"conditions": [self._condition(node.name, changed=node.ready)]}
        if node.name in self._connected:
            status["nodeInfo"] = node_info(self._connected[node.name])
        body = {"metadata": {"resourceVersion": node.resource_version}, "status": status}
        try:
            answer = await self._client.request(
                "PATCH", f"{_path(node.name)}/status", body=body, content_type=STRATEGIC_MERGE_PATCH
            )
        except (Conflict, NotFound):
            return await self._fetch(node.name)
        return self._remember(answer)

    async def _fetch(self, name: str) -> KubeNode | None:
        self._written.pop(name, None)
        try:
            return _parse(await self._client.request("GET", _path(name)))
        except NotFound:
            return None

    def _remember(self, answer: Mapping[str, Any]) -> KubeNode:
        node = _parse(answer)
        if _before(self._nodes.get(node.name), node):
            self._written[node.name] = node
        return node

    # --- What is written --------------------------------------------------------------------------------------

    def _new_node(self, name: str) -> dict[str, Any]:
        info = self._connected[name] or NodeInfo()
        labels = {
            EDGE_LABEL: "",
            AGENT_LABEL: "",
            "kubernetes.io/hostname": name[:63].rstrip("-."),
            "kubernetes.io/arch": info.architecture,
            "kubernetes.io/os": info.operatingSystem,
        }
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                # A label's value may be empty only where that means something: the roles.
                "labels": {key: value for key, value in labels.items() if value or key.startswith("node-role.")},
                "annotations": {MANAGED_ANNOTATION: "true"},
            },
            "spec": {"unschedulable": True} if self._unschedulable else {},
            "status": {"conditions": [self._condition(name)], "nodeInfo": node_info(info)},
        }

    def _condition(self, name: str, *, changed: str = "") -> dict[str, Any]:
        connected = name in self._connected
        status = "True" if connected else "False"
        now = rfc3339(self._now())
        condition = {
            "type": "Ready",
            "status": status,
            "reason": "SessionLive" if connected else "SessionClosed",
            "message": "the node is connected to cloudhub" if connected else "the node is not connected to cloudhub",
            "lastHeartbeatTime": now,
        }
        if changed != status:
            condition["lastTransitionTime"] = now
        return condition


def _parse(answer: Mapping[str, Any]) -> KubeNode:
    try:
        return node_object(answer)
    except (KeyError, TypeError, AttributeError):
        raise Unavailable("the API answered with something that is no Node") from None


def node_info(info: NodeInfo | None) -> dict[str, str]:
    """status.nodeInfo; the API wants each of its fields, unknown ones empty."""
    known = (info or NodeInfo()).model_dump()
    return {"machineID": "", "systemUUID": "", "bootID": "", "kubeProxyVersion": "", **known}


def _before(node: KubeNode | None, other: KubeNode | None) -> bool:
    """Whether ``other`` is a later version than ``node``."""
    if other is None:
        return False
    if node is None or not node.resource_version.isdigit() or not other.resource_version.isdigit():
        return True
    return int(node.resource_version) < int(other.resource_version)


def _path(name: str) -> str:
    return f"{NODES_PATH}/{quote(name, safe='')}"
