"""The lifecycle's promises, over every sequence of events."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudhub.taskmanager.lifecycle import (
    API_STATE,
    FINISHED,
    OUTWARD,
    TRANSITIONS,
    Refusal,
    Tally,
    TaskEvent,
    TaskState,
    Verdict,
    advance,
    failure_text,
    judge,
    progress,
    too_many_failed,
)
from shared.jobs import State

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy with other tests."""
EVENTS = st.sampled_from(list(TaskEvent))
STATES = st.sampled_from(list(TaskState))


@UNHURRIED
@given(st.lists(EVENTS, max_size=40))
def test_no_sequence_of_events_leads_out_of_the_table(events: list[TaskEvent]) -> None:
    state = TaskState.PENDING
    for event in events:
        after = advance(state, event)
        if isinstance(after, Refusal):
            assert (state, event) not in TRANSITIONS
        else:
            assert TRANSITIONS[state, event] is after
            assert after in TaskState
            state = after


@UNHURRIED
@given(st.lists(EVENTS, max_size=40))
def test_what_is_finished_stays_as_it_is(events: list[TaskEvent]) -> None:
    state = TaskState.PENDING
    finished: TaskState | None = None
    for event in events:
        after = advance(state, event)
        if finished is not None:
            assert after is Refusal.FINISHED
        if isinstance(after, TaskState):
            state = after
        if state.finished:
            finished = finished or state
            assert state is finished


@UNHURRIED
@given(STATES, EVENTS)
def test_a_repeated_event_changes_nothing_more(state: TaskState, event: TaskEvent) -> None:
    first = advance(state, event)
    if isinstance(first, TaskState):
        # A part's report looks the same each time; the store tells a repetition by its images.
        assert isinstance(advance(first, event), Refusal) or event is TaskEvent.PART_PULLED


def test_every_state_can_be_reached_and_every_unfinished_one_can_end() -> None:
    reached = {TaskState.PENDING}
    while True:
        more = {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached
        if not more:
            break
        reached |= more
    assert reached == set(TaskState)
    for start in set(TaskState) - FINISHED:
        ends = {start}
        for _ in TaskState:
            ends |= {after for (before, _), after in TRANSITIONS.items() if before in ends}
        assert ends & FINISHED


def test_only_what_is_in_flight_can_be_reported_on() -> None:
    reports = (TaskEvent.CHECK_SUCCEEDED, TaskEvent.CHECK_FAILED, TaskEvent.PULL_SUCCEEDED, TaskEvent.PULL_FAILED)
    assert {before for before, event in TRANSITIONS if event in reports} == {TaskState.CHECKING, TaskState.PULLING}


def test_what_has_begun_cannot_be_marked_as_not_started() -> None:
    assert {before for before, event in TRANSITIONS if event is TaskEvent.STOPPED} == {
        TaskState.PENDING,
        TaskState.WAITING,
    }


def test_every_event_and_state_has_its_place_in_the_api() -> None:
    assert set(OUTWARD) == set(TaskEvent)
    assert set(API_STATE) == set(TaskState)
    assert {API_STATE[state].finished for state in FINISHED} == {True}
    assert not any(API_STATE[state].finished for state in set(TaskState) - FINISHED)


@UNHURRIED
@given(st.lists(st.tuples(st.integers(0, 9), EVENTS), max_size=120), st.integers(1, 10))
def test_counts_always_add_up(events: list[tuple[int, TaskEvent]], total: int) -> None:
    tasks = [TaskState.PENDING] * total
    tally = Tally.of(tasks)
    for which, event in events:
        before = tasks[which % total]
        after = advance(before, event)
        if isinstance(after, TaskState):
            tasks[which % total] = after
            tally.move(before, after)
        assert tally == Tally.of(tasks)
        assert tally.total == total
        assert all(tally.of_state(state) == tasks.count(state) for state in TaskState)
        assert tally.in_flight == sum(state.in_flight for state in tasks)


TOLERATIONS = st.decimals(0, 1, places=3).map(lambda value: format(value, "f"))


@UNHURRIED
@given(st.integers(0, 10_000), st.integers(1, 10_000), TOLERATIONS)
def test_tolerance_is_compared_exactly(failed: int, total: int, tolerate: str) -> None:
    assert too_many_failed(failed, total, tolerate) == (failed > 0 and Fraction(failed, total) > Fraction(tolerate))


@pytest.mark.parametrize(
    ("failed", "total", "tolerate", "too_many"),
    [
        (1, 10, "0.1", False),
        (2, 10, "0.1", True),
        (3, 10, "0.3", False),
        (1, 1, "1", False),
        (1, 1, "0", True),
        (0, 0, "0", False),
        (0, 5, "0", False),
        (1, 3, "0.333", True),
    ],
)
def test_as_many_failures_as_are_tolerated_are_not_too_many(
    failed: int, total: int, tolerate: str, too_many: bool
) -> None:
    assert too_many_failed(failed, total, tolerate) is too_many


@UNHURRIED
@given(st.lists(STATES, max_size=30), st.booleans())
def test_a_job_ends_when_and_only_when_nothing_of_it_can_still_happen(states: list[TaskState], stopped: bool) -> None:
    tally = Tally.of(states)
    verdict = judge(tally, stopped=stopped)
    unfinished = [state for state in states if not state.finished]
    if any(state.in_flight for state in unfinished) or (unfinished and not stopped):
        assert verdict is Verdict.GO_ON
    else:
        assert verdict is (Verdict.FAILED if stopped else Verdict.SUCCESSFUL)


@UNHURRIED
@given(st.lists(st.tuples(st.integers(0, 4), EVENTS), max_size=60))
def test_a_jobs_state_never_goes_back(events: list[tuple[int, TaskEvent]]) -> None:
    order = [State.INIT, State.CHECKING, State.PULLING]
    tasks, state = [TaskState.PENDING] * 5, State.INIT
    for which, event in events:
        after = advance(tasks[which], event)
        if isinstance(after, TaskState):
            tasks[which] = after
        following = progress(state, Tally.of(tasks))
        assert order.index(following) >= order.index(state)
        state = following


@pytest.mark.parametrize("state", [State.SUCCESSFUL, State.FAILED])
def test_a_job_that_has_ended_makes_no_progress(state: State) -> None:
    assert progress(state, Tally(pulling=3)) is state


def test_the_reason_is_in_the_words_of_the_design() -> None:
    assert failure_text(2, 10, "0.1") == "2 of 10 nodes failed, more than failureTolerate 0.1"
