"""Rows of the decision table on the real path: kubectl, a hub in its own process, and stock nodes on real sockets.

The nodes are simulated (`tests.simulator.Fleet`): they pull nothing, and say from outside what the hub asked of them.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import Cloud, eventually, node_entry
from tests.simulator import Fleet

pytestmark = pytest.mark.e2e

IMAGE = "registry.example/app:v1"


def job(name: str, nodes: list[str], **template: Any) -> str:
    return json.dumps(
        {
            "apiVersion": "operations.kubeedge.io/v1alpha1",
            "kind": "ImagePrePullJob",
            "metadata": {"name": name},
            "spec": {"imagePrePullTemplate": {"images": [IMAGE], "nodeNames": nodes, **template}},
        }
    )


async def fleet_of(cloud: Cloud, files: Path, **behaviour: Any) -> Fleet:
    return Fleet(
        websocket_port=cloud.websocket_port,
        https_port=cloud.https_port,
        token=await cloud.token(),
        files=files,
        **behaviour,
    )


async def edit(cloud: Cloud, name: str, **template: Any) -> None:
    patch = json.dumps({"spec": {"imagePrePullTemplate": template}})
    await cloud.kubectl("patch", "imageprepulljob", name, "--type=merge", "-p", patch)


async def test_more_failures_than_tolerated_stop_the_rest_with_the_numbers_in_the_reason(
    cloud: Cloud, tmp_path: Path
) -> None:
    names = [f"fails-{number:02}" for number in range(20)]
    fleet = await fleet_of(cloud, tmp_path, answer=lambda _job, _node: False)
    async with fleet.connected(names):
        await cloud.apply(job("too-many", names, concurrency=1, failureTolerate="0.1"))
        status = await cloud.finished("too-many")
    # 2 of 20 are 0.1, and not more than it.
    assert status["state"] == "Failed"
    assert status["reason"] == "3 of 20 nodes failed, more than failureTolerate 0.1"
    assert (status["event"], status["action"]) == ("Pull", "Failure")
    assert status["counts"] == {"total": 20, "pending": 0, "running": 0, "succeeded": 0, "failed": 20}
    assert {node for _job, node in fleet.dispatched} == set(names[:3])
    for name in names[3:]:
        entry = node_entry(status, name)["nodeStatus"]
        assert (entry["state"], entry["action"]) == ("Failed", "Failure")
        assert entry["reason"] == f"not started: {status['reason']}"


async def test_a_concurrency_that_is_raised_while_the_job_runs_takes_hold(cloud: Cloud, tmp_path: Path) -> None:
    names = [f"raise-{number:02}" for number in range(12)]
    fleet = await fleet_of(cloud, tmp_path, seconds=1.0)
    async with fleet.connected(names):
        await cloud.apply(job("raised", names))
        await cloud.until("raised", lambda status: status["counts"]["running"] == 1)
        assert fleet.most_in_flight["raised"] == 1
        await edit(cloud, "raised", concurrency=6)
        status = await cloud.finished("raised", within=60)
    assert fleet.most_in_flight["raised"] == 6
    assert status["state"] == "Successful"
    assert status["observedGeneration"] == 2


async def test_a_node_that_never_answers_fails_by_its_timeout_and_the_reason_helps(
    cloud: Cloud, tmp_path: Path
) -> None:
    fleet = await fleet_of(cloud, tmp_path, mute={"mute"})
    async with fleet.connected(["mute", "speaks"]):
        await cloud.apply(job("never-answers", ["mute", "speaks"], timeoutSeconds=2, failureTolerate="0.5"))
        status = await cloud.finished("never-answers", within=60)
    entry = node_entry(status, "mute")["nodeStatus"]
    assert (entry["state"], entry["event"], entry["action"]) == ("Failed", "TimeOut", "Failure")
    assert entry["reason"].startswith("no last report within 2 s of dispatch")
    assert "modules.taskManager" in entry["reason"]
    assert node_entry(status, "speaks")["nodeStatus"]["state"] == "Successful"
    assert status["state"] == "Successful"
    assert status["reason"] == "1 of 2 nodes failed, not more than failureTolerate 0.5"


async def test_a_timeout_that_is_shortened_while_nodes_work_ends_them(cloud: Cloud, tmp_path: Path) -> None:
    fleet = await fleet_of(cloud, tmp_path, mute={"stuck"})
    async with fleet.connected(["stuck"]):
        await cloud.apply(job("shortened", ["stuck"], timeoutSeconds=3600))
        await cloud.until("shortened", lambda status: status["counts"]["running"] == 1)
        await edit(cloud, "shortened", timeoutSeconds=1)
        status = await cloud.finished("shortened", within=60)
    entry = node_entry(status, "stuck")["nodeStatus"]
    assert entry["event"] == "TimeOut"
    assert entry["reason"].startswith("no last report within 1 s of dispatch")


async def test_a_hub_that_is_killed_in_the_middle_brings_every_stock_node_to_its_end(
    cloud: Cloud, tmp_path: Path
) -> None:
    names = [f"kill-{number:02}" for number in range(40)]
    bad = set(names[5::10])
    fleet = await fleet_of(cloud, tmp_path, seconds=0.3, answer=lambda _job, node: node not in bad)
    async with fleet.connected(names):
        await cloud.apply(job("killed", names, concurrency=7, failureTolerate="0.5"))
        for ended in (8, 22):
            try:
                await eventually(f"{ended} nodes were asked", partial(_asked, fleet, ended))
            except AssertionError as error:
                code, metrics = await cloud.monitor("/metrics")
                raise AssertionError(f"{error}\n{code} {metrics}\n{cloud.program.tail()}") from None
            await cloud.program.kill()
            await cloud.start()
        status = await cloud.finished("killed", within=60)
    assert status["counts"] == {"total": 40, "pending": 0, "running": 0, "succeeded": 36, "failed": 4}
    assert status["state"] == "Successful"
    states = {entry["nodeStatus"]["nodeName"]: entry["nodeStatus"]["state"] for entry in status["status"]}
    assert states == {name: "Failed" if name in bad else "Successful" for name in names}
    assert fleet.most_in_flight["killed"] <= 7
    assert {node for _job, node in fleet.dispatched} == set(names)


async def _asked(fleet: Fleet, count: int) -> bool:
    return len(fleet.dispatched) >= count


async def test_the_status_of_600_nodes_has_500_entries_failures_first_and_complete_counts(
    cloud: Cloud, tmp_path: Path
) -> None:
    real = [f"wide-{number:02}" for number in range(20)]
    fleet = await fleet_of(cloud, tmp_path, answer=lambda _job, node: node != "wide-19")
    async with fleet.connected(real):
        absent = [f"absent-{number:03}" for number in range(580)]
        await cloud.apply(job("wide", [*real, *absent], concurrency=20, failureTolerate="1"))
        status = await cloud.finished("wide")
    assert status["counts"] == {"total": 600, "pending": 0, "running": 0, "succeeded": 19, "failed": 581}
    entries = [entry["nodeStatus"] for entry in status["status"]]
    assert len(entries) == len({entry["nodeName"] for entry in entries}) == 500
    assert {entry["state"] for entry in entries} == {"Failed"}
    assert node_entry(status, "wide-19")["nodeStatus"]["event"] == "Pull"
    assert len(json.dumps(status)) < 400_000
    columns = await cloud.kubectl("get", "imageprepulljob", "wide", "--no-headers")
    assert columns.split()[:2] == ["wide", "Successful"]
