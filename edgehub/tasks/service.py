"""What the hub says, put into effect: a dispatch starts a task, or is answered from the journal; a cancel stops one.

Problem: the hub asks again after every reconnect and every restart of either side, and a thin line must not carry an
image, nor a disk a check, for each of its questions.

Guarantee, for a hub of ours, by job uid and attempt:
- asked again while the task is at work: nothing starts anew; credentials and time left are taken from the new question;
- asked again when it is finished: the same report goes out again;
- asked again after a restart of the agent: the work goes on, and checks that went well are not repeated;
- a newer attempt replaces an older one, an older one is ignored; another job of the same name replaces the former.
A CloudCore names no attempt: the same question is done again unless it is at work, and images that are here stay. It
may ask in either version of KubeEdge's task messages, and is answered in the same. Objects that it sends are
acknowledged, or it would send them again and again; none is kept but the Secret that a task has asked for.
Tasks that wait are bounded; one more is refused with a reason, and so is one that the journal cannot take.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from pydantic import ValidationError

from edgehub.link.connection import Channel
from edgehub.link.errors import NotConnected
from edgehub.tasks.journal import Entry, Journal, JournalError
from edgehub.tasks.live import LiveTask
from edgehub.tasks.model import Dialect, Task, TaskState, check_report, init_report, task_of
from edgehub.tasks.outbox import Outbox
from edgehub.tasks.progress import ProgressReporter
from edgehub.tasks.runner import Runner
from edgehub.tasks.secrets import Credentials
from edgehub.tasks.shield import to_the_end
from shared import prepull, wire
from shared.wire import (
    Cancel,
    Dispatch,
    Group,
    Message,
    Operation,
    Report,
    ReportExtras,
    Source,
    TaskExtras,
    WireError,
)

log = structlog.get_logger(__name__)

STOP_TIMEOUT = 10.0
KEEP_FINISHED = 10
_OBJECT_OPERATIONS = frozenset({"insert", "update", "delete"})
MAX_TIMEOUT = 10 * 365 * 86_400
"""Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedTask:
    """For `edgehub status`."""

    task: Task
    report: Report | None
    """None when it was cancelled."""
    at: datetime


class TaskService:
    """A `Listener` of the link. `run` owns the tasks at work."""

    def __init__(
        self,
        *,
        node: str,
        journal: Journal,
        outbox: Outbox,
        runner: Runner,
        credentials: Credentials,
        max_tasks: int,
        task_timeout: float,
        enabled: bool = True,
        progress_interval: float = 0.0,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._node = node
        self._journal = journal
        self._outbox = outbox
        self._runner = runner
        self._credentials = credentials
        self._channel: Channel | None = None
        self._max_tasks = max_tasks
        self._task_timeout = task_timeout
        self._enabled = enabled
        self._changed = changed
        self._live: dict[str, LiveTask] = {}
        self._finished: deque[FinishedTask] = deque(maxlen=KEEP_FINISHED)
        self._group: asyncio.TaskGroup | None = None
        self._running = asyncio.Event()
        self._progress = ProgressReporter(live=self._live.values, interval=progress_interval)

    @property
    def live(self) -> Iterable[LiveTask]:
        return self._live.values()

    @property
    def finished(self) -> Iterable[FinishedTask]:
        """Newest first."""
        return reversed(self._finished)

    async def run(self) -> None:
        try:
            for entry in reversed(await self._journal.latest(KEEP_FINISHED)):
                self._remember(entry)
        except JournalError as error:
            log.error("journal not read", error=str(error))
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._running.set()
            await self._progress.run()

    def _moved(self) -> None:
        self._progress.changed()
        self._changed()

    # --- The link's listener

    def connected(self, channel: Channel) -> None:
        self._channel = channel
        self._credentials.connected(channel)
        self._outbox.connected(channel)
        self._progress.connected(channel)

    def disconnected(self) -> None:
        self._channel = None
        self._credentials.disconnected()
        self._outbox.disconnected()
        self._progress.disconnected()

    async def received(self, message: Message) -> None:
        await self._running.wait()
        try:
            await self._act(message)
        except NotConnected:
            pass  # what was to be acknowledged comes again
        except WireError as error:
            log.warning("message ignored", operation=message.route.operation[:64], reason=str(error))
        except JournalError as error:
            log.error("journal failed", operation=message.route.operation[:64], error=str(error))
        except Exception:
            log.exception("message not served", operation=message.route.operation[:64])

    async def _act(self, message: Message) -> None:
        route = message.route
        if route.operation == Operation.ACK:
            await self._outbox.acknowledged(message.header.parent_msg_id)
        elif route.group == Group.RESOURCE and route.source == Source.EDGE_CONTROLLER:
            await self._object(message)
        elif route.group == Group.TASK_MANAGER and route.operation == prepull.OPERATION:
            await self._prepull(message)
        elif route.group != Group.TASK_MANAGER or route.operation not in (
            Operation.CHECK,
            Operation.PULL,
            Operation.CANCEL,
        ):
            log.debug("message ignored", operation=route.operation[:64], group=route.group[:64])
        else:
            job, node = wire.parse_task_resource(route.resource)
            if node != self._node:
                raise WireError(f"it is for node {node[:64]!r}, this is {self._node!r}")
            if route.operation == Operation.CANCEL:
                await self._cancel(message.content)
            else:
                await self._dispatch(job, Operation(route.operation), message.content)

    # --- What a CloudCore sends besides

    async def _object(self, message: Message) -> None:
        answers = self._credentials.answered(message)
        operation = message.route.operation
        if operation == Operation.ERROR or not (answers or operation in _OBJECT_OPERATIONS) or self._channel is None:
            return
        route = message.route
        await self._channel.send(
            wire.new_message(
                source=route.source,
                group=route.group,
                resource=route.resource,
                operation=Operation.RESPONSE,
                content="OK",
                parent=message.header.msg_id,
            )
        )

    async def _prepull(self, message: Message) -> None:
        job, node = prepull.parse_resource_down(message.route.resource)
        if node != self._node:
            raise WireError(f"it is for node {node[:64]!r}, this is {self._node!r}")
        try:
            request = prepull.parse_request(message.content)
        except WireError as error:
            self._refuse_prepull(job, f"this agent cannot read the task: {error}")
            return
        operation, dispatch = request.dispatch()
        task = task_of(job=job, node=node, operation=operation, dispatch=dispatch, dialect=Dialect.V1ALPHA1)
        if request.state is prepull.State.INIT:
            self._answer_unjournaled(task, init_report())
        else:
            await self._take(task, None)

    def _refuse_prepull(self, job: str, reason: str) -> None:
        log.error("task refused", job=job, reason=reason)
        resource = prepull.resource_up(job, self._node)
        self._outbox.put_unjournaled(
            key=resource,
            resource=resource,
            report=check_report(reason=reason, extras=None),
            node=self._node,
            dialect=Dialect.V1ALPHA1,
        )

    # --- Dispatch

    async def _dispatch(self, job: str, operation: Operation, content: Any) -> None:
        try:
            dispatch = Dispatch.model_validate(content)
        except ValidationError as error:
            self._refuse_unreadable(job, content, wire.first_problem(error))
            return
        await self._take(task_of(job=job, node=self._node, operation=operation, dispatch=dispatch), dispatch.task)

    async def _take(self, task: Task, extras: TaskExtras | None) -> None:
        if not self._enabled:
            self._refuse(task, "modules.taskManager.enable is false on this node")
            return
        live = self._live.get(task.key)
        if live is not None and live.task.attempt >= task.attempt:
            self._asked_again(live, task, extras)
            return
        for other in [other for other in self._live.values() if other.task.job == task.job]:
            await self._stop(other, "replaced by a newer task of the job's name")
        await self._start(task, extras)

    def _asked_again(self, live: LiveTask, task: Task, extras: TaskExtras | None) -> None:
        if live.task.attempt > task.attempt:
            log.warning("older attempt ignored", job=task.job, attempt=task.attempt, present=live.task.attempt)
            return
        log.info("asked again, at work", job=task.job, attempt=task.attempt, phase=live.phase)
        if extras is not None:
            live.credentials = extras.credentials
            live.prolong(self._deadline(extras))
        self._outbox.remind(task.key)

    async def _start(self, task: Task, extras: TaskExtras | None) -> None:
        try:
            checked = await self._accept(task)
        except JournalError as error:
            self._refuse(task, str(error))
            return
        if checked is None:
            return
        assert self._group is not None  # noqa: S101 - `received` waits for it
        live = LiveTask(task=task, deadline=self._deadline(extras), checked=checked, changed=self._moved)
        if extras is not None:
            live.credentials = extras.credentials
        self._live[task.key] = live
        log.info("task", job=task.job, attempt=task.attempt, images=len(live.images), checked=checked)
        live.runner = self._group.create_task(self._serve(live), name=f"task {task.job}")
        self._moved()

    async def _accept(self, task: Task) -> bool | None:
        """Whether its checks are done already; None when there is nothing to start."""
        entry = await self._journal.get(task.key) if task.tracked else None
        if entry is not None and entry.task.attempt > task.attempt:
            log.warning("older attempt ignored", job=task.job, attempt=task.attempt, present=entry.task.attempt)
            return None
        if entry is not None and entry.task.attempt == task.attempt and entry.state is not TaskState.CANCELLED:
            if entry.final is not None:
                await self._answer(task, entry.final)
                return None
            return entry.state is TaskState.PULLING
        if len(self._live) >= self._max_tasks:
            self._refuse(task, f"the node has {len(self._live)} tasks already, as many as it takes")
            return None
        self._outbox.drop(task.key)
        await self._journal.accept(task)
        return False

    async def _answer(self, task: Task, final: Report) -> None:
        log.info("asked again, finished", job=task.job, attempt=task.attempt, ok=final.succ)
        if not self._outbox.remind(task.key):
            await self._outbox.put(task, final, TaskState.FINISHED)

    def _deadline(self, extras: TaskExtras | None) -> float:
        # Bounded, so that it is still a date: a number out of a hub must not end the agent.
        seconds = min(extras.timeout_seconds, MAX_TIMEOUT) if extras is not None else self._task_timeout
        return asyncio.get_running_loop().time() + seconds

    # --- Refusal: not in the journal, for the hub may ask again and then all may be well

    def _refuse(self, task: Task, reason: str) -> None:
        log.error("task refused", job=task.job, reason=reason)
        self._answer_unjournaled(task, check_report(reason=reason, extras=task.extras))

    def _answer_unjournaled(self, task: Task, report: Report) -> None:
        self._outbox.put_unjournaled(
            key=task.key, resource=task.resource, report=report, node=task.node, dialect=task.dialect
        )

    def _refuse_unreadable(self, job: str, content: Any, problem: str) -> None:
        reason = f"this agent cannot read the task: {problem}"
        log.error("task refused", job=job, reason=reason)
        extras: ReportExtras | None = None
        given = content.get("task") if isinstance(content, dict) else None
        if given is not None:
            try:
                extras = ReportExtras.model_validate(given)
            except ValidationError:
                return  # of a hub of ours, and nobody would know what the report is about
        resource = wire.task_resource(job, self._node)
        report = check_report(reason=reason, extras=extras)
        self._outbox.put_unjournaled(key=resource, resource=resource, report=report, node=self._node)

    # --- The life of one task

    async def _serve(self, live: LiveTask) -> None:
        task = live.task
        try:
            final = await self._runner.run(live)
            live.settled = True
            await to_the_end(self._outbox.put(task, final, TaskState.FINISHED), name=f"commit {task.job}")
            self._finished.append(FinishedTask(task=task, report=final, at=datetime.now(UTC)))
            log.info("task done", job=task.job, action=final.action, ok=final.succ, reason=final.reason or None)
        except asyncio.CancelledError:
            if live.stop_reason is None:
                raise  # the agent stops
            log.info("task stopped", job=task.job, reason=live.stop_reason)
        finally:
            self._gone(live)

    def _gone(self, live: LiveTask) -> None:
        if self._live.get(live.task.key) is live:
            del self._live[live.task.key]
        self._moved()

    # --- Stopping

    async def _cancel(self, content: Any) -> None:
        try:
            cancel = Cancel.model_validate(content)
        except ValidationError as error:
            raise WireError(wire.first_problem(error)) from None
        live = self._live.get(cancel.job_uid)
        if live is not None and cancel.attempt >= live.task.attempt:
            await self._stop(live, cancel.reason or "cancelled by the hub")
            return
        entry = await self._journal.get(cancel.job_uid)
        if entry is not None and entry.final is None and cancel.attempt >= entry.task.attempt:
            self._outbox.drop(cancel.job_uid)
            await self._journal.cancel(cancel.job_uid)

    async def _stop(self, live: LiveTask, reason: str) -> None:
        """Returns when the work has ended, so that what follows starts on a clean node."""
        if live.settled and live.runner is not None:
            await asyncio.wait([live.runner], timeout=STOP_TIMEOUT)
            return
        live.stop_reason = reason
        if live.runner is not None:
            live.runner.cancel()
            await asyncio.wait([live.runner], timeout=STOP_TIMEOUT)
            if not live.runner.done():
                log.error("task does not stop", job=live.task.job, after=STOP_TIMEOUT)
        self._gone(live)  # cancelled before its first step, it could not say so itself
        self._outbox.drop(live.task.key)
        await self._journal.cancel(live.task.key)
        self._finished.append(FinishedTask(task=live.task, report=None, at=datetime.now(UTC)))
        self._moved()

    def _remember(self, entry: Entry) -> None:
        if entry.state in (TaskState.FINISHED, TaskState.CANCELLED):
            at = datetime.fromtimestamp(entry.changed_at, UTC)
            self._finished.append(FinishedTask(task=entry.task, report=entry.final, at=at))
