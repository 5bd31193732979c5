"""Pulls the images of a task: what is here already is not fetched, what failed is tried again by its kind of error.

Guarantee: each image has its own result. Errors that somebody must mend (denied, not found, malformed, no space) end
an image at once; those of the way to the registry are tried ``retryTimes`` more, with backoff and jitter, and not
before the registry wants to be asked again, which may be a wait that the deadline makes pointless; a runtime that is
away is waited for, until shortly before the task's deadline, and costs no retry. At most ``parallel`` images are in
transfer over all tasks, and never the same image twice at once.

Where credentials come from is a `CredentialSource`'s affair (`edgehub.tasks.secrets`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import structlog

from edgehub.link.rules import Backoff, Uniform
from edgehub.runtime.base import (
    ImageRuntime,
    ImageRuntimeError,
    PullDenied,
    PullProgress,
    RuntimeUnavailable,
    TransientPullError,
)
from edgehub.tasks.live import ImageProgress, ImageState, LiveTask
from shared.wire import Credential

log = structlog.get_logger(__name__)

FIRST_RETRY = 2.0
MAX_RETRY = 30.0
MAX_RUNTIME_WAIT = 10.0
NO_RESULT = "internal error of the agent: its pull ended without a result"


class CredentialSource(Protocol):
    async def credential(self, live: LiveTask, image: str) -> Credential | None:
        """Raises `ImageRuntimeError` when there is one and it cannot be had."""
        ...


class Puller:
    def __init__(
        self,
        *,
        runtime: ImageRuntime,
        credentials: CredentialSource,
        parallel: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Uniform = random.uniform,
    ) -> None:
        self._runtime = runtime
        self._credentials = credentials
        self._parallel = parallel
        self._slots = asyncio.Semaphore(parallel)
        self._images = _Locks()
        self._sleep = sleep
        self._uniform = uniform

    async def pull(self, live: LiveTask) -> dict[str, str]:
        """By image, the reason why it is not here; empty when it is."""
        reasons = dict.fromkeys(live.images, NO_RESULT)  # here is what was found to be here, and nothing else
        waiting = iter(live.images.values())

        async def work() -> None:
            for progress in waiting:  # shared: each image is taken by one of the workers
                _end_if_cancelled()
                reasons[progress.image] = await self._image(live, progress)

        async with asyncio.TaskGroup() as group:
            for number in range(min(self._parallel, len(live.images))):
                group.create_task(work(), name=f"pull {live.task.job} {number}")
        return reasons

    async def _image(self, live: LiveTask, progress: ImageProgress) -> str:
        registry = Backoff(first=FIRST_RETRY, maximum=MAX_RETRY, uniform=self._uniform)
        retries = live.task.template.retryTimes
        while True:
            try:
                await self._try(live, progress)
            except RuntimeUnavailable as error:
                _end_if_cancelled()
                delay = runtime_delay(live, self._uniform)
                if delay is None:
                    return self._failed(live, progress, str(error))
                reason = str(error)
            except ImageRuntimeError as error:
                reason = _explain(error, live, progress.image)
                if not error.retryable or retries <= 0:
                    return self._failed(live, progress, reason)
                _end_if_cancelled()
                retries -= 1
                asked = error.retry_after or 0.0 if isinstance(error, TransientPullError) else 0.0
                if asked > live.seconds_left():
                    reason += f"; it is to be left alone for {asked:g} s, and the task has {live.seconds_left():.0f} s"
                    return self._failed(live, progress, reason)
                delay = asked + registry.next_delay()  # jitter: it told all nodes the same
            except Exception as error:
                log.exception("pull failed unexpectedly", job=live.task.job, image=progress.image)
                return self._failed(live, progress, f"internal error of the agent: {type(error).__name__}")
            else:
                live.mark(progress, ImageState.SUCCESSFUL)
                return ""
            log.warning("image tried again", job=live.task.job, image=progress.image, reason=reason, retry_in=delay)
            live.mark(progress, ImageState.WAITING, reason)
            await self._sleep(delay)

    async def _try(self, live: LiveTask, progress: ImageProgress) -> None:
        image = progress.image
        # The image first: who waits for another task's pull of the same image must not hold a slot meanwhile.
        async with self._images.hold(image), self._slots:
            progress.tries += 1
            live.mark(progress, ImageState.PULLING)
            record = await self._runtime.status(image)
            if record is None:
                credential = await self._credentials.credential(live, image)
                log.info("pulling", job=live.task.job, image=image, anonymous=credential is None)
                record = await self._runtime.pull(image, credential, progress=_follow(live, progress))
            else:
                log.info("image is here already", job=live.task.job, image=image)
            progress.done_bytes = progress.total_bytes = max(record.size, progress.total_bytes)

    def _failed(self, live: LiveTask, progress: ImageProgress, reason: str) -> str:
        log.warning("image failed", job=live.task.job, image=progress.image, reason=reason)
        live.mark(progress, ImageState.FAILED, reason)
        return reason or "failed"


def runtime_delay(live: LiveTask, uniform: Uniform) -> float | None:
    """Seconds until the runtime is asked again; None when the deadline is so near that the reason should go out."""
    left = live.seconds_left()
    delay = uniform(0.5, 1.0) * min(MAX_RUNTIME_WAIT, max(1.0, left / 20))
    return delay if left - delay > min(10.0, left / 10) else None


def _end_if_cancelled() -> None:
    """An error in the midst of a cancelled pull's clean-up has hidden the cancellation: no other try follows it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _explain(error: ImageRuntimeError, live: LiveTask, image: str) -> str:
    secret = live.task.template.imageSecrets
    if isinstance(error, PullDenied) and secret and image not in live.credentials:
        return f"{error}; no credential of secret {secret} is for this registry"
    return str(error)


def _follow(live: LiveTask, progress: ImageProgress) -> Callable[[PullProgress], None]:
    def follow(now: PullProgress) -> None:
        progress.done_bytes, progress.total_bytes = now.done_bytes, now.total_bytes
        live.changed()

    return follow


class _Locks:
    """A lock a name, for as long as anybody wants it."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[name]
            if users == 1:
                del self._locks[name]
            else:
                self._locks[name] = lock, users - 1
