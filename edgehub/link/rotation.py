"""Renews the node's certificate long before it ends, for as long as the agent runs.

Guarantee: at a random moment between 70 and 90 % of the certificate's life the agent asks for the next one, shows the
present one, and goes on asking with growing waits until it has it; then the link is told to connect anew. Whatever
fails is logged and tried again: this loop never ends by itself. An edge machine's wall clock may jump (no battery, NTP
late), so it sleeps an hour at most and looks again.

Not here: a certificate that has ended cannot renew itself; the log then says to join with a token again.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import structlog

from edgehub.link.errors import IdentityError, LinkError
from edgehub.link.identity import Certificate
from edgehub.link.rules import Backoff, Uniform, renewal_time

log = structlog.get_logger(__name__)

MAX_SLEEP = 3600.0
FIRST_RETRY = 60.0
MAX_RETRY = 3600.0
MIN_BETWEEN = 60.0


def _now() -> datetime:
    return datetime.now(UTC)


class Rotation:
    def __init__(
        self,
        *,
        load: Callable[[], Certificate],
        renew: Callable[[], Awaitable[None]],
        renewed: Callable[[Certificate], None],
        sleep: Callable[[float], Awaitable[None]],
        now: Callable[[], datetime] = _now,
        uniform: Uniform = random.uniform,
    ) -> None:
        self._load = load
        self._renew = renew
        self._renewed = renewed
        self._sleep = sleep
        self._now = now
        self._uniform = uniform
        self.renew_at: datetime | None = None

    async def run(self) -> None:
        certificate = self._load()
        earliest = self._now()
        while True:
            self.renew_at = max(earliest, renewal_time(certificate.not_before, certificate.not_after, self._uniform))
            log.info("certificate", ends=certificate.not_after.isoformat(), renew_at=self.renew_at.isoformat())
            while (left := (self.renew_at - self._now()).total_seconds()) > 0:
                await self._sleep(min(left, MAX_SLEEP))
            certificate = await self._renew_until_done(certificate)
            self._renewed(certificate)
            # A clock that is wrong, here or there, makes each new certificate look old.
            earliest = self._now() + timedelta(seconds=MIN_BETWEEN)

    async def _renew_until_done(self, certificate: Certificate) -> Certificate:
        backoff = Backoff(first=FIRST_RETRY, maximum=MAX_RETRY, uniform=self._uniform)
        while True:
            try:
                await self._renew()
                return self._load()
            except Exception as error:
                if not isinstance(error, LinkError | OSError):
                    # Out of a library, over an answer that nobody thought of: no reason to end a node that works.
                    log.exception("renewal failed unexpectedly")
                # At least half a minute: full jitter alone may say 'at once'.
                delay = max(FIRST_RETRY / 2, backoff.next_delay())
                ended = self._now() >= certificate.not_after
                log.warning(
                    "certificate not renewed",
                    error=str(error),
                    retry_in=round(delay),
                    ends=certificate.not_after.isoformat(),
                    cure="run edgehub join with a new token" if ended or isinstance(error, IdentityError) else None,
                )
                await self._sleep(delay)
