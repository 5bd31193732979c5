"""The CRD's text, and what becomes of one that is there already."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from cloudhub.kube.crd import EDITION_ANNOTATION, crd_yaml, ensure_crd, load_crd
from shared import jobs
from tests.unit.kube.apiserver import client_of, running_api

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = "imageprepulljobs.operations.kubeedge.io"

KUBEEDGE: dict[str, Any] = {
    "metadata": {"name": NAME, "annotations": {"controller-gen.kubebuilder.io/version": "v0.15.0"}},
    "spec": {"versions": [{"name": "v1alpha1"}]},
}


V1ALPHA1, V1ALPHA2 = range(2)
LATER_KEYS = {"phase", "nodeStatus"}
"""Of the status, that v1alpha1 does not have."""


def schema(*path: str, version: int = V1ALPHA2) -> dict[str, Any]:
    found: dict[str, Any] = load_crd()["spec"]["versions"][version]["schema"]["openAPIV3Schema"]
    for part in path:
        found = found["items"] if part == "[]" else found["properties"][part]
    return found


def test_its_names_are_kubeedges() -> None:
    spec = load_crd()["spec"]
    assert (spec["group"], spec["scope"]) == (jobs.API_GROUP, "Cluster")
    assert spec["names"] == {
        "kind": jobs.KIND,
        "listKind": "ImagePrePullJobList",
        "plural": jobs.PLURAL,
        "singular": "imageprepulljob",
    }
    assert [(version["name"], version["served"], version["storage"]) for version in spec["versions"]] == [
        (jobs.API_VERSION, True, False),
        (jobs.LATER_VERSION, True, True),
    ]
    assert all(version["subresources"] == {"status": {}} for version in spec["versions"])
    assert "conversion" not in spec


def test_the_versions_differ_in_the_status_alone_and_the_stored_one_knows_all_of_the_other() -> None:
    first, later = (schema(version=version) for version in (V1ALPHA1, V1ALPHA2))
    first_status, later_status = (found["properties"].pop("status") for found in (first, later))
    assert first == later
    assert set(later_status["properties"]) - set(first_status["properties"]) == LATER_KEYS
    for key, found in first_status["properties"].items():
        assert later_status["properties"][key] == found


def test_a_status_that_one_version_wrote_is_whole_in_the_other() -> None:
    # A required key that the other version does not know would make every write in the other one an invalid object.
    assert "required" not in schema("status")


def test_the_defaults_are_those_of_the_models() -> None:
    template = schema("spec", "imagePrePullTemplate")["properties"]
    assert {name: field["default"] for name, field in template.items() if "default" in field} == {
        "checkItems": list(jobs.DEFAULT_CHECK_ITEMS),
        "concurrency": jobs.DEFAULT_CONCURRENCY,
        "failureTolerate": jobs.DEFAULT_FAILURE_TOLERATE,
        "timeoutSeconds": jobs.DEFAULT_TIMEOUT_SECONDS,
        "retryTimes": jobs.DEFAULT_RETRY_TIMES,
    }


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (jobs.JobStatus, ("status",)),
        (jobs.Counts, ("status", "counts")),
        (jobs.Condition, ("status", "conditions", "[]")),
        (jobs.NodeEntry, ("status", "status", "[]")),
        (jobs.NodeStatus, ("status", "status", "[]", "nodeStatus")),
        (jobs.ImageStatus, ("status", "status", "[]", "imageStatus", "[]")),
        (jobs.NodeResult, ("status", "nodeStatus", "[]")),
        (jobs.ActionResult, ("status", "nodeStatus", "[]", "actionFlow", "[]")),
        (jobs.ImageResult, ("status", "nodeStatus", "[]", "imageStatus", "[]")),
    ],
)
def test_the_status_schema_has_every_field_that_is_written_and_no_other(
    model: type[Any], path: tuple[str, ...]
) -> None:
    assert set(schema(*path)["properties"]) == set(model.model_fields)


def test_everything_has_a_description_for_kubectl_explain() -> None:
    def missing(node: dict[str, Any], where: str) -> list[str]:
        found = []
        for name, field in node.get("properties", {}).items():
            if "description" not in field and name != "metadata":
                found.append(f"{where}.{name}")
            found += missing(field, f"{where}.{name}")
            found += missing(field.get("items", {}), f"{where}.{name}[]")
        return found

    assert missing(schema(), "") == []


def test_it_is_structural() -> None:
    def untyped(node: dict[str, Any], where: str) -> list[str]:
        found = [] if "type" in node else [where]
        for name, field in node.get("properties", {}).items():
            found += untyped(field, f"{where}.{name}")
        for key in ("items", "additionalProperties"):
            if key in node:
                found += untyped(node[key], f"{where}.{key}")
        return found

    assert untyped(schema(), "") == []


def test_images_and_nodes_cannot_be_edited() -> None:
    rules = schema("spec", "imagePrePullTemplate")["x-kubernetes-validations"]
    for field in ("images", "nodeNames", "nodes", "labelSelector"):
        (rule,) = [rule for rule in rules if rule["message"].startswith(f"{field} cannot be changed")]
        assert f"self.{field} == oldSelf.{field}" in rule["rule"]
        # Kubernetes 1.27, which KubeEdge's guide uses, has no `reason` and `fieldPath` yet and refuses them.
        assert set(rule) == {"rule", "message"}


async def test_a_missing_crd_is_made() -> None:
    async with running_api() as api, client_of(api) as client:
        api.objects[CRDS] = {}
        assert await ensure_crd(client) == "created"
        assert api.objects[CRDS][NAME]["spec"] == load_crd()["spec"]
        assert await ensure_crd(client) == "kept"


async def test_one_that_kubeedge_installed_is_left_as_it_is() -> None:
    async with running_api() as api, client_of(api) as client:
        await api.put(CRDS, NAME, **deepcopy(KUBEEDGE))
        assert await ensure_crd(client) == "foreign"
        assert api.objects[CRDS][NAME]["spec"] == KUBEEDGE["spec"]
        assert api.requests["PUT"] == api.requests["PATCH"] == 0


async def test_an_older_edition_of_ours_is_updated_and_keeps_what_others_added_to_its_metadata() -> None:
    async with running_api() as api, client_of(api) as client:
        old = load_crd()
        old["metadata"]["annotations"] = {EDITION_ANNOTATION: "0", "theirs": "x"}
        old["metadata"]["uid"] = "u"
        # The first edition had v1alpha1 alone.
        del old["spec"]["versions"][V1ALPHA2]
        old["spec"]["versions"][V1ALPHA1]["storage"] = True
        old["status"] = {"storedVersions": ["v1alpha1"]}
        await api.put(CRDS, NAME, **old)
        assert await ensure_crd(client) == "updated"
        held = api.objects[CRDS][NAME]
        assert held["spec"] == load_crd()["spec"]
        assert held["metadata"]["annotations"] == {EDITION_ANNOTATION: "3", "theirs": "x"}
        assert held["metadata"]["uid"] == "u"


async def test_a_newer_edition_is_not_taken_back() -> None:
    async with running_api() as api, client_of(api) as client:
        newer = load_crd()
        newer["metadata"]["annotations"] = {EDITION_ANNOTATION: "99"}
        await api.put(CRDS, NAME, **newer)
        assert await ensure_crd(client) == "kept"
        assert api.requests["PUT"] == 0


async def test_one_that_serves_more_versions_than_ours_is_not_narrowed() -> None:
    async with running_api() as api, client_of(api) as client:
        wider = load_crd()
        wider["metadata"]["annotations"] = {EDITION_ANNOTATION: "0"}
        wider["spec"]["versions"].append({"name": "v1beta1"})
        await api.put(CRDS, NAME, **wider)
        assert await ensure_crd(client) == "foreign"
        assert len(api.objects[CRDS][NAME]["spec"]["versions"]) == 3


async def test_without_rights_to_crds_the_hub_goes_on() -> None:
    async with running_api() as api, client_of(api) as client:
        api.failing = [403]
        assert await ensure_crd(client) == "forbidden"


def test_what_is_printed_is_what_is_installed() -> None:
    assert crd_yaml().count("kind: CustomResourceDefinition") == 1
    assert crd_yaml().startswith("#")
