"""Simulated edge nodes: they join and hold a session as a stock EdgeCore does, over real sockets, and pull nothing.

A `Fleet` answers each dispatch after a delay of its own choosing and watches from outside how many nodes of each job
are at work at once. It speaks KubeEdge's wire and announces nothing, so what it meets is what an EdgeCore meets; and as
an EdgeCore it comes back after its hub was away, keeps no journal, works on after a lost link, and sends what it found
meanwhile when there is a link again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Container, Sequence
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection, connect

from shared import wire

Answer = Callable[[str, str], bool]
"""Job and node: whether the pull succeeds there."""


RECONNECT_SECONDS = 0.2
"""EdgeCore takes 30 s; nothing that is tested here depends on it."""


def always(_job: str, _node: str) -> bool:
    return True


class _Link:
    """A node's way to its hub, which may be away."""

    def __init__(self) -> None:
        self._socket: ClientConnection | None = None
        self._up = asyncio.Event()

    def is_up(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._up.set()

    def is_down(self) -> None:
        self._socket = None
        self._up.clear()

    async def send(self, message: wire.Message) -> None:
        """Waits for a link. As with EdgeCore, a message whose write fails is lost."""
        await self._up.wait()
        if self._socket is not None:
            with contextlib.suppress(websockets.ConnectionClosed):
                await self._socket.send(wire.encode(message))


class Fleet:
    """Nodes of one hub. ``files`` is a folder for their keys and certificates; ``mute`` nodes answer nothing, as an
    EdgeCore without its taskManager module."""

    def __init__(
        self,
        *,
        websocket_port: int,
        https_port: int,
        token: str,
        files: Path,
        seconds: float = 0.05,
        answer: Answer = always,
        mute: Container[str] = (),
    ) -> None:
        self._websocket_port = websocket_port
        self._https_port = https_port
        self._token = token
        self._files = files
        self._seconds = seconds
        self._answer = answer
        self._mute = mute
        self._at_work: defaultdict[str, set[str]] = defaultdict(set)
        """By job: nodes that were asked and have not come to their end."""
        self._ended: set[tuple[str, str]] = set()
        self.most_in_flight: Counter[str] = Counter()
        self.dispatched: Counter[tuple[str, str]] = Counter()

    async def join(self, name: str) -> ssl.SSLContext:
        """What EdgeCore does with a token (`EH/certificate`): the CA unverified, then a certificate in a GET with a
        body. Gives the context for the WebSocket."""
        base = f"https://127.0.0.1:{self._https_port}"
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
                x509.NameAttribute(NameOID.LOCALITY_NAME, "Hangzhou"),
                x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "Zhejiang"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{name}"),
            ]
        )
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        jwt = self._token.split(".", 1)[1]
        async with aiohttp.ClientSession() as client:
            async with client.get(f"{base}/ca.crt", ssl=False) as response:
                ca = x509.load_der_x509_certificate(await response.read())
            context = ssl.create_default_context(cadata=ca.public_bytes(serialization.Encoding.PEM).decode())
            headers = {"Authorization": f"Bearer {jwt}", "NodeName": name}
            body = csr.public_bytes(serialization.Encoding.DER)
            async with client.get(f"{base}/edge.crt", data=body, headers=headers, ssl=context) as response:
                assert response.status == 200, await response.text()
                certificate = x509.load_der_x509_certificate(await response.read())
        pem = self._files / f"{name}.pem"
        pem.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        context.load_cert_chain(pem)
        return context

    @contextlib.asynccontextmanager
    async def connected(self, names: Sequence[str]) -> AsyncIterator[None]:
        """All of ``names`` joined and connected; their sessions end with the block."""
        contexts = await asyncio.gather(*(self.join(name) for name in names))
        ready = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            sessions = [
                group.create_task(self._session(name, context, ready), name=f"simulated-{name}")
                for name, context in zip(names, contexts, strict=True)
            ]
            for _ in names:
                await ready.acquire()
            try:
                yield
            finally:
                for session in sessions:
                    session.cancel()

    async def _session(self, name: str, context: ssl.SSLContext, ready: asyncio.Semaphore) -> None:
        """One link after another. What the node works on outlives the link on which it was asked."""
        url = f"wss://127.0.0.1:{self._websocket_port}/{wire.DEFAULT_PROJECT_ID}/{name}/events"
        headers = {
            wire.HEADER_NODE_ID: name,
            wire.HEADER_PROJECT_ID: wire.DEFAULT_PROJECT_ID,
            wire.HEADER_CONNECTION_USE: "msg",
        }
        link = _Link()
        async with asyncio.TaskGroup() as tasks:
            while True:
                # The hub may be away (no listener), in the middle of its start, or killed in the middle of anything.
                with contextlib.suppress(OSError, EOFError, websockets.WebSocketException):
                    async with connect(
                        url, ssl=context, additional_headers=headers, compression=None, proxy=None
                    ) as socket:
                        await socket.send(wire.encode(wire.keepalive()))
                        link.is_up(socket)
                        ready.release()
                        async for frame in socket:
                            message = wire.decode(frame)
                            if message.route.operation in (wire.Operation.CHECK, wire.Operation.PULL):
                                tasks.create_task(self._work(link, message), name=f"task-{name}")
                link.is_down()
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _work(self, link: _Link, message: wire.Message) -> None:
        job, node = wire.parse_task_resource(message.route.resource)
        template = wire.Dispatch.model_validate(message.content).imagePrePullTemplate
        self.dispatched[job, node] += 1
        if node in self._mute:
            return
        if (job, node) not in self._ended:
            self._at_work[job].add(node)
            self.most_in_flight[job] = max(self.most_in_flight[job], len(self._at_work[job]))
        await link.send(_report(message, "Check", True, ""))
        if (job, node) not in self._ended:
            await asyncio.sleep(self._seconds)
        succeeded = self._answer(job, node)
        results = [{"image": image, "status": str(succeeded), "reason": ""} for image in template.images]
        # Before the report is sent: the hub may fill the slot as soon as it has read it. A hub that was away asks again
        # for what the node has done meanwhile; that takes no time and no slot.
        self._at_work[job].discard(node)
        self._ended.add((job, node))
        await link.send(_report(message, "Pull", succeeded, json.dumps(results)))


def _report(message: wire.Message, action: str, succeeded: bool, extend: str) -> wire.Message:
    content = {
        "action": action,
        "succ": succeeded,
        "finishTime": wire.rfc3339(datetime.now(UTC)),
        "reason": "",
        "extend": extend,
    }
    return wire.new_message(
        source=wire.Source.WEBSOCKET,
        group=wire.Group.HUB,
        resource=message.route.resource,
        operation=wire.Operation.REPORT,
        content=content,
    )
