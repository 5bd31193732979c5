"""The store answers with an error although the transaction is on the disk (a flush that failed after the write, a
connection that broke during the answer). What is on the disk then is what counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cloudhub.store import writer
from cloudhub.store.errors import StoreUnavailable
from cloudhub.taskmanager.lifecycle import TaskEvent
from tests.integration.taskmanager.world import World


class Doubtful:
    """The first transaction that has an item like this is committed, and reported as failed."""

    def __init__(self, world: World, like: Callable[[Any], bool]) -> None:
        writer: Any = world.store._writer
        self._original = writer._transaction
        self._like = like
        self.lied = asyncio.Event()
        writer._transaction = self._perform

    async def _perform(self, items: Sequence[Any]) -> Any:
        done = await self._original(items)
        if not self.lied.is_set() and any(map(self._like, items)):
            self.lied.set()
            raise StoreUnavailable("disk I/O error")
        return done


def changes(event: TaskEvent) -> Callable[[Any], bool]:
    return lambda item: not callable(item) and any(change.event is event for change in item)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PROBE_SECONDS", 0.01)


async def test_a_job_that_was_admitted_all_the_same_is_begun(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", behaviour=world.sessions.obey)
    await world.until_idle()
    doubtful = Doubtful(world, callable)
    world.job(nodes=["a"])
    await world.until(doubtful.lied.is_set)
    await world.until_state("Successful")
    assert len(world.asked("a")) == 1


async def test_a_last_report_that_was_stored_all_the_same_frees_its_place(world: World) -> None:
    world.nodes.add("a", "b")
    world.sessions.connect("a", "b")
    world.job(nodes=["a", "b"])
    await world.until(lambda: world.asked("a"))
    Doubtful(world, changes(TaskEvent.PULL_SUCCEEDED))
    await world.sessions.pull("a", world.asked("a")[0])
    await world.until_published(lambda: world.asked("b"))
    await world.sessions.pull("b", world.asked("b")[0])
    await world.until_state("Successful")


async def test_an_end_that_was_stored_all_the_same_is_published(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    Doubtful(world, changes(TaskEvent.PULL_SUCCEEDED))
    await world.sessions.pull("a", world.asked("a")[0])
    await world.until_state("Successful")
    await world.until(lambda: len(world.sessions.node("a").acknowledged) == 1)


async def test_a_timeout_that_was_stored_all_the_same_ends_the_job(world: World) -> None:
    world.nodes.add("a", "b")
    world.sessions.connect("a", "b")
    world.job(nodes=["a", "b"], failureTolerate="1", timeoutSeconds=10)
    await world.until(lambda: world.asked("a"))
    Doubtful(world, changes(TaskEvent.TIMED_OUT))
    world.clock.advance(11)
    await world.until_published(lambda: world.asked("b"))
    await world.sessions.pull("b", world.asked("b")[0])
    await world.until_state("Successful")


async def test_a_deletion_that_was_stored_all_the_same_is_a_deletion(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until_published(lambda: world.status().get("state") == "Checking")
    await world.until_idle()
    Doubtful(world, callable)
    world.jobs.delete("job")
    await world.until(lambda: world.sessions.node("a").cancelled)
    world.job(nodes=["a"])
    await world.until(lambda: len(world.asked("a")) == 2)
    await world.sessions.pull("a", world.asked("a")[1])
    await world.until_state("Successful")
