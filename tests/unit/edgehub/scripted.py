"""A runtime that does what a test wrote down, and the small things that tests of tasks share."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgehub.link.errors import NotConnected
from edgehub.runtime.base import ImageRecord, ImageRuntimeError, PullProgress, RuntimeUnavailable, RuntimeVersion
from edgehub.tasks.model import Task, task_of
from shared.wire import Credential, Dispatch, Feature, Message, Operation, PullTemplate, TaskExtras

NODE = "n1"


def record(image: str, size: int = 1000) -> ImageRecord:
    return ImageRecord(id="sha256:" + "1" * 64, digests=(), tags=(image,), size=size)


class ScriptedRuntime:
    """Images fail with the errors in `errors`, in their order, then come; one in `held` comes when it is let go."""

    def __init__(self) -> None:
        self.present: dict[str, ImageRecord] = {}
        self.errors: dict[str, list[ImageRuntimeError]] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.pulls: list[tuple[str, Credential | None]] = []
        self.pulling: set[str] = set()
        self.most_at_once = 0
        self.away = False
        self.started = asyncio.Event()

    def _answer(self) -> None:
        if self.away:
            raise RuntimeUnavailable("containerd does not answer")

    async def version(self) -> RuntimeVersion:
        self._answer()
        return RuntimeVersion(name="scripted", version="1.0")

    async def status(self, image: str) -> ImageRecord | None:
        self._answer()
        return self.present.get(image)

    async def pull(
        self,
        image: str,
        credential: Credential | None,
        *,
        progress: Callable[[PullProgress], None] | None = None,
    ) -> ImageRecord:
        self._answer()
        self.pulls.append((image, credential))
        self.pulling.add(image)
        self.most_at_once = max(self.most_at_once, len(self.pulling))
        self.started.set()
        try:
            if image in self.held:
                if progress is not None:
                    progress(PullProgress(done_bytes=400, total_bytes=1000))
                await self.held[image].wait()
            await asyncio.sleep(0)
            if self.errors.get(image):
                raise self.errors[image].pop(0)
        finally:
            self.pulling.discard(image)
        self.present[image] = record(image)
        return self.present[image]

    async def list(self) -> builtins.list[ImageRecord]:
        return [*self.present.values()]

    async def filesystem(self) -> Path | None:
        self._answer()
        return Path("/")

    async def close(self) -> None:
        return None


class RecordingChannel:
    """A session that keeps what is sent; broken, it refuses."""

    def __init__(self, *features: Feature) -> None:
        self.features = frozenset(features)
        self.sent: list[Message] = []
        self.broken = False
        self.busy = False
        """With other messages; an offer is dropped."""
        self.something = asyncio.Event()

    async def send(self, message: Message) -> None:
        if self.broken:
            raise NotConnected("broken")
        self.sent.append(message)
        self.something.set()

    async def offer(self, message: Message) -> bool:
        if self.busy:
            return False
        await self.send(message)
        return True

    @property
    def reports(self) -> list[tuple[str, bool]]:
        return [(message.content["action"], message.content["succ"]) for message in self.sent]


ALL_FEATURES = (Feature.ACK, Feature.CANCEL, Feature.CREDENTIALS)


def dispatch(
    *images: str,
    uid: str | None = "uid-1",
    attempt: int = 1,
    timeout: int = 60,
    retries: int = 0,
    checks: tuple[str, ...] = (),
    credentials: dict[str, Credential] | None = None,
    secret: str = "",
) -> Dispatch:
    extras = None
    if uid is not None:
        extras = TaskExtras(job_uid=uid, attempt=attempt, timeout_seconds=timeout, credentials=credentials or {})
    template = PullTemplate(
        images=list(images) or ["a"], checkItems=list(checks), retryTimes=retries, imageSecrets=secret
    )
    return Dispatch(imagePrePullTemplate=template, task=extras)


def task(*images: str, job: str = "job", operation: Operation = Operation.CHECK, **options: Any) -> Task:
    return task_of(job=job, node=NODE, operation=operation, dispatch=dispatch(*images, **options))


async def until(condition: Callable[[], bool], *, within: float = 60.0) -> None:
    """Returns once it holds; the test fails when it does not in time."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


FULL_AT = 64 << 10


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 64 KiB: the kernel's own way to refuse a write, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
