"""What docker/ says is what the programs do: rights, commands, ports, the configuration."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
import yaml
from aiohttp import web

import cloudhub.cli
import edgehub.cli
from cloudhub.config import LoadedConfig, parse_config
from cloudhub.edgecontroller.rules import lease, new_node
from cloudhub.kube import (
    EdgeNodes,
    JobInformer,
    LeaseKeeper,
    NodeInformer,
    NodeRegistrar,
    SecretReader,
    ensure_crd,
)
from cloudhub.kube.jobapi import find_job_api
from cloudhub.kube.jobs import JOBS_PATH
from cloudhub.kube.nodes import MANAGED_ANNOTATION, NODES_PATH
from cloudhub.settings import parse_document
from cloudhub.taskmanager.ports import SessionInfo
from shared.jobs import FINALIZER
from tests.unit.kube.apiserver import ScriptedAPI, client_of, eventually, in_background, running_api

DOCKER = Path(__file__).parents[3] / "docker"
MANIFESTS = DOCKER / "kubernetes"
ACCOUNT = {"kind": "ServiceAccount", "name": "cloudhub", "namespace": "kubeedge"}

Rule = tuple[str, str, str, str, str]
"""API group, resource, verb, namespace (empty: cluster), name (empty: any)."""


def documents(*files: str) -> list[dict[str, Any]]:
    names = files or [path.name for path in sorted(MANIFESTS.glob("*.yaml"))]
    return [document for name in names for document in yaml.safe_load_all((MANIFESTS / name).read_text())]


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = [item for item in documents() if item["kind"] == kind and item.get("metadata", {}).get("name") == name]
    return found


def config() -> LoadedConfig:
    return parse_config(parse_document(one("ConfigMap", "cloudcore")["data"]["cloudcore.yaml"], name="cloudcore.yaml"))


# --- Rights ---------------------------------------------------------------------------------------------------


def granted(*files: str) -> set[Rule]:
    """What the bindings in these files let the hub's account do."""
    items = documents(*files)
    roles = {(item["kind"], item["metadata"]["name"]): item for item in items if item["kind"].endswith("Role")}
    return {
        rule
        for binding in items
        if binding["kind"].endswith("Binding") and ACCOUNT in binding["subjects"]
        for rule in rules(roles[binding["roleRef"]["kind"], binding["roleRef"]["name"]], binding)
    }


def rules(role: dict[str, Any], binding: dict[str, Any]) -> Iterator[Rule]:
    namespace = binding["metadata"].get("namespace", "")
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames", [""]):
                        yield group, resource, verb, namespace, name


def asked(request: web.Request) -> Rule:
    """What right a request needs, as an API server's authorizer sees it."""
    parts = [unquote(part) for part in request.path.strip("/").split("/")]
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    resource = "/".join([rest[0], *rest[2:]])
    name = rest[1] if len(rest) > 1 else ""
    verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(request.method)
    if verb is None:
        verb = "get" if name else "watch" if request.query.get("watch") else "list"
    return group, resource, verb, namespace, name


async def exercised(work: Callable[[ScriptedAPI, Any], Awaitable[None]]) -> set[Rule]:
    """What the adapter asks for when each of its parts does each thing that it does."""
    seen: set[Rule] = set()
    async with running_api() as api, client_of(api) as client:
        api.on_request = lambda request: seen.add(asked(request))
        await work(api, client)
    return seen


async def _serve(api: ScriptedAPI, client: Any) -> None:
    await ensure_crd(client)
    crds = api.objects["/apis/apiextensions.k8s.io/v1/customresourcedefinitions"]
    (crd,) = crds.values()
    crd["metadata"]["annotations"] = {"cloudhub.kubeedge.io/crd-edition": "0"}
    assert await ensure_crd(client) == "updated"
    await api.put(JOBS_PATH, "a", metadata={"uid": "u"})
    jobs, nodes = JobInformer(client=client), NodeInformer(client=client)
    async with in_background(jobs.run), in_background(nodes.run):
        await eventually(lambda: api.requests["WATCH"] == 2)
        await jobs.patch_status(name="a", uid="u", status={"state": "Init"})
    await JobInformer(client=client).patch_status(name="a", uid="u", status={"state": "Failed"})
    await api.put(JOBS_PATH, "a", metadata={"uid": "u", "finalizers": [FINALIZER]})
    await jobs.release(name="a", uid="u")
    assert await find_job_api(client) is not None
    secrets = SecretReader(client=client)
    for name in ("casecret", "cloudcoresecret", "tokensecret"):
        await secrets.create("kubeedge", name, data={"a": b"b"})
        await secrets.update("kubeedge", name, data={"a": b"c"})
        await secrets.get("kubeedge", name)
    await api.put("/api/v1/namespaces/default/secrets", "my-secret")
    await secrets.get("default", "my-secret")


async def _register(api: ScriptedAPI, client: Any) -> None:
    nodes = NodeInformer(client=client)
    registrar = NodeRegistrar(client=client, nodes=nodes, unschedulable=True, settle=0.0)
    session = SessionInfo(node="edge-1", serial=1, features=frozenset(), info=None)
    async with in_background(nodes.run), in_background(registrar.run):
        registrar.session_opened(session)
        await eventually(lambda: bool((node := nodes.get("edge-1")) and node.ready == "True"))
        registrar.session_closed(session)
        await eventually(lambda: bool((node := nodes.get("edge-1")) and node.ready == "False"))
        # One that someone else makes at the same moment is looked at.
        api.objects[NODES_PATH]["edge-2"] = {"metadata": {"name": "edge-2", "resourceVersion": "1"}}
        registrar.session_opened(SessionInfo(node="edge-2", serial=2, features=frozenset(), info=None))
        await eventually(lambda: api.requests["POST"] == 2 and not registrar._busy)
    keeper = LeaseKeeper(client=client, names=lambda: ["edge-1"], interval=0.0)
    await keeper.round()
    await keeper.round()


async def _speak_for_kubelets(api: ScriptedAPI, client: Any) -> None:
    nodes = EdgeNodes(client=client)
    await nodes.create_node(new_node("edge-1", {"status": {"phase": "Running"}}))
    await nodes.patch_status("edge-1", {"status": {}})
    await nodes.merge_status("edge-1", {"status": {}})
    await api.put(NODES_PATH, "edge-2", metadata={"annotations": {MANAGED_ANNOTATION: "true"}})
    await nodes.create_node(new_node("edge-2", {}))
    await nodes.create_lease(lease("edge-1", {}, new=True))
    await nodes.update_lease(lease("edge-1", await nodes.get_lease("edge-1"), new=False))


def allows(rule: Rule, wanted: Rule) -> bool:
    group, resource, verb, namespace, name = rule
    in_place = namespace in ("", wanted[3]) and name in ("", wanted[4])
    return in_place and (group, resource, verb) == wanted[:3]


@pytest.mark.parametrize(
    ("file", "work"),
    [
        ("rbac.yaml", _serve),
        ("register-nodes.yaml", _register),
        ("edge-controller/rbac.yaml", _speak_for_kubelets),
    ],
)
async def test_the_hub_may_do_what_it_does_and_nothing_that_it_does_not(
    file: str, work: Callable[[ScriptedAPI, Any], Awaitable[None]]
) -> None:
    new, wanted = granted(file), await exercised(work)
    rights = granted("rbac.yaml") | new
    refused = [need for need in wanted if not any(allows(rule, need) for rule in rights)]
    assert refused == []
    unused = [rule for rule in new if not any(allows(rule, need) for need in wanted)]
    assert unused == []


# --- Commands and configuration -------------------------------------------------------------------------------


def parses(app: typer.Typer, arguments: list[str]) -> str:
    """The command that a command line runs; fails when it would be refused."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("program", list(arguments))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    command.make_context(name, rest, parent=context)
    return str(name)


def dockerfile(name: str, instruction: str) -> list[str]:
    lines = (DOCKER / f"{name}.Dockerfile").read_text().splitlines()
    (found,) = [line for line in lines if line.startswith(f"{instruction} ")]
    command: list[str] = yaml.safe_load(found.removeprefix(instruction))
    return command


@pytest.mark.parametrize(("name", "app"), [("cloudhub", cloudhub.cli.app), ("edgehub", edgehub.cli.app)])
def test_the_images_run_a_command_that_there_is(name: str, app: typer.Typer) -> None:
    assert dockerfile(name, "ENTRYPOINT") == [name]
    assert parses(app, dockerfile(name, "CMD")) == "run"


@pytest.mark.parametrize("name", ["cloudhub", "edgehub"])
def test_the_images_are_built_from_files_that_there_are(name: str) -> None:
    sources = [
        source
        for line in (DOCKER / f"{name}.Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    let_in = (DOCKER / f"{name}.Dockerfile.dockerignore").read_text().splitlines()
    for source in sources:
        assert (DOCKER.parent / source).exists(), source
        assert f"!{source}" in let_in


def test_the_deployment_runs_the_hub_with_the_config_map() -> None:
    pod = one("Deployment", "cloudhub")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert parses(cloudhub.cli.app, container["args"]) == "run"
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts["/etc/kubeedge/config"]]["configMap"]["name"] == "cloudcore"
    assert mounts[config().config.modules.taskManager.dataDir] == "data"
    assert (
        volumes["data"]["persistentVolumeClaim"]["claimName"]
        == one("PersistentVolumeClaim", "cloudhub")["metadata"]["name"]
    )
    assert pod["serviceAccountName"] == ACCOUNT["name"]


def test_the_hub_is_one_pod_without_privileges() -> None:
    spec = one("Deployment", "cloudhub")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    pod = spec["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert f"uid {pod['securityContext']['runAsUser']}" in (DOCKER / "cloudhub.Dockerfile").read_text()
    security = pod["containers"][0]["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_ports_probes_and_service_fit_the_configuration() -> None:
    hub = config().config
    container = one("Deployment", "cloudhub")["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    host, metrics = hub.commonConfig.monitorServer.address
    assert ports == {
        "websocket": hub.modules.cloudHub.websocket.port,
        "https": hub.modules.cloudHub.https.port,
        "metrics": metrics,
    }
    assert host == "0.0.0.0", "kubelet's probes do not come from loopback"  # noqa: S104
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz"), ("startupProbe", "/healthz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}
    service = one("Service", "cloudhub")["spec"]
    assert {port["name"]: (port["port"], port["nodePort"]) for port in service["ports"]} == {
        "websocket": (10000, 30000),
        "https": (10002, 30002),
    }
    labels = one("Deployment", "cloudhub")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()


def test_the_config_map_is_the_guides_and_says_what_the_guide_changes() -> None:
    assert one("ConfigMap", "cloudcore")["metadata"]["namespace"] == "kubeedge"
    loaded = config()
    assert loaded.ignored == ()
    assert loaded.config.modules.taskManager.enable is False
    assert "taskManager:\n" in one("ConfigMap", "cloudcore")["data"]["cloudcore.yaml"]


def test_every_manifest_is_listed_once() -> None:
    text = (MANIFESTS / "kustomization.yaml").read_text()
    for path in MANIFESTS.glob("*.yaml"):
        if path.name != "kustomization.yaml":
            assert text.count(f"- {path.name}") == 1
    assert text.count("- edge-controller ") == 1
    listed = yaml.safe_load(text)["resources"]
    assert "edge-controller" not in listed
    assert "register-nodes.yaml" not in listed, "more rights than the default configuration needs"


def test_the_compose_file_runs_commands_that_there_are() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert parses(cloudhub.cli.app, services["cloud"]["command"]) == "standalone"
    script = services["edge"]["entrypoint"][-1].replace("\\\n", " ")
    commands = [shlex.split(part) for part in script.replace("exec ", "||").replace("\n", "||").split("||")]
    ran = [parses(edgehub.cli.app, words[1:]) for words in commands if words and words[0] == "edgehub"]
    assert ran == ["join", "run"]
    assert edgehub.cli.TOKEN_VARIABLE in services["edge"]["environment"]
    for service in services.values():
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).exists()
