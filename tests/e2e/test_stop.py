"""Told to stop while everything is wrong at once, a hub ends in order and in time, and the next one goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.e2e.processes import ClusterCloud, eventually
from tests.e2e.test_failures import job
from tests.parts.smalldisk import SmallDisk
from tests.simulator import Fleet

pytestmark = pytest.mark.e2e

PROJECT = "e632aba927ea4ac2b575ec1603d56f10"


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[ClusterCloud]:
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:
        cluster = ClusterCloud(Path(folder), {"taskManager": {"enable": True}})
        try:
            yield cluster
        finally:
            await cluster.program.kill()
            await cluster.api.kill()


async def test_a_hub_stops_within_its_time_whatever_else_is_wrong(cluster: ClusterCloud) -> None:
    with SmallDisk(cluster.folder / "queue", size=4 << 20) as disk:
        await cluster.start_api()
        await cluster.start()
        fleet = Fleet(
            websocket_port=cluster.websocket_port,
            https_port=cluster.https_port,
            token=await cluster.token(),
            files=cluster.folder,
            mute={"edge-1"},
        )
        names = ["edge-1", "edge-2"]
        async with fleet.connected(names), contextlib.AsyncExitStack() as peers:
            await _deaf(cluster, fleet, peers)
            await cluster.apply(job("stopped", ["registry.example/app:v1"], names, timeoutSeconds=600))
            await cluster.until("stopped", lambda status: status["counts"]["running"] == 1)
            for port in (cluster.websocket_port, cluster.https_port, cluster.metrics_port):
                half_open = peers.enter_context(socket.create_connection(("127.0.0.1", port)))
                half_open.sendall(b"\x16\x03\x01")
            os.kill(cluster.api.pid, signal.SIGSTOP)
            disk.fill()

            async def red() -> bool:
                return "the disk is full" in (await cluster.monitor("/readyz"))[1]

            await eventually("readyz says that the disk is full", red)
            # The exit code says that it was in order, and `stop` that it was in time.
            assert await cluster.program.stop() == 0, cluster.program.tail()
            os.kill(cluster.api.pid, signal.SIGCONT)
            disk.free()
            await cluster.start()
            await eventually("the nodes are back", lambda: _sessions(cluster, len(names)))
            status = await cluster.status("stopped")
            assert status["counts"]["running"] == 1, status


async def _deaf(cluster: ClusterCloud, fleet: Fleet, peers: contextlib.AsyncExitStack) -> None:
    """Some with a session who read nothing any more, not that it ends either."""
    for name in ("deaf-1", "deaf-2"):
        link = await connect(
            f"wss://127.0.0.1:{cluster.websocket_port}/{PROJECT}/{name}/events",
            ssl=await fleet.join(name),
            additional_headers={"node_id": name, "project_id": PROJECT, "ConnectionUse": "msg"},
            compression=None,
            proxy=None,
            ping_interval=None,
        )
        link.transport.pause_reading()
        peers.callback(link.transport.abort)
    await asyncio.sleep(0)


async def _sessions(cluster: ClusterCloud, count: int) -> bool:
    return f"cloudhub_sessions {count}.0" in (await cluster.monitor("/metrics"))[1]
