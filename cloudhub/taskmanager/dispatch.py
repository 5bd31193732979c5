"""The messages to nodes: what to do, and to stop. Pure.

Our own agents said what they understand beyond KubeEdge's keys (`SessionInfo.features`), and are sent no more than
that; a credential goes to such nodes alone, and only those of the job's own images. Stock nodes are sent what a
CloudCore sends, in the dialect that they understand, and the Secret's name if the images of the message need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from cloudhub.taskmanager.dialects import Dialect
from cloudhub.taskmanager.lifecycle import TaskState
from cloudhub.taskmanager.live import LiveJob
from cloudhub.taskmanager.ports import SessionInfo
from shared import prepull
from shared.wire import Cancel, Feature, Group, Message, Operation, Source, new_message, task_resource

MAX_CONTENTS: Final = 16
"""Different things that stock nodes are asked for, kept for a job."""


def dispatch_message(
    live: LiveJob, *, session: SessionInfo, state: TaskState, attempt: int, seconds_left: float
) -> Message:
    """To an agent of ours. ``state`` is what the task is at: who has passed the check is not asked to check again."""
    task: dict[str, Any] = {
        "job_uid": live.job.uid,
        "attempt": attempt,
        "timeout_seconds": max(1, int(seconds_left)),
    }
    if Feature.CREDENTIALS in session.features and live.credentials:
        task["credentials"] = live.credentials
    return new_message(
        source=Source.TASK_MANAGER,
        group=Group.TASK_MANAGER,
        resource=task_resource(live.job.name, session.node),
        operation=Operation.PULL if state is TaskState.PULLING else Operation.CHECK,
        content={**live.template, "task": task},
    )


def stock_message(
    live: LiveJob,
    *,
    node: str,
    dialect: Dialect,
    state: TaskState,
    images: Sequence[str],
    secret: str,
    sound_out: bool = False,
) -> Message:
    """To an EdgeCore, to check, or to pull these images. ``sound_out``: a check that checks nothing comes before the
    pulls, so that the node says at once that it has understood."""
    if dialect is Dialect.V1ALPHA1:
        return _v1alpha1(live, node, state, images, secret)
    check = state is not TaskState.PULLING
    return new_message(
        source=Source.TASK_MANAGER,
        group=Group.TASK_MANAGER,
        resource=task_resource(live.job.name, node),
        operation=Operation.CHECK if check or sound_out else Operation.PULL,
        content=_stock_content(live, tuple(images), secret, with_checks=check or not sound_out),
    )


def _stock_content(live: LiveJob, images: tuple[str, ...], secret: str, *, with_checks: bool) -> Mapping[str, Any]:
    """One for all nodes that are asked for the same: nobody changes it."""
    key = images, secret, with_checks
    content = live.contents.get(key)
    if content is None:
        template = {
            "images": list(images),
            "checkItems": list(live.spec.check_items) if with_checks else [],
            "imageSecrets": secret,
            "retryTimes": live.spec.retry_times,
        }
        if len(live.contents) >= MAX_CONTENTS:
            # What is missing after the reports of some of a part's images may be anything.
            live.contents.clear()
        content = live.contents[key] = {"imagePrePullTemplate": template}
    return content


def _v1alpha1(live: LiveJob, node: str, state: TaskState, images: Sequence[str], secret: str) -> Message:
    job, items = live.job.name, live.spec.check_items
    if state is TaskState.PULLING:
        content = prepull.pull_content(
            job, node, images=images, secret=secret, retry_times=live.spec.retry_times, check_items=items
        )
    else:
        content = prepull.check_content(job, items)
    return new_message(
        source=Source.TASK_MANAGER,
        group=Group.TASK_MANAGER,
        resource=prepull.resource_down(job, node),
        operation=prepull.OPERATION,
        content=content,
    )


ANY_ATTEMPT: Final = (1 << 31) - 1
"""Of a cancel when it is not known which attempt a node is at: it stops that and all before."""


def cancel_message(*, job: str, node: str, uid: str, attempt: int, reason: str) -> Message:
    """For nodes with `Feature.CANCEL` only."""
    return new_message(
        source=Source.TASK_MANAGER,
        group=Group.TASK_MANAGER,
        resource=task_resource(job, node),
        operation=Operation.CANCEL,
        content=Cancel(job_uid=uid, attempt=attempt, reason=reason).model_dump(),
    )
