"""What lives long is out of the collector's sight; what comes later is not."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from cloudhub.collector import SESSIONS, Settling, settle
from cloudhub.taskmanager.ports import SessionInfo

SESSION = SessionInfo("edge-1", 1, frozenset(), None)


class Knot:
    """Refers to itself, so that the collector alone can end it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    gc.collect()


def test_sessions_that_were_opened_are_not_looked_at_again() -> None:
    settling = Settling()
    before = gc.get_freeze_count()
    kept = [Knot() for _ in range(1000)]
    for _ in range(SESSIONS - 1):
        settling.session_opened(SESSION)
    assert gc.get_freeze_count() == before
    settling.session_opened(SESSION)
    assert gc.get_freeze_count() >= before + len(kept)


def test_what_comes_later_is_collected_as_ever() -> None:
    settle()
    gone = weakref.ref(Knot())
    gc.collect()
    assert gone() is None


def test_what_was_garbage_already_is_collected_first() -> None:
    gc.collect()
    gone = weakref.ref(Knot())
    settle()
    assert gone() is None
