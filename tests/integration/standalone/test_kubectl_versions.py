"""A definition of several versions by kubectl: one stored object, which each version shows as far as it knows it.

As in a cluster without a conversion webhook: a write keeps what the schemas of both the writer's version and the stored
version know, and a read shows what both know.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.standalone.kubectl import JOB, Kubectl, crd_text, running_api, table
from tests.kubeedge_crd import kubeedge_crd

CRD = "imageprepulljobs.operations.kubeedge.io"
V1ALPHA1, V1ALPHA2 = (f"imageprepulljobs.{version}.operations.kubeedge.io" for version in ("v1alpha1", "v1alpha2"))
NAME = "imageprepull-example"
BOTH_SHAPES: dict[str, Any] = {
    "state": "Successful",
    "phase": "Completed",
    "nodeStatus": [{"nodeName": "edge.kubeedge", "phase": "Successful"}],
    "counts": {"total": 1},
}


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with running_api(tmp_path, with_crd=False) as running:
        yield running


async def install(kubectl: Kubectl, edition: Any) -> None:
    text = crd_text() if edition == "ours" else json.dumps(kubeedge_crd(edition))
    await kubectl.ok("apply", "--server-side", "--force-conflicts", "-f", "-", text=text)


async def patch_status(kubectl: Kubectl, resource: str, status: dict[str, Any]) -> str:
    patch = json.dumps({"status": status})
    return await kubectl.ok("patch", resource, NAME, "--subresource=status", "--type=merge", "-p", patch)


async def status(kubectl: Kubectl, resource: str) -> Any:
    return json.loads(await kubectl.ok("get", resource, NAME, "-o", "json")).get("status")


async def test_both_versions_are_discovered_and_the_later_one_is_preferred(kubectl: Kubectl) -> None:
    await install(kubectl, "both")
    versions = (await kubectl.ok("api-versions")).split()
    assert {"operations.kubeedge.io/v1alpha1", "operations.kubeedge.io/v1alpha2"} <= set(versions)
    (row,) = [row for row in table(await kubectl.ok("api-resources", "--no-headers")) if row[0] == "imageprepulljobs"]
    assert row[1] == "operations.kubeedge.io/v1alpha2"
    group = json.loads(await kubectl.ok("get", "--raw", "/apis/operations.kubeedge.io"))
    assert [version["version"] for version in group["versions"]] == ["v1alpha2", "v1alpha1"]
    assert group["preferredVersion"]["version"] == "v1alpha2"
    for version in ("v1alpha1", "v1alpha2"):
        found = json.loads(await kubectl.ok("get", "--raw", f"/apis/operations.kubeedge.io/{version}"))
        assert [resource["name"] for resource in found["resources"]] == ["imageprepulljobs", "imageprepulljobs/status"]
    crd = json.loads(await kubectl.ok("get", "crd", CRD, "-o", "json"))
    assert crd["spec"]["conversion"] == {"strategy": "None"}
    assert crd["status"]["storedVersions"] == ["v1alpha2"]


async def test_a_job_of_either_version_is_there_in_both(kubectl: Kubectl) -> None:
    await install(kubectl, "both")
    created = f"imageprepulljob.operations.kubeedge.io/{NAME}"
    assert await kubectl.ok("apply", "-f", "-", text=JOB) == f"{created} created\n"
    later = JOB.replace("v1alpha1", "v1alpha2")
    assert await kubectl.ok("apply", "-f", "-", text=later) == f"{created} configured\n"
    assert await kubectl.ok("apply", "-f", "-", text=later) == f"{created} unchanged\n"
    assert await kubectl.ok("apply", "-f", "-", text=JOB.replace("retryTimes: 1", "retryTimes: 3")) == (
        f"{created} configured\n"
    )
    shown = [await kubectl.get(resource, NAME) for resource in (V1ALPHA1, V1ALPHA2, "imageprepulljob")]
    assert [job["apiVersion"].rpartition("/")[2] for job in shown] == ["v1alpha1", "v1alpha2", "v1alpha2"]
    assert shown[0]["spec"] == shown[1]["spec"]
    assert shown[0]["spec"]["imagePrePullTemplate"]["retryTimes"] == 3
    assert shown[0]["metadata"]["uid"] == shown[1]["metadata"]["uid"]


async def test_server_side_apply_in_two_versions_is_of_one_applier(kubectl: Kubectl) -> None:
    await install(kubectl, "both")
    apply = ("apply", "--server-side", "--field-manager=me", "-f", "-")
    await kubectl.ok(*apply, text=JOB)
    await kubectl.ok(*apply, text=JOB.replace("v1alpha1", "v1alpha2").replace("    retryTimes: 1\n", ""))
    job = await kubectl.get(V1ALPHA1, NAME)
    assert "retryTimes" not in job["spec"]["imagePrePullTemplate"]
    (entry,) = job["metadata"]["managedFields"]
    assert (entry["manager"], entry["apiVersion"]) == ("me", "operations.kubeedge.io/v1alpha2")


@pytest.mark.parametrize(
    ("edition", "first", "later"),
    [
        ("ours", {"state", "counts"}, {"state", "phase", "nodeStatus", "counts"}),
        ("both", {"state"}, {"state", "phase", "nodeStatus"}),
        ("later", None, {"phase", "nodeStatus"}),
    ],
)
async def test_of_a_status_each_version_shows_what_it_knows_and_the_stored_one_keeps_what_it_knows(
    kubectl: Kubectl, edition: str, first: set[str] | None, later: set[str]
) -> None:
    await install(kubectl, edition)
    await kubectl.ok("create", "-f", "-", text=JOB)
    await patch_status(kubectl, V1ALPHA2, BOTH_SHAPES)
    assert set(await status(kubectl, V1ALPHA1) or ()) == (first or set())
    assert set(await status(kubectl, V1ALPHA2)) == later
    listed = json.loads(await kubectl.ok("get", V1ALPHA1, "-o", "json"))["items"][0].get("status", {})
    assert set(listed) == (first or set())


async def test_a_write_in_the_version_that_knows_less_takes_out_what_it_does_not_know(kubectl: Kubectl) -> None:
    await install(kubectl, "both")
    await kubectl.ok("create", "-f", "-", text=JOB)
    await patch_status(kubectl, V1ALPHA2, BOTH_SHAPES)
    await kubectl.ok("label", V1ALPHA2, NAME, "a=b")
    assert set(await status(kubectl, V1ALPHA2)) == {"state", "phase", "nodeStatus"}
    await kubectl.ok("label", V1ALPHA1, NAME, "c=d")
    assert set(await status(kubectl, V1ALPHA2)) == {"state"}
    # The phase that the later version requires is no matter of a write that leaves the status as it is.
    await kubectl.ok("label", V1ALPHA2, NAME, "e=f")
    await patch_status(kubectl, V1ALPHA2, {"phase": "Completed"})
    assert set(await status(kubectl, V1ALPHA2)) == {"state", "phase"}


async def test_the_schema_of_the_version_that_is_written_is_the_one_that_refuses(kubectl: Kubectl) -> None:
    await install(kubectl, "both")
    await kubectl.ok("create", "-f", "-", text=JOB)
    await patch_status(kubectl, V1ALPHA1, {"state": "Init"})
    err = await kubectl.fails(
        "patch", V1ALPHA2, NAME, "--subresource=status", "--type=merge", "-p", '{"status":{"state":"Pulling"}}'
    )
    assert "status.phase: Required value" in err
    err = await kubectl.fails("apply", "-f", "-", text=JOB.replace("nodeNames", "nodes"))
    assert 'unknown field "spec.imagePrePullTemplate.nodes"' in err


async def test_columns_are_those_of_the_version(kubectl: Kubectl) -> None:
    await install(kubectl, "both")
    await kubectl.ok("create", "-f", "-", text=JOB)
    for resource in (V1ALPHA1, V1ALPHA2):
        assert table(await kubectl.ok("get", resource))[0] == ["NAME", "AGE"]
    await install(kubectl, "ours")
    first, later = [table(await kubectl.ok("get", resource, "-o", "wide"))[0] for resource in (V1ALPHA1, V1ALPHA2)]
    assert [column for column in later if column not in first] == ["PHASE"]
    assert "STATE" in first


async def test_explain_speaks_of_the_version_that_is_asked_for(kubectl: Kubectl) -> None:
    await install(kubectl, "both")
    explain = ("explain", "imageprepulljobs.status", "--api-version")
    first = await kubectl.ok(*explain, "operations.kubeedge.io/v1alpha1")
    later = await kubectl.ok(*explain, "operations.kubeedge.io/v1alpha2")
    assert "nodeStatus\t<[]Object>" not in first
    assert "nodeStatus\t<[]Object>" in later
    assert "VERSION:    v1alpha2" in await kubectl.ok("explain", "imageprepulljobs")


async def test_watches_of_both_versions_see_the_same_changes(kubectl: Kubectl) -> None:
    await install(kubectl, "both")
    await kubectl.ok("create", "-f", "-", text=JOB)
    path = '-o=jsonpath={.apiVersion} {.status}{"\\n"}'
    async with (
        kubectl.follow("get", V1ALPHA1, "-w", path) as first,
        kubectl.follow("get", V1ALPHA2, "-w", path) as later,
    ):
        assert "v1alpha1" in await first.until(bool)
        assert "v1alpha2" in await later.until(bool)
        await patch_status(kubectl, V1ALPHA2, BOTH_SHAPES)
        assert json.loads((await first.until(lambda line: "{" in line)).partition(" ")[2]) == {"state": "Successful"}
        shown = json.loads((await later.until(lambda line: "{" in line)).partition(" ")[2])
        assert shown["phase"] == "Completed"


async def test_a_definition_that_stores_another_version_from_now_on_reads_what_was_stored_before(
    kubectl: Kubectl,
) -> None:
    await install(kubectl, "first")
    await kubectl.ok("create", "-f", "-", text=JOB)
    await patch_status(kubectl, V1ALPHA1, {"state": "Successful", "reason": "r"})
    await install(kubectl, "both")
    crd = json.loads(await kubectl.ok("get", "crd", CRD, "-o", "json"))
    assert crd["status"]["storedVersions"] == ["v1alpha1", "v1alpha2"]
    for resource in (V1ALPHA1, V1ALPHA2):
        assert await status(kubectl, resource) == {"state": "Successful", "reason": "r"}
    await install(kubectl, "later")
    # Nothing has written the job since, and yet no version shows what no schema knows in which it is stored.
    for resource in (V1ALPHA1, V1ALPHA2):
        assert await status(kubectl, resource) == {"reason": "r"}


async def test_a_default_that_a_changed_definition_brings_shows_in_jobs_that_were_there(kubectl: Kubectl) -> None:
    await install(kubectl, "both")
    await kubectl.ok("create", "-f", "-", text=JOB)
    assert "checkItems" not in (await kubectl.get(V1ALPHA2, NAME))["spec"]["imagePrePullTemplate"]
    await install(kubectl, "ours")
    for resource in (V1ALPHA1, V1ALPHA2):
        assert (await kubectl.get(resource, NAME))["spec"]["imagePrePullTemplate"]["checkItems"] == ["disk"]
