"""Runs a target: its samples first, which must be taken, then what is made of them by a random generator. From the same
number come the same inputs. An input that breaks a promise is made smaller before it is told.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from types import FrameType

from tests.fuzz.mutation import made
from tests.fuzz.target import BrokenPromise, Feed, Target, bounded_memory, check, resident_kib

MAX_WAIT = 90.0
"""Seconds by the clock for one input of a long run: what waits for ever takes no processor time."""


@dataclass(slots=True)
class Runs:
    taken: int = 0
    refused: int = 0
    grown_kib: int = 0
    """Resident memory beyond that after the first thousand inputs, when what is made once has been made."""

    @property
    def total(self) -> int:
        return self.taken + self.refused

    def count(self, taken: bool) -> None:
        if taken:
            self.taken += 1
        else:
            self.refused += 1


class Broken(Exception):
    """An input that broke the promise of its target; the cause is what it came to."""

    def __init__(self, data: bytes) -> None:
        super().__init__(f"{len(data)} bytes: {data[:300]!r}")
        self.data = data


def run_target(target: Target, *, examples: int, number: int, seconds: float = 0.0) -> Runs:
    """Until there were so many ``examples`` and it took so many ``seconds``. Raises `Broken`."""
    random = Random(number)
    runs = Runs()
    end = time.monotonic() + seconds
    warm = 0
    with target.open() as feed, bounded_memory(target), _bounded_wait(target, seconds) as wait_anew:
        samples = iter(target.samples)
        while runs.total < examples or time.monotonic() < end:
            wait_anew()
            data = next(samples, None) or made(random, target)
            try:
                runs.count(check(target, feed, data))
            except Exception as error:
                raise Broken(_smaller(target, feed, data, type(error))) from error
            if runs.total <= 1000:
                warm = resident_kib()
        runs.grown_kib = resident_kib() - warm
    return runs


@contextmanager
def _bounded_wait(target: Target, seconds: float) -> Iterator[Callable[[], object]]:
    if not seconds:  # a test's own timeout has the signal
        yield lambda: None
        return

    def waits(_signal: int, _frame: FrameType | None) -> None:
        raise BrokenPromise(f"{target.name}: waits for more than {MAX_WAIT:g} s")

    before = signal.signal(signal.SIGALRM, waits)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_REAL, MAX_WAIT)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _smaller(target: Target, feed: Feed, data: bytes, kind: type[Exception]) -> bytes:
    """With pieces left out, as long as it comes to the same error, for a few seconds."""
    end = time.monotonic() + 10.0
    size = max(1, len(data) // 2)
    while time.monotonic() < end:
        at = 0
        while at < len(data) and time.monotonic() < end:
            less = data[:at] + data[at + size :]
            if _breaks(target, feed, less, kind):
                data = less
            else:
                at += size
        if size == 1:
            break
        size //= 2
    return data


def _breaks(target: Target, feed: Feed, data: bytes, kind: type[Exception]) -> bool:
    try:
        check(target, feed, data)
    except Exception as error:
        return type(error) is kind
    return False
