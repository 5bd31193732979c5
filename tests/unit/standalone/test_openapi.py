"""OpenAPI documents: complete, with no reference into nothing, new when a definition is."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest
import yaml

from cloudhub.standalone import openapi_v2_pb2
from cloudhub.standalone.builtin import RESOURCES
from cloudhub.standalone.crd import default_crd
from cloudhub.standalone.openapi import OpenAPIDocuments

JOBS = "apis/operations.kubeedge.io/v1alpha1"
LATER = "apis/operations.kubeedge.io/v1alpha2"
JOB = "io.kubeedge.operations.v1alpha1.ImagePrePullJob"


def documents(*, with_crd: bool = True) -> OpenAPIDocuments:
    if not with_crd:
        return OpenAPIDocuments()
    crd = yaml.safe_load(resources.files("cloudhub.kube").joinpath("crds", "imageprepulljobs.yaml").read_text())
    default_crd(crd)
    return OpenAPIDocuments([crd])


def v3(made: OpenAPIDocuments, path: str) -> dict[str, Any]:
    found = made.v3(path)
    assert found is not None
    document: dict[str, Any] = json.loads(found[0])
    return document


def references(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(references, value)) if value else set()
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
    return own.union(*map(references, value.values()))


def test_the_index_leads_to_every_group_and_version() -> None:
    made = documents()
    index = json.loads(made.v3_index())["paths"]

    wanted = {f"apis/{item.group}/v1" if item.group else "api/v1" for item in RESOURCES} | {JOBS, LATER}
    assert set(index) == wanted
    for path, entry in index.items():
        found = made.v3(path)
        assert found is not None
        assert entry["serverRelativeURL"] == f"/openapi/v3/{path}?hash={found[1]}"


def test_every_reference_is_answered() -> None:
    made = documents()
    for path in json.loads(made.v3_index())["paths"]:
        document = v3(made, path)
        known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        assert references(document) <= known, path
    v2 = json.loads(made.v2()[0])
    assert references(v2) <= {f"#/definitions/{name}" for name in v2["definitions"]}


def test_a_custom_kind_is_described_as_its_definition_has_it() -> None:
    document = v3(documents(), JOBS)
    schema = document["components"]["schemas"][JOB]

    assert schema["x-kubernetes-group-version-kind"] == [
        {"group": "operations.kubeedge.io", "kind": "ImagePrePullJob", "version": "v1alpha1"}
    ]
    template = schema["properties"]["spec"]["properties"]["imagePrePullTemplate"]
    assert template["properties"]["concurrency"]["default"] == 1
    assert schema["properties"]["metadata"]["allOf"] == [
        {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    ]
    paths = document["paths"]
    assert set(paths["/apis/operations.kubeedge.io/v1alpha1/imageprepulljobs/{name}/status"]) >= {"get", "put", "patch"}


def test_kubectl_finds_that_field_validation_and_dry_run_are_served() -> None:
    document = v3(documents(), "api/v1")
    patch = document["paths"]["/api/v1/namespaces/{namespace}/secrets/{name}"]["patch"]

    assert patch["x-kubernetes-group-version-kind"] == {"group": "", "kind": "Secret", "version": "v1"}
    assert {parameter["name"] for parameter in patch["parameters"]} >= {"dryRun", "fieldValidation", "force"}
    assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]


def test_a_document_changes_its_hash_with_its_definition_alone() -> None:
    plain, more = documents(with_crd=False), documents()

    assert plain.v3(JOBS) is None
    assert plain.v3("api/v1") == more.v3("api/v1")
    assert plain.v2()[1] != more.v2()[1]
    assert documents().v3(JOBS) == more.v3(JOBS)


@pytest.mark.parametrize("with_crd", [True, False])
def test_the_protobuf_form_says_the_same_as_the_json_form(with_crd: bool) -> None:
    made = documents(with_crd=with_crd)
    v2 = json.loads(made.v2()[0])

    document = openapi_v2_pb2.Document.FromString(made.v2_protobuf()[0])

    assert document.swagger == "2.0"
    assert {item.name for item in document.paths.path} == set(v2["paths"])
    schemas = {item.name: item.value for item in document.definitions.additional_properties}
    assert set(schemas) == set(v2["definitions"])
    node = schemas["io.k8s.api.core.v1.NodeStatus"]
    conditions = next(item.value for item in node.properties.additional_properties if item.name == "conditions")
    assert conditions.items.schema[0]._ref == "#/definitions/io.k8s.api.core.v1.NodeCondition"
    extensions = {item.name: item.value.yaml for item in conditions.vendor_extension}
    assert extensions["x-kubernetes-patch-merge-key"] == '"type"'
