"""The taskManager's surroundings in memory, on a real store: an API, sessions with nodes behind them, and a clock to
drive.

Everything that the taskManager asks of others is here in the shape of `cloudhub.taskmanager.ports`; the store is a real
SQLite file. `World.restart` ends the manager as a crash would and starts another one on the same file.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from cloudhub.metrics import Metrics
from cloudhub.sessions.protocol import may_send
from cloudhub.store.engine import open_database
from cloudhub.store.queue import TaskQueue
from cloudhub.taskmanager.manager import TaskManager, TaskManagerSettings
from cloudhub.taskmanager.ports import Gone, JobObject, KubeError, NodeObject, NotFound, SecretObject, SessionInfo
from shared import prepull
from shared.jobs import EDGE_LABEL
from shared.wire import (
    Dispatch,
    Feature,
    Group,
    Message,
    Operation,
    Source,
    encode_bytes,
    new_message,
    parse_task_resource,
    task_resource,
)

OURS = frozenset(Feature)
STOCK: frozenset[Feature] = frozenset()
START = 1_700_000_000.0


class FakeClock:
    def __init__(self, now: float = START) -> None:
        self.now = now
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), future))
        await future

    def advance(self, seconds: float) -> None:
        """Whoever sleeps until then wakes at the next turn of the loop."""
        self.now += seconds
        while self._sleepers and self._sleepers[0][0] <= self.now:
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)


class FakeJobs:
    def __init__(self) -> None:
        self.objects: dict[str, JobObject] = {}
        self.callbacks: list[Callable[[str], None]] = []
        self.problem: KubeError | None = None
        self.writes: list[tuple[str, dict[str, Any]]] = []
        self.listed = asyncio.Event()
        self.listed.set()
        self.status_keys: frozenset[str] | None = None
        """What this API keeps of a status."""
        self.keeps_progress = True
        self.lost: set[str] = set()
        """Jobs whose status someone damaged by writing them in another version."""
        self.released: list[str] = []
        self._uids = itertools.count(1)

    def get(self, name: str) -> JobObject | None:
        return self.objects.get(name)

    def list(self) -> Iterable[JobObject]:
        return list(self.objects.values())

    def on_change(self, callback: Callable[[str], None]) -> None:
        self.callbacks = [callback]

    async def synced(self) -> None:
        await self.listed.wait()

    async def patch_status(self, *, name: str, uid: str, status: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem
        found = self.objects.get(name)
        if found is None or found.uid != uid:
            raise Gone(f"job {name}")
        self.lost.discard(name)
        self.writes.append((name, json.loads(json.dumps(status))))
        merged = {key: value for key, value in {**found.status, **status}.items() if value is not None}
        self.objects[name] = replace(found, status=json.loads(json.dumps(merged)))
        self._tell(name)

    def lost_status(self, name: str) -> bool:
        return name in self.lost

    async def release(self, *, name: str, uid: str) -> None:
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem
        found = self.objects.get(name)
        if found is not None and found.uid == uid:
            self.released.append(name)
            self.delete(name)

    def lose(self, name: str, *keys: str) -> None:
        """Someone writes the job in a version that does not know these keys of its status."""
        found = self.objects[name]
        left = {key: value for key, value in found.status.items() if key not in keys}
        self.objects[name] = replace(found, status=left)
        self.lost.add(name)
        self._tell(name)

    def apply(self, name: str, template: Mapping[str, Any]) -> JobObject:
        """Create it, or edit its spec."""
        old = self.objects.get(name)
        uid = old.uid if old else f"uid-{next(self._uids)}"
        self.objects[name] = JobObject(
            uid=uid,
            name=name,
            generation=old.generation + 1 if old else 1,
            resource_version="1",
            spec={"imagePrePullTemplate": dict(template)},
            status=old.status if old else {},
        )
        self._tell(name)
        return self.objects[name]

    def delete(self, name: str) -> None:
        del self.objects[name]
        self._tell(name)

    def mark_deleting(self, name: str, *, held: bool = False) -> None:
        self.objects[name] = replace(self.objects[name], deleting=True, held=held)
        self._tell(name)

    def _tell(self, name: str) -> None:
        for callback in self.callbacks:
            callback(name)


class FakeNodes:
    def __init__(self) -> None:
        self.objects: dict[str, NodeObject] = {}

    def get(self, name: str) -> NodeObject | None:
        return self.objects.get(name)

    def list(self) -> Iterable[NodeObject]:
        return list(self.objects.values())

    async def synced(self) -> None:
        return None

    def add(self, *names: str, edge: bool = True, version: str = "", **labels: str) -> None:
        """``version`` is the Node's kubeletVersion."""
        for name in names:
            self.objects[name] = NodeObject(name, {**labels, **({EDGE_LABEL: ""} if edge else {})}, version)


class FakeSecrets:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], SecretObject] = {}
        self.problem: KubeError | None = None
        self.reads = 0

    async def get(self, namespace: str, name: str) -> SecretObject:
        self.reads += 1
        if self.problem is not None:
            raise self.problem
        try:
            return self.objects[namespace, name]
        except KeyError:
            raise NotFound(f"secrets {namespace}/{name}") from None

    def docker(self, name: str, auths: Mapping[str, Any]) -> None:
        data = {".dockerconfigjson": json.dumps({"auths": auths}).encode()}
        self.objects["default", name] = SecretObject("kubernetes.io/dockerconfigjson", data)


@dataclass
class Asked:
    """A dispatch as the node reads it."""

    job: str
    operation: str
    images: list[str]
    uid: str | None
    attempt: int | None
    content: dict[str, Any]


@dataclass
class FakeNode:
    name: str
    asked: list[Asked] = field(default_factory=list)
    cancelled: list[dict[str, Any]] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    pushed: list[Message] = field(default_factory=list)
    """Objects that it is to keep; it says that it does."""
    behaviour: Callable[[FakeNode, Asked], Awaitable[None]] | None = None
    receive: Callable[[bytes], None] | None = None
    """Takes all frames, instead of what is here."""


class FakeSessions:
    """Connects nodes to the manager, and answers for them if they have a behaviour."""

    def __init__(self) -> None:
        self.live: dict[str, SessionInfo] = {}
        self.nodes: dict[str, FakeNode] = {}
        self.full: set[str] = set()
        """Nodes whose outbound queue has no room."""
        self.manager: TaskManager | None = None
        self._serials = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, node: str) -> SessionInfo | None:
        return self.live.get(node)

    def connected(self) -> Iterable[str]:
        return list(self.live)

    def send(self, node: str, message: Message) -> bool:
        if node not in self.live or node in self.full:
            return False
        fake = self.nodes[node]
        route = message.route
        assert may_send(route, self.live[node].features)
        if fake.receive is not None:
            fake.receive(encode_bytes(message))
            return True
        if route.group == Group.RESOURCE:
            fake.pushed.append(message)
            self._start(self._acknowledge(node, message))
            return True
        assert (route.source, route.group) == ("taskmanager", "taskmanager")
        if route.operation == prepull.OPERATION:
            self._start(self._read_v1alpha1(fake, message))
            return True
        job, named = parse_task_resource(route.resource)
        assert named == node
        match route.operation:
            case Operation.ACK:
                assert Feature.ACK in self.live[node].features
                fake.acknowledged.append(message.header.parent_msg_id)
            case Operation.CANCEL:
                assert Feature.CANCEL in self.live[node].features
                fake.cancelled.append({"job": job, **message.content})
            case _:
                dispatch = Dispatch.model_validate(message.content)
                task = dispatch.task
                asked = Asked(
                    job,
                    route.operation,
                    dispatch.imagePrePullTemplate.images,
                    task.job_uid if task else None,
                    task.attempt if task else None,
                    message.content,
                )
                fake.asked.append(asked)
                if fake.behaviour is not None:
                    self._start(fake.behaviour(fake, asked))
        return True

    async def _acknowledge(self, node: str, message: Message) -> None:
        """As EdgeCore does once its database has the object."""
        if self.manager is not None and node in self.live:
            answer = new_message(
                source=message.route.source,
                group=message.route.group,
                resource=message.route.resource,
                operation=Operation.RESPONSE,
                content="OK",
                parent=message.header.msg_id,
            )
            await self.manager.messages_received(self.live[node], (answer,))

    async def _read_v1alpha1(self, fake: FakeNode, message: Message) -> None:
        """A node that knows v1alpha2 alone, or is as mute as the test wants it."""
        job, node = prepull.parse_resource_down(message.route.resource)
        assert node == fake.name
        request = prepull.parse_request(message.content)
        fake.asked.append(Asked(job, prepull.OPERATION, list(request.images), None, None, message.content))

    def node(self, name: str) -> FakeNode:
        return self.nodes.setdefault(name, FakeNode(name))

    def connect(
        self,
        *names: str,
        features: frozenset[Feature] = OURS,
        behaviour: Callable[[FakeNode, Asked], Awaitable[None]] | None = None,
    ) -> None:
        for name in names:
            node = self.node(name)
            if behaviour is not None:
                node.behaviour = behaviour
            self.live[name] = SessionInfo(name, next(self._serials), features, None)
            if self.manager is not None:
                self.manager.session_opened(self.live[name])

    def disconnect(self, *names: str) -> None:
        for name in names:
            session = self.live.pop(name)
            if self.manager is not None:
                self.manager.session_closed(session)

    async def report(
        self,
        node: str,
        job: str,
        *,
        action: str,
        succ: bool = True,
        uid: str | None = None,
        attempt: int | None = None,
        reason: str = "",
        images: Iterable[tuple[str, bool, str]] = (),
        resource_node: str | None = None,
        content: Mapping[str, Any] | None = None,
    ) -> str:
        """As the node sends it; returns the message's id."""
        report: dict[str, Any] = {"action": action, "succ": succ, "finishTime": "2026-01-01T00:00:00Z"}
        report["reason"] = reason
        report["extend"] = json.dumps(
            [{"image": image, "status": "True" if ok else "False", "reason": why} for image, ok, why in images]
        )
        if uid is not None:
            report["task"] = {"job_uid": uid, "attempt": attempt}
        message = new_message(
            source=Source.WEBSOCKET,
            group=Group.HUB,
            resource=f"operations.kubeedge.io/v1alpha2/imageprepulljob/{job}/node/{resource_node or node}",
            operation=Operation.REPORT,
            content=report if content is None else content,
        )
        assert self.manager is not None
        await self.manager.messages_received(self.live[node], [message])
        return message.header.msg_id

    async def check(self, node: str, asked: Asked, *, succ: bool = True, reason: str = "") -> str:
        return await self.report(
            node, asked.job, action="Check", succ=succ, reason=reason, uid=asked.uid, attempt=asked.attempt
        )

    async def pull(self, node: str, asked: Asked, *, succ: bool = True, why: str = "no such image") -> str:
        return await self.report(
            node,
            asked.job,
            action="Pull",
            succ=succ,
            reason="" if succ else "some images failed",
            uid=asked.uid,
            attempt=asked.attempt,
            images=[(image, succ, "" if succ else why) for image in asked.images],
        )

    async def progress(
        self,
        node: str,
        asked: Asked,
        done_bytes: int,
        *,
        session: SessionInfo | None = None,
        resource_node: str | None = None,
        **values: Any,
    ) -> None:
        """As an agent of ours tells how far it is; ``session`` is that on which it comes."""
        content = {
            "job_uid": asked.uid,
            "attempt": asked.attempt,
            "done_images": 0,
            "total_images": 1,
            "done_bytes": done_bytes,
            "total_bytes": 1000,
            **values,
        }
        message = new_message(
            source=Source.WEBSOCKET,
            group=Group.HUB,
            resource=task_resource(asked.job, resource_node or node),
            operation=Operation.PROGRESS,
            content=content,
        )
        assert self.manager is not None
        await self.manager.messages_received(session or self.live[node], [message])

    async def obey(self, node: FakeNode, asked: Asked) -> None:
        """A behaviour: checks and pulls at once."""
        if asked.operation == "Check":
            await self.check(node.name, asked)
        await self.pull(node.name, asked)

    async def fail(self, node: FakeNode, asked: Asked) -> None:
        """A behaviour: passes the check, and no image can be pulled."""
        await self.check(node.name, asked)
        await self.pull(node.name, asked, succ=False)

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class FullDisk:
    """No connection of the store's writer can write, until there is space again."""

    def __init__(self, store: TaskQueue, *, full: bool = True) -> None:
        self.full = full
        thread: Any = store._writer._thread
        self._transaction = thread._transaction
        thread._transaction = self._limited

    def _limited(self, work: Callable[[Connection], Any]) -> Any:
        def limited(connection: Connection) -> Any:
            if self.full:
                # Stays with the connection, which is thrown away when it has failed.
                connection.exec_driver_sql("PRAGMA query_only = ON")
            return work(connection)

        return self._transaction(limited)

    def has_space(self) -> None:
        self.full = False


class World:
    def __init__(self, folder: Path, settings: TaskManagerSettings) -> None:
        self.path = folder / "queue.db"
        self.settings = settings
        self.clock = FakeClock()
        self.jobs = FakeJobs()
        self.nodes = FakeNodes()
        self.secrets = FakeSecrets()
        self.sessions = FakeSessions()
        self.metrics = Metrics()
        self.store: TaskQueue
        self.manager: TaskManager
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.store = TaskQueue(engine=await open_database(self.path, "queue"))
        self.metrics = Metrics()
        self.manager = TaskManager(
            store=self.store,
            jobs=self.jobs,
            nodes=self.nodes,
            secrets=self.secrets,
            sessions=self.sessions,
            clock=self.clock,
            metrics=self.metrics,
            settings=self.settings,
        )
        self.sessions.manager = self.manager
        self._running = asyncio.create_task(self.manager.run(), name="manager")

    async def stop(self) -> None:
        self.sessions.manager = None
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
            self._running = None
            await self.store.close()

    async def kill(self) -> None:
        """As `stop`, for a manager or a store that has died already of what a test did to it."""
        self.sessions.manager = None
        self.sessions.live.clear()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
            with suppress(Exception):
                await self.store.close()
            await self.store._engine.dispose()

    async def restart(self, *, reconnect: bool = True) -> None:
        """The process dies, and with it all sessions; another one starts, and the nodes come back."""
        lost = dict(self.sessions.live)
        self.sessions.live.clear()
        await self.stop()
        await self.start()
        if reconnect:
            for name, session in lost.items():
                self.sessions.connect(name, features=session.features)

    def job(
        self,
        name: str = "job",
        *,
        nodes: Iterable[str] = (),
        images: Iterable[str] = ("registry.example/team/app:v1",),
        **template: Any,
    ) -> str:
        """Applies it; returns its uid."""
        names = list(nodes)
        chosen = {"nodeNames": names} if names else {}
        return self.jobs.apply(name, {"images": list(images), **chosen, **template}).uid

    def status(self, name: str = "job") -> Mapping[str, Any]:
        found = self.jobs.get(name)
        return found.status if found is not None else {}

    def entry(self, node: str, name: str = "job") -> dict[str, Any]:
        for entry in self.status(name).get("status", []):
            if entry["nodeStatus"]["nodeName"] == node:
                return dict(entry["nodeStatus"])
        return {}

    async def stored_state(self, node: str, name: str = "job") -> str:
        """As the store has it, whatever the status says yet."""
        job = await self.store.job_named(name)
        assert job is not None
        found = await self.store.snapshot(job.uid, 100_000)
        assert found is not None
        (state,) = (str(entry.state) for entry in found[1] if entry.node == node)
        return state

    def asked(self, node: str) -> list[Asked]:
        return self.sessions.node(node).asked

    async def until(self, condition: Callable[[], object], *, within: float = 60.0) -> None:
        """Polls, since what is waited for goes through a real file in another thread."""
        deadline = asyncio.get_running_loop().time() + within
        while not condition():
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"not reached: {self.status()}")
            await asyncio.sleep(0.002)

    async def until_published(self, condition: Callable[[], object], *, within: float = 60.0) -> None:
        """Polls for something of a status, letting the publisher's interval pass meanwhile."""

        def reached() -> object:
            self.clock.advance(0.01)
            return condition()

        await self.until(reached, within=within)

    async def until_state(self, state: str, name: str = "job", *, within: float = 60.0) -> None:
        await self.until_published(lambda: self.status(name).get("state") == state, within=within)

    async def until_idle(self) -> None:
        """Until the manager has had every occasion to do something. Only for showing that it does not."""
        manager = self.manager
        await self.until(lambda: manager is None or not manager._scheduler.gathering.is_under_way())
        for _ in range(5):
            await asyncio.sleep(0.01)
            await self.store.remove("nobody")


@asynccontextmanager
async def open_world(folder: Path, **settings: Any) -> AsyncIterator[World]:
    world = World(folder, TaskManagerSettings(**settings))
    await world.start()
    try:
        yield world
    finally:
        await world.sessions.close()
        await world.stop()
