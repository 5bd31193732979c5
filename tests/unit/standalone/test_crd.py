"""What is refused in a CustomResourceDefinition."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cloudhub.standalone.builtin import schema_of
from cloudhub.standalone.crd import default_crd, validate_crd

STRING = {"type": "string"}
OBJECT = {"type": "object"}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "default": 1},
                "list": {"type": "array", "items": {"type": "string"}},
                "port": {"x-kubernetes-int-or-string": True},
                "free": {"x-kubernetes-preserve-unknown-fields": True},
            },
            "anyOf": [{"required": ["size"]}, {"properties": {"port": {"minimum": 1}}}],
        }
    },
}


def crd(schema: Any = None, **spec: Any) -> dict[str, Any]:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema or SCHEMA}}
    body: dict[str, Any] = {
        "group": "acme.example",
        "scope": "Cluster",
        "names": {"kind": "Widget", "plural": "widgets"},
        "versions": [version],
        **spec,
    }
    made = {"metadata": {"name": "widgets.acme.example"}, "spec": copy.deepcopy(body)}
    default_crd(made)
    return made


def with_spec(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}


def faults(definition: dict[str, Any], old: Any = None) -> list[str]:
    return [str(error) for error in validate_crd(definition, old)]


def test_a_sound_definition_has_no_fault_and_gets_its_names() -> None:
    definition = crd()

    assert faults(definition) == []
    assert definition["spec"]["names"]["singular"] == "widget"
    assert definition["spec"]["names"]["listKind"] == "WidgetList"
    assert definition["spec"]["conversion"] == {"strategy": "None"}


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"group": "acme"}, 'spec.group: Invalid value: "acme": should be a domain with at least one dot'),
        ({"group": ""}, "spec.group: Required value"),
        ({"scope": ""}, "spec.scope: Required value"),
        ({"names": {"kind": "Widget", "plural": "Widgets"}}, 'spec.names.plural: Invalid value: "Widgets"'),
        ({"names": {"plural": "widgets"}}, "spec.names.kind: Required value"),
        ({"names": {"kind": "Widget", "plural": "widgets", "shortNames": ["W!"]}}, "spec.names.shortNames[0]"),
        ({"versions": []}, "spec.versions: Required value"),
        ({"versions": [{"name": "v1", "served": True, "storage": True}]}, "schemas are required"),
        ({"conversion": {"strategy": "Webhook"}}, 'spec.conversion.strategy: Unsupported value: "Webhook"'),
        ({"preserveUnknownFields": True}, "spec.preserveUnknownFields: Invalid value: true"),
    ],
)
def test_names_and_versions_are_checked(spec: dict[str, Any], fault: str) -> None:
    found = faults(crd(**spec))

    assert any(fault in text for text in found), found


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "string"}, "openAPIV3Schema.type: Invalid value: \"string\": must be object at the root"),
        ({"properties": {}, "description": "x"}, "openAPIV3Schema.type: Required value: must not be empty at the root"),
        ({"type": "object", "nullable": True}, "nullable cannot be true at the root"),
        (with_spec(a={"type": "array"}), "properties[a].items: Required value: must be specified"),
        (with_spec(a={"type": "array", "items": {}}), "items.type: Required value"),
        (with_spec(a={"type": "array", "items": [{"type": "string"}]}), "not an array"),
        (with_spec(a={"type": "string", "$ref": "x"}), "$ref is not supported"),
        (with_spec(a={"type": "array", "items": {"type": "string"}, "uniqueItems": True}), "uniqueItems cannot be set"),
        (with_spec(a={"type": "object", "additionalProperties": False}), "cannot be set to false"),
        (
            with_spec(a={"type": "object", "properties": {"x": STRING}, "additionalProperties": STRING}),
            "mutual exclusive",
        ),
        (with_spec(a={"type": "string", "pattern": "("}), "must be a valid regular expression"),
        (with_spec(a={"type": "string", "default": 5}), "properties[a].default: Invalid value: 5: must validate"),
        (with_spec(a={"type": "object", "x-kubernetes-map-type": "x"}), "Unsupported value"),
        (with_spec(a={"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "bag"}), "Unsupported"),
        (with_spec(a={"type": "array", "items": OBJECT, "x-kubernetes-list-type": "map"}), "must not be empty"),
        (with_spec(a={"type": "array", "items": OBJECT, "x-kubernetes-list-type": "set"}), "set lists must"),
        (with_spec(a={"type": "string", "x-kubernetes-list-type": "set"}), "must be array"),
        (
            with_spec(a={"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                         "items": {"type": "object", "properties": {"k": {"type": "string"}}}}),
            "must have a default or be a required property",
        ),
        ({**with_spec(), "anyOf": [{"properties": {"spec": {"description": "x"}}}]}, "must be undefined"),
        (with_spec(a={"type": "string", "x-kubernetes-validations": [{"rule": "self.nope"}]}), "compilation failed"),
    ],
)  # fmt: skip
def test_a_schema_must_be_structural(schema: dict[str, Any], fault: str) -> None:
    found = faults(crd(schema))

    assert any(fault in text for text in found), found
    assert all(text.startswith("spec.versions[0].schema.openAPIV3Schema") for text in found)


@pytest.mark.parametrize(
    ("column", "fault"),
    [
        ({"type": "string", "jsonPath": ".a"}, "name: Required value"),
        ({"name": "A", "jsonPath": ".a"}, "type: Required value"),
        ({"name": "A", "type": "age", "jsonPath": ".a"}, "type: Invalid value"),
        ({"name": "A", "type": "string"}, "jsonPath: Required value"),
        ({"name": "A", "type": "string", "jsonPath": "a"}, "must be a simple json path starting with ."),
        ({"name": "A", "type": "string", "jsonPath": ".a[?(@.b=="}, "is an invalid path"),
    ],
)
def test_printer_columns_are_checked(column: dict[str, Any], fault: str) -> None:
    definition = crd()
    definition["spec"]["versions"][0]["additionalPrinterColumns"] = [column]

    (found,) = faults(definition)
    assert found.startswith("spec.versions[0].additionalPrinterColumns[0].")
    assert fault in found


def test_what_is_served_by_a_definition_stays() -> None:
    old = crd()

    assert faults(crd(scope="Namespaced"), old) == ['spec.scope: Invalid value: "Namespaced": field is immutable']
    assert faults(old, old) == []


def test_a_stored_version_cannot_be_left_out() -> None:
    definition = {**crd(), "status": {"storedVersions": ["v1beta1", "v1"]}}

    assert faults(definition) == ['status.storedVersions[0]: Invalid value: "v1beta1": must appear in spec.versions']


def test_unknown_keywords_of_a_schema_are_found_at_any_depth() -> None:
    definition = crd(with_spec(a={"type": "array", "items": {"type": "string", "maxLenght": 5}}))

    assert schema_of("apiextensions.k8s.io", "v1", "CustomResourceDefinition").prune(definition) == [
        "spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.a.items.maxLenght"
    ]
