"""What the command lines of both programs do alike. Small: a node imports it with every call."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from enum import StrEnum


class LogFormat(StrEnum):
    """``--log-format``."""

    TEXT = "text"
    JSON = "json"


def run_command(app: Callable[[], object], *, program: str, debug: Callable[[], bool]) -> None:
    """Ends with 0, or with one line on standard error and 1; 130 after Ctrl-C. ``debug``: with a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug():
            raise
        sys.stderr.write(f"{program}: {one_line(error, ours=(program, 'shared'))}\n")
        sys.exit(1)


def one_line(error: BaseException, *, ours: Collection[str]) -> str:
    """The error's own words; of a group, the first one's. The name of the class stands before words that are no
    sentence of ours: ``ours`` are the packages whose errors speak for themselves."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split())[:1000]
    if type(error).__module__.split(".")[0] in ours:
        return text
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return f"{type(error).__name__}: {text} (--debug shows where)"
