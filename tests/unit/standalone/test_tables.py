"""Tables and JSON paths."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cloudhub.standalone.jsonpath import InvalidPath, parse_path
from cloudhub.standalone.tables import age, human_duration, render_table

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
OBJECT = {
    "metadata": {"name": "w", "labels": {"acme.example/tier": "one"}, "creationTimestamp": "2026-06-01T11:58:30Z"},
    "spec": {"size": 3, "ratio": 0.5, "on": True, "list": ["a", "b", "c"], "since": "2026-05-30T12:00:00Z"},
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Disk", "status": "False", "n": 5}]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".metadata.name", ["w"]),
        (".metadata.labels.acme\\.example/tier", ["one"]),
        (".metadata.labels['acme\\.example/tier']", ["one"]),
        (".spec.list[0]", ["a"]),
        (".spec.list[-1]", ["c"]),
        (".spec.list[9]", []),
        (".spec.list[1:]", ["b", "c"]),
        (".spec.list[*]", ["a", "b", "c"]),
        (".status.conditions[?(@.type=='Ready')].status", ["True"]),
        ('.status.conditions[?(@.type=="Disk")].status', ["False"]),
        (".status.conditions[?(@.n>4)].type", ["Disk"]),
        (".status.conditions[?(@.n)].type", ["Disk"]),
        (".status.conditions[*].type", ["Ready", "Disk"]),
        ("..type", ["Ready", "Disk"]),
        (".spec.nope.deeper", []),
        (".spec.size.deeper", []),
        ("{.spec.size}", [3]),
        (".spec['size']", [3]),
    ],
)
def test_a_path_finds(path: str, found: list[Any]) -> None:
    assert parse_path(path).find(OBJECT) == found


@pytest.mark.parametrize(
    "path", [".a[", ".a[x]", ".a[]", ".a[?(x]", ".a[?(@.b==)]", "a b", ".a..", ".a[1:2:3:4]", ".a" * 3000]
)
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidPath):
        parse_path(path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (150, "2m30s"), (600, "10m"),
        (3 * 3600 - 1, "179m"), (3 * 3600, "3h"), (3 * 3600 + 120, "3h2m"), (8 * 3600 + 120, "8h"), (47 * 3600, "47h"),
        (48 * 3600, "2d"), (50 * 3600, "2d2h"), (8 * 86400, "8d"), (729 * 86400, "729d"), (730 * 86400, "2y"),
        (731 * 86400, "2y1d"), (3000 * 86400, "8y"),
    ],
)  # fmt: skip
def test_a_duration_is_told_as_kubectl_tells_it(seconds: int, text: str) -> None:
    assert human_duration(seconds) == text


def test_an_age_is_counted_from_any_rfc_3339_time() -> None:
    assert age("2026-06-01T11:59:00Z", NOW) == "60s"
    assert age("2026-06-01T13:59:00.123456+02:00", NOW) == "59s"
    assert age(None, NOW) == "<unknown>"
    assert age("soon", NOW) == "<invalid>"


def table(*objects: dict[str, Any], group: str = "", kind: str, **more: Any) -> dict[str, Any]:
    return render_table(objects, group=group, kind=kind, now=NOW, **more)


def names(made: dict[str, Any]) -> list[str]:
    return [column["name"] for column in made["columnDefinitions"]]


COLUMNS = [
    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
    {"name": "Ratio", "type": "number", "jsonPath": ".spec.ratio", "priority": 1},
    {"name": "On", "type": "boolean", "jsonPath": ".spec.on"},
    {"name": "Ready", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'},
    {"name": "List", "type": "string", "jsonPath": ".spec.list"},
    {"name": "Since", "type": "date", "jsonPath": ".spec.since"},
    {"name": "Wrong", "type": "integer", "jsonPath": ".metadata.name"},
    {"name": "Nope", "type": "string", "jsonPath": ".spec.nope"},
]


def test_a_custom_resource_has_its_definitions_columns() -> None:
    made = table(OBJECT, group="acme.example", kind="Widget", printer_columns=COLUMNS)

    assert names(made) == ["Name", "Size", "Ratio", "On", "Ready", "List", "Since", "Wrong", "Nope"]
    assert [column["priority"] for column in made["columnDefinitions"]] == [0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert made["rows"][0]["cells"] == ["w", 3, 0.5, True, "True", '["a","b","c"]', "2d", None, None]
    assert made["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    assert made["rows"][0]["object"]["metadata"] == OBJECT["metadata"]


def test_a_definition_without_columns_shows_name_and_age() -> None:
    made = table(OBJECT, group="acme.example", kind="Widget", printer_columns=[])

    assert names(made) == ["Name", "Age"]
    assert made["rows"][0]["cells"] == ["w", "90s"]


def test_rows_carry_what_was_asked_for() -> None:
    assert table(OBJECT, kind="ConfigMap", include_object="Object")["rows"][0]["object"] == OBJECT
    assert "object" not in table(OBJECT, kind="ConfigMap", include_object="None")["rows"][0]
    assert table(OBJECT, kind="ConfigMap", headers=False)["columnDefinitions"] is None
    assert table(kind="ConfigMap", list_metadata={"resourceVersion": "7"})["metadata"] == {"resourceVersion": "7"}
    assert table(kind="ConfigMap", version="v1beta1")["apiVersion"] == "meta.k8s.io/v1beta1"


def test_a_node_is_printed_with_state_and_roles() -> None:
    node = {
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/edge": "", "kubernetes.io/role": "agent"}},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "Unknown"}],
            "nodeInfo": {"kubeletVersion": "v1.27", "containerRuntimeVersion": "containerd://1.6.20"},
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
        },
    }
    made = table(node, {"metadata": {"name": "bare"}}, kind="Node")

    assert names(made)[:5] == ["Name", "Status", "Roles", "Age", "Version"]
    assert made["rows"][0]["cells"] == [
        "n", "NotReady,SchedulingDisabled", "agent,edge", "<unknown>", "v1.27", "192.0.2.1", "<none>", "<unknown>",
        "<unknown>", "containerd://1.6.20",
    ]  # fmt: skip
    assert made["rows"][1]["cells"][1:3] == ["Unknown", "<none>"]


def test_other_built_in_kinds_have_their_columns() -> None:
    secret = {"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "", "b": ""}}
    config = {"metadata": {"name": "c"}, "data": {"a": ""}, "binaryData": {"b": ""}}
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}
    crd = {"metadata": {"name": "x.y", "creationTimestamp": "2026-01-01T00:00:00Z"}}
    namespace = {"metadata": {"name": "n"}, "status": {"phase": "Active"}}

    assert table(secret, kind="Secret")["rows"][0]["cells"][:3] == ["s", "Opaque", 2]
    assert table(config, kind="ConfigMap")["rows"][0]["cells"][:2] == ["c", 2]
    assert table(lease, group="coordination.k8s.io", kind="Lease")["rows"][0]["cells"][:2] == ["l", "me"]
    definitions = table(crd, group="apiextensions.k8s.io", kind="CustomResourceDefinition")
    assert definitions["rows"][0]["cells"] == ["x.y", "2026-01-01T00:00:00Z"]
    assert table(namespace, kind="Namespace")["rows"][0]["cells"][:2] == ["n", "Active"]


def test_an_event_is_printed_the_same_in_both_groups() -> None:
    first, last = NOW - timedelta(minutes=30), NOW - timedelta(seconds=20)
    core = {
        "metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "message": "go \n", "count": 4,
        "involvedObject": {"kind": "Node", "name": "n", "fieldPath": "spec"}, "source": {"component": "c", "host": "h"},
        "firstTimestamp": first.isoformat(), "lastTimestamp": last.isoformat(),
    }  # fmt: skip
    renamed = {
        "metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "note": "go", "deprecatedCount": 4,
        "regarding": core["involvedObject"], "deprecatedSource": core["source"],
        "deprecatedFirstTimestamp": first.isoformat(), "deprecatedLastTimestamp": last.isoformat(),
    }  # fmt: skip
    wanted = ["20s", "Normal", "Started", "node/n", "spec", "c, h", "go", "30m", 4, "e"]

    assert table(core, kind="Event")["rows"][0]["cells"] == wanted
    assert table(renamed, group="events.k8s.io", kind="Event")["rows"][0]["cells"] == wanted
    series = {
        "metadata": {"name": "e"},
        "eventTime": first.isoformat(),
        "series": {"count": 9, "lastObservedTime": NOW.isoformat()},
    }
    cells = table(series, kind="Event")["rows"][0]["cells"]
    assert (cells[0], cells[7], cells[8]) == ("0s", "30m", 9)
