"""Private registries on stock nodes: parts of one credential, the Secret before the task, copies, lost reports."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from cloudhub.taskmanager.ports import SecretObject
from tests.integration.taskmanager.edgecore import EdgeCore, Registries
from tests.integration.taskmanager.world import World

OLD = "v1.27.7-kubeedge-v1.16.0"
NEW = "v1.32.10-kubeedge-v1.23.1"
USERS = {
    "one.example": ("tiger", "pass1234"),
    "two.example:5000": ("lion", "roar5678"),
    "third.example": ("puma", "hiss9999"),
}
IMAGES = ["one.example/app:1", "two.example:5000/app:1", "open.example/a:1", "one.example/web:1", "other.example/b:1"]
PARTS = [
    ["one.example/app:1", "one.example/web:1"],
    ["two.example:5000/app:1"],
    ["open.example/a:1", "other.example/b:1"],
]
SECRET = "default/secret/x"
both = pytest.mark.parametrize("version", [OLD, NEW])


def registries() -> Registries:
    return Registries(USERS)


def secret(world: World, name: str = "x", **changed: str) -> None:
    """Of all users; ``changed`` are other passwords, by user."""
    auths = {host: {"username": user, "password": changed.get(user, word)} for host, (user, word) in USERS.items()}
    world.secrets.docker(name, auths)


def images_of(task: dict[str, Any]) -> list[str]:
    content = task["content"]
    if "Item" in content:
        return list(content["Item"].get("Images", []))
    return list(content["imagePrePullTemplate"]["images"])


def document(message: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(message["content"]["data"][".dockerconfigjson"]))
    return found


def pushes(edge: EdgeCore) -> list[dict[str, Any]]:
    return [frame for frame in edge.frames if frame["route"]["operation"] == "update"]


@both
async def test_the_guides_walkthrough_works(world: World, version: str) -> None:
    world.nodes.add("a", version=version)
    world.secrets.objects["default", "x"] = SecretObject(
        "kubernetes.io/dockerconfigjson",
        {".dockerconfigjson": json.dumps({"auths": {"one.example": {"auth": "dGlnZXI6cGFzczEyMzQ="}}}).encode()},
        uid="5f0c",
        resource_version="4711",
    )
    edge = EdgeCore(world, "a", registries())
    edge.connect()
    world.job(nodes=["a"], images=["one.example/app:1"], imageSecrets="default/x")
    await world.until_state("Successful")
    (push,) = pushes(edge)
    assert push["route"] == {
        "source": "edgecontroller",
        "group": "resource",
        "operation": "update",
        "resource": SECRET,
    }
    assert push["header"]["resourceversion"] == "4711"
    assert push["content"]["metadata"] == {
        "name": "x",
        "namespace": "default",
        "uid": "5f0c",
        "resourceVersion": "4711",
    }
    assert document(push) == {
        "auths": {"one.example": {"username": "tiger", "password": "pass1234", "auth": "dGlnZXI6cGFzczEyMzQ="}},
        "server_address": "https://one.example",
        "username": "tiger",
        "password": "pass1234",
    }
    assert edge.pulled == ["one.example/app:1"]


@both
async def test_each_registry_has_a_message_of_its_own_and_the_results_are_one(world: World, version: str) -> None:
    world.nodes.add("a", version=version)
    secret(world)
    edge = EdgeCore(world, "a", registries())
    edge.connect()
    world.job(nodes=["a"], images=IMAGES, imageSecrets="default/x", checkItems=["disk"])
    await world.until_state("Successful")
    assert [images_of(task) for task in edge.tasks if task["content"].get("State") != "Checking"] == PARTS
    assert edge.kinds.count("Checking" if version == OLD else "Check") == 1
    # Each credential went to its own registry alone, and none for images that have none.
    assert edge.registries.seen == [("one.example", "tiger")] * 2 + [("two.example:5000", "lion")]
    last = edge.tasks[-1]["content"]
    assert (last["Item"]["Secret"] if version == OLD else last["imagePrePullTemplate"]["imageSecrets"]) == ""
    (entry,) = world.status()["status"]
    assert [one["image"] for one in entry["imageStatus"]] == IMAGES
    assert {one["state"] for one in entry["imageStatus"]} == {"Successful"}


@both
async def test_the_secret_comes_before_the_task_that_needs_it(world: World, version: str) -> None:
    world.nodes.add("a", version=version)
    secret(world)
    edge = EdgeCore(world, "a", registries())
    edge.connect()
    world.job(nodes=["a"], images=IMAGES[:2], imageSecrets="default/x")
    await world.until_state("Successful")
    assert edge.kinds == (
        ["Checking", "update", "Pulling", "update", "Pulling"]
        if version == OLD
        else ["update", "Check", "update", "Pull"]
    )
    assert [document(push)["username"] for push in pushes(edge)] == ["tiger", "lion"]


@both
async def test_a_failure_in_one_part_does_not_spare_the_others(world: World, version: str) -> None:
    world.nodes.add("a", version=version)
    secret(world, tiger="wrong")
    edge = EdgeCore(world, "a", registries())
    edge.connect()
    world.job(nodes=["a"], images=IMAGES, imageSecrets="default/x")
    await world.until_state("Failed")
    (entry,) = world.status()["status"]
    states = {one["image"]: one["state"] for one in entry["imageStatus"]}
    assert states == {image: "Failed" if image.startswith("one.") else "Successful" for image in IMAGES}
    reason = world.entry("a")["reason"]
    assert "one.example/app:1: " in reason
    assert "one.example/web:1: " in reason
    assert "401 Unauthorized" in reason
    assert "wrong" not in json.dumps(world.status())


async def test_what_is_known_of_some_images_shows_while_the_others_are_pulled(world: World) -> None:
    world.nodes.add("a", version=NEW)
    secret(world)
    edge = EdgeCore(world, "a", registries())
    edge.connect()
    edge.hold = asyncio.Event()
    world.job(nodes=["a"], images=IMAGES[:2], imageSecrets="default/x")
    await world.until(lambda: edge.pulls_at_once == 1)
    edge.hold.set()
    edge.hold = asyncio.Event()
    await world.until(lambda: edge.pulled and edge.pulls_at_once == 1)
    await world.until_published(lambda: world.status()["status"][0].get("imageStatus"))
    (entry,) = world.status()["status"]
    assert [(one["image"], one["state"]) for one in entry["imageStatus"]] == [(IMAGES[0], "Successful")]
    assert entry["nodeStatus"]["state"] == "Pulling"
    world.clock.advance(400)
    await world.until_state("Failed")
    (entry,) = world.status()["status"]
    assert entry["nodeStatus"]["event"] == "TimeOut"
    assert [one["image"] for one in entry["imageStatus"]] == [IMAGES[0]]
    edge.hold.set()
    await world.until_idle()


# --- EdgeCore's copy -------------------------------------------------------------------------------------------------


@both
async def test_a_copy_that_a_cloudcore_left_is_mended_first(world: World, version: str) -> None:
    world.nodes.add("a", version=version)
    secret(world)
    edge = EdgeCore(world, "a", registries())
    edge.database[SECRET] = {"data": {".dockerconfigjson": base64.b64encode(b'{"auths":{}}').decode()}}
    edge.connect()
    world.job(nodes=["a"], images=["one.example/app:1"], imageSecrets="default/x")
    await world.until_state("Successful")


async def test_a_copy_that_is_right_is_not_pushed_again(world: World) -> None:
    world.nodes.add("a", version=NEW)
    secret(world)
    edge = EdgeCore(world, "a", registries())
    edge.connect()
    for name in ("first", "second", "third"):
        world.job(name, nodes=["a"], images=["one.example/app:1"], imageSecrets="default/x")
        await world.until_state("Successful", name)
    assert edge.kinds == ["update", "Check", "Check", "Check"]
    # On another session nothing is known of it.
    edge.reconnect()
    world.job("fourth", nodes=["a"], images=["one.example/app:1"], imageSecrets="default/x")
    await world.until_state("Successful", "fourth")
    assert edge.kinds[4:] == ["update", "Check"]


@both
async def test_a_secret_that_changed_is_pushed_before_the_next_job(world: World, version: str) -> None:
    world.nodes.add("a", version=version)
    secret(world)
    edge = EdgeCore(world, "a", registries())
    edge.connect()
    world.job("first", nodes=["a"], images=["one.example/app:1"], imageSecrets="default/x")
    await world.until_state("Successful", "first")
    edge.registries.private["one.example"] = ("tiger", "new-word")
    secret(world, tiger="new-word")
    world.job("second", nodes=["a"], images=["one.example/app:1"], imageSecrets="default/x")
    await world.until_state("Successful", "second")
    assert [document(push)["password"] for push in pushes(edge)] == ["pass1234", "new-word"]


async def test_a_node_that_does_not_acknowledge_is_sent_the_task_all_the_same(world: World) -> None:
    world.nodes.add("a", version=NEW)
    secret(world)
    edge = EdgeCore(world, "a", registries())
    edge.acknowledges = False
    edge.connect()
    world.job(nodes=["a"], images=["one.example/app:1"], imageSecrets="default/x")
    await world.until(lambda: edge.kinds == ["update"])
    await world.until_idle()
    assert edge.kinds == ["update"]
    world.clock.advance(2)
    await world.until_state("Successful")


async def test_two_jobs_that_need_other_credentials_of_one_secret_come_one_after_the_other(world: World) -> None:
    world.nodes.add("a", version=NEW)
    secret(world)
    edge = EdgeCore(world, "a", registries())
    edge.hold = asyncio.Event()
    edge.connect()
    world.job("one", nodes=["a"], images=["one.example/app:1"], imageSecrets="default/x")
    await world.until(lambda: edge.pulls_at_once == 1)
    world.job("two", nodes=["a"], images=["two.example:5000/app:1"], imageSecrets="default/x")
    world.job("same", nodes=["a"], images=["one.example/web:1"], imageSecrets="default/x")
    world.job("open", nodes=["a"], images=["open.example/a:1"])
    await world.until(lambda: edge.pulls_at_once == 3)
    await world.until_idle()
    assert edge.pulls_at_once == 3
    assert await world.stored_state("a", "two") == "Waiting"
    edge.hold.set()
    for name in ("one", "same", "open", "two"):
        await world.until_state("Successful", name)
    assert len(edge.registries.seen) == 3


# --- Questions -------------------------------------------------------------------------------------------------------


async def test_a_node_that_asks_first_is_answered_with_the_part_that_it_is_at(world: World) -> None:
    world.nodes.add("a", version=OLD)
    secret(world)
    edge = EdgeCore(world, "a", registries(), asks_first=True)
    edge.connect()
    world.job(nodes=["a"], images=IMAGES, imageSecrets="default/x")
    await world.until_state("Successful")
    answers = [frame for frame in edge.frames if frame["route"]["operation"] == "response"]
    assert [document(answer)["server_address"] for answer in answers] == [
        "https://one.example",
        "https://two.example:5000",
    ]
    assert [set(document(answer)["auths"]) for answer in answers] == [{"one.example", "two.example:5000"}] * 2
    late = await edge.ask(SECRET)
    assert late["route"]["operation"] == "error"
    assert late["content"] == "secret default/x is of no task that this node runs"


async def test_the_answer_is_not_that_of_another_job_which_needs_no_credential(world: World) -> None:
    world.nodes.add("a", version=OLD)
    secret(world)
    edge = EdgeCore(world, "a", registries(), asks_first=True)
    edge.hold = asyncio.Event()
    edge.connect()
    world.job("open", nodes=["a"], images=["open.example/a:1"], imageSecrets="default/x")
    await world.until(lambda: edge.pulls_at_once == 1)
    world.job("one", nodes=["a"], images=["one.example/app:1"], imageSecrets="default/x")
    await world.until(lambda: edge.pulls_at_once == 2)
    edge.hold.set()
    await world.until_state("Successful", "open")
    await world.until_state("Successful", "one")


async def test_only_the_secret_of_a_task_that_the_node_runs_is_given_out(world: World) -> None:
    world.nodes.add("a", "b", version=NEW)
    secret(world)
    secret(world, "y")
    edge, other = EdgeCore(world, "a", registries()), EdgeCore(world, "b", registries())
    edge.hold = asyncio.Event()
    edge.connect()
    other.connect()
    world.job(nodes=["a"], images=["one.example/app:1"], imageSecrets="default/x")
    await world.until(lambda: edge.pulls_at_once)
    assert (await edge.ask(SECRET))["route"]["operation"] == "response"
    for asking, resource in ((other, SECRET), (edge, "default/secret/y"), (edge, "other/secret/x")):
        assert (await asking.ask(resource))["route"]["operation"] == "error"
    assert pushes(other) == []
    edge.hold.set()
    await world.until_state("Successful")


async def test_a_question_that_comes_before_its_task_is_sent_again_waits_for_it(world: World) -> None:
    world.nodes.add("a", version=OLD)
    secret(world)
    edge = EdgeCore(world, "a", registries(), asks_first=True)
    edge.hold = asyncio.Event()
    edge.connect()
    world.job(nodes=["a"], images=["one.example/app:1"], imageSecrets="default/x")
    await world.until(lambda: edge.pulls_at_once)
    world.jobs.listed.clear()
    await world.restart()
    question = asyncio.ensure_future(edge.ask(SECRET))
    await world.until_idle()
    world.clock.advance(1)
    await world.until_idle()
    assert not question.done()
    world.jobs.listed.set()
    await world.until_published(question.done)
    assert document(question.result())["username"] == "tiger"
    edge.hold.set()
    await world.until_state("Successful")


async def test_a_question_whose_task_is_not_sent_for_long_is_refused(world: World) -> None:
    world.nodes.add("a", version=OLD)
    secret(world)
    edge = EdgeCore(world, "a", registries(), asks_first=True)
    edge.hold = asyncio.Event()
    edge.connect()
    world.job(nodes=["a"], images=["one.example/app:1"], imageSecrets="default/x")
    await world.until(lambda: edge.pulls_at_once)
    world.jobs.listed.clear()
    await world.restart()
    question = asyncio.ensure_future(edge.ask(SECRET))

    def refused() -> bool:
        world.clock.advance(0.25)
        return question.done()

    await world.until(refused)
    assert question.result()["route"]["operation"] == "error"
    world.jobs.listed.set()
    edge.hold.set()
    await world.until_state("Successful")


@both
async def test_a_secret_that_cannot_be_read_fails_the_task_with_the_cause(world: World, version: str) -> None:
    world.nodes.add("a", version=version)
    secret(world)
    edge = EdgeCore(world, "a", registries())
    edge.connect()
    edge.acknowledges = False
    world.job(nodes=["a"], images=IMAGES, imageSecrets="default/x", checkItems=[])
    await world.until(lambda: SECRET in edge.database)
    edge.database[SECRET]["data"][".dockerconfigjson"] = base64.b64encode(b"{}").decode()
    found = await edge._pull([], "default/nothing")
    assert (
        found == "failed to get secret default/nothing, err: secret default/nothing is of no task that this node runs"
    )
    if version == OLD:
        await edge._report_v1alpha1("job", "Pull", "Success", "", "[]")
    else:
        await edge._report_v1alpha2("operations.kubeedge.io/v1alpha2/imageprepulljob/job/node/a", "Pull", found, "null")
    await world.until_state("Failed")
    assert world.entry("a")["reason"] == (
        "the node reports success, but no image: its EdgeCore does so when it cannot read the Secret default/x"
        if version == OLD
        else found
    )


# --- Restarts, lost and repeated reports -----------------------------------------------------------------------------


@both
async def test_after_a_restart_only_what_is_missing_is_asked_for(world: World, version: str) -> None:
    world.nodes.add("a", version=version)
    secret(world)
    edge = EdgeCore(world, "a", registries())
    edge.hold = asyncio.Event()
    edge.connect()
    world.job(nodes=["a"], images=IMAGES, imageSecrets="default/x")
    await world.until(lambda: edge.pulls_at_once == 1)
    edge.hold.set()
    edge.hold = asyncio.Event()
    await world.until(lambda: edge.pulled == PARTS[0] and edge.pulls_at_once == 1)
    await world.restart()
    count = len(edge.tasks)
    edge.hold.set()
    edge.hold = None
    await world.until_state("Successful")
    assert all(PARTS[0][0] not in images_of(task) for task in edge.tasks[count:])


@both
async def test_a_parts_report_that_was_lost_is_asked_for_again(world: World, version: str) -> None:
    world.nodes.add("a", version=version)
    secret(world)
    edge = EdgeCore(world, "a", registries())
    edge.connect()
    edge.loses = True
    world.job(nodes=["a"], images=IMAGES, imageSecrets="default/x", checkItems=[])
    await world.until(lambda: edge.pulled == PARTS[0])
    edge.loses = False
    edge.reconnect()
    await world.until_state("Successful")
    assert [images_of(task) for task in edge.tasks] == [PARTS[0], *PARTS]


@both
async def test_a_parts_report_that_comes_twice_counts_once(world: World, version: str) -> None:
    world.nodes.add("a", version=version)
    secret(world)
    edge = EdgeCore(world, "a", registries())
    edge.told_twice = True
    edge.connect()
    world.job(nodes=["a"], images=IMAGES, imageSecrets="default/x", checkItems=[])
    await world.until_state("Successful")
    assert [images_of(task) for task in edge.tasks] == PARTS
    (entry,) = world.status()["status"]
    assert {one["state"] for one in entry["imageStatus"]} == {"Successful"}


@both
async def test_a_reconnect_in_every_part_brings_the_task_to_the_same_end(world: World, version: str) -> None:
    world.nodes.add("a", version=version)
    secret(world, lion="wrong")
    edge = EdgeCore(world, "a", registries())
    edge.hold = asyncio.Event()
    edge.connect()
    world.job(nodes=["a"], images=IMAGES, imageSecrets="default/x")
    for part in PARTS:
        await world.until(lambda part=part: edge.pulls_at_once == 1 and images_of(edge.tasks[-1]) == part)  # type: ignore[misc]
        edge.reconnect()
        await world.until(lambda: edge.pulls_at_once == 2)
        edge.hold.set()
        edge.hold = asyncio.Event()
    await world.until_state("Failed")
    (entry,) = world.status()["status"]
    states = {one["image"]: one["state"] for one in entry["imageStatus"]}
    assert states == {image: "Failed" if image.startswith("two.") else "Successful" for image in IMAGES}


async def test_a_node_that_is_silent_of_an_image_it_was_asked_for_has_failed_it(world: World) -> None:
    world.nodes.add("a", version=OLD)
    secret(world)
    edge = EdgeCore(world, "a", registries(), knows=frozenset())
    edge.connect()
    world.job(nodes=["a"], images=IMAGES[:4], imageSecrets="default/x", checkItems=[])
    await world.until(lambda: edge.kinds)
    edge.knows = frozenset({"v1alpha1"})
    await edge._report_v1alpha1("job", "Pull", "Success", "", '[{"image":"one.example/app:1","state":"Successful"}]')
    await world.until_state("Failed")
    (entry,) = world.status()["status"]
    assert [(one["image"], one["state"]) for one in entry["imageStatus"]] == [
        ("one.example/app:1", "Successful"),
        ("two.example:5000/app:1", "Successful"),
        ("open.example/a:1", "Successful"),
        ("one.example/web:1", "Failed"),
    ]


async def test_no_credential_outlives_its_job_in_the_hub(world: World) -> None:
    world.nodes.add("a", version=NEW)
    secret(world)
    edge = EdgeCore(world, "a", registries())
    edge.connect()
    world.job(nodes=["a"], images=IMAGES, imageSecrets="default/x")
    await world.until_state("Successful")
    kept = b"".join(file.read_bytes() for file in world.path.parent.glob("queue.db*"))
    for word in ("pass1234", "roar5678"):
        assert word.encode() not in kept
        assert word not in json.dumps([status for _, status in world.jobs.writes])
        assert word not in repr(world.manager._stock._peers)
        assert word not in repr(world.manager._stock._pushes)
