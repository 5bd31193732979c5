"""What is promised of each way in, and the check of that promise."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from types import FrameType
from typing import Final, overload

MARKER: Final = "S3cr3tM4rk3r"
"""Stands in the samples wherever a secret would; no error may repeat it."""
MAX_ERROR_TEXT: Final = 1024
MAX_SECONDS: Final = 10.0
"""Of processor time for one input, all of which are small; so a machine that does other things too fails nobody."""
MAX_PEAK_KIB: Final = 256 * 1024
"""Of resident memory while one input is looked at."""
MAX_GROWTH_KIB: Final = 512 * 1024
"""Of resident memory over a whole target's run."""

Feed = Callable[[bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """``open`` gives what takes the bytes, and cleans up behind it. ``samples`` are valid, and what is fed is made of
    them; ``documents``: they are JSON, and are taken apart as such too. ``make``: inputs of the target's own making.
    ``errors`` are all that may be raised. ``cost`` is by how much an input is dearer than one of a pure parser: so many
    fewer are run."""

    name: str
    open: Callable[[], AbstractContextManager[Feed]]
    samples: Sequence[bytes]
    errors: tuple[type[Exception], ...] = ()
    documents: bool = True
    make: Callable[[Random], bytes] | None = None
    cost: int = 1


class Lazily(Sequence[bytes]):
    """Samples that are made when they are needed: for them a part of a program has to run."""

    def __init__(self, make: Callable[[], Sequence[bytes]]) -> None:
        self._made = cache(make)

    def __len__(self) -> int:
        return len(self._made())

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | Sequence[bytes]:
        return self._made()[at]


class BrokenPromise(AssertionError):
    """What a target did that it must not."""


class _TooLong(BaseException):
    """No product's code catches it."""


def pure(function: Feed) -> Callable[[], AbstractContextManager[Feed]]:
    """``open`` of a target that is a function and nothing else."""

    @contextmanager
    def opened() -> Iterator[Feed]:
        yield function

    return opened


def check(target: Target, feed: Feed, data: bytes) -> bool:
    """Whether ``data`` was taken. Raises `BrokenPromise` on a bad error text, on too much time and on too much memory;
    what is no documented error comes out as it is."""
    before = _start_of_peak()
    try:
        with _bounded_time(target):
            feed(data)
    except target.errors as error:
        _check_text(target, error)
        taken = False
    else:
        taken = True
    grown = _kib("VmHWM") - before
    if grown > MAX_PEAK_KIB:
        raise BrokenPromise(f"{target.name}: took {grown // 1024} MiB for an input of {len(data)} bytes")
    return taken


def _check_text(target: Target, error: Exception) -> None:
    text = str(error)
    if not text.strip():
        raise BrokenPromise(f"{target.name}: {type(error).__name__} without a word")
    if len(text) > MAX_ERROR_TEXT:
        raise BrokenPromise(f"{target.name}: {type(error).__name__} of {len(text)} characters: {text[:200]}")
    if MARKER in text:
        raise BrokenPromise(f"{target.name}: {type(error).__name__} repeats a secret: {text[:400]}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BrokenPromise(f"{target.name}: {type(error).__name__} cannot be printed: {text[:200]!r}") from None


@contextmanager
def _bounded_time(target: Target) -> Iterator[None]:
    """By a signal: also what never awaits and never returns is stopped, where it is."""
    late = False

    def too_long(_signal: int, _frame: FrameType | None) -> None:
        nonlocal late
        late = True
        raise _TooLong

    before = signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    try:
        yield
    except _TooLong as stopped:
        raise BrokenPromise(f"{target.name}: took more than {MAX_SECONDS:g} s of processor time") from stopped
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    if late:
        raise BrokenPromise(f"{target.name}: took more than {MAX_SECONDS:g} s of processor time")


# --- Memory -----------------------------------------------------------------------------------------------------------


@contextmanager
def bounded_memory(target: Target) -> Iterator[None]:
    before = resident_kib()
    yield
    grown = resident_kib() - before
    if grown > MAX_GROWTH_KIB:
        raise BrokenPromise(f"{target.name}: grew by {grown // 1024} MiB")


def resident_kib() -> int:
    return _kib("VmRSS")


def _start_of_peak() -> int:
    """The peak of resident memory is measured anew from here; without the right to that, from the process's start."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _kib("VmHWM")


def _kib(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split(maxsplit=1)[0])
