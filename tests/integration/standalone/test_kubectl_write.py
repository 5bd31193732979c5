"""What kubectl changes: create, patch, label, annotate, edit, replace, delete."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.standalone.kubectl import JOB, Kubectl, running_api

JOB_NAME = "imageprepull-example"


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with running_api(tmp_path) as running:
        yield running


async def test_create_makes_the_guides_registry_secret(kubectl: Kubectl) -> None:
    out = await kubectl.ok(
        "create", "secret", "docker-registry", "my-secret", "--docker-server=registry.example:5000",
        "--docker-username=tiger", "--docker-password=pass1234", "--docker-email=tiger@acme.example",
    )  # fmt: skip

    secret = await kubectl.get("secret", "my-secret")
    content = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))
    assert out == "secret/my-secret created\n"
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    assert content["auths"]["registry.example:5000"]["username"] == "tiger"
    err = await kubectl.fails("patch", "secret", "my-secret", "-p", '{"type":"Opaque"}')
    assert 'The Secret "my-secret" is invalid: type: Invalid value: "Opaque": field is immutable' in err


async def test_create_makes_namespaces_and_what_is_in_them(kubectl: Kubectl) -> None:
    assert await kubectl.ok("create", "namespace", "shop") == "namespace/shop created\n"
    assert await kubectl.ok("create", "configmap", "c", "-n", "shop", "--from-literal=a=b") == "configmap/c created\n"

    err = await kubectl.fails("create", "namespace", "shop")
    assert err == 'Error from server (AlreadyExists): namespaces "shop" already exists\n'
    err = await kubectl.fails("create", "configmap", "c", "-n", "nowhere", "--from-literal=a=b")
    assert 'namespaces "nowhere" not found' in err
    await kubectl.ok("delete", "namespace", "shop")
    assert await kubectl.ok("get", "configmap", "-A", "-o", "name") == ""


async def test_patch_takes_merge_and_json_patches_of_a_job(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "-f", "-", text=JOB)
    merge = '{"spec":{"imagePrePullTemplate":{"retryTimes":2,"imageSecrets":null}}}'
    operations = '[{"op":"replace","path":"/spec/imagePrePullTemplate/concurrency","value":5}]'
    failing = '[{"op":"test","path":"/spec/imagePrePullTemplate/concurrency","value":9}]'

    assert "patched" in await kubectl.ok("patch", "imageprepulljob", JOB_NAME, "--type=merge", "-p", merge)
    assert "patched" in await kubectl.ok("patch", "imageprepulljob", JOB_NAME, "--type=json", "-p", operations)
    assert "no change" in await kubectl.ok("patch", "imageprepulljob", JOB_NAME, "--type=json", "-p", operations)
    await kubectl.fails("patch", "imageprepulljob", JOB_NAME, "--type=json", "-p", failing)
    err = await kubectl.fails("patch", "imageprepulljob", JOB_NAME, "--type=strategic", "-p", "{}")

    assert "application/strategic-merge-patch+json is not supported by operations.kubeedge.io/v1alpha2" in err
    template = (await kubectl.get("imageprepulljob", JOB_NAME))["spec"]["imagePrePullTemplate"]
    assert (template["retryTimes"], template["concurrency"], "imageSecrets" in template) == (2, 5, False)


async def test_a_strategic_patch_merges_lists_by_their_keys(kubectl: Kubectl) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "finalizers": ["a.example/x"]}}
    await kubectl.ok("create", "-f", "-", text=json.dumps(node))

    async def patch_status(conditions: list[dict[str, str]]) -> None:
        patch = json.dumps({"status": {"conditions": conditions}})
        await kubectl.ok("patch", "node", "n", "--subresource=status", "-p", patch)

    await patch_status([{"type": "Ready", "status": "True"}, {"type": "Old", "status": "True"}])
    await patch_status([{"type": "Old", "$patch": "delete"}, {"type": "Ready", "status": "False"}])
    await kubectl.ok("patch", "node", "n", "-p", '{"metadata":{"finalizers":["a.example/y"]}}')

    node = await kubectl.get("node", "n")
    assert node["status"]["conditions"] == [{"type": "Ready", "status": "False"}]
    assert sorted(node["metadata"]["finalizers"]) == ["a.example/x", "a.example/y"]


async def test_label_and_annotate_add_change_and_remove(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "-f", "-", text=JOB)

    assert "labeled" in await kubectl.ok("label", "imageprepulljob", JOB_NAME, "tier=one")
    assert "--overwrite is false" in await kubectl.fails("label", "imageprepulljob", JOB_NAME, "tier=two")
    await kubectl.ok("label", "imageprepulljob", JOB_NAME, "tier=two", "team-", "--overwrite")
    assert "annotated" in await kubectl.ok("annotate", "imageprepulljob", JOB_NAME, "note=for the 预加载 test")

    metadata = (await kubectl.get("imageprepulljob", JOB_NAME))["metadata"]
    assert metadata["labels"] == {"tier": "two"}
    assert metadata["annotations"] == {"note": "for the 预加载 test"}
    assert metadata["generation"] == 1


async def test_edit_stores_what_the_editor_leaves(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "-f", "-", text=JOB)
    editor = {"KUBE_EDITOR": "sed -i 's/retryTimes: 1/retryTimes: 4/'"}

    assert "edited" in await kubectl.ok("edit", "imageprepulljob", JOB_NAME, env=editor)
    assert "cancelled" in (await kubectl.run("edit", "imageprepulljob", JOB_NAME, env={"KUBE_EDITOR": "true"})).err

    assert (await kubectl.get("imageprepulljob", JOB_NAME))["spec"]["imagePrePullTemplate"]["retryTimes"] == 4


async def test_replace_takes_the_present_version_and_refuses_an_old_one(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "-f", "-", text=JOB)
    read = await kubectl.ok("get", "imageprepulljob", JOB_NAME, "-o", "json")
    changed = read.replace('"concurrency": 1', '"concurrency": 7')

    assert await kubectl.ok("replace", "-f", "-", text=changed) == (
        f"imageprepulljob.operations.kubeedge.io/{JOB_NAME} replaced\n"
    )
    err = await kubectl.fails("replace", "-f", "-", text=read)

    assert "the object has been modified; please apply your changes to the latest version and try again" in err
    assert "(Conflict)" in err
    assert (await kubectl.get("imageprepulljob", JOB_NAME))["spec"]["imagePrePullTemplate"]["concurrency"] == 7


async def test_delete_takes_one_some_by_label_or_all(kubectl: Kubectl) -> None:
    jobs = [JOB.replace(JOB_NAME, f"job-{i}").replace("team: web", f"team: t{i % 2}") for i in range(5)]
    await kubectl.ok("create", "-f", "-", text="---\n".join(jobs))

    async def left() -> list[str]:
        names = await kubectl.ok("get", "imageprepulljob", "-o", "jsonpath={.items[*].metadata.name}")
        return names.split()

    assert await kubectl.ok("delete", "imageprepulljob", "job-0") == (
        'imageprepulljob.operations.kubeedge.io "job-0" deleted\n'
    )
    await kubectl.ok("delete", "imageprepulljob", "-l", "team=t1")
    assert await left() == ["job-2", "job-4"]
    await kubectl.ok("delete", "imageprepulljob", "--all")
    assert await left() == []
    assert '"job-0" not found' in await kubectl.fails("delete", "imageprepulljob", "job-0")
    assert await kubectl.ok("delete", "imageprepulljob", "job-0", "--ignore-not-found") == ""


async def test_a_finalizer_holds_a_deleted_object_until_it_is_removed(kubectl: Kubectl) -> None:
    text = JOB.replace("  labels:\n", "  finalizers: [acme.example/hold]\n  labels:\n")
    await kubectl.ok("create", "-f", "-", text=text)
    await kubectl.ok("delete", "imageprepulljob", JOB_NAME, "--wait=false")

    held = await kubectl.get("imageprepulljob", JOB_NAME)
    assert held["metadata"]["deletionTimestamp"]
    await kubectl.ok("patch", "imageprepulljob", JOB_NAME, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert await kubectl.ok("get", "imageprepulljob") == ""
