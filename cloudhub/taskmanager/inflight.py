"""What each node has been given and has not finished, and what waits until it has less to do. In memory; rebuilt from
the store at a start.

It answers three questions without a query: may this node have one more task; was this task sent on the node's present
session already; whose turn is next on a node that has finished something.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

from cloudhub.store.records import LiveTask, Outcome
from cloudhub.taskmanager.lifecycle import TaskState

_UNSENT = -1
"""Given to the node, but on no session that lives."""


class NodeTasks:
    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._tasks: dict[str, dict[str, tuple[int, int]]] = {}
        """By node and job: the serial of the session on which it was sent last, and as which attempt."""
        self._parked: dict[str, set[str]] = {}
        """By node: jobs whose task waits for it to have less to do."""
        self._freed: set[str] = set()
        """Nodes with parked tasks that may have room now."""
        self._resting: dict[str, float] = {}
        """Nodes whose outbound queue was full, and until when they are left alone."""
        self.is_known = False
        """The store was read; before, a node may have tasks that are not here."""

    def reset(self, tasks: Iterable[LiveTask]) -> list[tuple[str, str]]:
        """What is in flight, from the store. What was known to be sent stays known. Returns node and job of what was
        sent and is in flight no more."""
        self.is_known = True
        before, self._tasks = self._tasks, {}
        for task in tasks:
            serial, _ = before.get(task.node, {}).get(task.job_uid, (_UNSENT, 0))
            self.add(task.node, task.job_uid, serial, task.attempt)
        self._freed.update(self._parked)
        return [
            (node, uid)
            for node, sent in before.items()
            for uid, (serial, _) in sent.items()
            if serial != _UNSENT and (node, uid) not in self
        ]

    def add(self, node: str, uid: str, serial: int = _UNSENT, attempt: int = 0) -> None:
        self._tasks.setdefault(node, {})[uid] = serial, attempt

    def discard(self, node: str, uid: str) -> None:
        tasks = self._tasks.get(node)
        if tasks is not None and tasks.pop(uid, None) is not None:
            if not tasks:
                del self._tasks[node]
            self.look_again(node)

    def follow(self, outcome: Outcome) -> None:
        """A change that was committed, or refused."""
        node, uid = outcome.change.node, outcome.change.job_uid
        if outcome.after is None or not outcome.after.in_flight:
            self.discard(node, uid)
        if outcome.applied and outcome.after is TaskState.WAITING and outcome.deadline is None:
            self._parked.setdefault(node, set()).add(uid)
            self.look_again(node)

    def jobs_at(self, node: str) -> list[str]:
        """The uids of the jobs that were given to this node and are not finished there."""
        return list(self._tasks.get(node, ()))

    def __contains__(self, task: tuple[str, str]) -> bool:
        """Whether this job was given to this node, and is not finished there."""
        node, uid = task
        return uid in self._tasks.get(node, ())

    def is_unsent(self, node: str, uid: str, serial: int) -> bool:
        """Whether the task is in flight and was not sent on this very session."""
        return self._tasks.get(node, {}).get(uid, (serial, 0))[0] != serial

    def attempt_on(self, node: str, uid: str, serial: int) -> int | None:
        """As which attempt the task was sent on this very session; None when it was not, or is in flight no more."""
        sent_on, attempt = self._tasks.get(node, {}).get(uid, (_UNSENT, 0))
        return attempt if sent_on == serial else None

    def busy(self, node: str) -> bool:
        return node in self._resting or len(self._tasks.get(node, ())) >= self._limit

    def rest(self, node: str, *, until: float) -> None:
        self._resting[node] = until

    def cool(self, now: float) -> None:
        """Time has passed."""
        for node in [node for node, until in self._resting.items() if until <= now]:
            del self._resting[node]
            self.look_again(node)

    def look_again(self, node: str) -> None:
        if node in self._parked:
            self._freed.add(node)

    def take_freed(self, may_go: Callable[[str, str], bool] = lambda node, uid: True) -> list[tuple[str, str]]:
        """Nodes and jobs whose parked task may have its turn again; each is given out once. Those that may not go are
        looked at again when the node has finished something."""
        taken: list[tuple[str, str]] = []
        for node in self._freed:
            if self.busy(node):
                continue
            parked = self._parked[node]
            ready = [uid for uid in sorted(parked, key=_spread(node)) if may_go(node, uid)]
            for uid in ready[: self._limit - len(self._tasks.get(node, ()))]:
                parked.discard(uid)
                taken.append((node, uid))
            if not parked:
                del self._parked[node]
        self._freed.clear()
        return taken


def _spread(node: str) -> Callable[[str], int]:
    """An order of jobs that differs from node to node, so that no job is the last on all of them."""
    return lambda uid: zlib.crc32(f"{node}/{uid}".encode())
