"""Stands between the hub and the API server, as slow or as broken as a round wants it.

TLS on both sides, on the harness's own loop; the hub gets a kubeconfig of its own that leads here, while the harness
itself speaks to the API server past it. What is done to a request is set by its attributes, at any time.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final, Self

import aiohttp
import yaml
from aiohttp import web

from cloudhub.pki.ca import utc_now
from cloudhub.pki.contexts import server_context
from tests.bench.identities import load_ca

_KEEP: Final = ("Authorization", "Accept", "Content-Type")
_WRITES: Final = frozenset({"POST", "PUT", "PATCH"})


class APIProxy:
    """``kubeconfig`` leads to the API server; ``folder`` holds the CA that the proxy's certificate is of."""

    def __init__(self, *, kubeconfig: Path, folder: Path) -> None:
        self._kubeconfig = kubeconfig
        self._ca = load_ca(folder)
        self.random = Random(0)
        self.delay = (0.0, 0.0)
        """Seconds before a request is passed on, from and to."""
        self.code: int | None = None
        """Requests are answered with this: 409 those that write, 410 lists and watches, others all."""
        self.share = 1.0
        """Of the requests: so many are hit by `code` and `lose_answers`."""
        self.lose_answers = False
        """The request is passed on, and the connection breaks before the answer."""
        self.watch_seconds: float | None = None
        """No watch lives longer than this."""
        self.compacted = 0
        """Watches from a resourceVersion before this one are answered with 410, for good: what came after it is
        forgotten. `well` brings nothing back."""
        self.hits = 0
        """Requests that something was done to."""
        self.hit = asyncio.Event()
        """There was one, since it was last cleared."""
        self._watches: set[asyncio.Timeout] = set()
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession | None = None
        self.port = 0

    def well(self) -> None:
        """From now on it does nothing."""
        self.delay, self.code, self.share = (0.0, 0.0), None, 1.0
        self.lose_answers, self.watch_seconds = False, None

    def close_watches(self) -> None:
        now = asyncio.get_running_loop().time()
        for limit in self._watches:
            limit.reschedule(now)
            self._count()

    def _count(self) -> None:
        self.hits += 1
        self.hit.set()

    def write_kubeconfig(self, path: Path) -> None:
        """The API server's, with this address and CA. The token stays."""
        document = yaml.safe_load(self._kubeconfig.read_text())
        cluster = document["clusters"][0]["cluster"]
        cluster["server"] = f"https://127.0.0.1:{self.port}"
        cluster["certificate-authority-data"] = base64.b64encode(self._ca.certificate_pem).decode()
        path.write_text(yaml.safe_dump(document))

    async def __aenter__(self) -> Self:
        cluster = yaml.safe_load(self._kubeconfig.read_text())["clusters"][0]["cluster"]
        self._upstream = cluster["server"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        self._client = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
        await self._runner.setup()
        identity = self._ca.issue_server_certificate(addresses=["127.0.0.1"], dns_names=[], now=utc_now())
        tls = server_context(self._ca, identity, client_certificates=ssl.CERT_NONE)
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=tls).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    # --- Requests ---------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        watching = request.query.get("watch") in ("1", "true")
        hit = self.random.random() < self.share
        if self.delay[1]:
            self._count()
            await asyncio.sleep(self.random.uniform(*self.delay))
        if hit and self._is_refused(request.method):
            self._count()
            return _refusal(self.code or 500)
        if watching and is_before(request, self.compacted):
            self._count()
            return _refusal(410)
        try:
            if watching:
                return await self._pass_watch(request)
            return await self._pass_on(request, lose=hit and self.lose_answers)
        except aiohttp.ClientError:
            # The API server is not there; neither are we.
            return _cut(request)

    def _is_refused(self, method: str) -> bool:
        if self.code == 409:
            return method in _WRITES
        return self.code is not None and (self.code != 410 or method == "GET")

    async def _pass_on(self, request: web.Request, *, lose: bool) -> web.StreamResponse:
        assert self._client is not None
        body, headers = await request.read(), _headers(request)
        url = f"{self._upstream}{request.path_qs}"
        async with self._client.request(request.method, url, headers=headers, data=body or None) as answer:
            content = await answer.read()
        if lose:
            self._count()
            return _cut(request)
        kept = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
        return web.Response(status=answer.status, body=content, headers=kept)

    async def _pass_watch(self, request: web.Request) -> web.StreamResponse:
        assert self._client is not None
        url = f"{self._upstream}{request.path_qs}"
        response = web.StreamResponse()
        try:
            async with asyncio.timeout(self.watch_seconds) as limit:
                self._watches.add(limit)
                async with self._client.get(url, headers=_headers(request)) as answer:
                    response.set_status(answer.status)
                    response.content_type = "application/json"
                    await response.prepare(request)
                    async for chunk in answer.content.iter_any():
                        await response.write(chunk)
        except TimeoutError:
            # Ended by us: half of the watches as an API server ends them, the others in the middle of a line.
            return _cut(request) if self.random.random() < 0.5 or not response.prepared else response
        except (aiohttp.ClientError, ConnectionError):
            # The hub closed it, or the API server died.
            return _cut(request)
        finally:
            self._watches.discard(limit)
        return response


def is_before(request: web.Request, version: int) -> bool:
    text = request.query.get("resourceVersion", "")
    return text.isdigit() and 0 < int(text) < version


def _headers(request: web.Request) -> dict[str, str]:
    return {name: request.headers[name] for name in _KEEP if name in request.headers}


def _cut(request: web.Request) -> web.Response:
    """The connection breaks; what is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _refusal(code: int) -> web.Response:
    reasons = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reasons[code],
        "code": code,
        "message": "the round wants it so",
    }
    return web.json_response(status, status=code, headers={"Retry-After": "1"} if code == 429 else None)
