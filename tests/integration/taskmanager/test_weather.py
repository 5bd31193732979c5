"""Everything at once, by a seed: nodes that come, go, fail and fall silent, jobs that are edited, deleted and made
anew, an API and a disk that go away, and a hub that dies. At the end every task has one final state, and it is true.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from cloudhub.store import writer
from cloudhub.store.records import Commit
from cloudhub.taskmanager.ports import Unavailable
from tests.integration.taskmanager.world import OURS, Asked, FakeNode, FullDisk, World, open_world

NODES = [f"n{number}" for number in range(12)]
JOBS = ["one", "two", "three"]


class Weather:
    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.pulled: dict[tuple[str, str | None, int | None], bool] = {}
        """Our nodes' journals: what was done, and how it went."""
        self.broken = set(self.random.sample(NODES, 3))

    # --- Nodes -------------------------------------------------------------------------------------------------------

    async def work(self, node: FakeNode, asked: Asked) -> None:
        key = (node.name, asked.uid, asked.attempt)
        try:
            for _ in range(self.random.randrange(4)):
                await asyncio.sleep(0.001)
            if key not in self.pulled and self.random.random() < 0.1:
                return  # it fell silent, as if it had been killed before it did anything
            # Not earlier: asked again meanwhile, another of its lives may have done the work and said so.
            succ = self.pulled.setdefault(key, node.name not in self.broken)
            await self.world.sessions.check(node.name, asked)
            await self.world.sessions.pull(node.name, asked, succ=succ)
        except (AssertionError, KeyError):
            return  # the link broke while it spoke; it will be asked again

    def connect_all(self) -> None:
        missing = [name for name in NODES if name not in self.world.sessions.live]
        self.world.sessions.connect(*missing, features=OURS, behaviour=self.work)

    # --- Events ------------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        await self.random.choice(
            [
                self.node_goes,
                self.node_goes,
                self.node_comes,
                self.node_comes,
                self.node_comes_again,
                self.queue_is_full,
                self.job_is_made_or_edited,
                self.job_is_made_or_edited,
                self.job_is_deleted,
                self.api_is_away,
                self.disk_is_full,
                self.hub_dies,
                self.time_passes,
                self.time_passes,
            ]
        )()
        self.world.clock.advance(0.2)
        await asyncio.sleep(self.random.random() * 0.02)

    async def node_goes(self) -> None:
        if self.world.sessions.live:
            self.world.sessions.disconnect(self.random.choice(sorted(self.world.sessions.live)))

    async def node_comes(self) -> None:
        missing = [name for name in NODES if name not in self.world.sessions.live]
        if missing:
            self.world.sessions.connect(self.random.choice(missing), behaviour=self.work)

    async def node_comes_again(self) -> None:
        self.world.sessions.connect(self.random.choice(NODES), behaviour=self.work)

    async def queue_is_full(self) -> None:
        full = self.world.sessions.full
        full.symmetric_difference_update({self.random.choice(NODES)})

    async def job_is_made_or_edited(self) -> None:
        name = self.random.choice(JOBS)
        old = self.world.jobs.get(name)
        template = dict(old.spec["imagePrePullTemplate"]) if old else {"images": ["i"], "nodeNames": NODES}
        template |= {
            "concurrency": self.random.randint(1, 6),
            "failureTolerate": self.random.choice(["0.1", "0.3", "1"]),
            "timeoutSeconds": self.random.randint(20, 60),
        }
        self.world.jobs.apply(name, template)

    async def job_is_deleted(self) -> None:
        if self.world.jobs.objects and self.random.random() < 0.5:
            self.world.jobs.delete(self.random.choice(sorted(self.world.jobs.objects)))

    async def api_is_away(self) -> None:
        self.world.jobs.problem = None if self.world.jobs.problem else Unavailable("away")

    async def disk_is_full(self) -> None:
        self.disk.full = not self.disk.full

    async def hub_dies(self) -> None:
        if self.random.random() < 0.4:
            await self.world.sessions.close()
            await self.world.kill()
            await self.world.start()
            self.watch()

    async def time_passes(self) -> None:
        self.world.clock.advance(self.random.choice([1, 5, 30]))

    # --- What must hold ----------------------------------------------------------------------------------------------

    def watch(self) -> None:
        self.disk = FullDisk(self.world.store, full=False)
        original = self.world.store.on_commit
        before: dict[str, int] = {}

        def on_commit(commit: Commit) -> None:
            for job in commit.jobs.values():
                # Lowered concurrency stops nobody who is at work; it only lets nobody begin.
                in_flight = job.tally.in_flight
                assert in_flight <= max(job.concurrency, before.get(job.uid, in_flight))
                before[job.uid] = max(job.concurrency, in_flight)
            original(commit)

        self.world.store.on_commit = on_commit


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_every_task_comes_to_one_true_end(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PROBE_SECONDS", 0.01)
    async with open_world(tmp_path, node_tasks=2) as world:
        weather = Weather(world, seed)
        weather.watch()
        world.nodes.add(*NODES)
        weather.connect_all()
        await weather.job_is_made_or_edited()
        for _ in range(60):
            await weather.step()
        world.jobs.problem = None
        weather.disk.has_space()
        world.sessions.full.clear()
        weather.connect_all()

        def all_ended() -> bool:
            world.clock.advance(0.2)
            states = [found.status.get("state") for found in world.jobs.list()]
            return all(state in ("Successful", "Failed") for state in states)

        await world.until(all_ended, within=60)
        await world.sessions.settle()
        for found in world.jobs.list():
            entries = {entry["nodeStatus"]["nodeName"]: entry["nodeStatus"] for entry in found.status["status"]}
            assert sorted(entries) == sorted(NODES)
            assert found.status["counts"]["total"] == len(NODES)
            for node, entry in entries.items():
                ways = {succ for (name, uid, _), succ in weather.pulled.items() if (name, uid) == (node, found.uid)}
                assert entry["state"] in ("Successful", "Failed")
                if entry["state"] == "Successful":
                    assert True in ways
                elif entry["event"] == "Pull":
                    assert False in ways
                else:
                    # Timed out, or never begun: whoever said it had pulled was too late.
                    assert entry["event"] in ("TimeOut", "Init")
        for _ in range(1000):
            # A deletion that met a full disk is tried again after a while.
            kept = {name for _, name in await world.store.names()}
            if kept == set(world.jobs.objects):
                break
            world.clock.advance(0.2)
            await asyncio.sleep(0.005)
        assert kept == set(world.jobs.objects)
        assert await world.store.live_tasks_of(NODES) == []
