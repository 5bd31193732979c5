"""A registry on loopback that serves what a test gives it, as well or as badly as the test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from aiohttp import web

from tests.unit.runtime_oci.images import Image

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def authorization(self) -> str | None:
        return self.headers.get("Authorization")


class BadRegistry:
    """``answers``: by the end of the path, what to answer instead; the first that fits."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answers: dict[str, Answer] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.blobs: dict[str, bytes] = {}
        self.ranges = True
        self.waiting = asyncio.Event()
        """Set when an answer of `hang` or `stall` waits."""
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=1 << 20)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def add(self, image: Image, tag: str = "latest") -> None:
        self.manifests[tag] = self.manifests[image.digest] = image.content, image.media_type
        for digest, content in image.children.items():
            self.manifests[digest] = content, ""
        self.blobs.update(image.blobs)

    def paths(self, part: str = "") -> list[str]:
        return [seen.path for seen in self.seen if part in seen.path]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """What a good registry answers."""
        kind, _, reference = request.path.rpartition("/")
        if kind.endswith("/manifests") and reference in self.manifests:
            content, media_type = self.manifests[reference]
            media_type = media_type or json.loads(content)["mediaType"]
            return web.Response(body=content, headers={"Content-Type": media_type})
        if kind.endswith("/blobs") and reference in self.blobs:
            return self._blob(request, self.blobs[reference])
        return web.Response(status=404)

    def _blob(self, request: web.Request, content: bytes) -> web.Response:
        start = request.http_range.start
        if start is None or not self.ranges:
            return web.Response(body=content)
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        return web.Response(status=206, body=content[start:], headers=headers)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(
            Seen(request.method, request.path, request.rel_url.raw_query_string, dict(request.headers), body)
        )
        for end, answer in self.answers.items():
            if request.path.endswith(end):
                return await answer(request)
        return await self.serve(request)

    # --- Bad answers ---------------------------------------------------------------------------------------------

    def once(self, answer: Answer, then: Answer | None = None) -> Answer:
        """``answer`` the first time, then ``then``, or as a good registry."""
        left = [answer]

        async def respond(request: web.Request) -> web.StreamResponse:
            return await (left.pop() if left else then or self.serve)(request)

        return respond

    def broken_after(self, count: int) -> Answer:
        """The connection is cut when ``count`` bytes of what a good registry would send are out."""

        async def respond(request: web.Request) -> web.StreamResponse:
            response, content = await self._begin(request)
            await response.write(content[:count])
            assert request.transport is not None
            request.transport.close()
            return response

        return respond

    def stall_after(self, count: int) -> Answer:
        async def respond(request: web.Request) -> web.StreamResponse:
            response, content = await self._begin(request)
            await response.write(content[:count])
            self.waiting.set()
            await asyncio.Event().wait()
            return response

        return respond

    async def _begin(self, request: web.Request) -> tuple[web.StreamResponse, bytes]:
        good = await self.serve(request)
        assert isinstance(good, web.Response)
        assert isinstance(good.body, bytes)
        headers = {"Content-Range": good.headers["Content-Range"]} if good.status == 206 else {}
        response = web.StreamResponse(status=good.status, headers=headers)
        response.content_length = len(good.body)
        await response.prepare(request)
        return response, good.body

    async def hang(self, _: web.Request) -> web.StreamResponse:
        self.waiting.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)


def status(code: int, **headers: str) -> Answer:
    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return respond


def body(content: bytes, media_type: str = "application/octet-stream", **headers: str) -> Answer:
    async def respond(_: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=content, headers={"Content-Type": media_type, **named})

    return respond


def redirect(url: str, code: int = 307) -> Answer:
    return status(code, Location=url)
