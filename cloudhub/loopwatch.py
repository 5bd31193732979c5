"""How long the event loop was kept from its turns: a heartbeat that looks at how late it comes.

Every session, timer and commit waits while one piece of work keeps the loop. The heartbeat asks for a turn each
`INTERVAL`; what it comes late is how long all others had to wait. Two figures are kept, both the largest since the hub
was ready: the lateness itself, which on a busy machine counts the turns of other programs too, and the part of it in
which this thread worked, which is the hub's own doing. Costs some twenty wake-ups a second and keeps nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from cloudhub.metrics import Metrics

INTERVAL: Final = 0.05
"""Seconds. A stall is seen whole when it is longer, and short by up to this when it begins during the sleep."""


async def watch_loop(
    metrics: Metrics,
    *,
    clock: Callable[[], float] = time.monotonic,
    thread_clock: Callable[[], float] = time.thread_time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Never ends. ``thread_clock`` tells the processor time of the loop's thread."""
    longest, longest_busy = 0.0, 0.0
    while True:
        before, worked_before = clock(), thread_clock()
        await sleep(INTERVAL)
        late = clock() - before - INTERVAL
        if late > longest:
            longest = late
            metrics.event_loop_stall_seconds_max.set(longest)
        busy = min(late, thread_clock() - worked_before)
        if busy > longest_busy:
            longest_busy = busy
            metrics.event_loop_busy_seconds_max.set(longest_busy)
