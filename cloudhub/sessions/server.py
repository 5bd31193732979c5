"""The WebSocket server of nodes: listens, lets in, keeps time, stops.

It is `Sessions` for the taskManager and calls a `SessionListener`. All deadlines of all sessions hang on one task that
wakes once a second. It accepts sockets itself, because bounds on peers that have not proved who they are must hold
before TLS begins (`cloudhub.sessions.admission`).

Guarantees: no peer has a socket without a session beyond the handshake's timeout; whoever gets none is told why by an
HTTP status and a text, or by a close code and a reason. `send` never blocks and never lets one slow node delay another.
After `stop` no socket, task or callback is left.

Limits: one process, one event loop. A message of a node may have `MAX_FRAME_BYTES` and be in the making for one
keepalive interval, so a fleet of hostile *authenticated* nodes could hold nodes times 1 MiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Self

import structlog
from cryptography import x509
from websockets.http11 import Request

from cloudhub.listen.acceptor import AcceptLimits, Acceptor
from cloudhub.listen.ratelimit import RateLimit
from cloudhub.metrics import Metrics
from cloudhub.pki.errors import Refused
from cloudhub.pki.revocation import NothingRevoked, Revoked
from cloudhub.sessions.connection import FEED_SLICE, NodeConnection
from cloudhub.sessions.deadlines import Expiries, ServedTime, Waiting
from cloudhub.sessions.outbox import Outbox
from cloudhub.sessions.protocol import (
    CloseCode,
    Greeting,
    HandshakeRefused,
    SessionRules,
    check_handshake,
    may_send,
)
from cloudhub.sessions.registry import SessionRegistry
from cloudhub.taskmanager.ports import SessionInfo, SessionListener
from shared.wire import MAX_FRAME_BYTES, Message, encode_bytes

SLICE: Final = 64
"""Sessions dealt with before other work gets a turn: closing one costs some 0.2 ms, and the loop is to stall for less
than 200 ms in any case."""
MAX_STEP: Final = 3.0
"""Seconds between two turns of the timer beyond which the hub itself was standing still."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds on what one peer, or all of them, can ask of the hub. Times in seconds."""

    close_timeout: float = 5.0
    """How long a peer may take to answer a close frame."""
    messages_per_second: float = 60.0
    """Of one node; KubeEdge's edges send at most 30 (messageQPS) with bursts of 60."""
    message_burst: int = 300
    """An agent that was offline for long sends what it has in its journal at once."""
    outbox_messages: int = 256
    outbox_bytes: int = 2 * MAX_FRAME_BYTES
    sessions_per_second: float = 0.5
    """Of one node, from the burst on. Each new one is told to all who listen, and has tasks sent again; EdgeCore comes
    back each 5 s, our agents more slowly."""
    session_burst: int = 30
    stock_burst: int = 8
    """Messages at once, and again each second, to a node that is not ours; its queue of 100 drops the oldest."""


class SessionServer:
    """``ssl_context`` must require client certificates of the hub's CA. ``keepalive_interval`` and ``write_timeout``
    are KubeEdge's settings of these names, in seconds. ``revoked`` is asked at each handshake."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        ssl_context: ssl.SSLContext,
        metrics: Metrics,
        listener: SessionListener | None = None,
        keepalive_interval: float = 30.0,
        node_limit: int = 500,
        write_timeout: float = 30.0,
        limits: SessionLimits | None = None,
        accept_limits: AcceptLimits | None = None,
        revoked: Revoked | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if ssl_context.verify_mode is not ssl.CERT_REQUIRED:
            raise ValueError("ssl_context does not require client certificates")
        self.listener = listener
        """Must be set before `start`."""
        self._metrics = metrics
        self._keepalive_interval = keepalive_interval
        self._write_timeout = write_timeout
        self._limits = limits = limits or SessionLimits()
        self._node_limit = node_limit
        self._revoked = revoked or NothingRevoked()
        self._wall_clock = wall_clock
        self._rate = RateLimit(
            per_second=limits.sessions_per_second, burst=limits.session_burst, clock=clock, max_keys=2 * node_limit
        )
        self._sleep = sleep
        self._time = ServedTime(clock, max_step=MAX_STEP)
        self._registry: SessionRegistry[NodeConnection] = SessionRegistry(
            node_limit=node_limit, listener=self._require_listener
        )
        self._acceptor = Acceptor(
            host=host,
            port=port,
            ssl_context=ssl_context,
            limits=accept_limits or AcceptLimits(),
            welcome=self._welcome,
            refused=self._refused,
        )
        self._keepalives: Waiting[NodeConnection] = Waiting()
        self._stalled: Waiting[NodeConnection] = Waiting()
        self._closing: Waiting[NodeConnection] = Waiting()
        self._paced: set[NodeConnection] = set()
        self._expiries: Expiries[NodeConnection] = Expiries()
        self._connections: set[NodeConnection] = set()
        self._losses: deque[tuple[NodeConnection, str]] = deque()
        """Links that are gone and not attended to, and why."""
        self._timer: asyncio.Task[None] | None = None
        self.read_buffer = memoryview(bytearray(FEED_SLICE))
        self._stopping = False
        self._all_over = asyncio.Event()
        """No connection is left, and nothing to hand over. Only of use while stopping."""

    # --- Sessions ---------------------------------------------------------------------------------------------------

    def get(self, node: str) -> SessionInfo | None:
        connection = self._registry.get(node)
        return connection.info if connection is not None else None

    def connected(self) -> Iterable[str]:
        return self._registry.nodes()

    def send(self, node: str, message: Message) -> bool:
        connection = self._registry.get(node)
        if connection is None:
            return False
        operation = message.route.operation
        if not may_send(message.route, connection.info.features):
            log.error("message kept back from a node that does not understand it", node=node, operation=operation)
            return False
        frame = encode_bytes(message)
        if len(frame) > MAX_FRAME_BYTES:
            log.error("message too large to send", node=node, operation=operation, size=len(frame))
            return False
        return connection.send(frame)

    def disconnect(self, node: str, reason: str) -> bool:
        """Ends the node's session, as when it is revoked. False when it has none."""
        connection = self._registry.get(node)
        if connection is None:
            return False
        connection.close(CloseCode.POLICY, reason, "disconnected")
        return True

    # --- Life -------------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        return self._acceptor.port

    async def start(self) -> None:
        self._require_listener()
        self._acceptor.start()
        self._stopping = False
        self._all_over.clear()
        self._timer = asyncio.create_task(self._keep_time(), name="sessions-timer")
        log.info("serving sessions", port=self.port, node_limit=self._node_limit)

    async def stop(self, *, code: int = CloseCode.GOING_AWAY, timeout: float = 5.0) -> None:
        """Closes all sessions with ``code`` (1012 when the hub will be back), within about ``timeout`` seconds."""
        if self._timer is None:
            return
        self._stopping = True
        await self._acceptor.stop()
        await _cancel(self._timer)
        self._timer = None
        self._note_whether_all_over()
        try:
            async with asyncio.timeout(timeout):
                await self._close_all(code)
                await self._all_over.wait()
        except TimeoutError:
            log.warning("sessions cut at stop", count=len(self._connections))
            await self._cut_all()

    async def _cut_all(self) -> None:
        for connection in tuple(self._connections):
            connection.abort()
        await _cancel(*(task for c in self._connections if (task := c.pump_task) is not None))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._all_over.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _close_all(self, code: int) -> None:
        for position, connection in enumerate(tuple(self._connections)):
            connection.close(code, "the hub is stopping", "stop")
            if position % SLICE == SLICE - 1:
                await asyncio.sleep(0)

    # --- Letting in -------------------------------------------------------------------------------------------------

    def _welcome(self, address: str) -> NodeConnection:
        connection = NodeConnection(self)
        self._connections.add(connection)
        return connection

    def abandoned(self, connection: NodeConnection) -> None:
        self._forget(connection)

    def _refused(self, reason: str, address: str, text: str) -> None:
        # Strangers knock all day; their noise is counted, and logged for those who look.
        self._metrics.handshakes_refused_total.count(reason)
        log.debug("handshake failed", address=address, reason=reason, detail=text[:200])

    # --- Owner of connections -----------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return self._time.now

    def greet(self, request: Request, certificate: x509.Certificate | None) -> Greeting:
        try:
            greeting = check_handshake(path=request.path, headers=request.headers, certificate=certificate)
            self._check_admittance(greeting)
        except HandshakeRefused as refused:
            self._metrics.handshakes_refused_total.count(refused.reason)
            log.warning("handshake refused", reason=refused.reason, detail=str(refused))
            raise
        return greeting

    def _check_admittance(self, greeting: Greeting) -> None:
        if self._stopping:
            raise HandshakeRefused(503, "stopping", "the hub is stopping")
        if greeting.expires_at <= self._wall_clock():
            raise HandshakeRefused(401, "certificate", "client certificate has expired")
        try:
            self._revoked.check_certificate(greeting.node, greeting.certificate)
        except Refused as refused:
            raise HandshakeRefused(refused.status, refused.reason, str(refused)) from None
        if not self._rate.allow(greeting.node):
            raise HandshakeRefused(429, "rate", f"node {greeting.node} connects too often; try again later")
        if not self._registry.has_room(greeting.node):
            raise HandshakeRefused(503, "node limit", f"the hub serves its limit of {self._node_limit} nodes already")

    def opened(self, connection: NodeConnection, greeting: Greeting) -> None:
        limits, now = self._limits, self._time.now
        last = self._registry.last(greeting.node)
        connection.begin(
            info=SessionInfo(
                node=greeting.node,
                serial=self._registry.next_serial(),
                features=greeting.features,
                info=greeting.info,
            ),
            rules=SessionRules(
                now=now,
                keepalive_interval=self._keepalive_interval,
                messages_per_second=limits.messages_per_second,
                message_burst=limits.message_burst,
            ),
            outbox=Outbox(
                max_messages=limits.outbox_messages,
                max_bytes=limits.outbox_bytes,
                burst=None if greeting.features else limits.stock_burst,
                now=now,
            ),
            predecessor=last.pump_task if last is not None else None,
        )
        self._keepalives.touch(connection, now)
        self._expiries.add(connection, greeting.expires_at)
        replaced = self._registry.open(connection)
        self._metrics.sessions.set(len(self._registry))
        log.info(
            "session opened",
            node=greeting.node,
            serial=connection.info.serial,
            features=sorted(map(str, greeting.features)),
        )
        if replaced is not None:
            replaced.close(CloseCode.POLICY, "replaced by a newer session of this node", "replaced")

    def kept_alive(self, connection: NodeConnection) -> None:
        self._keepalives.touch(connection, self._time.now)

    def ignored(self, operation: str) -> None:
        self._metrics.messages_ignored_total.count(operation)

    def write_stalled(self, connection: NodeConnection) -> None:
        self._stalled.touch(connection, self._time.now)

    def write_resumed(self, connection: NodeConnection) -> None:
        self._stalled.discard(connection)

    def paced(self, connection: NodeConnection) -> None:
        self._paced.add(connection)

    def closing(self, connection: NodeConnection) -> None:
        self._closing.touch(connection, self._time.now)

    def ended(self, connection: NodeConnection, label: str, reason: str) -> None:
        self._keepalives.discard(connection)
        self._stalled.discard(connection)
        self._expiries.discard(connection)
        self._paced.discard(connection)
        self._registry.ending(connection)
        self._metrics.sessions.set(len(self._registry))
        log.info("session ended", node=connection.info.node, serial=connection.info.serial, cause=label, detail=reason)

    def gone(self, connection: NodeConnection) -> None:
        self._registry.gone(connection)

    def link_lost(self, connection: NodeConnection, reason: str) -> None:
        if not self._losses:
            asyncio.get_running_loop().call_soon(self._attend_losses)
        self._losses.append((connection, reason))

    def _attend_losses(self) -> None:
        try:
            for _ in range(min(SLICE, len(self._losses))):
                connection, reason = self._losses.popleft()
                connection.attend_loss(reason)
        finally:
            if self._losses:
                asyncio.get_running_loop().call_soon(self._attend_losses)

    def lost(self, connection: NodeConnection) -> None:
        self._closing.discard(connection)
        self._stalled.discard(connection)
        self._paced.discard(connection)
        if connection.is_over:
            self._forget(connection)

    def _forget(self, connection: NodeConnection) -> None:
        self._connections.discard(connection)
        self._note_whether_all_over()

    def _note_whether_all_over(self) -> None:
        if self._stopping and not self._connections:
            self._all_over.set()

    async def messages_received(self, session: SessionInfo, messages: Sequence[Message]) -> None:
        await self._require_listener().messages_received(session, messages)

    # --- Time ---------------------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            await self._sleep(1.0)
            try:
                await self.tick()
            except Exception:
                log.exception("session timer failed")

    async def tick(self) -> None:
        """One turn of the timer: ends what is late, lets go on what had to wait."""
        cut_off = self._time.advance()
        if cut_off > 0:
            log.warning("the hub stood still; its nodes are not blamed for it", seconds=round(cut_off, 1))
        self._acceptor.look_again()
        for position, end in enumerate(self._late(self._time.now)):
            if position % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            end()
        paced, self._paced = self._paced, set()
        for position, waiting in enumerate(paced):
            if position % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            waiting.flush()
            waiting.time_passed()

    def _late(self, now: float) -> Iterable[Callable[[], None]]:
        for connection in self._keepalives.due(now - self._keepalive_interval):
            yield connection.time_passed
        for connection in self._expiries.due(self._wall_clock()):
            yield partial(connection.close, CloseCode.POLICY, "client certificate has expired", "expired")
        for connection in self._stalled.due(now - self._write_timeout):
            yield partial(self._cut_stalled, connection)
        for connection in self._closing.due(now - self._limits.close_timeout):
            yield connection.abort

    def _cut_stalled(self, connection: NodeConnection) -> None:
        connection.close(CloseCode.POLICY, f"did not read for {self._write_timeout:g} seconds", "write timeout")
        connection.abort()

    def _require_listener(self) -> SessionListener:
        if self.listener is None:
            raise RuntimeError("the session server has no listener")
        return self.listener


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
