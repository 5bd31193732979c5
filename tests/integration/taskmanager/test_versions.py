"""Jobs of both API versions, over definitions that keep more or less of a status, and KubeEdge's finalizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudhub.taskmanager.ports import Forbidden, JobObject, Rejected, Unavailable
from tests.integration.taskmanager.world import World

FIRST = frozenset({"state", "event", "action", "reason", "time", "status"})
LATER = frozenset({"phase", "reason", "nodeStatus"})


async def done(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", behaviour=world.sessions.obey)
    world.job(nodes=["a"])
    await world.until_published(lambda: world.status().get("phase") == "Completed", within=60)


def leftover(world: World, status: dict[str, Any], **fields: Any) -> None:
    """A job that another program has worked on; our store knows nothing of it."""
    spec = {"imagePrePullTemplate": {"images": ["a"], "nodeNames": ["a"]}}
    found = JobObject("uid-theirs", "job", 1, "1", spec, status, **fields)
    world.jobs.objects["job"] = found
    world.jobs._tell("job")


async def test_a_status_has_the_keys_of_both_versions(world: World) -> None:
    await done(world)
    status = world.status()
    assert (status["state"], status["phase"]) == ("Successful", "Completed")
    (entry,) = status["nodeStatus"]
    image = {"image": "registry.example/team/app:v1", "status": "True"}
    assert (entry["nodeName"], entry["phase"], entry["imageStatus"]) == ("a", "Successful", [image])
    assert [(step["action"], step["status"]) for step in entry["actionFlow"]] == [("Check", "True"), ("Pull", "True")]
    assert world.entry("a")["state"] == "Successful"


async def test_when_each_action_was_reported_is_kept_over_restarts(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"), within=60)
    await world.sessions.check("a", world.asked("a")[0])
    world.clock.advance(5)
    await world.restart()
    await world.until(lambda: len(world.asked("a")) == 2, within=60)
    world.clock.advance(5)
    await world.sessions.pull("a", world.asked("a")[0])
    await world.until_state("Successful", within=60)
    (entry,) = world.status()["nodeStatus"]
    first, last = (step["time"] for step in entry["actionFlow"])
    assert first < last == entry_time(world)


def entry_time(world: World) -> str:
    return str(world.entry("a")["time"])


async def test_a_task_that_is_late_is_unknown_and_one_without_checks_has_none_in_its_flow(world: World) -> None:
    world.nodes.add("a", "b")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"), within=60)
    await world.sessions.check("a", world.asked("a")[0])
    world.clock.advance(301)
    await world.until_state("Failed", within=60)
    (entry,) = world.status()["nodeStatus"]
    assert (entry["phase"], [step["action"] for step in entry["actionFlow"]]) == ("Unknown", ["Check"])
    world.jobs.delete("job")
    world.job(nodes=["a"], checkItems=[])
    await world.until(lambda: len(world.asked("a")) == 2, within=60)
    await world.sessions.pull("a", world.asked("a")[1])
    await world.until_state("Successful", within=60)
    (entry,) = world.status()["nodeStatus"]
    assert [step["action"] for step in entry["actionFlow"]] == ["Pull"]


@pytest.mark.parametrize("keys", [FIRST, LATER, FIRST | LATER], ids=["first", "later", "both"])
async def test_only_what_the_definition_keeps_is_written_and_the_job_ends_all_the_same(
    world: World, keys: frozenset[str]
) -> None:
    world.jobs.status_keys = keys
    world.nodes.add("a", "b")
    world.sessions.connect("a", "b", behaviour=world.sessions.obey)
    world.job(nodes=["a", "b"], concurrency=2)
    word, end = ("phase", "Completed") if "phase" in keys else ("state", "Successful")
    await world.until_published(lambda: world.status().get(word) == end, within=60)
    assert set(world.status()) <= keys
    writes = len(world.jobs.writes)
    for _ in range(3):
        world.clock.advance(2)
        await world.until_idle()
    assert len(world.jobs.writes) == writes
    await world.restart()
    await world.until_idle()
    world.clock.advance(2)
    await world.until_idle()
    assert len(world.jobs.writes) == writes


@pytest.mark.parametrize(
    "status",
    [
        {"state": "Successful"},
        {"state": "Failed", "reason": "r"},
        {"phase": "Completed"},
        {"phase": "Complated"},
        {"phase": "Failure"},
        {"phase": "Failure", "state": "Pulling"},
        {"phase": "Init", "state": "Failed"},
    ],
)
async def test_a_job_that_has_ended_by_either_word_is_left_alone_with_an_empty_store(
    world: World, status: dict[str, Any]
) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    leftover(world, status)
    await world.until_idle()
    assert world.asked("a") == []
    assert await world.store.names() == []
    assert world.jobs.writes == []


@pytest.mark.parametrize("status", [{}, {"phase": "Init"}, {"phase": "InProgress", "nodeStatus": []}, {"state": ""}])
async def test_a_job_that_a_cloudcore_did_not_end_is_done(world: World, status: dict[str, Any]) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", behaviour=world.sessions.obey)
    leftover(world, status)
    await world.until_state("Successful", within=60)
    assert world.status()["phase"] == "Completed"


async def test_a_status_that_a_write_in_another_version_damaged_is_mended_once(world: World) -> None:
    await done(world)
    writes = len(world.jobs.writes)
    world.jobs.lose("job", "phase", "nodeStatus")
    assert "phase" not in world.status()
    await world.until_published(lambda: world.status().get("phase") == "Completed", within=60)
    assert world.status()["nodeStatus"][0]["phase"] == "Successful"
    assert len(world.jobs.writes) == writes + 1
    for _ in range(3):
        world.clock.advance(2)
        await world.until_idle()
    assert len(world.jobs.writes) == writes + 1


async def test_a_damaged_status_of_a_job_at_work_is_mended_with_the_same_words(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until_published(lambda: world.status().get("phase") == "InProgress", within=60)
    await world.until_idle()
    whole = world.status()
    world.jobs.lose("job", "phase", "nodeStatus")
    await world.until_published(lambda: world.status() == whole, within=60)


async def test_whoever_damages_a_status_all_the_time_is_answered_once_an_interval(world: World) -> None:
    await done(world)
    writes = len(world.jobs.writes)
    for _ in range(20):
        world.jobs.lose("job", "phase")
        await world.until_idle()
    assert len(world.jobs.writes) == writes
    world.clock.advance(1.1)
    await world.until(lambda: len(world.jobs.writes) == writes + 1, within=60)


async def test_a_change_by_hand_stays(world: World) -> None:
    await done(world)
    writes = len(world.jobs.writes)
    found = world.jobs.objects["job"]
    world.jobs.objects["job"] = replace(found, status={**found.status, "reason": "by hand"})
    world.jobs._tell("job")
    world.clock.advance(5)
    await world.until_idle()
    assert len(world.jobs.writes) == writes


async def test_a_deleted_job_that_kubeedges_finalizer_holds_goes_when_its_rows_are_gone(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"), within=60)
    rows: list[Any] = []
    release = world.jobs.release

    async def observed(*, name: str, uid: str) -> None:
        rows.append(await world.store.names())
        await release(name=name, uid=uid)

    world.jobs.release = observed  # type: ignore[method-assign]
    world.jobs.mark_deleting("job", held=True)
    await world.until(lambda: world.jobs.released == ["job"], within=60)
    assert rows == [[]]
    await world.until(lambda: world.sessions.node("a").cancelled, within=60)


@pytest.mark.parametrize("status", [{"phase": "Completed"}, {"state": "Successful"}, {"phase": "InProgress"}, {}])
async def test_one_of_which_our_store_knows_nothing_goes_too(world: World, status: dict[str, Any]) -> None:
    leftover(world, status, deleting=True, held=True)
    await world.until(lambda: world.jobs.released == ["job"], within=60)


async def test_one_that_only_others_hold_is_left_to_them(world: World) -> None:
    leftover(world, {"phase": "Completed"}, deleting=True)
    await world.until_idle()
    assert world.jobs.released == []


async def test_a_job_that_is_not_deleted_keeps_its_finalizer(world: World) -> None:
    leftover(world, {"phase": "Completed"}, held=True)
    await world.until_idle()
    assert world.jobs.released == []


@pytest.mark.parametrize(
    ("problem", "seconds"),
    [(Unavailable("away"), 1), (Forbidden("may not patch"), 60), (Rejected("status.phase: Required value"), 60)],
)
async def test_a_finalizer_that_cannot_be_removed_now_is_tried_again(
    world: World, problem: Exception, seconds: float
) -> None:
    world.jobs.problem = problem  # type: ignore[assignment]
    leftover(world, {"phase": "Completed"}, deleting=True, held=True)
    await world.until_idle()
    assert world.jobs.released == []
    world.jobs.problem = None
    world.clock.advance(seconds)
    await world.until(lambda: world.jobs.released == ["job"], within=60)
