"""Jobs that come together have their turns together.

The problem: a hundred jobs that are made at once come one by one, within half a second, and each takes a moment to be
admitted. The first would have all of its turns, and end, before the last had one.

Guarantees: only where no turns are being taken do new jobs wait, for `GATHER_SECONDS` from the last one that came and
until those that came are admitted, and never longer than `ADMISSION_SECONDS`; else they join in at once. Times are the
event loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

GATHER_SECONDS: Final = 0.1
ADMISSION_SECONDS: Final = 1.0
"""A hundred jobs of a hundred nodes take half of it."""
_SLACK_SECONDS: Final = 0.005
"""The loop's timers count in milliseconds."""


class Gathering:
    def __init__(self, wake: Callable[[], None]) -> None:
        """``wake`` is called when `is_under_way` may have come to say no."""
        self._wake = wake
        self._since: float | None = None
        """None while none is under way."""
        self._last = 0.0
        self._expected: set[str] = set()
        """Those that are not admitted yet."""

    def expect(self, uid: str, *, idle: Callable[[], bool]) -> None:
        """A job is about to be admitted. ``idle``: no turns are being taken."""
        loop = asyncio.get_running_loop()
        if self._since is None:
            if not idle():
                return
            self._since = loop.time()
        self._last = loop.time()
        self._expected.add(uid)
        loop.call_later(GATHER_SECONDS + _SLACK_SECONDS, self._wake)

    def admitted(self, uids: Iterable[str]) -> None:
        """Or refused."""
        self._expected.difference_update(uids)

    def is_under_way(self) -> bool:
        if self._since is not None:
            now = asyncio.get_running_loop().time()
            all_there = not self._expected and now - self._last >= GATHER_SECONDS
            if all_there or now - self._since >= ADMISSION_SECONDS:
                self._since = None
                self._expected.clear()
        return self._since is not None
