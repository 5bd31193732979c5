"""A round: what is done to a world while jobs run, and the judgement after it."""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any, ClassVar, Final

from cloudhub.kube.jobs import JOBS_PATH
from cloudhub.taskmanager.ports import KubeError, NotFound
from tests.chaos.evidence import Evidence, Job
from tests.chaos.image import image, seconds_of
from tests.chaos.store import rows_of
from tests.chaos.verdict import SETTLE, judge
from tests.chaos.world import Plan, World

HANG: Final = 90.0
"""Seconds without any change beyond the deadline of a node task, after which a job hangs: a hub that was away gives
nodes 60 s to come back, and machines are slow."""
ACKNOWLEDGED: Final = 45.0
"""Seconds within which whoever has its session again is rid of its reports. Less than the minute after which an agent
sends what was not acknowledged by itself: that would hide that it sends nothing when it is back."""
PROBED: Final = 20
"""Nodes of the job after a round."""


class Round(ABC):
    """One kind of trouble. ``play`` may be called any number of times, each with a scene of its own."""

    name: ClassVar[str]
    about: ClassVar[str]
    """A line for `--list`."""
    times: ClassVar[int] = 1
    """How often `make chaos` plays it."""
    plan: ClassVar[Plan] = Plan()
    world: ClassVar[type[World]] = World

    @abstractmethod
    async def play(self, scene: Scene) -> None:
        """Returns with the world as it was: all that was killed is started again, no fault goes on."""


class Scene:
    """One time that a round is played."""

    def __init__(self, *, world: World, random: Random, label: str, number: int) -> None:
        self.world = world
        self.random = random
        self.label = label
        """Makes names unique in this world."""
        self.number = number
        self.when_api_is_back: list[Callable[[], Awaitable[None]]] = []
        """What can only be done then."""
        self.jobs: list[Job] = []
        self._given_up: set[str] = set()
        """Uids of jobs that were waited for in vain."""

    # --- Jobs -------------------------------------------------------------------------------------------------------

    async def job(
        self,
        name: str = "job",
        *,
        nodes: Sequence[str] | None = None,
        images: Sequence[str] | None = None,
        concurrency: int = 50,
        timeout_seconds: int = 120,
        tolerate: str = "0.1",
        retry_times: int = 0,
        true_reasons: Sequence[str] = (),
        no_timeouts: bool = False,
        no_failures: bool = False,
    ) -> Job:
        """Makes it in the API. By default of all simulated nodes, with an image that none has."""
        nodes = list(nodes if nodes is not None else self.world.simulated)
        full = f"{self.label}-{name}"
        images = list(images if images is not None else [image(full)])
        template: dict[str, Any] = {
            "images": images,
            "nodeNames": nodes,
            "concurrency": concurrency,
            "timeoutSeconds": timeout_seconds,
            "failureTolerate": tolerate,
            "retryTimes": retry_times,
        }
        body = {
            "apiVersion": "operations.kubeedge.io/v1alpha1",
            "kind": "ImagePrePullJob",
            "metadata": {"name": full},
            "spec": {"imagePrePullTemplate": template},
        }
        made_at = time.time()
        made = await self.world.api.request("POST", JOBS_PATH, body=body, timeout=60)
        job = Job(
            name=full,
            uid=str(made["metadata"]["uid"]),
            nodes=tuple(nodes),
            images=tuple(images),
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            tolerate=tolerate,
            made_at=made_at,
            true_reasons=tuple(true_reasons),
            no_timeouts=no_timeouts,
            no_failures=no_failures,
        )
        for other in self.jobs:
            if other.name == full:
                other.one_of_many = job.one_of_many = True
        if job.one_of_many:
            self.world.count("jobs made again")
        self.jobs.append(job)
        return job

    async def delete(self, job: Job) -> None:
        with suppress(NotFound):
            await self.world.api.request("DELETE", f"{JOBS_PATH}/{job.name}")
        job.deleted_at = time.time()

    async def ended(self, job: Job) -> bool:
        """Whether it came to its end, with a change of its status within each deadline; it is judged again later."""
        observer = self.world.observer
        while not observer.ended(job.uid):
            if job.uid in self._given_up:
                return False
            seen = len(observer.statuses[job.uid])

            def changed(seen: int = seen) -> bool:
                return len(observer.statuses[job.uid]) > seen

            if not await observer.until(changed, within=job.timeout_seconds + HANG):
                # Once: a round in which more than one job hangs is to end in time, and say so.
                self._given_up.add(job.uid)
        return True

    async def all_ended(self, jobs: Sequence[Job]) -> list[bool]:
        """Of each, whether it came to its end. All at once: many that hang take no longer than one."""
        return await asyncio.gather(*(self.ended(job) for job in jobs))

    async def so_far(self, job: Job, share: float, *, within: float = 60.0) -> bool:
        """Until so many of its nodes have ended, by its status."""
        wanted = share * len(job.nodes)

        def reached() -> bool:
            counts = self.world.observer.status(job.uid).get("counts", {})
            return bool(counts) and counts["succeeded"] + counts["failed"] >= wanted

        return await self.world.observer.until(reached, within=within)

    async def wait(self, least: float, most: float) -> None:
        """A random time; it is what makes the moment of a fault random."""
        await asyncio.sleep(self.random.uniform(least, most))

    @staticmethod
    async def until(holds: Callable[[], bool], *, within: float, every: float = 0.2) -> None:
        """Asks files, in a thread. If it does not come to hold, that is for the judgement to say."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if await asyncio.to_thread(holds):
                return
            await asyncio.sleep(every)

    async def some_time_of(self, job: Job) -> None:
        """Until a random moment of the life that it would have if nothing happened."""
        waves = -(-len(job.nodes) // job.concurrency)
        await self.wait(0.0, 0.3 + waves * 2 * seconds_of(job.images[0]))

    # --- The end ----------------------------------------------------------------------------------------------------

    async def finish(self) -> list[str]:
        """What is wrong."""
        world = self.world
        problems = await self._hanging([job for job in self.jobs if job.deleted_at is None])
        if not await world.observer.until_sampled(lambda sample: sample.code == 200, within=SETTLE):
            problems.append(f"the hub is not ready in the end\n{world.tail_of_hub()}")
        problems += [
            f"after the round, another job does not go through: {problem}"
            for problem in await self._hanging(await self._probes())
        ]
        await self.until(lambda: not world.unacknowledged(), within=ACKNOWLEDGED)
        evidence = await self.evidence()
        problems += world.problems
        problems += judge(evidence)
        await self._clean_up()
        return problems

    async def _probes(self) -> list[Job]:
        """Other jobs on the same nodes: they would wait for a slot that leaked."""
        used = {node for job in self.jobs for node in job.nodes}
        simulated = sorted(used & set(self.world.simulated))
        agents = sorted(used & {agent.name for agent in self.world.agents})
        probes: list[Job] = []
        if simulated:
            chosen = self.random.sample(simulated, min(PROBED, len(simulated)))
            images = [image(f"{self.label}-probe", seconds=0.0)]
            probes.append(await self.job("probe", nodes=chosen, images=images, no_failures=True))
        if agents:
            # Of images that they hold by now: nothing is fetched.
            images = next(list(job.images) for job in self.jobs if set(agents) & set(job.nodes))
            probes.append(await self.job("probe-agents", nodes=agents, images=images, no_failures=True))
        return probes

    async def evidence(self) -> Evidence:
        world = self.world
        blobs, at_most = world.fetched()
        await self._until_rows_are_gone()
        uids = [job.uid for job in self.jobs]
        return Evidence(
            jobs=self.jobs,
            statuses=world.observer.statuses,
            rows=await asyncio.to_thread(rows_of, world.store, uids),
            deeds=await asyncio.to_thread(world.deeds),
            holds=await asyncio.to_thread(world.holds),
            samples=list(world.observer.samples),
            faults=list(world.faults.all),
            stock=frozenset(world.simulated) if world.plan.stock else frozenset(),
            opaque=frozenset(agent.name for agent in world.agents),
            blobs=blobs,
            blobs_at_most=at_most,
            unacknowledged=await asyncio.to_thread(world.unacknowledged),
        )

    async def _until_rows_are_gone(self) -> None:
        """Those of deleted jobs; the hub may just be about it."""
        gone = [job.uid for job in self.jobs if job.deleted_at is not None]
        await self.until(lambda: not any(rows_of(self.world.store, gone).values()), within=SETTLE)

    async def _hanging(self, jobs: Sequence[Job]) -> list[str]:
        ended = await self.all_ended(jobs)
        return [await self._hung(job) for job, is_over in zip(jobs, ended, strict=True) if not is_over]

    async def _hung(self, job: Job) -> str:
        status = self.world.observer.status(job.uid)
        metrics = {name: value for name, value in (await self.world.metrics()).items() if name.startswith("cloudhub_")}
        told = {key: metrics[key] for key in sorted(metrics) if "session" in key or "refus" in key or "dispatch" in key}
        age = time.time() - job.made_at
        return (
            f"{job.name} hangs: {status.get('state')} {status.get('counts')}, made {age:.0f} s ago\n"
            f"{json.dumps(told)}\n{self.world.tail_of_hub()}"
        )

    async def _clean_up(self) -> None:
        """Jobs go, so that a long run does not fill the store."""
        for job in self.jobs:
            if job.deleted_at is None:
                with suppress(KubeError):
                    await self.world.api.request("DELETE", f"{JOBS_PATH}/{job.name}")
