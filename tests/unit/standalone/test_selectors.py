"""Label and field selectors: what they match, what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from cloudhub.standalone.selectors import InvalidSelector, parse_field_selector, parse_label_selector

LABELS = {"team": "web", "tier": "one", "weight": "7", "node-role.kubernetes.io/edge": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("team=web", True),
        ("team==web", True),
        ("team=data", False),
        ("team!=data", True),
        ("absent!=data", True),
        ("absent=data", False),
        ("team in (web, data)", True),
        ("team in (data)", False),
        ("team notin (data)", True),
        ("absent notin (data)", True),
        ("team notin (web)", False),
        ("team", True),
        ("absent", False),
        ("!absent", True),
        ("!team", False),
        ("weight>5,weight<9", True),
        ("weight>7", False),
        ("team>1", False),
        ("team=web,tier in (one,two),!absent", True),
        ("team=web,tier=two", False),
        ("node-role.kubernetes.io/edge=", True),
        ("node-role.kubernetes.io/edge", True),
        ("tier in (,one)", True),
        ("team in ()", False),
    ],
)
def test_a_label_selector_matches_as_in_kubernetes(text: str, matches: bool) -> None:
    assert parse_label_selector(text).matches(LABELS) is matches


@pytest.mark.parametrize("labels", [None, {}])
def test_an_object_without_labels_matches_what_asks_for_none(labels: dict[str, str] | None) -> None:
    assert parse_label_selector("!team").matches(labels)
    assert not parse_label_selector("team").matches(labels)


@pytest.mark.parametrize(
    "text",
    [
        "team=web,", ",team", "team in web", "team in (web", "team in (web data)", "=web", "team web", "te am",
        "(team)", "team=a/b", "-team=web", "team=-", "a/b/c=d", "UPPER.example!/x=y", "x>two", "team=" + "v" * 64,
        "k" * 64, "!", "team=(web)",
    ],
)  # fmt: skip
def test_a_malformed_label_selector_is_refused(text: str) -> None:
    with pytest.raises(InvalidSelector):
        parse_label_selector(text)


def test_refusals_have_the_servers_words() -> None:
    with pytest.raises(InvalidSelector, match=r"unable to parse requirement: found 'web' expected: '\('"):
        parse_label_selector("team in web")
    with pytest.raises(InvalidSelector, match=r'values\[0\]\[team\]: Invalid value: "a/b": a valid label must be'):
        parse_label_selector("team=a/b")


SECRET = {"metadata": {"name": "s", "namespace": "shop"}, "type": "Opaque"}
EVENT = {
    "metadata": {"name": "e", "namespace": "default"},
    "involvedObject": {"kind": "Node", "name": "n", "uid": "u"},
    "source": {"component": "cloudhub"},
    "reason": "Started",
}


@pytest.mark.parametrize(
    ("group", "kind", "obj", "text", "matches"),
    [
        ("", "Secret", SECRET, "metadata.name=s", True),
        ("", "Secret", SECRET, "metadata.name==s,metadata.namespace=shop", True),
        ("", "Secret", SECRET, "metadata.name!=s", False),
        ("", "Secret", SECRET, "type=Opaque", True),
        ("", "Secret", SECRET, "type!=Opaque", False),
        ("", "Secret", SECRET, "", True),
        ("", "Event", EVENT, "involvedObject.kind=Node,involvedObject.name=n,involvedObject.uid=u", True),
        ("", "Event", EVENT, "involvedObject.namespace=", True),
        ("", "Event", EVENT, "source=cloudhub,reason=Started", True),
        ("", "Node", {"metadata": {"name": "n"}}, "spec.unschedulable=false", True),
        ("", "Node", {"metadata": {"name": "n"}, "spec": {"unschedulable": True}}, "spec.unschedulable=true", True),
        ("", "Namespace", {"metadata": {"name": "n"}, "status": {"phase": "Active"}}, "status.phase=Active", True),
    ],
)
def test_a_field_selector_matches_the_indexed_fields(
    group: str, kind: str, obj: dict[str, Any], text: str, matches: bool
) -> None:
    assert parse_field_selector(text, group=group, kind=kind).matches(obj) is matches


def test_a_definitions_selectable_fields_can_be_selected_by() -> None:
    selector = parse_field_selector("spec.color=red", group="acme.example", kind="Widget", selectable=["spec.color"])

    assert selector.matches({"metadata": {}, "spec": {"color": "red"}})
    assert not selector.matches({"metadata": {}, "spec": {}})


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("Secret", "data=x", "field label not supported: data"),
        ("ConfigMap", "data=x", '"data" is not a known field selector: only "metadata.name", "metadata.namespace"'),
        ("Secret", "metadata.name", "can't understand 'metadata.name'"),
        ("Secret", "metadata.name=a=b", "unescaped"),
    ],
)
def test_a_field_that_cannot_be_selected_by_is_refused(kind: str, text: str, problem: str) -> None:
    with pytest.raises(InvalidSelector, match=problem.replace(".", r"\.")):
        parse_field_selector(text, group="", kind=kind)


def test_the_one_name_that_is_selected_is_told() -> None:
    assert parse_field_selector("metadata.name=x", group="", kind="Secret").exact("metadata.name") == "x"
    assert parse_field_selector("metadata.name!=x", group="", kind="Secret").exact("metadata.name") is None


def test_commas_and_equal_signs_can_be_escaped() -> None:
    selector = parse_field_selector(r"reason=a\,b\=c", group="", kind="Event")

    assert selector.matches({"metadata": {}, "reason": "a,b=c"})
