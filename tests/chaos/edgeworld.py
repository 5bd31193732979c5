"""A world with more to break: real agents in network namespaces with clocks of their own, small disks, a registry.

Its nodes are real agents: each in a namespace (`World.network`), on a small disk
with its journal and image store, by a clock that may be set while it runs; or over a containerd of its own. The hub's
queue is on a small disk too. All pull through one proxy before a real registry, which counts what each agent got whole.

Agents beat every two seconds and the hub gives them up after six, so that a round need not last minutes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.chaos.evidence import Job
from tests.chaos.world import STOP_SLACK, STOP_WITHIN, Plan, World
from tests.e2e.processes import BIN, Cloud, ClusterCloud, Node, Program, command, eventually
from tests.parts.clock import Clock
from tests.parts.containerd import Containerd
from tests.parts.images import PushedImage
from tests.parts.network import Namespace, Network
from tests.parts.proxy import RegistryProxy
from tests.parts.registry import Registry
from tests.parts.smalldisk import SmallDisk

MIB: Final = 1 << 20
HEARTBEAT: Final = 2
KEEPALIVE: Final = 6
"""The hub's; a node that says nothing for so long has no session any more."""
PATIENCE: Final = 4
"""An agent's, with a hub that leaves it without an answer: that is a slow one, on a machine that does too much."""
HUB_DISK: Final = 16 * MIB
AGENT_DISK: Final = 128 * MIB
"""The built-in store leaves 64 MiB free."""
LAYER: Final = 2 * MIB


@dataclass(frozen=True, slots=True)
class EdgePlan(Plan):
    nodes: int = 0
    agents: int = 3
    clocks: tuple[int, ...] = (0, 3600, -3600)
    """Seconds by which the agents' clocks are ahead, from their first start on."""
    containerd: bool = False
    """Whether each agent pulls through a containerd of its own."""


class EdgeNode(Node):
    """A real agent where it can be got at."""

    def __init__(
        self, cloud: Cloud, name: str, *, namespace: Namespace, hub: str, registry: str, clock: int, runtime: str
    ) -> None:
        super().__init__(cloud, name, runtime=runtime)
        self.namespace = namespace
        self.folder.mkdir(parents=True)
        self.clock = Clock(self.folder / "clock", clock)
        self.disk = SmallDisk(self.folder / "data", size=AGENT_DISK)
        self._hub = hub
        self._registry = registry
        self.token = ""
        """One is for all nodes, as a fleet is set up."""
        run: list[str | Path] = [BIN / "edgehub", "run", "--config", self.config]
        self.program = Program(name, namespace.command(self.clock.command(run)), cloud.folder / f"{name}.log")

    async def join(self, token: str = "") -> None:
        join: list[str | Path] = [
            BIN / "edgehub", "join", "--server", f"https://{self._hub}:{self.cloud.https_port}",
            "--token", token or self.token, "--node-name", self.name,
            "--websocket-server", f"{self._hub}:{self.cloud.websocket_port}", "--config", self.config,
            "--data-dir", self.folder / "data", "--runtime-endpoint", self.runtime,
        ]  # fmt: skip
        # By its own clock: a node that is new has the least reason to have a right one.
        await command(*self.namespace.command(self.clock.command(join)))
        document = yaml.safe_load(self.config.read_text())
        modules: dict[str, Any] = document["modules"]
        modules["edgeHub"] |= {"heartbeat": HEARTBEAT, "reconnect": {"firstDelay": 1, "maxDelay": 3}}
        modules["edgeHub"]["websocket"] |= {"readDeadline": PATIENCE, "writeDeadline": 4, "handshakeTimeout": 5}
        modules.setdefault("edged", {})["insecureRegistries"] = [self._registry]
        modules.setdefault("taskManager", {})["limits"] = {"disk": 100}
        self.config.write_text(yaml.safe_dump(document))

    async def connected(self) -> bool:
        """By its own words."""
        status = json.loads(await command(BIN / "edgehub", "status", "--config", self.config, "-o", "json"))
        return bool(status.get("connection", {}).get("connected"))


class EdgeWorld(World):
    plan: EdgePlan
    keepalive = HEARTBEAT
    # Images stay on the agents' small disks, 2 MiB a round and more.
    most_rounds = 15

    network: Network
    upstream: Registry
    pulls: RegistryProxy
    hub_disk: SmallDisk
    _token = ""

    # --- Up ---------------------------------------------------------------------------------------------------------

    def make_cloud(self) -> ClusterCloud:
        self.network = self._stack.enter_context(Network())
        cloud = super().make_cloud()
        cloud.write_config(
            {
                "taskManager": {"enable": True},
                "cloudHub": {
                    "advertiseAddress": ["127.0.0.1", self.network.hub],
                    "keepaliveInterval": KEEPALIVE,
                    "websocket": {"address": "0.0.0.0", "port": cloud.websocket_port},  # noqa: S104
                    "https": {"address": "0.0.0.0", "port": cloud.https_port},  # noqa: S104
                },
            }
        )
        return cloud

    async def before_hub(self) -> None:
        self.hub_disk = self._stack.enter_context(SmallDisk(self.folder / "queue", size=HUB_DISK))
        self.upstream = self._stack.enter_context(Registry())
        self.pulls = await self._stack.enter_async_context(RegistryProxy(self.upstream.url, host=self.network.registry))
        self.containerds: list[Containerd] = []

    def make_agent(self, name: str) -> Node:
        number = len(self.agents)
        runtime = "builtin"
        if self.plan.containerd:
            containerd = self._stack.enter_context(Containerd())
            containerd.trust(self.pulls.address)
            self.containerds.append(containerd)
            runtime = containerd.endpoint
        agent = EdgeNode(
            self.cloud,
            name,
            namespace=self.network.namespace(),
            hub=self.network.hub,
            registry=self.pulls.address,
            clock=self.plan.clocks[number % len(self.plan.clocks)],
            runtime=runtime,
        )
        agent.token = self._token
        self._stack.enter_context(agent.disk)
        return agent

    async def _new_agent(self, name: str) -> None:
        if not self._token:
            self._token = await self.cloud.token()
        await super()._new_agent(name)

    # --- What rounds need -------------------------------------------------------------------------------------------

    @property
    def edges(self) -> list[EdgeNode]:
        return [agent for agent in self.agents if isinstance(agent, EdgeNode)]

    async def stop_agent(self, agent: EdgeNode) -> None:
        """By SIGTERM; it must be a clean end."""
        self.count("agents stopped")
        try:
            code = await agent.program.stop(within=STOP_WITHIN + STOP_SLACK)
        except AssertionError as error:
            self.problems.append(str(error))
            return
        if code != 0:
            self.problems.append(f"{agent.name}'s exit code is {code}\n{agent.program.tail(30)}")

    @property
    def names(self) -> list[str]:
        """Of the real agents."""
        return [agent.name for agent in self.agents]

    async def push(self, name: str, *, layers: Sequence[int] = (LAYER, 10_000)) -> PushedImage:
        """An image that nobody has."""
        return await asyncio.to_thread(self.upstream.push_image, name, layers=tuple(layers))

    def reference(self, image: PushedImage) -> str:
        """As the agents are to name it."""
        return image.reference.replace(self.upstream.address, self.pulls.address)

    async def until_sessions(self, count: int, *, within: float = 90.0) -> None:
        async def there() -> bool:
            return await self.sessions() == count

        await eventually(f"{count} sessions", there, within=within)

    @property
    def all_nodes(self) -> int:
        return len(self.simulated) + len(self.agents)

    def look_at_blobs(self, image: PushedImage, *, at_most: int = 1) -> None:
        """No agent got a blob whole and then once more. ``at_most``: what the round's fault explains."""
        for (client, digest), count in self.pulls.served.items():
            if digest in image.layers and count > at_most:
                self.problems.append(f"{client} fetched {digest[:19]} {count} times")

    async def look_at_images(self, job: Job) -> None:
        """Now, before anything else: another job would mend what this one only claims to have."""
        holds = await asyncio.to_thread(self.holds)
        for entry in self.observer.status(job.uid).get("status", []):
            node = entry["nodeStatus"]
            missing = set(job.images) - holds[node["nodeName"]]
            if node["state"] == "Successful" and missing:
                self.problems.append(f"{node['nodeName']} is Successful and does not hold {sorted(missing)}")

    # --- Evidence ---------------------------------------------------------------------------------------------------

    def holds(self) -> dict[str, frozenset[str]]:
        found = super().holds()
        for agent, containerd in zip(self.edges, self.containerds, strict=False):
            found[agent.name] = _of_containerd(containerd)
        return found

    def begin_round(self) -> None:
        super().begin_round()
        self.pulls.heal()
        self.pulls.served.clear()
        self.pulls.requests.clear()
        self.pulls.blob_started.clear()


def _of_containerd(containerd: Containerd) -> frozenset[str]:
    """The names of images of which all content is there, by containerd's own check."""
    lines = containerd.ctr("images", "check").splitlines()[1:]
    return frozenset(line.split()[0] for line in lines if " complete " in line)
