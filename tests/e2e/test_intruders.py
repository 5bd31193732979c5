"""A node that turns against its hub, and strangers: a real `cloudhub standalone`, real TLS, and what it costs the hub.

The intruder, mallory, joined as any node does. What is bounded is checked from outside: the process's memory, its
descriptors, its log, and whether it still serves others meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.e2e.processes import Cloud, eventually, node_entry
from tests.e2e.test_failures import job
from tests.simulator import Fleet

pytestmark = pytest.mark.e2e

IMAGE = "registry.example:5000/app:v1"
PASSWORD = "pass1234-of-the-registry"
PROJECT = "e632aba927ea4ac2b575ec1603d56f10"
MIB = 1 << 20
ELSEWHERE = ("127.0.0.2", 0)
"""The address that strangers come from."""
METRICS_PEERS = 32 + 96
"""Who may be connected to /metrics at a time."""


@dataclass
class Ground:
    cloud: Cloud
    fleet: Fleet
    contexts: dict[str, ssl.SSLContext]

    def session(self, node: str, *, as_node: str = "", **more: Any) -> connect:
        """A session of ``node`` with its certificate; ``as_node`` is whom it says that it is."""
        name = as_node or node
        return connect(
            f"wss://127.0.0.1:{self.cloud.websocket_port}/{PROJECT}/{name}/events",
            ssl=self.contexts[node],
            additional_headers={"node_id": name, "project_id": PROJECT, "ConnectionUse": "msg"},
            compression=None,
            proxy=None,
            ping_interval=None,
            open_timeout=60,
            close_timeout=0.5,
            **more,
        )

    @property
    def api_port(self) -> int:
        endpoints = json.loads((self.cloud.data_dir / "endpoints.json").read_text())
        return int(endpoints["api"].rpartition(":")[2])

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.cloud.program.pid)

    async def count(self, metric: str) -> float:
        lines = (await self.cloud.monitor("/metrics"))[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))

    async def serves(self) -> None:
        """A node joins, and gets a session, from another address than the strangers'."""
        self.contexts["visitor"] = await self.fleet.join("visitor")
        async with self.session("visitor"):
            assert (await self.cloud.monitor("/readyz"))[0] == 200


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ground() -> AsyncIterator[Ground]:
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:
        cloud = Cloud(Path(folder))
        await cloud.start()
        fleet = Fleet(
            websocket_port=cloud.websocket_port,
            https_port=cloud.https_port,
            token=await cloud.token(),
            files=Path(folder),
        )
        contexts = {name: await fleet.join(name) for name in ("mallory", "edge-1")}
        contexts["nobody"] = ssl.create_default_context()
        contexts["nobody"].check_hostname, contexts["nobody"].verify_mode = False, ssl.CERT_NONE
        yield Ground(cloud, fleet, contexts)
        assert await cloud.program.stop() == 0, cloud.program.tail()


async def say(link: ClientConnection, **route: Any) -> str:
    header = {"msg_id": str(uuid.uuid4()), "timestamp": 1764000000000, "sync": False}
    content = route.pop("content", None)
    await link.send(json.dumps({"header": header, "route": route, "content": content}))
    return header["msg_id"]  # type: ignore[return-value]


async def report(link: ClientConnection, resource: str, action: str, *, good: bool = True) -> None:
    images = json.dumps([{"image": IMAGE, "status": str(good), "reason": ""}]) if action == "Pull" else ""
    content = {"action": action, "succ": good, "finishTime": "2026-01-02T03:04:05Z", "reason": "", "extend": images}
    await say(
        link, source="websocket", group="hub", resource=resource, operation="UpdateNodeActionStatus", content=content
    )


async def ask(link: ClientConnection, secret: str) -> dict[str, Any]:
    query = await say(link, source="edged", group="meta", resource=secret, operation="query")
    while True:
        answer: dict[str, Any] = json.loads(await asyncio.wait_for(link.recv(), 60))
        if answer["header"].get("parent_msg_id") == query:
            return answer


async def told(link: ClientConnection, operation: str) -> dict[str, Any]:
    """The next message of this operation; the Secret that is pushed before a task is one of another."""
    while True:
        message: dict[str, Any] = json.loads(await asyncio.wait_for(link.recv(), 60))
        if message["route"]["operation"] == operation:
            return message


async def test_a_node_gets_no_session_under_another_name(ground: Ground) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await ground.session("mallory", as_node="edge-1")
    assert caught.value.response.status_code == 403
    assert b"the certificate is of 'mallory'" in (caught.value.response.body or b"")


async def test_a_node_says_nothing_of_tasks_that_are_not_its_own_and_reads_no_secret_of_theirs(
    ground: Ground,
) -> None:
    await ground.cloud.kubectl(
        "create", "secret", "docker-registry", "private", "--docker-server=registry.example:5000",
        "--docker-username=tiger", f"--docker-password={PASSWORD}",
    )  # fmt: skip
    async with ground.session("edge-1") as victim, ground.session("mallory") as mallory:
        await ground.cloud.apply(job("private", [IMAGE], ["edge-1"], imageSecrets="default/private"))
        resource = (await told(victim, "Check"))["route"]["resource"]

        answer = await ask(mallory, "default/secret/private")
        assert (answer["route"]["operation"], PASSWORD in json.dumps(answer)) == ("error", False)
        for where in (resource, resource.replace("/node/edge-1", "/node/mallory")):
            await report(mallory, where, "Check")
            await report(mallory, where, "Pull", good=False)

        async def refused() -> bool:
            foreign = await ground.count('cloudhub_refusals_total{reason="foreign_node"}')
            unknown = await ground.count('cloudhub_refusals_total{reason="unknown_task"}')
            return foreign >= 2 and unknown >= 2

        await eventually("mallory's reports are refused", refused)
        entry = node_entry(await ground.cloud.until("private", lambda status: bool(status.get("status"))), "edge-1")
        assert entry["nodeStatus"]["state"] in ("Init", "Checking"), entry

        assert (await ask(victim, "default/secret/private"))["route"]["operation"] == "response"
        await report(victim, resource, "Check")
        await report(victim, resource, "Pull")
        status = await ground.cloud.finished("private")
        assert (status["state"], status["counts"]["total"]) == ("Successful", 1)
        assert (await ask(victim, "default/secret/private"))["route"]["operation"] == "error"
    assert PASSWORD not in ground.cloud.program.log.read_text()


async def _silent(ground: Ground) -> None:
    """Connections that say nothing, and some that stop in the middle of TLS or of HTTP."""
    with contextlib.ExitStack() as stack:
        hello = _client_hello()
        ports = (ground.cloud.websocket_port, ground.cloud.https_port, ground.api_port, ground.cloud.metrics_port)
        for number in range(1200):
            port = ports[number % len(ports)]
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), source_address=ELSEWHERE))
            with contextlib.suppress(ConnectionError):  # whom the hub turned away already
                peer.sendall(hello[: len(hello) * (number % 3) // 2])
        await ground.serves()
        assert "edge-1" in await ground.cloud.kubectl("get", "nodes")
        open_ones = [link.laddr.port for link in ground.process.net_connections("tcp") if link.raddr]
        assert open_ones.count(ground.cloud.metrics_port) <= METRICS_PEERS


async def _headers_without_end(ground: Ground) -> None:
    contexts = {
        ground.cloud.websocket_port: ground.contexts["mallory"],
        ground.cloud.https_port: ground.contexts["nobody"],
        ground.api_port: ground.contexts["nobody"],
        ground.cloud.metrics_port: None,
    }
    for port, context in contexts.items():
        for _ in range(50):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, local_addr=ELSEWHERE)
                writer.write(b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * MIB)
                with contextlib.suppress(OSError):
                    await writer.drain()
                writer.transport.abort()
    await ground.serves()


async def _messages(ground: Ground) -> None:
    """As fast as it can: questions for Secrets, reports of a megabyte, and pings; and it never reads."""
    async with ground.session("mallory", local_addr=ELSEWHERE, max_queue=1) as link:
        link.transport.pause_reading()
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(3):
                while not link.transport.is_closing():
                    for _ in range(20):
                        await say(link, source="edged", group="meta", resource="a/secret/b", operation="query")
                    await say(
                        link, source="websocket", group="hub", resource="x", operation="UpdateNodeActionStatus",
                        content="y" * 1000 * 1000,
                    )  # fmt: skip
                    await link.ping()
                    await asyncio.sleep(0)
        await ground.serves()
        link.transport.abort()


async def _coming_and_going(ground: Ground) -> None:
    opened = 0
    with contextlib.suppress(InvalidStatus):
        for _ in range(100):
            async with ground.session("mallory", local_addr=ELSEWHERE):
                opened += 1
    assert opened < 60
    await ground.serves()


async def _bodies_without_end(ground: Ground) -> None:
    """To those who serve operators, as much as they take in a second."""

    async def one(port: int, context: ssl.SSLContext | None) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, local_addr=ELSEWHERE)
            writer.write(b"POST /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n")
            async with asyncio.timeout(1):
                while True:
                    writer.write(b"x" * MIB)
                    await writer.drain()
        writer.transport.abort()

    await asyncio.gather(
        *(one(ground.cloud.metrics_port, None) for _ in range(10)),
        *(one(ground.api_port, ground.contexts["nobody"]) for _ in range(10)),
    )
    await ground.serves()


async def _scrapes(ground: Ground) -> None:
    """As many as it can, and reads none."""
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            peer = stack.enter_context(
                socket.create_connection(("127.0.0.1", ground.cloud.metrics_port), source_address=ELSEWHERE)
            )
            with contextlib.suppress(ConnectionError):
                peer.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        await ground.serves()


async def _joins(ground: Ground) -> None:
    head = b"GET /edge.crt HTTP/1.1\r\nHost: x\r\nNodeName: edge-1\r\nAuthorization: Bearer a.b.c\r\n"

    async def one(number: int) -> None:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", ground.cloud.https_port, ssl=ground.contexts["nobody"], local_addr=ELSEWHERE
            )
            writer.write(head + (b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000 if number % 2 else b"\r\n"))
            await reader.read()
            writer.close()

    await asyncio.gather(*(one(number) for number in range(150)))
    assert await ground.count('cloudhub_joins_refused_total{reason="token"}') >= 150
    await ground.serves()


@pytest.mark.parametrize(
    "attack",
    [_silent, _headers_without_end, _bodies_without_end, _scrapes, _messages, _coming_and_going, _joins],
    ids=lambda attack: attack.__name__,
)
async def test_a_flood_costs_little_and_keeps_nobody_out(
    ground: Ground, attack: Callable[[Ground], Awaitable[None]]
) -> None:
    memory, log = ground.process.memory_info().rss, ground.cloud.program.log.stat().st_size
    async with asyncio.timeout(120):
        await attack(ground)
    assert ground.process.memory_info().rss - memory < 100 * MIB
    assert ground.cloud.program.log.stat().st_size - log < 8 * MIB
    assert "Traceback" not in ground.cloud.program.log.read_text()
    assert (await ground.cloud.monitor("/readyz"))[0] == 200


async def test_what_a_flood_took_is_given_back(ground: Ground) -> None:
    async def quiet() -> bool:
        return await asyncio.to_thread(ground.process.num_fds) < 150

    await eventually("descriptors are given back", quiet, within=90)
    assert await ground.count("cloudhub_sessions ") == 0


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.do_handshake()
    return outgoing.read()
