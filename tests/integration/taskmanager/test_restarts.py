"""The process dies anywhere, and another one goes on: the same end, nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cloudhub.store.records import Commit
from cloudhub.taskmanager.scheduler import LOOKS
from tests.integration.taskmanager.world import OURS, STOCK, Asked, FakeNode, World, open_world


async def test_tasks_in_flight_go_on_with_their_deadlines(world: World) -> None:
    world.nodes.add("a", "b")
    world.sessions.connect("a", "b")
    world.job(nodes=["a", "b"], concurrency=1, timeoutSeconds=300)
    await world.until(lambda: world.asked("a"))
    (asked,) = world.asked("a")
    world.clock.advance(100)
    await world.restart()
    await world.until(lambda: len(world.asked("a")) == 2)
    again = world.asked("a")[1]
    assert (again.uid, again.attempt) == (asked.uid, asked.attempt)
    assert again.content["task"]["timeout_seconds"] == 200
    await world.until_idle()
    assert world.asked("b") == []
    await world.sessions.pull("a", again)
    await world.until(lambda: world.asked("b"))
    await world.sessions.pull("b", world.asked("b")[0])
    await world.until_state("Successful")


async def test_a_node_that_finished_while_the_hub_was_down_is_heard_even_after_its_deadline(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"], timeoutSeconds=60)
    await world.until(lambda: world.asked("a"))
    (asked,) = world.asked("a")
    world.clock.advance(50)
    await world.restart(reconnect=False)
    for _ in range(6):
        await world.until_idle()
        world.clock.advance(5)
    await world.until_idle()
    world.sessions.connect("a")
    await world.sessions.pull("a", asked)
    await world.until_state("Successful")


async def test_of_a_fleet_that_comes_back_who_reports_is_not_asked_again_and_who_is_silent_is(world: World) -> None:
    first, late = [f"first-{number}" for number in range(LOOKS)], ["reports", "silent"]
    world.nodes.add(*first, *late)
    world.sessions.connect(*first, *late)
    world.job(nodes=[*first, *late], concurrency=100)
    await world.until(lambda: all(world.asked(node) for node in (*first, *late)))
    await world.restart(reconnect=False)
    for node in first:
        world.sessions.connect(node)
        await world.until(lambda node=node: len(world.asked(node)) == 2)  # type: ignore[misc]
    # More in one second: they are looked at with the next tick, and what has been reported by then is over.
    world.sessions.connect(*late)
    await world.sessions.pull("reports", world.asked("reports")[0])
    await world.until_idle()
    world.clock.advance(1)
    await world.until(lambda: len(world.asked("silent")) == 2)
    assert len(world.asked("reports")) == 1


async def test_a_node_that_does_not_come_back_after_a_restart_times_out(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"], timeoutSeconds=60)
    await world.until(lambda: world.asked("a"))
    world.clock.advance(100)
    await world.restart(reconnect=False)
    world.clock.advance(61)
    await world.until_state("Failed")
    assert world.entry("a")["event"] == "TimeOut"


async def test_a_job_deleted_while_the_hub_was_down_is_forgotten_and_its_nodes_are_told(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    uid = world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    world.jobs.callbacks.clear()
    world.jobs.delete("job")
    world.jobs.listed.clear()
    await world.restart()
    world.jobs.listed.set()
    await world.until(lambda: world.sessions.node("a").cancelled)
    assert world.sessions.node("a").cancelled[0]["job_uid"] == uid
    assert await world.store.names() == []


async def test_a_job_made_anew_while_the_hub_was_down_is_another_job(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    world.jobs.callbacks.clear()
    world.jobs.delete("job")
    second = world.job(nodes=["a"])
    await world.restart()
    await world.until(lambda: world.asked("a")[-1].uid == second)
    await world.sessions.pull("a", world.asked("a")[-1])
    await world.until_state("Successful")


async def test_nothing_is_taken_for_deleted_before_the_first_list_is_in(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    known = dict(world.jobs.objects)
    world.jobs.objects.clear()
    world.jobs.listed.clear()
    await world.restart()
    # Stored tasks go on meanwhile.
    await world.until(lambda: len(world.asked("a")) == 2)
    await world.until_idle()
    assert len(await world.store.names()) == 1
    world.jobs.objects.update(known)
    world.jobs.listed.set()
    await world.sessions.pull("a", world.asked("a")[1])
    await world.until_state("Successful")


async def test_an_end_that_could_not_be_published_is_published_after_the_restart(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a") and world.status().get("state"))
    original = world.jobs.patch_status

    async def hang(**_: Any) -> None:
        await asyncio.Event().wait()

    world.jobs.patch_status = hang  # type: ignore[method-assign]
    await world.sessions.pull("a", world.asked("a")[0])
    await world.until_idle()
    world.jobs.patch_status = original  # type: ignore[method-assign]
    await world.restart()
    await world.until_state("Successful")


async def test_nothing_is_published_again_after_a_restart_when_nothing_changed(world: World) -> None:
    world.nodes.add("a", "b")
    world.sessions.connect("a", "b", behaviour=world.sessions.obey)
    world.job("ended", nodes=["a"])
    await world.until_state("Successful", "ended")
    world.sessions.node("b").behaviour = None
    world.job("running", nodes=["b"])
    await world.until_published(lambda: world.entry("b", "running").get("state") == "Checking")
    await world.until_idle()
    writes = len(world.jobs.writes)
    await world.restart()
    await world.until(lambda: len(world.asked("b")) == 2)
    world.clock.advance(5)
    await world.until_idle()
    assert len(world.jobs.writes) == writes


async def test_credentials_are_read_again_before_anything_is_sent(world: World) -> None:
    world.nodes.add("a", "b")
    world.secrets.docker("x", {"registry.example": {"username": "tiger", "password": "pass1234"}})
    world.sessions.connect("a", "b")
    world.job(nodes=["a", "b"], imageSecrets="default/x")
    await world.until(lambda: world.asked("a"))
    world.jobs.listed.clear()
    await world.restart()
    await world.until_idle()
    assert len(world.asked("a")) == 1
    world.jobs.listed.set()
    await world.until(lambda: len(world.asked("a")) == 2)
    assert "credentials" in world.asked("a")[1].content["task"]


async def test_what_waited_for_a_busy_node_has_its_turn_after_a_restart(tmp_path: Path) -> None:
    async with open_world(tmp_path, node_tasks=1) as world:
        world.nodes.add("a")
        world.sessions.connect("a")
        for name in ("first", "second"):
            world.job(name, nodes=["a"])
            await world.until(lambda name=name: world.entry("a", name))  # type: ignore[misc]
        await world.until(lambda: world.asked("a"))
        assert [asked.job for asked in world.asked("a")] == ["first"]
        await world.restart()
        await world.until(lambda: len(world.asked("a")) == 2)
        await world.until_idle()
        assert [asked.job for asked in world.asked("a")] == ["first", "first"]
        await world.sessions.pull("a", world.asked("a")[1])
        await world.until(lambda: world.asked("a")[-1].job == "second")


@pytest.mark.parametrize("features", [OURS, STOCK], ids=["our agent", "EdgeCore"])
async def test_a_report_that_is_there_before_the_jobs_are_loaded_is_heard(world: World, features: Any) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", features=features)
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    (asked,) = world.asked("a")
    await world.restart()
    # Not one turn of the loop was had by the new manager yet.
    await world.sessions.pull("a", asked)
    await world.until_state("Successful")
    assert world.status()["status"][0]["imageStatus"][0]["state"] == "Successful"


async def test_all_that_is_late_times_out_at_once(world: World) -> None:
    names = [f"n{number}" for number in range(1300)]
    world.nodes.add(*names)
    world.sessions.connect(*names)
    world.job(nodes=names, concurrency=2000, timeoutSeconds=60)
    await world.until(lambda: all(world.asked(name) for name in names), within=60)
    world.clock.advance(61)
    await world.until_state("Failed", within=60)
    await world.until(lambda: all(world.sessions.node(name).cancelled for name in names))


async def test_what_waited_for_a_busy_node_that_never_comes_back_ends_too(tmp_path: Path) -> None:
    async with open_world(tmp_path, node_tasks=1) as world:
        world.nodes.add("a")
        world.sessions.connect("a")
        for name in ("first", "second"):
            world.job(name, nodes=["a"], timeoutSeconds=60)
            await world.until(lambda name=name: world.entry("a", name))  # type: ignore[misc]
        await world.until_published(lambda: world.entry("a", "second").get("reason"))
        await world.restart(reconnect=False)
        for name in ("first", "second"):
            world.clock.advance(130)
            await world.until_idle()
            await world.until_state("Failed", name)
            assert world.entry("a", name)["event"] == "TimeOut"


# --- At every line ------------------------------------------------------------------------------------------------


class Journal:
    """Nodes as ours are: what was asked is done once, and what was done is said until it is acknowledged."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pulled: dict[str, list[tuple[str | None, int | None]]] = {}
        self.done: dict[tuple[str, str | None, int | None], bool] = {}

    async def work(self, node: FakeNode, asked: Asked) -> None:
        key = (node.name, asked.uid, asked.attempt)
        if key not in self.done:
            self.done[key] = not node.name.startswith("bad")
            self.pulled.setdefault(node.name, []).append((asked.uid, asked.attempt))
        try:
            await self.world.sessions.check(node.name, asked)
            await self.world.sessions.pull(node.name, asked, succ=self.done[key])
        except (AssertionError, KeyError):
            # The hub died while this was said; it is asked again when there is one.
            return


class Death(Exception):
    pass


def _die_at(world: World, commit: int, *, heard: bool) -> asyncio.Event:
    """The process dies at this commit: after it was written, before or after anyone here has heard of it."""
    died = asyncio.Event()
    original = world.store.on_commit
    count = 0

    def on_commit(done: Commit) -> None:
        nonlocal count
        count += 1
        if heard and count <= commit:
            original(done)
        if count == commit:
            died.set()
        if count >= commit:
            world.sessions.live.clear()
            raise Death
        if not heard:
            original(done)

    world.store.on_commit = on_commit
    return died


def _end(world: World) -> tuple[Any, ...]:
    status = world.status()
    states = {
        entry["nodeStatus"]["nodeName"]: (
            entry["nodeStatus"]["state"],
            entry["nodeStatus"].get("event"),
            entry["nodeStatus"].get("reason"),
        )
        for entry in status["status"]
    }
    return status["state"], status.get("reason"), status["counts"], states


async def _run(folder: Path, nodes: Sequence[str], deaths: Sequence[tuple[int, bool]], **job: Any) -> tuple[Any, ...]:
    async with open_world(folder) as world:
        journal = Journal(world)
        world.nodes.add(*nodes)
        world.sessions.connect(*nodes, behaviour=journal.work)
        for at, heard in deaths:
            died = _die_at(world, at, heard=heard)
            if not world.jobs.objects:
                world.job(nodes=nodes, **job)
            try:
                async with asyncio.timeout(60):
                    while not (died.is_set() or world.status().get("state") in ("Successful", "Failed")):
                        world.clock.advance(0.01)
                        await asyncio.sleep(0.002)
            except TimeoutError:
                raise AssertionError(f"neither dead nor ended: {world.status()}") from None
            await world.sessions.close()
            await world.kill()
            await world.start()
            world.sessions.connect(*nodes)
        if not world.jobs.objects:
            world.job(nodes=nodes, **job)
        await world.until_published(lambda: world.status().get("state") in ("Successful", "Failed"), within=60)
        await world.sessions.settle()
        for node, pulls in journal.pulled.items():
            assert len(pulls) == len(set(pulls)), f"{node} was made to pull twice: {pulls}"
        assert await world.store.live_tasks_of(nodes) == []
        return _end(world)


@pytest.mark.parametrize("heard", [False, True], ids=["nobody heard", "everybody heard"])
@pytest.mark.parametrize("commit", range(1, 13))
async def test_death_at_any_commit_leads_to_the_same_end(tmp_path: Path, commit: int, heard: bool) -> None:
    nodes = ["n0", "n1", "bad2", "n3", "n4"]
    job = {"concurrency": 2, "failureTolerate": "0.2"}
    undisturbed = await _run(tmp_path / "1", nodes, [], **job)
    assert undisturbed[0] == "Successful"
    assert await _run(tmp_path / "2", nodes, [(commit, heard)], **job) == undisturbed


async def test_death_again_and_again_leads_to_the_same_end(tmp_path: Path) -> None:
    nodes = [f"n{number}" for number in range(6)]
    deaths = [(at, at % 2 == 0) for at in (2, 1, 3, 1, 2, 4, 2, 3)]
    end = await _run(tmp_path, nodes, deaths, concurrency=1)
    assert end[0] == "Successful"
    assert end[2]["succeeded"] == 6


@pytest.mark.parametrize("commit", range(2, 8))
async def test_death_while_a_job_is_given_up(tmp_path: Path, commit: int) -> None:
    end = await _run(tmp_path, ["bad0", "n1", "n2", "n3"], [(commit, False)], concurrency=1)
    assert end[0] == "Failed"
    assert end[1] == "1 of 4 nodes failed, more than failureTolerate 0.1"
    assert end[3]["n3"] == ("Failed", "Init", "not started: 1 of 4 nodes failed, more than failureTolerate 0.1")


@pytest.mark.parametrize("features", [OURS, STOCK], ids=["our agent", "EdgeCore"])
async def test_a_thousand_nodes_come_back_at_once(world: World, features: Any) -> None:
    names = [f"n{number}" for number in range(1000)]
    world.nodes.add(*names)
    world.sessions.connect(*names, features=features)
    world.job(nodes=names, concurrency=1000)
    await world.until(lambda: all(world.asked(name) for name in names), within=60)
    for name in names:
        world.sessions.node(name).behaviour = world.sessions.obey
    await world.restart()
    await world.until_state("Successful", within=60)
    assert all(len(world.asked(name)) == 2 for name in names)
