"""Who is connected: at most one session a node, the newest, and at most ``node_limit`` nodes.

A session has three stages here: open (found by `get`, may be sent to), ending (the link is gone or being closed, but
messages that came before are still being handed over), and gone. The listener hears `session_closed` when the last
message has been handed over, so that for each node it sees opened, messages, closed in order; it hears it not at all
for a session that a newer one replaced.

Everything is synchronous: between the look at the limit and the taking of the place nothing else runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

import structlog

from cloudhub.taskmanager.ports import SessionInfo, SessionListener

log = structlog.get_logger(__name__)


class HasInfo(Protocol):
    @property
    def info(self) -> SessionInfo: ...


S = TypeVar("S", bound=HasInfo)


class SessionRegistry(Generic[S]):
    """``listener`` is a callable, because the listener may be set after the server is made."""

    def __init__(self, *, node_limit: int, listener: Callable[[], SessionListener]) -> None:
        self._node_limit = node_limit
        self._listener = listener
        self._open: dict[str, S] = {}
        self._ending: dict[str, S] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._open)

    def get(self, node: str) -> S | None:
        return self._open.get(node)

    def last(self, node: str) -> S | None:
        """The session that is open, or else the one that still hands over its last messages."""
        return self._open.get(node) or self._ending.get(node)

    def nodes(self) -> Iterable[str]:
        return tuple(self._open)

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def has_room(self, node: str) -> bool:
        """A node that is connected replaces itself and needs no room."""
        return node in self._open or len(self._open) < self._node_limit

    def open(self, session: S) -> S | None:
        """Takes ``session`` in and tells the listener. Returns the one that it replaced (open, or still handing over
        its last messages), of which the listener hears no more than those messages."""
        node = session.info.node
        still_ending = self._ending.pop(node, None)
        replaced = self._open.get(node, still_ending)
        self._open[node] = session
        self._tell(self._listener().session_opened, session)
        return replaced

    def ending(self, session: S) -> None:
        """No more is sent to it; its last messages are still being handed over."""
        node = session.info.node
        if self._open.get(node) is session:
            del self._open[node]
            self._ending[node] = session

    def gone(self, session: S) -> None:
        """It has ended and all it sent has been handed over."""
        self.ending(session)
        node = session.info.node
        if self._ending.get(node) is session:
            del self._ending[node]
            self._tell(self._listener().session_closed, session)

    def _tell(self, hear: Callable[[SessionInfo], None], session: S) -> None:
        # A listener that raises must not break the book-keeping here: other sessions depend on it.
        try:
            hear(session.info)
        except Exception:
            log.exception("session listener failed", node=session.info.node)
