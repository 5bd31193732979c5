"""/healthz, /readyz and /metrics over plain HTTP.

/healthz says that the process answers: an orchestrator restarts it when it does not. /readyz says whether it can do
its work; when it cannot, its body names each check that fails and why, and the code is 503. A check is a plain function
that looks at what its part knows already: nothing is tried out on a request, so asking often costs and breaks nothing.

The server has no authentication (Prometheus and kubelet come without), answers only these paths, takes no bodies, and
is meant for loopback or a cluster's inside; a check's text therefore holds no secret, as no error's text here does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import web

from cloudhub.listen.acceptor import listen
from cloudhub.metrics import CONTENT_TYPE, Metrics
from cloudhub.settings import ConfigError

log = structlog.get_logger(__name__)

Check = Callable[[], str | None]
"""None: all is well. A text: why not."""

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

    def __init__(self, *, health: Health, metrics: Metrics, host: str, port: int) -> None:
        self._health = health
        self._metrics = metrics
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self._was_ready: bool | None = None

    @property
    def port(self) -> int:
        """The real one, where 0 was asked for."""
        return self._port

    async def start(self) -> None:
        """Raises `ConfigError` when the address cannot be listened on."""
        app = web.Application(client_max_size=1024)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._serve_metrics)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN, keepalive_timeout=30.0)
        await runner.setup()
        try:
            await web.SockSite(runner, listen(self._host, self._port)).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigError(
                key="commonConfig.monitorServer.bindAddress",
                problem=str(error.strerror),
                right="a free port of an address of this machine",
            ) from error
        self._runner = runner
        self._port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

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
                text = await self._metrics.render()
        except TimeoutError:
            return web.Response(status=503, text=f"the metrics could not be collected in {_SCRAPE_LIMIT:g} s\n")
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})
