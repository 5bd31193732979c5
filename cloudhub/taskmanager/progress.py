"""How far the pulls in flight are, as our agents tell it. In memory alone.

The problem: ten thousand nodes that pull for an hour tell it every few seconds. It is worth showing and nothing else
depends on it, so it costs no commit and, by itself, no write: the publisher takes what is here when it writes.

Guarantees: a node speaks of itself, of a task that it was sent on this very session and has not finished, and of the
attempt that it was sent; all else is counted by its reason and forgotten. So after a restart of the hub a node is
heard again once it was sent its task again. There is at most one entry for each task in flight, it goes when the task
is in flight no more, and a hub whose nodes tell nothing does nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from cloudhub.metrics import Metrics
from cloudhub.store.records import Commit
from cloudhub.taskmanager.clock import Clock
from cloudhub.taskmanager.lifecycle import DISPATCHES
from cloudhub.taskmanager.live import LiveJobs
from cloudhub.taskmanager.ports import SessionInfo
from shared.wire import Feature, Message, Operation, WireError, parse_progress, parse_task_resource

_log = structlog.get_logger(__name__)

KEPT: Final = "kept"
MALFORMED: Final = "malformed"
FOREIGN_NODE: Final = "foreign_node"
UNKNOWN_TASK: Final = "unknown_task"
OTHER_ATTEMPT: Final = "other_attempt"


@dataclass(frozen=True, slots=True)
class Told:
    """What a node said last of one task."""

    images: int
    total_images: int
    bytes: int
    total_bytes: int
    """0 when it is not known."""
    at: float


NOTHING: Final[Mapping[str, Told]] = {}


class ProgressBoard:
    """``attempt_of`` says which attempt of a job a node was sent on this session and has not finished, if any;
    ``moved`` is told the uid of a job of which there is something new."""

    def __init__(
        self,
        *,
        live: LiveJobs,
        clock: Clock,
        metrics: Metrics,
        attempt_of: Callable[[SessionInfo, str], int | None],
        moved: Callable[[str], None],
    ) -> None:
        self._live = live
        self._clock = clock
        self._metrics = metrics
        self._attempt_of = attempt_of
        self._moved = moved
        self._told: dict[str, dict[str, Told]] = {}
        """By job and node."""
        metrics.count_progress(self._totals)

    def of(self, uid: str) -> Mapping[str, Told]:
        """By node."""
        return self._told.get(uid, NOTHING)

    def receive(self, session: SessionInfo, message: Message) -> None:
        if Feature.PROGRESS not in session.features:
            self._metrics.messages_ignored_total.count(Operation.PROGRESS)
            return
        try:
            outcome = self._take(session, message)
        except WireError as error:
            _log.debug("progress that cannot be read", node=session.node, reason=str(error))
            outcome = MALFORMED
        self._metrics.progress_messages_total.count(outcome)

    def _take(self, session: SessionInfo, message: Message) -> str:
        job, node = parse_task_resource(message.route.resource)
        if node != session.node:
            return FOREIGN_NODE
        progress = parse_progress(message.content)
        uid = progress.job_uid
        live, attempt = self._live.get(uid), self._attempt_of(session, uid)
        if live is None or live.job.name != job or attempt is None:
            return UNKNOWN_TASK
        if attempt != progress.attempt:
            return OTHER_ATTEMPT
        self._told.setdefault(uid, {})[node] = Told(
            images=progress.done_images,
            total_images=progress.total_images,
            bytes=progress.done_bytes,
            total_bytes=progress.total_bytes,
            at=self._clock.time(),
        )
        self._moved(uid)
        return KEPT

    def committed(self, commit: Commit) -> None:
        if not self._told:
            return
        for outcome in commit.outcomes:
            begun = outcome.applied and outcome.change.event in DISPATCHES
            if begun or outcome.after is None or not outcome.after.in_flight:
                self._forget(outcome.change.job_uid, outcome.change.node)
        for job in commit.jobs.values():
            if job.finished:
                self._told.pop(job.uid, None)
        for removed in commit.removed:
            self._told.pop(removed.uid, None)

    def clear(self) -> None:
        """There may be ends that no commit told of; who is still at work says so again."""
        self._told.clear()

    def _forget(self, uid: str, node: str) -> None:
        told = self._told.get(uid)
        if told is not None and told.pop(node, None) is not None and not told:
            del self._told[uid]

    def _totals(self) -> tuple[int, int, int]:
        """Tasks, their bytes that are on the nodes, and all of their bytes as far as they are known."""
        told = [one for nodes in self._told.values() for one in nodes.values()]
        return len(told), sum(one.bytes for one in told), sum(one.total_bytes for one in told)
