"""Keeps current what runs out: the standing join token, and the server's certificate.

KubeEdge's refresh ends for good with the first error of the API, and later joining fails with "token is expired". This
one goes on for as long as the process: an error is logged and the work is tried again, with backoff and jitter, well
before the old token's end, since each token is good for twice the time between two.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import structlog

from cloudhub.pki.files import write_private
from cloudhub.pki.secrets import TOKEN, TOKEN_SECRET, SecretStore, write
from cloudhub.pki.tokens import TokenIssuer

FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 300.0

TokenSink = Callable[[str], Awaitable[None]]
"""Puts the standing token where operators look for it."""

log = structlog.get_logger(__name__)


def secret_sink(store: SecretStore) -> TokenSink:
    """Into the Secret ``tokensecret``, where ``keadm gettoken`` finds it."""

    async def put(token: str) -> None:
        await write(store, TOKEN_SECRET, {TOKEN: token.encode()})

    return put


def file_sink(path: Path) -> TokenSink:
    """Into a file of mode 0600."""

    async def put(token: str) -> None:
        await asyncio.to_thread(write_private, path, token.encode() + b"\n")

    return put


async def forever(
    name: str,
    work: Callable[[], Awaitable[None]],
    *,
    every: timedelta,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    jitter: Callable[[], float] = random.random,
) -> None:
    """``work`` now and then each ``every``, until cancelled; after a failure sooner, whatever the failure was."""
    delay = FIRST_RETRY
    while True:
        try:
            await work()
        except Exception as error:
            # Any class of error: what must not happen is that this ends. The text alone, for the cause may hold more.
            log.warning("refresh failed", what=name, error=str(error)[:300], again_in=round(delay, 1))
            await sleep(delay * (0.5 + jitter() / 2))
            delay = min(delay * 2, LAST_RETRY, every.total_seconds())
        else:
            delay = FIRST_RETRY
            await sleep(every.total_seconds())


class TokenRefresher:
    """``every`` is KubeEdge's tokenRefreshDuration."""

    def __init__(
        self,
        *,
        tokens: TokenIssuer,
        sink: TokenSink,
        every: timedelta,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._tokens = tokens
        self._sink = sink
        self._every = every
        self._sleep = sleep

    async def refresh(self) -> None:
        await self._sink(self._tokens.issue(self._every * 2))
        log.info("join token refreshed")

    async def run(self) -> None:
        """Until cancelled."""
        await forever("join token", self.refresh, every=self._every, sleep=self._sleep)
