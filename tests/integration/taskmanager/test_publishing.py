"""When the status is written, and when not."""

from __future__ import annotations

import json

import pytest

from cloudhub.taskmanager.ports import Forbidden, Rejected, Unavailable
from cloudhub.taskmanager.publisher import WRITES_A_SECOND
from tests.integration.taskmanager.world import World


async def test_the_first_change_and_the_end_are_written_at_once(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: world.jobs.writes)
    await world.until(lambda: world.asked("a"))
    # Not a second has passed, nor will one.
    await world.sessions.obey(world.sessions.node("a"), world.asked("a")[0])
    await world.until(lambda: world.status().get("state") == "Successful")
    assert len(world.jobs.writes) == 2


async def test_between_them_once_a_second_however_many_report(world: World) -> None:
    names = [f"n{number}" for number in range(60)]
    world.nodes.add(*names)
    world.sessions.connect(*names)
    world.job(nodes=names, concurrency=60)
    await world.until(lambda: all(world.asked(name) for name in names))
    await world.until_idle()
    first = len(world.jobs.writes)
    for name in names[:20]:
        await world.sessions.check(name, world.asked(name)[0])
    await world.until_idle()
    assert len(world.jobs.writes) == first == 1
    world.clock.advance(1.01)
    await world.until(lambda: len(world.jobs.writes) == 2)
    for name in names[:50]:
        await world.sessions.pull(name, world.asked(name)[0])
    await world.until_idle()
    assert len(world.jobs.writes) == 2
    world.clock.advance(1.01)
    await world.until(lambda: len(world.jobs.writes) == 3)
    assert world.status()["counts"] == {"total": 60, "pending": 0, "running": 10, "succeeded": 50, "failed": 0}


async def test_of_many_jobs_together_not_more_is_written_in_between_and_ends_do_not_wait(world: World) -> None:
    jobs = {f"job-{number}": f"n{number}" for number in range(2 * int(WRITES_A_SECOND))}
    world.nodes.add(*jobs.values())
    world.sessions.connect(*jobs.values())
    for job, node in jobs.items():
        world.job(job, nodes=[node])
    await world.until(lambda: all(world.asked(node) for node in jobs.values()))
    await world.until_idle()
    first = len(world.jobs.writes)
    assert first == len(jobs)
    for node in jobs.values():
        await world.sessions.check(node, world.asked(node)[0])
    world.clock.advance(1.5)
    await world.until_idle()
    assert len(world.jobs.writes) == first
    await world.sessions.pull("n7", world.asked("n7")[0])
    await world.until(lambda: world.status("job-7").get("state") == "Successful")
    await world.until_idle()
    assert len(world.jobs.writes) == first + 1
    world.clock.advance(0.6)
    await world.until(lambda: len(world.jobs.writes) == first + len(jobs))


async def test_nothing_is_written_when_nothing_changed(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until_published(lambda: world.entry("a").get("state") == "Checking")
    writes = len(world.jobs.writes)
    for _ in range(5):
        world.clock.advance(2)
        await world.until_idle()
    assert len(world.jobs.writes) == writes


async def test_values_that_went_are_removed_from_the_object(world: World) -> None:
    world.nodes.add("a")
    world.jobs.apply("job", {"images": ["i"], "nodeNames": ["a"]})
    found = world.jobs.objects["job"]
    # As an earlier CloudCore left it, in the middle.
    object.__setattr__(found, "status", {"state": "Checking", "reason": "old", "legacy": 1})
    world.sessions.connect("a", behaviour=world.sessions.obey)
    await world.until_state("Successful")
    assert "reason" not in world.status()
    assert "legacy" not in world.status()
    assert any(status.get("reason", "") is None for _, status in world.jobs.writes)


async def test_more_nodes_than_fit_are_counted_and_the_failed_are_shown_first(world: World) -> None:
    names = [f"n{number:04}" for number in range(700)]
    world.nodes.add(*names)
    world.sessions.connect(*names, behaviour=world.sessions.obey)
    for name in names[690:]:
        world.sessions.node(name).behaviour = world.sessions.fail
    world.job(nodes=names, concurrency=700, failureTolerate="0.5")
    await world.until_state("Successful", within=60)
    status = world.status()
    assert status["counts"] == {"total": 700, "pending": 0, "running": 0, "succeeded": 690, "failed": 10}
    assert len(status["status"]) == 500
    assert [entry["nodeStatus"]["nodeName"] for entry in status["status"][:11]] == [*names[690:], "n0000"]
    assert max(len(json.dumps(written)) for _, written in world.jobs.writes) < 400_000


@pytest.mark.parametrize("problem", [Unavailable("429"), Forbidden("patch: forbidden"), Rejected("no such field")])
async def test_a_write_that_failed_is_tried_again_with_what_is_true_then(world: World, problem: Exception) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.jobs.problem = problem  # type: ignore[assignment]
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    await world.sessions.obey(world.sessions.node("a"), world.asked("a")[0])
    await world.until_idle()
    assert world.jobs.writes == []
    world.jobs.problem = None
    await world.until_state("Successful")
    assert len(world.jobs.writes) == 1


async def test_the_status_of_a_job_that_is_gone_is_dropped(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    world.jobs.callbacks.clear()
    world.jobs.delete("job")
    other = world.job(nodes=["a"])
    await world.sessions.pull("a", world.asked("a")[0])
    await world.until_idle()
    assert world.jobs.objects["job"].uid == other
    assert world.status() == {}


async def test_jobs_do_not_wait_for_one_another(world: World) -> None:
    world.nodes.add("a", "b")
    world.sessions.connect("a", "b", behaviour=world.sessions.obey)
    world.job("one", nodes=["a"])
    world.job("two", nodes=["b"])
    await world.until(
        lambda: world.status("one").get("state") == world.status("two").get("state") == "Successful",
    )


async def test_metrics_say_how_many_there_are_by_state(world: World) -> None:
    world.nodes.add("a", "b", "c")
    world.sessions.connect("a", "b")
    world.job(nodes=["a", "b", "c", "nobody"], concurrency=2, failureTolerate="0.9")
    await world.until(lambda: world.asked("a") and world.asked("b"))
    await world.sessions.check("b", world.asked("b")[0])
    text = (await world.metrics.render()).decode()
    assert 'cloudhub_jobs{state="Pulling"} 1.0' in text
    expected = {"Init": 1, "Checking": 1, "Pulling": 1, "Successful": 0, "Failed": 1}
    for state, count in expected.items():
        assert f'cloudhub_node_tasks{{state="{state}"}} {count}.0' in text
    assert "cloudhub_dispatches_total 2.0" in text
    assert "cloudhub_reports_total 1.0" in text
