"""The processes of a round, and what may be done to them.

What is done to the hub and the API server is written into `World.faults`, so that readiness can be judged by it. What
ends by itself, or does not end as it should, is put into `World.problems`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import yaml

from cloudhub.kube.client import KubeClient
from cloudhub.kube.nodes import NODES_PATH
from shared.jobs import EDGE_LABEL
from tests.bench.identities import CA_FILE, CA_KEY_FILE, create_ca
from tests.bench.lines import Worker
from tests.chaos.agents import acknowledged, asked_for, held_images, journal_deeds, unacknowledged
from tests.chaos.apiproxy import APIProxy
from tests.chaos.edges import count_asked, read_deeds
from tests.chaos.evidence import Deed, Faults
from tests.chaos.images import ImageSource
from tests.chaos.observer import Observer, ask
from tests.chaos.store import NOTHING, known_tasks
from tests.e2e.processes import ClusterCloud, Node

START_WITHIN: Final = 90.0
STOP_WITHIN: Final = 10.0
"""Of the project's promise; the hub's own limit is 9 s, after which its exit code is not 0."""
STOP_SLACK: Final = 10.0
"""What a machine that does too much may add."""


Promise = tuple[str, str]
"""Node and uid of the job."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How many there are of what. Rounds of equal plans share a world."""

    nodes: int = 200
    """Simulated."""
    fleets: int = 2
    """Processes that these are in."""
    stock: bool = False
    """Whether the simulated nodes announce nothing."""
    agents: int = 0
    """Real ones, on the built-in image store."""
    proxied: bool = False
    """Whether the hub reaches the API server by way of `World.proxy`."""
    settings: tuple[tuple[str, str], ...] = ()
    """Over cloudcore.yaml: dotted keys and values as JSON. ``("modules.cloudHub.keepaliveInterval", "5")``"""


@dataclass(slots=True)
class FleetProcess:
    """One process of simulated nodes, on the same files over all its lives."""

    folder: Path
    prefix: str
    count: int
    names: tuple[str, ...] = ()
    worker: Worker | None = None
    read: int = 0
    """How far its log was read at the beginning of the round."""
    held: set[tuple[str, str]] = field(default_factory=set)
    """Nodes and images, as of then."""
    connected: set[str] = field(default_factory=set)
    """Nodes with a session then."""

    @property
    def log(self) -> Path:
        return self.folder / "deeds.jsonl"

    def begin_round(self) -> None:
        for deed in read_deeds(self.log, self.read):
            if deed.kind == "finished":
                self.held.update((deed.node, image) for image in deed.images)
            elif deed.kind == "up":
                self.connected.add(deed.node)
            elif deed.kind == "down":
                self.connected.discard(deed.node)
        self.read = self.log.stat().st_size if self.log.exists() else 0


class World:
    """As a context manager: all up, and all ended with it."""

    keepalive = 10.0
    """Seconds; of simulated nodes."""
    most_rounds = 1000
    """Then another is made."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.faults = Faults()
        self.problems: list[str] = []
        self.counts: dict[str, int] = {}
        """What was done, for the round's line: ``hub killed``, ``agents killed``."""
        self.fleets: list[FleetProcess] = []
        self.agents: list[Node] = []
        self.cloud: ClusterCloud
        self.api: KubeClient
        self.observer: Observer
        self.proxy: APIProxy
        """With `Plan.proxied`."""
        self.registry: ImageSource | None = None
        self.api_answers = True
        """Us, who ask it past any proxy."""
        self._stack = contextlib.AsyncExitStack()
        self._began = time.time()
        self.logged = 0
        """Size of the hub's log when it was started last."""

    # --- Up and down ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def _open(self) -> None:
        create_ca(self.folder / "pki")
        self.cloud = self.make_cloud()
        self._lay({key: json.loads(value) for key, value in self.plan.settings})
        self._stack.push_async_callback(self.cloud.api.stop)
        await self.cloud.start_api()
        self.api = await KubeClient.connect(kubeconfig=str(self.cloud.kubeconfig), qps=10_000, burst=10_000)
        self._stack.push_async_callback(self.api.close)
        self.observer = Observer(api=self.api, monitor_port=self.cloud.metrics_port)
        if self.plan.proxied:
            await self._open_proxy()
        await self.before_hub()
        self._stack.push_async_callback(self._end_hub)
        await self.start_hub()
        await self._stack.enter_async_context(_running(self.observer))
        await asyncio.gather(*(self._new_fleet(number) for number in range(self.plan.fleets if self.plan.nodes else 0)))
        if self.plan.agents:
            self.registry = await self._stack.enter_async_context(ImageSource())
        await asyncio.gather(*(self._new_agent(f"agent-{number}") for number in range(self.plan.agents)))
        await self._until_all_are_connected()

    def make_cloud(self) -> ClusterCloud:
        return ClusterCloud(self.folder, {"taskManager": {"enable": True}})

    async def _open_proxy(self) -> None:
        proxy = APIProxy(kubeconfig=self.cloud.kubeconfig, folder=self.folder / "pki")
        self.proxy = await self._stack.enter_async_context(proxy)
        kubeconfig = self.folder / "hub-kubeconfig"
        proxy.write_kubeconfig(kubeconfig)
        self._lay({"kubeAPIConfig.kubeConfig": str(kubeconfig)})

    async def before_hub(self) -> None:
        """The API server is there, the hub not yet."""

    def _lay(self, settings: Mapping[str, Any]) -> None:
        """Over cloudcore.yaml: values by dotted key."""
        document = json.loads(self.cloud.config.read_text())
        for key, value in settings.items():
            *path, last = key.split(".")
            place = document
            for name in path:
                place = place.setdefault(name, {})
            place[last] = value
        self.cloud.config.write_text(json.dumps(document))

    async def _end_hub(self) -> None:
        await self.cloud.program.kill()

    # --- The hub ----------------------------------------------------------------------------------------------------

    async def start_hub(self, *, wait: bool = True) -> None:
        self.faults.end("hub")
        self.faults.begin("hub")
        self.logged = self._log_size()
        self.cloud.program.start()
        if wait:
            await self.hub_ready()

    async def hub_ready(self) -> None:
        """From here on it may be asked to be ready. Raises when it does not become so."""
        deadline = time.monotonic() + START_WITHIN
        while (await ask(self.cloud.metrics_port, "/readyz"))[0] != 200:
            if not self.cloud.program.running or time.monotonic() > deadline:
                raise AssertionError(f"the hub is not ready\n{self.cloud.program.tail()}")
            await asyncio.sleep(0.05)
        self.faults.end("hub")

    async def kill_hub(self) -> None:
        self.count("hub killed")
        self._look_at_hub()
        self.faults.begin("hub")
        await self.cloud.program.kill()
        await asyncio.to_thread(self.look_at_promises)

    async def stop_hub(self) -> None:
        """By SIGTERM; it must be a clean end."""
        self.count("hub stopped")
        self._look_at_hub()
        self.faults.begin("hub")
        begun = time.monotonic()
        try:
            code = await self.cloud.program.stop(within=STOP_WITHIN + STOP_SLACK)
        except AssertionError as error:
            self.problems.append(str(error))
            return
        await asyncio.to_thread(self.look_at_promises)
        # Before its first line the interpreter still loads the program: nothing is begun that could be ended in order.
        if code != 0 and not (code == -signal.SIGTERM and self._log_size() == self.logged):
            seconds = time.monotonic() - begun
            self.problems.append(f"the hub's exit code is {code}, {seconds:.1f} s after SIGTERM\n{self.tail_of_hub()}")

    def look_at_promises(self) -> None:
        """Who was asked, the store knows as asked, and what nodes were told that it is stored is so: at any time, and
        most of all while the hub is dead or cannot write."""
        asked: list[Promise] = []
        told: list[Promise] = []
        for fleet in self.fleets:
            for deed in read_deeds(fleet.log, fleet.read):
                if deed.kind in ("asked", "acked"):
                    (asked if deed.kind == "asked" else told).append((deed.node, deed.uid))
        for agent in self.agents:
            asked += ((agent.name, uid) for uid in asked_for(journal_of(agent)))
            told += ((agent.name, uid) for uid in acknowledged(journal_of(agent)))
        # Only now: what they have heard was written before.
        stored = known_tasks(self.store)
        # The rows of a job that was deleted are gone, and whatever was said of it was for nothing.
        unknown = [node for node, uid in asked if uid in stored and not stored[uid].get(node, NOTHING).asked]
        lost = [node for node, uid in told if uid in stored and not stored[uid].get(node, NOTHING).ended]
        if unknown:
            self.problems.append(
                f"{len(unknown)} nodes were asked, {unknown[0]} first, and the store knows nothing of it"
            )
        if lost:
            self.problems.append(
                f"{len(lost)} nodes were told that their end is stored, {lost[0]} first, and it is not in the store"
            )

    def _look_at_hub(self) -> None:
        if not self.cloud.program.running:
            self.problems.append(f"the hub ended by itself\n{self.tail_of_hub()}")

    def _log_size(self) -> int:
        log = self.cloud.program.log
        return log.stat().st_size if log.exists() else 0

    @property
    def store(self) -> Path:
        """The hub's, a file of SQLite."""
        return self.folder / "queue" / "queue.db"

    def tail_of_hub(self) -> str:
        return self.cloud.program.tail(30)

    # --- The API server ---------------------------------------------------------------------------------------------

    async def kill_api(self) -> None:
        self.count("API killed")
        await self.cloud.api.kill()

    async def start_api(self) -> None:
        await self.cloud.start_api()

    # --- Nodes ------------------------------------------------------------------------------------------------------

    @property
    def simulated(self) -> list[str]:
        return sorted(name for fleet in self.fleets for name in fleet.names)

    async def _new_fleet(self, number: int) -> None:
        folder = self.folder / f"fleet-{number}"
        folder.mkdir()
        for file in (CA_FILE, CA_KEY_FILE):
            shutil.copy(self.folder / "pki" / file, folder / file)
        count = self.plan.nodes // self.plan.fleets
        fleet = FleetProcess(folder, f"s{number}-", count)
        self.fleets.append(fleet)
        self._stack.push_async_callback(self._end_fleet, fleet)
        await self.start_fleet(fleet)
        await self._register(fleet.names)

    async def start_fleet(self, fleet: FleetProcess) -> None:
        worker = Worker("tests.chaos.edges", fleet.folder, fleet.log, log=fleet.folder / "errors.log")
        fleet.worker = await worker.__aenter__()
        fleet.names = tuple((await worker.ask("prepare", count=fleet.count, prefix=fleet.prefix))["nodes"])
        await worker.ask("begin", port=self.cloud.websocket_port, ack=not self.plan.stock, keepalive=self.keepalive)

    async def kill_fleet(self, fleet: FleetProcess) -> None:
        """All nodes of one process lose their power."""
        self.count("fleets killed")
        await self._end_fleet(fleet)
        with fleet.log.open("a") as file:
            # The dead do not tell that their sessions ended. Nothing of this process writes to the log any more.
            for name in fleet.names:
                file.write(json.dumps({"at": time.time(), "kind": "down", "node": name}) + "\n")

    async def _end_fleet(self, fleet: FleetProcess) -> None:
        worker, fleet.worker = fleet.worker, None
        if worker is not None:
            await worker.__aexit__(None, None, None)

    async def _register(self, names: tuple[str, ...]) -> None:
        """Their Node objects, so that a job may name them while they are away."""
        for name in names:
            body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {EDGE_LABEL: ""}}}
            await self.api.request("POST", NODES_PATH, body=body)

    async def _new_agent(self, name: str) -> None:
        agent = self.make_agent(name)
        self.agents.append(agent)
        await agent.join()
        hurry(agent)
        await self._register((name,))
        self._stack.push_async_callback(agent.program.kill)
        await self.start_agent(agent)

    def make_agent(self, name: str) -> Node:
        return Node(self.cloud, name)

    async def start_agent(self, agent: Node) -> None:
        """It comes when it comes."""
        agent.program.start()

    async def kill_agent(self, agent: Node) -> None:
        self.count("agents killed")
        if not agent.program.running:
            self.problems.append(f"{agent.name} ended by itself\n{agent.program.tail(30)}")
        await agent.program.kill()

    async def _until_all_are_connected(self) -> None:
        """A first round begins with all nodes there."""
        wanted = len(self.simulated) + len(self.agents)
        deadline = time.monotonic() + START_WITHIN
        while (found := await self.sessions()) < wanted:
            if time.monotonic() > deadline:
                raise AssertionError(f"{found} of {wanted} nodes are connected\n{self.tail_of_hub()}")
            await asyncio.sleep(0.1)

    async def sessions(self) -> int:
        return int((await self.metrics()).get("cloudhub_sessions", 0))

    async def metrics(self) -> dict[str, float]:
        _, text = await ask(self.cloud.metrics_port, "/metrics")
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    # --- Images of real agents --------------------------------------------------------------------------------------

    def new_image(self, label: str) -> str:
        """One that no agent has, in a registry."""
        assert self.registry is not None
        return self.registry.push(label)

    # --- Evidence ---------------------------------------------------------------------------------------------------

    def begin_round(self) -> None:
        self.problems.clear()
        self.counts.clear()
        self.faults.all = [fault for fault in self.faults.all if fault.ended is None]
        self.observer.forget()
        if self.plan.proxied:
            self.proxy.hits = 0
        if self.registry is not None:
            self.registry.fetched.clear()
        self._began = time.time()
        for fleet in self.fleets:
            fleet.begin_round()

    def deeds(self) -> list[Deed]:
        """Of this round. Who is connected when it begins has been so since then."""
        found = [Deed(self._began, node, "up") for fleet in self.fleets for node in fleet.connected]
        found += (deed for fleet in self.fleets for deed in read_deeds(fleet.log, fleet.read))
        for agent in self.agents:
            found += journal_deeds(journal_of(agent), agent.name)
        return sorted(found, key=lambda deed: deed.at)

    def asked(self) -> int:
        """How often simulated nodes were asked in this round."""
        return sum(count_asked(fleet.log, fleet.read) for fleet in self.fleets)

    def unacknowledged(self) -> dict[str, int]:
        """By node: last reports of this round, and of a real agent all, that the hub has not acknowledged."""
        waiting: dict[str, set[str]] = {}
        for fleet in self.fleets:
            for deed in read_deeds(fleet.log, fleet.read):
                if deed.kind in ("finished", "failed") and deed.uid:
                    waiting.setdefault(deed.node, set()).add(deed.uid)
                elif deed.kind == "acked":
                    waiting.get(deed.node, set()).discard(deed.uid)
        counts = {node: len(uids) for node, uids in waiting.items()}
        counts |= {agent.name: unacknowledged(journal_of(agent)) for agent in self.agents}
        return {node: count for node, count in counts.items() if count}

    def holds(self) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for fleet in self.fleets:
            finished = [deed for deed in read_deeds(fleet.log, fleet.read) if deed.kind == "finished"]
            for node, image in fleet.held | {(deed.node, image) for deed in finished for image in deed.images}:
                found.setdefault(node, set()).add(image)
        whole = {node: frozenset(images) for node, images in found.items()}
        return whole | {agent.name: held_images(agent.folder / "data" / "images") for agent in self.agents}

    def fetched(self) -> tuple[Mapping[str, int], int]:
        """How often each blob went out whole in this round, and how often it may: to each agent once, and once more
        for each that was killed, which may have been before it had kept it."""
        if self.registry is None:
            return {}, 0
        return dict(self.registry.fetched), len(self.agents) + self.counts.get("agents killed", 0)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def journal_of(agent: Node) -> Path:
    return agent.folder / "data" / "journal.db"


def hurry(agent: Node) -> None:
    """It comes back within seconds after its hub was away; by default it lets a minute pass."""
    document = yaml.safe_load(agent.config.read_text())
    document["modules"]["edgeHub"]["reconnect"] = {"firstDelay": 0.5, "maxDelay": 3}
    agent.config.write_text(yaml.safe_dump(document))


@contextlib.asynccontextmanager
async def _running(observer: Observer) -> AsyncIterator[None]:
    task = asyncio.create_task(observer.run(), name="chaos-observer")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def opened(make: type[World], plan: Plan, *, keep: Mapping[str, Any] | None = None) -> AsyncIterator[World]:
    """In a folder of its own, which stays when ``keep`` is not empty in the end."""
    # Not below pytest's folder: agents have unix sockets in here, whose paths are short.
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        async with make(plan, folder) as world:
            yield world
    finally:
        if not keep:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
