"""The agent under a CloudCore: KubeEdge's messages of both versions, written out as CloudCore sends them, and its
Secrets, asked for as EdgeCore does. The agent is the real process; registry and image store are real."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.edgehub.conftest import NODE
from tests.integration.edgehub.hub import Hub, Session, dispatch, message
from tests.integration.edgehub.test_agent import CHECKED, PULLED, Node, edgehub
from tests.parts.proxy import RegistryProxy
from tests.parts.registry import Registry

USER, PASSWORD = "tiger", "pass1234"


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry(username=USER, password=PASSWORD) as registry:
        yield registry


@pytest.fixture
async def node(hub: Hub, tmp_path: Path) -> AsyncIterator[Node]:
    hub.features = None
    node = Node(hub, tmp_path / "node")
    await node.join()
    text = node.config.read_text()  # the machine's own disk is not the question here
    node.config.write_text(
        text.replace("  taskManager:\n", "  taskManager:\n    limits: {disk: 100}\n    firstReportDelay: 0.3\n")
    )
    await node.start("-m", "edgehub", "run", "--config", str(node.config))
    yield node
    if node.process is not None and node.process.returncode is None:
        assert await node.stop() == 0
    assert PASSWORD not in node.log.read_text()


def secret_of(registry: str) -> dict[str, Any]:
    """As the API server holds what `kubectl create secret docker-registry` makes."""
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    config = {"auths": {registry: {"username": USER, "password": PASSWORD, "auth": auth}}}
    return {
        "metadata": {"name": "my-secret", "namespace": "default", "uid": str(uuid.uuid4()), "resourceVersion": "42"},
        "data": {".dockerconfigjson": base64.b64encode(json.dumps(config).encode()).decode()},
        "type": "kubernetes.io/dockerconfigjson",
    }


def answer(query: dict[str, Any], content: Any, *, operation: str = "response") -> dict[str, Any]:
    return {
        "header": {
            "msg_id": str(uuid.uuid4()),
            "parent_msg_id": query["header"]["msg_id"],
            "timestamp": 1764000000000,
            "resourceversion": "42",
        },
        "route": {
            "source": "edgecontroller",
            "group": "resource",
            "operation": operation,
            "resource": query["route"]["resource"],
        },
        "content": content,
    }


def sent(session: Session, operation: str) -> list[dict[str, Any]]:
    return [message for message in session.messages if message["route"]["operation"] == operation]


async def asked_for_the_secret(hub: Hub, session: Session) -> dict[str, Any]:
    await hub.until(lambda: len(sent(session, "query")) == 1)
    return sent(session, "query")[0]


async def test_a_secret_that_kubectl_made_opens_a_private_registry(hub: Hub, node: Node, registry: Registry) -> None:
    pushed = [registry.push_image(f"team/app{number}", tag="1") for number in range(3)]
    images = [image.reference for image in pushed]
    session = await hub.session()
    await session.tell(dispatch(NODE, *images, uid=None, checkItems=["disk"], imageSecrets="default/my-secret"))
    query = await asked_for_the_secret(hub, session)
    assert query["route"] == {
        "source": "edged",
        "group": "meta",
        "operation": "query",
        "resource": "default/secret/my-secret",
    }
    assert query["content"] is None
    told = answer(query, secret_of(registry.url))
    await session.tell(told)
    await hub.until(lambda: session.outcomes == [CHECKED, PULLED])
    assert len(sent(session, "query")) == 1  # for three images
    (acknowledgement,) = sent(session, "response")
    assert acknowledgement["header"]["parent_msg_id"] == told["header"]["msg_id"]
    assert acknowledgement["route"] == told["route"]
    assert acknowledgement["content"] == "OK"
    code, out, _ = await edgehub("images", "--config", str(node.config), "-o", "json")
    assert (code, {held["id"] for held in json.loads(out)}) == (0, {image.id for image in pushed})


@pytest.mark.parametrize(
    ("operation", "content", "words"),
    [
        ("error", 'secrets "my-secret" not found', 'the hub says: secrets "my-secret" not found'),
        (
            "response",
            {"ErrStatus": {"status": "Failure", "message": "it is forbidden"}},
            "the hub says: it is forbidden",
        ),
        ("response", {"data": {"password": "Zm9v"}, "type": "Opaque"}, "the Secret's type is 'Opaque'"),
        ("response", {"data": {".dockerconfigjson": "%%%"}}, "no base64"),
        ("response", ["no", "object"], "no Secret with data"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_each_images_reason(
    operation: str, content: Any, words: str, hub: Hub, node: Node, registry: Registry
) -> None:
    session = await hub.session()
    images = [f"{registry.address}/team/{name}:1" for name in ("a", "b")]
    await session.tell(dispatch(NODE, *images, uid=None, retryTimes=2, imageSecrets="default/my-secret"))
    query = await asked_for_the_secret(hub, session)
    await session.tell(answer(query, content, operation=operation))
    await hub.until(lambda: session.outcomes == [CHECKED, ("Pull", False)])
    results = json.loads(session.reports[1]["content"]["extend"])
    assert [result["image"] for result in results] == images
    assert all("secret default/my-secret" in result["reason"] and words in result["reason"] for result in results)
    assert len(sent(session, "query")) == 1


async def test_a_session_that_ends_before_the_answer_asks_again_on_the_next(
    hub: Hub, node: Node, registry: Registry
) -> None:
    pushed = registry.push_image("team/again", tag="1")
    session = await hub.session()
    await session.tell(dispatch(NODE, pushed.reference, uid=None, imageSecrets="default/my-secret"))
    await asked_for_the_secret(hub, session)
    await session.socket.close()
    session = await hub.session(2)
    query = await asked_for_the_secret(hub, session)
    await session.tell(answer(query, secret_of(registry.url)))
    await hub.until(lambda: PULLED in session.outcomes)


async def test_the_older_messages_are_answered_one_by_one(hub: Hub, node: Node, registry: Registry) -> None:
    pushed = registry.push_image("team/older", tag="1")
    missing = f"{registry.address}/team/missing:1"
    session = await hub.session()

    async def ask(state: str, item: Any, reports: int) -> dict[str, Any]:
        content = {"TaskID": "example", "Type": "prepull", "State": state, "Item": item}
        await session.tell(message(resource=f"prepull/example/node/{NODE}", operation="prepull", content=content))
        if item and item.get("Secret") and len(sent(session, "query")) < 1:
            query = await asked_for_the_secret(hub, session)
            await session.tell(answer(query, secret_of(registry.url)))
        await hub.until(lambda: len(sent(session, "prepull")) == reports)
        report = sent(session, "prepull")[-1]
        assert report["route"] == {
            "source": "websocket",
            "group": "hub",
            "operation": "prepull",
            "resource": f"task/example/node/{NODE}",
        }
        assert set(report["content"]) == {
            "NodeName",
            "State",
            "Event",
            "Action",
            "Reason",
            "Time",
            "ExternalMessage",
        }
        assert report["content"]["NodeName"] == NODE
        return dict(report["content"])

    def summary(report: dict[str, Any]) -> tuple[str, str]:
        return report["Event"], report["Action"]

    assert summary(await ask("", None, 1)) == ("Init", "Success")
    assert summary(await ask("Checking", {"CheckItem": ["disk"]}, 2)) == ("Check", "Success")
    unknown = await ask("Checking", {"CheckItem": ["moon"]}, 3)
    assert summary(unknown) == ("Check", "Failure")
    assert "moon" in unknown["Reason"]
    assert node.pulls() == []
    pull = {
        "Images": [pushed.reference, missing],
        "NodeName": NODE,
        "Secret": "default/my-secret",
        "RetryTimes": 0,
        "CheckItems": ["disk"],
    }
    report = await ask("Pulling", pull, 4)
    assert summary(report) == ("Pull", "Failure")
    results = json.loads(report["ExternalMessage"])
    assert [(result["image"], result["state"]) for result in results] == [
        (pushed.reference, "Successful"),
        (missing, "Failed"),
    ]
    assert results[1]["reason"]
    wrong = await ask("Dancing", {}, 5)
    assert summary(wrong) == ("Check", "Failure")
    assert "'Dancing' is not known" in wrong["Reason"]
    assert session.reports == []  # nothing of the newer kind


async def test_objects_that_it_is_sent_are_acknowledged_and_nothing_else_is(hub: Hub, node: Node) -> None:
    session = await hub.session()

    def pushed(operation: str, resource: str, content: Any) -> dict[str, Any]:
        return {
            "header": {"msg_id": str(uuid.uuid4()), "timestamp": 1764000000000, "resourceversion": "7"},
            "route": {
                "source": "edgecontroller",
                "group": "resource",
                "operation": operation,
                "resource": resource,
            },
            "content": content,
        }

    update = pushed("update", "default/secret/my-secret", secret_of("https://registry.example"))
    await session.tell(pushed("response", "default/lease/x", "OK"))
    await session.tell(pushed("error", "default/secret/other", "no such secret"))
    await session.tell(update)
    await hub.until(lambda: bool(sent(session, "response")))
    assert [reply["header"]["parent_msg_id"] for reply in sent(session, "response")] == [update["header"]["msg_id"]]


async def test_a_pull_that_takes_long_tells_a_cloudcore_nothing_on_the_way(node: Node, registry: Registry) -> None:
    image = registry.push_image("team/slow", layers=[1 << 20])
    await node.hub.session()
    await node.stop()
    text = node.config.read_text()
    assert text.count("  edgeHub:\n") == text.count("  taskManager:\n") == 1
    node.config.write_text(
        text.replace("  taskManager:\n", "  taskManager:\n    progressInterval: 0.1\n").replace(
            "  edgeHub:\n", "  edgeHub:\n    heartbeat: 0.5\n"
        )
    )
    await node.start("-m", "edgehub", "run", "--config", str(node.config))
    session = await node.hub.session(2)
    async with RegistryProxy(registry.url) as proxy:
        reference = image.reference.replace(registry.address, proxy.address)
        proxy.stall_blobs_after = 1 << 19
        await session.tell(dispatch(NODE, reference, uid=None, imageSecrets="default/slow"))
        await session.tell(answer(await asked_for_the_secret(node.hub, session), secret_of(proxy.address)))
        await proxy.blob_started.wait()
        before = len(session.keepalives)
        # Each second it looks whether there is something to tell.
        await node.hub.until(lambda: len(session.keepalives) >= before + 6, within=60)
        proxy.release()
        await node.hub.until(lambda: PULLED in session.outcomes, within=60)
    operations = {message["route"]["operation"] for message in session.messages}
    assert operations == {"keepalive", "query", "response", "UpdateNodeActionStatus"}
