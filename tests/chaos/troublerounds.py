"""Rounds of one make: a job runs, a trouble begins, something happens in its middle, the trouble is undone.

What happens in the middle goes through `troubles.EXTRAS` in turn, so that in four rounds of a kind each has come: none,
the job deleted and made again under its name, the hub killed, the hub told to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import ClassVar, Final

from cloudhub.taskmanager.manager import TaskManagerSettings
from tests.chaos import troubles
from tests.chaos.evidence import Job
from tests.chaos.image import image
from tests.chaos.rounds import Round, Scene
from tests.chaos.store import rows_of
from tests.chaos.troubles import EXTRAS, Extra, Trouble, make_again, nothing
from tests.chaos.world import Plan, World

NODE_TASKS: Final = TaskManagerSettings().node_tasks
"""What a node is asked for at a time."""
PROXIED = Plan(proxied=True)
AGENTS = Plan(nodes=40, fleets=2, agents=4)
STOCK = Plan(stock=True)


class TroubleRound(Round):
    what: ClassVar[tuple[Trouble, ...]]
    """Begun in this order, undone in the reverse."""
    extras: ClassVar[tuple[Extra, ...]] = EXTRAS
    times = 4

    async def play(self, scene: Scene) -> None:
        job = await self.make(scene)
        await scene.some_time_of(job)
        async with AsyncExitStack() as stack:
            for trouble in self.what:
                await stack.enter_async_context(trouble(scene))
            await self.extras[scene.number % len(self.extras)](scene, job)
        await scene.world.hub_ready()

    async def make(self, scene: Scene) -> Job:
        concurrency = scene.random.choice((30, 50, 80, 200))
        return await scene.job(no_timeouts=True, no_failures=True, concurrency=concurrency)


class APIStopped(TroubleRound):
    name = "api-stopped"
    about = "the API server is away for some seconds, and /readyz says so"
    what = (troubles.api_away,)


class APIRestarted(TroubleRound):
    name = "api-restarted"
    about = "the API server is killed and started again at once"
    what = (troubles.api_restarted,)


class APIHangs(TroubleRound):
    name = "api-hangs"
    about = "the API server takes connections and says nothing"
    what = (troubles.api_hangs,)


class APISlow(TroubleRound):
    name = "api-slow"
    about = "every request to the API server takes up to 4 s"
    what = (troubles.api_slow,)
    plan = PROXIED


class APIErrors(TroubleRound):
    name = "api-errors"
    about = "the API server answers 409, 410, 429, 500 or 503, now and then or always"
    what = (troubles.api_answers(409, 410, 429, 500, 503),)
    plan = PROXIED
    # Each answer with each extra.
    times = 20


class WatchesClosed(TroubleRound):
    name = "api-watches-closed"
    about = "watches end within moments, some in the middle of a line"
    what = (troubles.watches_closed,)
    plan = PROXIED


class HistoryLost(TroubleRound):
    name = "api-history-lost"
    about = "watches end, and what they knew is too old for good: 410 until all is listed; a job was deleted meanwhile"
    what = (troubles.history_lost,)
    # A hub that starts lists in any case.
    extras = (nothing, make_again)
    plan = PROXIED


class AnswersLost(TroubleRound):
    name = "api-answers-lost"
    about = "the API server does what it is asked, and the connection breaks before it says so"
    what = (troubles.answers_lost,)
    plan = PROXIED


class Remade(TroubleRound):
    name = "hub-dead-job-remade"
    about = "while the hub is dead the job is deleted and made again, and other things happen"
    what = (troubles.hub_dead,)


class FleetKilled(TroubleRound):
    name = "nodes-killed"
    about = "half of the simulated nodes lose their power in the middle of their tasks"
    what = (troubles.fleet_dead,)


class BothKilled(TroubleRound):
    name = "nodes-and-hub-killed"
    about = "half of the simulated nodes lose their power, and so does the hub"
    what = (troubles.fleet_dead, troubles.hub_dead)


class NodesGone(Round):
    name = "nodes-gone"
    about = "half of the nodes die and stay away until all has ended without them; then all of their places are free"
    times = 4

    async def play(self, scene: Scene) -> None:
        world, random = scene.world, scene.random
        images = [image(f"{scene.label}-job", seconds=0.6)]
        job = await scene.job(images=images, concurrency=random.choice((80, 200)), timeout_seconds=4, tolerate="1")
        await scene.some_time_of(job)
        fleet = random.choice(world.fleets)
        full = random.sample(fleet.names, 3)
        others = [await self._other(scene, number, full) for number in range(NODE_TASKS)]
        await scene.until(lambda: _all_begun(world, others), within=20.0)
        await world.kill_fleet(fleet)
        if scene.number % 4 == 3:
            # Who was in flight then has a minute more: the hub was away too.
            await world.kill_hub()
            await world.start_hub()
        if scene.number % 2:
            for other in others:
                await scene.delete(other)
            others = []
        await scene.all_ended([job, *others])
        await world.start_fleet(fleet)
        images = [image(f"{scene.label}-freed", seconds=0.0)]
        await scene.ended(await scene.job("freed", nodes=full, images=images, timeout_seconds=20))

    @staticmethod
    async def _other(scene: Scene, number: int, nodes: Sequence[str]) -> Job:
        """One of those that take all places that these nodes have."""
        images = [image(f"{scene.label}-other", seconds=10.0)]
        return await scene.job(
            f"other-{number}", nodes=nodes, images=images, concurrency=len(nodes), timeout_seconds=8, tolerate="1"
        )


def _all_begun(world: World, jobs: Sequence[Job]) -> bool:
    """Whether all nodes were asked, by the store."""
    rows = rows_of(world.store, [job.uid for job in jobs])
    return all(len(rows[job.uid]) == len(job.nodes) and all(row.attempt for row in rows[job.uid]) for job in jobs)


class StockKilled(FleetKilled):
    name = "stock-nodes-killed"
    about = "as nodes-killed, over nodes that remember nothing"
    plan = STOCK


class StockBothKilled(BothKilled):
    name = "stock-nodes-and-hub-killed"
    about = "as nodes-and-hub-killed, over nodes that remember nothing"
    plan = STOCK


class StockRemade(Remade):
    name = "stock-job-remade"
    about = "as hub-dead-job-remade, over nodes that cannot tell the two jobs apart"
    plan = STOCK


class AgentRound(TroubleRound):
    """Of real agents, with simulated nodes beside them."""

    plan = AGENTS

    async def make(self, scene: Scene) -> Job:
        world = scene.world
        images = [await asyncio.to_thread(world.new_image, scene.label)]
        nodes = [*(agent.name for agent in world.agents), *world.simulated]
        concurrency = scene.random.choice((3, 10, 44))
        return await scene.job(nodes=nodes, images=images, concurrency=concurrency, no_timeouts=True, no_failures=True)


class AgentsKilled(AgentRound):
    name = "agents-killed"
    about = "real agents are killed while they pull from a real registry"
    what = (troubles.agents_dead,)


class AgentsAndHubKilled(AgentRound):
    name = "agents-and-hub-killed"
    about = "real agents are killed, and so is the hub"
    what = (troubles.agents_dead, troubles.hub_dead)


class AgentsHubKilled(AgentRound):
    name = "agents-hub-killed"
    about = "the hub is killed while real agents pull: they go on, and tell it later"
    what = (troubles.hub_dead,)
