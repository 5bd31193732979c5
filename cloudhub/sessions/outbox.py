"""What waits to be sent to one node: bounded in messages and bytes, and paced for nodes that are not ours.

A node that does not read must cost the hub a known amount of memory and nobody else any time, so a full outbox refuses
(the caller tries again later) and nothing ever waits for room. An EdgeCore keeps 100 received messages and drops the
oldest beyond that without a word; a paced outbox therefore lets only a few go at once and the rest with the timer.
"""

from __future__ import annotations

from collections import deque


class Outbox:
    """``burst`` None: not paced. Else at most ``burst`` messages at once, and as many again each second."""

    __slots__ = ("_allowance", "_burst", "_bytes", "_filled_at", "_frames", "_max_bytes", "_max_messages")

    def __init__(self, *, max_messages: int, max_bytes: int, burst: int | None, now: float) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._burst = burst
        self._allowance = float(burst or 0)
        self._filled_at = now
        # None while empty, as nearly all are nearly always: an empty deque takes 600 bytes, ten thousand 6 MB.
        self._frames: deque[bytes] | None = None
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames) if self._frames is not None else 0

    def may_pass(self, frame: bytes, now: float) -> bool:
        """Whether ``frame`` may go now without having been queued. A yes counts as sent."""
        return self._frames is None and len(frame) <= self._max_bytes and self._allowed(now)

    def put(self, frame: bytes) -> bool:
        """False when there is no room; then nothing was queued."""
        if len(self) >= self._max_messages or self._bytes + len(frame) > self._max_bytes:
            return False
        if self._frames is None:
            self._frames = deque()
        self._frames.append(frame)
        self._bytes += len(frame)
        return True

    def take(self, now: float) -> bytes | None:
        """The next frame that may go now, or None: nothing waits, or the pace does not allow it yet."""
        if self._frames is None or not self._allowed(now):
            return None
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        if not self._frames:
            self._frames = None
        return frame

    def _allowed(self, now: float) -> bool:
        if self._burst is None:
            return True
        self._allowance = min(float(self._burst), self._allowance + (now - self._filled_at) * self._burst)
        self._filled_at = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True
