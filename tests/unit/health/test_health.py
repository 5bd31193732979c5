from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from cloudhub.health import Health, HealthServer
from cloudhub.metrics import Metrics
from cloudhub.settings import ConfigError


@asynccontextmanager
async def served(health: Health, metrics: Metrics | None = None) -> AsyncIterator[str]:
    server = HealthServer(health=health, metrics=metrics or Metrics(), host="127.0.0.1", port=0)
    await server.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.stop()


async def get(url: str, method: str = "GET") -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.request(method, url) as response:
        return response.status, await response.text()


async def test_a_healthy_hub_is_live_and_ready() -> None:
    health = Health()
    health.add("store", lambda: None)
    async with served(health) as url:
        assert await get(f"{url}/healthz") == (200, "ok\n")
        assert await get(f"{url}/readyz") == (200, "ok\n")


async def test_each_failing_check_is_named_with_its_reason() -> None:
    health = Health()
    reasons: dict[str, str | None] = {"store": "disk full", "api": None, "jobs": "not\nlisted  yet"}
    for name in reasons:
        health.add(name, lambda name=name: reasons[name])  # type: ignore[misc]
    async with served(health) as url:
        assert await get(f"{url}/readyz") == (503, "store: disk full\njobs: not listed yet\n")
        assert (await get(f"{url}/healthz"))[0] == 200, "a hub that is not ready need not be restarted"
        reasons.update(store=None, jobs=None)
        assert await get(f"{url}/readyz") == (200, "ok\n")


async def test_a_stopping_hub_is_not_ready() -> None:
    health = Health()
    async with served(health) as url:
        health.stopping()
        assert await get(f"{url}/readyz") == (503, "process: stopping\n")


async def test_a_check_that_raises_is_a_failure_and_does_not_hide_the_others() -> None:
    def broken() -> str | None:
        raise RuntimeError("hunter2")

    health = Health()
    health.add("broken", broken)
    health.add("store", lambda: "disk full")
    async with served(health) as url:
        code, body = await get(f"{url}/readyz")
    assert (code, body) == (503, "broken: the check itself failed: RuntimeError\nstore: disk full\n")


async def test_metrics_are_served_as_prometheus_wants_them() -> None:
    metrics = Metrics()
    metrics.sessions.set(5)
    async with (
        served(Health(), metrics) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/metrics") as response,
    ):
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        assert "cloudhub_sessions 5.0" in await response.text()


async def test_other_paths_and_methods_are_refused() -> None:
    async with served(Health()) as url:
        assert (await get(f"{url}/"))[0] == 404
        assert (await get(f"{url}/debug/pprof"))[0] == 404
        assert (await get(f"{url}/healthz", method="POST"))[0] == 405


async def test_a_name_is_given_once() -> None:
    health = Health()
    health.add("store", lambda: None)
    with pytest.raises(ValueError, match="store"):
        health.add("store", lambda: None)


async def test_a_port_in_use_names_the_key() -> None:
    async with served(Health()) as url:
        port = int(url.rpartition(":")[2])
        server = HealthServer(health=Health(), metrics=Metrics(), host="127.0.0.1", port=port)
        with pytest.raises(ConfigError, match=rf"monitorServer.bindAddress: cannot listen on 127.0.0.1 port {port}"):
            await server.start()
        await server.stop()
