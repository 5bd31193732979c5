"""What an edit of a running job does to tasks that are under way."""

from __future__ import annotations

from tests.integration.taskmanager.world import STOCK, World


async def test_a_longer_timeout_holds_for_what_runs_and_its_nodes_are_told(world: World) -> None:
    world.nodes.add("ours")
    world.nodes.add("stock", version="v1.32.10-kubeedge-v1.23.1")
    world.sessions.connect("ours")
    world.sessions.connect("stock", features=STOCK)
    world.job(nodes=["ours", "stock"], concurrency=2, timeoutSeconds=10)
    await world.until(lambda: world.asked("ours") and world.asked("stock"))
    world.clock.advance(4)
    world.job(nodes=["ours", "stock"], concurrency=2, timeoutSeconds=100)
    await world.until(lambda: len(world.asked("ours")) == 2)
    first, again = world.asked("ours")
    assert (again.uid, again.attempt) == (first.uid, first.attempt)
    assert again.content["task"]["timeout_seconds"] == 96
    world.clock.advance(50)
    await world.until_idle()
    assert await world.stored_state("ours") == "Checking"
    # An EdgeCore would begin anew, and has no deadline of its own.
    assert len(world.asked("stock")) == 1
    await world.sessions.obey(world.sessions.node("ours"), again)
    await world.sessions.obey(world.sessions.node("stock"), world.asked("stock")[0])
    await world.until_state("Successful")


async def test_a_shorter_timeout_ends_what_runs_too_long_and_what_waits_too_long(world: World) -> None:
    world.nodes.add("runs", "away")
    world.sessions.connect("runs")
    world.job(nodes=["runs", "away"], concurrency=2, timeoutSeconds=3600)
    await world.until(lambda: world.asked("runs"))
    world.clock.advance(20)
    world.job(nodes=["runs", "away"], concurrency=2, timeoutSeconds=10)
    await world.until_state("Failed")
    assert world.entry("runs")["reason"].startswith("no last report within 10 s of dispatch")
    assert world.entry("away")["reason"] == "the node was not connected within 10 s of its turn"
    await world.until(lambda: world.sessions.node("runs").cancelled)


async def test_a_job_without_an_edit_of_its_timeout_keeps_its_deadlines(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"], timeoutSeconds=10)
    await world.until(lambda: world.asked("a"))
    world.job(nodes=["a"], timeoutSeconds=10, concurrency=5)
    await world.until_published(lambda: world.status().get("observedGeneration") == 2)
    assert len(world.asked("a")) == 1
    world.clock.advance(10)
    await world.until_state("Failed")
    assert world.entry("a")["event"] == "TimeOut"
