"""The kubelet inside a stock EdgeCore as its hub sees it: the messages that it sends, key for key."""

from __future__ import annotations

import asyncio
import json
import uuid
from copy import deepcopy
from typing import Any

from websockets.asyncio.client import ClientConnection

BOUND = 60.0


class Kubelet:
    """Of one node, over one session. Everything that is asked waits for its answer, as EdgeCore's `SendSync` does."""

    def __init__(self, socket: ClientConnection, node: str) -> None:
        self.socket = socket
        self.node = node
        self.answers: dict[str, dict[str, Any]] = {}

    async def say(
        self, resource: str, operation: str, content: Any = None, *, source: str = "edged", group: str = "meta"
    ) -> str:
        header = {"msg_id": str(uuid.uuid4()), "timestamp": 1764000000000, "sync": False}
        route = {"source": source, "group": group, "operation": operation, "resource": resource}
        await self.socket.send(json.dumps({"header": header, "route": route, "content": content}))
        return str(header["msg_id"])

    async def heard(self, question: str) -> dict[str, Any]:
        """The answer to that question; others that come before are kept for who waits for them."""
        async with asyncio.timeout(BOUND):
            while question not in self.answers:
                message = json.loads(await self.socket.recv())
                self.answers[message["header"]["parent_msg_id"]] = message
        return self.answers.pop(question)

    async def ask(self, resource: str, operation: str, content: Any = None, **route: str) -> dict[str, Any]:
        question = await self.say(resource, operation, content, **route)
        answer = await self.heard(question)
        said = answer["route"]
        assert (said["source"], said["group"], said["resource"]) == ("edgecontroller", "resource", resource)
        return answer

    async def call(self, resource: str, operation: str, content: Any = None) -> tuple[Any, dict[str, Any] | None]:
        """Object and Status of an answer that has both, of which one is null."""
        answer = await self.ask(resource, operation, content)
        assert answer["route"]["operation"] == "response", answer
        assert set(answer["content"]) == {"Object", "Err"}
        found, error = answer["content"]["Object"], answer["content"]["Err"]
        assert (found is None) != (error is None)
        if error is None:
            return found, None
        assert set(error) == {"ErrStatus"}
        assert error["ErrStatus"]["status"] == "Failure"
        return None, error["ErrStatus"]

    # --- What a kubelet does -----------------------------------------------------------------------------------

    async def register(self, **about: Any) -> tuple[Any, dict[str, Any] | None]:
        node = initial_node(self.node)
        node["metadata"] |= about
        return await self.call(f"null/node/{self.node}", "insert", node)

    async def patch(self, patch: dict[str, Any], *, name: str = "") -> tuple[Any, dict[str, Any] | None]:
        return await self.call(f"null/nodepatch/{name or self.node}", "patch", json.dumps(patch))

    async def ready(self) -> tuple[Any, dict[str, Any] | None]:
        return await self.patch(READY)

    async def lease(self, operation: str, content: Any = None, *, name: str = "") -> tuple[Any, dict[str, Any] | None]:
        return await self.call(f"kube-node-lease/lease/{name or self.node}", operation, content)

    def new_lease(self, owner: str = "") -> dict[str, Any]:
        about: dict[str, Any] = {"name": self.node, "namespace": "kube-node-lease", "creationTimestamp": None}
        if owner:
            about["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": owner}]
        spec = {
            "holderIdentity": self.node,
            "leaseDurationSeconds": 40,
            "renewTime": "2026-01-02T03:04:05.000000Z",
        }
        return {"metadata": about, "spec": spec}


def initial_node(name: str) -> dict[str, Any]:
    """As EdgeCore builds it: no kind, Go's empty values."""
    return deepcopy(
        {
            "metadata": {
                "name": name,
                "creationTimestamp": None,
                "labels": {
                    "kubernetes.io/arch": "arm64",
                    "kubernetes.io/hostname": name,
                    "kubernetes.io/os": "linux",
                    "node-role.kubernetes.io/agent": "",
                    "node-role.kubernetes.io/edge": "",
                },
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": {},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "192.0.2.7"}, {"type": "Hostname", "address": name}],
                "allocatable": {"cpu": "4", "memory": "3882Mi", "pods": "110"},
                "capacity": {"cpu": "4", "memory": "3982Mi", "pods": "110"},
                "conditions": [condition("MemoryPressure", "False"), condition("Ready", "False")],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10350}},
                "nodeInfo": {
                    "architecture": "arm64",
                    "bootID": "b",
                    "containerRuntimeVersion": "containerd://1.7.2",
                    "kernelVersion": "6.1.0",
                    "kubeProxyVersion": "",
                    "kubeletVersion": "v1.27.7-kubeedge-v1.16.0",
                    "machineID": "m",
                    "operatingSystem": "linux",
                    "osImage": "Debian GNU/Linux 12",
                    "systemUUID": "s",
                },
            },
        }
    )


def condition(kind: str, status: str) -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": "KubeletReady",
        "message": "as kubelet says",
        "lastHeartbeatTime": "2026-01-02T03:04:05Z",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }


READY = {
    "status": {
        "$setElementOrder/conditions": [{"type": "MemoryPressure"}, {"type": "Ready"}],
        "conditions": [condition("Ready", "True")],
        "$setElementOrder/addresses": [{"type": "InternalIP"}, {"type": "Hostname"}],
    }
}
