from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from cloudhub.health import LIMITS, Health, HealthServer
from cloudhub.listen.ratelimit import RateLimit
from cloudhub.metrics import Metrics
from cloudhub.settings import ConfigError
from tests.integration.sessions.hub import eventually


@asynccontextmanager
async def served(health: Health, metrics: Metrics | None = None, **more: Any) -> AsyncIterator[str]:
    server = HealthServer(health=health, metrics=metrics or Metrics(), host="127.0.0.1", port=0, **more)
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


async def test_a_connection_carries_one_request_and_lives_for_seconds() -> None:
    async with served(Health(), limits=replace(LIMITS, turn=0.5)) as url:
        for said, answered in ((b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2, 1), (b"GET /healthz", 0)):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(said)
            assert (await asyncio.wait_for(reader.read(), 60)).count(b"200 OK") == answered
            writer.close()


async def test_one_address_may_ask_only_so_often() -> None:
    async with served(Health(), rate=RateLimit(per_second=1.0, burst=2, clock=lambda: 0.0)) as url:
        found = [await get(f"{url}/healthz") for _ in range(3)]
    assert found == [(200, "ok\n")] * 2 + [(429, "too many requests from this address; try again later\n")]


async def test_scrapes_that_come_together_share_one_rendering() -> None:
    metrics, rendered = Metrics(), 0
    going = asyncio.Event()

    async def refresh() -> None:
        nonlocal rendered
        rendered += 1
        await going.wait()

    metrics.before_scrape(refresh)
    async with served(Health(), metrics) as url:
        first = asyncio.create_task(get(f"{url}/metrics"))
        await eventually(lambda: rendered)
        others = [asyncio.create_task(get(f"{url}/metrics")) for _ in range(10)]
        # One that goes takes it from nobody.
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert (await get(f"{url}/healthz"))[0] == 200
        going.set()
        answers = await asyncio.gather(*others)
        assert {code for code, _ in answers} == {200}
        assert rendered <= 2


async def test_a_method_that_is_none_is_refused_with_those_that_are() -> None:
    async with served(Health()) as url, aiohttp.ClientSession() as session, session.post(f"{url}/metrics") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD")
