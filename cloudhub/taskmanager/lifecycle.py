"""What may happen to a node task and to a job: states, events, the transition table. Pure: no I/O, no clock.

The problem: reports come late, twice, from an earlier attempt, or not at all; dispatches fail; nodes come and go; and
all of it in any order. So nothing sets a state: everything is an event, and `TRANSITIONS` alone says which event moves
which state where. An event that the table does not have for a state changes nothing and has a reason (`Refusal`).

Guarantees, each with a property test: no sequence of events leads to a state that is not in the table; a finished task
stays as it is; a job's `Tally` always adds up to its total; a job's own state never goes backwards.

States here are finer than the API's: `PENDING`, `WAITING` are both ``Init`` there, and `NOT_STARTED`, the end of a task
that was never tried because too many others had failed, is a ``Failed`` whose reason says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from shared.jobs import Action, Event, State


class TaskState(StrEnum):
    PENDING = "Pending"
    """Its turn has not come."""
    WAITING = "Waiting"
    """Its turn came, but its node is not connected, or busy with other jobs. Takes no place of the concurrency."""
    CHECKING = "Checking"
    PULLING = "Pulling"
    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    NOT_STARTED = "NotStarted"

    @property
    def in_flight(self) -> bool:
        """Given to its node; counts against the job's concurrency."""
        return self in _IN_FLIGHT

    @property
    def finished(self) -> bool:
        return self in FINISHED


_IN_FLIGHT: Final = frozenset({TaskState.CHECKING, TaskState.PULLING})
FINISHED: Final = frozenset({TaskState.SUCCESSFUL, TaskState.FAILED, TaskState.NOT_STARTED})


class TaskEvent(StrEnum):
    DISPATCHED = "Dispatched"
    """Given to its node, to check and then pull."""
    DISPATCHED_TO_PULL = "DispatchedToPull"
    """Given to its node with no checks asked for."""
    SEND_REFUSED = "SendRefused"
    """It could not be sent after all."""
    POSTPONED = "Postponed"
    """Its turn came, but the node is not connected or has enough to do."""
    RETURNED = "Returned"
    """What it waited for is there: its turn comes again."""
    CHECK_SUCCEEDED = "CheckSucceeded"
    CHECK_FAILED = "CheckFailed"
    PART_PULLED = "PartPulled"
    """Some of its images are reported, whether they are there or not; the node is asked for the others now."""
    PULL_SUCCEEDED = "PullSucceeded"
    PULL_FAILED = "PullFailed"
    TIMED_OUT = "TimedOut"
    STOPPED = "Stopped"
    """The job is given up: what has not begun will not."""


DISPATCHES: Final = frozenset({TaskEvent.DISPATCHED, TaskEvent.DISPATCHED_TO_PULL})


class Refusal(StrEnum):
    """Why an event changed nothing. The values are those of the label ``reason`` of the metric of refusals."""

    UNKNOWN_TASK = "unknown_task"
    """No such job or no such node in it: deleted, made again under the same name, or never given to this node."""
    OTHER_ATTEMPT = "other_attempt"
    FINISHED = "finished"
    """Late, or a repetition of the last report."""
    NO_EFFECT = "no_effect"
    """A repetition of an earlier report, or one for a task that is not in flight."""
    NO_ROOM = "no_room"
    """Of a dispatch: as many are in flight as the job's concurrency allows by now, or it is given up."""


_S, _E = TaskState, TaskEvent
TRANSITIONS: Final[Mapping[tuple[TaskState, TaskEvent], TaskState]] = {
    (_S.PENDING, _E.DISPATCHED): _S.CHECKING,
    (_S.PENDING, _E.DISPATCHED_TO_PULL): _S.PULLING,
    (_S.PENDING, _E.POSTPONED): _S.WAITING,
    (_S.PENDING, _E.STOPPED): _S.NOT_STARTED,
    (_S.WAITING, _E.RETURNED): _S.PENDING,
    (_S.WAITING, _E.TIMED_OUT): _S.FAILED,
    (_S.WAITING, _E.STOPPED): _S.NOT_STARTED,
    (_S.CHECKING, _E.SEND_REFUSED): _S.PENDING,
    (_S.CHECKING, _E.CHECK_SUCCEEDED): _S.PULLING,
    (_S.CHECKING, _E.CHECK_FAILED): _S.FAILED,
    # EdgeCore keeps no journal: its report of the check may be lost, and that of the pull is then the first to come.
    (_S.CHECKING, _E.PART_PULLED): _S.PULLING,
    (_S.CHECKING, _E.PULL_SUCCEEDED): _S.SUCCESSFUL,
    (_S.CHECKING, _E.PULL_FAILED): _S.FAILED,
    (_S.CHECKING, _E.TIMED_OUT): _S.FAILED,
    (_S.PULLING, _E.SEND_REFUSED): _S.PENDING,
    (_S.PULLING, _E.PART_PULLED): _S.PULLING,
    (_S.PULLING, _E.PULL_SUCCEEDED): _S.SUCCESSFUL,
    (_S.PULLING, _E.PULL_FAILED): _S.FAILED,
    (_S.PULLING, _E.TIMED_OUT): _S.FAILED,
}


def advance(state: TaskState, event: TaskEvent) -> TaskState | Refusal:
    """The state after the event, or why there is none."""
    after = TRANSITIONS.get((state, event))
    if after is not None:
        return after
    return Refusal.FINISHED if state in FINISHED else Refusal.NO_EFFECT


# --- How a task looks in the job's status -----------------------------------------------------------------------

API_STATE: Final[Mapping[TaskState, State]] = {
    TaskState.PENDING: State.INIT,
    TaskState.WAITING: State.INIT,
    TaskState.CHECKING: State.CHECKING,
    TaskState.PULLING: State.PULLING,
    TaskState.SUCCESSFUL: State.SUCCESSFUL,
    TaskState.FAILED: State.FAILED,
    TaskState.NOT_STARTED: State.FAILED,
}

Outward = tuple[Event | None, Action | None]

OUTWARD: Final[Mapping[TaskEvent, Outward]] = {
    # As KubeEdge does: `event` and `action` are what led to the state, not what goes on in it.
    TaskEvent.DISPATCHED: (Event.INIT, Action.SUCCESS),
    TaskEvent.DISPATCHED_TO_PULL: (Event.INIT, Action.SUCCESS),
    TaskEvent.SEND_REFUSED: (None, None),
    TaskEvent.POSTPONED: (None, None),
    TaskEvent.RETURNED: (None, None),
    TaskEvent.CHECK_SUCCEEDED: (Event.CHECK, Action.SUCCESS),
    TaskEvent.CHECK_FAILED: (Event.CHECK, Action.FAILURE),
    # Still on the way to a pull's end, and so it looks like one that has passed its check.
    TaskEvent.PART_PULLED: (Event.CHECK, Action.SUCCESS),
    TaskEvent.PULL_SUCCEEDED: (Event.PULL, Action.SUCCESS),
    TaskEvent.PULL_FAILED: (Event.PULL, Action.FAILURE),
    TaskEvent.TIMED_OUT: (Event.TIME_OUT, Action.FAILURE),
    TaskEvent.STOPPED: (Event.INIT, Action.FAILURE),
}


# --- Jobs -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """How many node tasks of a job are in each state."""

    pending: int = 0
    waiting: int = 0
    checking: int = 0
    pulling: int = 0
    successful: int = 0
    failed: int = 0
    not_started: int = 0

    @classmethod
    def of(cls, states: Iterable[TaskState]) -> Tally:
        tally = cls()
        for state in states:
            tally.add(state, 1)
        return tally

    def add(self, state: TaskState, count: int) -> None:
        field = _FIELDS[state]
        setattr(self, field, getattr(self, field) + count)

    def of_state(self, state: TaskState) -> int:
        count: int = getattr(self, _FIELDS[state])
        return count

    def move(self, before: TaskState, after: TaskState, count: int = 1) -> None:
        self.add(before, -count)
        self.add(after, count)

    @property
    def total(self) -> int:
        return self.not_begun + self.in_flight + self.successful + self.failed + self.not_started

    @property
    def not_begun(self) -> int:
        return self.pending + self.waiting

    @property
    def in_flight(self) -> int:
        return self.checking + self.pulling


_FIELDS: Final = {
    TaskState.PENDING: "pending",
    TaskState.WAITING: "waiting",
    TaskState.CHECKING: "checking",
    TaskState.PULLING: "pulling",
    TaskState.SUCCESSFUL: "successful",
    TaskState.FAILED: "failed",
    TaskState.NOT_STARTED: "not_started",
}


class Verdict(StrEnum):
    GO_ON = "GoOn"
    SUCCESSFUL = "Successful"
    FAILED = "Failed"


def too_many_failed(failed: int, total: int, tolerate: str) -> bool:
    """failed / total > tolerate, exactly: no binary fraction turns 1 of 10 into more than "0.1"."""
    return failed > 0 and Decimal(failed) > Decimal(tolerate) * total


def judge(tally: Tally, *, stopped: bool) -> Verdict:
    """What becomes of a job of which nobody said that it has ended. One that was stopped can only end as failed, after
    what is in flight has ended."""
    if tally.in_flight or (tally.not_begun and not stopped):
        return Verdict.GO_ON
    return Verdict.FAILED if stopped else Verdict.SUCCESSFUL


def failure_text(failed: int, total: int, tolerate: str) -> str:
    return f"{failed} of {total} nodes failed, more than failureTolerate {tolerate}"


_PROGRESS: Final = (State.INIT, State.CHECKING, State.PULLING)


def progress(state: State, tally: Tally) -> State:
    """The state of a job that goes on: as far as its farthest task, and never back."""
    if state.finished:
        return state
    reached = State.INIT
    if tally.checking or tally.failed:
        reached = State.CHECKING
    if tally.pulling or tally.successful:
        reached = State.PULLING
    return max(state, reached, key=_PROGRESS.index)


JOB_OUTWARD: Final[Mapping[State, Outward]] = {
    State.INIT: (Event.INIT, None),
    State.CHECKING: (Event.INIT, Action.SUCCESS),
    State.PULLING: (Event.CHECK, Action.SUCCESS),
    State.SUCCESSFUL: (Event.PULL, Action.SUCCESS),
}
"""A failed job bears the event of the failure that decided it."""
