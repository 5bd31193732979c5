"""The hub dies, or is told to end, at a random moment in the life of a job of 200 nodes."""

from __future__ import annotations

import asyncio
import shutil

from tests.chaos.image import image
from tests.chaos.rounds import Round, Scene
from tests.chaos.world import Plan, World
from tests.e2e.processes import eventually


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
