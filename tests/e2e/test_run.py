"""`cloudhub run`: the hub against a Kubernetes API that is a process of its own, and that comes and goes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.e2e.processes import BIN, ClusterCloud, CommandFailed, Node, command, eventually
from tests.e2e.test_failures import job
from tests.integration.edgecontroller.kubelet import Kubelet
from tests.parts.proxy import RegistryProxy
from tests.parts.registry import Registry
from tests.simulator import Fleet

pytestmark = pytest.mark.e2e


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster() -> AsyncIterator[ClusterCloud]:
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:
        cluster = ClusterCloud(Path(folder), {"taskManager": {"enable": True}, "edgeController": {"enable": True}})
        await cluster.start_api()
        await cluster.start()
        yield cluster
        assert await cluster.program.stop() == 0, cluster.program.tail()
        await cluster.api.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(cluster: ClusterCloud) -> AsyncIterator[Node]:
    node = Node(cluster, "edge-1")
    await node.start(wait=False)
    await eventually("edge-1 is connected", lambda: _connected(node))
    yield node
    assert await node.program.stop() == 0, node.program.tail()


async def test_a_job_runs_on_a_node_that_has_a_session_and_no_node_object(
    cluster: ClusterCloud, node: Node, open_registry: Registry
) -> None:
    image = open_registry.push_image("run/plain").reference
    await cluster.apply(job("plain", [image], ["edge-1"]))
    status = await cluster.finished("plain")
    assert status["state"] == "Successful", status
    assert image in await node.images()
    assert await cluster.kubectl("get", "nodes", "-o", "name") == ""


async def test_the_ca_the_servers_certificate_and_a_token_are_kept_as_kubeedge_keeps_them(
    cluster: ClusterCloud,
) -> None:
    secrets = json.loads(await cluster.kubectl("get", "secrets", "-n", "kubeedge", "-o", "json"))
    keys = {item["metadata"]["name"]: sorted(item["data"]) for item in secrets["items"]}
    assert keys == {
        "casecret": ["cadata", "cakeydata"],
        "cloudcoresecret": ["cloudcoredata", "cloudcorekeydata"],
        "tokensecret": ["tokendata"],
    }
    assert {item["type"] for item in secrets["items"]} == {"Opaque"}


async def test_tasks_go_on_while_the_api_is_away_and_the_status_is_published_when_it_is_back(
    cluster: ClusterCloud, node: Node, open_registry: Registry
) -> None:
    image = open_registry.push_image("run/api-away", layers=(1 << 20,))
    async with RegistryProxy(open_registry.url) as proxy:
        reference = image.reference.replace(open_registry.address, proxy.address)
        proxy.stall_blobs_after = 1 << 19
        await cluster.apply(job("api-away", [reference], ["edge-1"]))
        await proxy.blob_started.wait()
        await cluster.api.kill()

        async def red() -> str | None:
            code, body = await cluster.monitor("/readyz")
            return body if code == 503 else None

        reason = await eventually("readyz is red", red)
        assert "Cannot connect" in reason
        assert (await cluster.monitor("/healthz"))[0] == 200
        proxy.release()
        await eventually("the node has the image", lambda: _holds(node, reference))
    await cluster.start_api()
    status = await cluster.finished("api-away")
    assert status["state"] == "Successful", status
    await cluster.until_ready()


async def test_a_job_deleted_while_the_hub_was_down_leaves_no_trace(
    cluster: ClusterCloud, node: Node, tmp_path: Path
) -> None:
    await cluster.apply(job("gone", ["registry.example/app:v1"], ["away"]))
    await cluster.until("gone", lambda status: status.get("counts", {}).get("total") == 1)
    await cluster.program.kill()
    await cluster.kubectl("delete", "imageprepulljob", "gone")
    await cluster.start()

    async def forgotten() -> bool:
        metrics = (await cluster.monitor("/metrics"))[1]
        return 'cloudhub_jobs{state="Init"} 0.0' in metrics or 'cloudhub_jobs{state="Init"}' not in metrics

    await eventually("the job is forgotten", forgotten)


async def test_a_node_is_revoked_by_the_configuration_that_the_hub_was_started_with(
    cluster: ClusterCloud, node: Node
) -> None:
    said = await command(BIN / "cloudhub", "revoke", "stolen", "--config", cluster.config)
    assert said == "node stolen is revoked; it had no session\n"
    assert "stolen" in await command(BIN / "cloudhub", "revoke", "--list", "--config", cluster.config)


async def test_metrics_tell_sessions_jobs_dispatches_and_commits(cluster: ClusterCloud, node: Node) -> None:
    await eventually("edge-1 is connected", lambda: _connected(node))
    metrics = (await cluster.monitor("/metrics"))[1]
    assert "cloudhub_sessions 1.0" in metrics
    for name in ("cloudhub_jobs", "cloudhub_node_tasks", "cloudhub_commit_seconds_count", "cloudhub_publish_seconds"):
        assert name in metrics


async def test_a_stock_edgecore_with_edged_on_registers_and_is_ready_through_the_hub(
    cluster: ClusterCloud, tmp_path: Path
) -> None:
    fleet = Fleet(
        websocket_port=cluster.websocket_port,
        https_port=cluster.https_port,
        token=await cluster.token(),
        files=tmp_path,
    )
    headers = {"node_id": "stock-1", "project_id": "e632aba927ea4ac2b575ec1603d56f10", "ConnectionUse": "msg"}
    url = f"wss://127.0.0.1:{cluster.websocket_port}/e632aba927ea4ac2b575ec1603d56f10/stock-1/events"
    context = await fleet.join("stock-1")
    async with connect(url, ssl=context, additional_headers=headers, compression=None, proxy=None) as socket:
        kubelet = Kubelet(socket, "stock-1")
        assert (await kubelet.register())[1] is None
        assert (await kubelet.ready())[1] is None
        assert (await kubelet.lease("insert", kubelet.new_lease()))[1] is None
        shown = (await cluster.kubectl("get", "node", "stock-1", "--no-headers")).split()
        assert shown[:3] == ["stock-1", "Ready", "agent,edge"]
        lease = await cluster.kubectl("get", "lease", "stock-1", "-n", "kube-node-lease", "-o", "jsonpath={.spec}")
        assert json.loads(lease)["holderIdentity"] == "stock-1"
        assert 'cloudhub_edge_requests_total{outcome="served"} 3.0' in (await cluster.monitor("/metrics"))[1]
    assert "no CloudCore may do it too" in cluster.program.log.read_text()
    await cluster.kubectl("delete", "node", "stock-1")
    await cluster.kubectl("delete", "lease", "stock-1", "-n", "kube-node-lease")


async def test_by_default_sessions_are_served_and_jobs_left_alone(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:
        cloud = ClusterCloud(Path(folder), {"cloudStream": {"enable": True}})
        await cloud.start_api()
        await cloud.start()
        fleet = Fleet(
            websocket_port=cloud.websocket_port, https_port=cloud.https_port, token=await cloud.token(), files=tmp_path
        )
        async with fleet.connected(["edge-1"]):
            await cloud.apply(job("left-alone", ["image1"], ["edge-1"]))
            assert "cloudhub_sessions 1.0" in (await cloud.monitor("/metrics"))[1]
        assert await cloud.program.stop() == 0
        assert await cloud.status("left-alone") == {}
        assert not fleet.dispatched
        log = cloud.program.log.read_text()
        assert log.count("modules.taskManager.enable is false") == 1
        assert log.count("modules.cloudStream") == 1
        await cloud.api.stop()


async def test_a_hub_that_waits_for_the_api_says_so_and_stops_when_told() -> None:
    with tempfile.TemporaryDirectory(prefix="e2e-") as folder:
        cloud = ClusterCloud(Path(folder), {"taskManager": {"enable": True}})
        await cloud.start_api()
        await cloud.api.kill()
        cloud.program.start()

        async def waiting() -> bool:
            return "waiting for the Kubernetes API" in (await cloud.monitor("/readyz"))[1]

        await eventually("readyz says what is missing", waiting)
        assert (await cloud.monitor("/healthz"))[0] == 200
        assert await cloud.program.stop() == 0, cloud.program.tail()


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"cloudHub": {"nodeLimit": "many"}}, ["modules.cloudHub.nodeLimit", "'many'"]),
    ({"cloudHub": {"advertiseAddress": ["hub.example"]}}, ["modules.cloudHub.advertiseAddress", "hub.example"]),
    ({"taskManager": {"enable": "yes"}}, ["modules.taskManager.enable", "yes"]),
]


@pytest.mark.parametrize(("settings", "words"), WRONG)
async def test_a_wrong_value_is_one_line_that_names_the_key_and_the_value(
    tmp_path: Path, settings: dict[str, Any], words: list[str]
) -> None:
    cloud = ClusterCloud(tmp_path, settings)
    answer = await command(BIN / "cloudhub", "run", "--config", cloud.config, code=1)
    assert len(answer.strip().splitlines()) == 1, answer
    for word in words:
        assert word in answer


async def test_commands_without_their_files_say_so_in_one_line(tmp_path: Path) -> None:
    calls: list[list[str | Path]] = [["run", "--config", tmp_path / "no.yaml"], ["token", "--data-dir", tmp_path]]
    for args in calls:
        answer = await command(BIN / "cloudhub", *args, code=1)
        assert len(answer.strip().splitlines()) == 1, answer
        assert str(tmp_path) in answer
        assert "Traceback" not in answer


@pytest.mark.parametrize("program", ["cloudhub", "edgehub"])
async def test_every_command_has_help_with_an_example(program: str) -> None:
    overview = await command(BIN / program, "--help")
    commands = {
        "cloudhub": ["run", "standalone", "demo", "token", "crds", "config"],
        "edgehub": ["join", "run", "status", "images"],
    }[program]
    for name in commands:
        assert name in overview
        text = await command(BIN / program, name, "--help")
        assert "Example" in text
        assert f"{program} {name}" in text


async def _connected(node: Node) -> bool:
    try:
        status = json.loads(await command(BIN / "edgehub", "status", "--config", node.config, "-o", "json"))
    except CommandFailed:  # it has not got so far as to say anything
        return False
    return bool(status.get("connection", {}).get("connected"))


async def _holds(node: Node, image: str) -> bool:
    return image in await node.images()
