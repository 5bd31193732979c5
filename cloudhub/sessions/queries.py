"""What an EdgeCore asks its hub for besides tasks, and the answers: the Secret of a task that it runs, else an error.

EdgeCore asks through its session for objects that CloudCore's edgeController would serve: Secrets, Nodes, Leases,
ConfigMaps and more (group ``meta``, source ``edged`` and others; facts: KubeEdge's ``edge/pkg/metamanager/client``). It
waits a minute for each answer and asks up to three times, so no question is left without one: an answer with operation
``error`` and a text ends it at once, and, unlike an error in the shape of an object, is never kept as if it were one.

Guarantee: a Secret goes out only while the asking node, by its certificate, runs a task of a job that names this very
Secret, and of it only the credentials for that job's images (`cloudhub.taskmanager.stocksecret` has its form).

Not here: anything else that edgeController does.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from cloudhub.sessions.protocol import asks_for_twin
from cloudhub.taskmanager.ports import SessionInfo, Sessions
from shared.wire import Group, Message, Operation, Source, new_message

log = structlog.get_logger(__name__)

ASKING: Final = frozenset({"query", "insert", "update", "patch", "delete"})
_SECRET = re.compile(r"(?P<namespace>[a-z0-9][-a-z0-9]{0,62})/secret/(?P<name>[a-z0-9][-.a-z0-9]{0,252})")

FindSecret = Callable[[SessionInfo, str, str, str], Awaitable[Message | None]]
"""Session, namespace, name and the question's id to the answer; None when the node may not have it."""


class Queries:
    """A `cloudhub.taskmanager.ports.SessionListener`. ``find`` is None where no tasks are served."""

    def __init__(self, *, sessions: Sessions, find: FindSecret | None) -> None:
        self._sessions = sessions
        self._find = find

    def session_opened(self, session: SessionInfo) -> None:
        return

    def session_closed(self, session: SessionInfo) -> None:
        return

    async def messages_received(self, session: SessionInfo, messages: Sequence[Message]) -> None:
        for message in messages:
            route = message.route
            if route.operation in ASKING if route.group == Group.META else _asks_elsewhere(message):
                self._sessions.send(session.node, await self._answer(session, message))

    async def _answer(self, session: SessionInfo, query: Message) -> Message:
        route = query.route
        match = _SECRET.fullmatch(route.resource) if route.operation == Operation.QUERY else None
        if match is None:
            log.debug(
                "query not served", node=session.node, operation=route.operation[:32], resource=route.resource[:128]
            )
            return _error(query, f"cloudhub does not serve {route.operation} of {route.resource[:256]}")
        answer = None
        if self._find is not None:
            answer = await self._find(session, match["namespace"], match["name"], query.header.msg_id)
        if answer is None:
            log.warning("secret refused", node=session.node, secret=route.resource[:320])
            return _error(query, f"secret {match['namespace']}/{match['name']} is of no task that this node runs")
        log.info("secret sent", node=session.node, secret=route.resource)
        return answer


def _asks_elsewhere(message: Message) -> bool:
    """In groups other than ``meta``: the metaServer's questions, and the deviceTwin's."""
    return message.route.operation == Operation.QUERY or asks_for_twin(message)


def _error(query: Message, text: str) -> Message:
    return new_message(
        source=Source.EDGE_CONTROLLER,
        group=Group.RESOURCE,
        resource=query.route.resource,
        operation=Operation.ERROR,
        content=text,
        parent=query.header.msg_id,
    )
