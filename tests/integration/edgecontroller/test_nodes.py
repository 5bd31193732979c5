"""Stock EdgeCores with `edged` on, over real sessions, and the embedded API server behind the hub."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest_asyncio
from websockets.asyncio.client import connect

from cloudhub.edgecontroller.controller import EdgeController, Limits
from cloudhub.kube import EdgeNodes, KubeClient, NodeInformer, NodeRegistrar
from cloudhub.kube.nodes import MANAGED_ANNOTATION
from cloudhub.metrics import Metrics
from cloudhub.pki.ca import CertificateAuthority
from cloudhub.sessions.queries import Queries
from cloudhub.sessions.server import SessionServer
from cloudhub.standalone.server import StandaloneAPI
from cloudhub.taskmanager.ports import SessionInfo
from tests.integration.certificates import mtls_context, new_ca, node_context
from tests.integration.edgecontroller.kubelet import BOUND, Kubelet, initial_node
from tests.unit.kube.apiserver import in_background

NODES = "/api/v1/nodes"


@dataclass
class Hub:
    api: StandaloneAPI
    client: KubeClient
    sessions: SessionServer
    ca: CertificateAuthority
    metrics: Metrics
    folder: Path
    controller: EdgeController

    @contextlib.asynccontextmanager
    async def edge(self, node: str) -> AsyncIterator[Kubelet]:
        headers = {"node_id": node, "project_id": "e632aba927ea4ac2b575ec1603d56f10", "ConnectionUse": "msg"}
        url = f"wss://127.0.0.1:{self.sessions.port}/e632aba927ea4ac2b575ec1603d56f10/{node}/events"
        context = node_context(self.ca, node)
        async with connect(
            url, ssl=context, additional_headers=headers, compression=None, proxy=None, close_timeout=1
        ) as socket:
            yield Kubelet(socket, node)

    async def kubectl(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "kubectl"),
            f"--kubeconfig={self.folder / 'kubeconfig'}",
            f"--cache-dir={self.folder / 'cache'}",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def node(self, name: str) -> dict[str, Any]:
        return await self.client.request("GET", f"{NODES}/{name}")

    async def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in (await self.client.request("GET", NODES))["items"]]


class Listener:
    """The edge controller, and a registrar that is told of sessions, if there is one."""

    def __init__(self, controller: EdgeController, registrar: NodeRegistrar | None) -> None:
        self.messages_received = controller.messages_received
        self._told: list[EdgeController | NodeRegistrar] = [controller]
        if registrar is not None:
            self._told.append(registrar)

    def session_opened(self, session: SessionInfo) -> None:
        for listener in self._told:
            listener.session_opened(session)

    def session_closed(self, session: SessionInfo) -> None:
        for listener in self._told:
            listener.session_closed(session)


@contextlib.asynccontextmanager
async def open_hub(
    folder: Path, *, registering: bool = False, limits: Limits | None = None, edge_api: Any = None
) -> AsyncIterator[Hub]:
    ca, metrics = new_ca(), Metrics()
    async with contextlib.AsyncExitStack() as stack:
        api = StandaloneAPI(data_dir=folder / "api")
        await api.start()
        stack.push_async_callback(api.stop)
        api.write_kubeconfig(folder / "kubeconfig")
        client = await KubeClient.connect(kubeconfig=str(folder / "kubeconfig"), qps=10_000, burst=10_000)
        stack.push_async_callback(client.close)
        sessions = SessionServer(host="127.0.0.1", port=0, ssl_context=mtls_context(ca), metrics=metrics)
        controller = EdgeController(
            sessions=sessions,
            api=edge_api or EdgeNodes(client=client),
            rest=Queries(sessions=sessions, find=None),
            metrics=metrics,
            limits=limits,
        )
        await stack.enter_async_context(in_background(controller.run))
        registrar = None
        if registering:
            nodes = NodeInformer(client=client)
            registrar = NodeRegistrar(client=client, nodes=nodes, unschedulable=True, settle=0.0)
            await stack.enter_async_context(in_background(nodes.run))
            await stack.enter_async_context(in_background(registrar.run))
        sessions.listener = Listener(controller, registrar)
        await stack.enter_async_context(sessions)
        yield Hub(api, client, sessions, ca, metrics, folder, controller)


@pytest_asyncio.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with open_hub(tmp_path) as opened:
        yield opened


async def until(probe: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(BOUND):
        while not await probe():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.02)


async def in_line(hub: Hub, nodes: int) -> bool:
    return len(hub.controller._lines) == nodes


# --- The life of a node -----------------------------------------------------------------------------------------


async def test_a_node_registers_becomes_ready_and_renews_its_lease_and_kubectl_sees_it(hub: Hub) -> None:
    async with hub.edge("edge-1") as kubelet:
        made, error = await kubelet.register()
        assert error is None
        assert "managedFields" not in made["metadata"]
        assert "NotReady" in await hub.kubectl("get", "node", "edge-1")
        patched, error = await kubelet.ready()
        assert error is None
        assert {item["type"]: item["status"] for item in patched["status"]["conditions"]} == {
            "MemoryPressure": "False",
            "Ready": "True",
        }
        shown = (await hub.kubectl("get", "node", "edge-1", "--no-headers")).split()
        assert shown[:3] == ["edge-1", "Ready", "agent,edge"]
        assert shown[4] == "v1.27.7-kubeedge-v1.16.0"

        _, missing = await kubelet.lease("query")
        assert missing is not None
        assert (missing["reason"], missing["code"]) == ("NotFound", 404)
        lease, error = await kubelet.lease("insert", kubelet.new_lease(made["metadata"]["uid"]))
        assert error is None
        _, again = await kubelet.lease("insert", kubelet.new_lease())
        assert again is not None
        assert again["reason"] == "AlreadyExists"
        lease["spec"]["renewTime"] = "2026-01-02T03:04:15.000000Z"
        renewed, error = await kubelet.lease("update", lease)
        assert error is None
        assert renewed["spec"]["renewTime"] == "2026-01-02T03:04:15.000000Z"
        _, stale = await kubelet.lease("update", lease)
        assert stale is not None
        assert (stale["reason"], stale["code"]) == ("Conflict", 409)
        found, error = await kubelet.lease("query")
        assert (found["metadata"], error) == (renewed["metadata"], None)
        held = await hub.kubectl("get", "lease", "edge-1", "-n", "kube-node-lease", "-o", "json")
        assert json.loads(held)["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
        assert json.loads(held)["spec"]["renewTime"] == "2026-01-02T03:04:15.000000Z"


async def test_answers_carry_version_parent_and_route_as_cloudcores_do(hub: Hub) -> None:
    async with hub.edge("edge-1") as kubelet:
        answer = await kubelet.ask("null/node/edge-1", "insert", initial_node("edge-1"))
        made = answer["content"]["Object"]
        assert answer["header"]["resourceversion"] == made["metadata"]["resourceVersion"]
        # A node that is asked for is kept by EdgeCore as it comes: the plain object.
        answer = await kubelet.ask("null/node/edge-1", "query")
        assert answer["route"]["operation"] == "response"
        assert answer["content"]["metadata"]["uid"] == made["metadata"]["uid"]
    async with hub.edge("edge-2") as kubelet:
        answer = await kubelet.ask("null/node/edge-2", "query")
        assert answer["route"]["operation"] == "error"
        assert "404" in answer["content"]


async def test_a_node_that_is_there_already_stays_as_it_is(hub: Hub) -> None:
    async with hub.edge("edge-1") as kubelet:
        made, _ = await kubelet.register()
        _, error = await kubelet.register(labels={"team": "web"})
        assert error is not None
        assert (error["reason"], error["code"]) == ("AlreadyExists", 409)
        assert error["details"] == {"name": "edge-1", "kind": "nodes"}
        assert (await hub.node("edge-1"))["metadata"]["uid"] == made["metadata"]["uid"]
        assert "team" not in (await hub.node("edge-1"))["metadata"]["labels"]


async def test_a_patch_before_there_is_a_node_says_so(hub: Hub) -> None:
    async with hub.edge("edge-1") as kubelet:
        _, error = await kubelet.ready()
        assert error is not None
        assert error["reason"] == "NotFound"


async def test_the_older_status_messages_are_answered_with_ok(hub: Hub) -> None:
    async with hub.edge("edge-1") as kubelet:
        for _ in range(2):
            answer = await kubelet.ask("default/nodestatus/edge-1", "insert", initial_node("edge-1"))
            assert (answer["route"]["operation"], answer["content"]) == ("response", "OK")
        status = initial_node("edge-1")["status"] | {"conditions": []}
        report = {"UID": "", "Status": status | {"phase": "Running"}, "ExtendResources": {}}
        answer = await kubelet.ask("default/nodestatus/edge-1", "update", report)
        assert answer["content"] == "OK"
        assert (await hub.node("edge-1"))["status"]["phase"] == "Running"
        answer = await kubelet.ask("default/nodestatus/edge-1", "update", {"UID": ""})
        assert answer["route"]["operation"] == "error"


# --- What is refused --------------------------------------------------------------------------------------------


async def test_a_node_that_tries_anothers_name_is_refused_and_nothing_is_written(hub: Hub) -> None:
    async with hub.edge("victim") as victim, hub.edge("edge-1") as kubelet:
        await victim.register()
        await victim.ready()
        lease, _ = await victim.lease("insert", victim.new_lease())
        before = await hub.node("victim")
        lies = [
            await kubelet.call("null/node/victim", "insert", initial_node("victim")),
            await kubelet.call("null/node/edge-1", "insert", initial_node("victim")),
            await kubelet.call("null/node/new-one", "insert", initial_node("new-one")),
            await kubelet.patch({"status": {"conditions": []}}, name="victim"),
            await kubelet.patch({"metadata": {"name": "victim"}, "status": {}}),
            await kubelet.lease("query", name="victim"),
            await kubelet.lease("update", lease, name="victim"),
            await kubelet.lease("update", lease),
            await kubelet.lease("insert", victim.new_lease()),
        ]
        for found, error in lies:
            assert found is None
            assert error is not None
            assert (error["reason"], error["code"]) == ("Forbidden", 403), error
        for resource, operation in (("null/node/victim", "query"), ("default/nodestatus/victim", "update")):
            answer = await kubelet.ask(resource, operation, {"Status": {}})
            assert answer["route"]["operation"] == "error"
        assert await hub.node("victim") == before
        assert await hub.names() == ["victim"]
        assert hub.metrics.edge_requests_total.value("refused") == 11


async def test_spec_labels_and_more_can_not_be_changed_by_way_of_the_status(hub: Hub) -> None:
    async with hub.edge("edge-1") as kubelet:
        await kubelet.register()
        before = await hub.node("edge-1")
        patch = {
            "metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}, "annotations": {"a": "b"}},
            "spec": {"taints": [{"key": "x", "effect": "NoExecute"}], "unschedulable": True},
            "status": {"phase": "Running"},
        }
        _, error = await kubelet.patch(patch)
        assert error is None
        after = await hub.node("edge-1")
        assert after["status"]["phase"] == "Running"
        assert after["spec"] == before["spec"]
        for key in ("labels", "annotations"):
            assert after["metadata"][key] == before["metadata"][key]
        _, error = await kubelet.register(labels={"node-role.kubernetes.io/control-plane": ""})
        assert error is not None
        assert error["reason"] == "Forbidden"


async def test_what_the_api_refuses_is_told_and_the_session_goes_on(hub: Hub) -> None:
    async with hub.edge("edge-1") as kubelet:
        _, error = await kubelet.register(labels={"team": "no such value!"})
        assert error is not None
        assert (error["reason"], error["code"]) == ("Invalid", 422)
        for content in (None, 7, "{", [1]):
            _, error = await kubelet.call("null/nodepatch/edge-1", "patch", content)
            assert error is not None
            assert error["reason"] == "BadRequest"
        assert (await kubelet.register())[1] is None


async def test_everything_else_that_is_asked_gets_an_error_at_once(hub: Hub) -> None:
    async with hub.edge("edge-1") as kubelet:
        for resource, operation in (
            ("default/podlist/edge-1", "query"),
            ("default/pod/web", "query"),
            ("default/configmap/settings", "query"),
            ("default/serviceaccounttoken/default", "query"),
            ("default/podpatch/web", "patch"),
            ("default/podstatus/web", "update"),
            ("default/event/web.1", "insert"),
            ("default/secret/any", "query"),
            ("null/node/edge-1", "delete"),
            ("null/node/edge-1", "update"),
            ("default/lease/edge-1", "query"),
            ("kube-node-lease/lease/edge-1", "delete"),
            ("null/volumeattachment/x", "query"),
            ("k8s/ca.crt", "query"),
            ("nonsense", "query"),
        ):
            answer = await kubelet.ask(resource, operation)
            assert answer["route"]["operation"] == "error", resource
            assert isinstance(answer["content"], str)
            assert answer["content"]
        answer = await kubelet.ask("membership/detail", "get", source="twin", group="resource")
        assert answer["route"]["operation"] == "error"
        answer = await kubelet.ask("k8s/ca.crt", "query", source="metaserver", group="resource")
        assert answer["route"]["operation"] == "error"
        await kubelet.say("a thing of tomorrow", "unheard-of", source="x", group="y")
        assert (await kubelet.register())[1] is None


# --- Bounds -----------------------------------------------------------------------------------------------------


class SlowAPI:
    """Answers when told to; counts who is before it."""

    def __init__(self) -> None:
        self.slow: set[str] = set()
        self.release = asyncio.Event()
        self.now: list[str] = []
        self.most = 0
        self.order: list[tuple[str, int]] = []

    async def patch_status(self, name: str, patch: dict[str, Any]) -> dict[str, Any]:
        self.now.append(name)
        self.most = max(self.most, len(self.now))
        if name in self.slow:
            await self.release.wait()
        self.now.remove(name)
        self.order.append((name, patch["status"]["number"]))
        return {"metadata": {"name": name}}


async def test_a_slow_answer_for_one_node_delays_no_other_and_its_own_come_in_order(tmp_path: Path) -> None:
    api = SlowAPI()
    api.slow.add("slow")
    async with open_hub(tmp_path, edge_api=api) as hub, hub.edge("slow") as slow, hub.edge("quick") as quick:
        asked = [
            await slow.say("null/nodepatch/slow", "patch", json.dumps({"status": {"number": number}}))
            for number in range(5)
        ]
        for number in range(5):
            assert (await quick.patch({"status": {"number": number}}))[1] is None
        # Its session goes on too: other questions are answered meanwhile.
        assert (await slow.ask("default/podlist/slow", "query"))["route"]["operation"] == "error"
        assert api.now == ["slow"]
        api.release.set()
        for question in asked:
            assert (await slow.heard(question))["content"]["Err"] is None
        assert [number for name, number in api.order if name == "slow"] == [0, 1, 2, 3, 4]


async def test_no_more_questions_are_before_the_api_than_there_are_workers(tmp_path: Path) -> None:
    api = SlowAPI()
    nodes = [f"edge-{number}" for number in range(5)]
    api.slow.update(nodes)
    async with open_hub(tmp_path, edge_api=api, limits=Limits(workers=2)) as hub, contextlib.AsyncExitStack() as stack:
        edges = [await stack.enter_async_context(hub.edge(node)) for node in nodes]
        asked = [
            await edge.say(f"null/nodepatch/{edge.node}", "patch", json.dumps({"status": {"number": 0}}))
            for edge in edges
        ]
        await until(lambda: in_line(hub, len(nodes)))
        api.release.set()
        for edge, question in zip(edges, asked, strict=True):
            assert (await edge.heard(question))["content"]["Err"] is None
        assert api.most == 2
        assert hub.controller._lines == {}


async def test_a_node_that_asks_too_often_gets_errors_at_once_and_keeps_its_session(tmp_path: Path) -> None:
    api = SlowAPI()
    limits = Limits(per_second=1e-6, burst=10)
    async with open_hub(tmp_path, edge_api=api, limits=limits) as hub:
        async with hub.edge("edge-1") as kubelet:
            reasons = [error and error["reason"] for _, error in [await numbered(kubelet) for _ in range(15)]]
            assert reasons == [None] * 10 + ["TooManyRequests"] * 5
        # Nor is a new session a way around it.
        async with hub.edge("edge-1") as kubelet, hub.edge("edge-2") as other:
            _, error = await numbered(kubelet)
            assert error is not None
            assert error["code"] == 429
            assert (await numbered(other))[1] is None


async def numbered(kubelet: Kubelet) -> tuple[Any, dict[str, Any] | None]:
    return await kubelet.patch({"status": {"number": 0}})


async def test_a_line_that_is_full_is_told_at_once_and_what_waits_for_an_ended_session_is_dropped(
    tmp_path: Path,
) -> None:
    api = SlowAPI()
    api.slow.add("edge-1")
    async with open_hub(tmp_path, edge_api=api, limits=Limits(waiting=3)) as hub:
        async with hub.edge("edge-1") as kubelet:
            asked = [
                await kubelet.say("null/nodepatch/edge-1", "patch", json.dumps({"status": {"number": number}}))
                for number in range(4)
            ]
            refused = await kubelet.heard(asked[3])
            assert refused["content"]["Err"]["ErrStatus"]["code"] == 429
        async with hub.edge("edge-1") as kubelet:
            api.release.set()
            await until(lambda: in_line(hub, 0))
            assert api.order == [("edge-1", 0)]
            assert (await kubelet.patch({"status": {"number": 9}}))[1] is None


async def test_what_waited_too_long_is_not_asked_any_more_and_says_so(tmp_path: Path) -> None:
    api = SlowAPI()
    async with open_hub(tmp_path, edge_api=api, limits=Limits(patience=-1.0)) as hub, hub.edge("edge-1") as kubelet:
        _, error = await numbered(kubelet)
        assert error is not None
        assert (error["code"], "in time" in error["message"]) == (503, True)
        assert api.order == []


async def test_an_api_that_is_away_is_told_at_once_as_one_that_may_be_asked_again(hub: Hub) -> None:
    async with hub.edge("edge-1") as kubelet:
        await kubelet.register()
        await hub.api.stop()
        _, error = await kubelet.ready()
        assert error is not None
        assert (error["reason"], error["code"]) == ("ServiceUnavailable", 503)
        answer = await kubelet.ask("null/node/edge-1", "query")
        assert answer["route"]["operation"] == "error"


async def test_a_fault_of_the_hub_is_an_answer_too(tmp_path: Path) -> None:
    class Broken:
        async def patch_status(self, name: str, patch: dict[str, Any]) -> dict[str, Any]:
            raise ZeroDivisionError("secret-4711")

        async def get_node(self, name: str) -> dict[str, Any]:
            return {"metadata": {"name": name}, "status": {"images": "x" * (2 << 20)}}

    async with open_hub(tmp_path, edge_api=Broken()) as hub, hub.edge("edge-1") as kubelet:
        _, error = await kubelet.ready()
        assert error is not None
        assert error["reason"] == "InternalError"
        assert "4711" not in error["message"]
        answer = await kubelet.ask("null/node/edge-1", "query")
        assert (answer["route"]["operation"], answer["content"]) == ("error", "the answer does not fit a message")


# --- Beside the registrar ---------------------------------------------------------------------------------------


async def managed(hub: Hub, name: str) -> bool:
    return MANAGED_ANNOTATION in ((await hub.node(name))["metadata"].get("annotations") or {})


def readiness(node: dict[str, Any]) -> dict[str, Any]:
    (found,) = [item for item in node["status"]["conditions"] if item["type"] == "Ready"]
    return dict(found)


async def test_a_node_object_that_the_hub_made_is_handed_over_to_the_kubelet_that_registers(tmp_path: Path) -> None:
    async with open_hub(tmp_path, registering=True) as hub:
        async with hub.edge("edge-1") as kubelet:
            await until(lambda: there(hub, "edge-1"))
            assert await managed(hub, "edge-1")
            made, error = await kubelet.register()
            assert error is None
            assert made["status"]["nodeInfo"]["kubeletVersion"] == "v1.27.7-kubeedge-v1.16.0"
            assert (await kubelet.ready())[1] is None
            assert not await managed(hub, "edge-1")
            node = await hub.node("edge-1")
            assert "unschedulable" not in node["spec"]
            assert node["metadata"]["labels"]["kubernetes.io/arch"] == "arm64"
        # The end of the session is the kubelet's to be found out by its Lease, not the registrar's to write.
        async with hub.edge("edge-2"):
            await until(lambda: there(hub, "edge-2"))
        await until(lambda: is_ready(hub, "edge-2", "False"))
        assert readiness(await hub.node("edge-1"))["reason"] == "KubeletReady"


async def test_a_kubelet_that_only_patches_gets_its_node_object_too(tmp_path: Path) -> None:
    async with open_hub(tmp_path, registering=True) as hub, hub.edge("edge-1") as kubelet:
        await until(lambda: there(hub, "edge-1"))
        _, error = await kubelet.ready()
        assert error is None
        assert not await managed(hub, "edge-1")
        assert readiness(await hub.node("edge-1"))["reason"] == "KubeletReady"


async def there(hub: Hub, name: str) -> bool:
    return name in await hub.names()


async def is_ready(hub: Hub, name: str, status: str) -> bool:
    return bool(readiness(await hub.node(name))["status"] == status)


# --- Off --------------------------------------------------------------------------------------------------------


async def test_without_the_controller_the_same_questions_get_an_error(tmp_path: Path) -> None:
    async with open_hub(tmp_path) as hub:
        hub.sessions.listener = Queries(sessions=hub.sessions, find=None)
        async with hub.edge("edge-1") as kubelet:
            for resource, operation, content in (
                ("null/node/edge-1", "insert", initial_node("edge-1")),
                ("null/nodepatch/edge-1", "patch", "{}"),
                ("kube-node-lease/lease/edge-1", "query", None),
                ("kube-node-lease/lease/edge-1", "insert", kubelet.new_lease()),
                ("default/nodestatus/edge-1", "update", {}),
            ):
                answer = await kubelet.ask(resource, operation, content)
                assert answer["route"]["operation"] == "error"
                assert answer["content"] == f"cloudhub does not serve {operation} of {resource}"
            assert await hub.names() == []
