"""Stock nodes of both dialects in all weathers, by a seed: links that break, reports that are lost or come twice, a hub
that dies, full queues, jobs that share a Secret. At the end every image is where its credential lets it be.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from tests.integration.taskmanager.edgecore import EdgeCore, Registries
from tests.integration.taskmanager.test_stock_secrets import IMAGES, USERS, secret
from tests.integration.taskmanager.world import World, open_world

VERSIONS = ["v1.27.7-kubeedge-v1.16.0", "v1.32.10-kubeedge-v1.23.1", "", "v1.30.7"]
KNOWS = [frozenset({"v1alpha1"}), frozenset({"v1alpha1", "v1alpha2"}), frozenset({"v1alpha1"}), None]
JOBS = {"one": IMAGES[:1], "all": IMAGES, "open": IMAGES[2:3] + IMAGES[4:], "two": IMAGES[1:3]}


class Weather:
    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.registries = Registries(USERS)
        self.edges: list[EdgeCore] = []
        for number, (version, knows) in enumerate(zip(VERSIONS, KNOWS, strict=True)):
            name = f"edge-{number}"
            world.nodes.add(name, version=version)
            known = knows if knows is not None else frozenset({"v1alpha1", "v1alpha2"})
            asks_first = self.random.random() < 0.5
            edge = EdgeCore(world, name, self.registries, knows=known, asks_first=asks_first)
            edge.connect()
            self.edges.append(edge)

    async def step(self) -> None:
        edge = self.random.choice(self.edges)
        match self.random.randrange(9):
            case 0 | 1:
                edge.loses = not edge.loses
            case 2 | 3 if edge.name in self.world.sessions.live:
                edge.reconnect()
            case 4:
                edge.told_twice = not edge.told_twice
            case 5:
                edge.acknowledges = not edge.acknowledges
            case 6:
                self.world.sessions.full ^= {edge.name}
            case 7:
                await edge.say_again()
            case 8 if self.random.random() < 0.3:
                await self.world.restart()
        self.world.clock.advance(self.random.choice([0.1, 0.5, 1.5]))
        await asyncio.sleep(self.random.random() * 0.01)

    def clears_up(self) -> None:
        self.world.sessions.full.clear()
        for edge in self.edges:
            edge.loses = edge.told_twice = False
            edge.reconnect()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_image_comes_where_it_should_whatever_happens(tmp_path: Path, seed: int) -> None:
    async with open_world(tmp_path, dialect_timeout=5) as world:
        weather = Weather(world, seed)
        secret(world)
        names = [edge.name for edge in weather.edges]
        for name, images in JOBS.items():
            world.job(name, nodes=names, images=images, concurrency=4, timeoutSeconds=100_000, imageSecrets="default/x")
        for _ in range(60):
            await weather.step()
        weather.clears_up()

        def states() -> dict[str, Any]:
            return {name: world.status(name).get("state") for name in JOBS}

        def over() -> bool:
            world.clock.advance(0.2)
            return set(states().values()) <= {"Successful", "Failed"}

        await world.until(over, within=60)
        assert states() == dict.fromkeys(JOBS, "Successful"), {name: world.status(name) for name in JOBS}
        for edge in weather.edges:
            assert not edge.crashed
            assert set(edge.pulled) == set(IMAGES)
        # No credential was ever at the door of a registry that is not its own.
        assert set(weather.registries.seen) <= {(host, user) for host, (user, _) in USERS.items()}
