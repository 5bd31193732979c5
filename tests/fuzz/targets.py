"""What reads bytes of others: each with samples, and the errors that it may raise. No I/O but a file of its own."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

import cloudhub.config
import edgehub.config
from cloudhub.pki.errors import Refused
from cloudhub.pki.signing import check_usages, sign_node_csr
from cloudhub.pki.tokens import TokenIssuer, bearer
from cloudhub.sessions.protocol import SessionRules
from cloudhub.settings import ConfigError
from cloudhub.taskmanager.spec import InvalidSpec, JobSpec, parse_spec
from edgehub.runtime.base import InvalidImage
from edgehub.runtime.oci.auth import parse_challenges
from edgehub.runtime.oci.manifest import Index, Manifest, check_config, parse_document
from edgehub.tasks.model import task_of
from shared import prepull
from shared.credentials import InvalidDockerConfig, credentials_from_dockercfg, credentials_from_dockerconfigjson
from shared.images import InvalidReference, parse_reference
from shared.wire import (
    Cancel,
    Credential,
    Dispatch,
    NodeInfo,
    Operation,
    Report,
    WireError,
    decode,
    encode_bytes,
    parse_features,
    parse_task_resource,
)
from tests.fuzz.mutate import SECRET
from tests.integration.certificates import csr, new_ca, node_subject

IMAGE: Final = "registry.example:5000/team/app:v1@sha256:" + "a" * 64
JOB: Final = "operations.kubeedge.io/v1alpha2/imageprepulljob/job/node/edge-1"


@dataclass(frozen=True)
class Target:
    feed: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    documents: tuple[Any, ...] = ()
    """Samples that are JSON (or YAML)."""
    raw: tuple[bytes, ...] = ()
    """Samples that are bytes of another kind."""


# --- The wire ---------------------------------------------------------------------------------------------------


def message(
    operation: str, resource: str, content: Any, *, group: str = "hub", source: str = "websocket"
) -> dict[str, Any]:
    return {
        "header": {"msg_id": "1b6e", "parent_msg_id": "2c", "timestamp": 1764000000000, "resourceversion": "7"},
        "route": {"source": source, "group": group, "operation": operation, "resource": resource},
        "content": content,
    }


_RESULTS: Final = json.dumps([{"image": IMAGE, "status": "False", "reason": "no route to host"}])
REPORT: Final = {
    "action": "Pull", "succ": False, "finishTime": "2026-11-28T20:00:00Z", "reason": "failed", "extend": _RESULTS,
    "task": {"job_uid": "5b6d6b3c", "attempt": 1},
}  # fmt: skip
DISPATCH: Final = {
    "imagePrePullTemplate": {"images": [IMAGE], "checkItems": ["disk"], "imageSecrets": "default/s", "retryTimes": 1},
    "task": {
        "job_uid": "5b6d6b3c", "attempt": 1, "timeout_seconds": 300,
        "credentials": {IMAGE: {"registry": "registry.example:5000", "username": "tiger", "password": SECRET}},
    },
}  # fmt: skip
PREPULL: Final = {
    "TaskID": "job", "Type": "prepull", "State": "Pulling",
    "Item": {"Images": [IMAGE], "NodeName": "edge-1", "Secret": "default/s", "RetryTimes": 1, "CheckItems": ["disk"]},
}  # fmt: skip


def _frame(data: bytes) -> None:
    """What the hub's session makes of it."""
    rules = SessionRules(now=0.0, keepalive_interval=30.0, messages_per_second=100.0, message_burst=100)
    rules.frame_arrived(len(data), 0.0)
    rules.receive(data, 0.0)


def _round_trip(data: bytes) -> None:
    message = decode(data)
    # Not the messages themselves: a NaN equals nothing, itself included.
    assert encode_bytes(decode(encode_bytes(message))) == encode_bytes(message)


def _task_message(data: bytes) -> None:
    """What either side makes of a message about a task, with the models that it would use."""
    message = decode(data)
    job, node = parse_task_resource(message.route.resource)
    try:
        match message.route.operation:
            case Operation.CHECK | Operation.PULL:
                dispatch = Dispatch.model_validate(message.content)
                task_of(job=job, node=node, operation=Operation(message.route.operation), dispatch=dispatch)
            case Operation.CANCEL:
                Cancel.model_validate(message.content)
            case _:
                Report.model_validate(message.content).images()
    except ValidationError as error:
        raise WireError("content") from error


def _prepull_message(data: bytes) -> None:
    message = decode(data)
    prepull.parse_resource_down(message.route.resource)
    prepull.parse_request(message.content).dispatch()


def _node_info(data: bytes) -> None:
    NodeInfo.model_validate_json(data)
    parse_features(data.decode("latin-1"))


# --- Joining ----------------------------------------------------------------------------------------------------

_CA: Final = new_ca()
_KEY: Final = ec.generate_private_key(ec.SECP256R1())
_TOKENS: Final = TokenIssuer(_CA)
_TOKEN: Final = _TOKENS.issue(timedelta(hours=1), "edge-1").split(".", 1)[1]


def _sign(data: bytes) -> None:
    sign_node_csr(_CA, csr=data, node="edge-1", life=timedelta(days=1), now=datetime.now(UTC))


def _token(data: bytes) -> None:
    _TOKENS.verify(bearer("Bearer " + data.decode("latin-1")), "edge-1")
    assert data.decode() == _TOKEN, "a spoiled token was taken"


def _usages(data: bytes) -> None:
    check_usages(data.decode("latin-1"))


# --- Files and objects that people write ------------------------------------------------------------------------

AUTHS: Final = {
    "auths": {
        "registry.example:5000": {"username": "tiger", "password": SECRET, "email": "a@b.example"},
        "https://index.docker.io/v1/": {"auth": base64.b64encode(f"tiger:{SECRET}".encode()).decode()},
        "*.example": {"identitytoken": SECRET},
    },
    "username": "tiger",
    "password": SECRET,
    "server_address": "https://registry.example:5000",
}
_CLOUDCORE: Final = {
    "apiVersion": "cloudcore.config.kubeedge.io/v1alpha2",
    "kind": "CloudCore",
    "kubeAPIConfig": {"kubeConfig": "/root/.kube/config", "master": "", "qps": 100, "burst": 200},
    "commonConfig": {"monitorServer": {"bindAddress": "127.0.0.1:9091"}},
    "modules": {
        "cloudHub": {
            "enable": True, "keepaliveInterval": 30, "nodeLimit": 500, "writeTimeout": 30,
            "advertiseAddress": ["192.0.2.1"], "dnsNames": ["hub.example"], "edgeCertSigningDuration": 365,
            "tokenRefreshDuration": 12, "websocket": {"enable": True, "address": "192.0.2.1", "port": 10000},
            "https": {"enable": True, "address": "192.0.2.1", "port": 10002}, "quic": {"enable": False},
        },
        "taskManager": {"enable": True, "buffer": {"taskStatus": 1024}, "load": {"taskWorkers": 1}},
        "router": {"enable": False},
    },
}  # fmt: skip
_EDGECORE: Final = {
    "apiVersion": "edgecore.config.kubeedge.io/v1alpha2",
    "kind": "EdgeCore",
    "modules": {
        "edgeHub": {
            "heartbeat": 15, "httpServer": "https://192.0.2.1:10002", "token": f"{'0' * 64}.{SECRET}.b.c",
            "messageQPS": 30, "messageBurst": 60,
            "websocket": {"server": "192.0.2.1:10000", "handshakeTimeout": 30, "readDeadline": 15, "writeDeadline": 15},
        },
        "edged": {
            "hostnameOverride": "edge-1",
            "tailoredKubeletConfig": {
                "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock", "runtimeRequestTimeout": "2m",
            },
        },
        "metaManager": {"remoteQueryTimeout": 60},
        "taskManager": {"enable": True},
    },
}  # fmt: skip
SPEC: Final = {
    "imagePrePullTemplate": {
        "images": [IMAGE, "nginx"], "nodeNames": ["edge-1", "edge-2"], "checkItems": ["disk", "cpu"],
        "failureTolerate": "0.3", "concurrency": 2, "timeoutSeconds": 180, "retryTimes": 1, "imageSecrets": "default/s",
    }
}  # fmt: skip
_SELECTING: Final = {
    "imagePrePullTemplate": {
        "images": ["nginx"],
        "labelSelector": {
            "matchLabels": {"site": "north"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["shop", "vehicle"]}],
        },
    }
}


def _cloudcore(data: bytes) -> None:
    cloudhub.config.load_config(_file(data))


def _edgecore(data: bytes) -> None:
    edgehub.config.load_config(_file(data))


def _file(data: bytes) -> Path:
    path = Path(tempfile.gettempdir()) / "cloudhub-fuzz.yaml"
    path.write_bytes(data)
    return path


def _spec(data: bytes) -> None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return  # the API server's JSON is always JSON
    if isinstance(document, Mapping):
        spec = parse_spec(document)
        assert JobSpec.from_json(spec.to_json()) == spec


# --- Registries -------------------------------------------------------------------------------------------------

_BLOB: Final = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:" + "1" * 64, "size": 10}
MANIFEST: Final = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {**_BLOB, "mediaType": "application/vnd.oci.image.config.v1+json"},
    "layers": [_BLOB, {**_BLOB, "digest": "sha256:" + "2" * 64}],
}
INDEX: Final = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.index.v1+json",
    "manifests": [
        {
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:" + "3" * 64, "size": 500,
            "platform": {"os": "linux", "architecture": "arm", "variant": "v7"},
        }
    ],
}  # fmt: skip
_IMAGE_CONFIG: Final = {
    "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64] * 2},
}  # fmt: skip
_PARSED: Final = parse_document(json.dumps(MANIFEST).encode(), "")[1]


def _manifest(data: bytes) -> None:
    _, document = parse_document(data, "")
    if isinstance(document, Manifest):
        document.blobs()
    else:
        assert isinstance(document, Index)


def _image_config(data: bytes) -> None:
    assert isinstance(_PARSED, Manifest)
    check_config(data, _PARSED)


def _challenge(data: bytes) -> None:
    parse_challenges([data.decode("latin-1")])


def _credential(read: Callable[[bytes], Any], data: bytes) -> None:
    found = read(data).best(parse_reference(IMAGE))
    assert found is None or isinstance(found, Credential)
    assert SECRET not in repr(found)


TARGETS: Final[dict[str, Target]] = {
    "frame": Target(
        _frame, (), (message("UpdateNodeActionStatus", JOB, REPORT), message("keepalive", "node", "ping"))
    ),
    "message": Target(_round_trip, (WireError,), (message("query", "default/secret/s", None, group="meta"),)),
    "task message": Target(
        _task_message,
        (WireError,),
        (
            message("UpdateNodeActionStatus", JOB, REPORT),
            message("Check", JOB, DISPATCH, group="taskmanager"),
            message("Cancel", JOB, {"job_uid": "5b", "attempt": 1, "reason": "x"}, group="taskmanager"),
        ),
    ),
    "older task message": Target(
        _prepull_message, (WireError,), (message("prepull", "prepull/job/node/edge-1", PREPULL, group="taskmanager"),)
    ),
    "node info": Target(_node_info, (ValidationError,), ({"architecture": "amd64", "osImage": "Debian"},)),
    "certificate request": Target(_sign, (Refused,), raw=(csr(node_subject("edge-1"), _KEY),)),
    "token": Target(_token, (Refused, UnicodeDecodeError), raw=(_TOKEN.encode(),)),
    "usages": Target(_usages, (Refused,), ([2],)),
    "dockerconfigjson": Target(
        partial(_credential, credentials_from_dockerconfigjson), (InvalidDockerConfig,), (AUTHS,)
    ),
    "dockercfg": Target(partial(_credential, credentials_from_dockercfg), (InvalidDockerConfig,), (AUTHS["auths"],)),
    "image reference": Target(
        lambda data: parse_reference(data.decode("latin-1")),
        (InvalidReference,),
        raw=(IMAGE.encode(), b"nginx", b"[2001:db8::1]:5000/a/b:c"),
    ),
    "cloudcore.yaml": Target(
        _cloudcore,
        (ConfigError,),
        (_CLOUDCORE, {"kind": "ConfigMap", "data": {"cloudcore.yaml": json.dumps(_CLOUDCORE)}}),
        (cloudhub.config.default_yaml().encode(),),
    ),
    "edgecore.yaml": Target(_edgecore, (edgehub.config.ConfigError,), (_EDGECORE,)),
    "job spec": Target(_spec, (InvalidSpec,), (SPEC, _SELECTING)),
    "manifest": Target(_manifest, (InvalidImage,), (MANIFEST, INDEX)),
    "image config": Target(_image_config, (InvalidImage,), (_IMAGE_CONFIG,)),
    "challenge": Target(
        _challenge, (), raw=(b'Bearer realm="https://auth.example/token",service="r",scope="a:b:c", Basic realm="x"',)
    ),
}  # fmt: skip
