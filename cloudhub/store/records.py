"""What goes into the queue and what comes out of it.

A thing before it is stored and the thing that is stored are two classes: a `NewJob` has no counts, a `Job` is a
snapshot of a row and is out of date as soon as the next transaction commits. A `TaskChange` is an event for one node
task; what it did is its `Outcome`. Nobody changes either once it is made; they are not frozen because several are made
for each node task, and a frozen one takes four times as long.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudhub.taskmanager.lifecycle import Refusal, Tally, TaskEvent, TaskState
from cloudhub.taskmanager.parts import ImageOutcome
from shared.jobs import Action, Event, State

__all__ = [
    "Commit",
    "Entry",
    "ImageOutcome",
    "Job",
    "LiveTask",
    "NewJob",
    "NewTask",
    "Outcome",
    "Removed",
    "TaskChange",
]


@dataclass(frozen=True, slots=True)
class NewTask:
    node: str
    refusal: str = ""
    """The task has failed from the start, because of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    uid: str
    name: str
    generation: int
    spec: str
    """JSON text; opaque to the store."""
    concurrency: int = 1
    failure_tolerate: str = "0"
    timeout_seconds: int = 1
    tasks: Sequence[NewTask] = ()
    refusal: str = ""
    """The job has failed from the start, because of this; then it has no tasks."""
    at: float


@dataclass(slots=True, kw_only=True)
class Job:
    """A snapshot of one row of ``jobs``, but for the spec (`TaskQueue.specs`)."""

    uid: str
    name: str
    generation: int
    concurrency: int
    failure_tolerate: str
    timeout_seconds: int
    state: State
    event: Event | None
    action: Action | None
    reason: str
    stopped: bool
    tally: Tally
    created_at: float
    changed_at: float
    finished_at: float | None
    version: int
    published: int

    @property
    def finished(self) -> bool:
        return self.finished_at is not None


@dataclass(slots=True, kw_only=True)
class TaskChange:
    """One event for the task of ``node`` in job ``job_uid``."""

    job_uid: str
    node: str
    event: TaskEvent
    at: float
    attempt: int | None = None
    """The attempt that it speaks of; None for a sender that knows none."""
    reason: str = ""
    images: Sequence[ImageOutcome] = ()
    wanted: Sequence[str] = ()
    """Of a report that may speak of some of the job's images: all of them. Whether it ends the task is decided with
    what was reported before. Empty for one that speaks of the whole task."""
    deadline: float | None = None
    """Of a dispatch: when it is late. Of a postponement: the end of the wait, or None when its end is certain."""


@dataclass(slots=True)
class Outcome:
    """What became of a change. ``attempt`` and ``deadline`` are those of the task after it."""

    change: TaskChange
    """As it was given; but of a report with `TaskChange.wanted`, event and images are what it came to."""
    before: TaskState | None = None
    after: TaskState | None = None
    attempt: int = 0
    deadline: float | None = None
    refusal: Refusal | None = None

    @property
    def applied(self) -> bool:
        return self.refusal is None


@dataclass(frozen=True, slots=True)
class LiveTask:
    """A task that waits or is in flight."""

    job_uid: str
    node: str
    state: TaskState
    attempt: int
    deadline: float | None
    since: float
    """When it came to this state."""
    images: str | None = None
    """What is reported of the job's images so far; see `reported_images`."""

    def reported_images(self) -> set[str]:
        return {image for image, *_ in json.loads(self.images)} if self.images else set()


@dataclass(frozen=True, slots=True)
class Entry:
    """A node task as the job's status shows it."""

    node: str
    state: TaskState
    event: Event | None
    action: Action | None
    reason: str
    images: Sequence[ImageOutcome]
    changed_at: float
    checked_at: float | None = None
    """When the node reported that its checks had succeeded, if it did."""


@dataclass(frozen=True, slots=True)
class Removed:
    """A job whose rows went, and which of its tasks were in flight."""

    uid: str
    name: str
    in_flight: Sequence[LiveTask]


@dataclass(slots=True)
class Commit:
    """What one transaction changed, told once it is on the disk."""

    jobs: dict[str, Job] = field(default_factory=dict)
    """The touched jobs as they are now."""
    outcomes: list[Outcome] = field(default_factory=list)
    removed: list[Removed] = field(default_factory=list)
