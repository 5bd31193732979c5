"""What goes wrong in the field, and what the job's status then says. The real parts are those of the walkthrough."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.processes import Cloud, Node, eventually, node_entry
from tests.parts.containerd import Containerd
from tests.parts.proxy import RegistryProxy
from tests.parts.registry import Registry
from tests.simulator import Fleet

pytestmark = pytest.mark.e2e

MIB = 1 << 20


def job(name: str, images: list[str], nodes: list[str], **template: Any) -> str:
    document = {
        "apiVersion": "operations.kubeedge.io/v1alpha1",
        "kind": "ImagePrePullJob",
        "metadata": {"name": name},
        "spec": {"imagePrePullTemplate": {"images": images, "nodeNames": nodes, **template}},
    }
    return yaml.safe_dump(document)


async def test_a_wrong_password_fails_with_the_registrys_refusal(
    cloud: Cloud, edge: Node, nodes: list[Node], registry: Registry
) -> None:
    image = registry.push_image("failures/wrong-password").reference
    await cloud.kubectl(
        "create", "secret", "docker-registry", "wrong", f"--docker-server={registry.address}",
        "--docker-username=tiger", "--docker-password=not-it-8731",
    )  # fmt: skip
    await cloud.apply(
        job("wrong-password", [image], [edge.name, "edge-1"], imageSecrets="default/wrong", concurrency=2, retryTimes=3)
    )
    status = await cloud.finished("wrong-password")
    assert status["state"] == "Failed"
    assert status["reason"] == "2 of 2 nodes failed, more than failureTolerate 0.1"
    for name in (edge.name, "edge-1"):
        result = node_entry(status, name)["imageStatus"][0]
        assert result["state"] == "Failed"
        assert "401" in result["reason"] or "denied" in result["reason"], result
        assert "not-it-8731" not in str(status)


async def test_credentials_in_their_other_forms_do_as_well_and_stay_as_secret(
    cloud: Cloud, edge: Node, nodes: list[Node], registry: Registry
) -> None:
    """``auth`` alone, and an identity token, which this registry does not take. That neither stands anywhere is for
    `tests.e2e.leaks` to see."""
    forms = {
        "auth-alone": {"auth": base64.b64encode(b"tiger:pass1234").decode()},
        "identity-token": {"identitytoken": "identity-of-tiger-4471"},
    }
    for name, entry in forms.items():
        document = json.dumps({"auths": {registry.address: entry}}).encode()
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64.b64encode(document).decode()},
        }
        image = registry.push_image(f"failures/{name}").reference
        wanted = job(name, [image], [edge.name, "edge-1"], imageSecrets=f"default/{name}", concurrency=2)
        await cloud.apply(yaml.safe_dump(secret) + "---\n" + wanted)
    status = await cloud.finished("identity-token")
    assert status["reason"] == "2 of 2 nodes failed, more than failureTolerate 0.1"
    status = await cloud.finished("auth-alone")
    assert status["state"] == "Successful", status


async def test_no_secret_named_means_an_anonymous_pull_that_is_refused(
    cloud: Cloud, edge: Node, registry: Registry
) -> None:
    image = registry.push_image("failures/no-secret").reference
    await cloud.apply(job("no-secret", [image], [edge.name]))
    status = await cloud.finished("no-secret")
    assert status["state"] == "Failed"
    assert node_entry(status, edge.name)["imageStatus"][0]["state"] == "Failed"


async def test_a_secret_that_does_not_exist_fails_the_job_and_touches_no_node(cloud: Cloud, edge: Node) -> None:
    await cloud.apply(job("absent-secret", ["image1"], [edge.name], imageSecrets="default/nobody"))
    status = await cloud.finished("absent-secret")
    assert status["state"] == "Failed"
    assert "imageSecrets" in status["reason"]
    assert "default/nobody" in status["reason"]
    assert not status.get("status")


async def test_an_image_that_is_missing_fails_alone(cloud: Cloud, edge: Node, registry: Registry, secret: str) -> None:
    there = registry.push_image("failures/there").reference
    missing = f"{registry.address}/failures/missing:v1"
    await cloud.apply(job("missing-image", [there, missing], [edge.name], imageSecrets=secret, retryTimes=5))
    status = await cloud.finished("missing-image")
    assert status["state"] == "Failed"
    results = {result["image"]: result for result in node_entry(status, edge.name)["imageStatus"]}
    assert results[there]["state"] == "Successful"
    assert results[missing]["state"] == "Failed"
    assert "not found" in results[missing]["reason"]


async def test_an_unknown_node_is_an_entry_that_failed_and_the_others_are_served(
    cloud: Cloud, nodes: list[Node], open_registry: Registry
) -> None:
    image = open_registry.push_image("failures/unknown-node").reference
    await cloud.apply(job("unknown-node", [image], ["edge-1", "nobody"], failureTolerate="0.5"))
    status = await cloud.finished("unknown-node")
    assert status["state"] == "Successful", status
    entry = node_entry(status, "nobody")["nodeStatus"]
    assert entry["state"] == "Failed"
    assert "Node" in entry["reason"]
    assert status["counts"]["failed"] == 1


async def test_a_node_that_is_down_is_waited_for_and_pulls_when_it_is_back(
    cloud: Cloud, nodes: list[Node], open_registry: Registry
) -> None:
    image = open_registry.push_image("failures/down").reference
    down = nodes[2]
    assert await down.program.stop() == 0
    await eventually("edge-3 is NotReady", lambda: _is(down, "False"))
    await cloud.apply(job("node-down", [image], ["edge-3", "edge-1"], timeoutSeconds=60))
    # Concurrency is 1, and edge-3 is first: it must not hold up edge-1.
    await cloud.until("node-down", lambda status: status.get("counts", {}).get("succeeded") == 1)
    await down.start()
    status = await cloud.finished("node-down")
    assert status["state"] == "Successful", status
    assert image in await down.images()


async def _is(node: Node, condition: str) -> bool:
    return await node.condition() == condition


async def test_a_node_that_stays_away_fails_by_its_timeout(cloud: Cloud, nodes: list[Node]) -> None:
    away = nodes[2]
    assert await away.program.stop() == 0
    await eventually("edge-3 is NotReady", lambda: _is(away, "False"))
    await cloud.apply(job("node-away", ["image1"], ["edge-3"], timeoutSeconds=2))
    status = await cloud.finished("node-away")
    entry = node_entry(status, "edge-3")["nodeStatus"]
    assert (entry["state"], entry["event"]) == ("Failed", "TimeOut")
    await away.start()


async def test_a_hub_killed_during_a_pull_goes_on_where_it_was(
    cloud: Cloud, edge: Node, containerd: Containerd, registry: Registry, secret: str
) -> None:
    image = registry.push_image("failures/hub-killed", layers=(2 * MIB, MIB))
    async with RegistryProxy(registry.url) as proxy:
        await _credentials(cloud, "hub-killed", proxy)
        containerd.trust(proxy.address)
        reference = image.reference.replace(registry.address, proxy.address)
        proxy.stall_blobs_after = MIB // 2
        await cloud.apply(job("hub-killed", [reference], [edge.name], imageSecrets="default/hub-killed"))
        await proxy.blob_started.wait()
        await cloud.program.kill()
        proxy.release()
        await proxy.until_idle()
        await cloud.start()
        status = await cloud.finished("hub-killed")
        assert status["state"] == "Successful", status
        _fetched_once(proxy, image.layers)
    assert reference in containerd.ctr_images()


async def test_an_agent_killed_during_a_pull_goes_on_when_it_is_back(
    cloud: Cloud, nodes: list[Node], registry: Registry
) -> None:
    image = registry.push_image("failures/agent-killed", layers=(2 * MIB, 10_000))
    node = nodes[0]
    async with RegistryProxy(registry.url) as proxy:
        await _credentials(cloud, "agent-killed", proxy)
        reference = image.reference.replace(registry.address, proxy.address)
        proxy.stall_blobs_after = MIB
        await cloud.apply(job("agent-killed", [reference], [node.name], imageSecrets="default/agent-killed"))
        await proxy.blob_started.wait()
        await node.program.kill()
        proxy.release()
        await node.start()
        status = await cloud.finished("agent-killed")
        assert status["state"] == "Successful", status
    assert reference in await node.images()


async def test_an_agent_that_was_killed_after_its_pull_repeats_nothing(
    cloud: Cloud, nodes: list[Node], open_registry: Registry
) -> None:
    image = open_registry.push_image("failures/agent-done", layers=(100_000,))
    node = nodes[0]
    async with RegistryProxy(open_registry.url) as proxy:
        reference = image.reference.replace(open_registry.address, proxy.address)
        await cloud.program.stop()
        await cloud.start()
        await node.until_ready()
        await cloud.apply(job("agent-done", [reference], [node.name]))
        assert (await cloud.finished("agent-done"))["state"] == "Successful"
        await node.program.kill()
        await node.start()
        await cloud.apply(job("agent-done-again", [reference], [node.name]))
        assert (await cloud.finished("agent-done-again"))["state"] == "Successful"
        _fetched_once(proxy, image.layers)


async def test_two_jobs_at_once_both_end(cloud: Cloud, nodes: list[Node], open_registry: Registry) -> None:
    first = open_registry.push_image("failures/first").reference
    second = open_registry.push_image("failures/second").reference
    names = [node.name for node in nodes]
    await cloud.apply(job("first", [first], names) + "---\n" + job("second", [second], names, concurrency=3))
    for name in ("first", "second"):
        status = await cloud.finished(name)
        assert status["state"] == "Successful", status
        assert status["counts"]["succeeded"] == len(names)


async def test_a_job_deleted_while_it_runs_stops_on_the_node_and_leaves_nothing(
    cloud: Cloud, edge: Node, containerd: Containerd, registry: Registry
) -> None:
    image = registry.push_image("failures/deleted", layers=(2 * MIB,))
    async with RegistryProxy(registry.url) as proxy:
        await _credentials(cloud, "deleted", proxy)
        containerd.trust(proxy.address)
        reference = image.reference.replace(registry.address, proxy.address)
        proxy.stall_blobs_after = MIB
        text = job("deleted", [reference], [edge.name], imageSecrets="default/deleted")
        await cloud.apply(text)
        await proxy.blob_started.wait()
        await cloud.kubectl("delete", "imageprepulljob", "deleted")
        # The agent gives the pull up, and with it containerd the transfer, while the registry still stalls.
        async with asyncio.timeout(30):
            await proxy.until_idle()
        await eventually("its rows are gone", lambda: _no_rows(cloud.data_dir, "deleted"))
        # Another job of the same name is another job.
        proxy.release()
        await cloud.apply(text)
        status = await cloud.finished("deleted")
        assert status["state"] == "Successful", status


async def _no_rows(data_dir: Path, name: str) -> bool:
    return await asyncio.to_thread(_rows, data_dir, name) == 0


def _rows(data_dir: Path, name: str) -> int:
    (path,) = data_dir.rglob("queue.db")
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM jobs WHERE name = ?", (name,)).fetchone()[0])


async def test_never_more_nodes_are_at_work_than_concurrency(cloud: Cloud, tmp_path: Path) -> None:
    names = [f"sim-{number:02}" for number in range(40)]
    fleet = Fleet(
        websocket_port=cloud.websocket_port, https_port=cloud.https_port, token=await cloud.token(), files=tmp_path
    )
    async with fleet.connected(names):
        await cloud.apply(job("forty", ["registry.example/app:v1"], names, concurrency=7))
        status = await cloud.finished("forty")
    assert status["state"] == "Successful", status
    assert status["counts"] == {"total": 40, "pending": 0, "running": 0, "succeeded": 40, "failed": 0}
    assert fleet.most_in_flight["forty"] == 7
    assert set(fleet.dispatched.values()) == {1}


async def test_jobs_whose_spec_is_wrong_fail_with_field_and_value(cloud: Cloud) -> None:
    wrong = {
        "no-images": (job("no-images", [], ["edge-1"]), ["images"]),
        "bad-image": (
            job("bad-image", ["registry.example/UPPER:v1"], ["edge-1"]),
            ["images", "registry.example/UPPER:v1"],
        ),
        "no-nodes": (job("no-nodes", ["image1"], []), ["nodeNames", "labelSelector"]),
        "bad-tolerance": (job("bad-tolerance", ["image1"], ["edge-1"], failureTolerate="7"), ["failureTolerate", "7"]),
        "bad-check": (job("bad-check", ["image1"], ["edge-1"], checkItems=["gpu"]), ["checkItems", "gpu"]),
    }
    await cloud.apply("---\n".join(text for text, _words in wrong.values()))
    for name, (_text, words) in wrong.items():
        status = await cloud.finished(name)
        assert status["state"] == "Failed"
        for word in words:
            assert word in status["reason"], status["reason"]


async def test_images_and_nodes_of_a_job_cannot_be_edited(cloud: Cloud) -> None:
    await cloud.apply(job("fixed", ["image1"], ["nobody"]))
    answer = await cloud.apply(job("fixed", ["image2"], ["nobody"]), code=1)
    assert "images cannot be changed" in answer


async def _credentials(cloud: Cloud, name: str, proxy: RegistryProxy) -> None:
    await cloud.kubectl(
        "create", "secret", "docker-registry", name, f"--docker-server={proxy.address}",
        "--docker-username=tiger", "--docker-password=pass1234",
    )  # fmt: skip


def _fetched_once(proxy: RegistryProxy, layers: tuple[str, ...]) -> None:
    for digest in layers:
        fetches = [line for line in proxy.requests if line.startswith("GET") and line.endswith(digest)]
        assert len(fetches) == 1, f"{digest} was fetched {len(fetches)} times"
