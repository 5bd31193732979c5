"""The disk is full while jobs run: nothing new is dispatched, nothing is lost, and it heals by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from cloudhub.store import writer
from cloudhub.store.errors import StoreUnavailable
from tests.integration.taskmanager.world import FullDisk, World, open_world


async def test_a_job_goes_on_when_there_is_space_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"n{number}" for number in range(6)]
    world.nodes.add(*names)
    world.sessions.connect(*names)
    world.job(nodes=names, concurrency=2)
    await world.until(lambda: world.asked("n0") and world.asked("n1"))
    disk = FullDisk(world.store)
    monkeypatch.setattr(writer, "PROBE_SECONDS", 0.01)
    await world.sessions.obey(world.sessions.node("n0"), world.asked("n0")[0])
    await world.until(lambda: world.store.problem())
    world.job("later", nodes=["n5"])
    world.clock.advance(5)
    await asyncio.sleep(0.1)
    assert [len(world.asked(name)) for name in names] == [1, 1, 0, 0, 0, 0]
    assert world.sessions.node("n0").acknowledged == []
    # The later job may be given to its node at once.
    world.sessions.node("n5").behaviour = world.sessions.obey
    disk.has_space()
    await world.until(lambda: world.store.problem() is None)
    await world.until(lambda: len(world.sessions.node("n0").acknowledged) == 2)
    await world.until(lambda: world.asked("n2"))
    for name in names:
        world.sessions.node(name).behaviour = world.sessions.obey
    for name in ("n1", "n2"):
        await world.sessions.obey(world.sessions.node(name), world.asked(name)[-1])
    await world.until_state("Successful")
    await world.until_state("Successful", "later")
    assert all(len(world.asked(name)) == 1 for name in names[:5])


async def test_what_nodes_work_on_meanwhile_is_not_sent_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.nodes.add("away", "a", "b")
    world.sessions.connect("a", "b")
    world.job(nodes=["away", "a", "b"], concurrency=2)
    await world.until(lambda: world.asked("a") and world.asked("b"))
    disk = FullDisk(world.store)
    monkeypatch.setattr(writer, "PROBE_SECONDS", 0.01)
    # Its turn cannot be given back now.
    world.sessions.connect("away")
    await world.until(lambda: world.store.problem())
    disk.has_space()
    await world.until(lambda: world.store.problem() is None)
    await world.sessions.pull("a", world.asked("a")[0])
    await world.until(lambda: world.asked("away"))
    await world.sessions.pull("b", world.asked("b")[0])
    await world.sessions.pull("away", world.asked("away")[0])
    await world.until_state("Successful")
    assert [len(world.asked(name)) for name in ("away", "a", "b")] == [1, 1, 1]


async def test_a_commit_that_failed_but_is_on_the_disk_loses_no_task(world: World) -> None:
    """The worst of answers: an error, although the transaction is there."""
    world.nodes.add("a")
    world.sessions.connect("a", behaviour=world.sessions.obey)
    store_writer: Any = world.store._writer
    original = store_writer._transaction
    lied = asyncio.Event()

    async def transaction(items: Any) -> Any:
        done = await original(items)
        if not lied.is_set() and any(not callable(item) for item in items):
            lied.set()
            raise StoreUnavailable("disk I/O error")
        return done

    store_writer._transaction = transaction
    world.job(nodes=["a"])
    await world.until(lied.is_set)
    await world.until_state("Successful")
    assert len(world.asked("a")) == 1


async def test_what_ended_while_the_store_was_surveyed_makes_room_on_its_node(tmp_path: Path) -> None:
    async with open_world(tmp_path, node_tasks=1) as world:
        world.nodes.add("a")
        world.sessions.connect("a")
        world.job("first", nodes=["a"])
        await world.until(lambda: world.asked("a"))
        world.job("second", nodes=["a"])
        await world.until_published(lambda: world.entry("a", "second").get("reason"))
        survey = world.store.survey
        reports: list[asyncio.Future[str]] = []

        async def survey_and_report(uids: Iterable[str]) -> object:
            # Both wait when the writer looks next, as after a disk was full.
            surveying = asyncio.ensure_future(survey(uids))
            await asyncio.sleep(0)
            reports.append(asyncio.ensure_future(world.sessions.pull("a", world.asked("a")[0])))
            return await surveying

        world.store.survey = survey_and_report  # type: ignore[method-assign,assignment]
        world.manager._scheduler.doubt()
        await world.until(lambda: len(world.asked("a")) == 2)
        assert world.asked("a")[1].job == "second"
        await asyncio.gather(*reports)
