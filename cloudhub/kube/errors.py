"""From the API server's answers to the error classes of `cloudhub.taskmanager.ports`, by what the caller does next.

Two finer classes exist for this package and for the keeper of the CA: a caller that knows only the classes of ports
treats them rightly, since they are kinds of those. Texts name verb, path and the server's own message, cut; the message
is left out where it could repeat a Secret's data.
"""

from __future__ import annotations

from typing import Any, Final

from cloudhub.taskmanager.ports import Forbidden, KubeError, NotFound, Rejected, Unavailable

MAX_MESSAGE: Final = 500


class Conflict(Rejected):
    """409: the object exists already, or it is not the version that was meant."""


class Expired(Unavailable):
    """410, or what amounts to it: the resourceVersion or continue token is too old; list again."""


class Throttled(Unavailable):
    """429 or 503 with Retry-After: come back after ``retry_after`` seconds."""

    def __init__(self, text: str, retry_after: float) -> None:
        super().__init__(text)
        self.retry_after = retry_after


def from_answer(*, verb: str, path: str, code: int, body: Any, retry_after: str | None = None) -> KubeError:
    """The error that an answer with this code stands for. ``body`` is its Status object, or anything."""
    text = f"{verb} {path}: {code} {_message(body)}".rstrip()
    if code == 404:
        return NotFound(text)
    if code in (401, 403):
        return Forbidden(text)
    if code == 409:
        return Conflict(text)
    if code == 410:
        return Expired(text)
    if code in (408, 429) or code >= 500:
        wait = _seconds(retry_after)
        return Unavailable(text) if wait is None else Throttled(text, wait)
    return Rejected(text)


def _message(body: Any) -> str:
    if not isinstance(body, dict):
        return ""
    message = body.get("message")
    if not isinstance(message, str) or not message:
        message = body.get("reason")
    return "".join(c if c.isprintable() else " " for c in message[:MAX_MESSAGE]) if isinstance(message, str) else ""


def _seconds(retry_after: str | None) -> float | None:
    # The header may also hold a date; API servers send whole seconds.
    if retry_after is None or not retry_after.isascii() or not retry_after.isdigit():
        return None
    return min(float(retry_after), 60.0)
