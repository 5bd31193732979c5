"""The agent as a process on real runtimes: containerd, and the built-in store before a slow registry."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgehub.status import read_status
from tests.integration.edgehub.conftest import NODE
from tests.integration.edgehub.hub import Hub, Session, dispatch
from tests.integration.edgehub.test_agent import CHECKED, PULLED, Node, edgehub
from tests.parts.containerd import Containerd
from tests.parts.proxy import RegistryProxy
from tests.parts.registry import Registry

USER, PASSWORD = "tiger", "pass1234"
MIB = 1 << 20
IDLE_LIMIT = 60 * 1000 * 1000


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry(username=USER, password=PASSWORD) as registry:
        yield registry


@pytest.fixture
async def proxy(registry: Registry) -> AsyncIterator[RegistryProxy]:
    async with RegistryProxy(registry.url) as proxy:
        yield proxy


@pytest.fixture
async def node(hub: Hub, tmp_path: Path) -> AsyncIterator[Node]:
    """Not started yet: `_run` says on which runtime."""
    node = Node(hub, tmp_path / "node")
    yield node
    if node.process is not None and node.process.returncode is None:
        await node.kill()


async def _run(node: Node, runtime: str) -> None:
    await node.join(runtime=runtime)
    text = node.config.read_text()  # the machine's own disk is not the question here
    node.config.write_text(text.replace("  taskManager:\n", "  taskManager:\n    limits: {disk: 100}\n"))
    await node.start("-m", "edgehub", "run", "--config", str(node.config))


async def _ask(session: Session, image: str, **options: Any) -> None:
    message = dispatch(NODE, image, checkItems=["disk"], **options)
    message["content"]["task"]["credentials"] = {
        image: {"registry": image.partition("/")[0], "username": USER, "password": PASSWORD}
    }
    await session.tell(message)


async def test_killed_in_the_middle_of_a_slow_transfer_it_ends_with_the_image(
    hub: Hub, node: Node, registry: Registry, proxy: RegistryProxy
) -> None:
    pushed = registry.push_image("team/slow", tag="1", layers=(3 * MIB, MIB))
    image = f"{proxy.address}/team/slow:1"
    await _run(node, "builtin")
    proxy.bytes_per_second = MIB / 2
    session = await hub.session()
    await _ask(session, image)
    status = await node.status_with(
        lambda status: any(item["bytesDone"] > MIB / 2 for task in status["tasks"] for item in task["images"])
    )
    progress = status["tasks"][0]["images"][0]
    assert progress["state"] == "Pulling"
    assert progress["bytesDone"] < progress["bytesTotal"]
    await node.kill()
    await proxy.until_idle()

    proxy.bytes_per_second = None
    await node.start("-m", "edgehub", "run", "--config", str(node.config))
    again = await hub.session(2)
    await _ask(again, image)
    await hub.until(lambda: PULLED in again.outcomes, within=60)
    assert json.loads(again.reports[-1]["content"]["extend"]) == [{"image": image, "status": "True", "reason": ""}]
    code, out, _ = await edgehub("images", "--config", str(node.config), "-o", "json")
    (held,) = json.loads(out)
    assert (code, held["id"]) == (0, pushed.id)
    assert (
        PASSWORD.encode()
        not in b"".join(path.read_bytes() for path in node.folder.glob("journal.db*"))
        + node.log.read_bytes()
        + (node.folder / "status.json").read_bytes()
    )
    assert await node.stop() == 0


async def test_a_cancel_ends_the_transfer_at_the_registry(
    hub: Hub, node: Node, registry: Registry, proxy: RegistryProxy
) -> None:
    registry.push_image("team/stalled", tag="1", layers=(MIB,))
    proxy.stall_blobs_after = 100_000
    await _run(node, "builtin")
    session = await hub.session()
    await _ask(session, f"{proxy.address}/team/stalled:1")
    await proxy.blob_started.wait()
    cancel = dispatch(NODE, "x")
    cancel["route"]["operation"] = "Cancel"
    cancel["content"] = {"job_uid": "uid-1", "attempt": 1}
    await session.tell(cancel)
    async with asyncio.timeout(60):
        await proxy.until_idle()
    assert await node.stop() == 0


async def test_a_wrong_password_is_the_images_reason(hub: Hub, node: Node, registry: Registry) -> None:
    pushed = registry.push_image("team/private", tag="1")
    await _run(node, "builtin")
    session = await hub.session()
    await session.tell(dispatch(NODE, pushed.reference, retryTimes=3, imageSecrets="default/my-secret"))
    await hub.until(lambda: session.outcomes == [CHECKED, ("Pull", False)])
    (result,) = json.loads(session.reports[1]["content"]["extend"])
    assert result["status"] == "False"
    assert "default/my-secret" in result["reason"]
    assert await node.stop() == 0


async def _compiled() -> None:
    """As on a node, where installing compiles: a process that compiles its modules itself is some MB larger."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import edgehub.daemon, edgehub.runtime.cri.runtime"
    )
    assert await process.wait() == 0


@pytest.fixture(scope="module")
def containerd(registry: Registry) -> Iterator[Containerd]:
    with Containerd() as containerd:
        containerd.trust(registry.address)
        yield containerd


async def test_on_containerd_it_pulls_and_is_small_when_idle(
    hub: Hub, node: Node, registry: Registry, containerd: Containerd
) -> None:
    pushed = registry.push_image("team/real", tag="1")
    await _compiled()
    await _run(node, containerd.endpoint)
    session = await hub.session()
    assert json.loads(session.headers["X-Edgehub-Node-Info"])["containerRuntimeVersion"].startswith("containerd://")
    assert node.process is not None
    await node.status_with(lambda status: status["connection"]["connected"])
    idle = psutil.Process(node.process.pid).memory_info().rss
    await _ask(session, pushed.reference)
    await hub.until(lambda: PULLED in session.outcomes, within=60)
    code, out, _ = await edgehub("images", "--config", str(node.config))
    assert code == 0
    assert pushed.reference in out
    after = psutil.Process(node.process.pid).memory_info().rss
    print(f"agent on containerd: {idle / MIB:.1f} MiB idle, {after / MIB:.1f} MiB after a pull")  # noqa: T201
    assert max(idle, after) <= IDLE_LIMIT
    assert await node.stop() == 0


async def test_a_containerd_that_is_killed_during_the_wait_heals(
    hub: Hub, node: Node, registry: Registry, containerd: Containerd
) -> None:
    pushed = registry.push_image("team/heals", tag="1")
    containerd.kill()
    await _run(node, containerd.endpoint)
    session = await hub.session()
    await _ask(session, pushed.reference)
    status = await node.status_with(lambda status: bool(status["tasks"] and status["runtime"]["error"]))
    assert status["tasks"][0]["state"] == "Checking"
    containerd.start()
    await hub.until(lambda: session.outcomes == [CHECKED, PULLED], within=60)
    assert read_status(node.folder)["running"]
    assert await node.stop() == 0
