"""Registry credentials: what documents are understood, and which credential kubelet would use for which image."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.credentials import (
    DOCKER_CONFIG_JSON_TYPE,
    DOCKERCFG_TYPE,
    DockerConfig,
    InvalidDockerConfig,
    credentials_from_dockercfg,
    credentials_from_dockerconfigjson,
    credentials_from_secret,
)
from shared.images import parse_reference
from shared.wire import Credential


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def entry(user: str = "tiger") -> dict[str, str]:
    """As kubectl writes it."""
    return {"username": user, "password": "pass1234", "email": "x", "auth": encoded(f"{user}:pass1234")}


def config(*keys: str) -> DockerConfig:
    """Each key's user is called like the key."""
    return parse({"auths": {key: {"username": key, "password": "p"} for key in keys}})


def parse(document: Any) -> DockerConfig:
    return credentials_from_dockerconfigjson(json.dumps(document).encode())


def users(found: list[Credential]) -> list[str]:
    return [credential.username for credential in found]


def best(configuration: DockerConfig, image: str) -> str | None:
    credential = configuration.best(parse_reference(image))
    return None if credential is None else credential.username


# --- Documents --------------------------------------------------------------------------------------------------


def test_a_secret_of_kubectl_gives_user_and_password() -> None:
    found = parse({"auths": {"registry.example.com:5000": entry()}}).best(
        parse_reference("registry.example.com:5000/team/app:1")
    )
    assert found == Credential(registry="registry.example.com:5000", username="tiger", password="pass1234")


def test_the_guides_own_secret_parses_and_is_for_the_host_behind_the_at_sign() -> None:
    configuration = parse({"auths": {"tiger@acme.example": entry()}})
    assert best(configuration, "registry.cn-hangzhou.aliyuncs.com/jilimoxing/test:nginx") is None
    assert best(configuration, "acme.example/test:nginx") == "tiger"


@pytest.mark.parametrize("auth", [encoded("user:a:b"), encoded("user:a:b").rstrip("="), encoded("user:a:b\0\0") + "\n"])
def test_auth_is_decoded_and_a_password_may_hold_colons(auth: str) -> None:
    found = parse({"auths": {"r.io": {"auth": auth}}}).best(parse_reference("r.io/a"))
    assert found is not None
    assert (found.username, found.password) == ("user", "a:b")


def test_auth_comes_before_user_and_password() -> None:
    document = {"auths": {"r.io": {"username": "old", "password": "old", "auth": encoded("new:secret")}}}
    assert best(parse(document), "r.io/a") == "new"


def test_an_identity_token_is_taken_with_and_without_auth() -> None:
    for extra in ({}, {"auth": encoded("<token>:")}):
        found = parse({"auths": {"r.io": {"identitytoken": "tok", **extra}}}).best(parse_reference("r.io/a"))
        assert found is not None
        assert found.identity_token == "tok"


@pytest.mark.parametrize(
    "document", [{"auths": {}}, {"auths": None}, {"auths": {"r.io": {}}}, {"auths": {"r.io": None}}]
)
def test_a_config_without_credentials_is_anonymous(document: Any) -> None:
    assert parse(document).match(parse_reference("r.io/a")) == []


def test_the_legacy_flat_map_is_understood() -> None:
    flat = json.dumps({"https://r.io": entry()}).encode()
    for configuration in (
        credentials_from_dockercfg(flat),
        credentials_from_dockerconfigjson(flat),
        credentials_from_secret(DOCKERCFG_TYPE, {".dockercfg": flat}),
    ):
        assert best(configuration, "r.io/a") == "tiger"


def test_the_single_credential_that_edgecore_wants_is_for_its_address_only() -> None:
    document = {"username": "tiger", "password": "p", "server_address": "https://r.io"}
    assert best(parse(document), "r.io/a") == "tiger"
    assert best(parse(document), "other.io/a") is None


def test_auths_beside_edgecores_keys_come_first() -> None:
    document = {"auths": {"r.io": entry("good")}, "username": "bad", "password": "p", "server_address": "https://r.io"}
    assert best(parse(document), "r.io/a") == "good"


def test_a_secret_is_read_by_its_type() -> None:
    data = json.dumps({"auths": {"r.io": entry()}}).encode()
    assert best(credentials_from_secret(DOCKER_CONFIG_JSON_TYPE, {".dockerconfigjson": data}), "r.io/a") == "tiger"
    with pytest.raises(InvalidDockerConfig, match=r"'Opaque'.*kubernetes.io/dockerconfigjson"):
        credentials_from_secret("Opaque", {".dockerconfigjson": data})
    with pytest.raises(InvalidDockerConfig, match=r"no key '\.dockercfg'"):
        credentials_from_secret(DOCKERCFG_TYPE, {".dockerconfigjson": data})


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "no JSON"),
        (b"hunter2", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b'"hunter2"', "no JSON object"),
        (b"[" * 100_000, "no JSON"),
        (b'{"auths":' * 50_000, "no JSON"),
        (b'{"hunter2": ' + b"9" * 5000 + b"}", "no JSON"),
        (b'{"hunter2": "hunter2"}', "no key 'auths'"),
        (b'{"credsStore": "desktop"}', "no key 'auths'"),
        (b"{}", "no key 'auths'"),
        (b'{"auths": ["hunter2"]}', "auths is no JSON object"),
        (b'{"auths": {"hunter2": "hunter2"}}', "registry 1 of 1: document: Input should be a JSON object$"),
        (b'{"auths": {"r.io": {"password": ["hunter2"]}}}', "registry 1 of 1: password"),
        (b'{"auths": {"r.io": {"auth": "hunter2!"}}}', "registry 1 of 1: auth is not base64"),
        (b'{"auths": {"r.io": {"auth": "aHVudGVyMg=="}}}', "registry 1 of 1: auth is not base64 of user:password"),
        (b'{"auths": {"r.io": {"auth": "/////w=="}}}', "registry 1 of 1: auth is not base64"),
        (b'{"auths": {"r.io": {"auth": "hunter2\xc3\xa9"}}}', "registry 1 of 1: auth is not base64"),
        (b'{"auths": {"r.io": {"username": "hunter2\\ud800", "password": "x"}}}', "registry 1 of 1: username"),
        (b'{"auths": {"' + b"h" * 300 + b'": {"username": "hunter2", "password": "x"}}}', "registry 1 of 1: registry"),
        (b'{"server_address": 7, "password": "hunter2"}', "server_address is no text"),
        (b'{"auths": {"r.io": {"username": "' + b"u" * 5000 + b'"}}}', "username"),
        (b" " * (1 << 20) + b"{}", "more than 1048576"),
        (json.dumps({"auths": {str(n): {} for n in range(1001)}}).encode(), "1001 registries"),
    ],
)
def test_what_is_no_docker_config_is_refused_and_nothing_of_it_repeated(data: bytes, word: str) -> None:
    with pytest.raises(InvalidDockerConfig, match=word) as caught:
        credentials_from_dockerconfigjson(data)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert len(str(caught.value)) < 300


def test_no_secret_is_in_a_repr() -> None:
    configuration = parse({"auths": {"r.io": {**entry(), "identitytoken": "tok-secret"}}})
    shown = repr(configuration) + repr(configuration.match(parse_reference("r.io/a")))
    assert "pass1234" not in shown
    assert "tok-secret" not in shown
    assert "tiger" not in shown


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused_and_nothing_else(data: bytes) -> None:
    for read in (credentials_from_dockerconfigjson, credentials_from_dockercfg):
        try:
            configuration = read(data)
        except InvalidDockerConfig:
            continue
        configuration.match(parse_reference("r.io/a"))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=10,
)
_fields = st.sampled_from(["username", "password", "auth", "identitytoken", "email"])
_keys = st.text(alphabet="aZ0.:/@*[]?#-% é", max_size=30)


@settings(deadline=None)
@given(st.dictionaries(_keys, _json | st.dictionaries(_fields, _json, max_size=4), max_size=5))
def test_any_auths_parse_or_are_refused_and_nothing_else(auths: dict[str, Any]) -> None:
    try:
        configuration = parse({"auths": auths})
    except InvalidDockerConfig:
        return
    for image in ("nginx", "r.io:5000/a/b", "[::1]:5000/a"):
        configuration.match(parse_reference(image))


# --- Matching ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "image"),
    [
        ("r.io", "r.io/a"),
        ("https://r.io", "r.io/a"),
        ("http://r.io/", "r.io/a"),
        ("https://r.io/v1/", "r.io/a"),
        ("https://r.io/v2/", "r.io/a"),
        ("r.io/v2", "r.io/a"),
        ("r.io/v1/team", "r.io/team/a"),
        ("R.IO", "r.io/a"),
        ("r.io", "r.io/a/b@sha256:" + "0" * 64),
        ("r.io:5000", "r.io:5000/a"),
        ("user:pass@r.io", "r.io/a"),
        ("r.io/team", "r.io/team/app"),
        ("r.io/team/", "r.io/team/app"),
        ("r.io/te", "r.io/team/app"),
        ("[::1]:5000", "[::1]:5000/a"),
        ("*.r.io", "a.r.io/x"),
        ("*.*.io", "a.r.io/x"),
        ("a*c.r.io", "abc.r.io/x"),
        ("*b*.r.io", "abc.r.io/x"),
        ("a**c.r.io", "ac.r.io/x"),
        ("*.r.io:5000/team", "a.r.io:5000/team/x"),
        ("docker.io", "nginx"),
        ("https://index.docker.io/v1/", "nginx"),
        ("index.docker.io", "team/app"),
        ("https://index.docker.io/v1/", "docker.io/team/app"),
        ("registry-1.docker.io", "nginx"),
        ("docker.io/library", "nginx"),
    ],
)
def test_a_key_is_for_an_image(key: str, image: str) -> None:
    assert best(config(key), image) == key


@pytest.mark.parametrize(
    ("key", "image"),
    [
        ("r.io", "sub.r.io/a"),
        ("r.io", "other.io/a"),
        ("r.io", "r.io:5000/a"),
        ("r.io:5000", "r.io/a"),
        ("r.io:443", "r.io/a"),
        ("r.io:5000", "r.io:50001/a"),
        ("r.io/team", "r.io/other/app"),
        ("r.io/team/", "r.io/teamx/app"),
        ("*.r.io", "r.io/x"),
        ("*.r.io", "a.b.r.io/x"),
        ("*", "r.io/x"),
        ("*.io", "a.r.io/x"),
        ("aa*aa.io", "aaa.io/x"),
        ("r.io/*", "r.io/a"),
        ("r.io:*", "r.io:5000/a"),
        ("r.?o", "r.io/a"),
        ("r.[i]o", "r.io/a"),
        ("r.io@evil.io", "r.io/a"),
        ("index.docker.io", "quay.io/a"),
        ("index.docker.io:443", "nginx"),
        ("https://index.docker.io/team", "nginx"),
        ("", "nginx"),
        ("https://", "nginx"),
        ("/v1/", "nginx"),
        ("r.io:x", "r.io/a"),
        ("ftp://r.io", "r.io/a"),
    ],
)
def test_a_key_is_not_for_an_image(key: str, image: str) -> None:
    assert best(config(key), image) is None


def test_longer_paths_come_before_shorter_ones_and_wildcards_last() -> None:
    keys = ["*.r.io/team/app", "a.r.io", "a.r.io/team", "*.r.io", "a.*.io", "*.*.io", "a.r.io/team/app"]
    found = config(*keys).match(parse_reference("a.r.io/team/app:1"))
    assert users(found) == [
        "a.r.io/team/app",
        "a.r.io/team",
        "a.r.io",
        "*.r.io/team/app",
        "a.*.io",
        "*.r.io",
        "*.*.io",
    ]


def test_the_order_of_the_document_means_nothing_to_different_keys() -> None:
    image = parse_reference("r.io/team/app")
    assert users(config("r.io", "r.io/team").match(image)) == users(config("r.io/team", "r.io").match(image))


def test_two_spellings_of_one_registry_are_both_tried_in_their_order() -> None:
    found = config("https://r.io", "r.io/v2/", "r.io").match(parse_reference("r.io/a"))
    assert users(found) == ["https://r.io", "r.io/v2/", "r.io"]
    assert {credential.registry for credential in found} == {"r.io"}


def test_docker_hubs_old_names_are_used_only_when_its_own_name_has_no_credential() -> None:
    assert users(config("https://index.docker.io/v1/", "docker.io").match(parse_reference("nginx"))) == ["docker.io"]


def test_the_credential_names_the_registry_without_scheme_and_user() -> None:
    found = config("https://user:pass@R.io:5000/v2/team/").best(parse_reference("r.io:5000/team/a"))
    assert found is not None
    assert found.registry == "r.io:5000/team/"


def test_a_pattern_made_to_stall_does_not() -> None:
    pattern = "*a" * 100 + "b.io"
    started = time.perf_counter()
    assert best(config(pattern), "a" * 250 + ".io/x") is None
    assert time.perf_counter() - started < 0.5
