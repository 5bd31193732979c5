"""A session server under test, with a clock that only the test moves, and nodes that connect to it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cloudhub.listen.acceptor import AcceptLimits
from cloudhub.metrics import Metrics
from cloudhub.pki.ca import CertificateAuthority
from cloudhub.sessions.server import SessionLimits, SessionServer
from cloudhub.taskmanager.ports import SessionInfo
from shared.wire import MAX_FRAME_BYTES, Message, Operation, encode, keepalive, new_message, task_resource
from tests.integration.certificates import mtls_context, new_ca, node_context

BOUND = 60.0
"""Seconds after which something that was to happen has not."""


@dataclass
class Recorder:
    """A listener that notes what it hears, and can be made to take its time."""

    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    fail: bool = False

    def __post_init__(self) -> None:
        self.gate.set()

    def session_opened(self, session: SessionInfo) -> None:
        self.calls.append(("opened", session.node, session.serial))

    def session_closed(self, session: SessionInfo) -> None:
        self.calls.append(("closed", session.node, session.serial))

    async def messages_received(self, session: SessionInfo, messages: Sequence[Message]) -> None:
        await self.gate.wait()
        # As one that waits for a commit: others get their turn in between.
        await asyncio.sleep(0)
        if self.fail:
            raise ValueError("a fault of the listener")
        self.calls += [("message", session.node, message.content) for message in messages]

    def of(self, what: str) -> list[tuple[str, Any]]:
        return [(node, detail) for kind, node, detail in self.calls if kind == what]


class FakeClock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Hub:
    server: SessionServer
    heard: Recorder
    ca: CertificateAuthority
    clock: FakeClock
    wall: FakeClock
    metrics: Metrics

    def url(self, node: str) -> str:
        return f"wss://127.0.0.1:{self.server.port}/e632aba927ea4ac2b575ec1603d56f10/{node}/events"

    def connect(
        self, node: str, *, context: ssl.SSLContext | None = None, url: str = "", headers: dict[str, str] | None = None
    ) -> connect:
        """As EdgeCore does it, unless ``headers`` says more."""
        sent = {"node_id": node, "project_id": "e632aba927ea4ac2b575ec1603d56f10", "ConnectionUse": "msg"}
        return connect(
            url or self.url(node),
            ssl=context or node_context(self.ca, node),
            additional_headers=sent | (headers or {}),
            compression=None,
            proxy=None,
            ping_interval=None,
            open_timeout=BOUND,
            # A client of which a test has made a bad reader cannot see the hub's answer to its close.
            close_timeout=0.3,
            max_size=MAX_FRAME_BYTES,
        )

    async def pass_time(self, seconds: float) -> None:
        """The timer turns once a second, as it does in a hub that is not standing still."""
        for _ in range(int(seconds)):
            self.clock.seconds += 1.0
            self.wall.seconds += 1.0
            await self.server.tick()

    async def pass_time_until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(BOUND):
            while not condition():
                await self.pass_time(1)
                await asyncio.sleep(0.001)


async def _never(seconds: float) -> None:
    """The timer's sleep: the test turns the timer."""
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def hub(
    *,
    limits: SessionLimits | None = None,
    accept_limits: AcceptLimits | None = None,
    ca: CertificateAuthority | None = None,
    metrics: Metrics | None = None,
    **settings: Any,
) -> AsyncIterator[Hub]:
    ca, heard, metrics = ca or new_ca(), Recorder(), metrics or Metrics()
    clock, wall = FakeClock(), FakeClock()
    wall.seconds = time.time()
    server = SessionServer(
        host="127.0.0.1",
        port=0,
        ssl_context=mtls_context(ca),
        metrics=metrics,
        listener=heard,
        limits=limits,
        accept_limits=accept_limits,
        clock=clock,
        wall_clock=wall,
        sleep=_never,
        **settings,
    )
    async with server:
        yield Hub(server=server, heard=heard, ca=ca, clock=clock, wall=wall, metrics=metrics)


async def eventually(condition: Callable[[], object], what: str = "") -> None:
    """Polls, bounded; for what no event tells of."""
    try:
        async with asyncio.timeout(BOUND):
            while not condition():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"did not happen within {BOUND:g} s: {what or condition}") from None


async def closed(socket: ClientConnection) -> tuple[int, str]:
    """Code and reason with which the hub closed the socket."""
    try:
        async with asyncio.timeout(BOUND):
            while True:
                await socket.recv()
    except ConnectionClosed as error:
        return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")


def report(node: str, content: Any) -> str:
    return encode(
        new_message(
            source="websocket",
            group="hub",
            resource=task_resource("j", node),
            operation=Operation.REPORT,
            content=content,
        )
    )


def dispatch(node: str, content: Any = None) -> Message:
    return new_message(
        source="taskmanager", group="taskmanager", resource=task_resource("j", node), operation="Check", content=content
    )


KEEPALIVE = encode(keepalive())
