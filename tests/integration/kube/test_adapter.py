"""Informers, status, Secrets and Nodes against the embedded API server, stopped and started under them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from cloudhub.kube import JobInformer, KubeClient, LeaseKeeper, NodeInformer, NodeRegistrar, SecretReader, ensure_crd
from cloudhub.kube.jobs import JOBS_PATH
from cloudhub.kube.nodes import NODES_PATH
from cloudhub.standalone.server import StandaloneAPI
from cloudhub.taskmanager.ports import Gone, Jobs, Nodes, NotFound, Rejected, SessionInfo
from shared.jobs import Counts, JobStatus, State
from shared.wire import NodeInfo
from tests.unit.kube.apiserver import eventually, in_background

FAST: dict[str, Any] = {"backoff": (0.01, 0.1)}


async def create_job(client: KubeClient, name: str) -> dict[str, Any]:
    body = {
        "apiVersion": "operations.kubeedge.io/v1alpha1",
        "kind": "ImagePrePullJob",
        "metadata": {"name": name},
        "spec": {"imagePrePullTemplate": {"images": ["a"], "nodeNames": ["n"]}},
    }
    return await client.request("POST", JOBS_PATH, body=body)


async def delete_job(client: KubeClient, name: str) -> None:
    await client.request("DELETE", f"{JOBS_PATH}/{name}")


async def test_jobs_are_seen_patched_and_seen_again(client: KubeClient) -> None:
    jobs = JobInformer(client=client, **FAST)
    port: Jobs = jobs
    async with in_background(jobs.run):
        await asyncio.wait_for(port.synced(), 10)
        uid = (await create_job(client, "a"))["metadata"]["uid"]
        await eventually(lambda: jobs.get("a") is not None)
        status = JobStatus(state=State.PULLING, counts=Counts(total=1, running=1), startTime="2024-04-26T18:51:41Z")
        await port.patch_status(name="a", uid=uid, status=status.dump())
        await eventually(lambda: bool((job := jobs.get("a")) and job.status.get("state") == "Pulling"))
        await port.patch_status(name="a", uid=uid, status={"state": "Failed", "startTime": None})
        held = await client.request("GET", f"{JOBS_PATH}/a")
        assert held["status"]["state"] == "Failed"
        assert "startTime" not in held["status"]
        assert held["metadata"]["generation"] == 1


async def test_a_status_that_the_schema_refuses_is_rejected(client: KubeClient) -> None:
    jobs = JobInformer(client=client, **FAST)
    uid = (await create_job(client, "a"))["metadata"]["uid"]
    with pytest.raises(Rejected, match=r"status\.state"):
        await jobs.patch_status(name="a", uid=uid, status={"state": 7})


async def test_a_job_made_again_never_gets_its_predecessors_status(client: KubeClient) -> None:
    jobs = JobInformer(client=client, **FAST)
    async with in_background(jobs.run):
        old = (await create_job(client, "a"))["metadata"]["uid"]
        await eventually(lambda: jobs.get("a") is not None)
        await delete_job(client, "a")
        with pytest.raises(Gone):
            await jobs.patch_status(name="a", uid=old, status={"state": "Failed"})
        new = (await create_job(client, "a"))["metadata"]["uid"]
        with pytest.raises(Gone):
            await jobs.patch_status(name="a", uid=old, status={"state": "Failed"})
        assert "status" not in await client.request("GET", f"{JOBS_PATH}/a")
        await jobs.patch_status(name="a", uid=new, status={"state": "Init"})
        assert (await client.request("GET", f"{JOBS_PATH}/a"))["status"]["state"] == "Init"


async def test_a_restart_of_the_server_and_what_was_deleted_meanwhile(
    api: StandaloneAPI, client: KubeClient, tmp_path: Path
) -> None:
    jobs = JobInformer(client=client, **FAST)
    async with in_background(jobs.run):
        await create_job(client, "stays")
        await create_job(client, "goes")
        await eventually(lambda: len(list(jobs.list())) == 2)
        port = api.port
        await api.stop()
        await eventually(lambda: client.unavailable_since is not None)
        # The same data on another port: what happens there the informer does not see.
        async with StandaloneAPI(data_dir=tmp_path / "api") as elsewhere:
            elsewhere.write_kubeconfig(tmp_path / "elsewhere")
            other = await KubeClient.connect(kubeconfig=str(tmp_path / "elsewhere"))
            await delete_job(other, "goes")
            await create_job(other, "new")
            await other.close()
        async with StandaloneAPI(data_dir=tmp_path / "api", port=port):
            await eventually(lambda: {job.name for job in jobs.list()} == {"stays", "new"})
            await create_job(client, "later")
            await eventually(lambda: jobs.get("later") is not None)
            assert client.unavailable_since is None


async def test_another_server_with_an_older_history_in_its_place(
    api: StandaloneAPI, client: KubeClient, tmp_path: Path
) -> None:
    jobs = JobInformer(client=client, **FAST)
    async with in_background(jobs.run):
        for number in range(10):
            await create_job(client, f"old-{number}")
        await eventually(lambda: len(list(jobs.list())) == 10)
        port = api.port
        await api.stop()
        # Its token and CA are kept, its objects are not: a data folder lost and made anew.
        for file in (tmp_path / "api").glob("objects.db*"):
            file.unlink()
        async with StandaloneAPI(data_dir=tmp_path / "api", port=port):
            await eventually(lambda: jobs.check(after=0) is not None or not list(jobs.list()))
            await ensure_crd(client)
            await eventually(lambda: not list(jobs.list()))
            await create_job(client, "first")
            await eventually(lambda: [job.name for job in jobs.list()] == ["first"])


async def test_nodes_are_registered_and_follow_their_sessions(client: KubeClient, tmp_path: Path) -> None:
    nodes = NodeInformer(client=client, **FAST)
    port: Nodes = nodes
    registrar = NodeRegistrar(client=client, nodes=nodes, unschedulable=False, settle=0.0)
    info = NodeInfo(architecture="amd64", operatingSystem="linux", kubeletVersion="edgehub-0.1.0")
    session = SessionInfo(node="edge.kubeedge", serial=1, features=frozenset(), info=info)
    async with in_background(nodes.run), in_background(registrar.run):
        await asyncio.wait_for(port.synced(), 10)
        registrar.session_opened(session)
        await eventually(lambda: bool((node := nodes.get("edge.kubeedge")) and node.ready == "True"))
        node = port.get("edge.kubeedge")
        assert node is not None
        assert node.kubelet_version == "edgehub-0.1.0"
        assert node.labels["node-role.kubernetes.io/edge"] == ""
        row = await kubectl(tmp_path, "get", "nodes", "--no-headers")
        assert row.split()[:3] == ["edge.kubeedge", "Ready", "agent,edge"]
        registrar.session_closed(session)
        await eventually(lambda: bool((node := nodes.get("edge.kubeedge")) and node.ready == "False"))
        assert (await kubectl(tmp_path, "get", "nodes", "--no-headers")).split()[1] == "NotReady"


async def test_a_foreign_node_is_left_alone(client: KubeClient) -> None:
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"a": "b"}}}
    made = await client.request("POST", NODES_PATH, body=body)
    nodes = NodeInformer(client=client, **FAST)
    registrar = NodeRegistrar(client=client, nodes=nodes, unschedulable=True, settle=0.0)
    async with in_background(nodes.run), in_background(registrar.run):
        for name in ("n", "m"):
            registrar.session_opened(SessionInfo(node=name, serial=1, features=frozenset(), info=None))
        await eventually(lambda: bool((node := nodes.get("m")) and node.ready == "True"))
    held = await client.request("GET", f"{NODES_PATH}/n")
    assert held["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert (await client.request("GET", f"{NODES_PATH}/m"))["spec"] == {"unschedulable": True}


async def test_leases_are_made_and_renewed(client: KubeClient) -> None:
    keeper = LeaseKeeper(client=client, names=lambda: ["edge-1"], interval=0.0)
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/edge-1"
    await keeper.round()
    first = (await client.request("GET", path))["spec"]["renewTime"]
    await keeper.round()
    assert (await client.request("GET", path))["spec"]["renewTime"] > first


async def test_secrets_are_made_read_and_changed_in_a_namespace_that_is_made_too(client: KubeClient) -> None:
    secrets = SecretReader(client=client)
    with pytest.raises(NotFound):
        await secrets.get("kubeedge", "casecret")
    await secrets.create("kubeedge", "casecret", data={"cadata": b"\x00\xff", "cakeydata": b"k"})
    with pytest.raises(Rejected):
        await secrets.create("kubeedge", "casecret", data={"cadata": b"x"})
    await secrets.update("kubeedge", "casecret", data={"cakeydata": b"l"})
    secret = await secrets.get("kubeedge", "casecret")
    assert (secret.type, secret.data) == ("Opaque", {"cadata": b"\x00\xff", "cakeydata": b"l"})


async def kubectl(folder: Path, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "kubectl"),
        f"--kubeconfig={folder / 'kubeconfig'}",
        f"--cache-dir={folder / 'cache'}",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()
