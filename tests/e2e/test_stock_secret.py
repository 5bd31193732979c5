"""Private registries on a stock EdgeCore, with a hub in a process of its own.

The node is simulated on a real session: it keeps the Secret that it is pushed, asks as EdgeCore does, and reads it as
EdgeCore does: the value of ``.dockerconfigjson`` taken for the runtime's AuthConfig. In the walkthrough the runtime is
a real containerd, and the registries are real.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from edgehub.runtime.cri.api_pb2 import AuthConfig, ImageSpec, PullImageRequest, PullImageResponse
from edgehub.runtime.cri.client import CallFailed, CRIClient, Method
from tests.e2e.conftest import PASSWORD, USER
from tests.e2e.processes import Cloud
from tests.e2e.test_decisions_live import fleet_of, job
from tests.parts.containerd import Containerd
from tests.parts.registry import Registry

pytestmark = pytest.mark.e2e

NODE = "stock-private"
IMAGE = "registry.example:5000/team/app:v1"
PULL = Method("/runtime.v1.ImageService/PullImage", PullImageRequest, PullImageResponse)


class Session:
    """``database`` is what EdgeCore keeps of objects."""

    def __init__(self, node: str, socket: ClientConnection) -> None:
        self.node = node
        self._socket = socket
        self.database: dict[str, Any] = {}
        self.kinds: list[str] = []

    async def receive(self) -> dict[str, Any]:
        """The next message that is no push of an object; those are kept, and acknowledged."""
        while True:
            message: dict[str, Any] = json.loads(await self._socket.recv())
            route = message["route"]
            self.kinds.append(route["operation"])
            if route["operation"] != "update":
                return message
            assert (route["source"], route["group"]) == ("edgecontroller", "resource")
            self.database[route["resource"]] = message["content"]
            await self.say(
                source="edgecontroller", group="resource", resource=route["resource"], operation="response",
                content="OK", parent=message["header"]["msg_id"],
            )  # fmt: skip

    async def say(
        self, *, source: str, group: str, resource: str, operation: str, content: Any, parent: str = ""
    ) -> str:
        header = {"msg_id": str(uuid.uuid4()), "timestamp": 1764000000000, "sync": False}
        if parent:
            header["parent_msg_id"] = parent
        route = {"source": source, "group": group, "resource": resource, "operation": operation}
        await self._socket.send(json.dumps({"header": header, "route": route, "content": content}))
        return str(header["msg_id"])

    async def ask(self, resource: str, operation: str = "query", content: Any = None) -> dict[str, Any]:
        """The answer; it comes at once, so it is the next message."""
        query = await self.say(source="edged", group="meta", resource=resource, operation=operation, content=content)
        answer = await self.receive()
        assert answer["header"]["parent_msg_id"] == query
        assert answer["header"]["msg_id"] != query
        assert (answer["route"]["source"], answer["route"]["group"]) == ("edgecontroller", "resource")
        assert answer["route"]["resource"] == resource
        return answer

    async def report(self, resource: str, action: str, extend: str = "", *, succ: bool = True) -> None:
        content = {
            "action": action,
            "succ": succ,
            "finishTime": "2026-01-02T03:04:05Z",
            "reason": "" if succ else "there were some failures when pulling images",
            "extend": extend,
        }
        await self.say(
            source="websocket", group="hub", resource=resource, operation="UpdateNodeActionStatus", content=content
        )

    async def report_v1alpha1(self, name: str, event: str, external: str = "", *, succ: bool = True) -> None:
        content = {
            "NodeName": self.node,
            "State": "",
            "Event": event,
            "Action": "Success" if succ else "Failure",
            "Reason": "",
            "Time": "2026-01-02T03:04:05Z",
            "ExternalMessage": external,
        }
        await self.say(
            source="websocket",
            group="hub",
            resource=f"task/{name}/node/{self.node}",
            operation="prepull",
            content=content,
        )


@contextlib.asynccontextmanager
async def connected(cloud: Cloud, files: Path, node: str) -> AsyncIterator[Session]:
    fleet = await fleet_of(cloud, files)
    context = await fleet.join(node)
    headers = {"node_id": node, "project_id": "e632aba927ea4ac2b575ec1603d56f10", "ConnectionUse": "msg"}
    url = f"wss://127.0.0.1:{cloud.websocket_port}/e632aba927ea4ac2b575ec1603d56f10/{node}/events"
    async with connect(url, ssl=context, additional_headers=headers, compression=None, proxy=None) as socket:
        session = Session(node, socket)
        await session.say(source="websocket", group="resource", resource="node", operation="keepalive", content="ping")
        yield session


@pytest.fixture
async def session(cloud: Cloud, tmp_path: Path) -> AsyncIterator[Session]:
    async with connected(cloud, tmp_path, NODE) as session:
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
    # It was pushed before the task, since from 1.20 on an EdgeCore looks at its own copy first.
    assert session.database == {"default/secret/private-secret": secret}
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


# --- The guide's walkthrough ------------------------------------------------------------------------------------------

VERSIONS = {"v1alpha1": "v1.27.7-kubeedge-v1.16.0", "v1alpha2": "v1.32.10-kubeedge-v1.23.1"}


class Runtime:
    """What EdgeCore does with a task: a real containerd, and the AuthConfig out of its database."""

    def __init__(self, session: Session, client: CRIClient) -> None:
        self._session = session
        self._client = client

    async def serve(self) -> None:
        while True:
            message = await self._session.receive()
            resource, content = message["route"]["resource"], message["content"]
            if message["route"]["operation"] == "prepull":
                await self._v1alpha1(content)
            else:
                template = content["imagePrePullTemplate"]
                if message["route"]["operation"] == "Check":
                    await self._session.report(resource, "Check")
                found = await self._pull(template["images"], template["imageSecrets"])
                results = [{"image": image, "status": str(not why), "reason": why} for image, why in found]
                succ = not any(why for _, why in found)
                await self._session.report(resource, "Pull", json.dumps(results), succ=succ)

    async def _v1alpha1(self, content: dict[str, Any]) -> None:
        name, item = content["TaskID"], content["Item"]
        if content["State"] == "Checking":
            await self._session.report_v1alpha1(name, "Check")
            return
        found = await self._pull(item["Images"], item["Secret"])
        states = [{"image": image, "state": "Failed" if why else "Successful", "reason": why} for image, why in found]
        succ = not any(why for _, why in found)
        await self._session.report_v1alpha1(name, "Pull", json.dumps(states), succ=succ)

    async def _pull(self, images: list[str], secret: str) -> list[tuple[str, str]]:
        auth: dict[str, str] = {}
        if secret:
            namespace, _, name = secret.partition("/")
            kept = self._session.database[f"{namespace}/secret/{name}"]["data"][".dockerconfigjson"]
            document = json.loads(base64.b64decode(kept))
            auth = {key: document[key] for key in ("username", "password", "server_address") if key in document}
        results = []
        for image in images:
            try:
                await self._client.call(
                    PULL, PullImageRequest(image=ImageSpec(image=image), auth=AuthConfig(**auth)), timeout=60
                )
            except CallFailed as failed:
                results.append((image, failed.details))
            else:
                results.append((image, ""))
        return results


async def register(cloud: Cloud, node: str, version: str) -> None:
    """The Node, as edged registers it."""
    labels = {"node-role.kubernetes.io/edge": "", "node-role.kubernetes.io/agent": ""}
    await cloud.apply(json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": labels}}))
    patch = json.dumps({"status": {"nodeInfo": {"kubeletVersion": version}}})
    await cloud.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", patch)


@pytest.fixture(scope="module")
def second_registry(containerd: Containerd) -> Iterator[Registry]:
    with Registry(username="lion", password="roar5678") as registry:
        containerd.trust(registry.address)
        yield registry


@pytest.mark.parametrize("dialect", VERSIONS)
async def test_the_guides_walkthrough_with_private_registries_works_on_a_stock_node(
    dialect: str, cloud: Cloud, containerd: Containerd, registry: Registry, open_registry: Registry,
    second_registry: Registry, tmp_path: Path,
) -> None:  # fmt: skip
    node, name = f"stock-{dialect}", f"walkthrough-{dialect}"
    await register(cloud, node, VERSIONS[dialect])
    images = [
        registry.push_image(f"jilimoxing/{dialect}", tag="nginx").reference,
        second_registry.push_image(f"jilimoxing/{dialect}", tag="nginx").reference,
        open_registry.push_image(f"jilimoxing/{dialect}", tag="nginx").reference,
    ]
    await cloud.kubectl(
        "create", "secret", "docker-registry", f"{name}-one", f"--docker-server={registry.address}",
        f"--docker-username={USER}", f"--docker-password={PASSWORD}",
    )  # fmt: skip
    config = tmp_path / "config.json"
    auths = {
        registry.address: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()},
        second_registry.address: {"username": "lion", "password": "roar5678"},
    }
    config.write_text(json.dumps({"auths": auths}))
    await cloud.kubectl(
        "create", "secret", "generic", f"{name}-two", "--type=kubernetes.io/dockerconfigjson",
        f"--from-file=.dockerconfigjson={config}",
    )  # fmt: skip
    client = CRIClient(socket=str(containerd.socket))
    async with connected(cloud, tmp_path, node) as session:
        serving = asyncio.create_task(Runtime(session, client).serve(), name="edgecore")
        # 1. As the guide has it: one private registry, kubectl's own Secret.
        await cloud.apply(job(f"{name}-one", [node], images=images[:1], imageSecrets=f"default/{name}-one"))
        assert (await cloud.finished(f"{name}-one"))["state"] == "Successful"
        # 2. Two registries that want passwords and one that wants none, in one job.
        await cloud.apply(job(f"{name}-two", [node], images=images, imageSecrets=f"default/{name}-two"))
        status = await cloud.finished(f"{name}-two")
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    await client.close()
    assert status["state"] == "Successful", status
    assert [one["state"] for one in status["status"][0]["imageStatus"]] == ["Successful"] * 3
    listed = containerd.ctr_images()
    for image in images:
        assert image in listed
    expected = {
        "v1alpha1": ["prepull", "update", "prepull", "prepull", "update", "prepull", "update", "prepull", "prepull"],
        "v1alpha2": ["update", "Check", "update", "Check", "update", "Pull", "Pull"],
    }
    assert session.kinds == expected[dialect]
