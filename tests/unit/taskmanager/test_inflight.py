"""What nodes have, and what waits for them."""

from __future__ import annotations

from cloudhub.store.records import LiveTask, Outcome, TaskChange
from cloudhub.taskmanager.inflight import NodeTasks
from cloudhub.taskmanager.lifecycle import Refusal, TaskEvent, TaskState


def _outcome(node: str, uid: str, after: TaskState | None, *, refused: Refusal | None = None) -> Outcome:
    change = TaskChange(job_uid=uid, node=node, event=TaskEvent.POSTPONED, at=1.0)
    return Outcome(change, TaskState.PENDING, after, 1, None, refused)


def test_a_node_is_busy_with_as_many_as_it_may_have() -> None:
    nodes = NodeTasks(limit=2)
    nodes.add("a", "u1")
    assert not nodes.busy("a")
    nodes.add("a", "u1", 5)
    assert not nodes.busy("a")
    nodes.add("a", "u2")
    assert nodes.busy("a")
    assert not nodes.busy("b")
    nodes.follow(_outcome("a", "u1", TaskState.SUCCESSFUL))
    assert not nodes.busy("a")


def test_what_waits_is_given_out_once_and_only_as_much_as_there_is_room() -> None:
    nodes = NodeTasks(limit=2)
    nodes.add("a", "u1")
    nodes.add("a", "u2")
    for uid in ("u3", "u4", "u5"):
        nodes.follow(_outcome("a", uid, TaskState.WAITING))
    assert nodes.take_freed() == []
    nodes.follow(_outcome("a", "u1", TaskState.FAILED))
    ((node, first),) = nodes.take_freed()
    assert node == "a"
    assert nodes.take_freed() == []
    nodes.follow(_outcome("a", "u2", TaskState.FAILED))
    given = {uid for _, uid in nodes.take_freed()}
    assert given | {first} == {"u3", "u4", "u5"}
    assert nodes.take_freed() == []


def test_a_place_that_nobody_took_is_offered_again() -> None:
    nodes = NodeTasks(limit=1)
    nodes.add("a", "u1")
    for uid in ("u2", "u3"):
        nodes.follow(_outcome("a", uid, TaskState.WAITING))
    nodes.discard("a", "u1")
    (first,) = nodes.take_freed()
    nodes.look_again("a")
    (second,) = nodes.take_freed()
    assert {first, second} == {("a", "u2"), ("a", "u3")}


def test_a_dispatch_that_was_refused_takes_no_place() -> None:
    nodes = NodeTasks(limit=1)
    nodes.add("a", "u1")
    nodes.follow(_outcome("a", "u1", None, refused=Refusal.UNKNOWN_TASK))
    assert not nodes.busy("a")


def test_a_node_that_rests_is_busy_until_its_time_has_come() -> None:
    nodes = NodeTasks(limit=5)
    nodes.rest("a", until=10.0)
    nodes.follow(_outcome("a", "u1", TaskState.WAITING))
    nodes.cool(9.9)
    assert nodes.busy("a")
    assert nodes.take_freed() == []
    nodes.cool(10.0)
    assert nodes.take_freed() == [("a", "u1")]


def test_a_reset_keeps_what_was_sent_and_drops_what_is_no_more() -> None:
    nodes = NodeTasks(limit=5)
    nodes.add("a", "u1", 7)
    nodes.add("a", "u2", 7)
    in_flight = [("u1", "a"), ("u3", "b")]
    nodes.reset([LiveTask(uid, node, TaskState.CHECKING, 1, 9.0, 1.0) for uid, node in in_flight])
    assert not nodes.is_unsent("a", "u1", 7)
    assert nodes.is_unsent("a", "u1", 8)
    assert not nodes.is_unsent("a", "u2", 8)
    assert nodes.is_unsent("b", "u3", 1)
    assert not nodes.is_unsent("nobody", "u3", 1)


def test_jobs_wait_in_another_order_on_each_node() -> None:
    nodes = NodeTasks(limit=1)
    first: dict[str, str] = {}
    for node in map(str, range(20)):
        for uid in ("u1", "u2", "u3"):
            nodes.follow(_outcome(node, uid, TaskState.WAITING))
    first = dict(nodes.take_freed())
    assert set(first.values()) == {"u1", "u2", "u3"}
