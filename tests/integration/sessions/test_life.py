"""How sessions begin and end: keepalive, replacement, loss, stop."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import time
from functools import partial

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

import cloudhub.sessions.server as server_module
from cloudhub.metrics import sample
from cloudhub.pki.ca import utc_now
from cloudhub.sessions.connection import NodeConnection
from cloudhub.sessions.server import SessionLimits
from shared.wire import decode
from tests.integration.certificates import node_context
from tests.integration.sessions.hub import BOUND, KEEPALIVE, Hub, closed, dispatch, eventually, hub, report


async def test_a_node_without_keepalive_loses_its_session_and_its_socket() -> None:
    async with hub(keepalive_interval=30) as h, h.connect("silent") as silent, h.connect("alive") as alive:
        for turn in range(1, 4):
            await h.pass_time(10)
            await alive.send(KEEPALIVE)
            for socket, node in ((silent, "silent"), (alive, "alive")):
                await socket.send(report(node, "not a keepalive"))
            await eventually(partial(_has_heard, h, 2 * turn))
        assert h.server.get("silent") is not None
        await h.pass_time(1)
        await eventually(lambda: h.server.get("silent") is None)
        assert await closed(silent) == (1008, "no keepalive for more than 30 seconds")
        assert h.server.get("alive") is not None
        assert h.heard.of("closed") == [("silent", 1)]


async def test_a_hub_that_stood_still_does_not_throw_out_its_nodes() -> None:
    async with hub(keepalive_interval=30) as h, h.connect("edge-1") as socket:
        h.clock.seconds += 3600
        await h.server.tick()
        assert h.server.get("edge-1") is not None
        await h.pass_time(31)
        assert h.server.get("edge-1") is None
        assert (await closed(socket))[0] == 1008


async def test_the_newest_session_of_a_node_wins_and_the_old_socket_is_closed() -> None:
    async with hub() as h, h.connect("edge-1") as old:
        first = h.server.get("edge-1")
        async with h.connect("edge-1") as new:
            assert await closed(old) == (1008, "replaced by a newer session of this node")
            second = h.server.get("edge-1")
            assert first is not None
            assert second is not None
            assert second.serial > first.serial
            assert h.server.send("edge-1", dispatch("edge-1"))
            await asyncio.wait_for(new.recv(), 10)
            assert h.heard.calls == [("opened", "edge-1", first.serial), ("opened", "edge-1", second.serial)]
        await eventually(lambda: h.heard.of("closed"))
        assert h.heard.of("closed") == [("edge-1", second.serial)]
        assert sample(h.metrics.sessions) == 0


async def test_many_connections_of_one_node_leave_one_session() -> None:
    async with hub() as h:
        sockets = await asyncio.gather(*(h.connect("edge-1") for _ in range(12)))
        await eventually(lambda: len(h.server._connections) == 1)
        assert list(h.server.connected()) == ["edge-1"]
        assert len(h.heard.of("opened")) == 12
        assert h.heard.of("closed") == []
        await asyncio.gather(*(socket.close() for socket in sockets))


async def test_what_arrived_before_the_link_broke_is_handed_over_before_the_session_is_closed() -> None:
    async with hub() as h:
        h.heard.gate.clear()
        socket = await h.connect("edge-1")
        for number in range(5):
            await socket.send(report("edge-1", number))
        await socket.close()
        await eventually(lambda: h.server.get("edge-1") is None)
        assert h.heard.of("closed") == []
        h.heard.gate.set()
        await eventually(lambda: h.heard.of("closed"))
        assert [kind for kind, _, _ in h.heard.calls] == ["opened", *["message"] * 5, "closed"]


async def test_messages_of_the_next_session_come_after_those_of_the_last() -> None:
    async with hub() as h:
        h.heard.gate.clear()
        async with h.connect("edge-1") as old:
            for number in range(3):
                await old.send(report("edge-1", number))
            await eventually(lambda: h.server._registry.get("edge-1")._inbox)  # type: ignore[union-attr]
            async with h.connect("edge-1") as new:
                await new.send(report("edge-1", 3))
                await closed(old)
                h.heard.gate.set()
                await eventually(lambda: len(h.heard.of("message")) == 4)
                assert [content for _, content in h.heard.of("message")] == [0, 1, 2, 3]


async def test_a_link_that_breaks_without_a_word_ends_the_session() -> None:
    async with hub() as h:
        socket = await h.connect("edge-1")
        socket.transport.abort()
        await eventually(lambda: h.heard.of("closed"))
        assert h.server.get("edge-1") is None
        await eventually(lambda: not h.server._connections)
        await socket.wait_closed()


async def test_links_that_break_at_once_are_attended_to_a_few_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SLICE", 3)
    async with hub() as h:
        sockets = [await h.connect(f"edge-{number}") for number in range(10)]
        await eventually(lambda: len(list(h.server.connected())) == 10)
        for connection in tuple(h.server._connections):
            connection.abort()
        most = before = 0
        async with asyncio.timeout(BOUND):
            while h.server._connections:
                await asyncio.sleep(0)
                now = len(h.heard.of("closed"))
                most, before = max(most, now - before), now
        assert most == 3
        assert sorted(node for node, _ in h.heard.of("closed")) == [f"edge-{number}" for number in range(10)]
        assert not h.server._losses
        await asyncio.gather(*(socket.wait_closed() for socket in sockets))


async def test_a_node_that_is_back_before_the_loss_of_its_link_was_attended_to_has_its_new_session() -> None:
    async with hub() as h:
        old = await h.connect("edge-1")
        await eventually(lambda: h.server.get("edge-1"))
        connection = h.server._registry.get("edge-1")
        assert connection is not None
        waiting: list[tuple[NodeConnection, str]] = []
        attend = h.server.link_lost
        h.server.link_lost = lambda *loss: waiting.append(loss)  # type: ignore[method-assign]
        connection.abort()
        await eventually(lambda: waiting)
        assert not h.server.send("edge-1", dispatch("edge-1", "to nobody"))
        async with h.connect("edge-1") as new:
            await eventually(lambda: len(h.heard.of("opened")) == 2)
            h.server.link_lost = attend  # type: ignore[method-assign]
            attend(*waiting[0])
            await eventually(lambda: len(h.server._connections) == 1)
            assert h.server.send("edge-1", dispatch("edge-1", "hello"))
            assert decode(await asyncio.wait_for(new.recv(), BOUND)).content == "hello"
            assert h.heard.of("closed") == []
        await old.wait_closed()


async def test_a_peer_that_does_not_answer_a_close_is_cut_off() -> None:
    async with hub(keepalive_interval=30, limits=SessionLimits(close_timeout=5)) as h:
        socket = await h.connect("edge-1")
        socket.transport.pause_reading()
        await h.pass_time(31)
        assert h.server.get("edge-1") is None
        assert len(h.server._connections) == 1
        await h.pass_time(7)
        await eventually(lambda: not h.server._connections)
        socket.transport.abort()
        await socket.wait_closed()


async def test_nothing_is_kept_of_sessions_that_are_over() -> None:
    async with hub() as h:
        for _ in range(5):
            sockets = await asyncio.gather(*(h.connect(f"edge-{number}") for number in range(10)))
            await asyncio.gather(*(socket.send(KEEPALIVE) for socket in sockets))
            await asyncio.gather(*(socket.close() for socket in sockets))
        await eventually(lambda: len(h.heard.of("closed")) == 50)
        await eventually(lambda: not h.server._connections)
        await h.pass_time(1)
        server = h.server
        assert len(server._keepalives) + len(server._stalled) + len(server._closing) + len(server._expiries) == 0
        assert not server._paced


async def test_stop_closes_many_sessions_with_a_reason_and_within_its_time() -> None:
    async with hub() as h:
        sockets = await _connect(h, 100)
        begun = time.monotonic()
        await h.server.stop(code=1012, timeout=5)
        assert time.monotonic() - begun < 5
        assert await closed(sockets[0]) == (1012, "the hub is stopping")
        assert {code for code, _ in await asyncio.gather(*map(closed, sockets))} == {1012}
        assert len(h.heard.of("closed")) == 100
        assert list(h.server.connected()) == []


async def test_stop_does_not_wait_for_those_who_do_not_answer() -> None:
    async with hub() as h:
        sockets = await _connect(h, 10)
        for socket in sockets[:3]:
            socket.transport.pause_reading()
        h.heard.gate.clear()
        await sockets[5].send(report("edge-5", "its handling never ends"))
        begun = time.monotonic()
        await h.server.stop(timeout=0.5)
        assert time.monotonic() - begun < 3
        assert not h.server._connections
        assert len(h.heard.of("closed")) == 10
        for socket in sockets:
            socket.transport.abort()
            await socket.wait_closed()


async def test_stop_ends_handshakes_too_and_the_port_is_free_after_it() -> None:
    async with hub() as h:
        port = h.server.port
        _, half = await asyncio.open_connection("127.0.0.1", port)
        await h.server.stop()
        half.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await h.server.stop()


async def test_a_server_can_be_started_again_after_a_stop() -> None:
    async with hub() as h:
        await h.server.stop()
        await h.server.start()
        async with h.connect("edge-1"):
            assert h.server.get("edge-1") is not None


async def test_a_node_that_comes_while_the_hub_stops_is_sent_away() -> None:
    async with hub() as h:
        h.server._stopping = True
        with pytest.raises(InvalidStatus) as caught:
            await h.connect("edge-1")
        assert caught.value.response.status_code == 503
        h.server._stopping = False


async def test_the_server_certificate_can_be_renewed_under_live_sessions() -> None:
    from cloudhub.pki.contexts import load_identity

    async with hub() as h, h.connect("edge-1") as socket:
        renewed = h.ca.issue_server_certificate(addresses=["127.0.0.1"], dns_names=[], now=utc_now())
        context = h.server._acceptor._ssl_context
        assert context is not None
        load_identity(context, renewed)
        async with h.connect("edge-2") as second:
            ssl_object = second.transport.get_extra_info("ssl_object")
            serial = int(ssl_object.getpeercert()["serialNumber"], 16)
            assert serial == renewed.certificate.serial_number
        await socket.send(report("edge-1", "still here"))
        await eventually(lambda: h.heard.of("message"))


async def _connect(h: Hub, count: int) -> list[ClientConnection]:
    contexts = {number: node_context(h.ca, f"edge-{number}") for number in range(count)}
    sockets = await asyncio.gather(*(h.connect(f"edge-{number}", context=contexts[number]) for number in contexts))
    assert len(list(h.server.connected())) == count
    return list(sockets)


def _has_heard(h: Hub, messages: int) -> bool:
    return len(h.heard.of("message")) == messages


@pytest.mark.parametrize("end", ["lost", "close frame", "protocol error", "disconnected", "replaced"])
async def test_a_session_that_ended_leaves_nothing_for_the_garbage_collector(end: str) -> None:
    """`cloudhub.collector` hides sessions from it, so nothing of them may wait for it."""
    async with hub() as h:
        context = node_context(h.ca, "edge-1")
        gc.collect()
        gc.disable()
        try:
            sockets = [await asyncio.to_thread(_bare_client, context, h.server.port)]
            if end == "close frame":
                sockets[0].sendall(b"\x88\x82\0\0\0\0\x03\xe8")
            elif end == "protocol error":
                sockets[0].sendall(b"\xff" * 8)
            elif end == "disconnected":
                h.server.disconnect("edge-1", "a test")
            elif end == "replaced":
                sockets.append(await asyncio.to_thread(_bare_client, context, h.server.port))
            for stream in sockets:
                await asyncio.to_thread(stream.close)
            await eventually(lambda: h.server.get("edge-1") is None)
            await eventually(lambda: not _connections())
        finally:
            gc.enable()


def _connections() -> list[object]:
    return [found for found in gc.get_objects() if type(found) is NodeConnection]


def _bare_client(context: ssl.SSLContext, port: int) -> ssl.SSLSocket:
    """Of which nothing is in this event loop: its handshake is done when this returns."""
    stream = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1")
    lines = [
        "GET /p/edge-1/events HTTP/1.1", "Host: hub", "Upgrade: websocket", "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", "node_id: edge-1",
        "project_id: p", "ConnectionUse: msg", "", "",
    ]  # fmt: skip
    stream.sendall("\r\n".join(lines).encode())
    assert stream.recv(4096).startswith(b"HTTP/1.1 101")
    return stream
