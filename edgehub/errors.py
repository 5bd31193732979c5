"""How an error is told on the command line: in one line."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """The error's own words; of a group, the first one's. The name of the class stands before words that are no
    sentence of ours."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = " ".join(str(error).split())[:1000]
    if type(error).__module__.split(".")[0] in ("edgehub", "shared"):
        return text
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return f"{type(error).__name__}: {text} (--debug shows where)"
