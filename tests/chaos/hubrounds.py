"""The hub dies, or is told to end, at a random moment in the life of a job of 200 nodes."""

from __future__ import annotations

import asyncio
import shutil
from typing import Final

from tests.chaos.image import image
from tests.chaos.rounds import Round, Scene
from tests.chaos.world import Plan, World
from tests.e2e.processes import eventually

JOBS_AT_ONCE: Final = 20
"""Fewer than a node may be asked for at a time: nobody has to wait for a report before the next turn."""


class HubKilled(Round):
    name = "hub-killed"
    about = "SIGKILL of the hub at a random moment of a job of 200 nodes"
    times = 100

    async def play(self, scene: Scene) -> None:
        job = await scene.job(no_timeouts=True, concurrency=scene.random.choice((40, 50, 70, 200)))
        await scene.some_time_of(job)
        await scene.world.kill_hub()
        await scene.world.start_hub()
        await scene.ended(job)


class HubKilledInTurns(Round):
    name = "hub-killed-in-turns"
    about = "SIGKILL of the hub while it gives nodes the tasks of many jobs: whoever was asked is known to have been"
    times = 5

    async def play(self, scene: Scene) -> None:
        world = scene.world
        jobs = [
            await scene.job(
                f"job-{number}",
                images=[image(f"{scene.label}-{number}", seconds=0.5)],
                concurrency=len(world.simulated),
                no_timeouts=True,
                no_failures=True,
            )
            for number in range(JOBS_AT_ONCE)
        ]
        so_many = scene.random.uniform(0.05, 0.9) * len(jobs) * len(world.simulated)
        await scene.until(lambda: world.asked() >= so_many, within=60.0, every=0.01)
        await world.kill_hub()
        await world.start_hub()
        await scene.all_ended(jobs)


class HubKilledOften(Round):
    name = "hub-killed-often"
    about = "SIGKILL of the hub again and again, also while it starts; some nodes fail"
    times = 5

    async def play(self, scene: Scene) -> None:
        random, world = scene.random, scene.world
        images = [image(f"{scene.label}-job", seconds=0.3, failing=9)]
        job = await scene.job(images=images, concurrency=random.choice((20, 40, 80)), tolerate="0.5", no_timeouts=True)
        for _ in range(random.randint(2, 5)):
            await scene.wait(0.0, 1.5)
            await world.kill_hub()
            # Half of the lives are too short for the hub to become ready.
            await world.start_hub(wait=random.random() < 0.5)
        await world.hub_ready()
        await scene.ended(job)


class HubStopped(Round):
    name = "hub-stopped"
    about = "SIGTERM to the hub at a random moment: a clean end, and it goes on from there"
    times = 10

    async def play(self, scene: Scene) -> None:
        job = await scene.job(no_timeouts=True, concurrency=scene.random.choice((40, 50, 200)))
        await scene.some_time_of(job)
        await scene.world.stop_hub()
        await scene.world.start_hub()
        await scene.ended(job)


class HubKilledAtBirth(Round):
    name = "hub-killed-at-birth"
    about = "SIGKILL of a hub that makes its store and its certificate for the first time, again and again"
    times = 3

    async def play(self, scene: Scene) -> None:
        random, world = scene.random, scene.world
        await world.kill_hub()
        for _ in range(random.randint(3, 6)):
            if random.random() < 0.5:
                await asyncio.to_thread(_unmake, world)
            await world.start_hub(wait=False)
            # The interpreter loads the program for a second or more; then all is made within a few tenths.
            await _until_it_logs(scene)
            await scene.wait(0.0, 0.4)
            await world.kill_hub()
        await world.start_hub()
        await scene.ended(await scene.job(no_timeouts=True))


def _unmake(world: World) -> None:
    """What a hub makes on its disk, but for the CA that all nodes know."""
    shutil.rmtree(world.folder / "queue", ignore_errors=True)
    for name in ("server.crt", "server.key"):
        (world.folder / "pki" / name).unlink(missing_ok=True)


async def _until_it_logs(scene: Scene) -> None:
    async def logged() -> bool:
        return (await asyncio.to_thread(scene.world.cloud.program.log.stat)).st_size > scene.world.logged

    await eventually("the hub says a first word", logged)


class StockHubKilled(HubKilled):
    name = "stock-hub-killed"
    about = "as hub-killed, over nodes that announce nothing and remember nothing"
    times = 15
    plan = Plan(stock=True)


class StockHubKilledOften(HubKilledOften):
    name = "stock-hub-killed-often"
    about = "as hub-killed-often, over nodes that announce nothing and remember nothing"
    plan = Plan(stock=True)
