"""Keeps Python's garbage collector away from what lives long: ten thousand sessions are two million objects.

The collector walks through all objects that it knows of whenever their number has grown by a quarter, and the event
loop stands still meanwhile: measured with 10,000 sessions, 350 ms each time, several times in the course of one job. It
never found anything there: the objects of a session refer to one another in no circle, and go when the session does (a
test of the sessions holds them to this). So what is there after the start, and after each `SESSIONS` more sessions, is
taken out of its sight. What comes later it collects as ever, if less often: messages come and go by the thousand, and
are no garbage. The price: a circle among things that were there at such a moment stays until the process ends; the
young generations are collected first, so that only what had a use then can do so.
"""

from __future__ import annotations

import gc
from typing import Final

from cloudhub.taskmanager.ports import SessionInfo

SESSIONS: Final = 250
"""Rarer, and the collector finds enough new objects for a walk in between; each time costs a millisecond or so."""
YOUNG: Final = 1
THRESHOLDS: Final = (20_000, 10, 10)
"""New objects before a look at the youngest. Python's own 700 makes it look some hundred times in a job of 10,000."""


def settle(generation: int = YOUNG) -> None:
    """What is alive now stays, as far as the collector goes."""
    gc.set_threshold(*THRESHOLDS)
    gc.collect(generation)
    gc.freeze()


class Settling:
    """A `cloudhub.taskmanager.ports.SessionWatcher`: `settle` after each `SESSIONS` sessions that were opened."""

    def __init__(self) -> None:
        self._opened = 0

    def session_opened(self, session: SessionInfo) -> None:
        self._opened += 1
        if self._opened % SESSIONS == 0:
            settle()

    def session_closed(self, session: SessionInfo) -> None:
        return
