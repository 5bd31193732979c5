"""Writes each job's status into the API, as a projection of the store.

The problem: ten thousand nodes may report in a second, and the API server pays for each write with the whole object.
So a job's status is written at once when the job is first seen and when it ends, and in between at most once an
interval, with whatever is true by then; and not at all when it would say the same. A hundred jobs may change in every
second, and what they say in between must not keep the hub from its work: of all jobs together it is at most
`WRITES_A_SECOND`, and ends go first. How far pulls are goes along with any write; by itself it is worth one at most
once a longer interval, and only to an API that keeps it.

Guarantees: what is written was committed before; the last write of a job says how it ended, however long the API was
away meanwhile, and over restarts (``jobs.published`` falls behind ``jobs.version`` until it is written). Whoever
changes a status by hand keeps that until the job's next change; only where a write in another version of the API took
keys out of it (`Jobs.lost_status`) it is written once more.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from pydantic_core import to_json

from cloudhub.metrics import Metrics
from cloudhub.store.errors import StoreUnavailable
from cloudhub.store.queue import TaskQueue
from cloudhub.store.records import Commit, Job
from cloudhub.taskmanager.clock import Clock
from cloudhub.taskmanager.controller import DONE, Again, Controller, Result, Retry, Terminal
from cloudhub.taskmanager.ports import Forbidden, Gone, Jobs, KubeError, Rejected, Unavailable
from cloudhub.taskmanager.progress import NOTHING, Told
from cloudhub.taskmanager.status import patch, project

_log = structlog.get_logger(__name__)

WRITES_A_SECOND: Final = 10.0
"""Of statuses in between. Each takes the hub some 5 ms, and the API server several times that."""
WORKERS: Final = 8
"""Writes under way at a time: they wait for the API server, and for the store."""


@dataclass(slots=True)
class _Written:
    """What we wrote last of a job."""

    at: float
    """When we last tried to."""
    digest: bytes
    version: int
    keys: set[str] = field(default_factory=set)


class Publisher:
    def __init__(
        self,
        *,
        store: TaskQueue,
        jobs: Jobs,
        clock: Clock,
        metrics: Metrics,
        interval: float,
        entries: int,
        progress: Callable[[str], Mapping[str, Told]] = lambda _: NOTHING,
        progress_interval: float = 0.0,
    ) -> None:
        """``progress``: by a job's uid, how far its nodes are."""
        self._store = store
        self._jobs = jobs
        self._clock = clock
        self._metrics = metrics
        self._interval = interval
        self._entries = entries
        self._progress = progress
        self._progress_interval = progress_interval
        self._moved: dict[str, float] = {}
        """Jobs whose nodes are further than their status says, and from when on that is worth a write."""
        self._shown: dict[str, float] = {}
        """When a write that shows progress was begun last."""
        self._written: dict[str, _Written] = {}
        self._controller = Controller(name="publisher", handle=self._publish, clock=clock, workers=WORKERS)

    def committed(self, commit: Commit) -> None:
        for job in commit.jobs.values():
            self._controller.add(job.uid, after=self._wait(job), urgent=job.finished)
        for removed in commit.removed:
            # By way of the controller, after a write that is under way.
            self._controller.add(removed.uid)

    def seen(self, name: str) -> None:
        """Call it when the job of this name has changed in the API."""
        found = self._jobs.get(name)
        if found is not None and self._jobs.lost_status(name):
            # Not at once: whoever writes again and again in that version is not answered write for write.
            self._controller.add(found.uid, after=self._interval)

    def moved(self, uid: str) -> None:
        """A node has told how far it is with this job."""
        if uid in self._moved or not self._shows_progress:
            return
        now = self._clock.time()
        due = self._moved[uid] = max(now, self._shown.get(uid, 0.0) + self._progress_interval)
        self._controller.add(uid, after=due - now)

    @property
    def _shows_progress(self) -> bool:
        return self._progress_interval > 0 and self._jobs.keeps_progress

    async def run(self) -> None:
        await self.look_again()
        await self._controller.run()

    async def look_again(self) -> None:
        """There may be changes that no `committed` told of."""
        for uid in {*self._written, *(job.uid for job in await self._unpublished())}:
            self._controller.add(uid)

    async def _unpublished(self) -> list[Job]:
        while True:
            try:
                return await self._store.unpublished()
            except StoreUnavailable as error:
                _log.warning("the store cannot be read at the start", reason=str(error))
                await self._clock.sleep(1.0)

    def _wait(self, job: Job) -> float:
        """How long the status of this job may not be written yet."""
        written = self._written.get(job.uid)
        if written is None or job.finished:
            return 0.0
        interval = max(self._interval, len(self._written) / WRITES_A_SECOND)
        return max(0.0, written.at + interval - self._clock.time())

    async def _publish(self, uid: str) -> Result:
        try:
            found = await self._store.snapshot(uid, self._entries)
        except StoreUnavailable as error:
            return Retry(str(error))
        if found is None:
            self._forget(uid)
            return DONE
        job, entries = found
        wait = self._wait(job)
        if wait > 0:
            return Again(wait)
        lost = job.published > 0 and self._jobs.lost_status(job.name)
        due, now = self._moved.get(uid), self._clock.time()
        if self._is_written(job) and not lost and (due is None or due > now):
            return DONE if due is None else Again(due - now)
        progress = NOTHING
        if due is not None:
            # Before what is shown is taken: what a node says from now on is for another write.
            del self._moved[uid]
            self._shown[uid] = now
        if self._shows_progress:
            progress = self._progress(uid)
        status = project(job, entries, self._jobs.status_keys, progress)
        digest = hashlib.sha256(to_json(status)).digest()
        written = self._written.get(uid)
        if written is None or written.digest != digest or lost:
            problem = await self._write(job, status)
            if problem is not None:
                if isinstance(problem, Retry):
                    self._note_failure(job)
                    if due is not None:
                        self._moved[uid] = due
                return problem
        self._written[uid] = _Written(self._clock.time(), digest, job.version, set(status))
        return await self._mark(job)

    def _is_written(self, job: Job) -> bool:
        written = self._written.get(job.uid)
        return job.published >= job.version or (written is not None and written.version >= job.version)

    async def _write(self, job: Job, status: dict[str, object]) -> Result | None:
        """None when it is written."""
        begun = time.perf_counter()
        try:
            await self._jobs.patch_status(name=job.name, uid=job.uid, status=patch(status, self._known_keys(job)))
        except Gone:
            # Deleted, or made again under its name: the reconciler sees that too, and removes the rows.
            return DONE
        except Unavailable as error:
            return Retry(str(error))
        except (Forbidden, Rejected) as error:
            # Not wrong for ever: roles and schemas are mended while we run.
            _log.error("the status of a job is refused", job=job.name, reason=str(error))
            return Retry(str(error))
        except KubeError as error:
            return Terminal(str(error))
        self._metrics.publish_seconds.observe(time.perf_counter() - begun)
        if job.finished:
            _log.info("job ended", job=job.name, state=str(job.state), reason=job.reason)
        return None

    def _note_failure(self, job: Job) -> None:
        """An API that is away is not asked again at every change of the job, which may be thousands a second."""
        before = self._written.get(job.uid) or _Written(0.0, b"", 0)
        self._written[job.uid] = replace(before, at=self._clock.time())

    def _known_keys(self, job: Job) -> set[str]:
        """The keys that the object's status may have."""
        written, seen = self._written.get(job.uid), self._jobs.get(job.name)
        keys = set(written.keys) if written is not None else set()
        if seen is not None and seen.uid == job.uid:
            keys.update(seen.status)
        return keys

    async def _mark(self, job: Job) -> Result:
        try:
            if job.published < job.version:  # else it was written for the sake of what is not stored
                await self._store.mark_published(job.uid, job.version)
        except StoreUnavailable as error:
            # After a restart it would be written once more, with the same words.
            _log.warning("a written status could not be marked as such", job=job.name, reason=str(error))
        if job.finished and (written := self._written.get(job.uid)) is not None and written.version <= job.version:
            self._forget(job.uid)
        return DONE

    def _forget(self, uid: str) -> None:
        for kept in (self._written, self._moved, self._shown):
            kept.pop(uid, None)
