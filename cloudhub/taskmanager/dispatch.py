"""The messages to nodes: what to do, and to stop. Pure.

What goes beyond KubeEdge's keys is only sent to a node that said it understands it (`SessionInfo.features`). A
credential goes to such nodes alone, and only those of the job's own images; a real EdgeCore is told the Secret's
name, as KubeEdge tells it.
"""

from __future__ import annotations

from typing import Any, Final

from cloudhub.taskmanager.lifecycle import TaskState
from cloudhub.taskmanager.live import LiveJob
from cloudhub.taskmanager.ports import SessionInfo
from shared.wire import Cancel, Feature, Group, Message, Operation, Source, new_message, task_resource


def dispatch_message(
    live: LiveJob, *, session: SessionInfo, state: TaskState, attempt: int, seconds_left: float
) -> Message:
    """``state`` is what the task is at: who has passed the check is not asked to check again."""
    return new_message(
        source=Source.TASK_MANAGER,
        group=Group.TASK_MANAGER,
        resource=task_resource(live.job.name, session.node),
        operation=Operation.PULL if state is TaskState.PULLING else Operation.CHECK,
        content=_content(live, session, attempt, seconds_left),
    )


def _content(live: LiveJob, session: SessionInfo, attempt: int, seconds_left: float) -> dict[str, Any]:
    if not session.features:
        return dict(live.stock_template)
    task: dict[str, Any] = {
        "job_uid": live.job.uid,
        "attempt": attempt,
        "timeout_seconds": max(1, int(seconds_left)),
    }
    if Feature.CREDENTIALS in session.features and live.credentials:
        task["credentials"] = live.credentials
    return {**live.template, "task": task}


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
