"""/healthz, /readyz and /metrics over plain HTTP.

/healthz says that the process answers: an orchestrator restarts it when it does not. /readyz says whether it can do
its work; when it cannot, its body names each check that fails and why, and the code is 503. A check is a plain function
that looks at what its part knows already: nothing is tried out on a request, so asking often costs and breaks nothing.

The server has no authentication (Prometheus and kubelet come without), answers only these paths, takes no bodies, and
is meant for loopback or a cluster's inside; a check's text therefore holds no secret, as no error's text here does.
Whoever reaches it can cost the hub little: a connection carries one request and lives for seconds, few are open at a
time (`LIMITS`), one address may ask only so often, and scrapes that come together share one rendering.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

from cloudhub.listen.acceptor import AcceptLimits
from cloudhub.listen.admission import address_group
from cloudhub.listen.http import HTTPListener, allowed
from cloudhub.listen.ratelimit import RateLimit
from cloudhub.metrics import CONTENT_TYPE, Metrics
from cloudhub.settings import ConfigError

log = structlog.get_logger(__name__)

Check = Callable[[], str | None]
"""None: all is well. A text: why not."""

LIMITS: Final = AcceptLimits(turn=15.0, running=32, running_per_address=24, waiting=96, waiting_per_address=64)
"""A turn is a connection's whole life."""
REQUESTS_PER_SECOND: Final = 100.0
REQUEST_BURST: Final = 500
"""Of one address: some programs ask often while they wait for the hub to become ready."""
_SCRAPE_LIMIT: Final = 10.0
_SHUTDOWN: Final = 2.0


class Health:
    """What /readyz asks. Parts add their checks at the start; `stopping` makes it red for the rest of its life."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._stopping = False

    def add(self, name: str, check: Check) -> None:
        if name in self._checks:
            raise ValueError(f"there is a check named {name} already")
        self._checks[name] = check

    def stopping(self) -> None:
        """From now on not ready: new work goes elsewhere while this process ends."""
        self._stopping = True

    def failures(self) -> dict[str, str]:
        """Reasons by name of check."""
        found = {name: reason for name, check in self._checks.items() if (reason := _ask(name, check)) is not None}
        return {"process": "stopping", **found} if self._stopping else found


def _ask(name: str, check: Check) -> str | None:
    try:
        return check()
    except Exception as error:
        # A check that fails to say is no reason to say nothing about the others.
        log.exception("a readiness check failed", check=name)
        return f"the check itself failed: {type(error).__name__}"


class HealthServer:
    """Serves a `Health` and a `Metrics`."""

    def __init__(
        self,
        *,
        health: Health,
        metrics: Metrics,
        host: str,
        port: int,
        limits: AcceptLimits = LIMITS,
        rate: RateLimit | None = None,
    ) -> None:
        self._health = health
        self._metrics = metrics
        self._rate = rate or RateLimit(per_second=REQUESTS_PER_SECOND, burst=REQUEST_BURST, clock=time.monotonic)
        self._listener = HTTPListener(
            self._application(),
            host=host,
            port=port,
            ssl_context=None,
            limits=limits,
            refused=_connection_refused,
            shutdown_timeout=_SHUTDOWN,
        )
        self._rendering: asyncio.Task[bytes] | None = None
        self._was_ready: bool | None = None

    @property
    def port(self) -> int:
        """The real one, where 0 was asked for."""
        return self._listener.port

    async def start(self) -> None:
        """Raises `ConfigError` when the address cannot be listened on."""
        try:
            await self._listener.start()
        except OSError as error:
            raise ConfigError(
                key="commonConfig.monitorServer.bindAddress",
                problem=str(error.strerror),
                right="a free port of an address of this machine",
            ) from error

    async def stop(self) -> None:
        await self._listener.stop()
        if self._rendering is not None:
            self._rendering.cancel()
            await asyncio.gather(self._rendering, return_exceptions=True)

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=1024, middlewares=[self._guard])
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._serve_metrics)
        return app

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        response: web.StreamResponse
        try:
            if self._rate.allow(address_group(request.remote or "")):
                response = await handler(request)
            else:
                response = web.Response(status=429, text="too many requests from this address; try again later\n")
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=f"{error.reason}\n", headers=allowed(error))
        except Exception:
            log.exception("request failed", path=request.path[:64])
            response = web.Response(status=500, text="internal error\n")
        # Kept connections would be kept turns.
        response.force_close()
        return response

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        failures = self._health.failures()
        self._note(failures)
        if not failures:
            return web.Response(text="ok\n")
        lines = [f"{name}: {' '.join(reason.split())}\n" for name, reason in failures.items()]
        return web.Response(status=503, text="".join(lines))

    def _note(self, failures: dict[str, str]) -> None:
        """Logs when readiness changes, not each time it is asked for."""
        ready = not failures
        if ready != self._was_ready:
            if ready:
                log.info("ready")
            else:
                log.warning("not ready", failures=failures)
        self._was_ready = ready

    async def _serve_metrics(self, _: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(_SCRAPE_LIMIT):
                text = await self._render()
        except TimeoutError:
            return web.Response(status=503, text=f"the metrics could not be collected in {_SCRAPE_LIMIT:g} s\n")
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def _render(self) -> bytes:
        """As it is now; who asks while another waits gets the same."""
        if self._rendering is None or self._rendering.done():
            self._rendering = asyncio.create_task(self._metrics.render(), name="metrics-rendering")
        # Shielded: one who goes does not take it from the others.
        return await asyncio.shield(self._rendering)


def _connection_refused(reason: str, address: str, detail: str) -> None:
    log.debug("monitoring connection ended", reason=reason, address=address, detail=detail)
