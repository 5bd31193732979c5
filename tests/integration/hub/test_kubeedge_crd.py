"""The taskManager over the definitions that KubeEdge installs, served by the embedded API: jobs of either version end,
and their status can be read in either, as far as the definition keeps it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cloudhub.kube import JobInformer, KubeClient, ensure_crd, find_job_api
from cloudhub.kube.client import MERGE_PATCH
from cloudhub.kube.jobapi import CRD_PATH, path_of
from cloudhub.metrics import Metrics
from cloudhub.standalone.server import StandaloneAPI
from cloudhub.store.engine import open_database
from cloudhub.store.queue import TaskQueue
from cloudhub.taskmanager.manager import TaskManager, TaskManagerSettings
from cloudhub.taskmanager.ports import NotFound
from shared.jobs import FINALIZER
from tests.integration.taskmanager.world import FakeNodes, FakeSecrets, FakeSessions
from tests.kubeedge_crd import EDITIONS, kubeedge_crd

V1ALPHA1, V1ALPHA2 = path_of("v1alpha1"), path_of("v1alpha2")
KUBEEDGES = {"state", "event", "action", "time", "status", "phase", "nodeStatus", "reason"}
TEMPLATE: dict[str, Any] = {"images": ["registry.example/a:1"], "nodeNames": ["edge-1"]}


class Cluster:
    """An API server with a definition, and a taskManager that works against it as `cloudhub run` does."""

    def __init__(self, client: KubeClient, folder: Path) -> None:
        self.client = client
        self.sessions = FakeSessions()
        self.writes = 0
        self.store: TaskQueue
        self._folder = folder

    @asynccontextmanager
    async def hub(self, data: str = "queue.db") -> AsyncIterator[JobInformer]:
        """One start of the hub; ``data`` names its store."""
        jobs = JobInformer(client=self.client, api=await find_job_api(self.client), backoff=(0.01, 0.1))
        store = self.store = TaskQueue(engine=await open_database(self._folder / data, "queue"))
        nodes = FakeNodes()
        nodes.add("edge-1")
        manager = TaskManager(
            store=store,
            jobs=jobs,
            nodes=nodes,
            secrets=FakeSecrets(),
            sessions=self.sessions,
            metrics=Metrics(),
            settings=TaskManagerSettings(publish_interval=0.05),
        )
        written = jobs.patch_status

        async def counted(**write: Any) -> None:
            self.writes += 1
            await written(**write)

        jobs.patch_status = counted  # type: ignore[method-assign]
        self.sessions.manager = manager
        self.sessions.connect("edge-1", behaviour=self.sessions.obey)
        running = [asyncio.ensure_future(part) for part in (jobs.run(), manager.run())]
        try:
            await jobs.synced()
            yield jobs
        finally:
            self.sessions.manager = None
            await self.sessions.close()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await store.close()

    async def apply(self, path: str, name: str = "a", **about: Any) -> dict[str, Any]:
        body = {
            "apiVersion": path.removeprefix("/apis/").rpartition("/")[0],
            "kind": "ImagePrePullJob",
            "metadata": {"name": name, **about},
            "spec": {"imagePrePullTemplate": TEMPLATE},
        }
        return await self.client.request("POST", path, body=body)

    async def status(self, path: str, name: str = "a") -> dict[str, Any]:
        found: dict[str, Any] = (await self.client.request("GET", f"{path}/{name}")).get("status", {})
        return found

    async def patch(self, path: str, body: dict[str, Any], name: str = "a") -> None:
        await self.client.request("PATCH", f"{path}/{name}", body=body, content_type=MERGE_PATCH)

    @property
    def asked(self) -> int:
        return len(self.sessions.node("edge-1").asked)


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - it is another process's state, so to speak
            await asyncio.sleep(0.02)


@asynccontextmanager
async def cluster_with(folder: Path, edition: str) -> AsyncIterator[Cluster]:
    async with StandaloneAPI(data_dir=folder / "api") as api:
        api.write_kubeconfig(folder / "kubeconfig")
        client = await KubeClient.connect(kubeconfig=str(folder / "kubeconfig"), qps=10_000, burst=10_000)
        try:
            if edition != "ours":
                await client.request("POST", CRD_PATH.rpartition("/")[0], body=kubeedge_crd(edition))  # type: ignore[arg-type]
            assert await ensure_crd(client) == ("created" if edition == "ours" else "foreign")
            yield Cluster(client, folder)
        finally:
            await client.close()


@pytest.fixture(params=["both", "later"])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster_with(tmp_path, request.param) as found:
        yield found


def ended(cluster: Cluster, path: str = V1ALPHA2, name: str = "a") -> Callable[[], Awaitable[bool]]:
    async def probe() -> bool:
        status = await cluster.status(path, name)
        return "Completed" in status.values() or "Successful" in status.values()

    return probe


@pytest.mark.parametrize("edition", ["ours", *EDITIONS])
@pytest.mark.parametrize("written_in", [V1ALPHA1, V1ALPHA2])
async def test_a_job_of_either_version_ends_and_each_version_shows_its_part(
    tmp_path: Path, edition: str, written_in: str
) -> None:
    async with cluster_with(tmp_path, edition) as cluster:
        if edition == "first" and written_in == V1ALPHA2:
            with pytest.raises(NotFound):
                await cluster.apply(written_in)
            return
        async with cluster.hub():
            await cluster.apply(written_in)
            await until(ended(cluster, V1ALPHA1 if edition == "first" else V1ALPHA2))
        first = await cluster.status(V1ALPHA1)
        if edition in ("ours", "first", "both"):
            (entry,) = first["status"]
            assert (first["state"], first["event"], first["action"]) == ("Successful", "Pull", "Success")
            assert entry["nodeStatus"] == {
                "nodeName": "edge-1",
                "state": "Successful",
                "event": "Pull",
                "action": "Success",
                "time": entry["nodeStatus"]["time"],
            }
            assert entry["imageStatus"] == [{"image": "registry.example/a:1", "state": "Successful"}]
            assert not {"phase", "nodeStatus"} & set(first)
        else:
            assert first == {}
        assert ("counts" in first) is (edition == "ours")
        if edition != "first":
            later = await cluster.status(V1ALPHA2)
            assert (later["phase"], later["nodeStatus"][0]["phase"]) == ("Completed", "Successful")
            steps = later["nodeStatus"][0]["actionFlow"]
            assert [(step["action"], step["status"]) for step in steps] == [("Check", "True"), ("Pull", "True")]
            assert later["nodeStatus"][0]["imageStatus"] == [{"image": "registry.example/a:1", "status": "True"}]
            assert edition == "ours" or set(later) <= KUBEEDGES


async def test_defaults_that_the_definition_does_not_fill_in_hold_all_the_same(cluster: Cluster) -> None:
    async with cluster.hub():
        await cluster.apply(V1ALPHA2)
        await until(ended(cluster))
    (asked,) = cluster.sessions.node("edge-1").asked
    template = asked.content["imagePrePullTemplate"]
    assert (asked.operation, template["checkItems"], template["retryTimes"]) == ("Check", ["disk"], 0)
    assert asked.content["task"]["timeout_seconds"] == 300


async def test_nothing_is_written_when_all_is_said_and_nothing_done_twice_after_a_restart(cluster: Cluster) -> None:
    async with cluster.hub():
        await cluster.apply(V1ALPHA1)
        await until(ended(cluster))
    writes = cluster.writes
    assert writes <= 4
    # With what it stored, and with an empty store.
    for data in ("queue.db", "empty.db"):
        async with cluster.hub(data):
            await cluster.apply(V1ALPHA1, f"marker-{data.partition('.')[0]}")
            await until(ended(cluster, name=f"marker-{data.partition('.')[0]}"))
    await cluster.client.request("DELETE", f"{V1ALPHA2}/marker-queue")
    assert [asked.job for asked in cluster.sessions.node("edge-1").asked].count("a") == 1
    found = await cluster.client.request("GET", f"{V1ALPHA2}/a")
    assert cluster.writes - writes <= 2 * 4
    assert found["metadata"]["generation"] == 1


async def test_a_write_in_the_version_that_knows_less_is_mended(cluster: Cluster) -> None:
    async with cluster.hub() as jobs:
        await cluster.apply(V1ALPHA1)
        await until(ended(cluster))
        whole = await cluster.status(V1ALPHA2)
        for number in range(3):
            await cluster.patch(V1ALPHA1, {"metadata": {"labels": {"number": str(number)}}})
            assert "phase" not in await cluster.status(V1ALPHA2)

            async def mended() -> bool:
                return await cluster.status(V1ALPHA2) == whole

            await until(mended)
        writes = cluster.writes
        version = (await cluster.client.request("GET", f"{V1ALPHA2}/a"))["metadata"]["resourceVersion"]

        async def seen() -> bool:
            found = jobs.get("a")
            return found is not None and found.resource_version == version

        await until(seen)
        # An edit that changes nothing of the status: it is of the later version, and so takes nothing out.
        await cluster.patch(V1ALPHA2, {"metadata": {"labels": {"last": "yes"}}})
        await cluster.apply(V1ALPHA2, "marker")
        await until(ended(cluster, name="marker"))
        assert await cluster.status(V1ALPHA2) == whole
        assert cluster.writes <= writes + 4


async def test_an_edit_in_the_first_version_holds_and_the_status_stays_whole(cluster: Cluster) -> None:
    async with cluster.hub():
        cluster.sessions.disconnect("edge-1")
        await cluster.apply(V1ALPHA1)

        async def begun() -> bool:
            return bool((await cluster.status(V1ALPHA2)).get("nodeStatus"))

        await until(begun)
        await cluster.patch(V1ALPHA1, {"spec": {"imagePrePullTemplate": {"timeoutSeconds": 77}}})

        async def taken_over() -> bool:
            job = await cluster.store.job_named("a")
            return job is not None and job.timeout_seconds == 77

        await until(taken_over)
        cluster.sessions.connect("edge-1")
        await until(ended(cluster))
    (asked,) = cluster.sessions.node("edge-1").asked
    assert asked.content["task"]["timeout_seconds"] == 77


@pytest.mark.parametrize("status", [{"phase": "Completed", "nodeStatus": []}, {"phase": "Failure", "reason": "r"}])
async def test_what_a_cloudcore_has_ended_is_left_as_it_is_and_can_be_deleted(
    cluster: Cluster, status: dict[str, Any]
) -> None:
    await cluster.apply(V1ALPHA2, finalizers=["theirs.example/x", FINALIZER])
    await cluster.patch(f"{V1ALPHA2}", {"status": status}, "a/status")
    held = await cluster.status(V1ALPHA2)
    async with cluster.hub():
        await cluster.apply(V1ALPHA1, "marker")
        await until(ended(cluster, name="marker"))
        assert await cluster.status(V1ALPHA2) == held
        await cluster.client.request("DELETE", f"{V1ALPHA2}/a")

        async def let_go() -> bool:
            about = (await cluster.client.request("GET", f"{V1ALPHA2}/a"))["metadata"]
            return list(about["finalizers"]) == ["theirs.example/x"]

        await until(let_go)
        await cluster.patch(V1ALPHA2, {"metadata": {"finalizers": []}})
    assert [asked.job for asked in cluster.sessions.node("edge-1").asked] == ["marker"]
    with pytest.raises(NotFound):
        await cluster.client.request("GET", f"{V1ALPHA2}/a")


async def test_a_job_at_work_that_is_held_goes_when_it_is_deleted(cluster: Cluster) -> None:
    async with cluster.hub():
        cluster.sessions.node("edge-1").behaviour = None
        await cluster.apply(V1ALPHA1, finalizers=[FINALIZER])

        async def asked() -> bool:
            return cluster.asked == 1

        await until(asked)
        await cluster.client.request("DELETE", f"{V1ALPHA1}/a")

        async def gone() -> bool:
            try:
                await cluster.client.request("GET", f"{V1ALPHA1}/a")
            except NotFound:
                return True
            return False

        await until(gone)
        assert len(cluster.sessions.node("edge-1").cancelled) == 1


async def test_a_job_of_kubeedges_that_lacks_what_the_later_version_requires_is_let_go_too(tmp_path: Path) -> None:
    async with cluster_with(tmp_path, "both") as cluster:
        await cluster.apply(V1ALPHA1, finalizers=[FINALIZER])
        await cluster.patch(V1ALPHA1, {"status": {"state": "Successful"}}, "a/status")
        await cluster.client.request("DELETE", f"{V1ALPHA1}/a")
        async with cluster.hub():

            async def gone() -> bool:
                return not (await cluster.client.request("GET", V1ALPHA1))["items"]

            await until(gone)


async def test_a_cluster_that_is_upgraded_under_the_hub_goes_on_in_the_new_version(tmp_path: Path) -> None:
    async with cluster_with(tmp_path, "first") as cluster, cluster.hub() as jobs:
        await cluster.apply(V1ALPHA1)
        await until(ended(cluster, V1ALPHA1))
        definition = await cluster.client.request("GET", CRD_PATH)
        body = {**definition, "spec": kubeedge_crd("both")["spec"]}
        await cluster.client.request("PUT", CRD_PATH, body=body)
        found = await find_job_api(cluster.client)
        assert found is not None
        jobs.speak(found)

        async def told() -> bool:
            return (await cluster.status(V1ALPHA2)).get("phase") == "Completed"

        # The job that ended before has no phase yet: it gets one.
        await until(told)
        await cluster.apply(V1ALPHA2, "b")
        await until(ended(cluster, name="b"))
        assert json.dumps(await cluster.status(V1ALPHA1, "b")).count("Successful") == 3
