"""The manifests as kubectl reads them. The embedded API has no Deployments, roles or Services: of those only the form
is checked, by kustomize and in tests/unit/kube."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import yaml

from cloudhub.config import load_config, parse_config
from cloudhub.kube import KubeClient, crd_yaml
from cloudhub.settings import parse_document
from cloudhub.standalone.server import StandaloneAPI
from tests.unit.config.test_kubeedge_files import CHART

MANIFESTS = Path(__file__).parents[3] / "docker" / "kubernetes"
TAKEOVER = MANIFESTS.parent / "takeover"


async def kubectl(*arguments: str, folder: Path, given: str = "", code: int = 0, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "kubectl"),
        f"--kubeconfig={folder / 'kubeconfig'}",
        f"--cache-dir={folder / 'cache'}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    out, err = await process.communicate(given.encode())
    assert process.returncode == code, err.decode()
    return out.decode() + err.decode()


async def test_kustomize_builds_all_of_them(tmp_path: Path) -> None:
    built = list(yaml.safe_load_all(await kubectl("kustomize", str(MANIFESTS), folder=tmp_path)))
    kinds = {item["kind"] for item in built}
    assert {"Namespace", "Deployment", "Service", "ConfigMap", "ClusterRole", "PersistentVolumeClaim"} <= kinds


async def test_taking_over_leaves_alone_what_a_cloudcore_has_and_stands_where_it_stood(tmp_path: Path) -> None:
    built = list(yaml.safe_load_all(await kubectl("kustomize", str(TAKEOVER), folder=tmp_path)))
    kinds = {item["kind"] for item in built}
    assert not kinds & {"Namespace", "ConfigMap", "Service", "Secret"}
    roles = {item["metadata"]["name"] for item in built if item["kind"] == "ClusterRole"}
    assert {"cloudhub", "cloudhub-edge-controller"} <= roles
    (deployment,) = [item for item in built if item["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    # Of KubeEdge's chart: the Service's selector.
    assert {"k8s-app": "kubeedge", "kubeedge": "cloudcore"}.items() <= template["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    pod = template["spec"]
    assert pod["hostNetwork"] is True
    assert {"name": "config", "configMap": {"name": "cloudcore"}} in pod["volumes"]
    (container,) = pod["containers"]
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz"), ("startupProbe", "/healthz")):
        assert container[probe]["httpGet"] == {"host": "127.0.0.1", "path": path, "port": "metrics"}
    metrics = parse_config(yaml.safe_load(CHART)).config.commonConfig.monitorServer.address
    assert metrics == ("127.0.0.1", 9091)
    assert {"name": "metrics", "containerPort": 9091} in container["ports"]


async def test_the_guides_kubectl_edit_of_a_cloudcores_config_map_turns_the_task_manager_on(
    api: StandaloneAPI, tmp_path: Path
) -> None:
    await kubectl("create", "-f", "-", folder=tmp_path, given=CHART.replace('resourceVersion: "4711"', ""))
    editor = "sed -i '/taskManager:/,$ s/enable: false/enable: true/'"
    said = await kubectl("edit", "configmap", "cloudcore", "-n", "kubeedge", folder=tmp_path, KUBE_EDITOR=editor)
    assert "configmap/cloudcore edited" in said
    held = yaml.safe_load(
        await kubectl("get", "configmap", "cloudcore", "-n", "kubeedge", "-o", "yaml", folder=tmp_path)
    )
    # What the pod finds mounted after the restart.
    mounted = tmp_path / "cloudcore.yaml"
    mounted.write_text(held["data"]["cloudcore.yaml"])
    config = load_config(mounted).config
    assert config.modules.taskManager.enable
    assert config.modules.cloudHub.advertiseAddress == ["192.0.2.10"]


async def test_the_server_takes_namespace_and_config_map_and_the_guides_edit_turns_the_task_manager_on(
    api: StandaloneAPI, tmp_path: Path
) -> None:
    for name in ("namespace", "configmap"):
        file = str(MANIFESTS / f"{name}.yaml")
        said = await kubectl("apply", "-f", file, folder=tmp_path)
        assert f"{name}/" in said
        assert "created" in said
        assert "unchanged" in await kubectl("apply", "--dry-run=server", "-f", file, folder=tmp_path)
    get = ("get", "configmap", "cloudcore", "-n", "kubeedge", "-o", "yaml")
    manifest = await kubectl(*get, folder=tmp_path)
    assert not parse_config(yaml.safe_load(manifest)).config.modules.taskManager.enable
    edited = manifest.replace("enable: false", "enable: true")
    await kubectl("replace", "-f", "-", folder=tmp_path, given=edited)
    held = yaml.safe_load(await kubectl(*get, folder=tmp_path))
    text = held["data"]["cloudcore.yaml"]
    assert parse_config(parse_document(text, name="cloudcore.yaml")).config.modules.taskManager.enable


async def test_what_cloudhub_crds_prints_can_be_applied_over_what_the_hub_installed(
    client: KubeClient, tmp_path: Path
) -> None:
    said = await kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", folder=tmp_path, given=crd_yaml())
    assert "customresourcedefinition.apiextensions.k8s.io/imageprepulljobs.operations.kubeedge.io" in said
    said = await kubectl("explain", "imageprepulljob.spec.imagePrePullTemplate.failureTolerate", folder=tmp_path)
    assert "The share of nodes that may fail" in said
