"""What nodes report: who says it, of which task, and what it does to it.

The problem: a report is the word of a machine that may be broken or hostile, and it comes late, twice, or for a task
that is no more. So it counts only for the node whose session it came on; only for the attempt that is in flight (an
EdgeCore names none: there it is the live job of this name); only what the lifecycle has for it changes anything, and
the rest is counted and logged by reason. Of the images it names, those of the job are kept.

EdgeCore reports in one of two dialects, and of a job with a Secret perhaps only some of the images (see
`cloudhub.taskmanager.stock`): whether that ends the task is for the store to decide, which knows what was reported
before. A failure that names no image ends it, and a success that names none is not believed: EdgeCore says so when it
could not read the Secret.

Guarantees: an acknowledgement (to nodes that know of it) is sent after the report is on the disk, or when it never
will matter; so a node that keeps unacknowledged reports loses none. While the store cannot be written, reports are
held here, one for each task and action and a bounded number a node, and the session goes on being read: its
keepalives too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import structlog
from pydantic import ValidationError

from cloudhub.metrics import Metrics
from cloudhub.store.errors import StoreClosed, StoreUnavailable
from cloudhub.store.queue import TaskQueue
from cloudhub.store.records import ImageOutcome, Outcome, TaskChange
from cloudhub.taskmanager.clock import Clock
from cloudhub.taskmanager.dialects import Dialect
from cloudhub.taskmanager.dispatch import cancel_message
from cloudhub.taskmanager.lifecycle import Refusal, TaskEvent
from cloudhub.taskmanager.live import LiveJob, LiveJobs
from cloudhub.taskmanager.ports import SessionInfo, Sessions
from shared import prepull
from shared.wire import (
    Feature,
    Group,
    Message,
    Operation,
    Report,
    Source,
    WireError,
    first_problem,
    image_results,
    new_message,
    parse_task_resource,
)

_log = structlog.get_logger(__name__)

MAX_HELD: Final = 64
"""Reports of one node that wait for the store. Twice what a node may have in flight at a time by default."""
MAX_HELD_TEXT: Final = 1 << 20
"""Characters of the reasons in them: as much as one message has room for."""

MALFORMED: Final = "malformed"
FOREIGN_NODE: Final = "foreign_node"
OVERFLOW: Final = "store_unavailable"

_REMEMBERED: Final = 16_384
"""Length of what a report says of images up to which it is remembered: nodes that did the same job say the same."""

_EVENTS: Final = {
    ("Check", True): TaskEvent.CHECK_SUCCEEDED,
    ("Check", False): TaskEvent.CHECK_FAILED,
    ("Pull", True): TaskEvent.PULL_SUCCEEDED,
    ("Pull", False): TaskEvent.PULL_FAILED,
}


@dataclass(slots=True)
class _Received:
    """A report that could be read."""

    job: str
    message_id: str
    resource: str
    change: TaskChange
    text: int = 0
    """How long its reasons are, while it is held."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What a report says of images."""

    named: frozenset[str] = frozenset()
    outcomes: tuple[ImageOutcome, ...] = ()
    """Of the job's images, in the job's order."""
    all_there: bool = True
    """None of `outcomes` is of an image that is not there."""


_NOTHING: Final = _Told()


class Reports:
    def __init__(
        self,
        *,
        store: TaskQueue,
        live: LiveJobs,
        sessions: Sessions,
        clock: Clock,
        metrics: Metrics,
        heard: Callable[[SessionInfo, Dialect], None],
    ) -> None:
        """``heard`` is told which dialect a node speaks."""
        self._store = store
        self._live = live
        self._sessions = sessions
        self._clock = clock
        self._metrics = metrics
        self._heard = heard
        self._held: dict[str, dict[tuple[str, TaskEvent], _Received]] = {}
        """By node; see `MAX_HELD`."""
        self._holding = asyncio.Event()
        self._now: float | None = None
        """The time of this turn of the event loop, once it was asked for."""

    async def receive(self, session: SessionInfo, messages: Sequence[Message]) -> None:
        """Returns when each of the reports is on the disk, refused, or held."""
        self._metrics.reports_total.inc(len(messages))
        reports = [report for message in messages if (report := self._understood(session, message)) is not None]
        try:
            outcomes = await self._store.apply([report.change for report in reports])
        except StoreClosed:
            return
        except StoreUnavailable:
            for report in reports:
                self._hold(session.node, report)
        else:
            for report, outcome in zip(reports, outcomes, strict=True):
                self._answer(report, outcome)

    def _understood(self, session: SessionInfo, message: Message) -> _Received | None:
        try:
            return self._read(session, message)
        except WireError as error:
            self._refuse(session.node, MALFORMED, detail=str(error))
            return None

    async def run(self) -> None:
        """Stores what was held as soon as that is possible."""
        while True:
            await self._holding.wait()
            self._holding.clear()
            await self._store.working()
            while self._held:
                node = next(iter(self._held))
                held = list(self._held[node].values())
                try:
                    outcomes = await self._store.apply([received.change for received in held])
                except StoreUnavailable:
                    self._holding.set()
                    break
                del self._held[node]
                for received, outcome in zip(held, outcomes, strict=True):
                    self._answer(received, outcome)

    def _read(self, session: SessionInfo, message: Message) -> _Received | None:
        """None when it is not this node's to say. Raises `WireError`."""
        older = message.route.operation == prepull.OPERATION
        parse = prepull.parse_resource_up if older else parse_task_resource
        job, node = parse(message.route.resource)
        if node != session.node:
            self._refuse(session.node, FOREIGN_NODE, job=job, detail=node[:128])
            return None
        report = prepull.parse_response(message.content) if older else _report(message.content)
        self._heard(session, Dialect.V1ALPHA1 if older else Dialect.V1ALPHA2)
        if older and report.action == prepull.State.INIT:
            # A sign of life, for which nobody here asks.
            return None
        event = _EVENTS.get((report.action, report.succ))
        if event is None:
            raise WireError(f"action {report.action[:32]!r} is neither Check nor Pull")
        received = _Received(
            job, message.header.msg_id, message.route.resource, self._change(session, job, report, event)
        )
        if not received.change.job_uid:
            self._settle_unknown(session.node, received)
            return None
        return received

    def _change(self, session: SessionInfo, job: str, report: Report, event: TaskEvent) -> TaskChange:
        live = self._live.named(job)
        in_parts = live is not None and not session.features and live.spec.image_secrets is not None
        uid = live.job.uid if live is not None else ""
        attempt = None
        if report.task is not None:
            attempt = report.task.attempt
            if report.task.job_uid != uid:
                # Of an earlier job of this name, or of one that has ended: the store knows which.
                live, uid = None, report.task.job_uid
        told = _told(report, live.spec.images if live is not None else ())
        if attempt is None and live is not None and _is_of_another_job(report, told, live, in_parts=in_parts):
            live, uid, told = None, "", _NOTHING
        images: Sequence[ImageOutcome] = told.outcomes
        if event is TaskEvent.PULL_SUCCEEDED and not told.all_there:
            event = TaskEvent.PULL_FAILED
        reason = _reason(report, event, images)
        if live is not None and not session.features and event is TaskEvent.PULL_SUCCEEDED and not images:
            event, reason = TaskEvent.PULL_FAILED, _unbelievable(live)
        wanted: Sequence[str] = ()
        if live is not None and in_parts and images:
            wanted, images = live.spec.images, _whole_parts(live, images)
        return TaskChange(
            job_uid=uid,
            node=session.node,
            event=event,
            at=self._time(),
            attempt=attempt,
            reason=reason,
            images=images,
            wanted=wanted,
        )

    def _time(self) -> float:
        """One for all that is received in the same turn of the event loop: what is alike is stored as one."""
        if self._now is None:
            self._now = self._clock.time()
            asyncio.get_running_loop().call_soon(self._forget_time)
        return self._now

    def _forget_time(self) -> None:
        self._now = None

    def _settle_unknown(self, node: str, received: _Received) -> None:
        self._refuse(node, Refusal.UNKNOWN_TASK, job=received.job)
        self._acknowledge(node, received)

    def _answer(self, received: _Received, outcome: Outcome) -> None:
        change = outcome.change
        if outcome.refusal is not None:
            self._refuse(change.node, outcome.refusal, job=received.job, task_event=str(change.event))
            if change.event is TaskEvent.CHECK_SUCCEEDED and outcome.refusal is not Refusal.NO_EFFECT:
                self._stop(received)
        self._acknowledge(change.node, received)

    def _acknowledge(self, node: str, received: _Received) -> None:
        """On the session that the node has now: it re-sends on a new one what was not acknowledged on the old."""
        session = self._sessions.get(node)
        if session is None or Feature.ACK not in session.features:
            return
        message = new_message(
            source=Source.TASK_MANAGER,
            group=Group.TASK_MANAGER,
            resource=received.resource,
            operation=Operation.ACK,
            parent=received.message_id,
            content="OK",
        )
        if not self._sessions.send(node, message):
            _log.debug("an acknowledgement could not be sent", node=node)

    def _stop(self, received: _Received) -> None:
        """The node is about to pull for a task that is over, or not its own: nobody has told it."""
        change = received.change
        session = self._sessions.get(change.node)
        if session is not None and Feature.CANCEL in session.features and change.attempt is not None:
            message = cancel_message(
                job=received.job,
                node=change.node,
                uid=change.job_uid,
                attempt=change.attempt,
                reason="this task is over",
            )
            self._sessions.send(change.node, message)

    def _hold(self, node: str, received: _Received) -> None:
        change = received.change
        held = self._held.setdefault(node, {})
        key = (change.job_uid, change.event)
        received.text = len(change.reason) + sum(len(why) for _, _, why in change.images)
        others = sum(other.text for found, other in held.items() if found != key)
        if (key not in held and len(held) >= MAX_HELD) or others + received.text > MAX_HELD_TEXT:
            self._refuse(node, OVERFLOW, job=received.job)
            return
        held[key] = received
        self._holding.set()

    def _refuse(self, node: str, reason: str, **fields: str) -> None:
        self._metrics.refusals_total.count(reason)
        _log.info("a report changed nothing", node=node, reason=str(reason), **fields)


def _report(content: Any) -> Report:
    try:
        return Report.model_validate(content)
    except ValidationError as error:
        raise WireError(first_problem(error)) from None


def _told(report: Report, known: tuple[str, ...]) -> _Told:
    """Raises `WireError`."""
    if report.action != "Pull":
        return _NOTHING
    read = _read_images if len(report.extend) <= _REMEMBERED else _read_images.__wrapped__
    return read(report.extend, known)


@lru_cache(maxsize=64)
def _read_images(extend: str, known: tuple[str, ...]) -> _Told:
    named = {result.image: result for result in image_results(extend)}
    outcomes = tuple(
        (image, named[image].ok, named[image].reason if not named[image].ok else "")
        for image in known
        if image in named
    )
    return _Told(frozenset(named), outcomes, all(ok for _, ok, _ in outcomes))


def _is_of_another_job(report: Report, told: _Told, live: LiveJob, *, in_parts: bool) -> bool:
    """An EdgeCore names no uid, but the images that it was asked for: an earlier job of this name had others."""
    if report.action != "Pull":
        return False
    known = len(told.outcomes)
    return len(told.named) > known or (report.succ and not in_parts and 0 < known < len(live.spec.images))


def _whole_parts(live: LiveJob, images: Sequence[ImageOutcome]) -> list[ImageOutcome]:
    """With those of which a node that was asked for them said nothing: it will not be asked again. Which they are is
    known once the Secret was read; before, what is missing is asked for again."""
    if not live.ready:
        return list(images)
    named = {image for image, _, _ in images}
    asked = [image for part in live.parts if not named.isdisjoint(part.images) for image in part.images]
    return [*images, *((image, False, "the node said nothing of it") for image in asked if image not in named)]


def _unbelievable(live: LiveJob) -> str:
    reason = "the node reports success, but no image"
    secret = live.spec.image_secrets
    # EdgeCore of any version, in v1alpha1.
    return f"{reason}: its EdgeCore does so when it cannot read the Secret {secret}" if secret is not None else reason


def _reason(report: Report, event: TaskEvent, images: Sequence[ImageOutcome]) -> str:
    if event in (TaskEvent.CHECK_SUCCEEDED, TaskEvent.PULL_SUCCEEDED):
        return ""
    failed = [f"{image}: {why}" for image, ok, why in images if not ok and why]
    # EdgeCore's own reason is one and the same sentence for every failed pull.
    return report.reason or "; ".join(failed) or "the node gave no reason"
