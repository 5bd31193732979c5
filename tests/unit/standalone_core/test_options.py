"""Paths, queries and headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudhub.standalone import options
from cloudhub.standalone.decode import InvalidBody, decode_body
from cloudhub.standalone.errors import StatusError
from cloudhub.standalone.media import Output, Shape, negotiate
from cloudhub.standalone.options import (
    Continue,
    Target,
    parse_continue,
    parse_delete_options,
    parse_list_options,
    parse_path,
    parse_write_options,
)
from cloudhub.standalone.resources import Catalog, version_priority

NODES = Catalog().get("", "v1", "nodes")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("api/v1/nodes", Target("", "v1", "nodes", None, "", "")),
        ("api/v1/nodes/a/status", Target("", "v1", "nodes", None, "a", "status")),
        ("api/v1/namespaces", Target("", "v1", "namespaces", None, "", "")),
        ("api/v1/namespaces/a", Target("", "v1", "namespaces", None, "a", "")),
        ("api/v1/namespaces/a/status", Target("", "v1", "namespaces", None, "a", "status")),
        ("api/v1/namespaces/a/secrets", Target("", "v1", "secrets", "a", "", "")),
        ("api/v1/namespaces/a/secrets/status", Target("", "v1", "secrets", "a", "status", "")),
        ("apis/g/v2/namespaces/a/cars/b/status", Target("g", "v2", "cars", "a", "b", "status")),
        ("apis/g/v2/cars/b/c/d", None),
        ("api/v1/namespaces//secrets", None),
    ],
)
def test_a_path_names_one_thing(path: str, target: Target | None) -> None:
    assert parse_path(path.split("/")) == target


@given(st.integers(min_value=-1, max_value=2**62), st.text(), st.text())
def test_a_continue_token_reads_back(revision: int, namespace: str, name: str) -> None:
    token = Continue(revision, (namespace, name))
    assert parse_continue(token.encode()) == token


@given(st.text(max_size=20))
def test_what_is_no_token_is_a_bad_request(text: str) -> None:
    with pytest.raises(StatusError) as caught:
        parse_continue(text)
    assert caught.value.code == 400


def refused(query: dict[str, str]) -> str:
    with pytest.raises(StatusError) as caught:
        parse_list_options(NODES, query)
    assert caught.value.code in (400, 422)
    return str(caught.value)


def test_a_lists_query_is_typed_and_bounded() -> None:
    parsed = parse_list_options(NODES, {"limit": "500", "resourceVersion": "0", "timeoutSeconds": "30"})
    assert (parsed.limit, parsed.revision, parsed.timeout) == (500, 0, 30.0)
    assert "limit" in refused({"limit": "-1"})
    assert "limit" in refused({"limit": "9" * 30})
    assert "limit" in refused({"limit": "٣"})
    assert "resourceVersion" in refused({"resourceVersion": "abc"})
    assert "forbidden unless resourceVersion" in refused({"resourceVersionMatch": "Exact"})
    assert "forbidden for list" in refused({"sendInitialEvents": "true"})
    assert "requires setting resourceVersionMatch" in refused({"watch": "1", "sendInitialEvents": "true"})
    assert "unless sendInitialEvents" in refused({"watch": "1", "resourceVersionMatch": "NotOlderThan"})


@pytest.mark.parametrize(("text", "value"), [("true", True), ("", True), ("1", True), ("0", False), ("FALSE", False)])
def test_flags_read_as_go_reads_them(text: str, value: bool) -> None:
    assert parse_list_options(NODES, {"watch": text}).watch is value


def test_the_writer_is_named_by_query_or_program() -> None:
    assert parse_write_options({"fieldManager": "me"}, "kubectl/v1.37").manager == "me"
    assert parse_write_options({}, "kubectl/v1.37 (linux)").manager == "kubectl"
    assert parse_write_options({}, "").manager == "unknown"
    with pytest.raises(StatusError):
        parse_write_options({"fieldManager": "x" * 129}, "")
    with pytest.raises(StatusError, match="fieldValidation"):
        parse_write_options({"fieldValidation": "Maybe"}, "")


def test_delete_options_come_from_body_or_query() -> None:
    body = {"dryRun": ["All"], "preconditions": {"uid": "u", "resourceVersion": "3"}}
    parsed = parse_delete_options(body, {})
    assert (parsed.dry_run, parsed.uid, parsed.revision) == (True, "u", "3")
    assert parse_delete_options({}, {"dryRun": "All"}).dry_run
    for wrong in ({"propagationPolicy": "Sideways"}, {"preconditions": [1]}, {"preconditions": {"uid": 3}}):
        with pytest.raises(StatusError):
            parse_delete_options(wrong, {})


@pytest.mark.parametrize(
    ("accept", "output"),
    [
        ("", Output()),
        ("*/*", Output()),
        ("application/json", Output()),
        ("application/vnd.kubernetes.protobuf", Output()),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Output(Shape.TABLE)),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io",
         Output(Shape.TABLE, "v1beta1")),
        ("application/cbor;as=Table;v=v1;g=meta.k8s.io,application/json", Output()),
        ("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", Output(Shape.PARTIAL)),
    ],
)  # fmt: skip
def test_the_first_shape_that_can_be_sent_is_taken(accept: str, output: Output) -> None:
    assert negotiate(accept) == output


def test_what_cannot_be_sent_is_not_acceptable() -> None:
    for accept in ("text/html", "application/json;as=Pie;g=meta.k8s.io;v=v1"):
        with pytest.raises(StatusError) as caught:
            negotiate(accept)
        assert caught.value.code == 406


def test_versions_are_in_kubernetes_order() -> None:
    names = ["v1alpha1", "v10", "foo", "v2", "v1beta2", "v1beta10", "v1"]
    ordered = sorted(names, key=version_priority, reverse=True)
    assert ordered == ["v10", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]


def test_a_selector_on_name_alone_needs_no_parsing() -> None:
    assert not parse_list_options(NODES, {"fieldSelector": "metadata.name=a"}).reads_fields
    assert parse_list_options(NODES, {"fieldSelector": "metadata.name!=a"}).reads_fields
    assert parse_list_options(NODES, {"fieldSelector": "spec.unschedulable=true"}).reads_fields
    assert options.parse_revision("") is None


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b'{"a":1e999}', "application/json"),
        (b'{"a":"\\uD800"}', "application/json"),
        (b'{"\\udfff":1}', "application/json"),
        (b"a: .inf", "application/yaml"),
        (b"a: .nan", "application/yaml"),
    ],
)
def test_what_json_cannot_carry_is_refused_where_it_comes_in(body: bytes, media_type: str) -> None:
    with pytest.raises(InvalidBody):
        decode_body(body, media_type)
    assert decode_body(b'{"a":"\\ud83d\\ude00 1e3"}').object == {"a": "\U0001f600 1e3"}
