"""Registry credentials out of a Kubernetes Secret, matched to images by kubelet's rules.

A Secret made by ``kubectl create secret docker-registry`` holds Docker's config: a map from registry to credential.
Users write its keys in many ways: with a scheme, with ``/v1/``, with a port, with a path, with wildcards. An image that
kubelet can pull with a Secret must be pulled with it here too, and a credential must reach no registry but its own;
hence the rules of kubelet's keyring (``pkg/credentialprovider/keyring.go``), of which we send only the best match:

- scheme, user info, and a leading ``/v1`` or ``/v2`` of a key mean nothing;
- hosts match label by label, ``*`` stands for any part of one label, ports must be equal (none is not 443);
- the key's path must be a prefix of the image's repository;
- exact keys come before wildcards, longer paths before shorter ones;
- Docker Hub's images also match ``index.docker.io`` and ``registry-1.docker.io``, last.

Guarantees: input is bounded, any bytes either parse or raise `InvalidDockerConfig`, and neither its text nor a repr
here repeats anything of the input, keys included: a key may hold a password when someone mixed up the arguments.
Limit: credential helpers (``credsStore``) are programs of the user's machine; what they keep is not in the Secret.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.images import DEFAULT_REGISTRY, ImageReference
from shared.wire import Credential, first_problem

MAX_DOCKER_CONFIG_BYTES: Final = 1 << 20
"""Kubernetes refuses larger Secrets."""
MAX_REGISTRIES: Final = 1000

DOCKER_CONFIG_JSON_TYPE: Final = "kubernetes.io/dockerconfigjson"
DOCKERCFG_TYPE: Final = "kubernetes.io/dockercfg"

_DOCKER_HUB_HOSTS: Final = frozenset({"index.docker.io", "registry-1.docker.io"})


class InvalidDockerConfig(ValueError):
    """No registry credentials. The text says where and what, and repeats nothing of the content."""


@dataclass(frozen=True, slots=True)
class _Location:
    """A key, or an image's name, taken apart."""

    labels: tuple[str, ...]
    port: str
    path: str

    @property
    def wildcards(self) -> int:
        return sum("*" in label for label in self.labels)

    def covers(self, image: _Location) -> bool:
        return (
            self.port == image.port
            and len(self.labels) == len(image.labels)
            and image.path.startswith(self.path)
            and all(map(_label_matches, self.labels, image.labels))
        )

    def __str__(self) -> str:
        return ".".join(self.labels) + (f":{self.port}" if self.port else "") + self.path


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """The credentials of one Secret; empty ones (``{}`` beside a ``credsStore``) are left out."""

    _entries: tuple[tuple[_Location, Credential], ...] = field(default=(), repr=False)

    def match(self, reference: ImageReference) -> list[Credential]:
        """All that kubelet would try for this image, best first."""
        image = _locate(reference.name)
        if image is None:
            return []
        found = [(location, credential) for location, credential in self._entries if location.covers(image)]
        if not found and reference.registry == DEFAULT_REGISTRY:
            found = [entry for entry in self._entries if _is_docker_hub(entry[0])]
        # Two stable sorts: the second decides, the first breaks its ties as kubelet's reverse-sorted index does.
        found.sort(key=lambda entry: str(entry[0]), reverse=True)
        found.sort(key=lambda entry: (entry[0].wildcards, -len(entry[0].path)))
        return [credential for _, credential in found]

    def best(self, reference: ImageReference) -> Credential | None:
        return next(iter(self.match(reference)), None)


def credentials_from_secret(secret_type: str, data: Mapping[str, bytes]) -> DockerConfig:
    """The credentials of a Secret of this type with this (decoded) data. Raises `InvalidDockerConfig`."""
    if secret_type == DOCKER_CONFIG_JSON_TYPE:
        return credentials_from_dockerconfigjson(_required(data, ".dockerconfigjson"))
    if secret_type == DOCKERCFG_TYPE:
        return credentials_from_dockercfg(_required(data, ".dockercfg"))
    raise InvalidDockerConfig(
        f"the Secret's type is {secret_type[:128]!r}; it must be {DOCKER_CONFIG_JSON_TYPE} "
        f"(kubectl create secret docker-registry) or {DOCKERCFG_TYPE}"
    )


def credentials_from_dockerconfigjson(data: bytes) -> DockerConfig:
    """The credentials of a ``.dockerconfigjson`` document. Raises `InvalidDockerConfig`.

    Without ``auths`` two older shapes are understood: the flat map of ``.dockercfg``, and the single credential with
    ``server_address`` that KubeEdge's EdgeCore wants in this place."""
    document = _json_object(data)
    if "auths" in document:
        auths = document["auths"]
        if auths is not None and not isinstance(auths, dict):
            raise InvalidDockerConfig("auths is no JSON object")
        return _config(auths or {})
    if "server_address" in document:
        return _edge_core_config(document)
    if document and all(isinstance(value, dict) for value in document.values()):
        return _config(document)
    raise InvalidDockerConfig("it has no key 'auths'; make it with kubectl create secret docker-registry")


def credentials_from_dockercfg(data: bytes) -> DockerConfig:
    """The credentials of a legacy ``.dockercfg`` document: the map alone. Raises `InvalidDockerConfig`."""
    return _config(_json_object(data))


class _Entry(BaseModel):
    """One credential as Docker writes it. Null stands for an absent key, as it does in Go."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)

    username: str | None = Field(default=None, max_length=4096)
    password: str | None = Field(default=None, max_length=65536)
    auth: str | None = Field(default=None, max_length=131072)
    identitytoken: str | None = Field(default=None, max_length=65536)


def _config(auths: Mapping[str, Any]) -> DockerConfig:
    if len(auths) > MAX_REGISTRIES:
        raise InvalidDockerConfig(f"it has {len(auths)} registries, more than {MAX_REGISTRIES}")
    entries = []
    for number, (key, value) in enumerate(auths.items(), start=1):
        where = f"registry {number} of {len(auths)}"
        username, password, token = _secrets(value, where)
        location = _locate(key)
        # A key that is no registry is not an error, to kubelet neither: it matches no image.
        if location is None or not (username or password or token):
            continue
        entries.append((location, _credential(location, username, password, token, where)))
    return DockerConfig(tuple(entries))


def _edge_core_config(document: Mapping[str, Any]) -> DockerConfig:
    address = document["server_address"]
    if not isinstance(address, str):
        raise InvalidDockerConfig("server_address is no text")
    return _config({address: {**document, "identitytoken": document.get("identity_token")}})


def _secrets(value: Any, where: str) -> tuple[str, str, str]:
    """User name, password and identity token; ``auth`` comes before the first two, as it does for kubelet."""
    if value is None:
        return "", "", ""
    try:
        entry = _Entry.model_validate(value, strict=True)
    except ValidationError as error:
        raise InvalidDockerConfig(f"{where}: {first_problem(error)}") from None
    username, password = entry.username or "", entry.password or ""
    if entry.auth:
        username, password = _decode_auth(entry.auth, where)
    return username, password, entry.identitytoken or ""


def _decode_auth(auth: str, where: str) -> tuple[str, str]:
    compact = "".join(auth.split()).rstrip("=")
    try:
        decoded = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidDockerConfig(f"{where}: auth is not base64 of user:password") from None
    username, colon, password = decoded.partition(":")
    if not colon:
        raise InvalidDockerConfig(f"{where}: auth is not base64 of user:password")
    return username, password.strip("\0")


def _credential(location: _Location, username: str, password: str, token: str, where: str) -> Credential:
    try:
        return Credential(registry=str(location), username=username, password=password, identity_token=token)
    except ValidationError as error:
        raise InvalidDockerConfig(f"{where}: {first_problem(error)}") from None


def _json_object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_DOCKER_CONFIG_BYTES:
        raise InvalidDockerConfig(f"it has {len(data)} bytes, more than {MAX_DOCKER_CONFIG_BYTES}")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        # Not chained: the parser's error carries the document.
        raise InvalidDockerConfig("it is no JSON") from None
    if not isinstance(document, dict):
        raise InvalidDockerConfig("it is no JSON object")
    return document


def _required(data: Mapping[str, bytes], key: str) -> bytes:
    if key not in data:
        raise InvalidDockerConfig(f"the Secret has no key {key!r}")
    return data[key]


def _locate(key: str) -> _Location | None:
    """A key or an image's name as host, port and path; None when it names no host."""
    for scheme in ("https://", "http://"):
        if key.startswith(scheme):
            key = key[len(scheme) :]
            break
    authority, slash, path = key.partition("/")
    host, port = _split_port(authority.rpartition("@")[2])
    if not host or not (port.isascii() and (port.isdigit() or not port)):
        return None
    path = slash + path
    if path in ("/v1", "/v2") or path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    return _Location(tuple(host.lower().split(".")), port, "" if path == "/" else path)


def _split_port(authority: str) -> tuple[str, str]:
    if authority.startswith("["):
        host, _, rest = authority.partition("]")
        return host + "]", rest.removeprefix(":")
    host, _, port = authority.partition(":")
    return host, port


def _is_docker_hub(location: _Location) -> bool:
    return ".".join(location.labels) in _DOCKER_HUB_HOSTS and not location.port and not location.path


def _label_matches(pattern: str, label: str) -> bool:
    """``*`` is any run of characters. Linear, whatever the pattern: a Secret's writer must not stall the hub."""
    head, *middle = pattern.split("*")
    if not middle:
        return pattern == label
    tail = middle.pop()
    if len(label) < len(head) + len(tail) or not (label.startswith(head) and label.endswith(tail)):
        return False
    position, end = len(head), len(label) - len(tail)
    for part in middle:
        found = label.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
