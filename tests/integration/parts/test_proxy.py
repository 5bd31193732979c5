"""The registry that a test breaks, as a client sees it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.processes import eventually
from tests.parts.images import PushedImage
from tests.parts.proxy import RegistryProxy
from tests.parts.registry import Registry


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


@pytest.fixture(scope="module")
def image(registry: Registry) -> PushedImage:
    return registry.push_image("parts/image", layers=(100_000,))


@pytest_asyncio.fixture
async def proxy(registry: Registry) -> AsyncIterator[RegistryProxy]:
    async with RegistryProxy(registry.url) as proxy:
        yield proxy


async def _blob(proxy: RegistryProxy, image: PushedImage) -> tuple[aiohttp.ClientResponse, bytes]:
    url = f"{proxy.url}/v2/{image.repository}/blobs/{image.layers[0]}"
    async with aiohttp.ClientSession() as client, client.get(url) as response:
        return response, await response.read()


def _asked(proxy: RegistryProxy) -> Callable[[], Awaitable[list[str]]]:
    async def asked() -> list[str]:
        return proxy.requests

    return asked


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def test_a_corrupt_blob_is_as_long_as_the_real_one(proxy: RegistryProxy, image: PushedImage) -> None:
    _, whole = await _blob(proxy, image)
    assert _digest(whole) == image.layers[0]
    proxy.corrupt_blobs = True
    _, corrupt = await _blob(proxy, image)
    assert len(corrupt) == len(whole)
    assert proxy.served == {("127.0.0.1", image.layers[0]): 1}
    assert _digest(corrupt) != image.layers[0]


async def test_a_shortened_blob_ends_as_if_it_were_whole(proxy: RegistryProxy, image: PushedImage) -> None:
    proxy.shorten_blobs_to = 20_000
    response, short = await _blob(proxy, image)
    assert response.content_length == len(short) == 20_000


async def test_an_answer_says_when_to_come_again(proxy: RegistryProxy, image: PushedImage) -> None:
    proxy.answer_with, proxy.retry_after = 429, 7
    response, _ = await _blob(proxy, image)
    assert (response.status, response.headers["Retry-After"]) == (429, "7")


async def test_who_hangs_answers_once_healed(proxy: RegistryProxy, image: PushedImage) -> None:
    proxy.hang = True
    waiting = asyncio.create_task(_blob(proxy, image))
    await eventually("it was asked", _asked(proxy))
    assert not waiting.done()
    proxy.heal()
    _, whole = await waiting
    assert _digest(whole) == image.layers[0]
