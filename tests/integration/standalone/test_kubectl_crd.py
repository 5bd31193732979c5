"""CustomResourceDefinitions by kubectl: installed, served at once, changed, refused, removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.standalone.kubectl import JOB, Kubectl, crd_text, running_api

NAME = "imageprepulljobs.operations.kubeedge.io"
WIDGETS = """\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: widgets.acme.example
spec:
  group: acme.example
  scope: Namespaced
  names: {kind: Widget, plural: widgets, shortNames: [wd], categories: [all]}
  versions:
    - name: v1
      served: true
      storage: true
      additionalPrinterColumns:
        - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
        - {name: Since, type: date, jsonPath: .spec.since}
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              required: [size]
              x-kubernetes-validations:
                - {rule: "!has(self.low) || self.low <= self.size", message: low is above size}
              properties:
                size: {type: integer, minimum: 1, maximum: 9}
                low: {type: integer}
                color: {type: string, enum: [red, blue], default: red}
                port: {x-kubernetes-int-or-string: true}
                since: {type: string, format: date-time}
                parts:
                  type: array
                  x-kubernetes-list-type: map
                  x-kubernetes-list-map-keys: [name]
                  items:
                    type: object
                    required: [name]
                    properties: {name: {type: string}, count: {type: integer}}
            status:
              type: object
              x-kubernetes-preserve-unknown-fields: true
"""
WIDGET = """\
apiVersion: acme.example/v1
kind: Widget
metadata: {name: one}
spec: {size: 3, port: http, since: "2020-01-01T00:00:00Z"}
"""


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with running_api(tmp_path, with_crd=False) as running:
        yield running


async def test_a_definition_is_served_as_soon_as_it_is_installed_and_gone_with_its_objects(kubectl: Kubectl) -> None:
    assert 'resource mapping not found for name: "imageprepull-example"' in await kubectl.fails(
        "apply", "-f", "-", text=JOB
    )
    await kubectl.ok("apply", "--server-side", "-f", "-", text=crd_text())
    assert "condition met" in await kubectl.ok("wait", "--for=condition=Established", f"crd/{NAME}", "--timeout=5s")
    await kubectl.ok("create", "-f", "-", text=JOB)
    assert f"{NAME}   " in await kubectl.ok("get", "crd")

    await kubectl.ok("delete", "crd", NAME)

    await kubectl.fails("get", "imageprepulljobs.operations.kubeedge.io")
    await kubectl.ok("create", "-f", "-", text=crd_text())
    assert await kubectl.ok("get", "imageprepulljobs.operations.kubeedge.io") == ""


async def test_another_definition_has_its_columns_defaults_and_rules(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "-f", "-", text=WIDGETS)
    await kubectl.ok("apply", "-f", "-", text=WIDGET)
    await kubectl.ok("patch", "wd", "one", "--type=merge", "-p",
                     '{"status":{"conditions":[{"type":"Ready","status":"True"}],"anything":{"goes":1}}}')  # fmt: skip

    rows = [line.split() for line in (await kubectl.ok("get", "wd")).splitlines()]
    assert rows[0] == ["NAME", "READY", "SINCE"]
    assert rows[1][:2] == ["one", "True"]
    assert "y" in rows[1][2]
    widget = await kubectl.get("widget", "one")
    assert (widget["spec"]["color"], widget["spec"]["port"]) == ("red", "http")
    assert widget["status"]["anything"] == {"goes": 1}
    err = await kubectl.fails("apply", "-f", "-", text=WIDGET.replace("size: 3", "size: 12, low: 5, color: green"))
    assert "spec.size: Invalid value: 12: spec.size in body should be less than or equal to 9" in err
    assert 'spec.color: Unsupported value: "green": supported values: "red", "blue"' in err
    err = await kubectl.fails("apply", "-f", "-", text=WIDGET.replace("size: 3", "size: 3, low: 5"))
    assert err == 'The Widget "one" is invalid: spec: Invalid value: "object": low is above size\n'
    err = await kubectl.fails("apply", "-f", "-", text=WIDGET.replace("one", "two").replace("size: 3, ", ""))
    assert "spec.size: Required value" in err


async def test_server_side_apply_keeps_list_items_of_two_managers_apart(kubectl: Kubectl) -> None:
    await kubectl.ok("create", "-f", "-", text=WIDGETS)

    def part(name: str, count: int) -> str:
        return WIDGET.replace("size: 3", f"size: 3, parts: [{{name: {name}, count: {count}}}]")

    await kubectl.ok("apply", "--server-side", "--field-manager=a", "-f", "-", text=part("wheel", 4))
    await kubectl.ok("apply", "--server-side", "--field-manager=b", "-f", "-", text=part("door", 2))
    err = await kubectl.fails("apply", "--server-side", "--field-manager=b", "-f", "-", text=part("wheel", 5))
    assert 'conflict with "a": .spec.parts[name="wheel"].count' in err
    await kubectl.ok("apply", "--server-side", "--field-manager=a", "-f", "-", text=WIDGET)

    assert (await kubectl.get("widget", "one"))["spec"]["parts"] == [{"name": "door", "count": 2}]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("self.low <= self.size", "self.lo <= self.size", "undefined field 'lo'"),
        ("self.low <= self.size", "self.low <=", "Syntax error"),
        ("size: {type: integer,", "size: {type: whole,", 'Unsupported value: "whole"'),
        ("size: {type: integer,", "size: {description: x,", "must not be empty for specified object fields"),
        ("default: red", "default: 7", "must validate"),
        ("scope: Namespaced", "scope: Everywhere", 'Unsupported value: "Everywhere"'),
        ("name: widgets.acme.example", "name: gadgets.acme.example", 'must be spec.names.plural+"."+spec.group'),
        ("storage: true", "storage: false", "must have exactly one version marked as storage version"),
        ("jsonPath: .spec.since", "jsonPath: spec.since", "must be a simple json path starting with ."),
        ("[name]\n                  items", "[nam]\n                  items", "must be the name of a property"),
        ("minimum: 1", "minimun: 1", 'unknown field "spec.versions'),
    ],
)
async def test_a_faulty_definition_is_refused_with_its_fault(
    kubectl: Kubectl, old: str, new: str, problem: str
) -> None:
    assert old in WIDGETS

    assert problem in await kubectl.fails("create", "-f", "-", text=WIDGETS.replace(old, new))


async def test_a_changed_definition_holds_from_then_on(kubectl: Kubectl) -> None:
    await kubectl.ok("apply", "-f", "-", text=WIDGETS)
    out = await kubectl.ok("apply", "-f", "-", text=WIDGETS.replace("maximum: 9", "maximum: 2"))
    assert out == "customresourcedefinition.apiextensions.k8s.io/widgets.acme.example configured\n"

    assert "less than or equal to 2" in await kubectl.fails("create", "-f", "-", text=WIDGET)
    err = await kubectl.fails("apply", "-f", "-", text=WIDGETS.replace("Namespaced", "Cluster"))
    assert 'spec.scope: Invalid value: "Cluster": field is immutable' in err
