"""A private registry for the demo and for tests: the pulling half of the OCI distribution API, in memory, on loopback.

It asks for a user and a password by Basic authentication, serves manifests by tag and digest and blobs with ranges,
and can be made slow, so that progress is to be seen. It speaks plain http and takes no uploads: images are put in by
the program that runs it. For anything else there are registries.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final, Self

from aiohttp import web
from aiohttp.typedefs import Handler

from cloudhub.demo.image import DemoImage

_SLICE_SECONDS: Final = 0.05
_MIN_SLICE: Final = 4096
_PATH = re.compile(r"(?P<name>[a-z0-9][a-z0-9._/-]*)/(?P<kind>manifests|blobs)/(?P<reference>[\w.:-]+)")


class DemoRegistry:
    """``bytes_per_second`` holds for each transfer; None does not slow down."""

    def __init__(
        self,
        *,
        username: str,
        password: str,
        host: str = "127.0.0.1",
        port: int = 0,
        bytes_per_second: int | None = None,
    ) -> None:
        if bytes_per_second is not None and bytes_per_second < 1:
            raise ValueError(f"bytes_per_second is {bytes_per_second}; it must be at least 1, or None")
        self.host = host
        self.port = port
        """The one listened on, once started."""
        self.bytes_per_second = bytes_per_second
        pair = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._authorization = f"Basic {pair}".encode()
        self._tags: dict[tuple[str, str], str] = {}
        self._manifests: dict[tuple[str, str], DemoImage] = {}
        self._blobs: dict[tuple[str, str], bytes] = {}
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        """``host:port``, as it stands in an image's name."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def add(self, image: DemoImage, name: str) -> None:
        """``name``: ``repository:tag``. A tag that is there moves."""
        repository, _, tag = name.partition(":")
        self._tags[repository, tag or "latest"] = image.digest
        self._manifests[repository, image.digest] = image
        for digest, content in image.blobs.items():
            self._blobs[repository, digest] = content

    async def start(self) -> None:
        application = web.Application(middlewares=[self._authorize])
        application.router.add_get("/v2/", self._base)
        application.router.add_get("/v2/{path:.+}", self._get)
        # A pull that is under way when the demo ends has no claim to its end.
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self.host, self.port)
            await site.start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="replace")
        if not hmac.compare_digest(given, self._authorization):
            answer = _error(401, "UNAUTHORIZED", "authentication required")
            answer.headers["WWW-Authenticate"] = 'Basic realm="cloudhub demo"'
            return answer
        return await handler(request)

    async def _base(self, _: web.Request) -> web.Response:
        return web.json_response({}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        match = _PATH.fullmatch(request.match_info["path"])
        if match is None:
            return _error(404, "NAME_UNKNOWN", "no such path")
        name, reference = match["name"], match["reference"]
        if match["kind"] == "manifests":
            return self._manifest(name, reference)
        blob = self._blobs.get((name, reference))
        if blob is None:
            return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return await self._blob(request, reference, blob)

    def _manifest(self, name: str, reference: str) -> web.Response:
        image = self._manifests.get((name, self._tags.get((name, reference), reference)))
        if image is None:
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        headers = {"Content-Type": image.media_type, "Docker-Content-Digest": image.digest}
        return web.Response(body=image.manifest, headers=headers)

    async def _blob(self, request: web.Request, digest: str, blob: bytes) -> web.StreamResponse:
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Accept-Ranges": "bytes",
        }
        status, start, end = 200, 0, len(blob)
        if wanted := _range(request, len(blob)):
            status, (start, end) = 206, wanted
            if start >= end:
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(blob)}"})
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(blob)}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = end - start
        await response.prepare(request)
        if request.method != "HEAD":
            async for piece in self._pieces(memoryview(blob)[start:end]):
                await response.write(piece)
        await response.write_eof()
        return response

    async def _pieces(self, content: memoryview) -> AsyncIterator[memoryview]:
        """``content`` at the set speed: each piece is sent when all before it should have arrived."""
        started, sent = time.monotonic(), 0
        while sent < len(content):
            speed = self.bytes_per_second
            size = (256 << 10) if speed is None else max(int(speed * _SLICE_SECONDS), _MIN_SLICE)
            yield content[sent : sent + size]
            sent += size
            if speed is not None:
                await asyncio.sleep(max(0.0, started + sent / speed - time.monotonic()))


def _range(request: web.Request, size: int) -> tuple[int, int] | None:
    """Start and end (behind the last byte) of the range asked for; one that is none is as good as not asked."""
    try:
        wanted = request.http_range
    except ValueError:
        return None
    if wanted.start is None and wanted.stop is None:
        return None
    start, end, _ = wanted.indices(size)
    return start, end


def _error(status: int, code: str, message: str) -> web.Response:
    body: Mapping[str, object] = {"errors": [{"code": code, "message": message}]}
    return web.json_response(body, status=status)
