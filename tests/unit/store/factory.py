"""Jobs and changes for tests of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import text

from cloudhub.store.engine import open_database
from cloudhub.store.queue import TaskQueue
from cloudhub.store.records import NewJob, NewTask, TaskChange
from cloudhub.taskmanager.lifecycle import TaskEvent

DISPATCHES = (TaskEvent.DISPATCHED, TaskEvent.DISPATCHED_TO_PULL)


@asynccontextmanager
async def open_queue(path: Path) -> AsyncIterator[TaskQueue]:
    queue = TaskQueue(engine=await open_database(path, "queue"))
    try:
        yield queue
    finally:
        await queue.close()


def new_job(uid: str = "u1", *, nodes: int | list[str] = 3, **values: Any) -> NewJob:
    names = [f"n{number}" for number in range(nodes)] if isinstance(nodes, int) else nodes
    defaults: dict[str, Any] = {
        "name": f"job-{uid}",
        "generation": 1,
        "spec": "{}",
        "concurrency": 1000,
        "failure_tolerate": "0.1",
        "timeout_seconds": 300,
        "tasks": [NewTask(name) for name in names],
        "at": 1.0,
    }
    return NewJob(uid=uid, **{**defaults, **values})


def change(node: str, event: TaskEvent, *, uid: str = "u1", at: float = 2.0, **values: Any) -> TaskChange:
    if event in DISPATCHES:
        values.setdefault("deadline", at + 300)
    return TaskChange(job_uid=uid, node=node, event=event, at=at, **values)


async def rows(queue: TaskQueue, columns: str, uid: str = "u1") -> dict[str, Any]:
    """By node, from the table itself."""
    async with queue._engine.connect() as connection:
        found = await connection.execute(
            text(f"SELECT node, {columns} FROM node_tasks WHERE job_uid = :uid ORDER BY position"),  # noqa: S608
            {"uid": uid},
        )
        return {row[0]: row[1] if len(row) == 2 else tuple(row[1:]) for row in found}
