"""HTTP to whoever comes, on bounded resources: aiohttp's handlers behind an `Acceptor`.

aiohttp takes as many connections as come and waits for ever for a first request. Here each connection has a turn, so
that silent peers, headers and bodies that never end, and readers that never read cost a known number of descriptors,
each for a known time. A turn is the whole life of a connection, unless a handler calls `keep`: its peer has proved who
it is, and may stay. Of a request aiohttp keeps at most `MAX_HEADERS` headers of 8 KiB, and of a body that no handler
reads some 128 KiB. Bodies stay as they came: aiohttp would unpack a compressed one also for nobody, and 40 KB of it, a
second of the loop's time.

aiohttp's own log is off: it holds what peers sent, as often as they send it, and headers with their tokens. So handlers
log their own errors. Used by joining, the embedded API, and /metrics.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from cloudhub.listen.acceptor import AcceptLimits, Acceptor

LOOK_AGAIN_EVERY: Final = 1.0
MAX_HEADERS: Final = 32
LINGER: Final = 1.0
"""Seconds for the rest of a body that no handler reads."""

NO_HTTP: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

log = structlog.get_logger(__name__)
_aiohttp_log = logging.getLogger("cloudhub.listen.aiohttp")
_aiohttp_log.setLevel(logging.CRITICAL)

Refused = Callable[[str, str, str], None]
"""Reason (``tls``, ``timeout``, ``too many``), address, detail."""


class HTTPListener:
    """``options`` are those of aiohttp's `AppRunner`. Without ``ssl_context`` it is plain HTTP."""

    def __init__(
        self,
        application: web.Application,
        *,
        host: str,
        port: int,
        ssl_context: ssl.SSLContext | None,
        limits: AcceptLimits,
        refused: Refused,
        **options: Any,
    ) -> None:
        self._runner = web.AppRunner(
            application,
            handle_signals=False,
            access_log=None,
            logger=_aiohttp_log,
            lingering_time=LINGER,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
            **options,
        )
        self._acceptor = Acceptor(
            host=host,
            port=port,
            ssl_context=ssl_context,
            limits=limits,
            welcome=self._welcome,
            refused=refused,
        )
        self._visits: dict[object, _Visit] = {}
        """By aiohttp's protocol, which its requests know."""
        self._looking: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return self._acceptor.port

    async def start(self) -> None:
        """Raises OSError that names address and port."""
        await self._runner.setup()
        try:
            self._acceptor.start()
        except OSError:
            await self._runner.cleanup()
            raise
        self._looking = asyncio.create_task(self._keep_looking(), name="http-acceptor")

    async def stop(self) -> None:
        """Cuts connections that are in their turn, and ends the others as aiohttp does: within ``shutdown_timeout``."""
        if self._looking is None:
            return
        looking, self._looking = self._looking, None
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
        await self._acceptor.stop()
        await self._runner.cleanup()

    def keep(self, request: web.Request) -> None:
        """This request's connection needs no turn any longer."""
        visit = self._visits.get(request.protocol)
        if visit is not None:
            visit.settle()

    def _welcome(self, address: str) -> _Visit:
        if self._runner.server is None:
            raise RuntimeError("the HTTP server is not running")
        inner = self._runner.server()
        visit = self._visits[inner] = _Visit(inner, gone=lambda: self._visits.pop(inner, None))
        return visit

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_EVERY)
            self._acceptor.look_again()


def allowed(error: web.HTTPException) -> dict[str, str]:
    """What of its headers goes with a refusal that is written anew."""
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


class _Parser:
    """aiohttp's, but for its errors: they quote up to three times of what came, and are kept in a circle with their
    tracebacks, whose frames have it too. It would stay until the collector comes, which the hub has told to be rare."""

    def __init__(self, inner: Any, failed: Callable[[bool], None]) -> None:
        self._inner = inner
        self._failed = failed
        self._requests = 0
        self._over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def feed_data(self, data: bytes) -> tuple[Sequence[Any], bool, bytes]:
        if not self._over:
            try:
                messages, upgraded, rest = self._inner.feed_data(data)
            except HttpProcessingError:
                self._over = True
            else:
                self._requests += len(messages)
                return messages, upgraded, rest
            self._failed(self._requests == 0)
        return (), False, b""


class _Visit(asyncio.Protocol):
    """One connection: aiohttp's handler, and a note when the link is gone or its peer known."""

    __slots__ = ("_gone", "_inner", "_settled", "_transport")

    def __init__(self, inner: Any, *, gone: Callable[[], object]) -> None:
        self._inner = inner
        self._gone = gone
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        inner._parser = _Parser(inner._parser, self._no_http)

    @property
    def protocol(self) -> asyncio.BaseProtocol:
        return self

    def settle(self) -> None:
        if not self._settled.done():
            self._settled.set_result(None)

    async def settled(self) -> None:
        await self._settled

    def abandon(self) -> None:
        self._gone()
        if self._transport is not None:
            self._transport.abort()

    def _no_http(self, first: bool) -> None:
        if self._transport is not None:
            # Later, an answer may be on its way.
            if first:
                self._transport.write(NO_HTTP)
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: uvloop's transports are asyncio.Transport by shape, not by class.
        self._transport = cast(asyncio.Transport, transport)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()
        self.settle()
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        self._inner.eof_received()
        return None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
