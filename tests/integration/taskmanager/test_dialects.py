"""EdgeCore in both of KubeEdge's dialects: which one a node is spoken to in, and what it may lose, repeat, not say."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from shared.wire import Group, Source, new_message
from tests.integration.taskmanager.edgecore import EdgeCore, Registries
from tests.integration.taskmanager.world import World, open_world

OLD = "v1.27.7-kubeedge-v1.16.0"
NEW = "v1.32.10-kubeedge-v1.23.1"
IMAGES = ["registry.example/team/app:v1", "registry.example/team/web:v2"]
V1ALPHA1_ALONE = frozenset({"v1alpha1"})
V1ALPHA2_ALONE = frozenset({"v1alpha2"})


async def test_v1alpha1_messages_are_kubeedges_to_the_last_key(world: World) -> None:
    world.nodes.add("old", version=OLD)
    edge = EdgeCore(world, "old", knows=V1ALPHA1_ALONE)
    edge.connect()
    world.job(nodes=["old"], images=IMAGES, checkItems=["disk", "cpu"], retryTimes=2)
    await world.until_state("Successful")
    checking, pulling = edge.frames
    for frame in (checking, pulling):
        assert set(frame["header"]) == {"msg_id", "timestamp"}
        assert frame["route"] == {
            "source": "taskmanager",
            "group": "taskmanager",
            "operation": "prepull",
            "resource": "prepull/job/node/old",
        }
    assert checking["content"] == {
        "TaskID": "job",
        "Type": "prepull",
        "State": "Checking",
        "Item": {"CheckItem": ["disk", "cpu"]},
    }
    assert pulling["content"] == {
        "TaskID": "job",
        "Type": "prepull",
        "State": "Pulling",
        "Item": {
            "Images": IMAGES,
            "NodeName": "old",
            "Secret": "",
            "RetryTimes": 2,
            "CheckItems": ["disk", "cpu"],
        },
    }
    (entry,) = world.status()["status"]
    assert [(one["image"], one["state"]) for one in entry["imageStatus"]] == [(one, "Successful") for one in IMAGES]


@pytest.mark.parametrize(
    ("version", "kinds"),
    [
        ("v1.27.7-kubeedge-v1.16.0", ["Checking", "Pulling"]),
        ("v1.30.7-kubeedge-v1.20.4-vendor.3+abc", ["Checking", "Pulling"]),
        ("v1.22.6-kubeedge-v1.12.0-beta.0", ["Checking", "Pulling"]),
        ("v1.30.7-kubeedge-v1.21.0-beta.0", ["Check"]),
        ("v1.32.10-kubeedge-v1.23.1", ["Check"]),
    ],
)
async def test_the_version_of_the_node_says_its_dialect(world: World, version: str, kinds: list[str]) -> None:
    world.nodes.add("a", version=version)
    edge = EdgeCore(world, "a")
    edge.connect()
    world.job(nodes=["a"], images=IMAGES)
    await world.until_state("Successful")
    assert edge.kinds == kinds


async def test_a_job_without_checks_is_pulled_at_once(world: World) -> None:
    world.nodes.add("old", version=OLD)
    world.nodes.add("new", version=NEW)
    old, new = EdgeCore(world, "old", knows=V1ALPHA1_ALONE), EdgeCore(world, "new", knows=V1ALPHA2_ALONE)
    old.connect()
    new.connect()
    world.job(nodes=["old", "new"], checkItems=[], concurrency=2)
    await world.until_state("Successful")
    assert (old.kinds, new.kinds) == (["Pulling"], ["Pull"])


async def test_a_failed_check_is_told_in_readable_words(world: World) -> None:
    world.nodes.add("old", version=OLD)
    edge = EdgeCore(world, "old", knows=V1ALPHA1_ALONE)
    edge.check = "current disk usage is 91.20%, which exceeds the maximum usage of 80%"
    edge.connect()
    world.job(nodes=["old"])
    await world.until_state("Failed")
    assert world.entry("old")["reason"] == f"disk: {edge.check}"
    assert (world.entry("old")["event"], world.entry("old")["action"]) == ("Check", "Failure")
    assert edge.kinds == ["Checking"]


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_one_image_that_cannot_be_pulled_is_named_with_its_reason(world: World, version: str) -> None:
    world.nodes.add("a", version=version)
    edge = EdgeCore(world, "a", Registries({"private.example": ("tiger", "pass1234")}))
    edge.connect()
    world.job(nodes=["a"], images=["registry.example/app:1", "private.example/app:1"])
    await world.until_state("Failed")
    (entry,) = world.status()["status"]
    good, bad = entry["imageStatus"]
    assert good["state"] == "Successful"
    assert (bad["state"], "401 Unauthorized" in bad["reason"]) == ("Failed", True)


# --- Nodes of which nothing is known ----------------------------------------------------------------------------------


async def test_an_unknown_node_is_asked_in_v1alpha2_and_if_it_is_silent_in_v1alpha1(world: World) -> None:
    world.nodes.add("a")
    edge = EdgeCore(world, "a", knows=V1ALPHA1_ALONE)
    edge.connect()
    world.job(nodes=["a"], images=IMAGES)
    await world.until(lambda: edge.kinds == ["Check"])
    world.clock.advance(19)
    await world.until_idle()
    assert edge.kinds == ["Check"]
    world.clock.advance(2)
    await world.until_state("Successful")
    assert edge.kinds == ["Check", "Checking", "Pulling"]
    # What it answered in is remembered.
    world.job("later", nodes=["a"], images=IMAGES)
    await world.until_state("Successful", "later")
    assert edge.kinds[3:] == ["Checking", "Pulling"]


async def test_all_tasks_of_an_unknown_node_are_asked_otherwise_though_it_answers_the_first(world: World) -> None:
    world.nodes.add("a")
    edge = EdgeCore(world, "a", knows=V1ALPHA1_ALONE)
    edge.connect()
    world.job("one", nodes=["a"])
    world.job("two", nodes=["a"])
    await world.until(lambda: edge.kinds == ["Check", "Check"])
    world.clock.advance(21)
    await world.until_state("Successful", "one")
    await world.until_state("Successful", "two")


async def test_an_unknown_node_that_answers_in_v1alpha2_is_never_asked_otherwise(world: World) -> None:
    world.nodes.add("a", version="v1.30.7+k3s1")
    edge = EdgeCore(world, "a")
    edge.hold = asyncio.Event()
    edge.connect()
    world.job(nodes=["a"], images=IMAGES)
    await world.until(lambda: len(edge.told) == 1)
    world.clock.advance(100)
    await world.until_idle()
    assert edge.kinds == ["Check"]
    edge.hold.set()
    await world.until_state("Successful")


async def test_an_unknown_node_is_sounded_out_with_checks_of_nothing_when_there_are_none(world: World) -> None:
    world.nodes.add("a")
    edge = EdgeCore(world, "a")
    edge.hold = asyncio.Event()
    edge.connect()
    world.job(nodes=["a"], images=IMAGES, checkItems=[])
    await world.until(lambda: edge.pulls_at_once)
    world.clock.advance(100)
    await world.until_idle()
    assert edge.kinds == ["Check"]
    assert edge.tasks[0]["content"]["imagePrePullTemplate"]["checkItems"] == []
    edge.hold.set()
    await world.until_state("Successful")
    world.job("later", nodes=["a"], images=IMAGES, checkItems=[])
    await world.until_state("Successful", "later")
    assert edge.kinds == ["Check", "Pull"]


async def test_a_job_with_little_time_is_asked_otherwise_in_half_of_it(world: World) -> None:
    world.nodes.add("a")
    edge = EdgeCore(world, "a", knows=V1ALPHA1_ALONE)
    edge.connect()
    world.job(nodes=["a"], timeoutSeconds=10)
    await world.until(lambda: edge.kinds == ["Check"])
    world.clock.advance(6)
    await world.until_state("Successful")


async def test_the_other_dialect_is_tried_after_a_restart_too(world: World) -> None:
    world.nodes.add("a")
    edge = EdgeCore(world, "a", knows=V1ALPHA1_ALONE)
    edge.connect()
    world.job(nodes=["a"])
    await world.until(lambda: edge.kinds == ["Check"])
    await world.restart()
    await world.until(lambda: edge.kinds == ["Check", "Check"])
    world.clock.advance(25)
    await world.until_state("Successful")
    assert edge.kinds == ["Check", "Check", "Checking", "Pulling"]


async def test_a_node_that_is_slow_and_does_both_reports_once(world: World) -> None:
    world.nodes.add("a")
    edge = EdgeCore(world, "a")
    edge.loses = True
    edge.connect()
    world.job(nodes=["a"], images=IMAGES)
    await world.until(lambda: len(edge.told) == 2)
    edge.loses = False
    world.clock.advance(25)
    await world.until_state("Successful")
    await edge.say_again()
    await world.until_idle()
    assert world.status()["counts"]["succeeded"] == 1


async def test_the_time_until_the_other_dialect_is_a_setting(tmp_path: Path) -> None:
    async with open_world(tmp_path, dialect_timeout=3) as world:
        world.nodes.add("a")
        edge = EdgeCore(world, "a", knows=V1ALPHA1_ALONE)
        edge.connect()
        world.job(nodes=["a"])
        await world.until(lambda: edge.kinds == ["Check"])
        world.clock.advance(4)
        await world.until_state("Successful")


# --- Lost, late, twice ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [OLD, NEW, ""])
async def test_a_task_whose_reports_were_lost_is_sent_again_when_the_node_is_back(world: World, version: str) -> None:
    world.nodes.add("a", version=version)
    edge = EdgeCore(world, "a")
    edge.loses = True
    edge.connect()
    world.job(nodes=["a"], images=IMAGES)
    await world.until(lambda: edge.told)
    edge.loses = False
    edge.reconnect()
    await world.until_state("Successful")


async def test_what_was_asked_last_is_asked_again(world: World) -> None:
    world.nodes.add("old", version=OLD)
    edge = EdgeCore(world, "old", knows=V1ALPHA1_ALONE)
    edge.hold = asyncio.Event()
    edge.connect()
    world.job(nodes=["old"])
    await world.until(lambda: edge.pulls_at_once)
    edge.reconnect()
    await world.until(lambda: edge.pulls_at_once == 2)
    assert edge.kinds == ["Checking", "Pulling", "Pulling"]
    edge.hold.set()
    await world.until_state("Successful")


async def test_a_check_that_was_reported_when_the_hub_died_is_gone_on_from(world: World) -> None:
    world.nodes.add("old", version=OLD)
    edge = EdgeCore(world, "old", knows=V1ALPHA1_ALONE)
    edge.hold = asyncio.Event()
    edge.connect()
    world.job(nodes=["old"])
    await world.until(lambda: edge.pulls_at_once)
    await world.restart()
    await world.until(lambda: edge.kinds == ["Checking", "Pulling", "Pulling"])
    edge.hold.set()
    await world.until_state("Successful")


async def test_a_pull_that_finds_no_room_is_asked_for_a_moment_later(world: World) -> None:
    world.nodes.add("old", version=OLD)
    edge = EdgeCore(world, "old", knows=frozenset())
    edge.connect()
    world.job(nodes=["old"])
    await world.until(lambda: edge.kinds == ["Checking"])
    world.sessions.full.add("old")
    edge.knows = V1ALPHA1_ALONE
    await edge._v1alpha1(edge.frames[0]["content"])
    await world.until_idle()
    assert edge.kinds == ["Checking"]
    world.sessions.full.clear()
    world.clock.advance(1)
    await world.until_state("Successful")


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_reports_that_come_twice_or_late_change_nothing(world: World, version: str) -> None:
    world.nodes.add("a", "b", version=version)
    edge, other = EdgeCore(world, "a"), EdgeCore(world, "b")
    edge.told_twice = True
    other.hold = asyncio.Event()
    edge.connect()
    other.connect()
    world.job(nodes=["a", "b"], images=IMAGES, concurrency=2)
    await world.until_published(lambda: world.entry("a").get("state") == "Successful")
    before = world.entry("a")
    kinds = list(edge.kinds)
    await edge.say_again()
    edge.reconnect()
    await world.until_idle()
    assert world.entry("a") == before
    assert edge.kinds == kinds
    other.hold.set()
    await world.until_state("Successful")
    assert world.status()["counts"]["succeeded"] == 2


async def test_a_report_of_another_node_is_not_this_nodes_to_give(world: World) -> None:
    world.nodes.add("a", "b", version=OLD)
    edge, other = EdgeCore(world, "a", knows=frozenset()), EdgeCore(world, "b", knows=frozenset())
    edge.connect()
    other.connect()
    world.job(nodes=["a", "b"], concurrency=2)
    await world.until(lambda: edge.kinds and other.kinds)
    foreign = new_message(
        source=Source.WEBSOCKET,
        group=Group.HUB,
        resource="task/job/node/a",
        operation="prepull",
        content={"NodeName": "a", "Event": "Pull", "Action": "Failure", "Reason": "liar"},
    )
    assert world.sessions.manager is not None
    await world.sessions.manager.messages_received(world.sessions.live["b"], (foreign,))
    await world.until_idle()
    assert await world.stored_state("a") == await world.stored_state("b") == "Checking"


async def test_a_sign_of_life_ends_the_guessing_and_nothing_else(world: World) -> None:
    world.nodes.add("a")
    edge = EdgeCore(world, "a", knows=frozenset())
    edge.connect()
    world.job(nodes=["a"])
    await world.until(lambda: edge.kinds == ["Check"])
    await edge._report_v1alpha1("job", "Init", "Success", "", "")
    await world.until_idle()
    assert await world.stored_state("a") == "Checking"
    edge.knows = V1ALPHA1_ALONE
    edge.reconnect()
    await world.until_state("Successful")
    assert edge.kinds == ["Check", "Checking", "Pulling"]


# --- Success without images, and silence ------------------------------------------------------------------------------


@pytest.mark.parametrize("external", ["[]", "null", ""])
async def test_a_success_without_images_is_not_believed(world: World, external: str) -> None:
    world.nodes.add("old", version=OLD)
    edge = EdgeCore(world, "old", knows=frozenset())
    edge.connect()
    world.job(nodes=["old"])
    await world.until(lambda: edge.kinds)
    await edge._report_v1alpha1("job", "Pull", "Success", "", external)
    await world.until_state("Failed")
    assert world.entry("old")["reason"] == "the node reports success, but no image"


@pytest.mark.parametrize(
    ("version", "cause"),
    [
        ("v1.22.6-kubeedge-v1.15.1", "its EdgeCore 1.15 is too old: ImagePrePullJob needs KubeEdge 1.16 or later"),
        ("v1.27.7-kubeedge-v1.18.2", "see the log of its EdgeCore 1.18"),
        (NEW, "is modules.taskManager enabled in its edgecore.yaml (KubeEdge 1.21+)?"),
        (
            "",
            "is modules.taskManager enabled in its edgecore.yaml (KubeEdge 1.21+), or is its EdgeCore too old "
            "(before 1.16)?",
        ),
    ],
)
@pytest.mark.parametrize("checks", [["disk"], []])
async def test_the_reason_of_a_node_that_never_answered_names_the_likely_cause(
    world: World, version: str, cause: str, checks: list[str]
) -> None:
    world.nodes.add("mute", version=version)
    edge = EdgeCore(world, "mute", knows=frozenset())
    edge.connect()
    world.job(nodes=["mute"], timeoutSeconds=60, checkItems=checks)
    await world.until(lambda: edge.kinds)
    world.clock.advance(61)
    await world.until_state("Failed")
    assert world.entry("mute")["reason"] == f"no last report within 60 s of dispatch, nor any other: {cause}"


async def test_a_node_that_has_changed_its_dialect_unseen_is_found_out(world: World) -> None:
    world.nodes.add("a")
    edge = EdgeCore(world, "a", knows=V1ALPHA2_ALONE)
    edge.connect()
    world.job("first", nodes=["a"])
    await world.until_state("Successful", "first")
    edge.knows = V1ALPHA1_ALONE
    world.job("lost", nodes=["a"], timeoutSeconds=60)
    await world.until(lambda: len(edge.kinds) == 2)
    world.clock.advance(61)
    await world.until_state("Failed", "lost")
    world.job("third", nodes=["a"])
    await world.until(lambda: len(edge.kinds) == 3)
    world.clock.advance(25)
    await world.until_state("Successful", "third")


@pytest.mark.parametrize(
    ("resource", "content"),
    [
        ("task/job/node/old", None),
        ("task/job/node/old", {"Event": "Pull"}),
        ("task/job/node/old", {"Event": "Upgrade", "Action": "Success"}),
        ("task/job/node/old", {"Event": "Pull", "Action": "Success", "ExternalMessage": "{"}),
        ("task/job/node/old/more", {"Event": "Pull", "Action": "Failure"}),
        ("prepull/job/node/old", {"Event": "Pull", "Action": "Failure"}),
    ],
)
async def test_a_v1alpha1_report_that_cannot_be_read_is_counted_and_changes_nothing(
    world: World, resource: str, content: Any
) -> None:
    world.nodes.add("old", version=OLD)
    edge = EdgeCore(world, "old", knows=frozenset())
    edge.connect()
    world.job(nodes=["old"])
    await world.until(lambda: edge.kinds)
    await edge._report(resource, "prepull", content)
    await world.until_idle()
    assert await world.stored_state("old") == "Checking"
    assert world.metrics.refusals_total.value("malformed") == 1
