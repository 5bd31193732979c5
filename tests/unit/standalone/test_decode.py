"""Request bodies as objects, and what strict decoding says of them."""

from __future__ import annotations

import pytest

from cloudhub.standalone.decode import (
    InvalidBody,
    cannot_be_handled,
    decode_body,
    decode_value,
    field_warnings,
    strict_decoding_error,
)


def test_json_and_yaml_give_the_same_object() -> None:
    as_json = decode_body(b'{"a": {"b": [1, true, "2026-01-01"]}}')
    as_yaml = decode_body(b"a:\n  b: [1, true, 2026-01-01]\n", "application/apply-patch+yaml")

    assert as_json == as_yaml
    assert as_yaml.object == {"a": {"b": [1, True, "2026-01-01"]}}


def test_keys_of_yaml_become_text() -> None:
    assert decode_body(b"{1: a, true: b, x: c}", "application/yaml").object == {"1": "a", "true": "b", "x": "c"}


@pytest.mark.parametrize("content_type", ["application/json", "application/yaml"])
def test_keys_that_stand_twice_are_told_by_path(content_type: str) -> None:
    decoded = decode_body(b'{"spec": {"a": 1, "a": 2, "list": [{}, {"x": 1, "x": 2, "x": 3}]}}', content_type)

    assert decoded.object["spec"]["a"] == 2
    assert decoded.duplicates == ("spec.a", "spec.list[1].x")


@pytest.mark.parametrize(
    ("raw", "content_type"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b'"x"', "application/json"),
        (b'{"a": NaN}', "application/json"),
        (b"\xff\xfe", "application/json"),
        (b'{"a":' * 150 + b"1" + b"}" * 150, "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"- a", "application/yaml"),
        (b"a: [", "application/yaml"),
        (b"a: &x 1\nb: *x", "application/yaml"),
        (b"a: !!python/object:os.system {}", "application/yaml"),
        (b"a: !!timestamp 2026-01-01", "application/yaml"),
        (b"a: !!binary aGk=", "application/yaml"),
        (b"a: !!set {b}", "application/yaml"),
        (b"!!omap [{a: 1}]", "application/yaml"),
        (b"a: 1\n---\nb: 2\n", "application/yaml"),
        (b"", "application/yaml"),
    ],
)
def test_what_is_no_object_is_refused(raw: bytes, content_type: str) -> None:
    with pytest.raises(InvalidBody):
        decode_body(raw, content_type)


def test_a_refusal_names_the_place_and_not_the_content() -> None:
    with pytest.raises(InvalidBody) as caught:
        decode_body(b'{"password": "tiger",}')

    assert "line 1, column" in str(caught.value)
    assert "tiger" not in str(caught.value)


def test_a_json_patch_may_be_a_list() -> None:
    assert decode_value(b'[{"op": "remove", "path": "/a"}]') == ([{"op": "remove", "path": "/a"}], ())


def test_strict_decoding_speaks_the_servers_words() -> None:
    assert strict_decoding_error(["spec.foo", "spec.bar"], ("a",)) == (
        'strict decoding error: duplicate field "a", unknown field "spec.foo", unknown field "spec.bar"'
    )
    assert field_warnings(["spec.foo"]) == ['unknown field "spec.foo"']
    assert cannot_be_handled("Node", "v1", "x") == 'Node in version "v1" cannot be handled as a Node: x'


@pytest.mark.parametrize("content_type", ["application/json", "application/yaml"])
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b"- "])
def test_nesting_without_end_is_refused_and_ends_no_process(content_type: str, opening: bytes) -> None:
    with pytest.raises(InvalidBody):
        decode_body(opening * 100_000, content_type)
