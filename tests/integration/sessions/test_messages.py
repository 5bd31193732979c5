"""What goes to and fro in a session, and what no node can do with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode

from cloudhub.sessions.server import SessionLimits
from shared.wire import HEADER_FEATURES, MAX_FRAME_BYTES, Operation, decode, encode, new_message
from tests.integration.sessions.hub import KEEPALIVE, Hub, closed, dispatch, eventually, hub, report

OURS = {HEADER_FEATURES: "ack,cancel,credentials,progress"}


async def received(socket: ClientConnection) -> Any:
    async with asyncio.timeout(60):
        return decode(await socket.recv(decode=True)).content


async def test_reports_reach_the_listener_in_order_and_keepalives_do_not() -> None:
    async with hub() as h, h.connect("edge-1") as socket:
        for number in range(50):
            await socket.send(KEEPALIVE)
            await socket.send(report("edge-1", number))
        await eventually(lambda: len(h.heard.of("message")) == 50)
        assert h.heard.of("message") == [("edge-1", number) for number in range(50)]


async def test_binary_frames_and_frames_in_pieces_are_read_too() -> None:
    async with hub() as h, h.connect("edge-1") as socket:
        await socket.send(report("edge-1", "binary").encode())
        text = report("edge-1", "x" * 100_000)
        await socket.send([text[at : at + 4096] for at in range(0, len(text), 4096)])
        await eventually(lambda: len(h.heard.of("message")) == 2)
        assert h.heard.of("message") == [("edge-1", "binary"), ("edge-1", "x" * 100_000)]


async def test_a_message_of_the_largest_size_is_read() -> None:
    async with hub() as h, h.connect("edge-1") as socket:
        rest = MAX_FRAME_BYTES - len(report("edge-1", ""))
        await socket.send(report("edge-1", "x" * rest))
        await eventually(lambda: h.heard.of("message"))
        assert len(h.heard.of("message")[0][1]) == rest


async def test_the_listener_sets_the_pace_and_nothing_is_lost() -> None:
    async with hub(limits=SessionLimits(message_burst=100_000)) as h, h.connect("edge-1") as socket:
        h.heard.gate.clear()

        async def flood() -> None:
            for number in range(2_000):
                # All together twice what the kernel keeps of it for both ends, as measured.
                await socket.send(report("edge-1", [number, "x" * 8_000]))

        sending = asyncio.create_task(flood())
        connection = h.server._registry.get("edge-1")
        assert connection is not None
        await eventually(lambda: connection._reading_paused, "reading stops")
        assert len(connection._inbox) < 32
        assert not sending.done()
        h.heard.gate.set()
        await asyncio.wait_for(sending, 20)
        await eventually(lambda: len(h.heard.of("message")) == 2_000)
        assert [content[0] for _, content in h.heard.of("message")] == list(range(2_000))


async def test_one_slow_listener_call_delays_no_other_node() -> None:
    async with hub() as h, h.connect("edge-1") as one, h.connect("edge-2") as other:
        h.heard.gate.clear()
        await one.send(report("edge-1", 1))
        await other.send(encode(new_message(source="s", group="g", resource="r", operation="ping")))
        assert await received(other) == "ack"
        h.heard.gate.set()
        await eventually(lambda: h.heard.of("message"))


async def test_messages_beyond_the_rate_are_delayed_and_not_dropped() -> None:
    limits = SessionLimits(messages_per_second=10, message_burst=20)
    async with hub(limits=limits, keepalive_interval=1000) as h, h.connect("edge-1") as socket:
        # What comes in one piece is decoded together, up to 16 KiB: somewhat more than the burst.
        for number in range(60):
            await socket.send(report("edge-1", number))
            await asyncio.sleep(0)
        connection = h.server._registry.get("edge-1")
        assert connection is not None
        await eventually(lambda: connection._reading_paused)
        early = len(h.heard.of("message"))
        assert early < 60
        await h.pass_time_until(lambda: len(h.heard.of("message")) == 60)
        assert [content for _, content in h.heard.of("message")] == list(range(60))


async def test_a_question_is_for_the_listener() -> None:
    async with hub() as h, h.connect("edge-1") as socket:
        for operation in ("query", "insert", "a thing of tomorrow"):
            await socket.send(
                encode(new_message(source="edged", group="meta", resource="x", operation=operation, content=operation))
            )
        await eventually(lambda: len(h.heard.of("message")) == 3)
        assert [content for _, content in h.heard.of("message")] == ["query", "insert", "a thing of tomorrow"]


async def test_unknown_messages_are_counted_and_the_session_goes_on() -> None:
    async with hub() as h, h.connect("edge-1") as socket:
        for operation in ("get", "get", "insert", "a thing of tomorrow", "Check"):
            # Of group ``resource``: what is of ``meta`` asks for an answer (test_a_question_is_for_the_listener).
            await socket.send(encode(new_message(source="twin", group="resource", resource="x", operation=operation)))
        await socket.send(report("edge-1", "still here"))
        await eventually(lambda: h.heard.of("message"))
        ignored = h.metrics.messages_ignored_total
        assert [ignored.value(name) for name in ("get", "insert", "other", "Check")] == [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("frame", "code", "reason"),
    [
        ("{", 1007, "not a message: document"),
        ('{"header":{"msg_id":1}}', 1007, "not a message: header.msg_id"),
        (b"\xff\xff", 1007, "not a message: document"),
        ("x" * (MAX_FRAME_BYTES + 1), 1009, ""),
    ],
)
async def test_a_malformed_or_oversized_frame_ends_the_session_with_a_reason(
    frame: str | bytes, code: int, reason: str
) -> None:
    async with hub() as h, h.connect("edge-1") as socket:
        await socket.send(report("edge-1", "before"))
        await socket.send(frame)
        got = await closed(socket)
        assert got[0] == code
        assert got[1].startswith(reason)
        await eventually(lambda: h.heard.of("closed"))
        assert h.heard.of("message") == [("edge-1", "before")]
        assert h.server.get("edge-1") is None


async def test_an_oversized_message_in_small_pieces_ends_the_session_too() -> None:
    async with hub(limits=SessionLimits(message_burst=10_000)) as h, h.connect("edge-1") as socket:
        sending = asyncio.create_task(socket.send(["x" * 65_536] * 20))
        assert (await closed(socket))[0] == 1009
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_flood_of_pings_cannot_fill_memory_or_the_processor() -> None:
    async with hub(keepalive_interval=1000) as h, h.connect("edge-1") as socket:
        connection = h.server._registry.get("edge-1")
        assert connection is not None

        async def flood() -> None:
            for _ in range(3_000):
                await socket.ping()

        flooding = asyncio.create_task(flood())
        await eventually(lambda: connection._reading_paused)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        await socket.send(report("edge-1", "still here"))
        await h.pass_time_until(lambda: h.heard.of("message"))


async def test_pings_of_a_peer_that_does_not_read_the_answers_do_not_pile_up_answers() -> None:
    limits = SessionLimits(messages_per_second=1e9, message_burst=10**9)
    async with hub(limits=limits, keepalive_interval=1000) as h, h.connect("edge-1") as socket:
        connection = h.server._registry.get("edge-1")
        assert connection is not None
        socket.transport.pause_reading()
        pings = Frame(Opcode.PING, b"x" * 125).serialize(mask=True, extensions=[]) * 500
        await _write_until(socket, pings, lambda: connection._reading_paused)
        held = len(connection._held)
        for _ in range(100):
            socket.transport.write(pings)
            await asyncio.sleep(0)
        assert connection._write_paused
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() < 1 << 20
        assert len(connection._held) <= held + (1 << 20)
        socket.transport.abort()


async def test_control_messages_are_answered_with_ack() -> None:
    async with hub() as h, h.connect("edge-1") as socket:
        sent = new_message(source="websocket", group="hub", resource="x", operation="config", content={})
        await socket.send(encode(sent))
        answer = json.loads(await asyncio.wait_for(socket.recv(), 10))
        assert answer["header"]["parent_msg_id"] == sent.header.msg_id
        assert answer["route"] == {"source": "websocket", "group": "hub", "operation": "response", "resource": "x"}
        assert answer["content"] == "ack"


async def test_a_dispatch_reaches_the_node_as_one_text_frame() -> None:
    async with hub() as h, h.connect("edge-1") as socket:
        message = dispatch("edge-1", {"a": "ä"})
        assert h.server.send("edge-1", message)
        frame = await asyncio.wait_for(socket.recv(), 10)
        assert frame == encode(message)
        assert not h.server.send("edge-2", message)


async def test_operations_of_ours_never_reach_a_node_that_did_not_announce_them() -> None:
    def ours(operation: str) -> Any:
        return new_message(
            source="taskmanager", group="taskmanager", resource="r", operation=operation, content=operation
        )

    async with hub() as h, h.connect("stock") as stock, h.connect("agent", headers=OURS) as agent:
        for operation in (Operation.ACK, Operation.CANCEL):
            assert not h.server.send("stock", ours(operation))
            assert h.server.send("agent", ours(operation))
            assert await received(agent) == operation
        assert h.server.send("stock", dispatch("stock", "last"))
        assert await received(stock) == "last"


async def test_a_message_too_large_for_a_node_is_not_sent() -> None:
    async with hub() as h, h.connect("edge-1"):
        assert not h.server.send("edge-1", dispatch("edge-1", "x" * MAX_FRAME_BYTES))


async def test_a_node_that_is_not_ours_gets_a_few_messages_at_once_and_the_rest_with_time() -> None:
    async with (
        hub(keepalive_interval=1000) as h,
        h.connect("stock") as stock,
        h.connect("agent", headers=OURS) as agent,
    ):
        for number in range(50):
            assert h.server.send("stock", dispatch("stock", number))
            assert h.server.send("agent", dispatch("agent", number))
        assert [await received(agent) for _ in range(50)] == list(range(50))
        assert [await received(stock) for _ in range(8)] == list(range(8))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stock.recv(), 0.1)
        await h.pass_time(1)
        assert [await received(stock) for _ in range(8)] == list(range(8, 16))
        await h.pass_time(5)
        assert [await received(stock) for _ in range(34)] == list(range(16, 50))


async def test_a_reader_that_never_reads_costs_a_bounded_queue_and_then_its_session() -> None:
    limits = SessionLimits(outbox_messages=20, outbox_bytes=1 << 20)
    async with (
        hub(limits=limits, write_timeout=30, keepalive_interval=1000) as h,
        h.connect("slow", headers=OURS) as slow,
        h.connect("quick", headers=OURS) as quick,
    ):
        slow.transport.pause_reading()
        sent = await _fill(h, "slow")
        connection = h.server._registry.get("slow")
        assert connection is not None
        assert sent * 50_000 < 20 << 20
        # Another node is not delayed by it.
        assert h.server.send("quick", dispatch("quick", "hello"))
        assert await received(quick) == "hello"
        await h.pass_time(29)
        assert h.server.get("slow") is not None
        await h.pass_time(5)
        assert h.server.get("slow") is None
        assert h.heard.of("closed") == [("slow", connection.info.serial)]
        assert h.server.get("quick") is not None
        slow.transport.resume_reading()


async def test_a_reader_that_was_slow_gets_everything_when_it_reads_again() -> None:
    async with hub(keepalive_interval=1000) as h, h.connect("slow", headers=OURS) as slow:
        slow.transport.pause_reading()
        sent = await _fill(h, "slow")
        await h.pass_time(20)
        slow.transport.resume_reading()
        got = [await received(slow) for _ in range(sent)]
        assert [content[0] for content in got] == list(range(sent))
        await h.pass_time(60)
        assert h.server.get("slow") is not None


async def test_a_fault_of_the_listener_ends_that_session_and_no_other() -> None:
    async with hub() as h, h.connect("edge-1") as one, h.connect("edge-2") as other:
        h.heard.fail = True
        await one.send(report("edge-1", 1))
        assert await closed(one) == (1011, "internal error")
        h.heard.fail = False
        await other.send(report("edge-2", 2))
        await eventually(lambda: h.heard.of("message"))
        assert h.heard.of("closed") == [("edge-1", 1)]


async def _write_until(socket: ClientConnection, data: bytes, condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            socket.transport.write(data)
            await asyncio.sleep(0)


async def _fill(h: Hub, node: str) -> int:
    """Sends until nothing more is taken; the loop gets to write in between."""
    sent = 0
    while h.server.send(node, dispatch(node, [sent, "x" * 50_000])):
        sent += 1
        await asyncio.sleep(0)
        assert sent < 2_000
    return sent
