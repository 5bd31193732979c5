"""What happens to real agents during a pull: to their network, clocks, disks, registry and container runtime."""

from __future__ import annotations

import asyncio
import re
import time
from typing import ClassVar, Final

from tests.chaos.edgeworld import HEARTBEAT, EdgeNode, EdgePlan, EdgeWorld
from tests.chaos.evidence import Job, Sample
from tests.chaos.image import image
from tests.chaos.rounds import Round, Scene
from tests.chaos.store import NOTHING, known_tasks
from tests.chaos.verdict import GRACE
from tests.chaos.world import Plan, World
from tests.e2e.processes import eventually
from tests.parts.images import PushedImage

GRACE_OF_DISPATCH: Final = 2.0
"""Seconds that a message may be on its way on a machine that does too much."""
STALL: Final = 1 << 20
"""A pull is in its midst when so many bytes of a layer are through."""


class EdgeRound(Round):
    """`strike` is called while all agents are in the midst of a pull, which goes on only when it is over."""

    plan: ClassVar[Plan] = EdgePlan()
    world: ClassVar[type[World]] = EdgeWorld
    times = 4
    retries: ClassVar[int] = 3
    tolerate: ClassVar[str] = "0"
    timeout_seconds: int = 120
    """Of the job that is under way; by default more than any round needs."""
    true_reasons: ClassVar[tuple[str, ...]] = ()
    """Of failures. Without any, and with none tolerated, all agents have to succeed."""
    faults: ClassVar[int] = 1
    """Among which the kind goes round by its number."""
    blobs_at_most: ClassVar[int] = 1
    """How often an agent may have got a blob whole, by what happens to it."""

    def __init__(self) -> None:
        self.scene: Scene
        self.edge: EdgeWorld
        self.image: PushedImage
        self.jobs: list[Job] = []

    async def play(self, scene: Scene) -> None:
        assert isinstance(scene.world, EdgeWorld)
        self.scene, self.edge = scene, scene.world
        self.image = await self.edge.push(f"chaos/{scene.label}")
        self.edge.pulls.stall_blobs_after = STALL
        self.jobs.append(await self._job(self.image))
        await eventually("all agents pull", self._all_pull)
        await self.strike()
        self.edge.pulls.release()
        await scene.ended(self.jobs[-1])
        await self.edge.look_at_images(self.jobs[-1])
        await self.after()

    async def strike(self) -> None:
        """Breaks something, and mends it."""
        raise NotImplementedError

    async def after(self) -> None:
        """All is well again: sessions are back, what came through once did not come twice, and no slot leaked of an
        agent or of the hub: another job goes through on all of them at once."""
        await self.edge.until_sessions(self.edge.all_nodes)
        # Who makes the job again cuts a transfer short, whose end then comes a second time.
        self.edge.look_at_blobs(self.image, at_most=self.blobs_at_most + len(self.jobs) - 1)
        another = await self.edge.push(f"chaos/{self.scene.label}-another", layers=(20_000,))
        await self.scene.ended(await self._job(another, "another", retries=3, tolerate="0", true_reasons=()))

    # --- What strikes are made of -----------------------------------------------------------------------------------

    async def remade(self) -> None:
        """The job is deleted, and made again under its name."""
        await self.scene.delete(self.jobs[-1])
        self.jobs.append(await self._job(self.image))

    async def remade_in_turn(self) -> None:
        """In every second round of each fault, beginning with the first."""
        if self.scene.number // self.faults % 2 == 0:
            await self.remade()

    def maybe(self) -> bool:
        return self.scene.random.random() < 0.5

    def some(self) -> list[EdgeNode]:
        """At least one of the agents."""
        edges = self.edge.edges
        return self.scene.random.sample(edges, self.scene.random.randint(1, len(edges)))

    async def _job(
        self,
        image: PushedImage,
        name: str = "job",
        *,
        retries: int | None = None,
        tolerate: str | None = None,
        true_reasons: tuple[str, ...] | None = None,
    ) -> Job:
        tolerate = self.tolerate if tolerate is None else tolerate
        reasons = self.true_reasons if true_reasons is None else true_reasons
        return await self.scene.job(
            name,
            nodes=self.edge.names,
            images=[self.edge.reference(image)],
            concurrency=len(self.edge.names),
            tolerate=tolerate,
            retry_times=self.retries if retries is None else retries,
            true_reasons=reasons,
            timeout_seconds=self.timeout_seconds,
            no_failures=tolerate == "0" and not reasons,
            no_timeouts=self.timeout_seconds == EdgeRound.timeout_seconds,
        )

    async def _all_pull(self) -> bool:
        return self.edge.pulls.transfers >= len(self.edge.names)


# --- The network between agent and hub ------------------------------------------------------------------------------


class NetworkCut(EdgeRound):
    name = "network-cut"
    about = "the network between some agents and the hub is cut during a pull, mostly for more than a keepalive"

    async def strike(self) -> None:
        struck = self.some()
        for agent in struck:
            self.cut(agent)
        await self._meanwhile(len(struck))
        for agent in struck:
            self.mend(agent)

    async def _meanwhile(self, struck: int) -> None:
        if self.scene.number % 4 == 1:
            await self.scene.wait(0.1, 4.0)
        else:
            # So long that the hub gives them up; nobody tells it.
            await self.edge.until_sessions(len(self.edge.agents) - struck)
        await self.remade_in_turn()
        if self.maybe():
            # What they have done they report when they are back.
            self.edge.pulls.release()
            await self.scene.wait(0.5, 2.0)

    def cut(self, agent: EdgeNode) -> None:
        agent.namespace.wire.cut()

    def mend(self, agent: EdgeNode) -> None:
        agent.namespace.wire.mend()


class NetworkHalfOpen(NetworkCut):
    name = "network-half-open"
    about = "as network-cut, one way only: what the hub says is lost, or what the agents say"

    def cut(self, agent: EdgeNode) -> None:
        if self.maybe():
            agent.namespace.wire.to_hub = False
        else:
            agent.namespace.wire.from_hub = False


class NetworkUnplugged(NetworkCut):
    name = "network-unplugged"
    about = "some agents' interfaces go down, registry and all, and they know it"
    retries = 10
    blobs_at_most = 2

    def cut(self, agent: EdgeNode) -> None:
        agent.namespace.unplug()

    def mend(self, agent: EdgeNode) -> None:
        agent.namespace.plug()


class NetworkSlow(EdgeRound):
    name = "network-slow"
    about = "up to half a second each way between some agents and the hub: no session is lost by it"

    async def strike(self) -> None:
        self._calls = {agent.name: agent.namespace.wire.calls for agent in self.edge.edges}
        for agent in self.some():
            agent.namespace.wire.delay = self.scene.random.uniform(0.05, 0.5)
        # Both ask each other within this whether they are there.
        await self.scene.wait(HEARTBEAT, HEARTBEAT + 3.0)
        await self.remade_in_turn()

    async def after(self) -> None:
        await super().after()
        for agent in self.edge.edges:
            if again := agent.namespace.wire.calls - self._calls[agent.name]:
                self.edge.problems.append(f"{agent.name} called the hub {again} times anew, which was slow and there")
            agent.namespace.wire.mend()


class AcksLost(EdgeRound):
    name = "network-acks-lost"
    about = "what the hub says to some agents is lost just when they report their end: they say it again later"

    async def strike(self) -> None:
        struck = self.some()
        for agent in struck:
            agent.namespace.wire.from_hub = False
        self.edge.pulls.release()
        await self.scene.until(lambda: self._stored(struck), within=GRACE)
        await self.remade_in_turn()
        await self.edge.until_sessions(len(self.edge.agents) - len(struck))
        for agent in struck:
            agent.namespace.wire.mend()

    def _stored(self, struck: list[EdgeNode]) -> bool:
        """Whether the hub has the last reports of all whom it cannot tell so."""
        tasks = known_tasks(self.edge.store).get(self.jobs[0].uid, {})
        return all(tasks.get(agent.name, NOTHING).ended for agent in struck)


# --- Clocks ---------------------------------------------------------------------------------------------------------


class ClockSet(EdgeRound):
    name = "clock-set"
    about = "agents' clocks jump by an hour or two during a pull, both ways; some agents are killed and start by it"
    blobs_at_most = 2

    async def strike(self) -> None:
        for agent in self.some():
            agent.clock.offset = self.scene.random.choice(
                [hour for hour in (-3600, 0, 3600) if hour != agent.clock.offset]
            )
        await self.scene.wait(1.0, 3.0)
        await self.remade_in_turn()
        if self.maybe():
            agent = self.some()[0]
            await self.edge.kill_agent(agent)
            await self.edge.start_agent(agent)


# --- Disks ----------------------------------------------------------------------------------------------------------


class HubDiskFull(EdgeRound):
    name = "hub-disk-full"
    about = "the hub's disk is full during a job: nothing is dispatched, sessions stay, it heals by itself"
    plan = EdgePlan(nodes=40, fleets=1)

    async def strike(self) -> None:
        scene, world = self.scene, self.edge
        # Turns are taken among these all the time, and many of them wait for theirs.
        images = [image(f"{scene.label}-turns", seconds=0.1)]
        turns = await scene.job("turns", images=images, concurrency=4, no_timeouts=True)
        await scene.so_far(turns, scene.random.uniform(0.1, 0.5))
        world.hub_disk.fill()
        with world.faults.of("store", must_show=True):
            await world.observer.until_sampled(_is_red, within=60)
            # What was on the disk before it was red may be on its way still.
            await scene.wait(GRACE_OF_DISPATCH, GRACE_OF_DISPATCH)
            red = time.time()
            dispatched = await self._dispatches()
            await asyncio.to_thread(world.look_at_promises)
            meanwhile = await self._job(
                await world.push(f"chaos/{scene.label}-meanwhile", layers=(20_000,)), "meanwhile"
            )
            await self.remade_in_turn()
            if self.maybe():
                await scene.delete(meanwhile)
            if self.maybe():
                # The agents' last reports find no place either.
                world.pulls.release()
            await scene.wait(1.0, 5.0)
            if (now := await self._dispatches()) != dispatched:
                world.problems.append(f"{now - dispatched:.0f} tasks were dispatched while the hub's disk was full")
            if (there := await world.sessions()) != world.all_nodes:
                world.problems.append(f"{there} of {world.all_nodes} sessions are there while the hub's disk is full")
            asked = [deed.node for deed in world.deeds() if deed.kind == "asked" and deed.at > red]
            if asked:
                world.problems.append(f"{len(asked)} nodes were asked while the hub's disk was full, {asked[0]} first")
            world.hub_disk.free()
        await self._heals()

    async def _heals(self) -> None:
        await self.edge.observer.until_sampled(lambda sample: sample.code == 200, within=60)

    async def _dispatches(self) -> float:
        return (await self.edge.metrics()).get("cloudhub_dispatches_total", 0.0)


class HubDiskFullKilled(EdgeRound):
    name = "hub-disk-full-killed"
    about = "the hub dies on its full disk, or is told to end: what it said is stored is, and it goes on from there"

    async def strike(self) -> None:
        world = self.edge
        world.hub_disk.fill()
        with world.faults.of("store"):
            await world.observer.until_sampled(_is_red, within=60)
            if self.scene.number % 4 == 0:
                await self.remade()
            # Their last reports find no place, and must be in nobody's memory alone.
            world.pulls.release()
            await eventually("all agents have ended", self._all_ended)
            await self.scene.wait(0.5, 2.0)
            if self.maybe():
                await world.kill_hub()
            else:
                await world.stop_hub()
            if self.scene.number % 4 == 2:
                await self.remade()
            world.hub_disk.free()
        await world.start_hub()

    async def _all_ended(self) -> bool:
        """Of the job that all were asked for."""
        uid = self.jobs[0].uid
        return {deed.node for deed in self.edge.deeds() if deed.uid == uid} >= set(self.edge.names)


class AgentDiskFull(EdgeRound):
    name = "agent-disk-full"
    about = "the disks of some agents, journal and images, are full during a pull"
    tolerate = "1"
    true_reasons = (r"the filesystem of \S+ is full", r"not enough space: ", r"the journal \S+ cannot be used: .*full")
    blobs_at_most = 3
    """Of a pull that failed for good nothing stays; the job may be made again."""

    async def strike(self) -> None:
        struck = self.some()
        for agent in struck:
            agent.disk.fill()
        if self.scene.number % 4 == 0:
            # A task that the journal does not take is refused.
            await self.remade()
        self.edge.pulls.release()
        # Nor does it take the end of one that is at work.
        await self.scene.wait(0.5, 3.0)
        if self.scene.number % 4 == 2:
            await self.remade()
        if self.maybe():
            await self.scene.ended(self.jobs[-1])
        for agent in struck:
            agent.disk.free()


# --- The registry ---------------------------------------------------------------------------------------------------


class RegistryTrouble(EdgeRound):
    name = "registry-trouble"
    about = "the registry answers 429, 500 or 503, hangs, cuts, shortens or spoils blobs, and is well again"
    kinds: ClassVar = ("corrupt", "429", "cut", "hang", "503", "shorten", "500")
    faults = len(kinds)
    times = 2 * faults
    retries = 10

    async def strike(self) -> None:
        self.begin(self.kinds[self.scene.number % len(self.kinds)])
        await self.scene.wait(0.5, 5.0)
        met, jobs = len(self.edge.pulls.requests), len(self.jobs)
        await self.remade_in_turn()
        if len(self.jobs) > jobs:
            # A trouble that the new job's agents do not meet is none.
            await self.scene.until(lambda: len(self.edge.pulls.requests) >= met + len(self.edge.names), within=GRACE)
        await self.scene.wait(0.0, 2.0)
        self.edge.pulls.heal()

    def begin(self, kind: str) -> None:
        self.begin_in(self.edge, kind)

    @staticmethod
    def begin_in(world: EdgeWorld, kind: str) -> None:
        """Pulls that are under way meet it, and those to come."""
        proxy = world.pulls
        proxy.cut_blobs_after = STALL // 2
        if kind.isdigit():
            proxy.answer_with, proxy.retry_after = int(kind), 1 if kind == "429" else None
        elif kind == "shorten":
            proxy.shorten_blobs_to = 100_000
        elif kind == "corrupt":
            proxy.corrupt_blobs, proxy.cut_blobs_after = True, None
        proxy.release()
        proxy.hang = kind == "hang"


class RegistryBroken(RegistryTrouble):
    name = "registry-broken"
    about = "as registry-trouble, until all have failed: with the true reason"
    retries = 1
    tolerate = "1"
    blobs_at_most = 3
    words: ClassVar = {
        "429": "answered 429",
        "500": "answered 500",
        "503": "answered 503",
        "cut": "broke the connection off",
        "shorten": r"ended sha256:|has \d+ bytes for sha256:",
        "corrupt": "are not those of that digest",
        # Agent and hub both keep the time: which of them is first is a matter of moments.
        "hang": "time is up|no last report within",
    }
    faults = len(words)
    times = 2 * faults

    async def play(self, scene: Scene) -> None:
        self.kind = sorted(self.words)[scene.number % len(self.words)]
        if self.kind == "hang":
            self.timeout_seconds = 20
        await super().play(scene)

    async def strike(self) -> None:
        kind = self.kind
        self.begin(kind)
        # Little enough that it is not worth going on.
        if kind == "cut":
            self.edge.pulls.cut_blobs_after = 1000
        elif kind == "shorten":
            self.edge.pulls.shorten_blobs_to = 1000
        await self.remade_in_turn()
        await self.scene.ended(self.jobs[-1])
        self.timeout_seconds = EdgeRound.timeout_seconds
        self.edge.pulls.heal()
        for entry in self.edge.observer.status(self.jobs[-1].uid).get("status", []):
            node, images = entry["nodeStatus"], entry.get("imageStatus", [])
            said = "\n".join(part.get("reason", "") for part in (node, *images))
            if node["state"] != "Failed" or not re.search(self.words[kind], said):
                self.edge.problems.append(f"of a registry with trouble {kind}, {node} says {images}")


# --- An end in the midst of it ---------------------------------------------------------------------------------------


class AgentsStopped(EdgeRound):
    name = "agents-stopped"
    about = "SIGTERM to agents whose network, registry or disk is broken: a clean end, and they go on from there"
    tolerate = "1"
    true_reasons = AgentDiskFull.true_reasons
    retries = 10
    blobs_at_most = 3

    async def strike(self) -> None:
        trouble = self.scene.random.choice(("network", "half a network", "registry", "disk", "none"))
        struck = self.some()
        for agent in struck:
            if "network" in trouble:
                agent.namespace.wire.to_hub = False
                agent.namespace.wire.from_hub = "half" in trouble
            elif trouble == "disk":
                agent.disk.fill()
        if trouble == "registry":
            RegistryTrouble.begin_in(self.edge, "hang")
        await self.scene.wait(0.0, 3.0)
        await self.remade_in_turn()
        for agent in struck:
            await self.edge.stop_agent(agent)
        for agent in struck:
            agent.namespace.wire.mend()
            agent.disk.free()
        self.edge.pulls.heal()
        for agent in struck:
            await self.edge.start_agent(agent)


# --- The container runtime ------------------------------------------------------------------------------------------


class RuntimeKilled(EdgeRound):
    name = "runtime-killed"
    about = "containerd is killed, or restarted, during a pull; it is away for a moment"
    plan = EdgePlan(agents=2, clocks=(0,), containerd=True)
    blobs_at_most = 3

    async def strike(self) -> None:
        random = self.scene.random
        struck = random.sample(self.edge.containerds, random.randint(1, len(self.edge.containerds)))
        for containerd in struck:
            if self.maybe():
                containerd.kill()
            else:
                containerd.stop()
        await self.remade_in_turn()
        # Long enough that those who are asked now find it away too.
        await self.scene.wait(1.0, 3.0)
        if self.maybe():
            self.edge.pulls.release()
        for containerd in struck:
            containerd.start()


def _is_red(sample: Sample) -> bool:
    return sample.code == 503


EDGE_ROUNDS: Final[tuple[type[Round], ...]] = (
    NetworkCut,
    NetworkHalfOpen,
    NetworkUnplugged,
    NetworkSlow,
    AcksLost,
    ClockSet,
    HubDiskFullKilled,
    AgentDiskFull,
    RegistryTrouble,
    RegistryBroken,
    AgentsStopped,
    HubDiskFull,
    RuntimeKilled,
)
