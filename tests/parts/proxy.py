"""A proxy in front of a registry that is as slow or as broken as a test wants it.

It runs on the test's own loop. What it does to a request is set by its attributes, at any time; a blob is a layer or a
config, everything else is passed on at full speed.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp import web

_BLOB: Final = re.compile(r"/v2/.+/blobs/(?P<digest>sha256:[0-9a-f]{64})")
_CHUNK: Final = 16 * 1024
_KEEP_REQUEST: Final = ("Authorization", "Accept", "Range")
_DROP_RESPONSE: Final = frozenset({"content-length", "transfer-encoding", "connection", "date", "server"})


class RegistryProxy:
    """Stands at `address` in the place of the registry at ``upstream`` (``http://host:port``)."""

    def __init__(self, upstream: str, *, host: str = "127.0.0.1") -> None:
        self._upstream = upstream
        self._host = host
        self.bytes_per_second: float | None = None
        """Of one blob's transfer; None is full speed."""
        self.cut_blobs_after: int | None = None
        """The connection breaks after so many bytes of a blob."""
        self.stall_blobs_after: int | None = None
        """Nothing more comes after so many bytes of a blob, until `release`."""
        self.shorten_blobs_to: int | None = None
        """A blob's answer has so many bytes, and says in its headers that this is all."""
        self.corrupt_blobs = False
        """Some bytes of each blob's answer are others."""
        self.answer_with: int | None = None
        """Every request gets this status, with Docker's error body, and nothing is passed on."""
        self.answer_times: int | None = None
        """`answer_with` holds for so many requests only; None is for ever."""
        self.retry_after: int | None = None
        """Seconds, in the header of that name beside `answer_with`."""
        self.hang = False
        """Requests get no answer, until `release`."""
        self.requests: list[str] = []
        """Method and path of each request."""
        self.blob_bytes = 0
        """Sent of all blobs."""
        self.served: Counter[tuple[str, str]] = Counter()
        """How often each blob, whole and unspoilt, went to each client: by address and digest."""
        self.blob_started = asyncio.Event()
        """Some byte of some blob of more than a chunk went out."""
        self._transfers = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"{self._host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def transfers(self) -> int:
        """Blobs being sent at this moment."""
        return self._transfers

    async def until_idle(self) -> None:
        """Returns when no blob is being sent, be it done, broken, or given up by who asked."""
        await self._idle.wait()

    def release(self) -> None:
        """Lets stalled transfers and unanswered requests go on, and all that follow."""
        self.stall_blobs_after = None
        self.hang = False
        released, self._released = self._released, asyncio.Event()
        released.set()

    def heal(self) -> None:
        """From now on it is a good registry, as fast as it can be."""
        self.bytes_per_second = self.cut_blobs_after = self.shorten_blobs_to = None
        self.answer_with = self.answer_times = self.retry_after = None
        self.corrupt_blobs = False
        self.release()

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession(auto_decompress=False)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        # Cancelled when the client goes away: that is how a transfer that nobody wants ends here.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        if self.answer_with is not None and self.answer_times != 0:
            if self.answer_times is not None:
                self.answer_times -= 1
            body = {"errors": [{"code": "UNKNOWN", "message": "the test wants it so", "detail": None}]}
            headers = {"Retry-After": str(self.retry_after)} if self.retry_after is not None else None
            return web.json_response(body, status=self.answer_with, headers=headers)
        if self.hang:
            await self._released.wait()
        try:
            return await self._pass_on(request)
        except ConnectionResetError:
            return web.Response()  # to nobody: the client has gone, as it may

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        assert self._client is not None
        headers = {name: request.headers[name] for name in _KEEP_REQUEST if name in request.headers}
        url = f"{self._upstream}{request.path_qs}"
        async with self._client.request(request.method, url, headers=headers, allow_redirects=False) as answer:
            response = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _DROP_RESPONSE:
                    response.headers.add(name, value)
            is_blob = request.method == "GET" and _BLOB.fullmatch(request.path)
            length = answer.content_length
            if length is not None:
                if is_blob and self.shorten_blobs_to is not None:
                    length = min(length, self.shorten_blobs_to)
                response.content_length = length
            await response.prepare(request)
            if is_blob:
                await self._send_blob(request, response, answer.content)
            elif request.method != "HEAD":
                await response.write(await answer.read())
        return response

    async def _send_blob(
        self, request: web.Request, response: web.StreamResponse, content: aiohttp.StreamReader
    ) -> None:
        self._transfers += 1
        self._idle.clear()
        sent, shorten = 0, self.shorten_blobs_to
        spoilt = self.corrupt_blobs
        try:
            async for read in content.iter_chunked(_CHUNK):
                chunk = read
                if self.corrupt_blobs:
                    spoilt = True
                    middle = len(chunk) // 2
                    chunk = chunk[:middle] + bytes([chunk[middle] ^ 1]) + chunk[middle + 1 :]
                if shorten is not None and sent + len(chunk) >= shorten:
                    await response.write(chunk[: shorten - sent])
                    return
                if self.cut_blobs_after is not None and sent + len(chunk) > self.cut_blobs_after:
                    await response.write(chunk[: max(self.cut_blobs_after - sent, 0)])
                    if request.transport is not None:
                        request.transport.abort()
                    return
                if self.stall_blobs_after is not None and sent + len(chunk) > self.stall_blobs_after:
                    await self._released.wait()
                if sent + len(chunk) == response.content_length and not spoilt:
                    # Before the client can have it: it may be looked at as soon as that is done.
                    self.served[str(request.remote), request.path.rpartition("/")[2]] += 1
                await response.write(chunk)
                sent += len(chunk)
                self.blob_bytes += len(chunk)
                if len(chunk) == _CHUNK:
                    self.blob_started.set()
                if self.bytes_per_second:
                    await asyncio.sleep(len(chunk) / self.bytes_per_second)
        finally:
            self._transfers -= 1
            if not self._transfers:
                self._idle.set()
