"""What may happen to a world, each as a block: begun, and undone at its end. Rounds put them together.

A `Trouble` happens while a job runs, an `Extra` in the middle of a trouble: the hub dies or is told to end, the job is
deleted and made again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from cloudhub.kube.jobs import JOBS_PATH
from tests.chaos.evidence import Job
from tests.chaos.image import image
from tests.chaos.rounds import Scene

Trouble = Callable[[Scene], AbstractAsyncContextManager[None]]
Extra = Callable[[Scene, Job], Awaitable[None]]


# --- Troubles ---------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def hub_dead(scene: Scene) -> AsyncIterator[None]:
    await scene.world.kill_hub()
    yield
    if not scene.world.cloud.program.running:
        await scene.world.start_hub()


@contextlib.asynccontextmanager
async def fleet_dead(scene: Scene) -> AsyncIterator[None]:
    """A part of the simulated nodes without power."""
    fleet = scene.random.choice(scene.world.fleets)
    await scene.world.kill_fleet(fleet)
    try:
        yield
        await scene.wait(0.0, 1.0)
    finally:
        await scene.world.start_fleet(fleet)


@contextlib.asynccontextmanager
async def agents_dead(scene: Scene) -> AsyncIterator[None]:
    """Some of the real agents."""
    world = scene.world
    dead = scene.random.sample(world.agents, scene.random.randint(1, len(world.agents)))
    for agent in dead:
        await world.kill_agent(agent)
    try:
        yield
        await scene.wait(0.0, 1.0)
    finally:
        for agent in dead:
            await world.start_agent(agent)


@contextlib.asynccontextmanager
async def api_away(scene: Scene) -> AsyncIterator[None]:
    """The API server is killed and stays away until /readyz has said so."""
    world = scene.world
    with world.faults.of("api", must_show=True):
        world.api_answers = False
        await world.kill_api()
        try:
            yield
            if not await world.observer.until_sampled(lambda sample: sample.code == 503, within=60):
                world.problems.append("/readyz did not become red while the API server was away")
            await scene.wait(0.0, 2.0)
        finally:
            await world.start_api()
            await _api_is_back(scene)


@contextlib.asynccontextmanager
async def api_hangs(scene: Scene) -> AsyncIterator[None]:
    """It is there, takes connections, and says nothing."""
    world = scene.world
    with world.faults.of("api"):
        world.api_answers = False
        os.kill(world.cloud.api.pid, signal.SIGSTOP)
        try:
            yield
            await scene.wait(0.0, 3.0)
        finally:
            os.kill(world.cloud.api.pid, signal.SIGCONT)
            await _api_is_back(scene)


async def _api_is_back(scene: Scene) -> None:
    scene.world.api_answers = True
    while scene.when_api_is_back:
        await scene.when_api_is_back.pop()()


@contextlib.asynccontextmanager
async def api_restarted(scene: Scene) -> AsyncIterator[None]:
    with scene.world.faults.of("api"):
        await scene.world.kill_api()
        await scene.world.start_api()
    yield


@contextlib.asynccontextmanager
async def api_slow(scene: Scene) -> AsyncIterator[None]:
    proxy = scene.world.proxy
    with scene.world.faults.of("api"):
        proxy.hit.clear()
        proxy.delay = (0.1, scene.random.choice((1.0, 4.0)))
        try:
            yield
            await _hit(scene)
            await scene.wait(0.5, 2.0)
        finally:
            proxy.well()


def api_answers(*codes: int) -> Trouble:
    """With one of these in turn, now and then or always."""

    @contextlib.asynccontextmanager
    async def trouble(scene: Scene) -> AsyncIterator[None]:
        proxy = scene.world.proxy
        with scene.world.faults.of("api"):
            proxy.hit.clear()
            proxy.share = scene.random.choice((0.5, 0.9, 1.0))
            proxy.code = codes[scene.number % len(codes)]
            if proxy.code != 409:
                # Who watches meets it when the watch has ended.
                proxy.close_watches()
            try:
                yield
                await _hit(scene)
                # Else the last status of all, which alone says how it ended, would mostly be written after it.
                await scene.until(lambda: _nodes_have_ended(scene), within=10.0)
                await scene.wait(0.5, 3.0)
            finally:
                proxy.well()

    return trouble


def _nodes_have_ended(scene: Scene) -> bool:
    """Those of the job that was made last."""
    job = scene.jobs[-1]
    done = {deed.node for deed in scene.world.deeds() if deed.uid == job.uid and deed.kind in ("finished", "failed")}
    return done >= set(job.nodes)


@contextlib.asynccontextmanager
async def watches_closed(scene: Scene) -> AsyncIterator[None]:
    """No watch lives long, and those that there are end now."""
    proxy = scene.world.proxy
    with scene.world.faults.of("api"):
        proxy.hit.clear()
        proxy.watch_seconds = scene.random.choice((0.05, 0.5, 1.0))
        proxy.close_watches()
        try:
            yield
            await _hit(scene)
            await scene.wait(0.5, 2.0)
        finally:
            proxy.well()


@contextlib.asynccontextmanager
async def history_lost(scene: Scene) -> AsyncIterator[None]:
    """Nobody may go on from where he was. What went away meanwhile, only a list can tell: by its absence."""
    proxy, world = scene.world.proxy, scene.world
    nodes = scene.random.sample(world.simulated, 5)
    doomed = await scene.job("doomed", nodes=nodes, images=[image(f"{scene.label}-doomed", seconds=1.0)])
    await scene.so_far(doomed, 0.0)
    with world.faults.of("api"):
        proxy.hit.clear()
        proxy.code, proxy.share = 410, 1.0
        proxy.close_watches()
        # Else it may still be told of it.
        await _hit(scene)
        await scene.delete(doomed)
        try:
            yield
            await scene.wait(0.5, 2.0)
        finally:
            proxy.compacted = await _newest_version(scene)
            proxy.well()


async def _newest_version(scene: Scene) -> int:
    page = await scene.world.api.request("GET", JOBS_PATH, query={"limit": "1"})
    return int(page["metadata"]["resourceVersion"])


@contextlib.asynccontextmanager
async def answers_lost(scene: Scene) -> AsyncIterator[None]:
    """Requests are done, and nobody hears of it."""
    proxy = scene.world.proxy
    with scene.world.faults.of("api"):
        proxy.hit.clear()
        proxy.lose_answers, proxy.share = True, scene.random.choice((0.3, 0.7))
        try:
            yield
            await _hit(scene)
            await scene.wait(0.5, 2.0)
        finally:
            proxy.well()


async def _hit(scene: Scene) -> None:
    """A trouble that nobody ran into is none: a hub may take long to start."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            await scene.world.proxy.hit.wait()


# --- Extras -----------------------------------------------------------------------------------------------------


async def nothing(scene: Scene, job: Job) -> None:
    await scene.wait(0.0, 1.5)


async def kill(scene: Scene, job: Job) -> None:
    """Waits for nothing: with its API server away, a hub cannot become ready."""
    await scene.wait(0.0, 1.0)
    if scene.world.cloud.program.running:
        await scene.world.kill_hub()
        await scene.world.start_hub(wait=False)
    await scene.wait(0.0, 1.0)


async def stop(scene: Scene, job: Job) -> None:
    """By SIGTERM, once or twice: the second life may still be in its start."""
    if not scene.world.api_answers:
        # How the job ended is for another life to say.
        await scene.until(lambda: _nodes_have_ended(scene), within=10.0)
    for _ in range(scene.random.randint(1, 2)):
        await scene.wait(0.0, 1.5)
        if scene.world.cloud.program.running:
            await scene.world.stop_hub()
            await scene.world.start_hub(wait=False)
    await scene.wait(0.0, 1.0)


async def make_again(scene: Scene, job: Job) -> None:
    """Deletes the job and makes another of its name, with the same images or others."""
    await scene.wait(0.0, 1.0)
    if not scene.world.api_answers:
        # At once when it is there again: before the hub has listed.
        scene.when_api_is_back.append(lambda: _make_again(scene, job))
    else:
        await _make_again(scene, job)


async def _make_again(scene: Scene, job: Job) -> None:
    await scene.delete(job)
    if scene.random.random() < 0.5:
        # A moment in which there is none; else the hub may see the second at once.
        await scene.wait(0.0, 0.5)
    others = (
        [image(f"{job.name}-again")] if scene.random.random() < 0.5 and job.nodes[0] not in _agents(scene) else None
    )
    await scene.job(
        job.name.removeprefix(f"{scene.label}-"),
        nodes=job.nodes,
        images=others or job.images,
        concurrency=job.concurrency,
        tolerate=job.tolerate,
        timeout_seconds=job.timeout_seconds,
        no_timeouts=job.no_timeouts,
        no_failures=job.no_failures,
    )


def _agents(scene: Scene) -> set[str]:
    return {agent.name for agent in scene.world.agents}


EXTRAS: Final[tuple[Extra, ...]] = (nothing, make_again, kill, stop)
