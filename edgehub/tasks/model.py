"""A node task as this node sees it, and the reports that it may end in. Pure: no I/O, no clock of its own.

A hub of ours names job, attempt and time left in the extras of its dispatch. A CloudCore sends the job's template
alone; then the key is the job's name with the hash of what was asked, and asking again means doing it again. Its older
messages ask for checks and pulls one by one (`shared.prepull`); such a task ends with the one that was asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from shared import prepull, wire
from shared.wire import Dispatch, ImageResult, Operation, PullTemplate, Report, ReportExtras

MAX_REASON = 1024
_REPORT_BUDGET = wire.MAX_FRAME_BYTES // 2 - 8192
"""For ``extend``: it is JSON text in JSON text, so at worst the frame escapes each of its characters."""


class Dialect(StrEnum):
    """The version of KubeEdge's task messages in which the hub asked, and wants its answer."""

    V1ALPHA1 = "v1alpha1"
    V1ALPHA2 = "v1alpha2"


class TaskState(StrEnum):
    """In the journal. A task that is not finished and not at work waits for the hub to ask again."""

    ACCEPTED = "accepted"
    PULLING = "pulling"
    """The checks went well, and the hub has been told or will be."""
    FINISHED = "finished"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What was asked. No credentials: those live in memory alone, beside it."""

    key: str
    job: str
    node: str
    job_uid: str
    """Empty when a CloudCore asks."""
    attempt: int
    operation: Operation
    template: PullTemplate
    dialect: Dialect = Dialect.V1ALPHA2

    @property
    def checks_only(self) -> bool:
        """The pulls are another task, which the hub asks for when it has this one's report."""
        return self.dialect is Dialect.V1ALPHA1 and self.operation is Operation.CHECK

    @property
    def tracked(self) -> bool:
        """The hub numbers its attempts, so a repeated question is known as such."""
        return bool(self.job_uid)

    @property
    def resource(self) -> str:
        """That its reports go under."""
        if self.dialect is Dialect.V1ALPHA1:
            return prepull.resource_up(self.job, self.node)
        return wire.task_resource(self.job, self.node)

    @property
    def extras(self) -> ReportExtras | None:
        return ReportExtras(job_uid=self.job_uid, attempt=self.attempt) if self.tracked else None

    @property
    def images(self) -> tuple[str, ...]:
        """Each image once, in the order of the template."""
        return () if self.checks_only else tuple(dict.fromkeys(self.template.images))


def task_of(
    *, job: str, node: str, operation: Operation, dispatch: Dispatch, dialect: Dialect = Dialect.V1ALPHA2
) -> Task:
    extras = dispatch.task
    if extras is not None:
        key, uid, attempt = extras.job_uid, extras.job_uid, extras.attempt
    else:
        asked = [dialect, operation, dispatch.imagePrePullTemplate.model_dump(mode="json")]
        content = json.dumps(asked, sort_keys=True)
        key, uid, attempt = f"{job}/{hashlib.sha256(content.encode()).hexdigest()[:32]}", "", 0
    return Task(
        key=key,
        job=job,
        node=node,
        job_uid=uid,
        attempt=attempt,
        operation=operation,
        template=dispatch.imagePrePullTemplate,
        dialect=dialect,
    )


def _report(action: Operation, ok: bool, reason: str, extras: ReportExtras | None, extend: str = "") -> Report:
    return Report(
        action=action.value,
        succ=ok,
        finishTime=wire.rfc3339(datetime.now(UTC)),
        reason=shorten(reason, 4096),
        extend=extend,
        task=extras,
    )


def init_report() -> Report:
    """A sign of life, before the older messages ask for anything."""
    return Report(action=prepull.State.INIT, succ=True, finishTime=wire.rfc3339(datetime.now(UTC)))


def check_report(*, reason: str = "", extras: ReportExtras | None) -> Report:
    """Of the checks; without a reason they went well."""
    return _report(Operation.CHECK, not reason, reason, extras)


def pull_report(*, reasons: Mapping[str, str], extras: ReportExtras | None) -> Report:
    """Of the pulls. ``reasons`` has every image; an empty text is success."""
    failed = {image: reason for image, reason in reasons.items() if reason}
    overall = ""
    if failed:
        image, reason = next(iter(failed.items()))
        overall = f"{len(failed)} of {len(reasons)} images failed: {image}: {shorten(reason, MAX_REASON)}"
    return _report(Operation.PULL, not failed, overall, extras, _extend(reasons))


def _extend(reasons: Mapping[str, str]) -> str:
    """The results by image, with reasons as long as one frame allows."""
    for limit in (MAX_REASON, 256, 64, 0):
        text = "[" + ",".join(_result(image, reason, limit) for image, reason in reasons.items()) + "]"
        if len(text.encode()) <= _REPORT_BUDGET:
            return text
    return ""


def _result(image: str, reason: str, limit: int) -> str:
    entry = ImageResult(image=image, status="False" if reason else "True", reason=shorten(reason, limit))
    return entry.model_dump_json()


def shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(0, limit - 3)] + "..."[:limit]
