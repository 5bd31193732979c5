"""The queue on a real file: transitions, what follows from them, and what cannot happen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from cloudhub.store import statements
from cloudhub.store.queue import TaskQueue
from cloudhub.store.records import Commit, NewTask
from cloudhub.store.transactions import LEAST_ALIKE
from cloudhub.taskmanager.lifecycle import Refusal, Tally, TaskEvent, TaskState, judge, too_many_failed
from shared.jobs import Action, Event, State
from tests.unit.store.factory import change, new_job, open_queue, rows

E, S = TaskEvent, TaskState


@pytest_asyncio.fixture
async def queue(tmp_path: Path) -> AsyncIterator[TaskQueue]:
    async with open_queue(tmp_path / "queue.db") as opened:
        yield opened


async def test_a_job_is_admitted_with_all_its_tasks(queue: TaskQueue) -> None:
    job = await queue.admit(new_job(nodes=1200, concurrency=7))
    assert (job.state, job.event, job.action, job.reason) == (State.INIT, Event.INIT, None, "")
    assert job.tally == Tally(pending=1200)
    assert await queue.job("u1") == job
    assert len(await rows(queue, "state")) == 1200
    assert (await queue.next_pending(["u1"], 3)) == {"u1": ["n0", "n1", "n2"]}
    assert await queue.specs(["u1"]) == {"u1": "{}"}


async def test_admitting_twice_changes_nothing(queue: TaskQueue) -> None:
    await queue.admit(new_job())
    await queue.apply([change("n0", E.DISPATCHED)])
    before = await queue.job("u1")
    assert await queue.admit(new_job(nodes=50, concurrency=99)) == before
    assert await rows(queue, "state") == {"n0": "Checking", "n1": "Pending", "n2": "Pending"}


async def test_another_job_of_the_same_name_replaces_what_the_first_left(queue: TaskQueue) -> None:
    commits: list[Commit] = []
    queue.on_commit = commits.append
    await queue.admit(new_job("u1", name="same"))
    await queue.apply([change("n1", E.DISPATCHED)])
    await queue.admit(new_job("u2", name="same", nodes=["x"]))
    assert await queue.job("u1") is None
    assert await rows(queue, "state") == {}
    (removed,) = commits[-1].removed
    assert (removed.uid, removed.name) == ("u1", "same")
    assert [(task.node, task.attempt) for task in removed.in_flight] == [("n1", 1)]
    assert set(commits[-1].jobs) == {"u2"}


async def test_refused_nodes_have_failed_from_the_start_and_count(queue: TaskQueue) -> None:
    tasks = [NewTask("good"), NewTask("bad", "no such node")]
    job = await queue.admit(new_job(tasks=tasks, failure_tolerate="0.5"))
    assert job.tally == Tally(pending=1, failed=1)
    assert await rows(queue, "state, event, action, reason") == {
        "good": ("Pending", None, None, ""),
        "bad": ("Failed", "Init", "Failure", "no such node"),
    }


async def test_too_many_refused_nodes_end_the_job_at_once(queue: TaskQueue) -> None:
    job = await queue.admit(new_job(tasks=[NewTask("good"), NewTask("bad", "no such node")]))
    assert (job.state, job.event, job.action) == (State.FAILED, Event.INIT, Action.FAILURE)
    assert job.reason == "1 of 2 nodes failed, more than failureTolerate 0.1"
    assert (await rows(queue, "state, reason"))["good"] == ("NotStarted", f"not started: {job.reason}")


async def test_a_refused_job_has_failed_and_has_no_tasks(queue: TaskQueue) -> None:
    job = await queue.admit(new_job(nodes=0, refusal="spec.x: wrong"))
    assert (job.state, job.event, job.action, job.reason) == (State.FAILED, Event.INIT, Action.FAILURE, "spec.x: wrong")
    assert job.finished_at == 1.0
    assert job.tally.total == 0
    assert await queue.unpublished() == [job]


async def test_the_way_of_a_task(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=1))
    for event, state, outward in [
        (E.DISPATCHED, S.CHECKING, (Event.INIT, Action.SUCCESS)),
        (E.CHECK_SUCCEEDED, S.PULLING, (Event.CHECK, Action.SUCCESS)),
        (E.PULL_SUCCEEDED, S.SUCCESSFUL, (Event.PULL, Action.SUCCESS)),
    ]:
        (outcome,) = await queue.apply([change("n0", event, images=[("i", True, "")])])
        assert (outcome.applied, outcome.after, outcome.attempt) == (True, state, 1)
        assert await rows(queue, "state, event, action") == {"n0": (state, *outward)}
    job = await queue.job("u1")
    assert job is not None
    assert (job.state, job.event, job.action, job.reason) == (State.SUCCESSFUL, Event.PULL, Action.SUCCESS, "")
    assert (job.finished_at, job.version) == (2.0, 5)


async def test_a_deadline_is_there_while_a_task_is_in_flight_and_only_then(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=1))
    await queue.apply([change("n0", E.DISPATCHED, deadline=77.0)])
    assert await rows(queue, "deadline") == {"n0": 77.0}
    await queue.apply([change("n0", E.CHECK_SUCCEEDED)])
    assert await rows(queue, "deadline") == {"n0": 77.0}
    await queue.apply([change("n0", E.PULL_FAILED, reason="no space")])
    assert await rows(queue, "deadline, reason") == {"n0": (None, "no space")}


async def test_each_dispatch_is_another_attempt(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=1))
    for attempt in (1, 2, 3):
        (outcome,) = await queue.apply([change("n0", E.DISPATCHED)])
        assert outcome.attempt == attempt
        await queue.apply([change("n0", E.SEND_REFUSED)])
    assert await rows(queue, "state, attempt, deadline") == {"n0": ("Pending", 3, None)}


@pytest.mark.parametrize(
    ("events", "late", "refusal"),
    [
        ([], change("nobody", E.PULL_SUCCEEDED), Refusal.UNKNOWN_TASK),
        ([], change("n0", E.PULL_SUCCEEDED, uid="other"), Refusal.UNKNOWN_TASK),
        ([], change("n0", E.PULL_SUCCEEDED), Refusal.NO_EFFECT),
        ([E.DISPATCHED], change("n0", E.PULL_SUCCEEDED, attempt=2), Refusal.OTHER_ATTEMPT),
        ([E.DISPATCHED, E.CHECK_SUCCEEDED], change("n0", E.CHECK_SUCCEEDED, attempt=1), Refusal.NO_EFFECT),
        ([E.DISPATCHED, E.CHECK_SUCCEEDED], change("n0", E.CHECK_FAILED, attempt=1), Refusal.NO_EFFECT),
        ([E.DISPATCHED, E.PULL_SUCCEEDED], change("n0", E.PULL_FAILED, attempt=1), Refusal.FINISHED),
        ([E.DISPATCHED, E.PULL_FAILED], change("n0", E.PULL_SUCCEEDED), Refusal.FINISHED),
    ],
)
async def test_what_does_not_fit_changes_nothing_and_is_not_an_error(
    queue: TaskQueue, events: list[TaskEvent], late: object, refusal: Refusal
) -> None:
    await queue.admit(new_job(nodes=2, failure_tolerate="1"))
    for event in events:
        await queue.apply([change("n0", event)])
    before = await rows(queue, "state, attempt, event, action, reason, deadline, changed_at"), await queue.job("u1")
    (outcome,) = await queue.apply([late])  # type: ignore[list-item]
    assert (outcome.applied, outcome.refusal) == (False, refusal)
    after = await rows(queue, "state, attempt, event, action, reason, deadline, changed_at"), await queue.job("u1")
    assert after == before


async def test_a_later_change_of_a_batch_sees_what_an_earlier_one_did(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=1))
    outcomes = await queue.apply(
        [change("n0", event) for event in (E.DISPATCHED, E.PULL_SUCCEEDED, E.PULL_FAILED, E.PULL_SUCCEEDED)]
    )
    assert [outcome.refusal for outcome in outcomes] == [None, None, Refusal.FINISHED, Refusal.FINISHED]


async def test_a_timeout_holds_only_against_the_deadline_that_has_passed(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=1))
    await queue.apply([change("n0", E.DISPATCHED, deadline=100.0)])
    (early,) = await queue.apply([change("n0", E.TIMED_OUT, at=99.0)])
    assert early.refusal is Refusal.NO_EFFECT
    assert [task.node for task in await queue.late(100.0)] == ["n0"]
    (late,) = await queue.apply([change("n0", E.TIMED_OUT, at=100.0)])
    assert late.after is S.FAILED
    assert await queue.late(1e9) == []
    job = await queue.job("u1")
    assert job is not None
    assert (job.state, job.event) == (State.FAILED, Event.TIME_OUT)


async def test_a_wait_counts_from_the_first_turn(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=1))
    for deadline in (50.0, 80.0):
        await queue.apply([change("n0", E.POSTPONED, deadline=deadline)])
        assert await rows(queue, "state, deadline") == {"n0": ("Waiting", 50.0)}
        await queue.apply([change("n0", E.RETURNED)])
        assert await rows(queue, "state, deadline") == {"n0": ("Pending", None)}
    await queue.apply([change("n0", E.POSTPONED)])
    assert [task.node for task in await queue.parked()] == ["n0"]


async def test_a_task_that_returns_is_before_those_whose_turn_has_not_come(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=4))
    await queue.apply([change("n1", E.POSTPONED, deadline=9.0), change("n0", E.DISPATCHED)])
    assert await queue.next_pending(["u1"], 9) == {"u1": ["n2", "n3"]}
    await queue.apply([change("n1", E.RETURNED)])
    assert await queue.next_pending(["u1"], 9) == {"u1": ["n1", "n2", "n3"]}


async def test_a_job_is_stopped_when_too_many_failed_and_ends_when_the_rest_has(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=10))
    await queue.apply([change(f"n{number}", E.DISPATCHED) for number in range(3)])
    await queue.apply([change("n0", E.CHECK_FAILED, reason="disk")])
    job = await queue.job("u1")
    assert job is not None
    assert not job.stopped
    await queue.apply([change("n1", E.PULL_FAILED, reason="denied")])
    job = await queue.job("u1")
    assert job is not None
    assert (job.stopped, job.state) == (True, State.CHECKING)
    assert job.reason == "2 of 10 nodes failed, more than failureTolerate 0.1"
    assert job.tally == Tally(checking=1, failed=2, not_started=7)
    assert await queue.next_pending(["u1"], 9) == {"u1": []}
    assert (await rows(queue, "state, reason"))["n9"] == ("NotStarted", f"not started: {job.reason}")
    await queue.apply([change("n2", E.PULL_SUCCEEDED)])
    job = await queue.job("u1")
    assert job is not None
    assert (job.state, job.event, job.action) == (State.FAILED, Event.PULL, Action.FAILURE)
    assert job.tally == Tally(successful=1, failed=2, not_started=7)


async def test_the_reason_counts_the_failures_that_came_after_the_stop_too(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=2, failure_tolerate="0"))
    await queue.apply([change("n0", E.DISPATCHED), change("n1", E.DISPATCHED)])
    await queue.apply([change("n0", E.PULL_FAILED)])
    await queue.apply([change("n1", E.PULL_FAILED)])
    job = await queue.job("u1")
    assert job is not None
    assert job.reason == "2 of 2 nodes failed, more than failureTolerate 0"


async def test_a_job_with_as_many_failures_as_are_tolerated_succeeds_and_says_so(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=10))
    await queue.apply([change(f"n{number}", E.DISPATCHED) for number in range(10)])
    await queue.apply([change(f"n{number}", E.PULL_SUCCEEDED if number else E.PULL_FAILED) for number in range(10)])
    job = await queue.job("u1")
    assert job is not None
    assert job.state is State.SUCCESSFUL
    assert job.reason == "1 of 10 nodes failed, not more than failureTolerate 0.1"


async def test_edits_hold_from_then_on(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=4, failure_tolerate="1"))
    await queue.apply([change("n0", E.DISPATCHED), change("n1", E.DISPATCHED), change("n0", E.PULL_FAILED)])
    await queue.edit("u1", generation=2, concurrency=3, failure_tolerate="1", timeout_seconds=7, at=3.0)
    job = await queue.job("u1")
    assert job is not None
    assert (job.generation, job.concurrency, job.timeout_seconds, job.stopped) == (2, 3, 7, False)
    await queue.edit("u1", generation=3, concurrency=3, failure_tolerate="0.1", timeout_seconds=7, at=4.0)
    job = await queue.job("u1")
    assert job is not None
    assert (job.stopped, job.reason) == (True, "1 of 4 nodes failed, more than failureTolerate 0.1")
    assert job.tally == Tally(checking=1, failed=1, not_started=2)


async def test_a_dispatch_beyond_what_the_job_allows_by_now_is_refused(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=6, concurrency=4, failure_tolerate="1"))
    # Decided upon while there was room; the edit came first.
    await queue.edit("u1", generation=2, concurrency=2, failure_tolerate="1", timeout_seconds=7, at=3.0)
    outcomes = await queue.apply([change(f"n{number}", E.DISPATCHED) for number in range(4)])
    assert [outcome.refusal for outcome in outcomes] == [None, None, Refusal.NO_ROOM, Refusal.NO_ROOM]
    ended, begun = await queue.apply([change("n0", E.PULL_SUCCEEDED), change("n2", E.DISPATCHED)])
    assert (ended.applied, begun.applied) == (True, True)


async def test_nothing_is_begun_after_one_failure_too_many_even_in_the_same_transaction(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=3))
    await queue.apply([change("n0", E.DISPATCHED)])
    failed, begun = await queue.apply([change("n0", E.PULL_FAILED), change("n1", E.DISPATCHED)])
    assert (failed.applied, begun.refusal) == (True, Refusal.NO_ROOM)
    assert await rows(queue, "state") == {"n0": "Failed", "n1": "NotStarted", "n2": "NotStarted"}


async def test_an_edit_of_a_job_that_has_ended_takes_over_its_generation_alone(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=0, refusal="wrong"))
    await queue.edit("u1", generation=2, concurrency=9, failure_tolerate="1", timeout_seconds=7, at=3.0)
    job = await queue.job("u1")
    assert job is not None
    assert (job.generation, job.concurrency, job.state, job.version) == (2, 1000, State.FAILED, 2)


async def test_a_stopped_job_keeps_the_reason_it_was_stopped_for(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=3))
    await queue.apply([change("n0", E.DISPATCHED)])
    await queue.stop("u1", reason="the Secret is gone", at=5.0)
    await queue.apply([change("n0", E.PULL_SUCCEEDED)])
    job = await queue.job("u1")
    assert job is not None
    assert (job.state, job.reason) == (State.FAILED, "the Secret is gone")
    assert job.tally == Tally(successful=1, not_started=2)


async def test_a_removed_job_leaves_no_rows(queue: TaskQueue) -> None:
    commits: list[Commit] = []
    queue.on_commit = commits.append
    await queue.admit(new_job())
    await queue.apply([change("n0", E.DISPATCHED), change("n1", E.POSTPONED, deadline=9.0)])
    await queue.remove("u1")
    await queue.remove("u1")
    assert await queue.names() == []
    assert await rows(queue, "state") == {}
    assert [[task.node for task in removed.in_flight] for commit in commits for removed in commit.removed] == [["n0"]]


async def test_what_is_published_is_a_version(queue: TaskQueue) -> None:
    job = await queue.admit(new_job(nodes=1))
    await queue.apply([change("n0", E.DISPATCHED)])
    await queue.mark_published("u1", job.version)
    (unpublished,) = await queue.unpublished()
    assert (unpublished.published, unpublished.version) == (2, 3)
    await queue.mark_published("u1", 3)
    assert await queue.unpublished() == []
    await queue.mark_published("u1", 2)
    await queue.mark_published("u1", 99)
    assert await queue.unpublished() == []


@pytest.mark.parametrize("first", ["survey", "change"])
async def test_a_survey_is_as_of_the_last_commit_that_was_told_of(queue: TaskQueue, first: str) -> None:
    await queue.admit(new_job(nodes=2))
    await queue.apply([change("n0", E.DISPATCHED), change("n1", E.DISPATCHED)])
    told: list[Commit] = []
    queue.on_commit = told.append

    async def survey() -> None:
        jobs, in_flight = await queue.survey(["u1"])
        heard = sum(len(commit.outcomes) for commit in told)
        assert jobs["u1"].tally.in_flight == len(in_flight) == 2 - heard

    async def report() -> None:
        await queue.apply([change("n0", E.CHECK_FAILED)])

    # Both are there when the writer looks: it would put them into one transaction.
    both = [survey(), report()] if first == "survey" else [report(), survey()]
    await asyncio.gather(*both, report())


async def test_live_tasks_are_found_by_node_and_by_job(queue: TaskQueue) -> None:
    await queue.admit(new_job("u1", nodes=["a", "b", "c"]))
    await queue.admit(new_job("u2", nodes=["a", "b"]))
    await queue.apply([change("a", E.DISPATCHED), change("b", E.POSTPONED, deadline=9.0)])
    await queue.apply([change("a", E.DISPATCHED_TO_PULL, uid="u2")])
    found = {(task.job_uid, task.node, task.state) for task in await queue.live_tasks_of(["a", "b", "x"])}
    assert found == {("u1", "a", S.CHECKING), ("u1", "b", S.WAITING), ("u2", "a", S.PULLING)}
    assert {(task.job_uid, task.node) for task in await queue.in_flight_of(["u1"])} == {("u1", "a")}


async def test_a_snapshot_shows_all_in_their_order_or_the_failed_first(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=6, failure_tolerate="1"))
    await queue.apply([change(f"n{number}", E.DISPATCHED) for number in (0, 3, 4, 5)])
    await queue.apply([change("n0", E.PULL_SUCCEEDED, images=[("i", True, "")]), change("n4", E.CHECK_SUCCEEDED)])
    await queue.apply([change("n5", E.PULL_FAILED, reason="why", images=[("i", False, "denied")])])

    async def nodes(most: int) -> list[str]:
        found = await queue.snapshot("u1", most)
        assert found is not None
        return [entry.node for entry in found[1]]

    assert await nodes(6) == ["n0", "n1", "n2", "n3", "n4", "n5"]
    assert await nodes(5) == ["n5", "n4", "n3", "n1", "n2"]
    assert await nodes(1) == ["n5"]
    assert await nodes(0) == []
    found = await queue.snapshot("u1", 1)
    assert found is not None
    (entry,) = found[1]
    assert (entry.state, entry.reason, list(entry.images)) == (S.FAILED, "why", [("i", False, "denied")])
    assert await queue.snapshot("nobody", 5) is None


async def test_counts_over_all_jobs(queue: TaskQueue) -> None:
    assert await queue.job_counts() == {}
    assert await queue.task_counts() == Tally()
    await queue.admit(new_job("u1", nodes=2))
    await queue.admit(new_job("u2", nodes=1))
    await queue.admit(new_job("u3", nodes=0, refusal="wrong"))
    await queue.apply([change("n0", E.DISPATCHED)])
    assert await queue.job_counts() == {"Checking": 1, "Init": 1, "Failed": 1}
    assert await queue.task_counts() == Tally(pending=2, checking=1)


async def test_texts_of_any_kind_come_back_as_they_were(queue: TaskQueue) -> None:
    nasty = 'quote " backslash \\ null-ish \\u0000 snowman ☃ emoji \U0001f433 line\nbreak %s :name ?'
    await queue.admit(new_job(nodes=[nasty], name=nasty, spec=f'["{nasty}"]'))
    (outcome,) = await queue.apply([change(nasty, E.DISPATCHED)])
    assert outcome.applied
    await queue.apply([change(nasty, E.PULL_FAILED, reason=nasty, images=[(nasty, False, nasty)])])
    found = await queue.snapshot("u1", 5)
    assert found is not None
    assert found[0].name == nasty
    assert (found[1][0].node, found[1][0].reason, list(found[1][0].images)) == (nasty, nasty, [(nasty, False, nasty)])


async def test_long_reasons_are_cut(queue: TaskQueue) -> None:
    await queue.admit(new_job(nodes=1))
    await queue.apply([change("n0", E.DISPATCHED)])
    await queue.apply([change("n0", E.PULL_FAILED, reason="x" * 100_000, images=[("i", False, "y" * 100_000)])])
    assert len((await rows(queue, "reason"))["n0"]) == 1024
    assert len((await rows(queue, "images"))["n0"]) < 1100


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE node_tasks SET state = 'Running'",
        "UPDATE node_tasks SET event = 'Sleep'",
        "UPDATE node_tasks SET state = 'Checking'",
        "UPDATE node_tasks SET deadline = 5",
        "UPDATE jobs SET state = 'Pending'",
        "UPDATE jobs SET pending = pending - 1",
        "UPDATE jobs SET pending = -1, failed = 4",
        "UPDATE jobs SET state = 'Successful'",
        "UPDATE jobs SET finished_at = 5",
        "UPDATE jobs SET published = 99",
        "UPDATE jobs SET concurrency = 0",
        "INSERT INTO node_tasks (job_uid, node, position, state, changed_at) VALUES ('u1', 'n0', 9, 'Pending', 1)",
        "INSERT INTO node_tasks (job_uid, node, position, state, changed_at) VALUES ('zz', 'n0', 9, 'Pending', 1)",
        "INSERT INTO jobs SELECT 'u2', * FROM (SELECT name, generation, spec FROM jobs)",
    ],
)
async def test_the_database_itself_refuses_what_must_not_be(queue: TaskQueue, statement: str) -> None:
    await queue.admit(new_job())
    async with queue._engine.connect() as connection:
        if statement.startswith("INSERT INTO jobs"):
            columns = "generation, spec, concurrency, failure_tolerate, timeout_seconds, state, created_at, changed_at"
            statement = f"INSERT INTO jobs (uid, name, {columns}) SELECT 'u2', name, {columns} FROM jobs"  # noqa: S608
        with pytest.raises(IntegrityError):
            await connection.execute(text(statement))


HOT = [
    "SELECT_JOBS",
    "SELECT_JOB_NAMED",
    "SELECT_UNFINISHED",
    "SELECT_TASKS",
    "UPDATE_TASKS",
    "UPDATE_JOBS",
    "UPDATE_PUBLISHED",
    "UPDATE_NOT_STARTED",
    "SELECT_LATE",
    "SELECT_PENDING",
    "SELECT_LIVE_OF_NODES",
    "SELECT_IN_FLIGHT",
    "SELECT_ENTRIES",
]


@pytest.mark.parametrize("name", HOT)
async def test_no_statement_of_the_way_of_a_job_scans_a_table(queue: TaskQueue, name: str) -> None:
    compiled = getattr(statements, name).compile(queue._engine.sync_engine)
    parameters = tuple("[]" if key in ("names", "rows") else 1 for key in compiled.positiontup)
    async with queue._engine.connect() as connection:
        plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", parameters)
        steps = [str(list(row)[3]) for row in plan]
    assert any("INDEX" in step for step in steps)
    assert not [step for step in steps if step.startswith(("SCAN node_tasks", "SCAN jobs")) and "INDEX" not in step]


async def test_tasks_that_change_alike_are_found_by_their_key(queue: TaskQueue) -> None:
    compiled = statements.update_alike(("deadline",)).compile(queue._engine.sync_engine)
    parameters = tuple("[]" if key == "names" else 1 for key in compiled.positiontup or ())
    async with queue._engine.connect() as connection:
        plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", parameters)
        steps = [str(list(row)[3]) for row in plan]
    # Not by the state: nearly all of a job's tasks may have the same.
    assert any("job_uid=? AND node=?" in step for step in steps)


async def test_what_changes_alike_and_what_does_not_are_stored_the_same(queue: TaskQueue) -> None:
    nodes = [f"n{number}" for number in range(3 * LEAST_ALIKE)]
    await queue.admit(new_job(nodes=nodes, failure_tolerate="1"))
    await queue.apply([change(node, TaskEvent.DISPATCHED, at=3.0) for node in nodes])
    seen = "state, attempt, deadline, event, action, reason, images, changed_at, checked_at"
    assert set((await rows(queue, seen)).values()) == {("Checking", 1, 303.0, "Init", "Success", "", None, 3.0, None)}
    await queue.apply([change(node, TaskEvent.CHECK_SUCCEEDED, at=4.0) for node in nodes])
    assert set((await rows(queue, seen)).values()) == {("Pulling", 1, 303.0, "Check", "Success", "", None, 4.0, 4.0)}
    images = [("i", True, "")]
    ends = [change(node, TaskEvent.PULL_SUCCEEDED, at=5.0, images=images) for node in nodes[: 2 * LEAST_ALIKE]]
    ends += [
        change(node, TaskEvent.PULL_FAILED, at=6.0 + number, reason=f"no {number}")
        for number, node in enumerate(nodes[2 * LEAST_ALIKE :])
    ]
    outcomes = await queue.apply(ends)
    assert all(outcome.applied for outcome in outcomes)
    stored = await rows(queue, seen)
    good = ("Successful", 1, None, "Pull", "Success", "", '[["i",true,""]]', 5.0, 4.0)
    assert [stored[node] for node in nodes] == [good] * (2 * LEAST_ALIKE) + [
        ("Failed", 1, None, "Pull", "Failure", f"no {number}", None, 6.0 + number, 4.0) for number in range(LEAST_ALIKE)
    ]
    job = await queue.job("u1")
    assert job is not None
    assert (job.tally.successful, job.tally.failed) == (2 * LEAST_ALIKE, LEAST_ALIKE)


async def test_a_check_and_a_pull_of_one_batch_keep_both_times(queue: TaskQueue) -> None:
    nodes = [f"n{number}" for number in range(2 * LEAST_ALIKE)]
    await queue.admit(new_job(nodes=nodes))
    await queue.apply([change(node, TaskEvent.DISPATCHED) for node in nodes])
    reports = [
        [change(node, TaskEvent.CHECK_SUCCEEDED, at=4.0), change(node, TaskEvent.PULL_SUCCEEDED, at=5.0)]
        for node in nodes
    ]
    await asyncio.gather(*(queue.apply(both) for both in reports))
    assert set((await rows(queue, "state, checked_at, changed_at")).values()) == {("Successful", 4.0, 5.0)}


_EVENTS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(list(TaskEvent))), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(batches=st.lists(_EVENTS, min_size=1, max_size=6), tolerate=st.sampled_from(["0", "0.2", "0.5", "1"]))
async def test_whatever_comes_in_whatever_order_the_rows_and_the_counts_agree(
    queue: TaskQueue, batches: list[list[tuple[int, TaskEvent]]], tolerate: str
) -> None:
    await queue.remove("u1")
    await queue.admit(new_job(nodes=5, failure_tolerate=tolerate))
    finished: dict[str, str] = {}
    for batch in batches:
        changes = [
            change(f"n{number}", event, at=1000.0, deadline=None if event is E.POSTPONED else 900.0)
            for number, event in batch
            if event is not E.STOPPED
        ]
        await queue.apply(changes)
        states = await rows(queue, "state")
        job = await queue.job("u1")
        assert job is not None
        assert job.tally == Tally.of(map(TaskState, states.values()))
        assert job.tally.total == 5
        assert all(states[node] == state for node, state in finished.items())
        finished = {node: state for node, state in states.items() if TaskState(state).finished}
        assert job.finished == (len(finished) == 5)
        if job.finished:
            failed = too_many_failed(job.tally.failed, 5, tolerate)
            assert job.state == judge(job.tally, stopped=failed).value
