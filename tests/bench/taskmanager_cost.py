"""What a node task costs the taskManager, without any transport: run by hand, prints a table.

    python -m tests.bench.taskmanager_cost [--nodes 1000 10000] [--jobs 1] [--stock] [--repeat 1] [--profile FILE]

One process: the manager on a real SQLite file and uvloop, sessions and API in memory, the garbage collector as in the
hub. Nodes answer at once; what it takes to make their reports is not counted. ``--stock``: they are EdgeCores, which
say nothing of features and acknowledge nothing. ``loop`` is the part of the event loop's thread, the rest is the
store's.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import structlog
import uvloop

from cloudhub.collector import settle
from cloudhub.metrics import Metrics
from cloudhub.store.engine import open_database
from cloudhub.store.queue import TaskQueue
from cloudhub.taskmanager.manager import TaskManager
from cloudhub.taskmanager.ports import JobObject, SessionInfo
from shared.wire import Feature, Group, Message, Operation, Source, decode, encode_bytes, new_message
from tests.integration.taskmanager.world import FakeNodes, FakeSecrets

IMAGE = "registry.example/team/app:v1"


class API:
    """Jobs whose status is written; what it costs the client library is not counted, the JSON text is."""

    def __init__(self) -> None:
        self.objects: dict[str, JobObject] = {}
        self.sizes: list[int] = []
        self.ended: dict[str, float] = {}
        self.all_ended = asyncio.Event()
        self.status_keys: frozenset[str] | None = None
        self.keeps_progress = True

    def get(self, name: str) -> JobObject | None:
        return self.objects.get(name)

    def list(self) -> Iterable[JobObject]:
        return list(self.objects.values())

    def on_change(self, callback: Any) -> None:
        self.callback = callback

    async def synced(self) -> None:
        return None

    def lost_status(self, name: str) -> bool:
        return False

    async def release(self, *, name: str, uid: str) -> None:
        return None

    async def patch_status(self, *, name: str, uid: str, status: Mapping[str, Any]) -> None:
        self.sizes.append(len(json.dumps(status)))
        await asyncio.sleep(0.005)
        self.objects[name] = replace(self.objects[name], status={"state": status["state"]})
        self.callback(name)
        if status["state"] in ("Successful", "Failed"):
            self.ended[name] = time.perf_counter()
            if len(self.ended) == len(self.objects):
                self.all_ended.set()


class Nodes:
    """Sessions whose nodes check and pull at once."""

    def __init__(self, *, stock: bool) -> None:
        self.features = frozenset[Feature]() if stock else frozenset(Feature)
        self.live: dict[str, SessionInfo] = {}
        self.manager: TaskManager
        self.tasks: set[asyncio.Task[None]] = set()
        self.acknowledged = 0
        self.own = 0.0
        """Seconds of the processor that went into making reports."""

    def connect(self, names: Iterable[str]) -> None:
        for serial, name in enumerate(names, start=1):
            self.live[name] = SessionInfo(name, serial, self.features, None)
            self.manager.session_opened(self.live[name])

    def get(self, node: str) -> SessionInfo | None:
        return self.live.get(node)

    def connected(self) -> Iterable[str]:
        return self.live

    def send(self, node: str, message: Message) -> bool:
        if message.route.operation == Operation.ACK:
            self.acknowledged += 1
            return True
        task = asyncio.ensure_future(self._work(self.live[node], message))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return True

    async def _work(self, session: SessionInfo, asked: Message) -> None:
        begun = time.thread_time()
        # As they come off the wire: a content of plain values, nothing of it shared.
        reports = [decode(text) for text in self._texts(asked)]
        self.own += time.thread_time() - begun
        await self.manager.messages_received(session, reports)

    def _texts(self, asked: Message) -> Iterable[bytes]:
        images = json.dumps([{"image": IMAGE, "status": "True", "reason": ""}])
        for action, extend in (("Check", ""), ("Pull", images)):
            content = {"action": action, "succ": True, "finishTime": "", "reason": "", "extend": extend}
            if self.features:
                content["task"] = {key: asked.content["task"][key] for key in ("job_uid", "attempt")}
            yield encode_bytes(
                new_message(
                    source=Source.WEBSOCKET,
                    group=Group.HUB,
                    resource=asked.route.resource,
                    operation=Operation.REPORT,
                    content=content,
                )
            )


@dataclass
class Figures:
    nodes: int
    jobs: int
    seconds: float
    cpu: float
    loop: float
    """Of that, the event loop's thread."""
    stall: float
    writes: int
    largest: int
    spread: float
    tasks: int = field(init=False)

    def __post_init__(self) -> None:
        self.tasks = self.nodes * self.jobs

    def line(self) -> str:
        return (
            f"{self.jobs:5} x {self.nodes:6}  {self.seconds:7.2f} s  {self.cpu:7.2f} CPU-s  "
            f"{self.tasks / self.cpu:8.0f} tasks/CPU-s  {1e6 * self.cpu / self.tasks:6.0f} us/task "
            f"(loop {1e6 * self.loop / self.tasks:.0f})  "
            f"stall {1000 * self.stall:5.0f} ms  {self.writes:4} writes, largest {self.largest:7} B  "
            f"first to last end {100 * self.spread:4.0f} %"
        )


async def watch_stalls(longest: list[float]) -> None:
    """The longest time that the loop's thread worked without a turn for this. Its own CPU time: on a machine that
    others use too, the wall's time would count their turns."""
    while True:
        before = time.thread_time()
        await asyncio.sleep(0)
        longest[0] = max(longest[0], time.thread_time() - before)
        await asyncio.sleep(0.002)


async def measure(nodes: int, jobs: int, *, stock: bool, profile: cProfile.Profile | None) -> Figures:
    names = [f"edge-node-{number:05}" for number in range(nodes)]
    api, sessions, known = API(), Nodes(stock=stock), FakeNodes()
    known.add(*names)
    with tempfile.TemporaryDirectory() as folder:
        store = TaskQueue(engine=await open_database(Path(folder) / "queue.db", "queue"))
        manager = TaskManager(
            store=store, jobs=api, nodes=known, secrets=FakeSecrets(), sessions=sessions, metrics=Metrics()
        )
        sessions.manager = manager
        sessions.connect(names)
        running = asyncio.create_task(manager.run())
        await asyncio.sleep(0.5)
        settle(2)
        longest = [0.0]
        watch = asyncio.create_task(watch_stalls(longest))
        if profile is not None:
            profile.enable()
        wall, cpu, loop = time.perf_counter(), time.process_time(), time.thread_time()
        for number in range(jobs):
            template = {"images": [IMAGE], "nodeNames": names, "concurrency": nodes}
            name = f"job-{number}"
            api.objects[name] = JobObject(f"uid-{number}", name, 1, "1", {"imagePrePullTemplate": template}, {})
            api.callback(name)
        await api.all_ended.wait()
        seconds, used = time.perf_counter() - wall, time.process_time() - cpu - sessions.own
        own = time.thread_time() - loop - sessions.own
        if profile is not None:
            profile.disable()
        assert all(found.status["state"] == "Successful" for found in api.objects.values())
        await asyncio.gather(*sessions.tasks)
        assert sessions.acknowledged == (0 if stock else 2 * nodes * jobs)
        for task in (watch, running):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await store.close()
    ends = [moment - wall for moment in api.ended.values()]
    return Figures(
        nodes=nodes,
        jobs=jobs,
        seconds=seconds,
        cpu=used,
        loop=own,
        stall=longest[0],
        writes=len(api.sizes),
        largest=max(api.sizes),
        spread=(max(ends) - min(ends)) / max(ends),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--stock", action="store_true", help="nodes are EdgeCores")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each")
    parser.add_argument("--profile", type=Path, help="write what cProfile saw, and print what was hot")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    profile = cProfile.Profile() if options.profile else None
    for nodes in options.nodes:
        for _ in range(options.repeat):
            found = uvloop.run(measure(nodes, options.jobs, stock=options.stock, profile=profile))
            sys.stdout.write(found.line() + "\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(f"peak resident memory {peak} MB\n")
    if profile is not None:
        profile.dump_stats(options.profile)
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
