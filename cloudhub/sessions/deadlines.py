"""What is late, for all sessions at once: one timer, no task and no timer handle a session.

Three kinds of lateness have the same limit for every session (no keepalive, a write that hangs, a close that the peer
does not answer): then the order of starting is the order of falling due, and `Waiting` is an ordered dict whose front
is looked at once a second. Certificates end at times of their own: `Expiries` is a heap.

`ServedTime` is the clock of the first kind: time during which the hub itself stood still (a stopped process, a frozen
virtual machine, a stalled event loop) does not count, because keepalives that came meanwhile lie unread in the sockets
and a whole fleet would be thrown out for the hub's own pause.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class ServedTime:
    """Seconds served since it was made, in steps of at most ``max_step``. Only `advance` moves it, so reading it costs
    nothing and everything of one turn of the timer sees the same time."""

    def __init__(self, clock: Callable[[], float], *, max_step: float) -> None:
        self._clock = clock
        self._max_step = max_step
        self._last = clock()
        self.now = 0.0

    def advance(self) -> float:
        """Returns the seconds that were cut off; 0 in normal times."""
        reading = self._clock()
        passed = max(0.0, reading - self._last)
        self._last = reading
        self.now += min(passed, self._max_step)
        return max(0.0, passed - self._max_step)


class Waiting(Generic[K]):
    """Keys by when they were last touched."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since: OrderedDict[K, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def touch(self, key: K, now: float) -> None:
        """``key`` waits since ``now``, which is not before any earlier call's."""
        self._since[key] = now
        self._since.move_to_end(key)

    def discard(self, key: K) -> None:
        self._since.pop(key, None)

    def due(self, before: float) -> Iterator[K]:
        """Takes out each key that was last touched before ``before``, oldest first. What the caller does between two
        keys may touch or discard others."""
        while self._since:
            key, since = next(iter(self._since.items()))
            if since >= before:
                return
            del self._since[key]
            yield key


class Expiries(Generic[K]):
    """Keys by a time of their own. A key that ended before its time is let go of at once; what is left of it in the
    heap, two numbers, goes when such rests outnumber the living."""

    __slots__ = ("_heap", "_key_of", "_serial", "_serial_of")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._key_of: dict[int, K] = {}
        self._serial_of: dict[K, int] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._serial_of)

    def add(self, key: K, at: float) -> None:
        """A key that is here already has this time from now on."""
        self.discard(key)
        self._serial += 1
        self._key_of[self._serial], self._serial_of[key] = key, self._serial
        heapq.heappush(self._heap, (at, self._serial))

    def discard(self, key: K) -> None:
        serial = self._serial_of.pop(key, None)
        if serial is None:
            return
        del self._key_of[serial]
        if len(self._heap) > 2 * len(self._key_of) + 64:
            self._heap = [entry for entry in self._heap if entry[1] in self._key_of]
            heapq.heapify(self._heap)

    def due(self, now: float) -> Iterator[K]:
        """Takes out each key whose time is not after ``now``."""
        while self._heap and self._heap[0][0] <= now:
            _, serial = heapq.heappop(self._heap)
            key = self._key_of.pop(serial, None)
            if key is not None:
                del self._serial_of[key]
                yield key
