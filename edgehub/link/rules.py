"""The rules of the link that need neither socket nor clock of their own: fed the time, they say what to do when.

`Backoff` spreads reconnects, so that ten thousand nodes that lost one hub do not come back in one second; `TokenBucket`
is KubeEdge's messageQPS and messageBurst; `renewal_time` picks the moment to renew a certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

Uniform = Callable[[float, float], float]
"""``random.uniform``."""


class Backoff:
    """Exponential backoff with full jitter: the n-th wait in a row is anything from 0 to ``first * 2**n``, at most
    ``maximum``."""

    def __init__(self, *, first: float, maximum: float, uniform: Uniform) -> None:
        self._first = first
        self._maximum = max(first, maximum)
        self._uniform = uniform
        self._failures = 0

    def next_delay(self) -> float:
        ceiling = min(self._maximum, self._first * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return self._uniform(0, ceiling)

    def succeeded(self) -> None:
        self._failures = 0


class TokenBucket:
    """At most ``burst`` at once and ``rate`` a second in the long run."""

    def __init__(self, *, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> float:
        """Takes one and returns the seconds to wait before it may be used."""
        self._fill(now)
        self._tokens -= 1  # below zero: those who wait have their place in the row
        return max(0.0, -self._tokens / self._rate)

    def take_spare(self, now: float) -> bool:
        """Takes one if more than half of the burst is left: for what must not make anything else wait."""
        self._fill(now)
        if self._tokens < max(1.0, self._burst / 2):
            return False
        self._tokens -= 1
        return True

    def _fill(self, now: float) -> None:
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now


def renewal_time(not_before: datetime, not_after: datetime, uniform: Uniform) -> datetime:
    """A random moment at 70 to 90 % of the certificate's life, as KubeEdge does."""
    return not_before + (not_after - not_before) * uniform(0.7, 0.9)
