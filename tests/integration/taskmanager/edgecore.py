"""An EdgeCore as its hub meets it: messages as Go writes them, one dialect or both, a database of its own, no journal.

It works as KubeEdge's source does, defects included: the value of ``.dockerconfigjson`` is taken for the runtime's
AuthConfig; a Secret that it has a copy of is not asked for; what it does not understand it drops; an operation that it
does not know, on a v1alpha2 task, kills it; a v1alpha1 pull whose Secret cannot be read is a success without images.

The runtime is containerd's: a credential is sent only to the host of its ``server_address``, which must be a URL.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from cloudhub.sessions.queries import Queries
from shared.images import parse_reference
from shared.wire import decode
from tests.integration.taskmanager.world import STOCK, World

V1ALPHA2 = "operations.kubeedge.io/v1alpha2/imageprepulljob"
NOW = "2026-01-02T03:04:05Z"


class Registries:
    """Hosts and who may pull from them. ``seen`` is who was at which host's door."""

    def __init__(self, private: Mapping[str, tuple[str, str]]) -> None:
        self.private = dict(private)
        self.seen: list[tuple[str, str]] = []

    def pull(self, image: str, auth: Mapping[str, str]) -> str:
        """Why not; empty when it is there."""
        host = parse_reference(image).registry
        given: tuple[str, str] | None = auth.get("username", ""), auth.get("password", "")
        if "server_address" in auth and urlsplit(auth["server_address"]).netloc != host:
            given = None
        if given == ("", ""):
            given = None
        if given is not None:
            self.seen.append((host, given[0]))
        wanted = self.private.get(host)
        if wanted is None or given == wanted:
            return ""
        return f'failed to pull and unpack image "{image}": 401 Unauthorized'


class EdgeCore:
    def __init__(
        self,
        world: World,
        name: str,
        registries: Registries | None = None,
        *,
        knows: frozenset[str] = frozenset({"v1alpha1", "v1alpha2"}),
        asks_first: bool = False,
    ) -> None:
        """``asks_first``: for a Secret it asks its hub before it looks into its database (before 1.20)."""
        self.name = name
        self.knows = knows
        self.registries = registries or Registries({})
        self.database: dict[str, Any] = {}
        self.frames: list[dict[str, Any]] = []
        """All that came, as it came."""
        self.told: list[str] = []
        """All reports, as they were sent or lost."""
        self.pulled: list[str] = []
        self.check = ""
        """What is wrong with this machine's disk."""
        self.loses = False
        """Its writes fail: reports are lost."""
        self.acknowledges = True
        self.told_twice = False
        self.hold: asyncio.Event | None = None
        """Pulls wait for it."""
        self.crashed = False
        self.pulls_at_once = 0
        self._asks_first = asks_first
        self._world = world
        self._ids = itertools.count(1)
        self._questions: dict[str, asyncio.Future[dict[str, Any]]] = {}
        node = world.sessions.node(name)
        node.receive = self._receive

    def connect(self) -> None:
        self._world.sessions.connect(self.name, features=STOCK)

    def disconnect(self) -> None:
        self._world.sessions.disconnect(self.name)

    def reconnect(self) -> None:
        self.disconnect()
        self.connect()

    @property
    def tasks(self) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["route"]["group"] == "taskmanager"]

    @property
    def kinds(self) -> list[str]:
        """What came, in a word each: the operation, and of v1alpha1 the state."""
        return [
            frame["content"]["State"] if frame["route"]["operation"] == "prepull" else frame["route"]["operation"]
            for frame in self.frames
        ]

    # --- The hub's side -----------------------------------------------------------------------------------------------

    def _receive(self, frame: bytes) -> None:
        message = json.loads(frame)
        assert set(message) == {"header", "route", "content"}
        self.frames.append(message)
        route = message["route"]
        if route["group"] == "taskmanager":
            self._run(message)
        else:
            assert (route["source"], route["group"]) == ("edgecontroller", "resource")
            self._world.sessions._start(self._keep(message))

    async def _keep(self, message: dict[str, Any]) -> None:
        header, route = message["header"], message["route"]
        if route["operation"] == "error":
            self._questions.pop(header["parent_msg_id"]).set_result(message)
            return
        assert route["operation"] in ("update", "response"), route
        about = message["content"]["metadata"]
        assert about["uid"]
        assert header["resourceversion"] == about["resourceVersion"]
        # The database takes its time; what came with the message is worked on meanwhile.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.database[route["resource"]] = message["content"]
        if route["operation"] == "response":
            self._questions.pop(header["parent_msg_id"]).set_result(message)
        if self.acknowledges:
            await self._send(
                f'{{"header":{{"msg_id":"{self._id()}","parent_msg_id":"{header["msg_id"]}","timestamp":1764000000000}},'
                f'"route":{{"source":"edgecontroller","group":"resource","operation":"response",'
                f'"resource":"{route["resource"]}"}},"content":"OK"}}'
            )

    def _run(self, message: dict[str, Any]) -> None:
        route = message["route"]
        assert route["source"] == "taskmanager"
        if route["resource"].startswith(V1ALPHA2) and "v1alpha2" in self.knows:
            if route["operation"] not in ("Check", "Pull"):
                self.crashed = True
                raise AssertionError(f"nil dereference: {route['operation']}")
            self._world.sessions._start(self._v1alpha2(message))
        elif route["operation"] == "prepull" and "v1alpha1" in self.knows:
            self._world.sessions._start(self._v1alpha1(message["content"]))

    # --- Tasks --------------------------------------------------------------------------------------------------------

    async def _v1alpha2(self, message: dict[str, Any]) -> None:
        resource, template = message["route"]["resource"], message["content"]["imagePrePullTemplate"]
        if message["route"]["operation"] == "Check":
            wrong = self.check if "disk" in template["checkItems"] else ""
            await self._report_v1alpha2(resource, "Check", wrong, "")
            if wrong:
                return
        found = await self._pull(template["images"], template["imageSecrets"])
        if isinstance(found, str):
            await self._report_v1alpha2(resource, "Pull", found, "null")
            return
        results = [
            {"image": image, "status": "False", "reason": why} if why else {"image": image, "status": "True"}
            for image, why in found
        ]
        reason = "there were some failures when pulling images" if any(why for _, why in found) else ""
        await self._report_v1alpha2(resource, "Pull", reason, go_json(results))

    async def _v1alpha1(self, request: dict[str, Any]) -> None:
        job, item = request["TaskID"], request["Item"]
        assert request["Type"] == "prepull"
        if request["State"] == "Checking":
            results = {"cpu": "ok", "disk": self.check or "ok"} if "disk" in item["CheckItem"] else {}
            reason = go_json(results) if self.check and results else ""
            await self._report_v1alpha1(job, "Check", "Failure" if reason else "Success", reason, "")
            return
        assert request["State"] == "Pulling"
        assert item["NodeName"] == self.name
        found = await self._pull(item["Images"], item["Secret"])
        if isinstance(found, str):
            await self._report_v1alpha1(job, "Pull", "Success", "", "[]")
            return
        states = [
            {"image": image, "state": "Failed", "reason": why} if why else {"image": image, "state": "Successful"}
            for image, why in found
        ]
        wrong = [f"pull image failed, err: {why}" for _, why in found if why]
        action = "Failure" if wrong else "Success"
        await self._report_v1alpha1(job, "Pull", action, wrong[-1] if wrong else "", go_json(states))

    async def _pull(self, images: list[str], secret: str) -> list[tuple[str, str]] | str:
        """By image why not, or an error before any."""
        auth: dict[str, str] = {}
        if secret:
            found = await self._secret(secret)
            if isinstance(found, str):
                return f"failed to get secret {secret}, err: {found}"
            document = json.loads(base64.b64decode(found["data"][".dockerconfigjson"]))
            auth = {key: value for key, value in document.items() if isinstance(value, str)}
        self.pulls_at_once += 1
        if self.hold is not None:
            await self.hold.wait()
        self.pulls_at_once -= 1
        results = [(image, self.registries.pull(image, auth)) for image in images]
        self.pulled += [image for image, why in results if not why]
        return results

    async def _secret(self, secret: str) -> dict[str, Any] | str:
        namespace, _, name = secret.partition("/")
        resource = f"{namespace}/secret/{name}"
        if not self._asks_first and resource in self.database:
            kept: dict[str, Any] = self.database[resource]
            return kept
        message = await self.ask(resource)
        content: dict[str, Any] | str = message["content"]
        assert isinstance(content, str) == (message["route"]["operation"] == "error")
        return content

    async def ask(self, resource: str) -> dict[str, Any]:
        question = self._id()
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._questions[question] = answer
        await self._send(
            f'{{"header":{{"msg_id":"{question}","timestamp":1764000000000,"sync":false}},"route":{{"source":"edged",'
            f'"group":"meta","operation":"query","resource":"{resource}"}},"content":null}}'
        )
        return await answer

    # --- Reports ------------------------------------------------------------------------------------------------------

    async def _report_v1alpha2(self, resource: str, action: str, reason: str, extend: str) -> None:
        content = {"action": action, "succ": not reason, "finishTime": NOW, "reason": reason, "extend": extend}
        await self._report(resource, "UpdateNodeActionStatus", content)

    async def _report_v1alpha1(self, job: str, event: str, action: str, reason: str, external: str) -> None:
        content = {
            "NodeName": self.name,
            "State": "",
            "Event": event,
            "Action": action,
            "Reason": reason,
            "Time": NOW,
            "ExternalMessage": external,
        }
        await self._report(f"task/{job}/node/{self.name}", "prepull", content)

    async def _report(self, resource: str, operation: str, content: dict[str, Any]) -> None:
        frame = (
            f'{{"header":{{"msg_id":"{self._id()}","timestamp":1764000000000}},"route":{{"source":"websocket",'
            f'"group":"hub","operation":"{operation}","resource":"{resource}"}},"content":{go_json(content)}}}'
        )
        self.told.append(frame)
        if not self.loses:
            await self._send(frame)
            if self.told_twice:
                await self._send(frame)

    async def say_again(self) -> None:
        """All that it has reported, once more."""
        for frame in list(self.told):
            await self._send(frame)

    async def _send(self, frame: str) -> None:
        sessions = self._world.sessions
        manager, session = sessions.manager, sessions.live.get(self.name)
        if manager is None or session is None:
            return
        message = decode(frame)
        await manager.messages_received(session, (message,))
        await Queries(sessions=sessions, find=manager.secret_for).messages_received(session, (message,))

    def _id(self) -> str:
        return f"{self.name}-{next(self._ids)}"


def go_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
