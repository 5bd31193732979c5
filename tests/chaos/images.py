"""A real registry for real agents, behind a proxy that is slow enough to be interrupted and counts what went out."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Final, Self

import aiohttp
from aiohttp import web

from tests.parts.proxy import RegistryProxy
from tests.parts.registry import Registry

LAYERS: Final = (150_000, 100_000)
"""Bytes."""
BYTES_PER_SECOND: Final = 150_000.0


class CountingProxy(RegistryProxy):
    def __init__(self, upstream: str, fetched: Counter[str]) -> None:
        super().__init__(upstream)
        self._fetched = fetched

    async def _send_blob(
        self, request: web.Request, response: web.StreamResponse, content: aiohttp.StreamReader
    ) -> None:
        """The end of a blob went out: who resumed a partial one has asked for the rest alone."""
        await super()._send_blob(request, response, content)
        self._fetched[request.path.rpartition("/")[2]] += 1


class ImageSource:
    def __init__(self) -> None:
        self.fetched: Counter[str] = Counter()
        """By digest: how often a blob went out whole."""
        self._stack = contextlib.AsyncExitStack()
        self._registry = Registry()
        self.proxy = CountingProxy(self._registry.url, self.fetched)

    async def __aenter__(self) -> Self:
        self._stack.enter_context(self._registry)
        await self._stack.enter_async_context(self.proxy)
        self.proxy.bytes_per_second = BYTES_PER_SECOND
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def push(self, label: str) -> str:
        pushed = self._registry.push_image(f"chaos/{label}", layers=LAYERS)
        return pushed.reference.replace(self._registry.address, self.proxy.address)
