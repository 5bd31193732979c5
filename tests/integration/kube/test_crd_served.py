"""What the CRD's schema refuses, and what it lets through to be judged by the reconciler."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cloudhub.kube import KubeClient, ensure_crd
from cloudhub.kube.client import MERGE_PATCH
from cloudhub.kube.crd import EDITION_ANNOTATION, load_crd
from cloudhub.kube.jobapi import CRD_PATH, path_of
from cloudhub.kube.jobs import JOBS_PATH
from cloudhub.taskmanager.ports import NotFound, Rejected


async def create(client: KubeClient, name: str = "a", **template: Any) -> dict[str, Any]:
    return await client.request(
        "POST",
        JOBS_PATH,
        query={"fieldValidation": "Strict"},
        body={
            "apiVersion": "operations.kubeedge.io/v1alpha1",
            "kind": "ImagePrePullJob",
            "metadata": {"name": name},
            "spec": {"imagePrePullTemplate": template},
        },
    )


async def edit(client: KubeClient, name: str = "a", **template: Any) -> dict[str, Any]:
    body = {"spec": {"imagePrePullTemplate": template}}
    return await client.request("PATCH", f"{JOBS_PATH}/{name}", body=body, content_type=MERGE_PATCH)


async def _gone(client: KubeClient, path: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await client.request("GET", path)
            except NotFound:
                return


async def test_it_is_installed_once(client: KubeClient) -> None:
    assert await ensure_crd(client) == "kept"


async def test_the_first_edition_is_brought_up_to_date_under_jobs_that_are_there(client: KubeClient) -> None:
    first = load_crd()
    first["metadata"]["annotations"][EDITION_ANNOTATION] = "1"
    del first["spec"]["versions"][1]
    first["spec"]["versions"][0]["storage"] = True
    await client.request("DELETE", CRD_PATH)
    await _gone(client, CRD_PATH)
    await client.request("POST", CRD_PATH.rpartition("/")[0], body=first)
    await create(client, images=["a"], nodeNames=["n"])
    status = {"state": "Successful", "counts": {"total": 1}}
    await client.request("PATCH", f"{JOBS_PATH}/a/status", body={"status": status}, content_type=MERGE_PATCH)

    assert await ensure_crd(client) == "updated"

    assert (await client.request("GET", CRD_PATH))["status"]["storedVersions"] == ["v1alpha1", "v1alpha2"]
    for path in (JOBS_PATH, path_of("v1alpha2")):
        found = await client.request("GET", f"{path}/a")
        assert found["status"] == status
        assert found["spec"]["imagePrePullTemplate"]["nodeNames"] == ["n"]
    body = {"spec": {"imagePrePullTemplate": {"images": ["b"]}}}
    with pytest.raises(Rejected, match="images cannot be changed"):
        await client.request("PATCH", f"{path_of('v1alpha2')}/a", body=body, content_type=MERGE_PATCH)


async def test_the_defaults_are_filled_in(client: KubeClient) -> None:
    made = await create(client, images=["a"], nodeNames=["n"])
    assert made["spec"]["imagePrePullTemplate"] == {
        "images": ["a"],
        "nodeNames": ["n"],
        "checkItems": ["disk"],
        "concurrency": 1,
        "failureTolerate": "0.1",
        "timeoutSeconds": 300,
        "retryTimes": 0,
    }


WRONG_VALUES: list[dict[str, Any]] = [
    {},
    {"images": []},
    {"images": ["not an image reference"], "nodeNames": ["n"]},
    {"images": ["a"]},
    {"images": ["a"], "nodeNames": ["n"], "labelSelector": {"matchLabels": {"a": "b"}}},
    {"images": ["a"], "nodeNames": ["n"], "failureTolerate": "2"},
    {"images": ["a"], "nodeNames": ["n"], "failureTolerate": "many"},
    {"images": ["a"], "nodeNames": ["n"], "checkItems": ["gpu"]},
    {"images": ["a"], "nodeNames": ["n"], "checkItems": []},
    {"images": ["a"], "nodeNames": ["n"], "concurrency": 0},
    {"images": ["a"], "nodeNames": ["n"], "concurrency": -1},
    {"images": ["a"], "nodeNames": ["n"], "timeoutSeconds": 4294967295},
    {"images": ["a"], "nodeNames": ["n"], "imageSecrets": "no-namespace"},
    {"images": ["a"], "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Nonsense"}]}},
]


async def test_a_job_with_wrong_values_is_accepted_so_that_its_status_can_say_why(client: KubeClient) -> None:
    for number, template in enumerate(WRONG_VALUES):
        made = await create(client, f"job-{number}", **template)
        assert made["spec"]["imagePrePullTemplate"].items() >= template.items()


async def test_the_alias_nodes_is_accepted_and_kept(client: KubeClient) -> None:
    assert (await create(client, images=["a"], nodes=["n"]))["spec"]["imagePrePullTemplate"]["nodes"] == ["n"]


async def test_wrong_types_and_unknown_fields_are_refused(client: KubeClient) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"images": "a"}, "images"),
        ({"images": [1]}, "images"),
        ({"failureTolerate": 0.1}, "failureTolerate"),
        ({"concurrency": "2"}, "concurrency"),
        ({"concurrency": 2**31}, "concurrency"),
        ({"timeoutSeconds": 1.5}, "timeoutSeconds"),
        ({"unknown": 1}, "unknown"),
    ]
    for template, field in wrong:
        with pytest.raises(Rejected, match=field):
            await create(client, **template)


async def test_images_and_nodes_cannot_be_edited(client: KubeClient) -> None:
    await create(client, images=["a"], nodeNames=["n"])
    changes: list[tuple[dict[str, Any], str]] = [
        ({"images": ["b"]}, "images"),
        ({"images": None}, "images"),
        ({"nodeNames": ["n", "m"]}, "nodeNames"),
        ({"nodeNames": None}, "nodeNames"),
        ({"nodes": ["n"]}, "nodes"),
        ({"labelSelector": {"matchLabels": {"a": "b"}}}, "labelSelector"),
    ]
    for change, field in changes:
        with pytest.raises(Rejected, match=f"{field} cannot be changed once the job exists"):
            await edit(client, **change)


async def test_the_whole_template_cannot_be_removed(client: KubeClient) -> None:
    await create(client, images=["a"], nodeNames=["n"])
    with pytest.raises(Rejected, match="cannot be changed once the job exists"):
        await client.request(
            "PATCH", f"{JOBS_PATH}/a", body={"spec": {"imagePrePullTemplate": None}}, content_type=MERGE_PATCH
        )


async def test_how_the_job_goes_on_can_be_edited(client: KubeClient) -> None:
    await create(client, images=["a"], nodeNames=["n"])
    edited = await edit(client, concurrency=7, failureTolerate="0.5", timeoutSeconds=10)
    template = edited["spec"]["imagePrePullTemplate"]
    assert (template["concurrency"], template["failureTolerate"], template["timeoutSeconds"]) == (7, "0.5", 10)
    assert edited["metadata"]["generation"] == 2
