"""Serves nodes their Node and their Lease from the Kubernetes API; all other messages go on to the next listener.

A session's messages are read one after the other, so nothing is waited for here: a question is checked, put into its
node's line, and answered by one of a few workers. A node's questions are served in their order, one at a time, and the
workers take the nodes in turn. So a slow answer of the API holds up that node's next question and one worker, and no
other node; a node that asks too often, or whose line is full, gets an error at once; and whoever waited in line until
nobody listens any more is not served.

Every question gets an answer, unless the session that asked has ended; then EdgeCore asks again in its next one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from cloudhub.edgecontroller import rules
from cloudhub.edgecontroller.answers import Asked, Question, answer, question_of, refusal
from cloudhub.edgecontroller.rules import Refused
from cloudhub.kube.errors import Conflict
from cloudhub.listen.ratelimit import RateLimit
from cloudhub.metrics import Metrics
from cloudhub.taskmanager.ports import KubeError, NotFound, SessionInfo, SessionListener, Sessions, Unavailable
from shared.wire import Message

log = structlog.get_logger(__name__)

SERVED: Final = "served"
REFUSED: Final = "refused"
FAILED: Final = "failed"
LIMITED: Final = "limited"

Object = dict[str, Any]


class NodeAPI(Protocol):
    """Errors are those of `cloudhub.taskmanager.ports`."""

    async def create_node(self, node: Object) -> Object: ...
    async def get_node(self, name: str) -> Object: ...
    async def patch_status(self, name: str, patch: Object) -> Object: ...
    async def merge_status(self, name: str, patch: Object) -> Object: ...
    async def get_lease(self, name: str) -> Object: ...
    async def create_lease(self, lease: Object) -> Object: ...
    async def update_lease(self, lease: Object) -> Object: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A kubelet renews its Lease and may patch its status every 10 s; an error makes it try five times at once."""

    per_second: float = 1.0
    burst: int = 20
    waiting: int = 8
    """Questions of one node in line."""
    patience: float = 30.0
    """Seconds in line after which a question is answered with an error; EdgeCore waits 60."""
    workers: int = 32
    """Questions before the API at a time."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    question: Question
    serial: int
    since: float


class EdgeController:
    """A `cloudhub.taskmanager.ports.SessionListener`; ``rest`` gets what is not served here. `run` does the work."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        api: NodeAPI,
        rest: SessionListener,
        metrics: Metrics,
        node_limit: int = 500,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._api = api
        self._rest = rest
        self._metrics = metrics
        self._limits = limits = limits or Limits()
        self._clock = clock
        # Kept beyond a session, so that connecting anew is no way to ask more.
        self._rate = RateLimit(per_second=limits.per_second, burst=limits.burst, clock=clock, max_keys=2 * node_limit)
        self._lines: dict[str, deque[_Waiting]] = {}
        """Of nodes that wait for a worker or have one."""
        self._turns: asyncio.Queue[str] = asyncio.Queue()
        """Nodes whose first question waits for a worker, each once."""

    # --- What is told -----------------------------------------------------------------------------------------

    def session_opened(self, session: SessionInfo) -> None:
        self._rest.session_opened(session)

    def session_closed(self, session: SessionInfo) -> None:
        self._rest.session_closed(session)

    async def messages_received(self, session: SessionInfo, messages: Sequence[Message]) -> None:
        others = []
        for message in messages:
            question = question_of(message)
            if question is None:
                others.append(message)
            else:
                self._take(session, question)
        if others:
            await self._rest.messages_received(session, others)

    def _take(self, session: SessionInfo, question: Question) -> None:
        try:
            self._admit(session.node, question)
        except Refused as error:
            self._answer(session.node, question, error)
            return
        waiting = _Waiting(question, session.serial, self._clock())
        line = self._lines.get(session.node)
        if line is not None:
            line.append(waiting)
            return
        self._lines[session.node] = deque([waiting])
        self._turns.put_nowait(session.node)

    def _admit(self, node: str, question: Question) -> None:
        line = self._lines.get(node, ())
        if len(line) >= self._limits.waiting or not self._rate.allow(node):
            raise Refused(429, "TooManyRequests", "the node asks for its Node and Lease too often; try again later")
        rules.own(node, question.name, question.kind)

    # --- The work ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._limits.workers):
                group.create_task(self._worker(), name=f"edge-controller-{number}")

    async def _worker(self) -> None:
        while True:
            node = await self._turns.get()
            line = self._lines[node]
            try:
                await self._attend(node, line[0])
            finally:
                # Only now: while it is served it counts as waiting, and its node is in line.
                line.popleft()
                if line:
                    self._turns.put_nowait(node)
                else:
                    del self._lines[node]

    async def _attend(self, node: str, waiting: _Waiting) -> None:
        session = self._sessions.get(node)
        if session is None or session.serial != waiting.serial:
            return
        question = waiting.question
        try:
            if self._clock() - waiting.since > self._limits.patience:
                raise Refused(503, "ServiceUnavailable", "the hub could not ask the Kubernetes API in time")
            found = await self._serve(node, question)
        except (Refused, KubeError) as error:
            self._answer(node, question, error)
        except Exception:
            log.exception("a node's question failed", node=node, asked=str(question.asked))
            self._answer(node, question, Refused(500, "InternalError", "the hub failed to serve this; see its log"))
        else:
            self._answer(node, question, found)

    async def _serve(self, node: str, question: Question) -> Object:
        content = question.message.content
        match question.asked:
            case Asked.NODE_INSERT:
                return await self._api.create_node(rules.new_node(node, content))
            case Asked.NODE_QUERY:
                return await self._api.get_node(node)
            case Asked.NODE_PATCH:
                return await self._api.patch_status(node, rules.status_patch(node, content))
            case Asked.LEASE_QUERY:
                return await self._api.get_lease(node)
            case Asked.LEASE_INSERT:
                return await self._api.create_lease(rules.lease(node, content, new=True))
            case Asked.LEASE_UPDATE:
                return await self._api.update_lease(rules.lease(node, content, new=False))
            case Asked.STATUS_UPDATE:
                return await self._api.merge_status(node, rules.legacy_status(content))
            case Asked.STATUS_INSERT:
                return await self._register_once(node, content)

    async def _register_once(self, node: str, content: Any) -> Object:
        """KubeEdge's older way: that there is a Node already is no error."""
        wanted = rules.new_node(node, content)
        try:
            return await self._api.get_node(node)
        except NotFound:
            return await self._api.create_node(wanted)

    def _answer(self, node: str, question: Question, outcome: Object | Refused | KubeError) -> None:
        if isinstance(outcome, dict):
            label, message = SERVED, answer(question, outcome)
            if not self._sessions.send(node, message) and self._sessions.get(node) is not None:
                # Too large for a message, or the node reads nothing; for the first an error still fits.
                label, outcome = FAILED, Refused(500, "InternalError", "the answer does not fit a message")
                self._sessions.send(node, refusal(question, outcome))
        else:
            label = _label(outcome)
            self._sessions.send(node, refusal(question, outcome))
        self._metrics.edge_requests_total.count(label)
        # An API that is away is told of once, by its client; and a node that asks too often is not to fill the log.
        if label in (REFUSED, FAILED) and not isinstance(outcome, Unavailable):
            log.warning("a node's question is not served", node=node, asked=str(question.asked), reason=str(outcome))


def _label(error: Refused | KubeError) -> str:
    if not isinstance(error, Refused):
        # 'There is none' and 'there is one already' are what a kubelet asks to hear.
        return SERVED if isinstance(error, NotFound | Conflict) else FAILED
    return LIMITED if error.code in (429, 503) else FAILED if error.code == 500 else REFUSED
