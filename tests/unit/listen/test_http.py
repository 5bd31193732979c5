"""HTTP on bounded resources, over real sockets: what peers do who never ask, never end, or never read."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from cloudhub.listen.acceptor import AcceptLimits
from cloudhub.listen.http import HTTPListener
from tests.integration.sessions.hub import eventually

LARGE = 32 << 20
"""More than sockets hold."""
ELSEWHERE = "127.0.0.2"


class Served:
    def __init__(self, limits: AcceptLimits) -> None:
        self.refused = Counter[tuple[str, str]]()
        app = web.Application()
        app.router.add_get("/", self._get)
        app.router.add_post("/", self._get)
        app.router.add_post("/echo", self._echo)
        app.router.add_get("/known", self._know)
        app.router.add_get("/large", self._large)
        self.listener = HTTPListener(
            app,
            host="127.0.0.1",
            port=0,
            ssl_context=None,
            limits=limits,
            refused=lambda reason, address, _: self.refused.update([(reason, address)]),
            shutdown_timeout=0.1,
        )

    async def _get(self, _: web.Request) -> web.Response:
        return web.Response(text="here")

    async def _echo(self, request: web.Request) -> web.Response:
        response = web.Response(body=await request.read())
        response.force_close()
        return response

    async def _know(self, request: web.Request) -> web.Response:
        self.listener.keep(request)
        return web.Response(text="known")

    async def _large(self, _: web.Request) -> web.Response:
        return web.Response(body=bytes(LARGE))

    async def connect(self, said: bytes = b"", *, address: str = "127.0.0.1") -> Peer:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.listener.port, local_addr=(address, 0), limit=1 << 16
        )
        writer.write(said)
        return Peer(reader, writer)

    async def asks(self, path: str = "/", *, address: str = "127.0.0.1") -> bytes:
        peer = await self.connect(f"GET {path} HTTP/1.0\r\n\r\n".encode(), address=address)
        return await peer.rest()


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.transport = cast(asyncio.Transport, writer.transport)

    async def rest(self) -> bytes:
        """Until the other side ends it."""
        found = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(60):
                while more := await self.reader.read(1 << 16):
                    found += more
        self.writer.transport.abort()
        return found


@asynccontextmanager
async def served(**limits: Any) -> AsyncIterator[Served]:
    found = Served(AcceptLimits(**limits))
    await found.listener.start()
    try:
        yield found
    finally:
        await found.listener.stop()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["silent", "a word", "half its headers", "no second request"],
)
async def test_a_peer_without_a_name_is_cut_when_its_turn_is_over(said: bytes) -> None:
    async with served(turn=0.5) as s:
        answer = await (await s.connect(said)).rest()
        assert (b"here" in answer) == (said.count(b"\r\n\r\n") == 1)
        assert await s.asks("/") != b""


@pytest.mark.parametrize("length", [b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"])
async def test_a_body_that_no_handler_reads_ends_its_connection(length: bytes) -> None:
    async with served(turn=60.0) as s:
        peer = await s.connect(b"POST / HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n3\r\nxxx\r\n")
        assert b"here" in await peer.rest()


async def test_a_compressed_body_is_not_unpacked() -> None:
    body = gzip.compress(bytes(1 << 20))
    async with served(turn=60.0) as s:
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert (await (await s.connect(head + body)).rest()).endswith(b"\r\n\r\n" + body)


async def test_who_never_reads_is_cut_and_its_answer_forgotten() -> None:
    async with served(turn=0.5) as s:
        peer = await s.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        peer.transport.pause_reading()
        await eventually(lambda: s.refused["timeout", "127.0.0.1"])
        peer.transport.resume_reading()
        assert len(await peer.rest()) < LARGE


@pytest.mark.parametrize("part", [b"X: " + b"y" * 8192 + b"\r\n", b"X: y\r\n", b"y"], ids=["long", "many", "one"])
async def test_headers_without_end_are_refused_before_they_fill_memory(part: bytes) -> None:
    async with served(turn=60.0) as s:
        peer = await s.connect(b"GET / HTTP/1.1\r\nHost: x\r\nA: b")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while not peer.reader.at_eof() and not peer.writer.is_closing():
                peer.writer.write(part * (1 + (64 << 10) // len(part)))
                sent += 64 << 10
                assert sent < 64 << 20
                await peer.writer.drain()
        await peer.rest()


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\nX: " + b"y" * (1 << 20), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"y" * 999],
    ids=["at once", "after a request"],
)
async def test_of_what_is_no_http_nothing_waits_for_the_collector(said: bytes) -> None:
    async with served(turn=60.0) as s:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                # Whoever sends on while it is cut may miss its answer.
                assert (await (await s.connect(said)).rest())[:12] in (b"HTTP/1.1 400", b"")
            assert not [found for found in gc.get_objects() if isinstance(found, HttpProcessingError)]
        finally:
            gc.enable()


async def test_who_is_known_stays_and_gives_its_turn_to_others() -> None:
    async with served(turn=0.5, running=1, running_per_address=1) as s:
        known = await s.connect(b"GET /known HTTP/1.1\r\nHost: x\r\n\r\n")
        await known.reader.readuntil(b"known")
        for _ in range(2):
            assert b"here" not in await (await s.connect()).rest()
        known.writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await known.reader.readuntil(b"here")
        known.writer.transport.abort()


async def test_one_address_with_many_connections_leaves_room_for_others() -> None:
    async with served(turn=60.0, running=4, running_per_address=3, waiting=6, waiting_per_address=4) as s:
        flood = [await s.connect(address=ELSEWHERE) for _ in range(50)]
        assert b"here" in await s.asks()
        await eventually(lambda: s.refused["too many", ELSEWHERE] == 50 - 3 - 4)
        assert (s.listener._acceptor.running, s.listener._acceptor.waiting) == (3, 4)
        for peer in flood:
            peer.writer.transport.abort()


async def test_stopping_cuts_who_is_in_its_turn_and_ends_who_is_known() -> None:
    async with served(turn=60.0) as s:
        silent = await s.connect()
        known = await s.connect(b"GET /known HTTP/1.1\r\nHost: x\r\n\r\n")
        await known.reader.readuntil(b"known")
    assert await silent.rest() == b""
    assert await known.rest() == b""
    assert s.listener._visits == {}
