"""One task from its start to its final report: the checks, their report, the pulls, theirs.

Guarantee: `run` returns the one report that ends the task, whatever happened: checks that failed, images that failed,
a runtime that stayed away, a deadline that passed, or an error of our own. The report of successful checks is committed
on the way. Only cancellation leaves without one: by the hub's Cancel, or when the agent stops; then the task is the
hub's to ask again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from edgehub.link.rules import Uniform
from edgehub.runtime.base import ImageRuntimeError, RuntimeUnavailable
from edgehub.tasks.live import ImageProgress, ImageState, LiveTask, Phase
from edgehub.tasks.model import Task, TaskState, check_report, pull_report
from edgehub.tasks.prechecks import PreChecks
from edgehub.tasks.pulls import Puller, runtime_delay
from edgehub.tasks.shield import to_the_end
from shared.wire import Operation, Report

log = structlog.get_logger(__name__)

_MIB = 1 << 20
TIME_IS_UP = "time is up"

PutReport = Callable[[Task, Report, TaskState], Coroutine[Any, Any, None]]


class Runner:
    """``parallel`` bounds the tasks at work; the others wait in `run`, which counts against their deadline."""

    def __init__(
        self,
        *,
        prechecks: PreChecks,
        puller: Puller,
        put: PutReport,
        parallel: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Uniform = random.uniform,
    ) -> None:
        self._prechecks = prechecks
        self._puller = puller
        self._put = put
        self._slots = asyncio.Semaphore(parallel)
        self._sleep = sleep
        self._uniform = uniform

    async def run(self, live: LiveTask) -> Report:
        try:
            async with asyncio.timeout_at(live.deadline) as scope:
                live.scope = scope
                async with self._slots:
                    return await self._check_and_pull(live)
        except Exception as error:
            if isinstance(error, TimeoutError) and scope.expired():
                return _timed_out(live)
            log.exception("task failed unexpectedly", job=live.task.job)
            return _ended(live, f"internal error of the agent: {type(error).__name__}")
        finally:
            live.scope = None

    async def _check_and_pull(self, live: LiveTask) -> Report:
        extras = live.task.extras
        if live.task.operation is Operation.CHECK and not live.checked:
            live.enter(Phase.CHECKING)
            reason = await self._check(live)
            if reason:
                log.warning("checks failed", job=live.task.job, reason=reason)
                return check_report(reason=reason, extras=extras)
            report = check_report(extras=extras)
            if live.task.checks_only:
                return report
            live.checked = True  # from here on the final report is one of pulls, also when time is up during the commit
            await to_the_end(self._put(live.task, report, TaskState.PULLING), name=f"commit checks {live.task.job}")
        live.checked = True
        live.enter(Phase.PULLING)
        return pull_report(reasons=await self._puller.pull(live), extras=extras)

    async def _check(self, live: LiveTask) -> str:
        while True:
            try:
                return await self._prechecks.run(live.task.template.checkItems)
            except RuntimeUnavailable as error:
                delay = runtime_delay(live, self._uniform)
                if delay is None:
                    return str(error)
                log.warning("runtime away", job=live.task.job, reason=str(error), retry_in=round(delay, 1))
                await self._sleep(delay)
            except ImageRuntimeError as error:
                return str(error)


def _timed_out(live: LiveTask) -> Report:
    what = "waited behind other tasks" if live.phase is Phase.QUEUED else "the checks did not end"
    if live.phase is Phase.CHECKING and live.checked:
        what = "the checks went well, and no pull had begun"
    return _ended(live, f"{TIME_IS_UP}: {what}")


def _ended(live: LiveTask, reason: str) -> Report:
    """The final report of a task that was cut short: images that are here count."""
    extras = live.task.extras
    if live.phase is Phase.PULLING:
        return pull_report(
            reasons={image.image: _unfinished(image, reason) for image in live.images.values()}, extras=extras
        )
    if live.task.operation is Operation.PULL or live.checked:
        return pull_report(reasons=dict.fromkeys(live.images, reason), extras=extras)
    return check_report(reason=reason, extras=extras)


def _unfinished(image: ImageProgress, reason: str) -> str:
    if image.state is ImageState.SUCCESSFUL:
        return ""
    if image.state is ImageState.FAILED:
        return image.reason
    if not reason.startswith(TIME_IS_UP):
        return reason
    if image.state is ImageState.WAITING:
        return f"{TIME_IS_UP} before another try: {image.reason}"
    if image.total_bytes:
        return f"{TIME_IS_UP}: {image.done_bytes / _MIB:.1f} of {image.total_bytes / _MIB:.1f} MiB were here"
    return f"{TIME_IS_UP}: still pulling" if image.state is ImageState.PULLING else f"{TIME_IS_UP}: not begun"
