"""One kind's schema: built-in kinds with their own rules, and those of CRDs."""

from __future__ import annotations

import base64
import copy
import json
from importlib import resources
from typing import Any

import pytest
import yaml

from cloudhub.standalone.builtin import RESOURCES, schema_of
from cloudhub.standalone.schema import InvalidBody, ResourceSchema, decode_body, schemas_of_crd


def text_of(errors: Any) -> list[str]:
    return [str(error) for error in errors]


def made(group: str, kind: str, body: dict[str, Any], name: str = "n") -> tuple[dict[str, Any], list[str]]:
    """A new object as the server would keep it, and its faults."""
    schema = schema_of(group, "v1", kind)
    obj: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **copy.deepcopy(body)}
    assert schema.prune(obj) == []
    schema.default(obj)
    return obj, text_of(schema.validate(obj))


def job_schema() -> ResourceSchema:
    text = resources.files("cloudhub.kube").joinpath("crds", "imageprepulljobs.yaml").read_text()
    # As kubectl sends it: as JSON, where what the file has once stands twice.
    crd = decode_body(json.dumps(yaml.safe_load(text)).encode(), "application/json").object
    definition = schema_of("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
    assert definition.prune(crd) == []
    definition.default(crd)
    assert text_of(definition.validate(crd)) == []
    return schemas_of_crd(crd)["v1alpha1"]


def job(**template: Any) -> dict[str, Any]:
    return {
        "apiVersion": "operations.kubeedge.io/v1alpha1",
        "kind": "ImagePrePullJob",
        "metadata": {"name": "j"},
        "spec": {"imagePrePullTemplate": {"images": ["nginx"], "nodeNames": ["n"], **template}},
    }


def test_every_built_in_kind_has_a_schema_that_takes_an_empty_object() -> None:
    bodies: dict[str, dict[str, Any]] = {
        "CustomResourceDefinition": {
            "spec": {"group": "", "names": {"plural": "", "kind": ""}, "scope": "", "versions": []}
        },
        "Event": {"involvedObject": {}, "eventTime": "2026-01-01T00:00:00Z"},
    }
    for item in RESOURCES:
        schema = schema_of(item.group, item.version, item.kind)
        obj: dict[str, Any] = {"metadata": {"name": "n"}, **copy.deepcopy(bodies.get(item.kind, {}))}
        if item.group == "events.k8s.io":
            del obj["involvedObject"]
        schema.prune(obj)
        schema.default(obj)
        if item.kind != "CustomResourceDefinition":
            assert text_of(schema.validate(obj)) == [], item.kind
        assert schema.core


def test_a_kind_that_is_not_built_in_is_no_kind() -> None:
    with pytest.raises(KeyError):
        schema_of("", "v1", "Pod")


def test_a_secrets_plain_text_becomes_data_and_its_type_opaque() -> None:
    secret, faults = made("", "Secret", {"stringData": {"a": "hidden"}, "data": {"b": "YQ=="}})

    assert faults == []
    assert "stringData" not in secret
    assert secret["type"] == "Opaque"
    assert base64.b64decode(secret["data"]["a"]) == b"hidden"


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"type": "kubernetes.io/dockerconfigjson"}, "data[.dockerconfigjson]: Required value"),
        (
            {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "tiger"}},
            'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": it is no JSON object',
        ),
        ({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}, "data[tls.key]: Required value"),
        ({"type": "kubernetes.io/basic-auth"}, "data[username]: Required value"),
        ({"data": {"a b": ""}}, 'data[a b]: Invalid value: "a b": a valid config key must consist of'),
    ],
)
def test_a_faulty_secret_is_refused_without_its_content(body: dict[str, Any], fault: str) -> None:
    _, faults = made("", "Secret", body)

    assert any(text.startswith(fault) for text in faults), faults
    assert "tiger" not in str(faults)


def test_a_secrets_type_stays_and_an_immutable_ones_data_too() -> None:
    schema = schema_of("", "v1", "Secret")
    old, _ = made("", "Secret", {"data": {"a": "YQ=="}, "immutable": True})

    assert text_of(schema.validate({**old, "type": "x"}, old)) == ['type: Invalid value: "x": field is immutable']
    changed = {**old, "data": {"a": "Yg=="}, "immutable": False}
    assert text_of(schema.validate(changed, old)) == [
        "data: Forbidden: field is immutable when `immutable` is set",
        "immutable: Forbidden: field is immutable when `immutable` is set",
    ]


@pytest.mark.parametrize(
    ("kind", "body", "problem"),
    [
        (
            "ConfigMap",
            {"data": {"a": 5}},
            "json: cannot unmarshal number into Go struct field ConfigMap.data.a of type string",
        ),
        ("ConfigMap", {"data": []}, "cannot unmarshal array into Go struct field ConfigMap.data of type map"),
        ("Node", {"spec": {"unschedulable": "yes"}}, "cannot unmarshal string into Go struct field Node.spec.unsch"),
        ("Secret", {"data": {"a": "tiger%"}}, "illegal base64 data in data.a"),
        ("Secret", {"metadata": {"labels": {"a": 1}}}, "Secret.metadata.labels.a of type string"),
    ],
)
def test_a_wrong_type_in_a_built_in_kind_does_not_decode(kind: str, body: dict[str, Any], problem: str) -> None:
    obj = {"metadata": {"name": "n"}, **body}

    with pytest.raises(InvalidBody) as caught:
        schema_of("", "v1", kind).prune(obj)

    assert str(caught.value).startswith(f'{kind} in version "v1" cannot be handled as a {kind}: ')
    assert problem in str(caught.value)
    assert "tiger" not in str(caught.value)


def test_a_namespace_can_be_selected_by_its_name() -> None:
    namespace, faults = made("", "Namespace", {}, name="shop")

    assert faults == []
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "shop"}
    assert namespace["status"] == {"phase": "Active"}
    assert "a lowercase RFC 1123 label must consist of" in made("", "Namespace", {}, name="a.b")[1][0]


def test_a_nodes_taints_are_checked_and_its_provider_stays() -> None:
    _, faults = made("", "Node", {"spec": {"taints": [{"key": "a", "effect": "No"}, {"key": "a", "effect": "No"}]}})
    assert 'metadata.taints[0].effect: Unsupported value: "No"' in faults[0]
    assert any(fault.startswith("metadata.taints[1]: Duplicate value") for fault in faults)

    old, _ = made("", "Node", {"spec": {"providerID": "p"}})
    assert (
        "may not change providerID"
        in text_of(schema_of("", "v1", "Node").validate({**old, "spec": {"providerID": "q"}}, old))[0]
    )


def test_an_event_is_in_the_namespace_of_what_it_is_about() -> None:
    about = {"involvedObject": {"kind": "Secret", "namespace": "shop", "name": "s"}}
    event = {"metadata": {"name": "e", "namespace": "other"}, **about}

    assert text_of(schema_of("", "v1", "Event").validate(event)) == [
        'involvedObject.namespace: Invalid value: "shop": does not match event.namespace'
    ]


def test_a_job_gets_its_defaults_and_loses_unknown_fields() -> None:
    schema, obj = job_schema(), job(concurency=2)
    obj["metadata"]["creationTimestamp"] = None

    assert schema.prune(obj) == ["spec.imagePrePullTemplate.concurency"]
    schema.default(obj)

    template = obj["spec"]["imagePrePullTemplate"]
    assert template["checkItems"] == ["disk"]
    assert template["timeoutSeconds"] == 300
    assert "creationTimestamp" not in obj["metadata"]
    assert text_of(schema.validate(obj)) == []


def test_a_jobs_images_cannot_be_edited_and_other_things_can() -> None:
    schema, old = job_schema(), job(retryTimes=1)

    assert text_of(schema.validate(job(retryTimes=2), old)) == []
    (fault,) = text_of(schema.validate(job(images=["other"]), old))
    assert fault.startswith('spec.imagePrePullTemplate: Invalid value: "object": images cannot be changed')


def test_rules_are_left_alone_when_values_are_of_another_type() -> None:
    (fault,) = text_of(job_schema().validate(job(images="nginx"), job()))

    assert "must be of type array" in fault


def test_a_faulty_name_or_label_is_refused_for_every_kind() -> None:
    obj = job()
    obj["metadata"] = {"name": "My_Job", "labels": {"a b": "x"}, "finalizers": ["x y"], "annotations": {"!": ""}}

    faults = text_of(job_schema().validate(obj))

    assert [fault.partition(":")[0] for fault in faults] == [
        "metadata.name", "metadata.labels", "metadata.annotations", "metadata.finalizers[0]",
    ]  # fmt: skip


def test_sets_and_maps_have_no_item_twice() -> None:
    condition = {
        "type": "Done",
        "status": "True",
        "reason": "r",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    old = {**job(), "status": {"conditions": [condition, condition]}}

    assert text_of(job_schema().validate(old)) == ['status.conditions[1]: Duplicate value: {"type":"Done"}']
    assert text_of(job_schema().validate({**old, "spec": job(retryTimes=9)["spec"]}, old)) == []
