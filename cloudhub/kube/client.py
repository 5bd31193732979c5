"""Requests to a Kubernetes API server, as plain JSON, with the errors of ports.

kubernetes_asyncio brings what is hard to get right: kubeconfig files with all their ways to log in, service accounts,
TLS. Its typed models are not used: deserialising 10,000 Nodes through them takes a minute of CPU. Its exceptions and
aiohttp's do not leave this module, and its debug log, which prints bodies and so Secrets, is bypassed.

Guarantee: every request has a deadline, goes through the rate limiter, and ends in a result or a `KubeError`.
`unavailable_since` tells since when (by the clock given) no request was served, None while the API serves.
A 401 reloads the credentials, at most once in a while, and tries once more: tokens in files rotate. Beyond that nothing
is retried here: what a failure means, the caller knows.
"""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import aiohttp
import structlog
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.client.exceptions import OpenApiException
from pydantic_core import from_json

from cloudhub.kube.credentials import discard_files, load_credentials
from cloudhub.kube.errors import from_answer
from cloudhub.kube.limiter import RateLimiter
from cloudhub.metrics import Metrics
from cloudhub.settings import ConfigError
from cloudhub.taskmanager.ports import KubeError, Unavailable

log = structlog.get_logger(__name__)

MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH: Final = "application/strategic-merge-patch+json"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
"""Accept header: the object's metadata alone. A server that cannot do that answers with the whole object."""

USER_AGENT: Final = "cloudhub"
_RELOAD_EVERY: Final = 10.0
_POOL_SIZE: Final = 64
_MAX_LINE: Final = 8 << 20
"""etcd holds objects of at most 1.5 MB; a line of a watch that is longer than this comes from no API server."""
_MAX_STATUS: Final = 1 << 16

_TRANSPORT_ERRORS: Final = (TimeoutError, aiohttp.ClientError, OSError, ValueError, RuntimeError, OpenApiException)
"""What aiohttp and the client library raise when there is no answer, or none that is HTTP. RuntimeError: the session
was closed under a request, because its credentials were replaced."""


class KubeClient:
    """One API server. `connect` makes it from settings, `close` ends it."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        qps: float,
        burst: int,
        reload: Callable[[], Awaitable[Configuration]] | None = None,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        configuration.connection_pool_maxsize = _POOL_SIZE
        self._api = ApiClient(configuration)
        self._reload = reload
        self._reloaded = -_RELOAD_EVERY
        self._limiter = RateLimiter(qps=qps, burst=burst, clock=clock)
        self._metrics = metrics
        self._clock = clock
        self.unavailable_since: float | None = None
        self.last_error: str = ""

    @classmethod
    async def connect(
        cls,
        *,
        kubeconfig: str = "",
        master: str = "",
        qps: float = 100,
        burst: int = 200,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> KubeClient:
        """By a kubeconfig file, else by the pod's service account. Speaks to no one yet (but for a login helper that
        the kubeconfig names). Raises `ConfigError`."""

        async def load() -> Configuration:
            return await load_credentials(kubeconfig=kubeconfig, master=master)

        client = cls(await load(), qps=qps, burst=burst, reload=load, metrics=metrics, clock=clock)
        discard_files()
        return client

    @property
    def server(self) -> str:
        return str(self._api.configuration.host)

    async def close(self) -> None:
        await self._api.close()

    def unavailable_for(self) -> float:
        """Seconds since the API last served, 0.0 while it does."""
        return 0.0 if self.unavailable_since is None else self._clock() - self.unavailable_since

    def check(self, *, after: float = 30.0) -> str | None:
        """For readiness: None while the API serves, or has not for less than ``after`` seconds."""
        away = self.unavailable_for()
        return f"the Kubernetes API has not served for {away:.0f} s: {self.last_error}" if away > after else None

    # --- Requests ---------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float = 30.0,
        sensitive: bool = False,
    ) -> dict[str, Any]:
        """The object that the API answers with. ``sensitive``: error texts carry nothing of the answer."""
        headers = {"Accept": accept, "User-Agent": USER_AGENT, "Content-Type": content_type}
        limits = aiohttp.ClientTimeout(total=timeout)
        response = await self._open(method, path, query, body, headers, limits, sensitive)
        async with response:
            try:
                data = await response.read()
            except _TRANSPORT_ERRORS as error:
                raise self._no_answer(method, path, error) from error
        document = _from_json(data)
        if not isinstance(document, dict):
            raise Unavailable(f"{method} {path}: the answer is no JSON object; is {self.server} a Kubernetes API?")
        return document

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str], silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The lines of an answer that does not end soon. After ``silence`` seconds without a byte the connection
        counts as dead: `Unavailable`."""
        headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
        limits = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=silence)
        response = await self._open("GET", path, query, None, headers, limits, False)
        async with response:
            _probe_dead_peers(response)
            async with aclosing(self._lines(path, response.content)) as lines:
                yield lines

    async def _lines(self, path: str, content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
        # By chunk, not by line: of a burst of small events one wake-up reads many.
        held = bytearray()
        while chunk := await self._chunk(path, content):
            held += chunk
            if len(held) > _MAX_LINE and b"\n" not in held:
                raise Unavailable(f"GET {path}: a line of more than {_MAX_LINE} bytes")
            if b"\n" in chunk:
                *lines, rest = bytes(held).split(b"\n")
                held = bytearray(rest)
                for line in lines:
                    if line:
                        yield line

    async def _chunk(self, path: str, content: aiohttp.StreamReader) -> bytes:
        try:
            return await content.readany()
        except _TRANSPORT_ERRORS as error:
            # A stream that broke or fell silent says nothing of the next request: `unavailable_since` waits for that.
            raise Unavailable(f"GET {path}: {_why(error)}") from error

    async def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        headers: dict[str, str],
        limits: aiohttp.ClientTimeout,
        sensitive: bool,
    ) -> aiohttp.ClientResponse:
        """The answer, its head read, a success. The caller closes it."""
        await self._limiter.acquire()
        try:
            response = await self._exchange(method, path, query, body, headers, limits)
            if response.status == 401 and await self._reload_credentials():
                response.close()
                response = await self._exchange(method, path, query, body, headers, limits)
            error = await self._judge(response, method, path, sensitive)
        except _TRANSPORT_ERRORS as failure:
            raise self._no_answer(method, path, failure) from failure
        if error is not None:
            response.close()
            raise error
        return response

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        headers: dict[str, str],
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        api = self._api
        headers = dict(headers)
        await api.update_params_for_auth(headers, [], ["BearerToken"])
        response: aiohttp.ClientResponse = await api.rest_client.request(
            method,
            f"{api.configuration.host}{path}",
            query_params=dict(query or {}),
            headers=headers,
            body=body,
            _preload_content=False,
            _request_timeout=limits,
        )
        return response

    async def _judge(
        self, response: aiohttp.ClientResponse, method: str, path: str, sensitive: bool
    ) -> KubeError | None:
        """Counts the answer; the error that it stands for, if it is no success."""
        code = response.status
        if self._metrics is not None:
            self._metrics.api_requests_total.count(str(code))
        if code < 300:
            self._served()
            return None
        body = _from_json(await response.content.read(_MAX_STATUS))
        if sensitive and isinstance(body, dict):
            body = {"reason": body.get("reason")}
        retry_after = response.headers.get("Retry-After")
        error = from_answer(verb=method, path=path, code=code, body=body, retry_after=retry_after)
        if code == 429 or code >= 500:
            self._not_served(error)
        else:
            self._served()
        return error

    def _no_answer(self, method: str, path: str, failure: Exception) -> Unavailable:
        error = Unavailable(f"{method} {path}: {_why(failure)}")
        if self._metrics is not None:
            self._metrics.api_requests_total.count("none")
        self._not_served(error)
        return error

    def _served(self) -> None:
        if self.unavailable_since is not None:
            log.info("the Kubernetes API serves again", away_seconds=round(self.unavailable_for(), 1))
        self.unavailable_since = None
        self.last_error = ""

    def _not_served(self, error: KubeError) -> None:
        if self.unavailable_since is None:
            self.unavailable_since = self._clock()
            log.warning("the Kubernetes API does not serve", server=self.server, reason=str(error))
        self.last_error = str(error)

    async def _reload_credentials(self) -> bool:
        """After a 401. False when it was done a moment ago, or brought nothing new."""
        if self._reload is None or self._clock() - self._reloaded < _RELOAD_EVERY:
            return False
        self._reloaded = self._clock()
        try:
            fresh = await self._reload()
        except ConfigError as error:
            log.warning("the credentials for the Kubernetes API cannot be read again", reason=str(error))
            return False
        current = self._api.configuration
        if fresh.cert_file:
            # The files may hold another certificate now: a TLS context is made once, with the connections.
            fresh.connection_pool_maxsize = _POOL_SIZE
            old, self._api = self._api, ApiClient(fresh)
            discard_files()
            await old.close()
            return True
        discard_files()
        changed = bool(fresh.api_key != current.api_key)
        current.api_key = fresh.api_key
        current.refresh_api_key_hook = fresh.refresh_api_key_hook
        return changed


def _cut(error: Exception) -> str:
    return str(error)[:300]


def _why(failure: Exception) -> str:
    return "no answer in time" if isinstance(failure, TimeoutError) else _cut(failure) or type(failure).__name__


def _from_json(data: bytes) -> Any:
    # A page of a list is some 100,000 new objects, none of them in a cycle: the collector would search all of the
    # heap for nothing in the middle of it, and hold up the loop five times as long as the parsing itself does.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return from_json(data)
    except ValueError:
        return None
    finally:
        if collecting:
            gc.enable()


def _probe_dead_peers(response: aiohttp.ClientResponse) -> None:
    """TCP keepalive on a watch: a peer that vanished without a word is noticed in half a minute, not at ``silence``."""
    transport = response.connection.transport if response.connection else None
    peer: socket.socket | None = transport.get_extra_info("socket") if transport else None
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
