"""Turns: which node task is given to its node now, and what becomes of it when the node is slow, busy or away.

The problem: a job may have ten thousand nodes and a concurrency of one, a hundred jobs may come at once (`gathering`)
and want the same nodes, nodes come and go, and the process may die between any two lines. So there is one loop, in
which everything that moves a task forward happens one after the other, and it works in batches: resume the tasks of
nodes that have connected, release what waited for a busy node, then take turns among the jobs, a few nodes of each,
until nothing more may be sent.

Guarantees: what is in flight of a job is never more than its ``concurrency``; 'dispatched' with attempt and deadline
is on the disk before the message is sent, so a task that a node works on is known after any crash; a task whose node
is not connected waits outside of the concurrency, for `timeoutSeconds` from its first turn; a node has at most
``node_tasks`` tasks at a time, since EdgeCore drops messages beyond its queue without a word; a node that connects is
sent again what it has not finished, once a session, as the same attempt with the time that is left.

Deadlines are columns with an index, looked at once a second: there is no timer a task. After a start, tasks that became
late while the hub was down are given `RETURN_SECONDS` more, for their nodes to come back and say how it went.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import structlog

from cloudhub.metrics import Metrics
from cloudhub.store.errors import StoreUnavailable
from cloudhub.store.queue import TaskQueue
from cloudhub.store.records import Commit, Job, LiveTask, Outcome, Removed, TaskChange
from cloudhub.taskmanager.clock import Clock
from cloudhub.taskmanager.dialects import Dialects
from cloudhub.taskmanager.dispatch import ANY_ATTEMPT, cancel_message, dispatch_message
from cloudhub.taskmanager.gathering import Gathering
from cloudhub.taskmanager.inflight import NodeTasks
from cloudhub.taskmanager.lifecycle import TaskEvent, TaskState
from cloudhub.taskmanager.live import LiveJob, LiveJobs
from cloudhub.taskmanager.ports import SessionInfo, Sessions
from cloudhub.taskmanager.stock import StockNodes
from shared.wire import Feature

_log = structlog.get_logger(__name__)

TURNS: Final = 1000
"""Of one transaction."""
BATCH: Final = 500
"""What is done for so many nodes is done in one go, where it cannot be interrupted."""
SLICE: Final = 100
"""Messages sent in one go; then others have a turn."""
LEAST_SLICE: Final = 20
"""Turns of one job in one batch, however many jobs there are: each batch is a query and a commit."""
MOST_JOBS: Final = 100
"""Jobs of one batch; the others have their turns in the next."""
LOOK_AHEAD: Final = 20
"""Turns of one job in one batch, however little room it has: nodes that are not connected take none."""
LOOKS: Final = 8
"""At nodes that have connected, between two ticks."""
TICK_SECONDS: Final = 1.0
RETURN_SECONDS: Final = 60.0
"""EdgeCore comes back 30 to 55 s after it lost its hub."""
_STEPS: Final = frozenset({TaskEvent.CHECK_SUCCEEDED, TaskEvent.PART_PULLED})
"""After these an EdgeCore may have to be asked for what comes next."""


class Scheduler:
    def __init__(
        self,
        *,
        store: TaskQueue,
        live: LiveJobs,
        sessions: Sessions,
        clock: Clock,
        metrics: Metrics,
        dialects: Dialects,
        node_tasks: int,
        silence: float,
    ) -> None:
        self._store = store
        self._live = live
        self._sessions = sessions
        self._clock = clock
        self._metrics = metrics
        self._nodes = NodeTasks(limit=node_tasks)
        self._dialects = dialects
        self.stock = StockNodes(
            sessions=sessions,
            dialects=dialects,
            live=live,
            tasks=self._nodes,
            clock=clock,
            silence=silence,
            unsent=self._not_sent,
        )
        self._wake = asyncio.Event()
        self.gathering = Gathering(self._wake.set)
        self._connected: dict[str, None] = {}
        """Nodes with a session that they did not have when we last looked."""
        self._returned: dict[str, None] = {}
        """Those that are being looked at."""
        self._looks = LOOKS
        """At nodes that connected, until the next tick; see `_resume`."""
        self._unready: dict[str, set[str]] = {}
        """By job: nodes that connected before the job's credentials were read."""
        self._prolonged: set[str] = set()
        """Jobs whose nodes are to be told that they have more time."""
        self._reminders: deque[LiveTask] = deque()
        self._cancels: deque[tuple[str, LiveTask, str]] = deque()
        self._steps: deque[Outcome] = deque()
        """Of stock nodes that have done what they were asked, and must be asked for what comes next."""
        self._unsent: dict[str, None] = {}
        """Nodes that could not be sent what comes next: once more with the next tick."""
        self._doubtful = False
        self._sent = 0
        """Dispatches that are not in the metric yet."""
        self._started_at = clock.time()

    # --- What others tell; cheap, nothing happens until the loop comes to it ----------------------------------------

    def session_opened(self, session: SessionInfo) -> None:
        self._connected[session.node] = None
        self._wake.set()

    def committed(self, commit: Commit) -> None:
        """To be called after `LiveJobs` has heard of it."""
        for outcome in commit.outcomes:
            self._nodes.follow(outcome)
            if outcome.change.event in _STEPS and outcome.applied:
                self._note_step(outcome)
        for removed in commit.removed:
            self._cancel_removed(removed)
        # Some are refused at once.
        self.gathering.admitted(job.uid for job in commit.jobs.values() if job.finished)
        self._wake.set()

    def _note_step(self, outcome: Outcome) -> None:
        """Ours do all by themselves; for a node that is away, it is sent again when it is back."""
        node = outcome.change.node
        session = self._sessions.get(node)
        if session is None or session.features:
            return
        if outcome.change.event is TaskEvent.PART_PULLED or not self.stock.goes_on_by_itself(node):
            self._steps.append(outcome)

    def expect(self, uid: str) -> None:
        """A job is about to be admitted."""
        self.gathering.expect(uid, idle=lambda: not any(live.room for live in self._live))

    def ready(self, uid: str) -> None:
        """The job was admitted, or its credentials have been read."""
        self.gathering.admitted((uid,))
        for node in self._unready.pop(uid, ()):
            self._returned[node] = None
        self._wake.set()

    def prolonged(self, uid: str) -> None:
        """What is in flight of this job has more time than its nodes were told."""
        self._prolonged.add(uid)
        self._wake.set()

    def attempt_of(self, session: SessionInfo, uid: str) -> int | None:
        """Which attempt of this job the node was sent on this session and has not finished, if any."""
        return self._nodes.attempt_on(session.node, uid, session.serial)

    def doubt(self) -> None:
        """The store may hold what `committed` did not tell of."""
        self._doubtful = True
        self._wake.set()

    # --- The loop ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        await self._recover()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop(), name="scheduler")
            group.create_task(self._tick(), name="scheduler-deadlines")

    async def _recover(self) -> None:
        """Takes up what the store says: what an earlier process left, or what a failed write may have left."""
        while True:
            await self._store.working()
            try:
                names = {live.job.uid: live.job.name for live in self._live}
                jobs, in_flight = await self._store.survey(names)
                self._agree(names, jobs)
                lost = self._nodes.reset(in_flight)
                self._cancels.extend(_over(node, uid, names[uid]) for node, uid in lost if uid in names)
                await self._return(await self._store.parked())
            except StoreUnavailable as error:
                _log.warning("no dispatch while the store cannot be used", reason=str(error))
                await self._clock.sleep(TICK_SECONDS)
            else:
                break
        self._returned.update(dict.fromkeys(self._sessions.connected()))
        self._wake.set()

    def _agree(self, known: Iterable[str], stored: Mapping[str, Job]) -> None:
        """Makes what is known of the jobs what the store says of them."""
        for uid in known:
            job = stored.get(uid)
            if job is None:
                self._live.discard(uid)
            else:
                self._live.committed(job)

    async def _loop(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._doubtful:
                self._doubtful = False
                await self._recover()
            try:
                while await self._step():
                    pass
            except StoreUnavailable:
                # Nothing is dispatched that is not on the disk first. A commit that failed may be there all the same,
                # so memory is of no use any more.
                await self._recover()

    async def _step(self) -> bool:
        """One batch of the first thing that there is to do. False when there is nothing."""
        if self._sent:
            # A few at a time: each call takes a lock.
            self._metrics.dispatches_total.inc(self._sent)
            self._sent = 0
        # A turn for everybody else first: sending alone waits for nothing.
        await asyncio.sleep(0)
        return (
            self._send_cancels()
            or self._go_on()
            or self.stock.time_passed()
            or await self._remind()
            or await self._resume()
            or await self._release()
            or await self._take_turns()
        )

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK_SECONDS)
            try:
                while await self._time_out():
                    pass
            except StoreUnavailable as error:
                _log.warning("deadlines wait for the store", reason=str(error))
                await self._store.working()
            self._nodes.cool(self._clock.time())
            self._returned.update(self._unsent)
            self._unsent.clear()
            self._looks = LOOKS
            self._wake.set()

    # --- Nodes that have connected ----------------------------------------------------------------------------------

    async def _resume(self) -> bool:
        """Gives back their turn to tasks that waited for these nodes, and sends again what they have not finished.

        A few are looked at at once, those that come in the same second with the next tick, all together: a fleet that
        returns would cost a query for every few nodes, in the very moment in which its handshakes keep the hub busy,
        and be asked for what it is about to report, since a node sends first what was not acknowledged on its last
        session."""
        if self._looks and self._connected:
            self._looks -= 1
            self._returned.update(self._connected)
            self._connected.clear()
        if not self._returned:
            return False
        nodes = list(self._returned)[:BATCH]
        tasks = await self._store.live_tasks_of(nodes)
        await self._return([task for task in tasks if task.state is TaskState.WAITING])
        for task in tasks:
            if task.state.in_flight:
                self._send_again(task)
        for node in nodes:
            # Only now: after an error above they are to be looked at again.
            self._returned.pop(node, None)
        return True

    async def _return(self, tasks: Sequence[LiveTask]) -> None:
        now = self._clock.time()
        await self._store.apply(
            [
                TaskChange(job_uid=task.job_uid, node=task.node, event=TaskEvent.RETURNED, at=now, attempt=task.attempt)
                for task in tasks
            ]
        )

    def _send_again(self, task: LiveTask) -> None:
        live, session = self._live.get(task.job_uid), self._sessions.get(task.node)
        if live is None or session is None or task.deadline is None:
            return
        if not live.ready:
            self._unready.setdefault(task.job_uid, set()).add(task.node)
            return
        left = task.deadline - self._clock.time()
        # Its last report may have been committed since the task was read.
        if not self._nodes.is_unsent(task.node, task.job_uid, session.serial):
            return
        if self._send(live, session, task.state, task.attempt, left, task.reported_images()):
            _log.debug("sent again", job=live.job.name, node=task.node, attempt=task.attempt)
        else:
            self._not_sent(task.node, task.job_uid)

    def _go_on(self) -> bool:
        """Asks stock nodes for what comes after what they have reported."""
        for _ in range(min(BATCH, len(self._steps))):
            outcome = self._steps.popleft()
            change = outcome.change
            session, live = self._sessions.get(change.node), self._live.get(change.job_uid)
            if session is None or session.features or live is None or outcome.deadline is None:
                continue
            if (change.node, change.job_uid) not in self._nodes:
                continue
            if not live.ready:
                self._not_sent(change.node, change.job_uid)
                self._unready.setdefault(change.job_uid, set()).add(change.node)
                continue
            done = {image for image, *_ in change.images}
            left = outcome.deadline - self._clock.time()
            if not self._send(live, session, TaskState.PULLING, outcome.attempt, left, done):
                self._not_sent(change.node, change.job_uid)
        return bool(self._steps)

    def _not_sent(self, node: str, uid: str) -> None:
        """The node's session has no room, or the task is not ready: again with the next tick."""
        if (node, uid) in self._nodes:
            self._nodes.add(node, uid)
            self._unsent[node] = None

    async def _remind(self) -> bool:
        """Sends the dispatch once more to nodes that were given more time: ours go by the newest that they have been
        told. An EdgeCore knows no time, and would begin anew."""
        if self._prolonged:
            uids = list(self._prolonged)
            self._reminders.extend(await self._store.in_flight_of(uids))
            self._prolonged.difference_update(uids)
        now = self._clock.time()
        for _ in range(min(BATCH, len(self._reminders))):
            task = self._reminders.popleft()
            live, session = self._live.get(task.job_uid), self._sessions.get(task.node)
            if live is None or session is None or not session.features or task.deadline is None or not live.ready:
                continue
            if (task.node, task.job_uid) in self._nodes:
                self._send(live, session, task.state, task.attempt, task.deadline - now)
        return bool(self._reminders)

    # --- Turns ------------------------------------------------------------------------------------------------------

    async def _release(self) -> bool:
        """Gives back their turn to tasks that waited for a node with enough to do, as many as it may have now."""
        freed = self._nodes.take_freed(self._may_go)
        if not freed:
            return False
        now = self._clock.time()
        outcomes = await self._store.apply(
            [TaskChange(job_uid=uid, node=node, event=TaskEvent.RETURNED, at=now) for node, uid in freed]
        )
        for outcome in outcomes:
            if not outcome.applied:
                # It went with its job; its place is another's.
                self._nodes.look_again(outcome.change.node)
        return True

    def _may_go(self, node: str, uid: str) -> bool:
        live, session = self._live.get(uid), self._sessions.get(node)
        return live is None or session is None or not self.stock.must_wait(live, session)

    async def _take_turns(self) -> bool:
        """One batch. False when there is nothing to do."""
        rooms = [live for live in self._live if live.room]
        if not rooms or self.gathering.is_under_way():
            return False
        most = min(max(LEAST_SLICE, TURNS // len(rooms)), max(LOOK_AHEAD, *(2 * live.room for live in rooms)))
        changes: list[TaskChange] = []
        # One time for all: what is alike is written as one.
        now = self._clock.time()
        while rooms and not changes:
            taken = _fill_batch(rooms, most)
            del rooms[: len(taken)]
            pending = await self._store.next_pending([live.job.uid for live in taken], most)
            for live in taken:
                changes += self._turns_of(live, pending.get(live.job.uid, ()), now)
                self._live.move_to_end(live.job.uid)
                if len(changes) >= TURNS:
                    break
        if not changes:
            return False
        await self._send_dispatched(await self._store.apply(changes))
        return True

    def _turns_of(self, live: LiveJob, nodes: Iterable[str], now: float) -> list[TaskChange]:
        changes: list[TaskChange] = []
        room = live.room
        for node in nodes:
            if room == 0:
                break
            change = self._turn_of(live, node, now)
            if change.event is not TaskEvent.POSTPONED:
                self._nodes.add(node, live.job.uid)
                room -= 1
            changes.append(change)
        return changes

    def _turn_of(self, live: LiveJob, node: str, now: float) -> TaskChange:
        deadline: float | None = now + live.job.timeout_seconds
        event, reason = TaskEvent.POSTPONED, "waiting for the node to connect"
        session = self._sessions.get(node)
        if session is not None:
            if self._nodes.busy(node) or self.stock.must_wait(live, session):
                # No deadline: what the node works on has one, and after it this has its turn again.
                deadline, reason = None, "waiting for other jobs on this node"
            else:
                event = TaskEvent.DISPATCHED if live.spec.check_items else TaskEvent.DISPATCHED_TO_PULL
                reason = ""
        return TaskChange(job_uid=live.job.uid, node=node, event=event, at=now, reason=reason, deadline=deadline)

    async def _send_dispatched(self, outcomes: Sequence[Outcome]) -> None:
        refused: list[TaskChange] = []
        for number, outcome in enumerate(outcomes, start=1):
            change = outcome.change
            if outcome.applied and change.event is not TaskEvent.POSTPONED and not self._send_first(outcome):
                refused.append(change)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        if not refused:
            return
        now = self._clock.time()
        await self._store.apply(
            [
                TaskChange(job_uid=change.job_uid, node=change.node, event=TaskEvent.SEND_REFUSED, at=now)
                for change in refused
            ]
        )

    def _send_first(self, outcome: Outcome) -> bool:
        change = outcome.change
        live, session = self._live.get(change.job_uid), self._sessions.get(change.node)
        if live is None or (change.node, change.job_uid) not in self._nodes:
            return True  # removed, or ended, within these milliseconds; there is nothing to do any more
        if session is None or outcome.after is None or outcome.deadline is None:
            return False
        if self._send(live, session, outcome.after, outcome.attempt, outcome.deadline - change.at):
            return True
        # Connected, but its outbound queue is full: not again at once.
        self._nodes.rest(change.node, until=change.at + TICK_SECONDS)
        return False

    def _send(
        self,
        live: LiveJob,
        session: SessionInfo,
        state: TaskState,
        attempt: int,
        left: float,
        done: Collection[str] = (),
    ) -> bool:
        """``done``: images that a stock node has reported already."""
        if session.features:
            message = dispatch_message(live, session=session, state=state, attempt=attempt, seconds_left=left)
            sent = self._sessions.send(session.node, message)
        else:
            sent = self.stock.send(live, session, state=state, done=done, left=left)
        if not sent:
            return False
        self._nodes.add(session.node, live.job.uid, session.serial, attempt)
        self._sent += 1
        return True

    # --- Ends that no report brings ---------------------------------------------------------------------------------

    async def _time_out(self) -> bool:
        """One batch. False when there is nothing (more) to do."""
        if not len(self._live):
            return False
        now = self._clock.time()
        late = [task for task in await self._store.late(now) if not self._may_still_return(task, now)]
        # The last of these ends its job, and who has ended is not among the live any more.
        names = {live.job.uid: live.job.name for live in self._live}
        outcomes = await self._store.apply(
            [
                TaskChange(
                    job_uid=task.job_uid,
                    node=task.node,
                    event=TaskEvent.TIMED_OUT,
                    at=now,
                    attempt=task.attempt,
                    reason=self._late_text(task),
                )
                for task in late
            ]
        )
        for task, outcome in zip(late, outcomes, strict=True):
            if outcome.applied:
                name = names.get(task.job_uid, "")
                _log.info("a node task timed out", job=name, node=task.node, state=str(task.state))
                if task.state.in_flight:
                    self._cancels.append((name, task, "timed out"))
                if task.state is TaskState.CHECKING:
                    self._dialects.forget(task.node)
        return any(outcome.applied for outcome in outcomes)

    def _may_still_return(self, task: LiveTask, now: float) -> bool:
        return task.since < self._started_at and now < self._started_at + RETURN_SECONDS

    def _late_text(self, task: LiveTask) -> str:
        live, session = self._live.get(task.job_uid), self._sessions.get(task.node)
        seconds = live.job.timeout_seconds if live is not None else 0
        if task.state is TaskState.WAITING:
            return f"the node was not connected within {seconds} s of its turn"
        late = f"no last report within {seconds} s of dispatch"
        if session is None:
            return f"{late}; the node is not connected"
        silent = task.state is TaskState.CHECKING or (live is not None and not live.spec.check_items)
        if silent and not session.features and not self._dialects.has_answered(task.node):
            # A stock node drops what it does not understand, and at most its own log says so.
            return f"{late}, nor any other: {self._dialects.likely_cause(task.node)}"
        return late

    def _cancel_removed(self, removed: Removed) -> None:
        self._unready.pop(removed.uid, None)
        self._prolonged.discard(removed.uid)
        for task in removed.in_flight:
            self._nodes.discard(task.node, task.job_uid)
            self._cancels.append((removed.name, task, "the job was deleted"))

    def _send_cancels(self) -> bool:
        for _ in range(min(BATCH, len(self._cancels))):
            self._cancel(*self._cancels.popleft())
        return bool(self._cancels)

    def _cancel(self, job: str, task: LiveTask, reason: str) -> None:
        session = self._sessions.get(task.node)
        if session is None or Feature.CANCEL not in session.features:
            return
        message = cancel_message(job=job, node=task.node, uid=task.job_uid, attempt=task.attempt, reason=reason)
        if not self._sessions.send(task.node, message):
            # It stops by itself at its deadline, and what it reports then changes nothing.
            _log.warning("a node could not be told to stop", job=job, node=task.node)


def _fill_batch(rooms: Sequence[LiveJob], most: int) -> list[LiveJob]:
    """The first of these jobs, as many as make a batch of turns with ``most`` of each."""
    taken: list[LiveJob] = []
    turns = 0
    for live in rooms[:MOST_JOBS]:
        taken.append(live)
        turns += min(live.room, most)
        if turns >= TURNS:
            break
    return taken


def _over(node: str, uid: str, job: str) -> tuple[str, LiveTask, str]:
    task = LiveTask(uid, node, TaskState.CHECKING, ANY_ATTEMPT, None, 0.0)
    return job, task, "this task is over"
