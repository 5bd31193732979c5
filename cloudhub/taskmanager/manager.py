"""The taskManager: its parts, wired, and the way of a job through them.

informer -> `Reconciler` -> store -> `Scheduler` -> session -> node -> session -> `Reports` -> store -> `Publisher` ->
API. The store stands in the middle: each part acts on what was committed, and hears of it through one hook, in the
order of the commits. So the process may die at any line: the next one finds in the store what was done, and in the
API and from the nodes what was not.

What is stored goes on at once after a start; jobs of the API are looked at when both informers have their first list,
so that nothing is taken for deleted that merely was not listed yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from cloudhub.metrics import Metrics
from cloudhub.store.errors import StoreUnavailable
from cloudhub.store.queue import TaskQueue
from cloudhub.store.records import Commit
from cloudhub.taskmanager.clock import Clock, SystemClock
from cloudhub.taskmanager.controller import Controller
from cloudhub.taskmanager.dialects import Dialects
from cloudhub.taskmanager.lifecycle import API_STATE, Tally, TaskState
from cloudhub.taskmanager.live import LiveJob, LiveJobs
from cloudhub.taskmanager.ports import Jobs, Nodes, Secrets, SessionInfo, Sessions
from cloudhub.taskmanager.progress import ProgressBoard
from cloudhub.taskmanager.publisher import Publisher
from cloudhub.taskmanager.reconciler import Reconciler
from cloudhub.taskmanager.reports import Reports
from cloudhub.taskmanager.scheduler import Scheduler
from cloudhub.taskmanager.spec import JobSpec, SecretName
from shared import prepull
from shared.jobs import State
from shared.wire import Group, Message, Operation

_log = structlog.get_logger(__name__)

_START_RETRY_SECONDS: Final = 1.0
_RECONCILERS: Final = 16
"""Jobs that come together are admitted together, in shared transactions: the last one has its turns with the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskManagerSettings:
    status_entries: int = 500
    """Entries of ``status.status``; more make the object larger and every write dearer. Counts are always complete."""
    publish_interval: float = 1.0
    """Seconds between two writes of one job's status; less loads the API server, more lets people wait."""
    progress_interval: float = 10.0
    """Seconds between two writes of one job's status that only show how far its pulls are; 0 for none."""
    node_tasks: int = 32
    """Tasks that one node has at a time, of all jobs together. An EdgeCore drops messages beyond 100 that wait for it;
    too few make jobs that share nodes wait for one another."""
    dialect_timeout: float = 20.0
    """Seconds that a stock node of unknown version may leave a v1alpha2 task unanswered until it is sent it in
    v1alpha1; half of the time that is left, if that is less. Too short, and slow nodes do their checks twice."""


class TaskManager:
    """A `cloudhub.taskmanager.ports.SessionListener`."""

    def __init__(
        self,
        *,
        store: TaskQueue,
        jobs: Jobs,
        nodes: Nodes,
        secrets: Secrets,
        sessions: Sessions,
        metrics: Metrics,
        settings: TaskManagerSettings | None = None,
        clock: Clock | None = None,
    ) -> None:
        settings = settings or TaskManagerSettings()
        clock = clock or SystemClock()
        self._store = store
        self._jobs = jobs
        self._nodes = nodes
        self._clock = clock
        self._metrics = metrics
        self._live = LiveJobs()
        dialects = Dialects(nodes)
        self._scheduler = Scheduler(
            store=store,
            live=self._live,
            sessions=sessions,
            clock=clock,
            metrics=metrics,
            dialects=dialects,
            node_tasks=settings.node_tasks,
            silence=settings.dialect_timeout,
        )
        self._stock = self._scheduler.stock
        self._reports = Reports(
            store=store, live=self._live, sessions=sessions, clock=clock, metrics=metrics, heard=self._stock.heard
        )
        self._progress = ProgressBoard(
            live=self._live, clock=clock, metrics=metrics, attempt_of=self._scheduler.attempt_of, moved=self._moved
        )
        self._publisher = Publisher(
            store=store,
            jobs=jobs,
            clock=clock,
            metrics=metrics,
            interval=settings.publish_interval,
            entries=settings.status_entries,
            progress=self._progress.of,
            progress_interval=settings.progress_interval,
        )
        reconciler = Reconciler(
            store=store,
            live=self._live,
            jobs=jobs,
            nodes=nodes,
            secrets=secrets,
            sessions=sessions,
            scheduler=self._scheduler,
            clock=clock,
        )
        self._reconciling = Controller(
            name="reconciler", handle=reconciler.reconcile, clock=clock, workers=_RECONCILERS
        )
        self._loaded = asyncio.Event()
        self._listed = False
        """The API's jobs are known. Before, what is stored might seem to have been deleted."""
        self._stopping = asyncio.Event()
        self._counts: tuple[Mapping[str, int], Tally] = ({}, Tally())
        store.on_commit = self._committed
        jobs.on_change(self._job_changed)
        metrics.count_jobs(lambda: self._counts[0])
        metrics.count_node_tasks(lambda: _by_api_state(self._counts[1]))
        metrics.before_scrape(self._count)

    # --- What the sessions tell -------------------------------------------------------------------------------------

    def session_opened(self, session: SessionInfo) -> None:
        self._scheduler.session_opened(session)

    def session_closed(self, session: SessionInfo) -> None:
        """Its tasks stay its own until their deadlines."""
        self._stock.session_closed(session)

    async def messages_received(self, session: SessionInfo, messages: Sequence[Message]) -> None:
        reports: list[Message] = []
        for message in messages:
            operation = message.route.operation
            if operation in (Operation.REPORT, prepull.OPERATION):
                reports.append(message)
            elif operation == Operation.PROGRESS:
                self._progress.receive(session, message)
            elif operation in (Operation.RESPONSE, Operation.ERROR) and message.header.parent_msg_id:
                # What a node says to something that was pushed to it, and to answers; most need no attention.
                self._stock.acknowledged(session, message)
            elif message.route.group != Group.META:
                # Those are queries, and answered elsewhere.
                self._metrics.messages_ignored_total.count(operation)
        if reports:
            if not self._loaded.is_set():
                # A node may be back before the jobs that it speaks of.
                await self._loaded.wait()
            await self._reports.receive(session, reports)

    async def secret_for(self, session: SessionInfo, namespace: str, name: str, parent: str) -> Message | None:
        """The answer to a node's question for a Secret, with the id ``parent``. None when it is of no task that the
        node runs."""
        return await self._stock.answer(session, SecretName(namespace, name), parent=parent)

    # --- Running ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until it is cancelled, or `stop`."""
        await self._load()
        self._loaded.set()
        async with asyncio.TaskGroup() as group:
            parts = (
                ("scheduler", self._scheduler.run()),
                ("publisher", self._publisher.run()),
                ("reports", self._reports.run()),
                ("reconciler", self._reconcile()),
                ("store", self._store.died()),
                ("doubts", self._look_again()),
            )
            tasks = [group.create_task(part, name=f"taskmanager-{name}") for name, part in parts]
            await self._stopping.wait()
            for task in tasks:
                task.cancel()

    def stop(self) -> None:
        self._stopping.set()

    async def _load(self) -> None:
        """The jobs that an earlier process did not see the end of."""
        while True:
            try:
                unfinished = await self._store.unfinished()
                specs = await self._store.specs([job.uid for job in unfinished])
            except StoreUnavailable as error:
                _log.warning("the store cannot be read at the start", reason=str(error))
                await self._clock.sleep(_START_RETRY_SECONDS)
            else:
                break
        for job in unfinished:
            spec = JobSpec.from_json(specs[job.uid])
            live = LiveJob(job=job, spec=spec)
            # Credentials are not stored: the reconciler reads them again, and then the job is ready.
            live.ready = spec.image_secrets is None
            self._live.add(live)
        if unfinished:
            _log.info("going on with unfinished jobs", jobs=len(unfinished))

    async def _reconcile(self) -> None:
        await self._jobs.synced()
        await self._nodes.synced()
        self._listed = True
        await self._reconcile_all()
        await self._reconciling.run()

    async def _reconcile_all(self) -> None:
        names = {job.name for job in self._jobs.list()}
        while True:
            try:
                names.update(name for _, name in await self._store.names())
            except StoreUnavailable as error:
                _log.warning("the store cannot be read", reason=str(error))
                await self._clock.sleep(_START_RETRY_SECONDS)
            else:
                break
        for name in sorted(names):
            self._reconciling.add(name)

    async def _look_again(self) -> None:
        """A write that failed may be on the disk all the same, and no part has heard of it."""
        while True:
            await self._store.recovered()
            self._scheduler.doubt()
            self._progress.clear()
            await self._publisher.look_again()
            if self._listed:
                await self._reconcile_all()

    def _job_changed(self, name: str) -> None:
        found = self._jobs.get(name)
        if found is not None and not found.status and not found.deleting and self._live.get(found.uid) is None:
            self._scheduler.expect(found.uid)
        self._reconciling.add(name)
        self._publisher.seen(name)

    def _moved(self, uid: str) -> None:
        self._publisher.moved(uid)

    def _committed(self, commit: Commit) -> None:
        for job in commit.jobs.values():
            self._live.committed(job)
        for removed in commit.removed:
            self._live.discard(removed.uid)
        self._scheduler.committed(commit)
        self._progress.committed(commit)
        self._publisher.committed(commit)

    async def _count(self) -> None:
        try:
            self._counts = await self._store.job_counts(), await self._store.task_counts()
        except StoreUnavailable:
            _log.debug("the counts of an earlier scrape are served again")


def _by_api_state(tally: Tally) -> dict[str, int]:
    counts = dict.fromkeys((state.value for state in State), 0)
    for state in TaskState:
        counts[API_STATE[state].value] += tally.of_state(state)
    return counts
