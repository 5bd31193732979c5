"""What a node with a good certificate tries on the hub's processor and memory, byte by byte: no library sends so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from websockets.frames import Frame, Opcode

from cloudhub.listen.acceptor import AcceptLimits
from cloudhub.sessions.connection import INBOX_BYTES, NodeConnection
from cloudhub.sessions.server import SessionLimits
from tests.integration.certificates import node_context
from tests.integration.sessions.hub import KEEPALIVE, Hub, eventually, hub, report

PROJECT = "e632aba927ea4ac2b575ec1603d56f10"
PING = Frame(Opcode.PING, b"").serialize(mask=True, extensions=[])
PIECE = Frame(Opcode.CONT, b"", fin=False).serialize(mask=True, extensions=[])
MALFORMED = Frame(Opcode.TEXT, b"{").serialize(mask=True, extensions=[])


class Peer:
    """The bytes of a session of ``node``; what comes is not read unless it is asked for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, text: str) -> None:
        self.writer.write(Frame(Opcode.TEXT, text.encode()).serialize(mask=True, extensions=[]))

    async def flood(self, data: bytes) -> None:
        """Until the hub takes no more for good."""
        with contextlib.suppress(OSError):
            while True:
                self.writer.write(data)
                await self.writer.drain()
                await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def peer(h: Hub, node: str, *, claims: str = "", extensions: str = "", deaf: bool = False) -> AsyncIterator[Peer]:
    """``claims`` is whom it says that it is. One that is ``deaf`` does not notice either that it is sent away."""
    reader, writer = await asyncio.open_connection("127.0.0.1", h.server.port, ssl=node_context(h.ca, node))
    if deaf:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
    name = claims or node
    lines = [
        f"GET /{PROJECT}/{name}/events HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"node_id: {name}",
        *([f"Sec-WebSocket-Extensions: {extensions}"] if extensions else []),
    ]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def flooded(p: Peer, data: bytes) -> AsyncIterator[None]:
    flooding = asyncio.create_task(p.flood(data))
    try:
        yield
    finally:
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


async def session(h: Hub, node: str) -> NodeConnection:
    await eventually(lambda: h.server.get(node))
    connection = h.server._registry.get(node)
    assert connection is not None
    return connection


async def test_a_session_that_is_over_is_read_no_faster_than_one_that_lives() -> None:
    async with hub(keepalive_interval=1000) as h, peer(h, "edge-1") as p:
        connection = await session(h, "edge-1")
        p.writer.write(MALFORMED)
        await eventually(lambda: not connection.is_open)
        # It does not answer the close, and goes on.
        async with flooded(p, PING * 2000):
            await eventually(lambda: connection._reading_paused)
            assert connection._rules is not None
            # Not even to the end of what came in one piece.
            assert connection._rules._tokens > -2
            await h.pass_time(2)
            assert connection._reading_paused
            await h.pass_time_until(lambda: not h.server._connections)
        assert not h.server._paced


@pytest.mark.parametrize("frame", [PING, PIECE], ids=["pings", "empty pieces of a message"])
async def test_of_frames_that_carry_nothing_only_as_many_are_read_as_of_messages(frame: bytes) -> None:
    burst = SessionLimits().message_burst
    async with hub(keepalive_interval=1000) as h, peer(h, "edge-1") as p:
        connection = await session(h, "edge-1")
        p.writer.write(Frame(Opcode.TEXT, b'"', fin=False).serialize(mask=True, extensions=[]))
        async with flooded(p, frame * 2000):
            await eventually(lambda: connection._reading_paused)
            assert connection._rules is not None
            assert -2 < connection._rules._tokens < 1
            assert len(connection._held) > len(frame) * burst


async def test_who_gets_no_session_and_does_not_go_keeps_a_turn_and_not_for_long() -> None:
    limits = AcceptLimits(turn=60.0, running=2, running_per_address=2)
    async with (
        hub(accept_limits=limits) as h,
        peer(h, "edge-1", claims="x", deaf=True),
        peer(h, "edge-2", claims="x", deaf=True),
    ):
        await eventually(lambda: h.metrics.handshakes_refused_total.value("identity") == 2)
        await asyncio.sleep(0)
        assert h.server._acceptor.running == 2
        await h.pass_time_until(lambda: h.server._acceptor.running == 0)
        assert not h.server._connections
        async with peer(h, "edge-3"):
            await session(h, "edge-3")


async def test_few_large_messages_fill_the_inbox_as_many_small_ones_do() -> None:
    limits = SessionLimits(message_burst=100_000)
    async with hub(limits=limits, keepalive_interval=1000) as h, peer(h, "edge-1") as p:
        connection = await session(h, "edge-1")
        h.heard.gate.clear()
        for number in range(12):
            p.say(report("edge-1", [number, "x" * 100_000]))
        await eventually(lambda: connection._reading_paused)
        assert sum(len(message.content[1]) for message in connection._inbox) < INBOX_BYTES + 100_000
        h.heard.gate.set()
        await eventually(lambda: len(h.heard.of("message")) == 12)
        assert [content[0] for _, content in h.heard.of("message")] == list(range(12))
        assert connection._inbox_bytes == 0


async def test_compression_is_not_agreed_upon_and_what_is_compressed_all_the_same_ends_the_session() -> None:
    async with hub() as h, peer(h, "edge-1", extensions="permessage-deflate; client_max_window_bits") as p:
        connection = await session(h, "edge-1")
        head = await p.reader.readuntil(b"\r\n\r\n")
        assert b"101 Switching Protocols" in head
        assert b"extensions" not in head.lower()
        frame = Frame(Opcode.TEXT, KEEPALIVE.encode()).serialize(mask=True, extensions=[])
        p.writer.write(bytes([frame[0] | 0x40]) + frame[1:])
        await eventually(lambda: not connection.is_open)
        assert b"reserved bits must be 0" in await asyncio.wait_for(p.reader.read(), 60)
