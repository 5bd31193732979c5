"""The rows of the design's table of decisions that are the taskManager's, one after the other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloudhub.taskmanager.ports import Forbidden, SecretObject, Unavailable
from shared.jobs import JobStatus
from tests.integration.taskmanager.world import OURS, STOCK, World

IMAGE = "registry.cn-hangzhou.aliyuncs.com/jilimoxing/test:nginx"


async def test_the_guides_job_ends_with_the_guides_status(world: World) -> None:
    world.nodes.add("edge.kubeedge")
    world.secrets.docker(
        "my-secret", {"registry.cn-hangzhou.aliyuncs.com": {"username": "tiger", "password": "pass1234"}}
    )
    world.sessions.connect("edge.kubeedge", behaviour=world.sessions.obey)
    world.job(
        "imageprepull-example",
        nodes=["edge.kubeedge"],
        images=[IMAGE],
        concurrency=1,
        failureTolerate="0.1",
        imageSecrets="default/my-secret",
        retryTimes=1,
        timeoutSeconds=120,
    )
    await world.until_state("Successful", "imageprepull-example")
    status = world.status("imageprepull-example")
    time = "2023-11-14T22:13:20Z"
    assert status["time"].startswith("2023-11-14T22:13:2")
    guide = {key: status[key] for key in ("action", "event", "state", "status")}
    guide["status"][0]["nodeStatus"]["time"] = time
    assert guide == {
        "action": "Success",
        "event": "Pull",
        "state": "Successful",
        "status": [
            {
                "imageStatus": [{"image": IMAGE, "state": "Successful"}],
                "nodeStatus": {
                    "action": "Success",
                    "event": "Pull",
                    "nodeName": "edge.kubeedge",
                    "state": "Successful",
                    "time": time,
                },
            }
        ],
    }
    assert "reason" not in status
    assert JobStatus.model_validate(status).dump() == status


# --- spec is wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"images": []}, ["images", "[]"]),
        ({"images": ["no image!"]}, ["images", "no image!"]),
        ({"labelSelector": {}}, ["labelSelector", "nodeNames"]),
        ({"nodeNames": []}, ["neither nodeNames nor labelSelector"]),
        ({"nodes": ["b"]}, ["nodes", "nodeNames"]),
        ({"failureTolerate": "2"}, ["failureTolerate", '"2"']),
        ({"checkItems": ["gpu"]}, ["checkItems", "gpu"]),
        ({"nodeNames": [], "labelSelector": {"matchLabels": {"a": "b"}}}, ["labelSelector", "matches none"]),
        ({"imageSecrets": "default/absent"}, ["imageSecrets", "default/absent", "no such Secret"]),
        ({"imageSecrets": "default/opaque"}, ["imageSecrets", "default/opaque", "Opaque", "dockerconfigjson"]),
        ({"imageSecrets": "default/broken"}, ["imageSecrets", "default/broken", "no JSON"]),
        ({"imageSecrets": "my-secret"}, ["imageSecrets", "my-secret", "namespace/name"]),
    ],
)
async def test_a_wrong_spec_fails_the_job_in_words_and_touches_no_node(
    world: World, template: dict[str, Any], words: list[str]
) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", behaviour=world.sessions.obey)
    world.secrets.objects["default", "opaque"] = SecretObject("Opaque", {"password": b"hunter2"})
    world.secrets.objects["default", "broken"] = SecretObject(
        "kubernetes.io/dockerconfigjson", {".dockerconfigjson": b"hunter2"}
    )
    world.jobs.apply("job", {"images": [IMAGE], "nodeNames": ["a"], **template})
    await world.until_state("Failed")
    status = world.status()
    for word in words:
        assert word in status["reason"]
    assert (status["event"], status["action"], status["status"]) == ("Init", "Failure", [])
    assert status["counts"] == {"total": 0, "pending": 0, "running": 0, "succeeded": 0, "failed": 0}
    await world.until_idle()
    assert world.asked("a") == []
    assert "hunter2" not in json.dumps(status)


async def test_a_secret_that_may_not_be_read_fails_the_job(world: World) -> None:
    world.secrets.problem = Forbidden("get secrets default/x: forbidden")
    world.nodes.add("a")
    world.job(nodes=["a"], imageSecrets="default/x")
    await world.until_state("Failed")
    assert "forbidden" in world.status()["reason"]


async def test_a_secret_that_cannot_be_read_now_is_read_later(world: World) -> None:
    world.secrets.docker("x", {})
    world.secrets.problem = Unavailable("the API is away")
    world.nodes.add("a")
    world.sessions.connect("a", behaviour=world.sessions.obey)
    world.job(nodes=["a"], imageSecrets="default/x")
    await world.until(lambda: world.secrets.reads > 0)
    world.secrets.problem = None
    await world.until_state("Successful")


async def test_nodes_is_another_word_for_node_names(world: World) -> None:
    world.nodes.add("a", "b")
    world.sessions.connect("a", "b", behaviour=world.sessions.obey)
    world.jobs.apply("job", {"images": ["image1", "image2"], "nodes": ["a", "b"], "concurrency": 2})
    await world.until_state("Successful")
    assert world.status()["counts"]["succeeded"] == 2


# --- nodes ----------------------------------------------------------------------------------------------------------


async def test_a_named_node_that_nobody_knows_has_failed_and_counts(world: World) -> None:
    world.nodes.add("a", "b")
    world.nodes.add("cloud", edge=False)
    world.sessions.connect("a", "b", behaviour=world.sessions.obey)
    world.job(nodes=["a", "nobody", "cloud", "b"], failureTolerate="0.5")
    await world.until_state("Successful")
    assert "no Node nobody" in world.entry("nobody")["reason"]
    assert "node-role.kubernetes.io/edge" in world.entry("cloud")["reason"]
    assert (world.entry("nobody")["state"], world.entry("nobody")["action"]) == ("Failed", "Failure")
    assert world.status()["counts"] == {"total": 4, "pending": 0, "running": 0, "succeeded": 2, "failed": 2}
    assert world.status()["reason"] == "2 of 4 nodes failed, not more than failureTolerate 0.5"


async def test_a_label_selector_is_evaluated_over_edge_nodes(world: World) -> None:
    world.nodes.add("a", "b", zone="eu")
    world.nodes.add("c", zone="us")
    world.sessions.connect("a", "b", "c", behaviour=world.sessions.obey)
    world.jobs.apply("job", {"images": [IMAGE], "labelSelector": {"matchLabels": {"zone": "eu"}}, "concurrency": 5})
    await world.until_state("Successful")
    assert world.status()["counts"]["total"] == 2
    assert world.asked("c") == []


async def test_defaults(world: World) -> None:
    names = [f"n{number}" for number in range(5)]
    world.nodes.add(*names)
    world.sessions.connect(*names)
    world.jobs.apply("job", {"images": [IMAGE], "nodeNames": names})
    await world.until(lambda: world.asked("n0"))
    await world.until_idle()
    (asked,) = world.asked("n0")
    assert asked.content["imagePrePullTemplate"] == {
        "images": [IMAGE],
        "checkItems": ["disk"],
        "imageSecrets": "",
        "retryTimes": 0,
    }
    assert asked.content["task"]["timeout_seconds"] == 300
    assert sum(len(world.asked(name)) for name in names) == 1
    job = await world.store.job_named("job")
    assert job is not None
    assert (job.concurrency, job.failure_tolerate, job.timeout_seconds) == (1, "0.1", 300)


async def test_a_node_that_is_not_connected_waits_outside_of_the_concurrency(world: World) -> None:
    world.nodes.add("away", "a", "b")
    world.sessions.connect("a", "b", behaviour=world.sessions.obey)
    world.job(nodes=["away", "a", "b"], concurrency=1, timeoutSeconds=60)
    await world.until_published(lambda: world.status().get("counts", {}).get("succeeded") == 2)
    assert world.entry("away")["state"] == "Init"
    assert "waiting for the node to connect" in world.entry("away")["reason"]
    world.sessions.connect("away", behaviour=world.sessions.obey)
    await world.until_state("Successful")


async def test_a_node_that_does_not_connect_in_time_fails_with_timeout(world: World) -> None:
    world.nodes.add("away", "a")
    world.sessions.connect("a", behaviour=world.sessions.obey)
    world.job(nodes=["away", "a"], timeoutSeconds=60, failureTolerate="0.5")
    await world.until_published(lambda: world.entry("away").get("reason", "").startswith("waiting"))
    world.clock.advance(58)
    await world.until_idle()
    assert world.entry("away")["state"] == "Init"
    world.clock.advance(3)
    await world.until_state("Successful")
    entry = world.entry("away")
    assert (entry["state"], entry["event"], entry["action"]) == ("Failed", "TimeOut", "Failure")
    assert entry["reason"] == "the node was not connected within 60 s of its turn"


async def test_a_node_that_connects_goes_before_those_whose_turn_has_not_come(world: World) -> None:
    names = [f"n{number}" for number in range(4)]
    world.nodes.add(*names)
    world.sessions.connect(*names[1:])
    world.job(nodes=names, concurrency=1)
    await world.until(lambda: world.asked("n1"))
    world.sessions.connect("n0")
    await world.until_idle()
    assert world.asked("n0") == []
    await world.sessions.pull("n1", world.asked("n1")[0])
    await world.until(lambda: world.asked("n0"))
    await world.until_idle()
    assert world.asked("n2") == world.asked("n3") == []


@pytest.mark.parametrize("features", [OURS, STOCK], ids=["our agent", "EdgeCore"])
async def test_a_node_that_drops_keeps_its_task_and_reports_when_it_is_back(world: World, features: Any) -> None:
    world.nodes.add("a", "b")
    world.sessions.connect("a", "b", features=features)
    world.job(nodes=["a", "b"], concurrency=1, timeoutSeconds=60)
    await world.until(lambda: world.asked("a"))
    (asked,) = world.asked("a")
    await world.sessions.check("a", asked)
    world.sessions.disconnect("a")
    world.clock.advance(30)
    await world.until_idle()
    assert world.asked("b") == []
    world.sessions.connect("a", features=features)
    await world.until(lambda: len(world.asked("a")) == 2)
    again = world.asked("a")[1]
    # Who has passed the check is asked to pull; the attempt is the same, the time is what is left.
    assert again.operation == "Pull"
    assert again.attempt == asked.attempt
    if features:
        assert again.content["task"]["timeout_seconds"] == 30
    await world.sessions.pull("a", asked)
    await world.until(lambda: world.asked("b"))
    await world.sessions.pull("b", world.asked("b")[0])
    await world.until_state("Successful")


async def test_a_node_that_does_not_come_back_fails_at_its_deadline(world: World) -> None:
    world.nodes.add("a", "b")
    world.sessions.connect("a")
    world.sessions.connect("b", behaviour=world.sessions.obey)
    world.job(nodes=["a", "b"], concurrency=1, timeoutSeconds=60, failureTolerate="0.5")
    await world.until(lambda: world.asked("a"))
    world.sessions.disconnect("a")
    world.clock.advance(61)
    await world.until_state("Successful")
    assert world.entry("a")["event"] == "TimeOut"
    assert world.entry("a")["reason"] == "no last report within 60 s of dispatch; the node is not connected"


# --- the API and the hub away -----------------------------------------------------------------------------------


async def test_tasks_go_on_while_the_api_is_away_and_the_status_follows(world: World) -> None:
    world.nodes.add("a", "b")
    world.sessions.connect("a", "b")
    world.job(nodes=["a", "b"], concurrency=1)
    await world.until(lambda: world.asked("a") and world.status().get("state"))
    world.jobs.problem = Unavailable("connection refused")
    writes = len(world.jobs.writes)
    for node in ("a", "b"):
        await world.until(lambda node=node: world.asked(node))  # type: ignore[misc]
        world.clock.advance(2)
        await world.sessions.obey(world.sessions.node(node), world.asked(node)[0])
    await world.until_idle()
    assert len(world.jobs.writes) == writes
    assert world.status()["state"] != "Successful"
    world.jobs.problem = None
    await world.until_state("Successful")
    # Only the end was written; what was true in between is nobody's business any more.
    assert len(world.jobs.writes) == writes + 1


# --- reports -----------------------------------------------------------------------------------------------------


async def test_reports_that_come_twice_or_late_change_nothing_and_are_counted(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    (asked,) = world.asked("a")
    refused = world.metrics.refusals_total
    sent = [await world.sessions.check("a", asked), await world.sessions.check("a", asked)]
    assert refused.value("no_effect") == 1
    sent += [await world.sessions.pull("a", asked), await world.sessions.pull("a", asked, succ=False)]
    assert refused.value("finished") == 1
    sent.append(await world.sessions.check("a", asked, succ=False))
    assert refused.value("finished") == 2
    await world.until_state("Successful")
    assert world.sessions.node("a").acknowledged == sent


async def test_a_report_of_another_attempt_changes_nothing(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    uid = world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    await world.sessions.report("a", "job", action="Pull", uid=uid, attempt=7)
    assert world.metrics.refusals_total.value("other_attempt") == 1
    assert len(world.sessions.node("a").acknowledged) == 1
    assert await world.stored_state("a") == "Checking"


async def test_a_report_for_a_deleted_job_changes_nothing(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    uid = world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    world.jobs.delete("job")
    await world.until(lambda: world.sessions.node("a").cancelled)
    again = world.job(nodes=["a"])
    await world.until(lambda: len(world.asked("a")) == 2)
    await world.sessions.report("a", "job", action="Pull", uid=uid, attempt=1)
    assert world.metrics.refusals_total.value("unknown_task") == 1
    assert len(world.sessions.node("a").acknowledged) == 1
    assert await world.stored_state("a") == "Checking"
    await world.sessions.report("a", "job", action="Pull", uid=again, attempt=1)
    await world.until_state("Successful")


async def test_a_node_cannot_report_for_another(world: World) -> None:
    world.nodes.add("a", "b")
    world.sessions.connect("a", "b")
    uid = world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    await world.sessions.report("b", "job", action="Pull", uid=uid, attempt=1, resource_node="a")
    assert world.metrics.refusals_total.value("foreign_node") == 1
    await world.sessions.report("b", "job", action="Pull", uid=uid, attempt=1)
    assert world.metrics.refusals_total.value("unknown_task") == 1
    await world.sessions.report("b", "job", action="Pull")
    assert world.metrics.refusals_total.value("unknown_task") == 2
    assert await world.stored_state("a") == "Checking"


# --- ends --------------------------------------------------------------------------------------------------------


async def test_too_many_failures_end_the_job_after_what_runs_has_ended(world: World) -> None:
    names = [f"n{number}" for number in range(10)]
    world.nodes.add(*names)
    world.sessions.connect(*names)
    world.job(nodes=names, concurrency=3, failureTolerate="0.1")
    await world.until(lambda: all(world.asked(name) for name in names[:3]))
    await world.sessions.fail(world.sessions.node("n0"), world.asked("n0")[0])
    await world.until(lambda: world.asked("n3"))
    await world.sessions.fail(world.sessions.node("n1"), world.asked("n1")[0])
    world.clock.advance(2)
    await world.until_idle()
    assert world.status()["state"] == "Pulling"
    assert world.asked("n4") == []
    for name in ("n2", "n3"):
        await world.sessions.obey(world.sessions.node(name), world.asked(name)[0])
    await world.until_state("Failed")
    reason = "2 of 10 nodes failed, more than failureTolerate 0.1"
    status = world.status()
    assert (status["reason"], status["event"], status["action"]) == (reason, "Pull", "Failure")
    assert status["counts"] == {"total": 10, "pending": 0, "running": 0, "succeeded": 2, "failed": 8}
    assert world.entry("n0")["reason"] == "some images failed"
    assert world.entry("n9")["reason"] == f"not started: {reason}"
    assert [world.asked(name) for name in names[4:]] == [[]] * 6


async def test_an_image_that_failed_is_named_with_its_reason(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    uid = world.job(nodes=["a"], images=["good", "bad", "unspoken"])
    await world.until(lambda: world.asked("a"))
    await world.sessions.report(
        "a",
        "job",
        action="Pull",
        succ=False,
        uid=uid,
        attempt=1,
        images=[("bad", False, "not found"), ("foreign", False, "x"), ("good", True, "")],
    )
    await world.until_state("Failed")
    assert world.status()["status"][0]["imageStatus"] == [
        {"image": "good", "state": "Successful"},
        {"image": "bad", "state": "Failed", "reason": "not found"},
    ]
    assert world.entry("a")["reason"] == "bad: not found"


async def test_a_success_with_a_failed_image_is_a_failure(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", features=STOCK)
    world.job(nodes=["a"], images=["good", "bad"])
    await world.until(lambda: world.asked("a"))
    await world.sessions.report(
        "a", "job", action="Pull", succ=True, images=[("good", True, ""), ("bad", False, "denied")]
    )
    await world.until_state("Failed")
    assert world.entry("a")["reason"] == "bad: denied"


async def test_a_failed_check_ends_the_task(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    await world.sessions.check("a", world.asked("a")[0], succ=False, reason="disk: 91 % of /var used, at most 80 %")
    await world.until_state("Failed")
    entry = world.entry("a")
    assert (entry["event"], entry["action"]) == ("Check", "Failure")
    assert entry["reason"] == "disk: 91 % of /var used, at most 80 %"


async def test_the_timeout_counts_from_dispatch_and_the_node_is_told_to_stop(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    uid = world.job(nodes=["a"], timeoutSeconds=60)
    await world.until(lambda: world.asked("a"))
    world.clock.advance(40)
    await world.sessions.check("a", world.asked("a")[0])
    world.clock.advance(19)
    await world.until_idle()
    assert world.sessions.node("a").cancelled == []
    world.clock.advance(2)
    await world.until_state("Failed")
    assert (world.entry("a")["event"], world.entry("a")["action"]) == ("TimeOut", "Failure")
    assert world.entry("a")["reason"] == "no last report within 60 s of dispatch"
    await world.until(lambda: world.sessions.node("a").cancelled)
    (cancel,) = world.sessions.node("a").cancelled
    assert (cancel["job"], cancel["job_uid"], cancel["attempt"]) == ("job", uid, 1)


async def test_an_edgecore_that_never_answers_is_suspected_of_a_module_that_is_off(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", features=STOCK)
    world.job(nodes=["a"], timeoutSeconds=60)
    await world.until(lambda: world.asked("a"))
    world.clock.advance(61)
    await world.until_state("Failed")
    assert "modules.taskManager" in world.entry("a")["reason"]
    assert world.sessions.node("a").cancelled == []


# --- deletion and edits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["deleted", "deletionTimestamp"])
async def test_a_deleted_job_stops_its_nodes_and_leaves_no_rows(world: World, how: str) -> None:
    world.nodes.add("a", "b", "stock", "away")
    world.sessions.connect("a", "b")
    world.sessions.connect("stock", features=STOCK)
    world.job(nodes=["a", "b", "stock", "away"], concurrency=3)
    await world.until(lambda: world.asked("a") and world.asked("b") and world.asked("stock"))
    await world.sessions.pull("b", world.asked("b")[0])
    if how == "deleted":
        world.jobs.delete("job")
    else:
        world.jobs.mark_deleting("job")
    await world.until(lambda: world.sessions.node("a").cancelled)
    assert world.sessions.node("b").cancelled == []
    assert await world.store.names() == []
    assert await world.store.live_tasks_of(["a", "b", "stock", "away"]) == []


async def test_a_job_of_the_same_name_made_later_is_another_job(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a")
    first = world.job(nodes=["a"])
    await world.until(lambda: world.asked("a"))
    # Both events of one name: the queue of keys sees only the last.
    world.jobs.delete("job")
    second = world.job(nodes=["a"])
    assert first != second
    await world.until(lambda: len(world.asked("a")) == 2)
    assert [asked.uid for asked in world.asked("a")] == [first, second]
    assert [cancel["job_uid"] for cancel in world.sessions.node("a").cancelled] == [first]
    await world.sessions.pull("a", world.asked("a")[1])
    await world.until_state("Successful")


async def test_edits_hold_from_then_on(world: World) -> None:
    names = [f"n{number}" for number in range(8)]
    world.nodes.add(*names)
    world.sessions.connect(*names)
    world.job(nodes=names, concurrency=1, timeoutSeconds=60, failureTolerate="1")
    await world.until(lambda: world.asked("n0"))
    world.job(nodes=names, concurrency=4, timeoutSeconds=90, failureTolerate="1")
    await world.until(lambda: all(world.asked(name) for name in names[:4]))
    await world.until_idle()
    assert world.asked("n4") == []
    assert [world.asked(name)[0].content["task"]["timeout_seconds"] for name in names[:4]] == [60, 90, 90, 90]
    world.job(nodes=names, concurrency=1, timeoutSeconds=90, failureTolerate="0")
    await world.until_published(lambda: world.status().get("observedGeneration") == 3)
    await world.sessions.fail(world.sessions.node("n0"), world.asked("n0")[0])
    await world.until_idle()
    assert world.asked("n4") == []
    for name in names[1:4]:
        await world.sessions.pull(name, world.asked(name)[0])
    await world.until_state("Failed")
    assert world.status()["reason"] == "1 of 8 nodes failed, more than failureTolerate 0"


async def test_edited_images_and_nodes_are_ignored(world: World) -> None:
    world.nodes.add("a", "b", "c")
    world.sessions.connect("a", "b", "c")
    world.job(nodes=["a", "b"], images=["first"])
    await world.until(lambda: world.asked("a"))
    world.job(nodes=["a", "b", "c"], images=["second"], concurrency=3)
    await world.until(lambda: world.asked("b"))
    await world.until_idle()
    assert world.asked("b")[0].images == ["first"]
    assert world.asked("c") == []


async def test_a_job_that_ended_before_and_has_no_rows_is_left_alone(world: World) -> None:
    world.nodes.add("a")
    world.sessions.connect("a", behaviour=world.sessions.obey)
    world.job(nodes=["a"])
    await world.until_state("Successful")
    uid = world.jobs.objects["job"].uid
    await world.store.remove(uid)
    writes = len(world.jobs.writes)
    world.job(nodes=["a"], concurrency=5)
    await world.until_idle()
    assert await world.store.names() == []
    assert len(world.jobs.writes) == writes
    assert len(world.asked("a")) == 1


# --- secrets -----------------------------------------------------------------------------------------------------

_AUTHS = {
    "registry.example": {"username": "tiger", "password": "pass1234"},
    "other.example": {"username": "lion", "password": "roar5678"},
}


async def test_only_the_credential_of_the_images_registry_goes_to_the_node(world: World) -> None:
    world.nodes.add("a")
    world.secrets.docker("x", _AUTHS)
    world.sessions.connect("a")
    world.job(nodes=["a"], images=["registry.example/app:1", "docker.io/library/nginx"], imageSecrets="default/x")
    await world.until(lambda: world.asked("a"))
    (asked,) = world.asked("a")
    assert asked.content["task"]["credentials"] == {
        "registry.example/app:1": {"registry": "registry.example", "username": "tiger", "password": "pass1234"}
    }
    assert "roar5678" not in json.dumps(asked.content)
    assert asked.content["imagePrePullTemplate"]["imageSecrets"] == ""


async def test_an_edgecore_gets_the_secrets_name_and_no_credential(world: World) -> None:
    world.nodes.add("a")
    world.secrets.docker("x", _AUTHS)
    world.sessions.connect("a", features=STOCK)
    world.job(nodes=["a"], images=["registry.example/app:1"], imageSecrets="default/x")
    await world.until(lambda: world.asked("a"))
    (asked,) = world.asked("a")
    assert asked.content == {
        "imagePrePullTemplate": {
            "images": ["registry.example/app:1"],
            "checkItems": ["disk"],
            "imageSecrets": "default/x",
            "retryTimes": 0,
        }
    }


async def test_no_secret_is_stored_or_published(world: World) -> None:
    world.nodes.add("a")
    world.secrets.docker("x", _AUTHS)
    world.sessions.connect("a", behaviour=world.sessions.obey)
    world.job(nodes=["a"], images=["registry.example/app:1"], imageSecrets="default/x")
    await world.until_state("Successful")
    kept = b"".join(file.read_bytes() for file in world.path.parent.glob("queue.db*"))
    for secret in (b"pass1234", b"roar5678", b"tiger", b"lion"):
        assert secret not in kept
        assert secret not in json.dumps([status for _, status in world.jobs.writes]).encode()
    assert b"registry.example/app:1" in kept


async def test_a_job_whose_secret_went_while_the_hub_was_down_ends_with_what_runs(world: World) -> None:
    world.nodes.add("a", "b")
    world.secrets.docker("x", _AUTHS)
    world.sessions.connect("a", "b")
    world.job(nodes=["a", "b"], imageSecrets="default/x")
    await world.until(lambda: world.asked("a"))
    world.secrets.objects.clear()
    await world.restart()
    await world.until(lambda: len(world.asked("a")) == 2)
    await world.sessions.pull("a", world.asked("a")[1])
    await world.until_state("Failed")
    assert "no such Secret" in world.status()["reason"]
    assert world.entry("a")["state"] == "Successful"
    assert world.entry("b")["reason"].startswith("not started")
    assert world.asked("b") == []
