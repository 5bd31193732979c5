"""How much of one message may be logged: what peers provoke must not fill a disk.

A node that asks for Secrets that are not its own, reports for others, or comes and goes as fast as it can, causes a
line each time; a thousand of them, hundreds of megabytes an hour. Messages are constant here and what varies stands in
fields, so each message has a bucket of its own: a fleet that comes back is logged whole, a flood down to a trickle, and
the first line after a gap says in ``left_out`` how many there were. Metrics count them all.

What libraries log with the standard library is not limited here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog

BURST: Final = 20_000
"""Lines of one message at once: two each for ten thousand nodes that come back."""
PER_SECOND: Final = 5.0
"""And from then on: with some 200 bytes a line, 90 MB a day."""
MAX_MESSAGES: Final = 1000
"""Messages with a bucket of their own; there are fewer in the source."""


class LogLimit:
    """A structlog processor."""

    def __init__(
        self, *, burst: int = BURST, per_second: float = PER_SECOND, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = float(burst)
        self._per_second = per_second
        self._clock = clock
        self._buckets: dict[str, tuple[float, float, int]] = {}
        """Tokens, when they were counted, and lines left out since the last one."""

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        message = str(event.get("event"))
        if message not in self._buckets and len(self._buckets) >= MAX_MESSAGES:
            message = ""
        now = self._clock()
        tokens, counted_at, left_out = self._buckets.get(message, (self._burst, now, 0))
        tokens = min(self._burst, tokens + (now - counted_at) * self._per_second)
        if tokens < 1.0:
            self._buckets[message] = (tokens, now, left_out + 1)
            raise structlog.DropEvent
        self._buckets[message] = (tokens - 1.0, now, 0)
        if left_out:
            event["left_out"] = left_out
        return event
