"""Turns: concurrency, fairness, nodes that are busy, full, or come and go."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from cloudhub.taskmanager import gathering, scheduler
from cloudhub.taskmanager.ports import Unavailable
from tests.integration.taskmanager.world import OURS, STOCK, Asked, FakeNode, World, open_world


class Observer:
    """Counts, from the nodes' side, what each job has in flight."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.on_node: Counter[str] = Counter()
        self.most_on_node = 0
        self.order: list[tuple[str, str]] = []
        self._random = random.Random(7)

    async def work(self, node: FakeNode, asked: Asked) -> None:
        self.order.append((asked.job, node.name))
        self.now[asked.job] += 1
        self.on_node[node.name] += 1
        self.most[asked.job] = max(self.most[asked.job], self.now[asked.job])
        self.most_on_node = max(self.most_on_node, self.on_node[node.name])
        for _ in range(self._random.randrange(5)):
            await asyncio.sleep(0)
        await self.world.sessions.check(node.name, asked)
        # Counted as done before the report, so that what the report sets off is not counted on top of it.
        self.now[asked.job] -= 1
        self.on_node[node.name] -= 1
        await self.world.sessions.pull(node.name, asked)


@pytest.mark.parametrize("concurrency", [1, 7])
async def test_never_more_of_a_job_is_in_flight_than_its_concurrency(world: World, concurrency: int) -> None:
    names = [f"n{number}" for number in range(40)]
    observer = Observer(world)
    world.nodes.add(*names)
    world.sessions.connect(*names, behaviour=observer.work)
    world.job(nodes=names, concurrency=concurrency)
    await world.until_state("Successful", within=60)
    assert observer.most["job"] == concurrency
    assert sorted(node for _, node in observer.order) == sorted(names)


async def test_nodes_have_their_turn_in_the_order_of_the_spec(world: World) -> None:
    names = [f"n{number}" for number in (3, 1, 2, 0)]
    observer = Observer(world)
    world.nodes.add(*names)
    world.sessions.connect(*names, behaviour=observer.work)
    world.job(nodes=names)
    await world.until_state("Successful")
    assert [node for _, node in observer.order] == names


async def test_jobs_take_turns(world: World) -> None:
    observer = Observer(world)
    for job in range(10):
        names = [f"j{job}n{number}" for number in range(30)]
        world.nodes.add(*names)
        world.sessions.connect(*names, behaviour=observer.work)
    for job in range(10):
        world.job(f"job{job}", nodes=[f"j{job}n{number}" for number in range(30)], concurrency=2)
    for job in range(10):
        await world.until_state("Successful", f"job{job}", within=60)
    done: Counter[str] = Counter()
    for job_name, _ in observer.order:
        done[job_name] += 1
        if max(done.values()) == 25:
            break
    # When the fastest has five to go, the slowest is not far behind.
    assert min(done[f"job{job}"] for job in range(10)) > 10
    assert set(observer.most.values()) == {2}


async def test_no_job_starves_when_there_are_more_than_a_batch_holds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "TURNS", 10)
    monkeypatch.setattr(scheduler, "LEAST_SLICE", 5)
    observer = Observer(world)
    jobs = [f"job{job:02}" for job in range(12)]
    nodes = {job: [f"{job}n{number}" for number in range(10)] for job in jobs}
    for names in nodes.values():
        world.nodes.add(*names)
    for job in jobs:
        world.job(job, nodes=nodes[job], concurrency=10)
    await world.until(lambda: len(world.status(jobs[-1])) > 0)
    for names in nodes.values():
        world.sessions.connect(*names, behaviour=observer.work)
    for job in jobs:
        await world.until_state("Successful", job, within=60)
    begun = Counter(job for job, _ in observer.order[: len(observer.order) // 2])
    assert min(begun[job] for job in jobs) > 0


@pytest.mark.parametrize("features", [OURS, STOCK], ids=["our agent", "EdgeCore"])
async def test_a_node_of_many_jobs_has_only_a_few_tasks_at_a_time(tmp_path: Path, features: frozenset[object]) -> None:
    async with open_world(tmp_path, node_tasks=3) as world:
        observer = Observer(world)
        world.nodes.add("a", "b")
        world.sessions.connect("a", "b", features=features, behaviour=observer.work)  # type: ignore[arg-type]
        for job in range(20):
            world.job(f"job{job}", nodes=["a", "b"], concurrency=2)
        for job in range(20):
            await world.until_state("Successful", f"job{job}", within=60)
        assert observer.most_on_node == 3
        assert len(observer.order) == 40


async def test_a_busy_node_does_not_hold_up_the_others_of_a_job(tmp_path: Path) -> None:
    async with open_world(tmp_path, node_tasks=1) as world:
        world.nodes.add("a", "b", "c")
        world.sessions.connect("a")
        world.job("first", nodes=["a"])
        await world.until(lambda: world.asked("a"))
        world.sessions.connect("b", "c", behaviour=world.sessions.obey)
        world.job("second", nodes=["a", "b", "c"])
        await world.until(lambda: world.asked("c"))
        await world.until_published(lambda: world.entry("a", "second").get("reason"))
        assert world.entry("a", "second")["reason"] == "waiting for other jobs on this node"
        await world.sessions.pull("a", world.asked("a")[0])
        await world.until(lambda: len(world.asked("a")) == 2)
        await world.sessions.pull("a", world.asked("a")[1])
        await world.until_state("Successful", "second")


async def test_a_task_that_waits_for_a_busy_node_is_not_forgotten_when_that_node_dies(tmp_path: Path) -> None:
    async with open_world(tmp_path, node_tasks=1) as world:
        world.nodes.add("a")
        world.sessions.connect("a")
        world.job("first", nodes=["a"], timeoutSeconds=60)
        await world.until(lambda: world.asked("a"))
        world.job("second", nodes=["a"], timeoutSeconds=60)
        await world.until_published(lambda: world.entry("a", "second").get("reason"))
        world.sessions.disconnect("a")
        for name in ("first", "second"):
            world.clock.advance(61)
            await world.until_state("Failed", name)
            assert world.entry("a", name)["event"] == "TimeOut"
            await world.until_idle()


async def test_removed_jobs_give_up_their_places_on_a_busy_node(tmp_path: Path) -> None:
    async with open_world(tmp_path, node_tasks=1) as world:
        world.nodes.add("a")
        world.sessions.connect("a")
        world.job("first", nodes=["a"])
        await world.until(lambda: world.asked("a"))
        others = [f"job{number}" for number in range(9)]
        for name in others:
            world.job(name, nodes=["a"])
        await world.until_published(lambda: all(world.entry("a", name).get("reason") for name in others))
        # Whose turn is next is not for us to know: all but one are gone.
        for name in others[1:]:
            world.jobs.delete(name)
        await world.until_idle()
        world.jobs.delete("first")
        await world.until(lambda: [asked.job for asked in world.asked("a")] == ["first", "job0"])


async def test_what_could_not_be_sent_is_sent_when_there_is_room(world: World) -> None:
    world.nodes.add("slow", "b")
    world.sessions.connect("slow", "b")
    world.sessions.full.add("slow")
    world.job(nodes=["slow", "b"], concurrency=1)
    # Its place is another's meanwhile.
    await world.until(lambda: world.asked("b"))
    assert await world.stored_state("slow") == "Waiting"
    world.sessions.full.clear()
    await world.sessions.pull("b", world.asked("b")[0])
    world.clock.advance(2)
    await world.until(lambda: world.asked("slow"))
    (asked,) = world.asked("slow")
    assert asked.attempt is not None
    assert asked.attempt > 1
    await world.sessions.pull("slow", asked)
    await world.until_state("Successful")


async def test_a_node_that_goes_between_commit_and_send_waits_for_its_return(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    original = world.store.apply

    async def apply(changes: object) -> object:
        outcomes = await original(changes)  # type: ignore[arg-type]
        if changes and "a" in world.sessions.live:
            world.sessions.disconnect("a")
        return outcomes

    world.store.apply = apply  # type: ignore[method-assign,assignment]
    world.job(nodes=["a"])
    await world.until(lambda: "a" not in world.sessions.live)
    world.store.apply = original  # type: ignore[method-assign]
    await world.until_idle()
    assert await world.stored_state("a") == "Waiting"
    world.sessions.connect("a", behaviour=world.sessions.obey)
    await world.until_state("Successful")


async def test_a_node_that_comes_while_its_turn_is_written_is_not_left_waiting(world: World) -> None:
    world.nodes.add("a")
    original = world.store.apply

    async def apply(changes: object) -> object:
        outcomes = await original(changes)  # type: ignore[arg-type]
        if "a" not in world.sessions.live and changes:
            world.sessions.connect("a", behaviour=world.sessions.obey)
        return outcomes

    world.store.apply = apply  # type: ignore[method-assign,assignment]
    world.job(nodes=["a"])
    await world.until_state("Successful")


async def test_a_new_session_of_the_same_node_is_sent_its_task_again_once(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: len(world.asked("a")) == 1)
    # The newest session wins; the old one is not reported as closed.
    world.sessions.connect("a")
    await world.until(lambda: len(world.asked("a")) == 2)
    world.clock.advance(5)
    await world.until_idle()
    assert len(world.asked("a")) == 2
    assert {asked.attempt for asked in world.asked("a")} == {1}


async def test_a_task_that_had_no_room_on_the_new_session_is_sent_again_when_there_is(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: len(world.asked("a")) == 1)
    world.sessions.full.add("a")
    world.sessions.connect("a")
    await world.until_idle()
    assert len(world.asked("a")) == 1
    world.sessions.full.clear()
    world.clock.advance(2)
    await world.until(lambda: len(world.asked("a")) == 2)
    world.clock.advance(5)
    await world.until_idle()
    assert [asked.attempt for asked in world.asked("a")] == [1, 1]


async def test_a_job_without_check_items_is_sent_as_a_pull(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", behaviour=world.sessions.obey)
    world.job(nodes=["a"], checkItems=[])
    await world.until_state("Successful")
    assert [asked.operation for asked in world.asked("a")] == ["Pull"]


async def test_thousands_of_absent_nodes_do_not_hold_up_the_one_that_is_there(world: World) -> None:
    names = [f"n{number}" for number in range(2000)]
    world.nodes.add(*names, "here")
    world.sessions.connect("here")
    world.job(nodes=[*names, "here"], concurrency=1)
    await world.until(lambda: world.asked("here"), within=60)
    assert world.sessions.node("here").asked[0].attempt == 1


async def test_two_jobs_at_once_on_the_same_nodes(world: World) -> None:
    names = [f"n{number}" for number in range(10)]
    world.nodes.add(*names)
    world.sessions.connect(*names, behaviour=world.sessions.obey)
    world.job("one", nodes=names, concurrency=3, images=["first"])
    world.job("two", nodes=names, concurrency=3, images=["second"])
    await world.until_state("Successful", "one")
    await world.until_state("Successful", "two")
    assert all(Counter(asked.job for asked in world.asked(name)) == {"one": 1, "two": 1} for name in names)


async def test_jobs_that_come_together_have_their_turns_together(world: World) -> None:
    """The first is not done with its turns before the last has had one."""
    jobs = {f"job-{number}": [f"n{number}-{node}" for node in range(100)] for number in range(12)}
    observer = Observer(world)
    for name, nodes in jobs.items():
        world.nodes.add(*nodes)
        world.sessions.connect(*nodes, behaviour=observer.work)
        world.job(name, nodes=nodes, concurrency=len(nodes))
        # A moment between them, as an API server takes it.
        await asyncio.sleep(0.01)
    for name in jobs:
        await world.until_state("Successful", name)
    first = {name: next(at for at, (job, _) in enumerate(observer.order) if job == name) for name in jobs}
    last = {name: max(at for at, (job, _) in enumerate(observer.order) if job == name) for name in jobs}
    assert max(first.values()) < min(last.values())


async def test_a_job_that_is_refused_keeps_those_that_came_with_it_no_longer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without end, if they waited for it.
    monkeypatch.setattr(gathering, "ADMISSION_SECONDS", 3600.0)
    world.nodes.add("n")
    world.sessions.connect("n", behaviour=world.sessions.obey)
    world.job("wrong", images=[], nodes=["n"])
    world.job("sound", nodes=["n"])
    await world.until_state("Successful", "sound")
    assert world.status("wrong")["state"] == "Failed"


async def test_a_job_that_cannot_be_admitted_yet_does_not_hold_up_the_others_for_long(world: World) -> None:
    world.nodes.add("n")
    world.sessions.connect("n", behaviour=world.sessions.obey)
    world.secrets.problem = Unavailable("away")
    world.job("later", nodes=["n"], imageSecrets="default/pull")
    world.job("now", nodes=["n"])

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.05)
            world.clock.advance(1.0)

    ticking = asyncio.create_task(tick())
    await world.until_state("Successful", "now")
    ticking.cancel()
    assert not world.status("later")
