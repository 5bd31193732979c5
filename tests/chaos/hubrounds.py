"""The hub dies, or is told to end, at a random moment in the life of a job of 200 nodes."""

from __future__ import annotations

from tests.chaos.image import image
from tests.chaos.rounds import Round, Scene
from tests.chaos.world import Plan


class HubKilled(Round):
    name = "hub-killed"
    about = "SIGKILL of the hub at a random moment of a job of 200 nodes"
    times = 100

    async def play(self, scene: Scene) -> None:
        job = await scene.job(concurrency=scene.random.choice((40, 50, 70, 200)))
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
        job = await scene.job(images=images, concurrency=random.choice((20, 40, 80)), tolerate="0.5")
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
        job = await scene.job(concurrency=scene.random.choice((40, 50, 200)))
        await scene.some_time_of(job)
        await scene.world.stop_hub()
        await scene.world.start_hub()
        await scene.ended(job)


class StockHubKilled(HubKilled):
    name = "stock-hub-killed"
    about = "as hub-killed, over nodes that announce nothing and remember nothing"
    times = 30
    plan = Plan(stock=True)


class StockHubKilledOften(HubKilledOften):
    name = "stock-hub-killed-often"
    about = "as hub-killed-often, over nodes that announce nothing and remember nothing"
    plan = Plan(stock=True)
