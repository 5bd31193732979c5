"""The session over a real WebSocket on mutual TLS: KubeEdge's shapes, losses of every kind, and the way back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from edgehub.link.connection import Channel, Link, LinkSettings
from edgehub.link.errors import NotConnected
from edgehub.link.identity import IdentityFiles
from shared import wire
from shared.wire import Feature, Message, NodeInfo, new_message
from tests.integration.edgehub.conftest import NODE, give_identity
from tests.integration.edgehub.hub import CA, PROJECT, Hub


class Owner:
    """The listener; ``delay`` makes it a slow one."""

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self.received_messages: list[Message] = []
        self.history: list[str] = []

    def connected(self, channel: Channel) -> None:
        self.channel = channel
        self.history.append("connected")

    def disconnected(self) -> None:
        self.channel = None
        self.history.append("disconnected")

    async def received(self, message: Message) -> None:
        self.received_messages.append(message)


class Bench:
    def __init__(self, hub: Hub, files: IdentityFiles) -> None:
        self.hub = hub
        self.files = files
        self.owner = Owner()
        self.slept: list[float] = []
        self.allow_sleep = asyncio.Event()
        self.allow_sleep.set()
        self.link = self._new({})
        self._task: asyncio.Task[None] | None = None

    def _new(self, settings: dict[str, Any]) -> Link:
        return Link(
            settings=LinkSettings(
                **{"host": "127.0.0.1", "port": self.hub.port, "node": NODE, "project_id": PROJECT, **settings}
            ),
            context=self.files.client_context,
            node_info=lambda: NodeInfo(architecture="arm64", containerRuntimeVersion="containerd://1.6.20"),
            listener=self.owner,
            sleep=self._sleep,
            uniform=lambda _low, high: high,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.hub.changed.set()
        await self.allow_sleep.wait()
        await asyncio.sleep(0.005)

    def start(self, **settings: Any) -> None:
        self.link = self._new(settings)
        self._task = asyncio.create_task(self.link.run(), name="link")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - of several parties, one of them the link's state
                await asyncio.sleep(0.005)

    async def channel(self) -> Channel:
        """What the link gave its owner, once it is connected."""
        await self.until(lambda: self.owner.channel is not None)
        assert self.owner.channel is not None
        return self.owner.channel


@pytest.fixture
async def bench(hub: Hub, files: IdentityFiles) -> AsyncIterator[Bench]:
    give_identity(hub.ca, files)
    bench = Bench(hub, files)
    yield bench
    await bench.stop()


def _text(content: str) -> Message:
    return new_message(source="websocket", group="hub", resource="r", operation="o", content=content)


async def test_the_handshake_is_kubeedges_with_our_headers_beside(bench: Bench) -> None:
    bench.start()
    session = await bench.hub.session()
    assert session.path == f"/{PROJECT}/{NODE}/events"
    assert session.headers["node_id"] == NODE
    assert session.headers["project_id"] == PROJECT
    assert session.headers["ConnectionUse"] == "msg"
    assert session.headers["X-Edgehub-Features"] == "ack,cancel,credentials,progress"
    assert json.loads(session.headers["X-Edgehub-Node-Info"]) == {
        "architecture": "arm64",
        "containerRuntimeVersion": "containerd://1.6.20",
    }
    assert "Sec-WebSocket-Extensions" not in session.headers
    assert session.certificate.subject.rfc4514_string() == f"CN=system:node:{NODE},O=system:nodes"


async def test_the_first_keepalive_goes_out_at_once_and_is_kubeedges_byte_for_byte(bench: Bench) -> None:
    bench.start()
    session = await bench.hub.session()
    await bench.hub.until(lambda: bool(session.frames))
    message = json.loads(session.frames[0])
    header = message["header"]
    assert set(header) == {"msg_id", "timestamp"}
    assert session.frames[0] == (
        f'{{"header":{{"msg_id":"{header["msg_id"]}","timestamp":{header["timestamp"]}}},'
        '"route":{"source":"websocket","group":"resource","operation":"keepalive","resource":"node"},'
        '"content":"ping"}'
    )


async def test_keepalives_go_on_each_heartbeat(bench: Bench) -> None:
    bench.start(heartbeat=0.02)
    session = await bench.hub.session()
    await bench.hub.until(lambda: len(session.keepalives) >= 4)


async def test_what_the_hub_announced_is_known(bench: Bench) -> None:
    bench.hub.features = "ack, teleport"
    bench.start()
    assert (await bench.channel()).features == {Feature.ACK}


async def test_a_cloudcore_announces_nothing(bench: Bench) -> None:
    bench.hub.features = None
    bench.start()
    assert (await bench.channel()).features == frozenset()


async def test_messages_are_handed_over_in_order_and_garbage_is_skipped(bench: Bench) -> None:
    bench.start()
    session = await bench.hub.session()
    for frame in ('{"header":{"msg_id":"1"}}', "no json", "[]", '{"route":{}}', '{"header":{"msg_id":"2"},"extra":1}'):
        await session.socket.send(frame)
    await session.socket.send(b'{"header":{"msg_id":"3"}}')
    await bench.until(lambda: len(bench.owner.received_messages) == 3)
    assert [message.header.msg_id for message in bench.owner.received_messages] == ["1", "2", "3"]
    assert bench.link.state.ignored_frames == 3
    assert bench.owner.history == ["connected"]


async def test_a_frame_beyond_the_limit_ends_the_session(bench: Bench) -> None:
    bench.start()
    session = await bench.hub.session()
    await session.socket.send("x" * (wire.MAX_FRAME_BYTES + 1))
    await bench.hub.session(2)
    assert session.socket.close_code == 1009


async def test_a_frame_of_the_limit_arrives(bench: Bench) -> None:
    bench.start()
    session = await bench.hub.session()
    head, tail = '{"header":{"msg_id":"1"},"content":"', '"}'
    await session.socket.send(head + "x" * (wire.MAX_FRAME_BYTES - len(head) - len(tail)) + tail)
    await bench.until(lambda: len(bench.owner.received_messages) == 1)


async def test_a_session_that_the_hub_closes_comes_back_and_the_reason_is_known(bench: Bench) -> None:
    bench.allow_sleep.clear()
    bench.start()
    session = await bench.hub.session()
    await session.socket.close(1008, "node limit reached")
    await bench.until(lambda: bool(bench.slept))
    assert bench.link.state.last_error == "closed with code 1008: node limit reached"
    assert not bench.link.state.connected
    bench.allow_sleep.set()
    await bench.hub.session(2)
    await bench.until(lambda: bench.owner.history == ["connected", "disconnected", "connected"])


async def test_a_broken_connection_comes_back(bench: Bench) -> None:
    bench.start()
    session = await bench.hub.session()
    session.socket.transport.abort()
    await bench.hub.session(2)


async def test_a_hub_that_restarts_is_found_again(bench: Bench) -> None:
    bench.start()
    await bench.hub.session()
    await bench.hub.stop()
    await bench.until(lambda: "Connect" in bench.link.state.last_error or "connect" in bench.link.state.last_error)
    await bench.hub.start()
    await bench.hub.session(2)


async def test_waits_grow_while_the_hub_is_away(bench: Bench) -> None:
    await bench.hub.stop()
    bench.start()
    await bench.until(lambda: len(bench.slept) >= 6)
    assert bench.slept[:6] == [4, 8, 16, 32, 60, 60]
    assert bench.link.state.failures >= 6


async def test_sessions_that_end_at_once_do_not_start_the_waits_afresh(bench: Bench) -> None:
    bench.start()
    for number in range(1, 4):
        session = await bench.hub.session(number)
        await session.socket.close(1008, "replaced")
    await bench.until(lambda: len(bench.slept) >= 3)
    assert bench.slept[:3] == [4, 8, 16]


@pytest.mark.parametrize(("status", "text"), [(401, "certificate is of another node"), (503, "stopping")])
async def test_a_refused_handshake_is_told_in_the_hubs_words(bench: Bench, status: int, text: str) -> None:
    bench.hub.refuse = (status, text)
    bench.start()
    await bench.until(lambda: len(bench.slept) >= 2)
    assert bench.link.state.last_error == f"the hub refused with {status}: {text}"
    bench.hub.refuse = None
    await bench.hub.session()


async def test_a_hub_of_another_ca_is_not_believed(bench: Bench) -> None:
    bench.files.store_ca(CA().pem)
    bench.start()
    await bench.until(lambda: bool(bench.slept))
    assert "not of the CA that this node trusts" in bench.link.state.last_error
    assert bench.hub.sessions == []


async def test_a_name_that_is_not_in_the_hubs_certificate_is_said_to_be_missing(bench: Bench) -> None:
    bench.start(host="localhost")
    await bench.until(lambda: bool(bench.slept))
    assert "the hub's certificate is not for localhost" in bench.link.state.last_error


async def test_a_certificate_that_is_gone_is_a_reason_and_heals(bench: Bench) -> None:
    aside = bench.files.key.with_name("aside")
    bench.files.key.rename(aside)
    bench.start()
    await bench.until(lambda: bool(bench.slept))
    assert "no certificate with its key" in bench.link.state.last_error
    aside.rename(bench.files.key)
    await bench.hub.session()


async def test_a_peer_that_answers_no_ping_is_dead(bench: Bench) -> None:
    bench.hub.silent = True
    bench.start(heartbeat=0.05, read_deadline=0.1, close_timeout=0.1)
    await bench.hub.session(2)


async def test_a_peer_that_takes_nothing_is_left_after_the_write_deadline(bench: Bench) -> None:
    bench.hub.silent = True
    bench.start(heartbeat=60, write_deadline=0.2, close_timeout=0.1)
    channel = await bench.channel()
    with pytest.raises(NotConnected, match=r"took nothing for 0\.2 s"):
        await _send_without_end(channel)
    await bench.hub.session(2)


async def _send_without_end(channel: Channel) -> None:
    while True:
        await channel.send(_text("x" * 500_000))


async def test_an_offer_is_sent_when_the_link_is_idle_and_dropped_while_it_is_not(bench: Bench) -> None:
    bench.start(heartbeat=60)
    session = await bench.hub.session()
    channel = await bench.channel()

    async def offer(text: str) -> None:
        async with asyncio.timeout(60):
            while not await channel.offer(_text(text)):  # noqa: ASYNC110 - what was sent before is still on its way
                await asyncio.sleep(0.01)

    await offer("taken")
    await bench.hub.until(lambda: any(message["content"] == "taken" for message in session.messages))
    session.socket.transport.pause_reading()
    sending = asyncio.create_task(channel.send(_text("x" * 1_000_000)), name="sending")
    await asyncio.sleep(0)  # it has written, and waits for room
    assert not await channel.offer(_text("dropped"))
    session.socket.transport.resume_reading()
    await sending
    await offer("taken again")
    await bench.hub.until(lambda: session.messages[-1]["content"] == "taken again", within=60)
    assert not any(message["content"] == "dropped" for message in session.messages)


async def test_an_offer_after_the_end_is_no_harm(bench: Bench) -> None:
    bench.start()
    session = await bench.hub.session()
    channel = await bench.channel()
    await session.socket.close()
    await bench.hub.session(2)
    with contextlib.suppress(NotConnected):
        assert not await channel.offer(_text("late"))


async def test_offers_leave_half_of_the_burst_to_what_must_be_sent(bench: Bench) -> None:
    bench.start(heartbeat=60, message_qps=0.001, message_burst=4)
    session = await bench.hub.session()
    channel = await bench.channel()
    sent = 0
    while sent < 3:
        sent += await channel.offer(_text("offered"))
        await asyncio.sleep(0.01)
    assert not await channel.offer(_text("too many"))
    await channel.send(_text("a report"))
    await bench.hub.until(lambda: session.messages[-1]["content"] == "a report")


async def test_a_send_after_the_end_is_not_connected(bench: Bench) -> None:
    bench.start()
    session = await bench.hub.session()
    channel = await bench.channel()
    await session.socket.close()
    await bench.hub.session(2)
    with pytest.raises(NotConnected):
        await channel.send(_text("late"))


async def test_messages_beyond_the_burst_go_out_at_the_rate(bench: Bench) -> None:
    bench.start(message_qps=50, message_burst=5, heartbeat=60)
    session = await bench.hub.session()
    channel = await bench.channel()
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number in range(15):
        await channel.send(_text(str(number)))
    assert loop.time() - start >= 10 / 50 * 0.9
    await bench.hub.until(lambda: len(session.frames) >= 16)


async def test_a_new_certificate_is_taken_at_once_without_a_wait(bench: Bench) -> None:
    bench.start()
    first = await bench.hub.session()
    await bench.until(lambda: bench.link.state.connected)
    give_identity(bench.hub.ca, bench.files)
    await bench.link.reconnect("renewed")
    second = await bench.hub.session(2)
    assert second.certificate.serial_number != first.certificate.serial_number
    assert bench.slept == []


async def test_an_end_by_cancellation_closes_politely(bench: Bench) -> None:
    bench.start()
    session = await bench.hub.session()
    await bench.until(lambda: bench.link.state.connected)
    await bench.stop()
    await session.ended.wait()
    assert session.socket.close_code == 1000
    assert bench.owner.history == ["connected", "disconnected"]


async def test_a_node_info_that_is_too_large_is_left_out(bench: Bench) -> None:
    bench.link = Link(
        settings=LinkSettings(host="127.0.0.1", port=bench.hub.port, node=NODE, project_id=PROJECT),
        context=bench.files.client_context,
        node_info=lambda: NodeInfo(osImage="x" * 256, kernelVersion="貓" * 10),
        listener=bench.owner,
    )
    running = asyncio.create_task(bench.link.run(), name="link")
    session = await bench.hub.session()
    assert "X-Edgehub-Node-Info" not in session.headers
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def test_the_url_of_a_v6_hub_has_brackets(tmp_path: Path) -> None:
    settings = LinkSettings(host="::1", port=10000, node="n", project_id="p")
    assert settings.url == "wss://[::1]:10000/p/n/events"
