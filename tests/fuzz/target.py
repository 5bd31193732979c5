"""What is promised of each way in, and the check of that promise."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

MARKER: Final = "S3cr3tM4rk3r"
"""Stands in the samples wherever a secret would; no error may repeat it."""
MAX_ERROR_TEXT: Final = 1024
MAX_GROWTH_KIB: Final = 512 * 1024
"""Of resident memory during a whole target's run, whose inputs are all small."""

Feed = Callable[[bytes], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """``open`` gives what takes the bytes, and cleans up behind it. ``samples`` are valid, and what is fed is made of
    them; ``documents``: they are JSON, and are taken apart as such too. ``errors`` are all that may be raised.
    ``cost`` is by how much an input is dearer than one of a pure parser: so many fewer are run."""

    name: str
    open: Callable[[], AbstractContextManager[Feed]]
    samples: Sequence[bytes]
    errors: tuple[type[Exception], ...] = ()
    documents: bool = True
    cost: int = 1


class BrokenPromise(AssertionError):
    """What a target did that it must not."""


def pure(function: Feed) -> Callable[[], AbstractContextManager[Feed]]:
    """``open`` of a target that is a function and nothing else."""

    @contextmanager
    def opened() -> Iterator[Feed]:
        yield function

    return opened


def check(target: Target, feed: Feed, data: bytes) -> bool:
    """Whether ``data`` was taken. Raises `BrokenPromise` on a bad error text; what is no documented error comes out as
    it is."""
    try:
        feed(data)
    except target.errors as error:
        _check_text(target, error)
        return False
    return True


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
def bounded_memory(target: Target) -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown > MAX_GROWTH_KIB:
        raise BrokenPromise(f"{target.name}: grew by {grown // 1024} MiB")
