"""Lists: selectors, pages of one state, revisions, shapes; and the discovery documents."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.integration.standalone.rest import (
    CONFIG_MAPS,
    CRDS,
    JOBS,
    NODES,
    TABLE,
    Rest,
    config_map,
    job,
    node,
)


async def fill(rest: Rest, count: int) -> None:
    await asyncio.gather(
        *(rest.post(NODES, node(f"n{at:02}", color="red" if at % 2 else "blue")) for at in range(count))
    )


async def test_a_list_is_in_order_and_carries_a_revision(rest: Rest) -> None:
    await fill(rest, 5)
    answer = await rest.get(NODES)
    assert answer.body["kind"] == "NodeList"
    assert answer.names == ["n00", "n01", "n02", "n03", "n04"]
    assert answer.revision == max(int(item["metadata"]["resourceVersion"]) for item in answer.body["items"])


async def test_labels_and_fields_select(rest: Rest) -> None:
    await fill(rest, 4)
    assert (await rest.get(NODES, labelSelector="color=red")).names == ["n01", "n03"]
    assert (await rest.get(NODES, labelSelector="color notin (red)")).names == ["n00", "n02"]
    assert (await rest.get(NODES, fieldSelector="metadata.name=n02")).names == ["n02"]
    assert (await rest.get(NODES, fieldSelector="metadata.name!=n02", labelSelector="color=blue")).names == ["n00"]
    assert (await rest.get(NODES, fieldSelector="metadata.name=n01", labelSelector="color=blue")).names == []
    await rest.merge(f"{NODES}/n01", {"spec": {"unschedulable": True}})
    assert (await rest.get(NODES, fieldSelector="spec.unschedulable=true")).names == ["n01"]


async def test_a_selector_that_cannot_be_answered_is_refused(rest: Rest) -> None:
    unknown = await rest.get(NODES, fieldSelector="spec.color=red")
    assert (unknown.code, unknown.message) == (400, "field label not supported: spec.color")
    assert (await rest.get(NODES, labelSelector="a in (")).code == 400


async def test_namespaces_bound_a_list(rest: Rest) -> None:
    for namespace in ("default", "kubeedge", "kube-system"):
        await rest.post(f"/api/v1/namespaces/{namespace}/configmaps", config_map(f"in-{namespace}"))
    assert (await rest.get("/api/v1/namespaces/kube-system/configmaps")).names == ["in-kube-system"]
    assert (await rest.get("/api/v1/configmaps")).names == ["in-default", "in-kube-system", "in-kubeedge"]
    assert (await rest.get("/api/v1/configmaps", fieldSelector="metadata.namespace=kubeedge")).names == ["in-kubeedge"]


async def test_pages_show_the_state_of_the_first_page(rest: Rest) -> None:
    await fill(rest, 7)
    first = await rest.get(NODES, limit=3)
    assert first.names == ["n00", "n01", "n02"]
    assert first.body["metadata"]["remainingItemCount"] == 4
    await rest.delete(f"{NODES}/n04")
    await rest.post(NODES, node("n03a"))
    await rest.merge(f"{NODES}/n05", {"metadata": {"labels": {"color": "green"}}})
    second = await rest.get(NODES, limit=3, **{"continue": first.body["metadata"]["continue"]})
    assert second.names == ["n03", "n04", "n05"]
    assert second.revision == first.revision
    assert second.body["items"][2]["metadata"]["labels"]["color"] == "red"
    third = await rest.get(NODES, limit=3, **{"continue": second.body["metadata"]["continue"]})
    assert third.names == ["n06"]
    assert "continue" not in third.body["metadata"]
    assert (await rest.get(NODES)).names == ["n00", "n01", "n02", "n03", "n03a", "n05", "n06"]


async def test_a_token_that_is_none_is_refused(rest: Rest) -> None:
    for token in ("x", "e30", "bnVsbA", "é"):
        answer = await rest.get(NODES, limit=1, **{"continue": token})
        assert (answer.code, answer.reason) == (400, "BadRequest")


async def test_a_list_of_an_exact_revision_shows_what_was(rest: Rest) -> None:
    await fill(rest, 2)
    then = (await rest.get(NODES)).revision
    await rest.delete(f"{NODES}/n00")
    await rest.post(NODES, node("n02"))
    old = await rest.get(NODES, resourceVersion=then, resourceVersionMatch="Exact")
    assert (old.names, old.revision) == (["n00", "n01"], then)
    newer = await rest.get(NODES, resourceVersion=then, resourceVersionMatch="NotOlderThan")
    assert newer.names == ["n01", "n02"]
    gone = await rest.get(NODES, resourceVersion=then, resourceVersionMatch="Sometimes")
    assert gone.code == 422


async def test_a_revision_to_come_is_not_waited_for_long(rest: Rest) -> None:
    answer = await rest.get(NODES, resourceVersion=10_000)
    assert (answer.code, answer.reason) == (504, "Timeout")
    assert answer.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert (await rest.get(NODES, resourceVersion="x")).code == 400


async def test_a_table_has_columns_and_rows(jobs: Rest) -> None:
    await jobs.post(JOBS, job())
    await jobs.merge(f"{JOBS}/job/status", {"status": {"state": "Pulling"}})
    for path in (JOBS, f"{JOBS}/job"):
        table = (await jobs.get(path, headers={"Accept": TABLE})).body
        assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
        names = [column["name"] for column in table["columnDefinitions"]]
        cells = dict(zip(names, table["rows"][0]["cells"], strict=True))
        assert (cells["Name"], cells["State"]) == ("job", "Pulling")
        assert table["rows"][0]["object"]["metadata"]["name"] == "job"


async def test_a_large_table_has_each_row_once(rest: Rest) -> None:
    await asyncio.gather(*(rest.post(CONFIG_MAPS, config_map(f"c{at:03}")) for at in range(250)))
    table = (await rest.get(CONFIG_MAPS, headers={"Accept": TABLE})).body
    assert [row["cells"][0] for row in table["rows"]] == [f"c{at:03}" for at in range(250)]


async def test_metadata_alone_can_be_asked_for(rest: Rest) -> None:
    await rest.post(CONFIG_MAPS, config_map("one", a="1"))
    accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
    got = (await rest.get(f"{CONFIG_MAPS}/one", headers={"Accept": accept})).body
    assert (got["kind"], got["metadata"]["name"], "data" in got) == ("PartialObjectMetadata", "one", False)
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    listed = (await rest.get(CONFIG_MAPS, headers={"Accept": accept})).body
    assert listed["kind"] == "PartialObjectMetadataList"
    assert [item["kind"] for item in listed["items"]] == ["PartialObjectMetadata"]


async def test_protobuf_falls_back_to_json_and_the_unknown_is_not_acceptable(rest: Rest) -> None:
    both = "application/vnd.kubernetes.protobuf,application/json"
    assert (await rest.get(NODES, headers={"Accept": both})).body["kind"] == "NodeList"
    answer = await rest.get(NODES, headers={"Accept": "text/html"})
    assert (answer.code, answer.reason) == (406, "NotAcceptable")


async def test_versions_of_a_definition_share_their_objects(rest: Rest) -> None:
    def version(name: str, *, storage: bool, **more: object) -> dict[str, object]:
        fields = {"type": "object", "properties": {"size": {"type": "integer"}, **more}}
        schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": fields}}}
        return {"name": name, "served": True, "storage": storage, "schema": schema}

    color = {"color": {"type": "string", "default": "blue"}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "cars.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"kind": "Car", "plural": "cars"},
            "versions": [version("v1beta1", storage=True), version("v1", storage=False, **color)],
        },
    }
    made = await rest.post(CRDS, crd)
    assert made.code == 201, made.body
    old, new = (f"/apis/example.com/{name}/namespaces/default/cars" for name in ("v1beta1", "v1"))
    body = {"apiVersion": "example.com/v1beta1", "kind": "Car", "metadata": {"name": "c"}, "spec": {"size": 3}}
    assert (await rest.post(old, body)).code == 201
    shown = (await rest.get(f"{new}/c")).body
    assert shown["apiVersion"] == "example.com/v1"
    assert shown["spec"] == {"size": 3, "color": "blue"}
    await rest.merge(f"{new}/c", {"spec": {"size": 4}})
    assert (await rest.get(f"{old}/c")).body["spec"] == {"size": 4}
    assert (await rest.get(new)).body["items"][0]["apiVersion"] == "example.com/v1"
    group = (await rest.get("/apis/example.com")).body
    assert group["preferredVersion"]["version"] == "v1"


async def test_discovery_plain_and_aggregated_agree(jobs: Rest) -> None:
    plain = (await jobs.get("/apis/operations.kubeedge.io/v1alpha1")).body
    assert [entry["name"] for entry in plain["resources"]] == ["imageprepulljobs", "imageprepulljobs/status"]
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    answer = await jobs.get("/apis", headers={"Accept": accept})
    assert answer.headers["Content-Type"].endswith("as=APIGroupDiscoveryList")
    groups = {item["metadata"]["name"]: item for item in answer.body["items"]}
    resource = groups["operations.kubeedge.io"]["versions"][0]["resources"][0]
    assert (resource["resource"], resource["scope"]) == ("imageprepulljobs", "Cluster")
    assert [item["subresource"] for item in resource["subresources"]] == ["status"]
    cached = await jobs.get("/apis", headers={"Accept": accept, "If-None-Match": answer.headers["ETag"]})
    assert cached.code == 304
    core = (await jobs.get("/api", headers={"Accept": accept})).body["items"][0]["versions"][0]["resources"]
    listed = {entry["name"] for entry in (await jobs.get("/api/v1")).body["resources"] if "/" not in entry["name"]}
    assert {entry["resource"] for entry in core} == listed


@pytest.mark.parametrize("path", ["/", "/api", "/apis", "/version", "/openapi/v2", "/openapi/v3"])
async def test_documents_are_json_objects(rest: Rest, path: str) -> None:
    answer = await rest.get(path)
    assert answer.code == 200
    assert isinstance(answer.body, dict)


async def test_every_group_version_has_its_openapi(jobs: Rest) -> None:
    paths = (await jobs.get("/openapi/v3")).body["paths"]
    assert {"api/v1", "apis/operations.kubeedge.io/v1alpha1"} <= set(paths)
    for entry in paths.values():
        answer = await jobs.get(entry["serverRelativeURL"])
        assert answer.code == 200
        assert answer.body["components"]["schemas"]


async def test_a_list_too_large_for_one_piece_arrives_whole(rest: Rest) -> None:
    for start in range(0, 750, 250):
        await asyncio.gather(*(rest.post(NODES, node(f"n{at:05}")) for at in range(start, start + 250)))
    answer = await rest.get(NODES)
    assert len(answer.names) == 750
    assert len(json.dumps(answer.body)) > 128 * 1024
