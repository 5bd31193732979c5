"""How far pulls are: from whom it is taken, where it is shown, and what it must not cost."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

import pytest

from cloudhub.metrics import sample
from cloudhub.taskmanager.ports import Unavailable
from tests.integration.taskmanager.world import OURS, STOCK, Asked, World


async def pulling(world: World, *nodes: str, name: str = "job") -> dict[str, Asked]:
    """A job whose nodes have passed their checks, and its status says so."""
    world.nodes.add(*nodes)
    world.sessions.connect(*nodes)
    world.job(name, nodes=nodes, concurrency=len(nodes))
    await world.until(lambda: all(world.asked(node) for node in nodes), within=60)
    asked = {node: world.asked(node)[-1] for node in nodes}
    for node in nodes:
        await world.sessions.check(node, asked[node])
    await world.until_published(
        lambda: all(world.entry(node, name).get("state") == "Pulling" for node in nodes), within=60
    )
    return asked


def shown(world: World, node: str, name: str = "job") -> Any:
    return world.entry(node, name).get("progress")


def outcomes(world: World) -> dict[str, float]:
    labels = ("kept", "malformed", "foreign_node", "unknown_task", "other_attempt")
    counter = world.metrics.progress_messages_total
    return {label: counter.value(label) for label in labels if counter.value(label)}


async def test_a_long_pull_moves_in_the_status_and_its_end_leaves_nothing_of_it(world: World) -> None:
    asked = await pulling(world, "a", "b")
    await world.sessions.progress("a", asked["a"], 100)
    await world.until_published(lambda: shown(world, "a"), within=60)
    first = shown(world, "a")
    assert {**first, "time": ""} == {"images": 0, "totalImages": 1, "bytes": 100, "totalBytes": 1000, "time": ""}
    assert world.status()["nodeStatus"][0]["progress"] == first
    assert shown(world, "b") is None
    world.clock.advance(11)
    await world.sessions.progress("a", asked["a"], 600, total_bytes=0)
    await world.until_published(lambda: shown(world, "a")["bytes"] == 600, within=60)
    assert "totalBytes" not in shown(world, "a")
    assert shown(world, "a")["time"] > first["time"]
    for node in ("a", "b"):
        await world.sessions.pull(node, asked[node])
    await world.until_state("Successful", within=60)
    assert "progress" not in str(world.status())


async def test_it_is_worth_a_write_in_ten_seconds_however_many_tell(world: World) -> None:
    nodes = [f"n{number:02}" for number in range(40)]
    asked = await pulling(world, *nodes)
    world.clock.advance(2)
    writes = len(world.jobs.writes)
    await world.sessions.progress(nodes[0], asked[nodes[0]], 1)
    await world.until(lambda: len(world.jobs.writes) == writes + 1, within=60)
    for second in range(1, 10):
        world.clock.advance(1)
        for node in nodes:
            await world.sessions.progress(node, asked[node], second)
        await world.until_idle()
        assert len(world.jobs.writes) == writes + 1
    world.clock.advance(1.01)
    await world.until(lambda: len(world.jobs.writes) == writes + 2, within=60)
    assert {shown(world, node)["bytes"] for node in nodes} == {9}
    # Nobody told anything since.
    for _ in range(3):
        world.clock.advance(11)
        await world.until_idle()
    assert len(world.jobs.writes) == writes + 2


async def test_it_goes_along_with_a_write_that_happens_anyway(world: World) -> None:
    asked = await pulling(world, "a", "b")
    world.clock.advance(2)
    await world.sessions.progress("a", asked["a"], 1)
    await world.until(lambda: shown(world, "a"), within=60)
    await world.sessions.progress("a", asked["a"], 2)
    world.clock.advance(1.5)
    await world.sessions.pull("b", asked["b"])
    await world.until_published(lambda: world.entry("b").get("state") == "Successful", within=60)
    assert shown(world, "a")["bytes"] == 2


async def test_nothing_of_it_comes_to_the_disk(world: World) -> None:
    asked = await pulling(world, "a")
    await world.until_idle()
    with contextlib.closing(sqlite3.connect(world.path)) as other:
        version = other.execute("PRAGMA data_version").fetchone()
        for value in range(1, 15):
            world.clock.advance(3)
            await world.sessions.progress("a", asked["a"], value)
            await world.until_idle()
        assert shown(world, "a")["bytes"] > 5
        assert other.execute("PRAGMA data_version").fetchone() == version
        await world.sessions.pull("a", asked["a"])
        assert other.execute("PRAGMA data_version").fetchone() != version


async def test_a_job_of_fast_pulls_has_no_more_writes_than_without(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", behaviour=world.sessions.obey)
    world.job(nodes=["a"])
    await world.until(lambda: world.status().get("state") == "Successful", within=60)
    assert len(world.jobs.writes) == 2


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ({"job_uid": "another"}, "unknown_task"),
        ({"attempt": 2}, "other_attempt"),
        ({"attempt": 0}, "malformed"),
        ({"done_bytes": "much"}, "malformed"),
        ({"done_bytes": 2, "total_bytes": 1}, "malformed"),
        ({"resource_node": "b"}, "foreign_node"),
    ],
)
async def test_what_is_not_of_the_present_task_is_counted_and_ignored(
    world: World, values: dict[str, Any], outcome: str
) -> None:
    asked = await pulling(world, "a", "b")
    await world.sessions.progress("a", asked["a"], **{"done_bytes": 1, **values})
    await world.sessions.progress("a", Asked("other", "Check", [], asked["a"].uid, 1, {}), 1)
    assert outcomes(world) == {outcome: 1} | {"unknown_task": 1 + (outcome == "unknown_task")}
    world.clock.advance(20)
    await world.until_idle()
    assert shown(world, "a") is shown(world, "b") is None


async def test_what_comes_late_or_on_another_session_or_after_a_restart_changes_nothing(world: World) -> None:
    asked = await pulling(world, "a", "b")
    old = world.sessions.live["b"]
    world.sessions.disconnect("b")
    world.sessions.connect("b")
    await world.until(lambda: len(world.asked("b")) == 2, within=60)
    await world.sessions.progress("b", asked["b"], 1, session=old)
    await world.sessions.pull("a", asked["a"])
    await world.sessions.progress("a", asked["a"], 1)
    assert outcomes(world) == {"unknown_task": 2}
    await world.restart(reconnect=False)
    world.sessions.connect("b")
    session = world.sessions.live["b"]
    await world.sessions.progress("b", asked["b"], 1)
    assert outcomes(world) == {"unknown_task": 1}
    await world.until(lambda: len(world.asked("b")) == 3, within=60)
    await world.sessions.progress("b", world.asked("b")[-1], 7, session=session)
    assert outcomes(world) == {"unknown_task": 1, "kept": 1}
    await world.until_published(lambda: shown(world, "b") and shown(world, "b")["bytes"] == 7, within=60)


async def test_a_node_that_did_not_announce_it_is_not_heard(world: World) -> None:
    asked = await pulling(world, "a")
    world.sessions.disconnect("a")
    for features in (STOCK, OURS - {"progress"}):
        world.sessions.connect("a", features=frozenset(features))
        await world.sessions.progress("a", asked["a"], 1)
        world.sessions.disconnect("a")
    assert outcomes(world) == {}
    assert world.metrics.messages_ignored_total.value("Progress") == 2


async def test_an_api_that_does_not_keep_it_is_not_written_to(world: World) -> None:
    world.jobs.keeps_progress = False
    asked = await pulling(world, "a", "b")
    writes = len(world.jobs.writes)
    for value in range(5):
        await world.sessions.progress("a", asked["a"], value)
        world.clock.advance(20)
        await world.until_idle()
    assert len(world.jobs.writes) == writes
    await world.sessions.pull("b", asked["b"])
    await world.until_published(lambda: world.entry("b").get("state") == "Successful", within=60)
    assert "progress" not in str(world.status())


async def test_an_api_that_was_away_gets_it_when_it_is_back(world: World) -> None:
    asked = await pulling(world, "a")
    world.clock.advance(2)
    world.jobs.problem = Unavailable("503")
    await world.sessions.progress("a", asked["a"], 5)
    await world.until_idle()
    world.jobs.problem = None
    await world.until_published(lambda: shown(world, "a"), within=60)
    assert shown(world, "a")["bytes"] == 5


async def test_metrics_say_how_much_is_there(world: World) -> None:
    asked = await pulling(world, "a", "b")
    await world.sessions.progress("a", asked["a"], 300)
    await world.sessions.progress("b", asked["b"], 200, total_bytes=0)
    text = (await world.metrics.render()).decode()
    assert "cloudhub_progress_tasks 2.0" in text
    assert 'cloudhub_progress_bytes{of="done"} 500.0' in text
    assert 'cloudhub_progress_bytes{of="total"} 1000.0' in text
    assert 'cloudhub_progress_messages_total{outcome="kept"} 2.0' in text
    world.jobs.delete("job")
    await world.until(lambda: world.sessions.node("a").cancelled, within=60)
    assert "cloudhub_progress_tasks 0.0" in (await world.metrics.render()).decode()
    assert sample(world.metrics.reports_total) == 2
