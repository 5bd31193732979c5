"""An API server that does what a test says: it speaks list, watch, patch over a real socket, and fails on order.

Only as much of the protocol as the informer's rules need; how the adapter gets on with the whole protocol is shown
against the embedded API server in tests/integration/kube.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from typing import Any

from aiohttp import web
from kubernetes_asyncio.client import Configuration

from cloudhub.kube.client import KubeClient

COLLECTIONS = ("customresourcedefinitions", "imageprepulljobs", "leases", "nodes", "secrets")


class ScriptedAPI:
    """Objects of any resource, by the path of their collection."""

    def __init__(self) -> None:
        self.version = 100
        self.objects: dict[str, dict[str, dict[str, Any]]] = {}
        self.documents: dict[str, dict[str, Any]] = {}
        """What is no resource: discovery."""
        self.history: list[tuple[int, str, str, dict[str, Any]]] = []
        self.oldest = 0
        """Watches from before this version get 410."""
        self.requests: Counter[str] = Counter()
        self.failing: list[int] = []
        """Codes for the next answers, one each, whatever is asked."""
        self.fail_always: int | None = None
        self.on_request: Callable[[web.Request], None] | None = None
        self.hanging = False
        """Answers nothing until told otherwise."""
        self.end_watches_at_once = False
        self.bad_watch_line: bytes | None = None
        self.status_in_post = True
        self._released = asyncio.Event()
        self._changed = asyncio.Condition()
        self._epoch = 0
        self._runner: web.AppRunner | None = None
        self.port = 0

    # --- What the test does -----------------------------------------------------------------------------------

    async def put(self, path: str, name: str, **content: Any) -> dict[str, Any]:
        """Creates or replaces an object; its uid stays unless given."""
        old = self.objects.setdefault(path, {}).get(name)
        item = deepcopy(content)
        about = item.setdefault("metadata", {})
        about.setdefault("name", name)
        about.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{name}-{self.version + 1}")
        await self._record(path, "MODIFIED" if old else "ADDED", item)
        return item

    async def delete(self, path: str, name: str) -> None:
        await self._record(path, "DELETED", deepcopy(self.objects[path].pop(name)))

    async def bookmark(self, path: str) -> None:
        await self._record(path, "BOOKMARK", {"metadata": {}})

    async def _record(self, path: str, kind: str, item: dict[str, Any]) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        if kind in ("ADDED", "MODIFIED"):
            self.objects.setdefault(path, {})[item["metadata"]["name"]] = item
        async with self._changed:
            self.history.append((self.version, path, kind, item))
            self._changed.notify_all()

    async def forget_history(self) -> None:
        """As after a compaction: who watches from before now must list again."""
        self.oldest = self.version
        self.history.clear()

    async def end_watches(self) -> None:
        async with self._changed:
            self._epoch += 1
            self._changed.notify_all()

    async def release(self) -> None:
        self.hanging = False
        self._released.set()

    # --- The server -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self.end_watches()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        watching = request.query.get("watch") == "true"
        self.requests["WATCH" if watching else request.method] += 1
        if self.on_request is not None:
            self.on_request(request)
        if self.hanging:
            await self._released.wait()
        code = self.failing.pop(0) if self.failing else self.fail_always
        if code is not None:
            return _status(code, "as the test wants", headers={"Retry-After": "0"} if code == 429 else None)
        if request.method == "GET":
            return await (self._watch(request) if watching else self._get(request))
        return await self._write(request)

    async def _get(self, request: web.Request) -> web.Response:
        path = request.path
        if path in self.documents:
            return web.json_response(self.documents[path])
        collection, _, name = path.rpartition("/")
        if collection.rpartition("/")[2] in COLLECTIONS:
            found = self.objects.get(collection, {}).get(name)
            return web.json_response(found) if found else _status(404, f"{name} not found")
        items = sorted(self.objects.get(path, {}).values(), key=lambda item: str(item["metadata"]["name"]))
        start = int(request.query.get("continue", "0"))
        limit = int(request.query.get("limit", str(len(items) or 1)))
        about: dict[str, Any] = {"resourceVersion": str(self.version)}
        if start + limit < len(items):
            about["continue"] = str(start + limit)
        return web.json_response({"metadata": about, "items": items[start : start + limit]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        sent = int(request.query["resourceVersion"])
        if sent < self.oldest:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        if self.bad_watch_line is not None:
            line, self.bad_watch_line = self.bad_watch_line, None
            await response.write(line)
        epoch = self._epoch
        while not self.end_watches_at_once and epoch == self._epoch:
            fresh = [entry for entry in self.history if entry[0] > sent and entry[1] == request.path]
            for version, _, kind, item in fresh:
                await response.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")
                sent = version
            if not fresh:
                async with self._changed:
                    await self._changed.wait()
        return response

    async def _write(self, request: web.Request) -> web.Response:
        body = await request.json()
        if request.method == "POST":
            name = body["metadata"]["name"]
            if name in self.objects.setdefault(request.path, {}):
                return _status(409, f"{name} already exists")
            if not self.status_in_post:
                body.pop("status", None)
            return web.json_response(await self.put(request.path, name, **body), status=201)
        path, _, name = request.path.removesuffix("/status").rpartition("/")
        found = self.objects.get(path, {}).get(name)
        if found is None:
            return _status(404, f"{name} not found")
        wanted = body.get("metadata", {}).pop("resourceVersion", None)
        if wanted is not None and wanted != found["metadata"]["resourceVersion"]:
            return _status(409, "the object has been modified")
        if request.method == "PUT":
            return web.json_response(await self.put(path, name, **body))
        # As for a custom resource's status: what a patch says of metadata is not looked at.
        patch = {"status": body.get("status", {})} if request.path.endswith("/status") else body
        return web.json_response(await self.put(path, name, **merge(found, patch)))


def merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7386."""
    result = deepcopy(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            inner = result.get(key)
            result[key] = merge(inner if isinstance(inner, dict) else {}, value)
        else:
            result[key] = value
    return result


def _status(code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
    return web.json_response(body, status=code, headers=headers)


@asynccontextmanager
async def running_api() -> AsyncIterator[ScriptedAPI]:
    api = ScriptedAPI()
    await api.start()
    try:
        yield api
    finally:
        await api.stop()


@asynccontextmanager
async def client_of(api: ScriptedAPI, **options: Any) -> AsyncIterator[KubeClient]:
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{api.port}"
    client = KubeClient(configuration, **{"qps": 10_000, "burst": 10_000, **options})
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def in_background(work: Callable[[], Awaitable[None]]) -> AsyncIterator[asyncio.Task[None]]:
    """Runs a ``run()`` while the block lasts; an error of it is the test's."""
    task: asyncio.Task[None] = asyncio.ensure_future(work())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def eventually(condition: Callable[[], bool], *, within: float = 60.0) -> None:
    """Returns when it holds; fails the test when it does not within that time."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - the condition is another part's state, which has no event
            await asyncio.sleep(0.005)
