"""The short way for ordinary frames, held against websockets' sans-IO protocol, which has always the last word."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol, Side
from websockets.utils import apply_mask

from cloudhub.sessions.connection import FEED_SLICE, NodeConnection
from cloudhub.sessions.frames import Boundary, ordinary, text_frame
from cloudhub.sessions.outbox import Outbox
from cloudhub.sessions.protocol import Greeting, SessionRules
from cloudhub.taskmanager.ports import SessionInfo
from shared.wire import MAX_FRAME_BYTES, Message, encode_bytes, keepalive, new_message
from tests.integration.sessions.hub import report

MASK = b"\x12\x34\x56\x78"


def frame_of(opcode: int, text: bytes, *, fin: bool = True, mask: bool = True) -> bytes:
    """Not by websockets, which makes no wrong ones."""
    size, second = len(text), 0x80 if mask else 0
    if size < 126:
        length = bytes((second | size,))
    elif size < 65_536:
        length = bytes((second | 126,)) + size.to_bytes(2)
    else:
        length = bytes((second | 127,)) + size.to_bytes(8)
    head = bytes((opcode | (0x80 if fin else 0),)) + length
    return head + MASK + apply_mask(text, MASK) if mask else head + text


# --- One frame --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 300, 65_535])
def test_a_short_masked_text_frame_is_read(size: int) -> None:
    text = bytes(position % 251 for position in range(size))
    frame = frame_of(Opcode.TEXT, text)
    assert ordinary(b"before" + frame + b"after", 6) == (text, 6 + len(frame))
    assert all(ordinary(frame[:cut], 0) is None for cut in {0, 1, 2, 5, 6, 7, 8, len(frame) - 1} if cut < len(frame))


@pytest.mark.parametrize(
    "frame",
    [
        frame_of(Opcode.TEXT, b"x" * 65_536),
        frame_of(Opcode.TEXT, b"hello", mask=False),
        frame_of(Opcode.TEXT, b"x" * 300, mask=False),
        frame_of(Opcode.TEXT, b"hello", fin=False),
        frame_of(Opcode.CONT, b"hello"),
        frame_of(Opcode.BINARY, b"hello"),
        frame_of(Opcode.PING, b"hello"),
        frame_of(Opcode.CLOSE, b"\x03\xe8"),
        b"\xc1\x85" + bytes(9),
        b"\x83\x85" + bytes(9),
        # A short length in eight bytes.
        b"\x81\xff" + bytes(7) + b"\x05" + bytes(9),
    ],
)
def test_any_other_frame_is_left_to_the_protocol(frame: bytes) -> None:
    assert ordinary(frame, 0) is None


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, MAX_FRAME_BYTES])
def test_a_frame_to_a_node_is_the_one_that_websockets_would_make(size: int) -> None:
    assert text_frame(b"x" * size) == Frame(Opcode.TEXT, b"x" * size).serialize(mask=False)


FRAMES = st.builds(
    lambda opcode, size, fin, mask: frame_of(opcode, b"x" * size, fin=fin, mask=mask),
    st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT]),
    st.one_of(st.integers(0, 300), st.integers(65_530, 65_545)),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(1, 70_000), max_size=8), st.lists(st.integers(1, 9)))
def test_the_boundary_is_where_a_frame_ends_however_the_stream_is_cut(
    frames: list[bytes], large: list[int], small: list[int]
) -> None:
    stream, boundary = b"".join(frames), Boundary()
    ends = {sum(map(len, frames[:count])) for count in range(len(frames) + 1)}
    position = 0
    for piece in cut(stream, [size for pair in zip(large, small, strict=False) for size in pair] + small):
        at = 0
        while at < len(piece):
            assert boundary.between_frames == (position in ends)
            stop = boundary.follow(piece, at)
            position, at = position + stop - at, stop
    assert position == len(stream)
    assert boundary.between_frames


# --- A stream of them -------------------------------------------------------------------------------------------------

REQUEST = (
    b"GET /p/edge-1/events HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
REFUSED = REQUEST.replace(b"13\r\n", b"12\r\n")


class Link:
    """A transport, by its shape."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def set_write_buffer_limits(self, **limits: int) -> None:
        pass

    def get_extra_info(self, name: str) -> Any:
        return None

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


class Hub:
    """An owner of one connection, which notes what it hears, in order."""

    now = 0.0

    def __init__(self) -> None:
        self.read_buffer = memoryview(bytearray(FEED_SLICE))
        self.heard: list[Any] = []

    def greet(self, request: Request, certificate: Any) -> Greeting:
        return Greeting("edge-1", frozenset(), None, 0.0, 1)

    def opened(self, connection: NodeConnection, greeting: Greeting) -> None:
        connection.begin(
            info=SessionInfo("edge-1", 1, frozenset(), None),
            rules=SessionRules(now=0.0, keepalive_interval=30.0, messages_per_second=1.0, message_burst=10_000),
            outbox=Outbox(max_messages=100, max_bytes=MAX_FRAME_BYTES, burst=None, now=0.0),
            predecessor=None,
        )

    def kept_alive(self, connection: NodeConnection) -> None:
        self.heard.append("kept alive")

    def ignored(self, operation: str) -> None:
        self.heard.append(("ignored", operation))

    def ended(self, connection: NodeConnection, label: str, reason: str) -> None:
        self.heard.append(("ended", label, reason))

    def link_lost(self, connection: NodeConnection, reason: str) -> None:
        connection.attend_loss(reason)

    def nothing(self, connection: NodeConnection) -> None:
        pass

    write_stalled = write_resumed = paced = closing = gone = lost = abandoned = nothing

    async def messages_received(self, session: SessionInfo, messages: Sequence[Message]) -> None:
        self.heard += messages


def _feed(connection: NodeConnection, data: bytes) -> None:
    """As a transport does."""
    while data:
        buffer = connection.get_buffer(len(data))
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        connection.buffer_updated(size)
        data = data[size:]


class Plain(NodeConnection):
    """All bytes go through the sans-IO protocol."""

    def _take_ordinary(self, data: bytes, at: int) -> int:
        return at


async def outcome(kind: type[NodeConnection], pieces: Sequence[bytes]) -> dict[str, Any]:
    """All that can be seen of a connection that was fed the pieces and then lost its link."""
    owner, link = Hub(), Link()
    connection = kind(cast(Any, owner))
    connection.connection_made(cast(Any, link))
    for piece in pieces:
        _feed(connection, piece)
    still_open = connection.is_open
    connection.connection_lost(None)
    if connection.pump_task is not None:
        await connection.pump_task
    return {"open": still_open, "link closed": link.closed, "heard": owner.heard, "sent": _sent(link.written)}


def _sent(written: bytes) -> list[Any]:
    """What the hub sent, but for the fresh ids of its answers."""
    client = Protocol(Side.CLIENT, max_size=None)
    head, end, frames = written.partition(b"\r\n\r\n")
    found: list[Any] = [head.partition(b"\r\n")[0]]
    if end and b" 101 " in head:
        client.receive_data(frames)
    for event in client.events_received():
        assert isinstance(event, Frame)
        data = bytes(event.data)
        if event.opcode is Opcode.TEXT:
            document = json.loads(data)
            found.append((document["header"]["parent_msg_id"], document["route"], document["content"]))
        else:
            found.append((event.opcode, data))
    return found


def cut(stream: bytes, sizes: Sequence[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(stream[at : at + size])
        at += size
    return [piece for piece in (*pieces, stream[at:]) if piece]


def _message(operation: str) -> bytes:
    return encode_bytes(
        new_message(source="websocket", group="hub", resource="x", operation=operation, content="é" * 9)
    )


MASKED = st.binary(min_size=4, max_size=4)
TEXTS = st.one_of(
    st.sampled_from([
        encode_bytes(keepalive()), report("edge-1", {"action": "Pull"}).encode(), report("edge-1", "x" * 200).encode(),
        _message("config"), _message("insert"), _message("query"), b"{", b"", b"\xff\xfe",
    ]),
    st.binary(max_size=20),
)  # fmt: skip
GOOD_FRAMES = st.builds(
    frame_of,
    st.sampled_from([Opcode.TEXT, Opcode.TEXT, Opcode.TEXT, Opcode.BINARY]),
    TEXTS,
)
ANY_FRAMES = st.builds(
    frame_of,
    st.sampled_from(list(Opcode)),
    st.one_of(TEXTS, st.just(b"\x03\xe8bye")),
    fin=st.sampled_from([True, True, False]),
    mask=st.sampled_from([True, True, True, True, False]),
)
IN_PIECES = st.builds(
    lambda text, at, between: (
        frame_of(Opcode.TEXT, text[:at], fin=False)
        + between
        + frame_of(Opcode.CONT, text[at:])
    ),
    TEXTS, st.integers(0, 30), st.one_of(st.just(b""), GOOD_FRAMES, ANY_FRAMES),
)  # fmt: skip
ODD = st.sampled_from([
    b"\xc1\x85" + bytes(9), b"\x83\x80" + bytes(4), b"\x81\xff" + bytes(6) + b"\xff\xff" + bytes(4),
    b"\x81\xff" + bytes(7) + b"\x02" + bytes(4) + b"{}", b"\x81\xfe\x00\x02" + bytes(4) + b"{}",
    b"\x81\xff" + b"\xff" * 8 + bytes(20), b"\x89\xfe\x00\x80" + bytes(132),
])  # fmt: skip
STREAMS = st.builds(
    lambda head, parts: head + b"".join(parts),
    st.sampled_from([REQUEST, REQUEST, REQUEST, REQUEST, REFUSED, b"GET / HTTP/1.1\r\n\r\n", b"\n\r\n"]),
    st.lists(st.one_of(GOOD_FRAMES, GOOD_FRAMES, ANY_FRAMES, IN_PIECES, ODD, st.binary(max_size=12)), max_size=8),
)
CUTS = st.lists(st.one_of(st.integers(1, 8), st.integers(1, 400)), max_size=20)


# A frame in a frame: cut so, the inner one looks ordinary.
_INNER = frame_of(Opcode.TEXT, report("edge-1", "inner").encode())
_OUTER = b"\x82\xfe" + len(_INNER).to_bytes(2) + bytes(4)


@settings(max_examples=150, deadline=None)
@given(STREAMS, CUTS)
@example(REQUEST + frame_of(Opcode.TEXT, b"{") + frame_of(Opcode.CLOSE, b""), [])
@example(REQUEST + frame_of(Opcode.BINARY, _message("config")) + frame_of(Opcode.CLOSE, b""), [])
@example(REQUEST + _OUTER + _INNER, [len(REQUEST + _OUTER)])
@example(REQUEST + _OUTER + _INNER, [len(REQUEST) + 2, len(_OUTER) - 2])
def test_what_follows_from_a_stream_is_the_same_by_the_short_way_and_by_the_long(
    stream: bytes, cuts: list[int]
) -> None:
    with asyncio.Runner() as runner:
        short = runner.run(outcome(NodeConnection, cut(stream, cuts)))
        by_bytes = runner.run(outcome(Plain, [stream[at : at + 1] for at in range(len(stream))]))
        assert short == by_bytes
        assert runner.run(outcome(Plain, cut(stream, cuts))) == by_bytes


async def test_ordinary_frames_do_go_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, link = Hub(), Link()
    connection = NodeConnection(cast(Any, owner))
    connection.connection_made(cast(Any, link))
    _feed(connection, REQUEST)
    frame = frame_of(Opcode.TEXT, report("edge-1", 1).encode())
    long_way: list[bytes] = []
    monkeypatch.setattr(connection._ws, "receive_data", long_way.append)
    _feed(connection, frame + frame)
    _feed(connection, frame)
    assert connection.pump_task is not None
    await connection.pump_task
    assert [message.content for message in owner.heard] == [1, 1, 1]
    assert long_way == []
