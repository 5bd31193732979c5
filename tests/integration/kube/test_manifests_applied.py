"""The manifests as kubectl reads them. The embedded API has no Deployments, roles or Services: of those only the form
is checked, by kustomize and in tests/unit/kube."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import yaml

from cloudhub.config import parse_config
from cloudhub.kube import KubeClient, crd_yaml
from cloudhub.settings import parse_document
from cloudhub.standalone.server import StandaloneAPI

MANIFESTS = Path(__file__).parents[3] / "docker" / "kubernetes"


async def kubectl(*arguments: str, folder: Path, given: str = "", code: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "kubectl"),
        f"--kubeconfig={folder / 'kubeconfig'}",
        f"--cache-dir={folder / 'cache'}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(given.encode())
    assert process.returncode == code, err.decode()
    return out.decode() + err.decode()


async def test_kustomize_builds_all_of_them(tmp_path: Path) -> None:
    built = list(yaml.safe_load_all(await kubectl("kustomize", str(MANIFESTS), folder=tmp_path)))
    kinds = {item["kind"] for item in built}
    assert {"Namespace", "Deployment", "Service", "ConfigMap", "ClusterRole", "PersistentVolumeClaim"} <= kinds


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
