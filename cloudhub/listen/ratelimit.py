"""How often one address, or one node, may ask: a token bucket each, for a bounded number of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class RateLimit:
    """The one that was heard of longest ago is forgotten first; forgetting gives it a full bucket again, which costs an
    attacker more addresses than it gains him requests."""

    def __init__(self, *, per_second: float, burst: int, clock: Callable[[], float], max_keys: int = 16384) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, key: str) -> bool:
        now = self._clock()
        tokens, filled_at = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - filled_at) * self._per_second)
        allowed = tokens >= 1.0
        self._buckets[key] = (tokens - 1.0 if allowed else tokens, now)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        return allowed
