"""The hub that is measured: `cloudhub run` in a process of its own, against the embedded API in another."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil
from pydantic_core import from_json

from cloudhub.kube.client import KubeClient
from cloudhub.kube.jobapi import path_of
from cloudhub.taskmanager.ports import Unavailable
from shared.jobs import API_GROUP, LATER_VERSION
from tests.bench.identities import create_ca
from tests.e2e.processes import ClusterCloud, eventually

IMAGE: Final = "registry.example/team/app:v1"
JOBS: Final = path_of(LATER_VERSION)
"""The stored version, in which an object is as large as it is."""
FINAL: Final = ("Successful", "Failed")


@dataclass(slots=True)
class Seen:
    """One job, as a watch saw it."""

    created: float
    state: str = ""
    ended: float = 0.0
    writes: int = 0
    largest: int = 0
    succeeded: list[tuple[float, int]] = field(default_factory=list)
    """When the status first told of so many nodes that succeeded."""

    def longest_gap(self, reports: list[float]) -> float:
        """The longest time from a node's last report to a status that counts it. ``reports`` in order."""
        longest, told = 0.0, 0
        for moment, count in self.succeeded:
            if count > told:
                # Of those that this status is the first to count, the earliest waited longest.
                longest = max(longest, moment - reports[told]) if told < len(reports) else longest
                told = count
        return longest


class Hub:
    """API server, hub, and a watch on the jobs. Times are of the machine's monotonic clock."""

    def __init__(self, folder: Path, *, node_limit: int) -> None:
        self.pki = folder / "pki"
        create_ca(self.pki)
        settings = {"cloudHub": {"nodeLimit": node_limit}, "taskManager": {"enable": True}}
        self.cloud = ClusterCloud(folder, settings, debug=False)
        self.jobs: dict[str, Seen] = {}
        self._api: KubeClient
        self._changed = asyncio.Event()
        self._cpu_of_the_dead = 0.0
        self._stall_of_the_dead = {"stall_ms": 0.0, "busy_ms": 0.0}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.cloud.api.stop)
            await self.cloud.start_api()
            self._api = await KubeClient.connect(kubeconfig=str(self.cloud.kubeconfig), qps=10_000, burst=10_000)
            stack.push_async_callback(self._api.close)
            stack.push_async_callback(self.cloud.program.stop)
            await self.cloud.start()
            watch = asyncio.create_task(self._watch(), name="bench-watch")
            try:
                yield
            finally:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)

    async def kill_and_start(self) -> None:
        self._cpu_of_the_dead, self._stall_of_the_dead = self.cpu(), await self.stall()
        await self.cloud.program.kill()
        await self.cloud.start()

    @property
    def port(self) -> int:
        return self.cloud.websocket_port

    def cpu(self) -> float:
        """Processor seconds, user and system, of all lives of the hub."""
        used = psutil.Process(self.cloud.program.pid).cpu_times()
        return float(used.user + used.system) + self._cpu_of_the_dead

    def resident(self) -> float:
        """MB"""
        return float(psutil.Process(self.cloud.program.pid).memory_info().rss) / 1e6

    async def stall(self) -> dict[str, float]:
        """Milliseconds, the longest since the hub was ready, of all its lives: how late its loop was, and its own part
        in that."""
        _, text = await self.cloud.monitor("/metrics")
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        found = {
            "stall_ms": 1000 * float(values["cloudhub_event_loop_stall_seconds_max"]),
            "busy_ms": 1000 * float(values["cloudhub_event_loop_busy_seconds_max"]),
        }
        return {name: max(value, self._stall_of_the_dead[name]) for name, value in found.items()}

    # --- Jobs -------------------------------------------------------------------------------------------------------

    async def create_job(self, name: str, nodes: list[str]) -> None:
        """All nodes at once."""
        template = {"images": [IMAGE], "nodeNames": nodes, "concurrency": len(nodes), "timeoutSeconds": 600}
        body = {
            "apiVersion": f"{API_GROUP}/{LATER_VERSION}",
            "kind": "ImagePrePullJob",
            "metadata": {"name": name},
            "spec": {"imagePrePullTemplate": template},
        }
        self.jobs[name] = Seen(created=time.monotonic())
        await self._api.request("POST", JOBS, body=body, timeout=120)

    async def until_ended(self, *names: str, within: float = 600) -> None:
        await self._until(lambda: all(self.jobs[name].ended for name in names), within, f"jobs end: {names[:3]}")

    async def until_succeeded(self, name: str, count: int, *, within: float = 600) -> None:
        def reached() -> bool:
            told = self.jobs[name].succeeded
            return bool(told) and told[-1][1] >= count

        await self._until(reached, within, f"{count} nodes of {name} succeed")

    async def _until(self, holds: Any, within: float, what: str) -> None:
        try:
            async with asyncio.timeout(within):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            state = {name: (seen.state, seen.succeeded[-1:]) for name, seen in list(self.jobs.items())[:5]}
            raise RuntimeError(f"{what}: not within {within:.0f} s; {state}\n{self.cloud.program.tail()}") from None

    async def _watch(self) -> None:
        """Every event counts as a write of the hub's, but the one that tells of the job's creation."""
        version = "0"
        while True:
            query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
            with contextlib.suppress(Unavailable):
                async with self._api.stream(JOBS, query=query, silence=600) as lines:
                    async for line in lines:
                        version = self._note(line, version)

    def _note(self, line: bytes, version: str) -> str:
        now = time.monotonic()
        event = from_json(line)
        metadata = event["object"]["metadata"]
        seen = self.jobs.get(metadata.get("name", ""))
        if seen is not None:
            status = event["object"].get("status", {})
            # The watch's envelope, {"type":"MODIFIED","object":...}, is 30 bytes.
            seen.largest = max(seen.largest, len(line) - 30)
            seen.writes += event["type"] == "MODIFIED"
            succeeded = status.get("counts", {}).get("succeeded", 0)
            if not seen.succeeded or succeeded > seen.succeeded[-1][1]:
                seen.succeeded.append((now, succeeded))
            seen.state = status.get("state", "")
            if seen.state in FINAL and not seen.ended:
                seen.ended = now
            self._changed.set()
        return str(metadata["resourceVersion"])


async def settled(hub: Hub, *, seconds: float = 1.0) -> float:
    """Resident memory once the hub has been idle for a while."""

    async def idle() -> bool:
        before = hub.cpu()
        await asyncio.sleep(seconds)
        return hub.cpu() - before < 0.3 * seconds

    await eventually("the hub is idle", idle, within=60)
    return hub.resident()
