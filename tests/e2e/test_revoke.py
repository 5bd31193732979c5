"""`cloudhub revoke` as an operator uses it: a real hub and a real agent, whose machine was stolen and came back."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.e2e.processes import BIN, Cloud, CommandFailed, Node, command, eventually

pytestmark = pytest.mark.e2e


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hub() -> AsyncIterator[Cloud]:
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:
        cloud = Cloud(Path(folder))
        await cloud.start()
        yield cloud
        assert await cloud.program.stop() == 0, cloud.program.tail()


async def revoke(cloud: Cloud, *args: str, code: int = 0) -> str:
    return (await command(BIN / "cloudhub", "revoke", *args, "--data-dir", cloud.data_dir, code=code)).strip()


async def session(cloud: Cloud, context: ssl.SSLContext) -> str:
    """What the hub says to a handshake with edge-1's certificate."""
    url = f"wss://127.0.0.1:{cloud.websocket_port}/e632aba927ea4ac2b575ec1603d56f10/edge-1/events"
    try:
        async with connect(url, ssl=context, additional_headers={"node_id": "edge-1"}, compression=None, proxy=None):
            return "open"
    except InvalidStatus as error:
        return (error.response.body or b"").decode().strip()


async def test_a_stolen_node_is_out_at_once_and_for_good_and_the_name_can_be_used_again(hub: Cloud) -> None:
    node = Node(hub, "edge-1")
    await node.start()
    old_token = await hub.token("--node", "edge-1")
    stolen = _context(node)
    assert await session(hub, stolen) == "open"

    assert (await revoke(hub, "edge-1")).startswith("node edge-1 is revoked; ")
    assert await session(hub, stolen) == "node edge-1 is revoked"

    async def away() -> bool:
        return await node.condition() != "True"

    await eventually("edge-1 is not Ready", away)
    assert await hub.program.stop() == 0
    assert await node.program.stop() == 0
    said = await revoke(hub, "edge-7")
    assert said == "node edge-7 is revoked; no hub runs on this folder now; the next one heeds it"
    await hub.start()
    assert "cloudhub_revoked_nodes 2.0" in (await hub.monitor("/metrics"))[1]
    assert await session(hub, stolen) == "node edge-1 is revoked"

    assert (await revoke(hub, "--undo", "edge-1")).startswith("node edge-1 may join again, with a new token")
    assert "join again with a new token" in await session(hub, stolen)
    with pytest.raises(CommandFailed, match="was revoked after this token was made"):
        await node.join(old_token)
    await node.join()
    await node.start()
    assert "join again with a new token" in await session(hub, stolen)
    assert 'cloudhub_joins_refused_total{reason="revoked"} 1.0' in (await hub.monitor("/metrics"))[1]
    assert await node.program.stop() == 0


def _context(node: Node) -> ssl.SSLContext:
    files = {path.name: path for path in node.folder.rglob("*") if path.suffix in (".crt", ".key")}
    context = ssl.create_default_context(cafile=str(files["rootCA.crt"]))
    context.load_cert_chain(files["server.crt"], files["server.key"])
    return context
