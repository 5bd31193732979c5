"""A task that is at work on this node now: what was asked, and what only lives as long as the work does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from edgehub.tasks.model import Task
from shared.wire import Credential


class Phase(StrEnum):
    """For `edgehub status`."""

    QUEUED = "Queued"
    CHECKING = "Checking"
    PULLING = "Pulling"


class ImageState(StrEnum):
    PENDING = "Pending"
    PULLING = "Pulling"
    WAITING = "Waiting"
    """For the next try."""
    SUCCESSFUL = "Successful"
    FAILED = "Failed"


@dataclass(slots=True, kw_only=True)
class ImageProgress:
    image: str
    state: ImageState = ImageState.PENDING
    tries: int = 0
    done_bytes: int = 0
    total_bytes: int = 0
    """0 until known; CRI does not tell."""
    reason: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class LiveTask:
    task: Task
    deadline: float
    """On the event loop's clock."""
    credentials: Mapping[str, Credential] = field(default_factory=dict, repr=False)
    checked: bool = False
    """The checks went well before, in this life of the agent or an earlier one."""
    phase: Phase = Phase.QUEUED
    images: dict[str, ImageProgress] = field(init=False)
    since: float = field(default_factory=time.time)
    runner: asyncio.Task[None] | None = None
    scope: asyncio.Timeout | None = None
    secret_lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    secret_error: str | None = None
    """None until the Secret that a CloudCore named was asked for; empty when it was read."""
    stop_reason: str | None = None
    settled: bool = False
    """Its final report is there, and on its way into the journal: too late to stop it."""
    changed: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.images = {image: ImageProgress(image=image) for image in self.task.images}

    def seconds_left(self) -> float:
        return self.deadline - asyncio.get_running_loop().time()

    def prolong(self, deadline: float) -> None:
        """The hub asked again, and says anew how long it waits."""
        self.deadline = deadline
        if self.scope is not None and not self.scope.expired():
            self.scope.reschedule(deadline)

    def enter(self, phase: Phase) -> None:
        self.phase = phase
        self.changed()

    def mark(self, progress: ImageProgress, state: ImageState, reason: str = "") -> None:
        progress.state, progress.reason = state, reason
        self.changed()
