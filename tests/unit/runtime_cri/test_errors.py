"""Sentences of containerd and CRI-O as they occur, and the class that each must become."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehub.runtime.base import (
    ImageNotFound,
    ImageRuntimeError,
    InvalidImage,
    NoSpace,
    PullDenied,
    PullError,
    RuntimeUnavailable,
    TransientPullError,
)
from edgehub.runtime.cri.errors import MAX_PEER_TEXT, classify, peer_text, pull_error
from shared.images import parse_reference
from shared.wire import Credential

PULL = 'failed to pull and unpack image "registry.example/team/app:v1": '
RESOLVE = PULL + 'failed to resolve reference "registry.example/team/app:v1": '
REFERENCE = parse_reference("registry.example/team/app:v1")

CONTAINERD: list[tuple[str, type[ImageRuntimeError]]] = [
    (RESOLVE + "registry.example/team/app:v1: not found", ImageNotFound),
    (PULL + "no match for platform in manifest: not found", ImageNotFound),
    (RESOLVE + "unexpected status code [manifests v1]: 404 Not Found", ImageNotFound),
    (RESOLVE + "pulling from host registry.example failed with status code [manifests v1]: 401 Unauthorized",
     PullDenied),
    (RESOLVE + "unexpected status from HEAD request to https://registry.example/v2/team/app/manifests/v1: "
     "403 Forbidden", PullDenied),
    (RESOLVE + "pull access denied, repository does not exist or may require authorization: server message: "
     "insufficient_scope: authorization failed", PullDenied),
    (RESOLVE + "pull access denied, repository does not exist or may require authorization: authorization failed: "
     "no basic auth credentials", PullDenied),
    (RESOLVE + "failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized", PullDenied),
    (RESOLVE + 'failed to do request: Head "https://registry.example/v2/team/app/manifests/v1": dial tcp 10.0.0.9:443: '
     "connect: connection refused", TransientPullError),
    (RESOLVE + 'failed to do request: Head "https://registry.example/v2/": dial tcp 10.0.0.9:403: i/o timeout',
     TransientPullError),
    (RESOLVE + 'failed to do request: Head "https://registry.example/v2/": dial tcp: lookup registry.example on '
     "10.0.0.1:53: no such host", TransientPullError),
    (RESOLVE + 'failed to do request: Head "https://registry.example/v2/": dial tcp: lookup registry.example: device '
     "or resource busy", TransientPullError),
    (RESOLVE + 'failed to authorize: failed to fetch anonymous token: Get "https://auth.docker.io/token?scope=x": EOF',
     TransientPullError),
    (RESOLVE + 'failed to authorize: failed to fetch anonymous token: Get "https://auth.docker.io/token?scope=x": '
     "net/http: TLS handshake timeout", TransientPullError),
    (PULL + "failed to copy: httpReadSeeker: failed open: unexpected status code https://registry-1.docker.io/v2/x/blobs/"
     "sha256:40: 429 Too Many Requests - Server message: toomanyrequests: You have reached your pull rate limit",
     TransientPullError),
    (RESOLVE + "failed to authorize: failed to fetch oauth token: unexpected status from POST request to "
     "https://auth.example/token: 503 Service Unavailable", TransientPullError),
    (RESOLVE + "unexpected status code [manifests v1]: 500 Internal Server Error", TransientPullError),
    (PULL + "failed to copy: read tcp 10.0.0.2:5000->10.0.0.9:443: read: connection reset by peer", TransientPullError),
    (PULL + "failed to copy: httpReadSeeker: failed open: unexpected EOF", TransientPullError),
    (PULL + "context canceled", TransientPullError),
    (PULL + 'failed commit on ref "layer-sha256:1": unexpected commit digest sha256:2, expected sha256:1: failed '
     "precondition", TransientPullError),
    (PULL + "failed to copy: failed to send write: write /var/lib/containerd/ingest/1/data: no space left on device: "
     "unknown", NoSpace),
    (PULL + 'failed to extract layer sha256:1: write /var/lib/x: disk quota exceeded: unknown', NoSpace),
    ('failed to parse image reference "UPPER": invalid reference format: repository name must be lowercase',
     InvalidImage),
    (PULL + "failed to extract layer sha256:1: archive/tar: invalid tar header: unknown", InvalidImage),
    (RESOLVE + 'failed to do request: Head "https://registry.example/v2/": http: server gave HTTP response to HTTPS '
     "client", PullError),
    (RESOLVE + 'failed to do request: Head "https://registry.example/v2/": tls: failed to verify certificate: x509: '
     "certificate signed by unknown authority", PullError),
    ("server is not initialized yet", RuntimeUnavailable),
]  # fmt: skip

CRI_O: list[tuple[str, type[ImageRuntimeError]]] = [
    ("Error reading manifest v1 in registry.example/team/app: manifest unknown: manifest unknown", ImageNotFound),
    ("initializing source docker://registry.example/team/app:v1: reading manifest v1 in registry.example/team/app: "
     "name unknown: repository name not known to registry", ImageNotFound),
    ('choosing image instance: no image found in manifest list for architecture arm64, variant "v8", OS linux',
     ImageNotFound),
    ("reading manifest v1 in registry.example/team/app: errors:\ndenied: requested access to the resource is denied\n"
     "unauthorized: authentication required", PullDenied),
    ("Requesting bearer token: invalid status code from registry 403 (Forbidden)", PullDenied),
    ("unable to retrieve auth token: invalid username/password: unauthorized: incorrect username or password",
     PullDenied),
    ("Error reading manifest v1 in docker.io/calico/kube-controllers: toomanyrequests: You have reached your pull rate "
     "limit.", TransientPullError),
    ("Error reading signatures: received unexpected HTTP status: 500 Internal Server Error", TransientPullError),
    ('error pinging docker registry registry-1.docker.io: Get "https://registry-1.docker.io/v2/": proxyconnect tcp: '
     "dial tcp: lookup http: Temporary failure in name resolution", TransientPullError),
    ('pinging container registry registry.example: Get "https://registry.example/v2/": dial tcp 10.0.0.9:443: connect: '
     "no route to host", TransientPullError),
    ('writing blob: storing blob to file "/var/tmp/storage2/1": write /var/tmp/storage2/1: no space left on device',
     NoSpace),
    ("SignatureValidationFailed: Source image rejected: A signature was required, but no signature exists", PullError),
    ("RegistryUnavailable", TransientPullError),
    ("parsing image configuration: unsupported media type application/x", InvalidImage),
    ("something that nobody has seen before", TransientPullError),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kind"), CONTAINERD + CRI_O)
def test_each_known_sentence_becomes_its_class(text: str, kind: type[ImageRuntimeError]) -> None:
    assert classify("UNKNOWN", text, REFERENCE) is kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NOT_FOUND", ImageNotFound),
        ("INVALID_ARGUMENT", InvalidImage),
        ("PERMISSION_DENIED", PullDenied),
        ("UNAUTHENTICATED", PullDenied),
        ("DEADLINE_EXCEEDED", TransientPullError),
        ("RESOURCE_EXHAUSTED", TransientPullError),
        ("ABORTED", TransientPullError),
        ("INTERNAL", TransientPullError),
    ],
)
def test_without_a_known_sentence_the_code_decides(code: str, kind: type[ImageRuntimeError]) -> None:
    assert classify(code, "", REFERENCE) is kind


def test_a_cause_in_the_sentence_stands_above_the_code() -> None:
    assert classify("NOT_FOUND", RESOLVE + "pull access denied", REFERENCE) is PullDenied


@pytest.mark.parametrize(
    "name", ["forbidden/not-found:404", "registry.example:403/unauthorized/x509:v1", "a/b:i", "eof"]
)
def test_the_name_of_an_image_is_no_part_of_the_sentence(name: str) -> None:
    reference = parse_reference(name)
    text = (
        f'failed to pull and unpack image "{reference}": failed to resolve reference "{reference}": '
        f'Head "https://{reference.registry}/v2/{reference.repository}/manifests/{reference.tag}": something new'
    )
    assert classify("UNKNOWN", text, reference) is TransientPullError


def _pull_error(code: str, text: str, credential: Credential | None = None) -> ImageRuntimeError:
    return pull_error(code, text, endpoint="unix:///run/x.sock", reference=REFERENCE, credential=credential)


def test_a_lost_connection_to_the_runtime_is_not_blamed_on_the_registry() -> None:
    error = _pull_error("UNAVAILABLE", "failed to connect to all addresses; last error: UNKNOWN: connection refused")
    assert type(error) is RuntimeUnavailable
    assert str(error) == "container runtime at unix:///run/x.sock does not answer: connection refused"


def test_a_registry_that_the_runtime_calls_unavailable_is_the_registrys_fault() -> None:
    assert type(_pull_error("UNAVAILABLE", "RegistryUnavailable: no route to host")) is TransientPullError


def test_only_the_words_that_say_something_are_kept() -> None:
    assert str(_pull_error("NOT_FOUND", RESOLVE + "registry.example/team/app:v1: not found")) == (
        "registry registry.example has no registry.example/team/app:v1: registry.example/team/app:v1: not found"
    )


def test_an_empty_text_leaves_the_code() -> None:
    assert str(_pull_error("INTERNAL", "")) == "pulling registry.example/team/app:v1 failed: INTERNAL"


@pytest.mark.parametrize("error", [TransientPullError, RuntimeUnavailable])
def test_what_may_heal_is_retryable(error: type[ImageRuntimeError]) -> None:
    assert error.retryable


@pytest.mark.parametrize("error", [PullDenied, ImageNotFound, InvalidImage, NoSpace, PullError])
def test_what_somebody_must_mend_is_not(error: type[ImageRuntimeError]) -> None:
    assert not error.retryable


def test_credentials_urls_and_headers_lose_their_secrets() -> None:
    credential = Credential(registry="r", username="tiger", password="p@ss word/1", identity_token="eyJ0b2tlbg")
    basic = b64encode(b"tiger:p@ss word/1").decode()
    text = peer_text(
        f"p@ss word/1 p%40ss%20word%2F1 p%40ss+word%2F1 {basic} eyJ0b2tlbg https://bob:hidden@host/v2 "
        "https://s3.example/blob?X-Amz-Signature=deadbeef&x=1 Authorization: Bearer abcdefgh.ijkl.mnop",
        credential,
    )
    for secret in ("p@ss", "p%40ss", basic, "eyJ0b2tlbg", "hidden", "deadbeef", "abcdefgh"):
        assert secret not in text
    assert "https://***@host/v2" in text
    assert "https://s3.example/blob?***" in text


def test_a_very_short_password_is_hidden_as_a_word_only() -> None:
    credential = Credential(registry="r", username="u", password="a")
    assert peer_text('user "u" password "a" failed at manifest', credential) == (
        'user "u" password "***" failed at manifest'
    )


def test_a_secret_is_removed_before_the_cut_and_not_half_of_it_after() -> None:
    credential = Credential(registry="r", username="u", password="x" * 40)
    text = peer_text("." * (MAX_PEER_TEXT - 20) + "x" * 40 + "tail", credential)
    assert "x" not in text


@given(text=st.text(max_size=3000), password=st.text(min_size=8, max_size=30, alphabet="abcdXYZ019%@/+"))
def test_peer_text_is_one_bounded_line_without_the_password(text: str, password: str) -> None:
    shown = peer_text(text + password + text, Credential(registry="r", username="u", password=password))
    assert len(shown) <= MAX_PEER_TEXT
    assert password not in shown
    assert "\n" not in shown
    assert "\x00" not in shown
