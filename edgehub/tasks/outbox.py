"""Reports on their way to the hub: committed first, sent while there is a session, kept until acknowledged.

Guarantee: a report is in the journal before it is sent. To a hub that acknowledges, it is sent again after each
reconnect, and each minute, until the acknowledgement comes; to one that does not (a CloudCore), handed to the socket
counts as done. A CloudCore writes that the node is at work after it has sent the task, and that write covers a report
that is there already, for good; so reports to it wait for `first_report_delay` seconds after they came to be. Reports
go out in the order in which they came to be. When the journal cannot be written, the report is sent all the same and
kept in memory: a result is worth more than its durability; and what was acknowledged meanwhile leaves the journal as
soon as that can be done, or a later life would say it once more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from edgehub.link.connection import Channel
from edgehub.link.errors import NotConnected
from edgehub.tasks.journal import Journal, JournalError
from edgehub.tasks.model import Dialect, Task, TaskState
from shared import prepull
from shared.wire import Feature, Group, Message, Operation, Report, Source, new_message

log = structlog.get_logger(__name__)

RESEND_AFTER = 60.0
FORGET_AFTER = 5.0
"""Seconds after which a journal that could not be written is asked again to forget what was acknowledged."""
MAX_UNJOURNALED = 1000


@dataclass(slots=True, kw_only=True, eq=False)
class _Pending:
    key: str
    resource: str
    report: Report
    stored: int | None
    """Its id in the journal."""
    made_at: float
    node: str
    dialect: Dialect
    message: str = ""
    """Of the last time that it was sent."""
    sent_at: float | None = None


class Outbox:
    def __init__(
        self, *, journal: Journal, first_report_delay: float = 0.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._journal = journal
        self._delay = first_report_delay
        self._monotonic = monotonic
        self._pending: list[_Pending] = []
        self._settled: list[int] = []
        """In the journal still, though nobody waits for them: it could not be written."""
        self._channel: Channel | None = None
        self._wake = asyncio.Event()
        self._loaded = False

    @property
    def waiting(self) -> int:
        """Reports that the hub does not have for sure."""
        return len(self._pending)

    async def put(self, task: Task, report: Report, state: TaskState) -> None:
        """Commits ``state`` and ``report``, then sends. Never fails: see above."""
        stored: int | None = None
        try:
            stored = await self._journal.report(task, report, state)
        except JournalError as error:
            log.error("report not in the journal", job=task.job, error=str(error))
        self._pending.append(self._new(task, report, stored))
        self._wake.set()

    def _new(self, task: Task, report: Report, stored: int | None) -> _Pending:
        return _Pending(
            key=task.key,
            resource=task.resource,
            report=report,
            stored=stored,
            made_at=self._monotonic(),
            node=task.node,
            dialect=task.dialect,
        )

    def put_unjournaled(
        self, *, key: str, resource: str, report: Report, node: str, dialect: Dialect = Dialect.V1ALPHA2
    ) -> None:
        """For an answer that may be lost: a task that was refused is asked again. Takes the place of the former one."""
        self._pending = [pending for pending in self._pending if pending.key != key or pending.stored is not None]
        answers = [pending for pending in self._pending if pending.stored is None]
        if len(answers) >= MAX_UNJOURNALED:  # a hub that asks and asks, and acknowledges nothing
            self._pending.remove(answers[0])
        self._pending.append(
            _Pending(
                key=key,
                resource=resource,
                report=report,
                stored=None,
                made_at=self._monotonic(),
                node=node,
                dialect=dialect,
            )
        )
        self._wake.set()

    def remind(self, key: str) -> bool:
        """Sends what waits for this task once more, now. False when nothing does."""
        mine = [pending for pending in self._pending if pending.key == key]
        for pending in mine:
            pending.sent_at = None
        self._wake.set()
        return bool(mine)

    def drop(self, key: str) -> None:
        """The task was cancelled: nobody waits for its reports."""
        self._pending = [pending for pending in self._pending if pending.key != key]

    def connected(self, channel: Channel) -> None:
        self._channel = channel
        for pending in self._pending:
            pending.sent_at = None
        self._wake.set()

    def disconnected(self) -> None:
        self._channel = None

    async def acknowledged(self, message: str) -> None:
        for pending in self._pending:
            if pending.message == message:
                await self._done(pending)
                return
        log.debug("acknowledgement of no report", message=message[:64])

    async def run(self) -> None:
        while True:
            await self._load()
            await self._forget()
            await self._flush()
            try:
                async with asyncio.timeout(self._next_look()):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    def _next_look(self) -> float | None:
        """Seconds; None when nothing waits."""
        waits = [FORGET_AFTER] if self._settled else []
        if not self._pending:
            return min(waits, default=None)
        waits.append(RESEND_AFTER / 2)
        if self._channel is not None and Feature.ACK not in self._channel.features:
            # Not by `_held`: one whose time came since `_flush` looked would be nobody's.
            waits += [self._delay - (self._monotonic() - pending.made_at) for pending in self._pending]
        return max(0.0, min(waits))

    async def _load(self) -> None:
        """What an earlier life of the agent left; tried again while the journal cannot be read."""
        if self._loaded:
            return
        try:
            stored = await self._journal.pending_reports()
        except JournalError as error:
            log.error("journal not read", error=str(error))
            return
        known = {pending.stored for pending in self._pending}
        older = [self._new(item.task, item.report, item.id) for item in stored if item.id not in known]
        self._pending[:0] = older
        self._loaded = True
        if older:
            log.info("unacknowledged reports", count=len(older))

    async def _flush(self) -> None:
        for pending in list(self._pending):
            channel = self._channel
            if channel is None:
                return
            if self._held(pending):
                return  # in their order: those behind it came to be later
            if pending in self._pending and self._due(pending):
                try:
                    await self._send(channel, pending)
                except NotConnected:
                    if self._channel is channel:
                        self._channel = None
                    return

    def _held(self, pending: _Pending) -> bool:
        """It is for a CloudCore, and too fresh for it."""
        if self._channel is None or Feature.ACK in self._channel.features:
            return False
        return self._monotonic() - pending.made_at < self._delay

    def _due(self, pending: _Pending) -> bool:
        return pending.sent_at is None or self._monotonic() - pending.sent_at >= RESEND_AFTER

    async def _send(self, channel: Channel, pending: _Pending) -> None:
        message = _message(pending)
        # Before the send: the acknowledgement may be read while the send still returns.
        pending.message, pending.sent_at = message.header.msg_id, self._monotonic()
        try:
            await channel.send(message)
        except NotConnected:
            pending.sent_at = None
            raise
        log.info("report sent", resource=pending.resource, action=pending.report.action, ok=pending.report.succ)
        if Feature.ACK not in channel.features:
            await self._done(pending)

    async def _done(self, pending: _Pending) -> None:
        if pending in self._pending:
            self._pending.remove(pending)
        if pending.stored is not None:
            self._settled.append(pending.stored)
            await self._forget()
            if self._settled:
                self._wake.set()

    async def _forget(self) -> None:
        """Takes what is settled out of the journal. What stays there is sent again by the next life, which does no
        harm, and is kept with its task for longer than that is worth."""
        settled, self._settled = self._settled, []
        for number, stored in enumerate(settled):
            try:
                await self._journal.forget_report(stored)
            except JournalError as error:
                log.error("acknowledgement not in the journal", count=len(settled) - number, error=str(error))
                self._settled += settled[number:]
                return


def _message(pending: _Pending) -> Message:
    operation: str = Operation.REPORT
    content = pending.report.model_dump(mode="json", exclude_none=True)
    if pending.dialect is Dialect.V1ALPHA1:
        operation, content = prepull.OPERATION, prepull.response(pending.node, pending.report)
    return new_message(
        source=Source.WEBSOCKET, group=Group.HUB, resource=pending.resource, operation=operation, content=content
    )
