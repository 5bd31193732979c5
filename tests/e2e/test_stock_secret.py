"""A private registry on a stock EdgeCore: its question for the Secret, answered by a hub of its own process.

The node is simulated on a real session; it asks as EdgeCore does, and the answer is read as EdgeCore reads it: the
value of ``.dockerconfigjson`` taken for the runtime's AuthConfig.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.e2e.processes import Cloud
from tests.e2e.test_decisions_live import fleet_of, job

pytestmark = pytest.mark.e2e

NODE = "stock-private"
IMAGE = "registry.example:5000/team/app:v1"


class Session:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._socket.recv())
        return message

    async def say(self, *, source: str, group: str, resource: str, operation: str, content: Any) -> str:
        header = {"msg_id": str(uuid.uuid4()), "timestamp": 1764000000000, "sync": False}
        route = {"source": source, "group": group, "resource": resource, "operation": operation}
        await self._socket.send(json.dumps({"header": header, "route": route, "content": content}))
        return header["msg_id"]  # type: ignore[return-value]

    async def ask(self, resource: str, operation: str = "query", content: Any = None) -> dict[str, Any]:
        """The answer; it comes at once, so it is the next message."""
        query = await self.say(source="edged", group="meta", resource=resource, operation=operation, content=content)
        answer = await self.receive()
        assert answer["header"]["parent_msg_id"] == query
        assert answer["header"]["msg_id"] != query
        assert (answer["route"]["source"], answer["route"]["group"]) == ("edgecontroller", "resource")
        assert answer["route"]["resource"] == resource
        return answer

    async def report(self, resource: str, action: str, extend: str = "") -> None:
        content = {
            "action": action,
            "succ": True,
            "finishTime": "2026-01-02T03:04:05Z",
            "reason": "",
            "extend": extend,
        }
        await self.say(
            source="websocket", group="hub", resource=resource, operation="UpdateNodeActionStatus", content=content
        )


@pytest.fixture
async def session(cloud: Cloud, tmp_path: Path) -> AsyncIterator[Session]:
    fleet = await fleet_of(cloud, tmp_path)
    context = await fleet.join(NODE)
    headers = {"node_id": NODE, "project_id": "e632aba927ea4ac2b575ec1603d56f10", "ConnectionUse": "msg"}
    url = f"wss://127.0.0.1:{cloud.websocket_port}/e632aba927ea4ac2b575ec1603d56f10/{NODE}/events"
    async with connect(url, ssl=context, additional_headers=headers, compression=None, proxy=None) as socket:
        session = Session(socket)
        await session.say(source="websocket", group="resource", resource="node", operation="keepalive", content="ping")
        yield session


async def private_job(cloud: Cloud, name: str) -> None:
    await cloud.kubectl(
        "create", "secret", "docker-registry", f"{name}-secret", "--docker-server=registry.example:5000",
        "--docker-username=tiger", "--docker-password=pass1234",
    )  # fmt: skip
    await cloud.kubectl("create", "secret", "generic", f"{name}-other", "--from-literal=key=pass1234")
    await cloud.apply(job(name, [NODE], images=[IMAGE], imageSecrets=f"default/{name}-secret"))


async def test_the_secret_of_a_running_task_is_answered_as_edgecore_reads_it(cloud: Cloud, session: Session) -> None:
    await private_job(cloud, "private")
    task = await session.receive()
    assert task["content"]["imagePrePullTemplate"]["imageSecrets"] == "default/private-secret"
    answer = await session.ask("default/secret/private-secret")
    assert answer["route"]["operation"] == "response"
    assert answer["header"]["resourceversion"]
    secret = answer["content"]
    assert secret["metadata"]["name"] == "private-secret"
    assert secret["metadata"]["namespace"] == "default"
    assert secret["metadata"]["uid"]
    config = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    auths = config.pop("auths")
    assert config == {
        "username": "tiger",
        "password": "pass1234",
        "server_address": "https://registry.example:5000",
    }
    assert set(auths) == {"registry.example:5000"}
    assert base64.b64decode(auths["registry.example:5000"]["auth"]) == b"tiger:pass1234"

    # EdgeCore's acknowledgement is heard and means nothing; another Secret is not this task's.
    await session.say(
        source="edgecontroller", group="resource", resource="default/secret/private-secret", operation="response",
        content="OK",
    )  # fmt: skip
    refused = await session.ask("default/secret/private-other")
    assert refused["route"]["operation"] == "error"
    assert refused["content"] == "secret default/private-other is of no task that this node runs"

    resource = task["route"]["resource"]
    await session.report(resource, "Check")
    await session.report(resource, "Pull", json.dumps([{"image": IMAGE, "status": "True", "reason": ""}]))
    status = await cloud.finished("private")
    assert status["state"] == "Successful"
    late = await session.ask("default/secret/private-secret")
    assert late["route"]["operation"] == "error"
    assert "pass1234" not in cloud.program.log.read_text()


@pytest.mark.parametrize(
    ("operation", "resource", "content"),
    [
        ("query", "default/secret/never-heard-of", None),
        ("query", "default/configmap/settings", None),
        ("insert", f"null/node/{NODE}", {"metadata": {"name": NODE}}),
        ("patch", f"null/nodepatch/{NODE}", "{}"),
        ("query", f"kube-node-lease/lease/{NODE}", None),
        ("query", "default/secret/" + "x" * 900, None),
        ("query", "kube-system/secret/../../x", None),
    ],
)
async def test_what_is_not_served_is_answered_with_an_error_at_once(
    operation: str, resource: str, content: Any, session: Session
) -> None:
    answer = await session.ask(resource, operation, content)
    assert answer["route"]["operation"] == "error"
    assert isinstance(answer["content"], str)
    assert answer["content"]
