"""Ten thousand simulated edge nodes in one process of their own, over real sockets with a certificate each.

They speak KubeEdge's wire. A node answers ``Check`` and then ``Pull``, each after the delay that it was given, sends
its keepalive, and comes back when its hub was away. Stock nodes announce nothing, and a report on a broken link is
lost, as with EdgeCore. With ``ack`` they are as our agent is: what was not acknowledged is sent again, and a task that
is asked again is answered with what was done, never done again.

A session is one small object on the transport, without task or timer of its own: the simulator shares the machine with
what is measured. Run as a process, it is told what to do by `tests.bench.lines`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final, cast

import uvloop
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from shared import wire
from tests.bench.identities import NodeIdentities
from tests.bench.lines import serve

AT_ONCE: Final = 1000
"""Connections under way. More would measure the kernel's queue of connections to accept."""
SOURCES: Final = 8
"""Addresses 127.0.0.2 and on, which nodes come from in turn: one has 28,000 ports to come from."""
SLICE: Final = 0.25
"""Keepalives are sent in slices of this many seconds, so that they are spread over their interval."""
RETRY: Final = 0.1


class Node(asyncio.Protocol):
    """One node, over all its connections. What it was asked and did outlives the link."""

    __slots__ = ("_fleet", "_open", "_transport", "_ws", "context", "done", "name", "opened", "unsent")

    def __init__(self, fleet: Fleet, name: str, context: ssl.SSLContext) -> None:
        self._fleet = fleet
        self.name = name
        self.context = context
        self._transport: asyncio.Transport | None = None
        self._ws: ClientProtocol
        self._open = False
        self.opened: asyncio.Future[bool] | None = None
        self.unsent: dict[str, bytes] = {}
        """Reports by message id, until they are acknowledged; of a stock node, none."""
        self.done: dict[str, list[tuple[str, bytes]]] = {}
        """By job: its reports, so far."""

    @property
    def is_open(self) -> bool:
        """Whether it may send: a hub that ends in order says so before the link goes."""
        return self._open and self._ws.state is State.OPEN

    # --- The link ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        fleet = self._fleet
        uri = parse_uri(f"wss://{fleet.host}:{fleet.port}/{wire.DEFAULT_PROJECT_ID}/{self.name}/events")
        self._ws = ClientProtocol(uri, max_size=wire.MAX_FRAME_BYTES)
        request = self._ws.connect()
        request.headers[wire.HEADER_NODE_ID] = self.name
        request.headers[wire.HEADER_PROJECT_ID] = wire.DEFAULT_PROJECT_ID
        request.headers[wire.HEADER_CONNECTION_USE] = "msg"
        if fleet.ack:
            request.headers[wire.HEADER_FEATURES] = wire.Feature.ACK
        self._ws.send_request(request)
        self._write()

    def data_received(self, data: bytes) -> None:
        self._ws.receive_data(data)
        for event in self._ws.events_received():
            if isinstance(event, Frame):
                if event.opcode is Opcode.TEXT:
                    self._fleet.received(self, json.loads(bytes(event.data)))
            elif isinstance(event, Response):
                self._answered()
        self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        was_open, self._open, self._transport = self._open, False, None
        self._settle(opened=False)
        self._fleet.lost(self, was_open=was_open)

    def _answered(self) -> None:
        if self._ws.handshake_exc is not None:
            self._settle(opened=False)
            return
        self._open = True
        self.keep_alive()
        for frame in self.unsent.values():
            self._ws.send_text(frame)
        self._settle(opened=True)

    def _settle(self, *, opened: bool) -> None:
        if self.opened is not None and not self.opened.done():
            self.opened.set_result(opened)

    def keep_alive(self) -> None:
        if self.is_open:
            self._ws.send_text(self._fleet.keepalive_frame)
            self._write()

    def send(self, frame: bytes) -> None:
        if self.is_open:
            self._ws.send_text(frame)
            self._write()

    def _write(self) -> None:
        if self._transport is not None:
            data = b"".join(self._ws.data_to_send())
            if data:
                self._transport.write(data)


class Rounds:
    """Which slice of the nodes is to send its keepalive: each one once in ``interval``, by the clock. While all of them
    connect the loop is late time and again; were each slice late in its turn, a round would take longer than the hub
    waits for a keepalive."""

    def __init__(self, interval: float, *, begun: float) -> None:
        self.slices = max(1, round(interval / SLICE))
        self.pause = interval / self.slices
        self._begun = begun
        self._done = 0

    def due(self, now: float) -> list[int]:
        """Since the last call; each at most once."""
        turn = int((now - self._begun) / self.pause)
        late = range(max(self._done, turn - self.slices), turn)
        self._done = turn
        return [position % self.slices for position in late]


class Fleet:
    """All nodes of the process, and what they saw."""

    def __init__(self, folder: Path) -> None:
        self._identities = NodeIdentities(folder)
        self._nodes: list[Node] = []
        self._ids = itertools.count(1)
        self._connecting = asyncio.Semaphore(AT_ONCE)
        self._background: set[asyncio.Task[None]] = set()
        self._door: asyncio.Task[float] | None = None
        self.host, self.port = "127.0.0.1", 0
        self.delay, self.ack = 0.0, False
        self.keepalive_frame = wire.encode_bytes(wire.keepalive())
        self._open: set[str] = set()
        self._all_open = asyncio.Event()
        self._door_opened = 0.0
        self._lost = 0
        self._dispatches: Counter[tuple[str, str]] = Counter()
        self._pulls: Counter[tuple[str, str]] = Counter()
        self._acknowledged: set[tuple[str, str]] = set()
        self._after_acknowledged = 0
        self._reported: dict[str, dict[str, float]] = {}

    # --- Commands ---------------------------------------------------------------------------------------------------

    async def prepare(self, *, count: int, prefix: str = "n") -> dict[str, Any]:
        names = [f"{prefix}{number:05}" for number in range(count)]
        self._nodes = [Node(self, name, self._identities.context(name)) for name in names]
        return {"nodes": names}

    async def connect(
        self, *, port: int, delay: float = 0.0, ack: bool = False, keepalive: float = 15.0
    ) -> dict[str, Any]:
        """All nodes, which `prepare` made. ``seconds``: until the last one's session is open."""
        self.port, self.delay, self.ack = port, delay, ack
        begun = time.monotonic()
        # From the first session on: on a slow machine the last one opens when the first has had to send several.
        self._spawn(self._keep_alive(keepalive))
        for node in self._nodes:
            self._spawn(self._dial(node))
        await self._all_open.wait()
        return {"seconds": time.monotonic() - begun, "open": len(self._open)}

    async def back(self) -> dict[str, Any]:
        """Waits until all are open again; ``seconds`` since the hub let the first one in."""
        await self._all_open.wait()
        return {"seconds": time.monotonic() - self._door_opened, "open": len(self._open)}

    async def counts(self) -> dict[str, Any]:
        """``twice``: node tasks asked more than once; ``pulled_twice``: begun more than once, or asked again after
        their end was acknowledged."""
        return {
            "open": len(self._open),
            "lost": self._lost,
            "dispatched": len(self._dispatches),
            "twice": sum(count > 1 for count in self._dispatches.values()),
            "pulled_twice": sum(count > 1 for count in self._pulls.values()) + self._after_acknowledged,
        }

    async def reports(self, *, job: str) -> dict[str, Any]:
        """When each node's last report was sent, by the machine's monotonic clock; in order."""
        return {"times": sorted(self._reported.get(job, {}).values())}

    # --- Links ------------------------------------------------------------------------------------------------------

    async def _dial(self, node: Node) -> None:
        source = f"127.0.0.{2 + int(node.name[-5:]) % SOURCES}"
        loop = asyncio.get_running_loop()
        while True:
            async with self._connecting:
                node.opened = loop.create_future()
                try:
                    await loop.create_connection(
                        lambda: node, self.host, self.port, ssl=node.context, server_hostname=self.host,
                        local_addr=(source, 0), ssl_handshake_timeout=120,
                    )  # fmt: skip
                    opened = await node.opened
                except OSError as error:
                    sys.stderr.write(f"{node.name}: {error!r}\n")
                    opened = False
            if opened:
                self._open.add(node.name)
                if len(self._open) == len(self._nodes):
                    self._all_open.set()
                return
            await asyncio.sleep(RETRY)

    def lost(self, node: Node, *, was_open: bool) -> None:
        self._open.discard(node.name)
        if self._all_open.is_set():
            self._all_open.clear()
            self._door_opened = 0.0
        if was_open:
            self._lost += 1
            if self._door is None or self._door.done():
                self._door = asyncio.create_task(self._wait_for_the_door())
            self._spawn(self._return(node, self._door))

    async def _return(self, node: Node, door: asyncio.Task[float]) -> None:
        opened = await door
        # The first one of this outage: a node that loses its link once more does not make the rest come back sooner.
        self._door_opened = self._door_opened or opened
        await self._dial(node)

    async def _wait_for_the_door(self) -> float:
        """One tries for all until there is a listener: ten thousand that try would slow down the hub's start."""
        while True:
            try:
                _, writer = await asyncio.open_connection(self.host, self.port)
            except OSError:
                await asyncio.sleep(RETRY)
            else:
                writer.close()
                return time.monotonic()

    async def _keep_alive(self, interval: float) -> None:
        rounds = Rounds(interval, begun=time.monotonic())
        while True:
            await asyncio.sleep(rounds.pause)
            for position in rounds.due(time.monotonic()):
                for node in self._nodes[position :: rounds.slices]:
                    node.keep_alive()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # --- Tasks ------------------------------------------------------------------------------------------------------

    def received(self, node: Node, message: dict[str, Any]) -> None:
        route = message["route"]
        operation = route["operation"]
        if operation == wire.Operation.ACK:
            self._acked(node, message["header"]["parent_msg_id"])
        elif operation in (wire.Operation.CHECK, wire.Operation.PULL):
            self._asked(node, route["resource"], message["content"])

    def _acked(self, node: Node, report: str) -> None:
        node.unsent.pop(report, None)
        for job, reports in node.done.items():
            if len(reports) == 2 and reports[1][0] == report:
                self._acknowledged.add((job, node.name))

    def _asked(self, node: Node, resource: str, content: dict[str, Any]) -> None:
        job = resource.split("/")[3]
        task = (job, node.name)
        self._dispatches[task] += 1
        if task in self._acknowledged:
            self._after_acknowledged += 1
        if self.ack and job in node.done:
            for _, frame in node.done[job]:
                node.send(frame)
            return
        self._pulls[task] += 1
        node.done[job] = []
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self._checked, node, job, resource, content)
        else:
            self._checked(node, job, resource, content)

    def _checked(self, node: Node, job: str, resource: str, content: dict[str, Any]) -> None:
        self._report(node, job, resource, content, wire.Operation.CHECK, "")
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self._pulled, node, job, resource, content)
        else:
            self._pulled(node, job, resource, content)

    def _pulled(self, node: Node, job: str, resource: str, content: dict[str, Any]) -> None:
        images = content["imagePrePullTemplate"]["images"]
        results = json.dumps([{"image": image, "status": "True", "reason": ""} for image in images])
        self._reported.setdefault(job, {})[node.name] = time.monotonic()
        self._report(node, job, resource, content, wire.Operation.PULL, results)

    def _report(self, node: Node, job: str, resource: str, asked: dict[str, Any], action: str, extend: str) -> None:
        content = {"action": action, "succ": True, "finishTime": _now(), "reason": "", "extend": extend}
        if self.ack and asked.get("task"):
            content["task"] = {key: asked["task"][key] for key in ("job_uid", "attempt")}
        report = f"{next(self._ids):032x}"
        document = {
            "header": {"msg_id": report, "timestamp": time.time_ns() // 1_000_000},
            "route": {
                "source": wire.Source.WEBSOCKET,
                "group": wire.Group.HUB,
                "operation": wire.Operation.REPORT,
                "resource": resource,
            },
            "content": content,
        }
        frame = json.dumps(document).encode()
        if self.ack:
            node.unsent[report] = frame
            node.done[job].append((report, frame))
        node.send(frame)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


async def main(folder: Path) -> None:
    fleet = Fleet(folder)
    await serve(
        {
            "prepare": fleet.prepare,
            "connect": fleet.connect,
            "back": fleet.back,
            "counts": fleet.counts,
            "reports": fleet.reports,
        }
    )


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
