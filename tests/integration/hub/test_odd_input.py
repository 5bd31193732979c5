"""Jobs and reports that no one would write on purpose: each ends, and says why."""

from __future__ import annotations

import json

from shared.wire import MAX_FRAME_BYTES, Dispatch
from tests.integration.taskmanager.world import STOCK, World

IMAGE = "registry.example/team/app:v1"


async def test_a_node_name_that_no_database_can_hold_is_refused_with_the_job(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a\x00b", "a\x00c", "a"])
    await world.until_state("Failed")
    assert "spec.imagePrePullTemplate.nodeNames[0]" in world.status()["reason"]
    assert world.asked("a") == []


async def test_a_job_of_many_images_with_credentials_can_be_read_by_its_nodes(world: World) -> None:
    images = [f"registry.example/team/app-{number}:v1" for number in range(1000)]
    world.secrets.docker("many", {"registry.example": {"username": "tiger", "password": "secret-4711"}})
    world.nodes.add("a")
    world.sessions.connect("a", behaviour=world.sessions.obey)
    world.job(nodes=["a"], images=images, imageSecrets="default/many")
    await world.until_state("Successful")
    task = Dispatch.model_validate(world.asked("a")[0].content).task
    assert task is not None
    assert len(task.credentials) == 1000


async def test_a_job_whose_message_no_node_would_read_fails_with_its_size(world: World) -> None:
    images = [f"registry.example/team/app-{number}:v1" for number in range(200)]
    password = "secret-4711" + "x" * 8000
    world.secrets.docker("long", {"registry.example": {"username": "tiger", "password": password}})
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"], images=images, imageSecrets="default/long")
    await world.until_state("Failed")
    reason = world.status()["reason"]
    assert str(MAX_FRAME_BYTES) in reason
    assert "spec.imagePrePullTemplate.images" in reason
    assert "secret-4711" not in reason
    assert world.asked("a") == []


async def test_a_secret_that_has_grown_too_large_while_the_hub_was_down_stops_the_job(world: World) -> None:
    images = [f"registry.example/team/app-{number}:v1" for number in range(200)]
    world.secrets.docker("grows", {"registry.example": {"username": "tiger", "password": "short"}})
    world.nodes.add("a", "b")
    world.sessions.connect("a", "b")
    world.job(nodes=["a", "b"], images=images, imageSecrets="default/grows")
    await world.until(lambda: world.asked("a"))
    world.secrets.docker("grows", {"registry.example": {"username": "tiger", "password": "x" * 9000}})
    await world.restart()
    await world.until(lambda: len(world.asked("a")) == 2)
    await world.sessions.obey(world.sessions.node("a"), world.asked("a")[0])
    await world.until_state("Failed")
    assert str(MAX_FRAME_BYTES) in world.status()["reason"]
    assert world.asked("b") == []


async def test_a_stock_nodes_report_of_an_earlier_job_of_the_name_says_nothing_of_the_later(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", features=STOCK)
    world.job(nodes=["a"], images=["registry.example/old:v1"])
    await world.until(lambda: world.asked("a"))
    old = world.asked("a")[0]
    world.jobs.delete("job")
    world.job(nodes=["a"], images=["registry.example/new:v1"])
    await world.until(lambda: len(world.asked("a")) == 2)
    # It names no uid and no attempt, but its images are not this job's.
    await world.sessions.pull("a", old)
    assert await world.stored_state("a") == "Checking"
    await world.sessions.pull("a", world.asked("a")[1])
    await world.until_state("Successful")


async def test_a_stock_node_that_failed_before_any_image_is_still_heard(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", features=STOCK)
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    await world.sessions.report(
        "a", "job", action="Pull", content={"action": "Pull", "succ": False, "reason": "no runtime", "extend": "null"}
    )
    await world.until_state("Failed")
    assert world.entry("a")["reason"] == "no runtime"


async def test_a_reason_that_is_very_long_is_cut_and_the_report_counts(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", features=STOCK)
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    results = [{"image": IMAGE, "status": "False", "reason": "an answer of a proxy: " + "<html>" * 2000}]
    report = {"action": "Pull", "succ": False, "reason": "x" * 10_000, "extend": json.dumps(results)}
    await world.sessions.report("a", "job", action="Pull", content=report)
    await world.until_state("Failed")
    entry = world.entry("a")
    assert entry["event"] == "Pull"
    assert len(entry["reason"]) == 512
    assert len(json.dumps(world.status())) < 10_000


async def test_texts_with_control_characters_in_a_report_do_no_harm(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    uid = world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    await world.sessions.report("a", "job", action="Check", uid="x\x00y", attempt=1)
    await world.sessions.report(
        "a", "job", action="Pull", succ=False, uid=uid, attempt=1,
        reason="bad \x00\x1b[31m\ufffe reason", images=[(IMAGE, False, "x\x00y")],
    )  # fmt: skip
    await world.until_state("Failed")
    assert world.entry("a")["event"] == "Pull"
