"""Node objects follow the sessions, and only those of our making."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from cloudhub.kube.leases import LeaseKeeper
from cloudhub.kube.nodes import MANAGED_ANNOTATION, NODES_PATH, NodeInformer
from cloudhub.kube.registrar import NodeRegistrar
from cloudhub.taskmanager.ports import SessionInfo
from shared.wire import NodeInfo
from tests.unit.kube.apiserver import ScriptedAPI, client_of, eventually, in_background, running_api

INFO = NodeInfo(architecture="arm64", operatingSystem="linux", kubeletVersion="edgehub-0.1.0", osImage="Debian")
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def session(node: str, *, serial: int = 1, info: NodeInfo | None = INFO) -> SessionInfo:
    return SessionInfo(node=node, serial=serial, features=frozenset(), info=info)


@asynccontextmanager
async def registering(api: ScriptedAPI, **options: Any) -> AsyncIterator[NodeRegistrar]:
    async with client_of(api) as client:
        nodes = NodeInformer(client=client, backoff=(0.005, 0.02))
        registrar = NodeRegistrar(
            client=client,
            nodes=nodes,
            **{"unschedulable": False, "settle": 0.0, "now": lambda: datetime(2024, 4, 26, tzinfo=UTC), **options},
        )
        async with in_background(nodes.run), in_background(registrar.run):
            yield registrar


def ready(api: ScriptedAPI, name: str) -> str | None:
    node = api.objects.get(NODES_PATH, {}).get(name)
    for condition in (node or {}).get("status", {}).get("conditions", ()):
        if condition["type"] == "Ready":
            return str(condition["status"])
    return None


async def test_a_node_without_an_object_gets_one_as_a_kubelet_would_make_it() -> None:
    async with running_api() as api, registering(api) as registrar:
        registrar.session_opened(session("edge-1"))
        await eventually(lambda: ready(api, "edge-1") == "True")
        node = api.objects[NODES_PATH]["edge-1"]
        assert node["metadata"]["labels"] == {
            "node-role.kubernetes.io/edge": "",
            "node-role.kubernetes.io/agent": "",
            "kubernetes.io/hostname": "edge-1",
            "kubernetes.io/arch": "arm64",
            "kubernetes.io/os": "linux",
        }
        assert node["metadata"]["annotations"] == {MANAGED_ANNOTATION: "true"}
        assert node["spec"] == {}
        assert node["status"]["nodeInfo"]["kubeletVersion"] == "edgehub-0.1.0"


async def test_under_run_the_node_is_unschedulable() -> None:
    async with running_api() as api, registering(api, unschedulable=True) as registrar:
        registrar.session_opened(session("edge-1"))
        await eventually(lambda: ready(api, "edge-1") == "True")
        assert api.objects[NODES_PATH]["edge-1"]["spec"] == {"unschedulable": True}


async def test_a_server_that_takes_no_status_at_creation_gets_it_afterwards() -> None:
    async with running_api() as api, registering(api) as registrar:
        api.status_in_post = False
        registrar.session_opened(session("edge-1"))
        await eventually(lambda: ready(api, "edge-1") == "True")


async def test_readiness_follows_the_session() -> None:
    async with running_api() as api, registering(api) as registrar:
        for serial in range(3):
            registrar.session_opened(session("edge-1", serial=serial))
            await eventually(lambda: ready(api, "edge-1") == "True")
            registrar.session_closed(session("edge-1", serial=serial))
            await eventually(lambda: ready(api, "edge-1") == "False")
        assert api.requests["POST"] == 1


async def test_what_the_agent_says_of_itself_is_brought_up_to_date() -> None:
    async with running_api() as api, registering(api) as registrar:
        registrar.session_opened(session("edge-1"))
        await eventually(lambda: ready(api, "edge-1") == "True")
        registrar.session_opened(session("edge-1", serial=2, info=INFO.model_copy(update={"kubeletVersion": "new"})))
        node = api.objects[NODES_PATH]
        await eventually(lambda: node["edge-1"]["status"]["nodeInfo"]["kubeletVersion"] == "new")


async def test_a_node_of_others_making_is_never_written_to() -> None:
    async with running_api() as api:
        await api.put(NODES_PATH, "edge-1", status={"conditions": [{"type": "Ready", "status": "Unknown"}]})
        async with registering(api) as registrar:
            registrar.session_opened(session("edge-1"))
            registrar.session_opened(session("edge-2"))
            await eventually(lambda: ready(api, "edge-2") == "True")
            registrar.session_closed(session("edge-1"))
            registrar.session_closed(session("edge-2"))
            await eventually(lambda: ready(api, "edge-2") == "False")
        assert ready(api, "edge-1") == "Unknown"
        assert "edge-1" not in registrar.managed()


async def test_a_node_that_another_takes_over_between_two_requests_is_left_alone() -> None:
    async with running_api() as api, registering(api) as registrar:
        registrar.session_opened(session("edge-1"))
        await eventually(lambda: ready(api, "edge-1") == "True")

        def take_over(request: web.Request) -> None:
            if request.method == "PATCH":
                node = api.objects[NODES_PATH]["edge-1"]
                node["metadata"].pop("annotations", None)
                api.version += 1
                node["metadata"]["resourceVersion"] = str(api.version)

        api.on_request = take_over
        registrar.session_closed(session("edge-1"))
        await eventually(lambda: api.requests["PATCH"] >= 1 and not registrar._busy)
        assert ready(api, "edge-1") == "True"


async def test_a_node_made_by_another_at_the_same_moment_is_left_alone() -> None:
    async with running_api() as api:
        async with registering(api) as registrar:
            await eventually(lambda: api.requests["WATCH"] == 1)
            api.objects[NODES_PATH] = {"edge-1": {"metadata": {"name": "edge-1", "resourceVersion": "1"}}}
            registrar.session_opened(session("edge-1"))
            await eventually(lambda: api.requests["POST"] == 1 and not registrar._busy)
        assert api.requests["PATCH"] == 0


async def test_while_the_api_is_away_it_waits_and_then_writes_only_the_last_state() -> None:
    async with running_api() as api, registering(api) as registrar:
        await eventually(lambda: api.requests["WATCH"] == 1)
        api.fail_always = 503
        for serial in range(20):
            registrar.session_opened(session("edge-1", serial=serial))
            registrar.session_closed(session("edge-1", serial=serial))
            registrar.session_opened(session("edge-2", serial=serial))
        await eventually(lambda: api.requests["POST"] >= 1)
        api.requests.clear()
        api.fail_always = None
        await eventually(lambda: ready(api, "edge-2") == "True")
        assert "edge-1" not in api.objects.get(NODES_PATH, {}), "it never stayed long enough to be registered"
        assert api.requests["POST"] == 1


async def test_two_thousand_nodes_at_once_are_a_request_each() -> None:
    async with running_api() as api, registering(api) as registrar:
        await eventually(lambda: api.requests["WATCH"] == 1)
        for number in range(2000):
            registrar.session_opened(session(f"edge-{number}"))
        await eventually(lambda: len(api.objects.get(NODES_PATH, {})) == 2000, within=60)
        await eventually(lambda: not registrar._busy and not registrar._waiting)
        assert api.requests["POST"] == 2000
        assert api.requests["PATCH"] == 0


async def test_at_the_start_nodes_of_ours_without_a_session_become_not_ready() -> None:
    async with running_api() as api:
        conditions = [{"type": "Ready", "status": "True"}]
        for name in ("back", "away"):
            about = {"annotations": {MANAGED_ANNOTATION: "true"}}
            await api.put(NODES_PATH, name, metadata=about, status={"conditions": conditions})
        settled = asyncio.Event()

        async def settle(_: float) -> None:
            await settled.wait()

        async with registering(api, sleep=settle) as registrar:
            registrar.session_opened(session("back", info=None))
            await eventually(lambda: not registrar._waiting and api.requests["WATCH"] == 1)
            assert ready(api, "away") == "True", "it may still be on its way back"
            settled.set()
            await eventually(lambda: ready(api, "away") == "False")
            assert ready(api, "back") == "True"


async def test_a_controller_that_calls_a_connected_node_unknown_is_contradicted() -> None:
    async with running_api() as api, registering(api) as registrar:
        registrar.session_opened(session("edge-1"))
        await eventually(lambda: ready(api, "edge-1") == "True")
        node = api.objects[NODES_PATH]["edge-1"]
        status = {**node["status"], "conditions": [{"type": "Ready", "status": "Unknown"}]}
        await api.put(NODES_PATH, "edge-1", **{**node, "status": status})
        await eventually(lambda: ready(api, "edge-1") == "True")


async def test_a_node_deleted_while_it_is_connected_stays_away_until_it_connects_anew() -> None:
    async with running_api() as api, registering(api) as registrar:
        registrar.session_opened(session("edge-1"))
        await eventually(lambda: ready(api, "edge-1") == "True")
        await api.delete(NODES_PATH, "edge-1")
        registrar.session_opened(session("edge-2"))
        await eventually(lambda: ready(api, "edge-2") == "True")
        assert "edge-1" not in api.objects[NODES_PATH]
        registrar.session_opened(session("edge-1", serial=2))
        await eventually(lambda: ready(api, "edge-1") == "True")


async def test_a_name_that_kubernetes_refuses_is_given_up_and_hinders_nobody() -> None:
    async with running_api() as api, registering(api) as registrar:
        await eventually(lambda: api.requests["WATCH"] == 1)
        api.failing = [422]
        registrar.session_opened(session("not_a_name"))
        await eventually(lambda: api.requests["POST"] == 1)
        registrar.session_opened(session("edge-1"))
        await eventually(lambda: ready(api, "edge-1") == "True")
        assert "not_a_name" not in api.objects[NODES_PATH]


async def test_leases_are_made_and_renewed_spread_over_the_interval() -> None:
    async with running_api() as api, client_of(api) as client:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        names = [f"edge-{number}" for number in range(40)]
        keeper = LeaseKeeper(
            client=client,
            names=lambda: names,
            interval=30.0,
            sleep=sleep,
            now=lambda: datetime(2024, 4, 26, 18, 51, 41, tzinfo=UTC),
        )
        await keeper.round()
        assert slept == [10.0, 10.0, 10.0]
        assert len(api.objects[LEASES]) == 40
        assert api.objects[LEASES]["edge-7"]["spec"] == {
            "holderIdentity": "edge-7",
            "leaseDurationSeconds": 40,
            "renewTime": "2024-04-26T18:51:41.000000Z",
        }
        await keeper.round()
        assert api.requests["POST"] == 40


async def test_leases_wait_for_the_api_and_an_empty_fleet_does_not_spin() -> None:
    async with running_api() as api, client_of(api) as client:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        keeper = LeaseKeeper(client=client, names=lambda: ["edge-1"], interval=20.0, sleep=sleep)
        api.failing = [503]
        await keeper.round()
        await keeper.round()
        assert list(api.objects[LEASES]) == ["edge-1"]
        await LeaseKeeper(client=client, names=list, interval=20.0, sleep=sleep).round()
        assert slept == [20.0, 20.0, 20.0]
