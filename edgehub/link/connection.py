"""The one session to the hub: connects, keeps alive, hands over what comes, sends what it is given, comes back.

Problem: edge links break silently, hubs restart, and ten thousand nodes must not return in the same second.

Guarantee: `run` goes on until cancelled. After each loss it waits by backoff with full jitter, and the row of waits
starts afresh only after a session that lasted. A dead peer is noticed by unanswered WebSocket pings within heartbeat +
readDeadline, a stuck socket by writeDeadline. Messages are handed to the listener one by one; it is awaited before the
next is read, so a slow listener slows the hub and nothing piles up. A frame that is no message is logged and skipped.
Shapes and headers are KubeEdge's; what we add stands in headers of its own, and ``features`` says what the hub knows.

Not here: no message is kept while the link is down; that is the owner's, who has a journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import random
import ssl
import struct
import termios
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from edgehub.link.errors import IdentityError, NotConnected, tls_problem
from edgehub.link.rules import Backoff, TokenBucket, Uniform
from shared import wire
from shared.wire import Feature, Message, NodeInfo, WireError

log = structlog.get_logger(__name__)

OUR_FEATURES = ",".join((Feature.ACK, Feature.CANCEL, Feature.CREDENTIALS, Feature.PROGRESS))
LASTED = 30.0
"""Seconds after which a session counts as a good one, and the next reconnect need not wait long."""
MAX_NODE_INFO = 1024


class Channel(Protocol):
    """A session as its user sees it."""

    @property
    def features(self) -> frozenset[Feature]: ...
    async def send(self, message: Message) -> None:
        """Returns once the message is handed to the socket. Raises `NotConnected`."""
        ...

    async def offer(self, message: Message) -> bool:
        """Sends it if the link has nothing else to do, else drops it and returns False. Raises `NotConnected`."""
        ...


class Listener(Protocol):
    def connected(self, channel: Channel) -> None: ...
    def disconnected(self) -> None: ...
    async def received(self, message: Message) -> None:
        """Must not raise."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    host: str
    port: int
    node: str
    project_id: str
    heartbeat: float = 15.0
    handshake_timeout: float = 30.0
    read_deadline: float = 15.0
    write_deadline: float = 15.0
    close_timeout: float = 2.0
    first_delay: float = 4.0
    max_delay: float = 60.0
    message_qps: float = 30.0
    message_burst: int = 60

    @property
    def server(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"wss://{self.server}" + wire.WEBSOCKET_PATH.format(project_id=self.project_id, node=self.node)


@dataclass(slots=True)
class LinkState:
    """For `edgehub status`."""

    connected: bool = False
    since: float = field(default_factory=time.time)
    """Wall clock: of the present session, or of its loss."""
    features: frozenset[Feature] = frozenset()
    last_error: str = ""
    failures: int = 0
    ignored_frames: int = 0


class Link:
    """``context`` is called for each attempt, so that a renewed certificate is taken; ``node_info`` likewise."""

    def __init__(
        self,
        *,
        settings: LinkSettings,
        context: Callable[[], ssl.SSLContext],
        node_info: Callable[[], NodeInfo],
        listener: Listener,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        uniform: Uniform = random.uniform,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._context = context
        self._node_info = node_info
        self._listener = listener
        self._sleep = sleep
        self._monotonic = monotonic
        self._changed = changed
        self._backoff = Backoff(first=settings.first_delay, maximum=settings.max_delay, uniform=uniform)
        self._session: _Session | None = None
        self._reconnect_at_once = False
        self.state = LinkState()

    async def run(self) -> None:
        while True:
            self._reconnect_at_once = False
            problem = await self._one_session()
            self._lost(problem)
            if self._reconnect_at_once:
                continue
            delay = self._backoff.next_delay()
            log.warning("no session", server=self._settings.server, reason=problem, retry_in=round(delay, 1))
            await self._sleep(delay)

    async def reconnect(self, reason: str) -> None:
        """Ends the present session and opens the next at once: the certificate is a new one."""
        if self._session is not None:
            log.info("reconnecting", reason=reason)
            self._reconnect_at_once = True
            await self._session.close(reason)

    def _lost(self, problem: str) -> None:
        state = self.state
        if state.connected:
            state.since = time.time()
        state.connected, state.features, state.last_error = False, frozenset(), problem
        state.failures += 1
        self._changed()

    async def _one_session(self) -> str:
        """Connects and serves until it ends; returns why it did."""
        try:
            websocket = await self._open()
        except (OSError, WebSocketException, IdentityError, TimeoutError, ValueError) as error:
            return _why_not(error, self._settings.host)
        session = _Session(websocket=websocket, settings=self._settings, monotonic=self._monotonic)
        started = self._monotonic()
        self._opened(session)
        try:
            return await session.serve(self._deliver)
        finally:
            self._session = None
            self._listener.disconnected()
            if self._monotonic() - started >= LASTED:
                self._backoff.succeeded()

    def _opened(self, session: _Session) -> None:
        self._session = session
        self.state.connected, self.state.since = True, time.time()
        self.state.features, self.state.last_error, self.state.failures = session.features, "", 0
        log.info("session open", server=self._settings.server, features=sorted(map(str, session.features)))
        self._listener.connected(session)
        self._changed()

    async def _open(self) -> ClientConnection:
        settings = self._settings
        info = self._node_info().model_dump_json(exclude_defaults=True)
        headers = {
            wire.HEADER_NODE_ID: settings.node,
            wire.HEADER_PROJECT_ID: settings.project_id,
            wire.HEADER_CONNECTION_USE: "msg",
            wire.HEADER_FEATURES: OUR_FEATURES,
        }
        if info.isascii() and len(info) <= MAX_NODE_INFO:
            headers[wire.HEADER_NODE_INFO] = info
        return await connect(
            settings.url,
            ssl=self._context(),
            additional_headers=headers,
            user_agent_header="edgehub",
            compression=None,
            proxy=None,  # as KubeEdge: HTTPS_PROXY on a node is meant for its runtime's pulls
            open_timeout=settings.handshake_timeout,
            ping_interval=settings.heartbeat,
            ping_timeout=settings.read_deadline,
            close_timeout=settings.close_timeout,
            max_size=wire.MAX_FRAME_BYTES,
        )

    async def _deliver(self, frame: str | bytes) -> None:
        try:
            message = wire.decode(frame)
        except WireError as error:
            self.state.ignored_frames += 1
            log.warning("frame ignored", reason=str(error))
            return
        await self._listener.received(message)


class _Session:
    """One open WebSocket; a `Channel`."""

    def __init__(self, *, websocket: ClientConnection, settings: LinkSettings, monotonic: Callable[[], float]) -> None:
        self._websocket = websocket
        self._settings = settings
        self._monotonic = monotonic
        self._bucket = TokenBucket(rate=settings.message_qps, burst=settings.message_burst)
        response = websocket.response
        self.features = wire.parse_features(response.headers.get(wire.HEADER_FEATURES, "") if response else "")

    async def serve(self, deliver: Callable[[str | bytes], Awaitable[None]]) -> str:
        heart = asyncio.create_task(self._heartbeat(), name="heartbeat")
        try:
            async for frame in self._websocket:
                await deliver(frame)
            return _close_reason(self._websocket)
        except ConnectionClosed:
            return _close_reason(self._websocket)
        finally:
            heart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await heart
            await self.close("")

    async def send(self, message: Message) -> None:
        wait = self._bucket.take(self._monotonic())
        if wait > 0:
            await asyncio.sleep(wait)
        await self._write(message)

    async def offer(self, message: Message) -> bool:
        if not _idle(self._websocket.transport) or not self._bucket.take_spare(self._monotonic()):
            return False
        await self._write(message)
        return True

    async def close(self, reason: str) -> None:
        with contextlib.suppress(OSError, WebSocketException):
            await self._websocket.close(1000, reason[:120])

    async def _heartbeat(self) -> None:
        with contextlib.suppress(NotConnected):
            while True:
                await self._write(wire.keepalive())
                await asyncio.sleep(self._settings.heartbeat)

    async def _write(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._settings.write_deadline):
                await self._websocket.send(wire.encode(message))
        except ConnectionClosed as error:
            raise NotConnected("the session has ended") from error
        except TimeoutError as error:
            # The peer takes nothing any more: a polite close would wait for it in vain.
            self._websocket.transport.abort()
            raise NotConnected(f"the hub took nothing for {self._settings.write_deadline:g} s") from error


def _idle(transport: asyncio.Transport) -> bool:
    """Whether the hub's machine has all that was sent. The transport's own buffer says little: the kernel takes
    hundreds of kilobytes before it fills, which is minutes of a thin line."""
    socket = transport.get_extra_info("socket")
    if transport.get_write_buffer_size() or socket is None:
        return False
    try:
        (unacknowledged,) = struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, b"\0" * 4))
    except (OSError, ValueError):  # it was closed
        return False
    return not unacknowledged


def _close_reason(websocket: ClientConnection) -> str:
    code, reason = websocket.close_code, websocket.close_reason
    if code is None or code == 1006:
        return "the connection broke"
    text = "".join(char if char.isprintable() else " " for char in reason or "")[:200]
    return f"closed with code {code}" + (f": {text}" if text else "")


def _why_not(error: Exception, host: str) -> str:
    if isinstance(error, InvalidStatus):
        body = error.response.body.decode("utf-8", errors="replace")
        text = " ".join("".join(char if char.isprintable() else " " for char in body).split())[:200]
        return f"the hub refused with {error.response.status_code}" + (f": {text}" if text else "")
    if isinstance(error, ssl.SSLError):
        return tls_problem(error, host)
    if isinstance(error, TimeoutError):
        return "the hub did not answer in time"
    if isinstance(error, InvalidHandshake):
        return f"the peer is no WebSocket server: {str(error)[:200]}"
    if isinstance(error, OSError):
        return f"cannot connect: {error.strerror or str(error)[:200] or type(error).__name__}"
    return str(error)[:300]
