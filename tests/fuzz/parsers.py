"""The ways in that are pure: messages, credentials, references, tokens, CSRs, settings, job specs, manifests."""

from __future__ import annotations

import hmac
import json
import tempfile
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic_core import from_json

from cloudhub import config as hub_config
from cloudhub.pki.ca import CertificateAuthority
from cloudhub.pki.errors import Refused
from cloudhub.pki.keys import key_from_der
from cloudhub.pki.signing import check_usages, sign_node_csr
from cloudhub.pki.tokens import TokenIssuer, bearer
from cloudhub.sessions.protocol import SessionRules
from cloudhub.settings import ConfigError as HubConfigError
from cloudhub.standalone.decode import InvalidBody, decode_body
from cloudhub.taskmanager.spec import InvalidSpec, JobSpec, parse_spec
from edgehub import config as agent_config
from edgehub.config import ConfigError as AgentConfigError
from edgehub.link.certificates import KeyRequest, ca_pem, checked_certificate
from edgehub.link.errors import JoinError
from edgehub.link.join import parse_token
from edgehub.runtime.base import InvalidImage
from edgehub.runtime.oci.auth import parse_challenges
from edgehub.runtime.oci.manifest import OCI_MANIFEST, Index, check_config, parse_document
from shared.credentials import InvalidDockerConfig, credentials_from_dockercfg, credentials_from_dockerconfigjson
from shared.images import InvalidReference, parse_reference
from shared.prepull import parse_request
from shared.wire import (
    Message,
    Operation,
    WireError,
    decode,
    encode,
    parse_features,
    parse_progress,
    parse_task_resource,
)
from tests.fuzz.der import changed_and_signed
from tests.fuzz.mutation import wronged
from tests.fuzz.target import MARKER, Feed, Target, pure
from tests.fuzz.yamltext import wronged_yaml
from tests.integration.certificates import csr, node_subject
from tests.unit.runtime_oci.images import image, index

_NOW: Final = datetime(2026, 11, 22, 22, 0, tzinfo=UTC)
_CA_KEY: Final = ec.generate_private_key(ec.SECP256R1())
_CA: Final = CertificateAuthority.create(
    now=_NOW,
    key=key_from_der(_CA_KEY.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()), "x"),
)
_TOKENS: Final = TokenIssuer(_CA, now=lambda: _NOW)
_KEY: Final = ec.generate_private_key(ec.SECP256R1())
_REFERENCE: Final = parse_reference("registry.example:5000/team/app:v1")


def dump(document: Any) -> bytes:
    return json.dumps(document).encode()


# --- The wire ---------------------------------------------------------------------------------------------------------

_RESOURCE: Final = "operations.kubeedge.io/v1alpha2/imageprepulljob/job-1/node/edge-1"
_CREDENTIAL: Final = {"registry": "r.example", "username": "u", "password": MARKER}
_TEMPLATE: Final = {"images": ["r.example/a:v1"], "checkItems": ["disk"], "imageSecrets": "default/s", "retryTimes": 1}
_EXTRAS: Final = {"job_uid": "uid-1", "attempt": 1}


def message(operation: str, content: Any, *, group: str = "hub", resource: str = _RESOURCE) -> bytes:
    return dump(
        {
            "header": {"msg_id": "id-1", "parent_msg_id": "id-0", "timestamp": 1_700_000_000_000, "sync": False},
            "route": {"source": "websocket", "group": group, "operation": operation, "resource": resource},
            "content": content,
        }
    )


FROM_NODE: Final = (
    message("keepalive", "ping", group="resource", resource="node"),
    message("UpdateNodeActionStatus", {
        "action": "Pull", "succ": True, "finishTime": "2026-11-22T22:00:00Z", "reason": "", "task": _EXTRAS,
        "extend": '[{"image":"r.example/a:v1","status":"True","reason":""}]',
    }),
    message("Progress", {
        **_EXTRAS, "done_images": 1, "total_images": 2, "done_bytes": 1 << 30, "total_bytes": 1 << 31,
    }),
    message("query", None, group="meta", resource="default/secret/s"),
    message("ping", {"a": 1}),
)  # fmt: skip
FROM_HUB: Final = (
    message("Check", {
        "imagePrePullTemplate": _TEMPLATE,
        "task": {**_EXTRAS, "timeout_seconds": 60, "credentials": {"r.example/a:v1": _CREDENTIAL}},
    }, group="taskmanager"),
    message("Cancel", {**_EXTRAS, "reason": "deleted"}, group="taskmanager"),
    message("ReportAck", {}, group="taskmanager"),
    message("prepull", {
        "TaskID": "job-1", "Type": "prepull", "State": "Pulling",
        "Item": {"Images": ["a"], "NodeName": "edge-1", "Secret": "default/s", "RetryTimes": 1, "CheckItems": ["disk"]},
    }, group="taskmanager", resource="prepull/job-1/node/edge-1"),
    message("response", {
        "metadata": {"name": "s", "namespace": "default", "uid": "u"}, "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": b64encode(dump({"auths": {"r.example": _CREDENTIAL}})).decode()},
    }, group="resource", resource="default/secret/s"),
)  # fmt: skip


def _message(data: bytes) -> None:
    read = decode(data)
    # What is no number becomes null, and stays so.
    written = encode(read)
    assert encode(decode(written)) == written
    parse_task_resource(read.route.resource)


def _session(data: bytes) -> None:
    rules = SessionRules(now=0.0, keepalive_interval=30.0, messages_per_second=50, message_burst=100)
    rules.frame_arrived(len(data), 0.0)
    event = rules.receive(data, 1.0)
    reason = getattr(event, "reason", "")
    # A close frame holds 123 bytes; the shell cuts, and what it cuts must be text.
    assert MARKER not in reason
    answer = getattr(event, "message", None)
    if isinstance(answer, Message):
        encode(answer)
    parse_features(data.decode("latin-1"))


def _progress(data: bytes) -> None:
    read = decode(data)
    if read.route.operation == Operation.PROGRESS:
        parse_task_resource(read.route.resource)
        told = parse_progress(read.content)
        assert told.done_images <= told.total_images
        encode(read)


def _prepull(data: bytes) -> None:
    parse_request(decode(data).content).dispatch()


# --- Credentials, references, specs -----------------------------------------------------------------------------------

_AUTH: Final = b64encode(f"u:{MARKER}".encode()).decode()
DOCKER_CONFIGS: Final = (
    dump({"auths": {"registry.example:5000": {"username": "u", "password": MARKER, "auth": _AUTH}}}),
    dump({"auths": {"*.example:5000/team": {"auth": _AUTH}, "https://index.docker.io/v1/": {"identitytoken": MARKER}}}),
    dump({"username": "u", "password": MARKER, "server_address": "https://registry.example:5000"}),
    dump({"registry.example:5000": {"auth": _AUTH, "email": "e@x"}}),
)
REFERENCES: Final = (
    b"nginx", b"registry.example:5000/team/app:v1", b"[::1]:5000/a/b@sha256:" + b"a" * 64, b"localhost/x:y",
    b"docker.io/library/nginx:1.25@sha512:" + b"0" * 128,
)  # fmt: skip
SPECS: Final = (
    dump({"imagePrePullTemplate": {
        "images": ["nginx", "r.example/a:v1"], "nodeNames": ["edge-1", "edge-2"], "checkItems": ["disk", "cpu"],
        "failureTolerate": "0.3", "concurrency": 2, "timeoutSeconds": 180, "retryTimes": 1, "imageSecrets": "default/s",
    }}),
    dump({"imagePrePullTemplate": {"images": ["nginx"], "labelSelector": {
        "matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}],
    }}}),
)  # fmt: skip


def _docker_config(data: bytes) -> None:
    for read in (credentials_from_dockerconfigjson, credentials_from_dockercfg):
        config = read(data)
        assert MARKER not in repr(config)
        config.best(_REFERENCE)


def _reference(data: bytes) -> None:
    reference = parse_reference(data.decode("utf-8", "surrogateescape"))
    assert parse_reference(str(reference)) == reference


def _spec(data: bytes) -> None:
    try:
        raw = from_json(data)
    except ValueError:
        return  # the client's business, see the informer
    if isinstance(raw, dict):
        spec = parse_spec(raw)
        assert JobSpec.from_json(spec.to_json()) == spec


def _body(content_type: str) -> Feed:
    def decoded(data: bytes) -> None:
        decode_body(data, content_type)

    return decoded


# --- Joining ----------------------------------------------------------------------------------------------------------

TOKEN: Final = _TOKENS.issue(timedelta(hours=1), "edge-1")
CSR: Final = csr(node_subject("edge-1"), _KEY)
CSRS: Final = (
    CSR,
    csr(node_subject("edge-1"), _KEY, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])),
    csr(
        node_subject("edge-1"), _KEY, x509.BasicConstraints(ca=True, path_length=None),
        x509.SubjectAlternativeName([x509.DNSName("edge-2"), x509.DirectoryName(node_subject("edge-2"))]),
    ),
    csr(node_subject("edge-2"), _KEY),
)  # fmt: skip


def _token(data: bytes) -> None:
    header = data.decode("latin-1")
    try:
        issued = _TOKENS.verify(bearer(header), "edge-1")
    except Refused as refused:
        _no_token_in(str(refused), data)
        raise
    assert issued is None or isinstance(issued, float)
    # Nothing else than what the key signed, for this node, and that is not over.
    head, claims, signature = header.strip().partition(" ")[2].strip().split(".")
    assert hmac.compare_digest(_part(signature), hmac.digest(_CA.key.der, f"{head}.{claims}".encode(), "sha256"))
    assert json.loads(_part(head))["alg"] == "HS256"
    said = json.loads(_part(claims))
    assert said["exp"] > _NOW.timestamp()
    assert said.get("node") in (None, "edge-1")


def _part(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


_HEADS: Final = tuple(
    dump({"typ": "JWT", **head})
    for head in (
        {"alg": "HS256"}, {"alg": "none"}, {"alg": "None"}, {"alg": "HS512"}, {"alg": "RS256"}, {"alg": "ES256"},
        {"alg": ["HS256"]}, {"alg": "HS256", "crit": ["b64"], "b64": False}, {"alg": "HS256", "kid": "../../x"},
        {"alg": "HS256", "jwk": {"kty": "oct", "k": ""}}, {"alg": "HS256", "cty": "JWT"},
    )
)  # fmt: skip
_CLAIMS: Final = (
    dump({"exp": int(_NOW.timestamp()) + 60, "issued": 1.5, "node": "edge-1"}),
    dump({"exp": int(_NOW.timestamp()) + 60}),
    dump({"exp": int(_NOW.timestamp()) + 60, "node": "edge-2"}),
    dump({"exp": int(_NOW.timestamp()) + 60, "node": ["edge-1"]}),
    b'{"exp": NaN}',
    b'{"exp": true}',
    b'{"exp": "99999999999"}',
    dump({"exp": int(_NOW.timestamp()) - 60, "nbf": 1, "iat": 2, "aud": "a", "iss": "b", "sub": "c", "jti": "d"}),
)


def _signed_token(random: Random) -> bytes:
    """Of any head and any claims, and signed by who has the key, or by who has not."""
    head = random.choice(_HEADS) if random.randrange(3) else wronged(random, _HEADS)
    claims = random.choice(_CLAIMS) if random.randrange(3) == 0 else wronged(random, _CLAIMS)
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=" if random.randrange(8) else b"") for part in (head, claims))
    key = random.choice((_CA.key.der, _CA.key.der, _CA.key.der, b"", _CA.certificate_der))
    signature = hmac.digest(key, signed, random.choice(("sha256", "sha256", "sha512")))
    token = signed + b"." + urlsafe_b64encode(signature if random.randrange(10) else b"").rstrip(b"=")
    return random.choice((b"Bearer ", b"Bearer ", b"bearer  ", b"BEARER ", b"Basic ", b"")) + token


def _whole_token(data: bytes) -> None:
    try:
        parse_token(data.decode("utf-8", "surrogateescape"))
    except JoinError as error:
        _no_token_in(str(error), data)
        raise


def _no_token_in(text: str, data: bytes) -> None:
    for part in data.decode("latin-1").split("."):
        assert len(part) < 24 or part not in text


_NODES_EXTENSIONS: Final = {
    x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.AuthorityKeyIdentifier,
}  # fmt: skip


def _csr(data: bytes) -> None:
    der = sign_node_csr(_CA, csr=data, node="edge-1", life=timedelta(days=1), now=_NOW)
    assert len(der) < 2048
    given = x509.load_der_x509_certificate(der)
    assert given.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:edge-1"
    assert {type(extension.value) for extension in given.extensions} == _NODES_EXTENSIONS
    assert list(given.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]


def _usages(data: bytes) -> None:
    check_usages(data.decode("latin-1"))


_HUBS_CERTIFICATES: Final = (
    sign_node_csr(_CA, csr=CSR, node="edge-1", life=timedelta(days=1), now=_NOW),
    _CA.certificate_der,
)


def _hubs_answer(data: bytes) -> None:
    """What an agent is told by /ca.crt and /edge.crt."""
    ca_pem(data)
    request = KeyRequest(key=_KEY, csr_der=CSR)
    checked_certificate(der=data, ca=ca_pem(_CA.certificate_der), request=request, node="edge-1", now=_NOW)


# --- Settings ---------------------------------------------------------------------------------------------------------

HUB_CONFIGS: Final = (
    dump(yaml.safe_load(hub_config.default_yaml())),
    dump({"kind": "ConfigMap", "data": {"cloudcore.yaml": hub_config.default_yaml()}}),
)
AGENT_CONFIGS: Final = (
    dump({
        "apiVersion": "edgecore.config.kubeedge.io/v1alpha2", "kind": "EdgeCore", "modules": {
            "edgeHub": {
                "heartbeat": 15, "httpServer": "https://192.0.2.1:10002", "token": f"{MARKER}.a.b.c",
                "websocket": {"server": "192.0.2.1:10000", "handshakeTimeout": 30}, "messageQPS": 30,
            },
            "edged": {"hostnameOverride": "edge-1", "tailoredKubeletConfig": {
                "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock", "runtimeRequestTimeout": "2m0s",
            }},
            "taskManager": {"enable": True}, "deviceTwin": {"enable": False},
        },
    }),
)  # fmt: skip


@contextmanager
def _file(load: Any) -> Iterator[Feed]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.yaml"

        def feed(data: bytes) -> None:
            path.write_bytes(data)
            load(path)

        yield feed


# --- Registries -------------------------------------------------------------------------------------------------------

_IMAGE: Final = image(b"layer")
MANIFESTS: Final = (_IMAGE.content, index([({"os": "linux", "architecture": "amd64"}, _IMAGE)]).content)


def _manifest(data: bytes) -> None:
    for said in ("", OCI_MANIFEST):
        _, document = parse_document(data, said)
        if isinstance(document, Index):
            [entry.for_platform for entry in document.manifests]
        else:
            document.blobs()


def _image_config(data: bytes) -> None:
    _, document = parse_document(_IMAGE.content, "")
    assert not isinstance(document, Index)
    check_config(data, document)


def _challenge(data: bytes) -> None:
    text = data.decode("latin-1")
    assert len(parse_challenges([text, text])) <= 2 * (len(text) + 1)


CHALLENGES: Final = (
    b'Bearer realm="https://auth.example/token",service="r",scope="repository:a:pull"',
    b'Basic realm="x"',
)

TARGETS: Final = (
    Target(name="message", open=pure(_message), samples=FROM_NODE + FROM_HUB, errors=(WireError,)),
    Target(name="session", open=pure(_session), samples=FROM_NODE),
    Target(name="progress", open=pure(_progress), samples=FROM_NODE[2:3], errors=(WireError,)),
    Target(name="prepull", open=pure(_prepull), samples=FROM_HUB, errors=(WireError,)),
    Target(name="dockerconfigjson", open=pure(_docker_config), samples=DOCKER_CONFIGS, errors=(InvalidDockerConfig,)),
    Target(
        name="reference", open=pure(_reference), samples=REFERENCES, errors=(InvalidReference,), documents=False
    ),
    Target(name="job-spec", open=pure(_spec), samples=SPECS, errors=(InvalidSpec,)),
    Target(name="api-json", open=pure(_body("application/json")), samples=SPECS, errors=(InvalidBody,)),
    Target(name="api-yaml", open=pure(_body("application/yaml")), samples=SPECS, errors=(InvalidBody,),
           make=partial(wronged_yaml, samples=SPECS)),
    Target(
        name="token", open=pure(_token), samples=(f"Bearer {TOKEN.split('.', 1)[1]}".encode(),), errors=(Refused,),
        documents=False, make=_signed_token,
    ),
    Target(
        name="whole-token", open=pure(_whole_token), samples=(TOKEN.encode(),), errors=(JoinError,), documents=False
    ),
    Target(
        name="csr", open=pure(_csr), samples=CSRS, errors=(Refused,), documents=False, cost=2,
        make=partial(changed_and_signed, samples=CSRS, key=_KEY),
    ),
    Target(name="usages", open=pure(_usages), samples=(b"[2]",), errors=(Refused,)),
    Target(
        name="hubs-certificates", open=pure(_hubs_answer), errors=(JoinError,), documents=False, cost=2,
        samples=_HUBS_CERTIFICATES, make=partial(changed_and_signed, samples=_HUBS_CERTIFICATES, key=_CA_KEY),
    ),
    Target(
        name="cloudcore.yaml", open=lambda: _file(hub_config.load_config), samples=HUB_CONFIGS,
        errors=(HubConfigError,), cost=20, make=partial(wronged_yaml, samples=HUB_CONFIGS),
    ),
    Target(
        name="edgecore.yaml", open=lambda: _file(agent_config.load_config), samples=AGENT_CONFIGS,
        errors=(AgentConfigError,), cost=10, make=partial(wronged_yaml, samples=AGENT_CONFIGS),
    ),
    Target(name="manifest", open=pure(_manifest), samples=MANIFESTS, errors=(InvalidImage,)),
    Target(
        name="image-config", open=pure(_image_config), samples=(_IMAGE.blobs[_IMAGE.id],), errors=(InvalidImage,)
    ),
    Target(name="challenge", open=pure(_challenge), samples=CHALLENGES, documents=False),
)  # fmt: skip
