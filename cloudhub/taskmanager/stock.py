"""Stock nodes: how a task comes to an EdgeCore that knows KubeEdge's messages and nothing of ours.

An EdgeCore takes no credential with a task, keeps no journal, understands one of two dialects or both, and drops what
it does not understand. So what is one message to an agent of ours is a little conversation here:

- The job's images are asked for in parts of one credential each (`cloudhub.taskmanager.parts`), the next when the last
  was reported; in v1alpha1 the checks come before them in a message of their own.
- A part with a credential names the Secret. EdgeCore keeps a copy of it, and from 1.20 on looks there before it asks
  its hub. So the Secret is pushed before the task, unless the node has acknowledged this very credential on this
  session; the task follows the acknowledgement, since EdgeCore works on both at once and would else read the old copy.
  A node that does not acknowledge is sent the task all the same after `ACK_SECONDS`.
- A node of which nothing is known is spoken to in v1alpha2, and if it stays silent once more in v1alpha1
  (`cloudhub.taskmanager.dialects`). Both tasks do no harm: the first report counts, a repetition changes nothing.

Guarantees: a node gets a Secret only for a task that it is running; two tasks of a node that need different
credentials under one Secret's name never run at the same time there (`must_wait`), so what it reads is what the task
needs. All of this is in memory and of one session: on the next one, or after a restart of the hub, the task is sent
again from what the store has of it, and the conversation begins anew.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

import structlog

from cloudhub.taskmanager.clock import Clock
from cloudhub.taskmanager.dialects import Dialect, Dialects
from cloudhub.taskmanager.dispatch import stock_message
from cloudhub.taskmanager.inflight import NodeTasks
from cloudhub.taskmanager.lifecycle import TaskState
from cloudhub.taskmanager.live import LiveJob, LiveJobs
from cloudhub.taskmanager.parts import Part, remaining
from cloudhub.taskmanager.ports import SessionInfo, Sessions
from cloudhub.taskmanager.spec import SecretName
from cloudhub.taskmanager.stocksecret import secret_message
from shared.wire import Message, Operation

_log = structlog.get_logger(__name__)

ACK_SECONDS: Final = 2.0
"""An EdgeCore acknowledges as soon as its database has the object."""
ANSWER_SECONDS: Final = 10.0
"""How long a question for a Secret waits for the task that it is of to be sent: after a restart of the hub the node may
be faster. EdgeCore waits for 60 s; nothing else that it says is heard meanwhile."""
_LOOK_SECONDS: Final = 0.25
SLICE: Final = 200
"""Messages sent in one go."""


@dataclass(slots=True)
class _Asked:
    """What a node was asked for last, of one job."""

    dialect: Dialect
    state: TaskState
    part: Part
    """Without its credential; `Part.key` says which it is."""


@dataclass(slots=True)
class _Peer:
    """One session with a stock node."""

    serial: int
    asked: dict[str, _Asked] = field(default_factory=dict)
    """By the job's uid."""
    copies: dict[SecretName, str] = field(default_factory=dict)
    """`Part.key` of the copy that the node has said it keeps."""


@dataclass(frozen=True, slots=True)
class _Push:
    """A Secret on its way, and the task that follows it."""

    node: str
    serial: int
    uid: str
    secret: SecretName
    key: str
    at: float
    task: Message


class StockNodes:
    def __init__(
        self,
        *,
        sessions: Sessions,
        dialects: Dialects,
        live: LiveJobs,
        tasks: NodeTasks,
        clock: Clock,
        silence: float,
        unsent: Callable[[str, str], None],
    ) -> None:
        """``silence``: seconds after which a node of unknown version is asked in the other dialect. ``unsent`` is told
        node and job of a task that could not be sent after all."""
        self._sessions = sessions
        self._dialects = dialects
        self._live = live
        self._tasks = tasks
        self._clock = clock
        self._silence = silence
        self._unsent = unsent
        self._peers: dict[str, _Peer] = {}
        self._pushes: dict[str, _Push] = {}
        """By message id, the oldest first."""
        self._silent: list[tuple[float, str, int, str]] = []
        """A heap: when to ask once more; node, serial, job."""

    # --- What the sessions tell ---------------------------------------------------------------------------------------

    def session_closed(self, session: SessionInfo) -> None:
        peer = self._peers.get(session.node)
        if peer is not None and peer.serial <= session.serial:
            del self._peers[session.node]

    def heard(self, session: SessionInfo, dialect: Dialect) -> None:
        """A report has come, of whatever."""
        if not session.features:
            self._dialects.heard(session.node, dialect)

    def acknowledged(self, session: SessionInfo, message: Message) -> None:
        """The node's word on something that it was pushed; other answers mean nothing here."""
        push = self._pushes.get(message.header.parent_msg_id)
        if push is None or (push.node, push.serial) != (session.node, session.serial):
            return
        del self._pushes[message.header.parent_msg_id]
        if message.route.operation == Operation.RESPONSE:
            self._peer(session).copies[push.secret] = push.key
        else:
            _log.warning("a node could not keep a Secret", node=push.node, secret=str(push.secret))
        self._send_task(push)

    # --- Sending ------------------------------------------------------------------------------------------------------

    def send(
        self, live: LiveJob, session: SessionInfo, *, state: TaskState, done: Collection[str], left: float
    ) -> bool:
        """The next message of the task; ``done`` are the images that are reported. False when there is no room."""
        node, uid = session.node, live.job.uid
        part = remaining(live.parts, done)
        if part is None:
            # Its last report is being committed.
            return True
        peer = self._peer(session)
        self._forget_ended(node, peer)
        dialect, sound_out = self._dialects.to_speak(node)
        message = self._message(live, node, dialect, state, part, sound_out=sound_out)
        needs_secret = part.key and (state is TaskState.PULLING or dialect is Dialect.V1ALPHA2)
        if needs_secret and live.spec.image_secrets is not None:
            if not self._send_with_secret(live, peer, node, live.spec.image_secrets, part, message):
                return False
        elif not self._sessions.send(node, message):
            return False
        peer.asked[uid] = _Asked(dialect, state, Part(part.images, {}, part.key))
        if sound_out:
            due = self._clock.time() + min(self._silence, left / 2)
            heapq.heappush(self._silent, (due, node, peer.serial, uid))
        return True

    def goes_on_by_itself(self, node: str) -> bool:
        """Whether a node that has passed its checks pulls without being asked."""
        return self._dialects.of(node) is Dialect.V1ALPHA2

    def _send_with_secret(
        self, live: LiveJob, peer: _Peer, node: str, name: SecretName, part: Part, message: Message
    ) -> bool:
        if peer.copies.get(name) == part.key:
            return self._sessions.send(node, message)
        push = secret_message(
            name, live.secret_version, credentials=live.credentials, part=part, operation=Operation.UPDATE
        )
        if not self._sessions.send(node, push):
            return False
        _log.info("secret pushed", job=live.job.name, node=node, secret=str(name))
        # From now on it has this one or the one before.
        peer.copies.pop(name, None)
        self._pushes[push.header.msg_id] = _Push(
            node, peer.serial, live.job.uid, name, part.key, self._clock.time(), message
        )
        return True

    def _send_task(self, push: _Push) -> None:
        peer = self._peers.get(push.node)
        if peer is None or peer.serial != push.serial or (push.node, push.uid) not in self._tasks:
            return
        if not self._sessions.send(push.node, push.task):
            self._unsent(push.node, push.uid)

    def time_passed(self) -> bool:
        """Sends what nodes have been waited for long enough. False when nothing is left to do now; between two calls
        others must have a turn."""
        now = self._clock.time()
        for _ in range(SLICE):
            message_id = next(iter(self._pushes), None)
            if message_id is not None and self._pushes[message_id].at <= now - ACK_SECONDS:
                push = self._pushes.pop(message_id)
                _log.debug("a node did not say that it keeps a Secret", node=push.node)
                self._send_task(push)
            elif self._silent and self._silent[0][0] <= now:
                _, node, serial, uid = heapq.heappop(self._silent)
                self._ask_otherwise(node, serial, uid)
            else:
                return False
        return True

    def _ask_otherwise(self, node: str, serial: int, uid: str) -> None:
        peer, live = self._peers.get(node), self._live.get(uid)
        if peer is None or peer.serial != serial or live is None:
            return
        asked = peer.asked.get(uid)
        if asked is None or (node, uid) not in self._tasks:
            return
        if self._dialects.has_answered(node) and self._dialects.of(node) is asked.dialect:
            return
        # It is silent, or has answered meanwhile to another task, in v1alpha1.
        _log.info("a node that does not answer is asked in v1alpha1", job=live.job.name, node=node)
        message = self._message(live, node, Dialect.V1ALPHA1, asked.state, asked.part, sound_out=False)
        if self._sessions.send(node, message):
            asked.dialect = Dialect.V1ALPHA1
        else:
            heapq.heappush(self._silent, (self._clock.time() + ACK_SECONDS, node, serial, uid))

    def _message(
        self, live: LiveJob, node: str, dialect: Dialect, state: TaskState, part: Part, *, sound_out: bool
    ) -> Message:
        secret = str(live.spec.image_secrets or "") if part.key else ""
        return stock_message(
            live, node=node, dialect=dialect, state=state, images=part.images, secret=secret, sound_out=sound_out
        )

    # --- Secrets ------------------------------------------------------------------------------------------------------

    def must_wait(self, live: LiveJob, session: SessionInfo) -> bool:
        """Whether the node works on another job for which it must read other credentials under the Secret's name."""
        if session.features or not live.keys:
            return False
        for uid in self._tasks.jobs_at(session.node):
            other = self._live.get(uid)
            if other is None or other is live or other.spec.image_secrets != live.spec.image_secrets:
                continue
            if not other.ready or (other.keys and len(live.keys | other.keys) > 1):
                return True
        return False

    async def answer(self, session: SessionInfo, name: SecretName, *, parent: str) -> Message | None:
        """The Secret of a task that the node runs, in answer to its question; None when it runs none of it. A task
        that is just being sent again is waited for."""
        waited = 0.0
        while True:
            found, may_come = self._find(session, name)
            if found is not None:
                live, part = found
                return secret_message(
                    name,
                    live.secret_version,
                    credentials=live.credentials,
                    part=part,
                    operation=Operation.RESPONSE,
                    parent=parent,
                )
            if not may_come or waited >= ANSWER_SECONDS:
                return None
            await self._clock.sleep(_LOOK_SECONDS)
            waited += _LOOK_SECONDS

    def _find(self, session: SessionInfo, name: SecretName) -> tuple[tuple[LiveJob, Part] | None, bool]:
        """The job and the part that the node is at; and whether it may yet come to one."""
        may_come = not self._tasks.is_known
        without: tuple[LiveJob, Part] | None = None
        peer = self._peers.get(session.node)
        for uid in self._tasks.jobs_at(session.node):
            live = self._live.get(uid)
            if live is None or live.spec.image_secrets != name:
                continue
            asked = peer.asked.get(uid) if peer is not None and peer.serial == session.serial else None
            if not live.ready or (asked is None and live.keys and not session.features):
                may_come = True
                continue
            # Ours need not ask; if they do all the same, they read kubelet's part of it.
            part = next((part for part in live.parts if asked is None or part.key == asked.part.key), None)
            if part is not None and part.key:
                return (live, part), may_come
            if part is not None:
                without = live, part
        # What needs no credential does not ask; but it may have needed one before.
        return (None if may_come else without), may_come

    # --- Peers --------------------------------------------------------------------------------------------------------

    def _peer(self, session: SessionInfo) -> _Peer:
        peer = self._peers.get(session.node)
        if peer is None or peer.serial != session.serial:
            peer = self._peers[session.node] = _Peer(session.serial)
        return peer

    def _forget_ended(self, node: str, peer: _Peer) -> None:
        for uid in [uid for uid in peer.asked if (node, uid) not in self._tasks]:
            del peer.asked[uid]
