"""Secrets: read when they are wanted and never kept; made and changed for the hub's own CA and tokens.

No error of this module repeats a Secret's data, nor what the API server says of data it refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from cloudhub.kube.client import MERGE_PATCH, KubeClient
from cloudhub.kube.errors import Conflict
from cloudhub.taskmanager.ports import NotFound, Rejected, SecretObject

OPAQUE = "Opaque"


class SecretReader:
    """`cloudhub.taskmanager.ports.Secrets`, and the writes of `cloudhub.pki`."""

    def __init__(self, *, client: KubeClient) -> None:
        self._client = client

    async def get(self, namespace: str, name: str) -> SecretObject:
        return secret_object(await self._client.request("GET", _path(namespace, name)), f"{namespace}/{name}")

    async def create(self, namespace: str, name: str, *, data: Mapping[str, bytes], type: str = OPAQUE) -> None:
        """Raises `Conflict` when there is one already; a missing namespace is made."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": type,
            "data": _encoded(data),
        }
        try:
            await self._client.request("POST", _path(namespace), body=body, sensitive=True)
        except NotFound:
            await self._create_namespace(namespace)
            await self._client.request("POST", _path(namespace), body=body, sensitive=True)

    async def update(self, namespace: str, name: str, *, data: Mapping[str, bytes]) -> None:
        """Sets these keys, leaves the others. Raises `NotFound`."""
        await self._client.request(
            "PATCH", _path(namespace, name), body={"data": _encoded(data)}, content_type=MERGE_PATCH, sensitive=True
        )

    async def _create_namespace(self, namespace: str) -> None:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        try:
            await self._client.request("POST", "/api/v1/namespaces", body=body)
        except Conflict:
            return


def secret_object(item: Mapping[str, Any], where: str) -> SecretObject:
    data = item.get("data") or {}
    try:
        decoded = {str(key): base64.b64decode(value, validate=True) for key, value in data.items()}
    except (binascii.Error, TypeError, ValueError, AttributeError):
        raise Rejected(f"Secret {where}: its data is no base64") from None
    metadata = item.get("metadata")
    about = metadata if isinstance(metadata, Mapping) else {}
    return SecretObject(
        type=str(item.get("type") or OPAQUE),
        data=decoded,
        uid=str(about.get("uid") or ""),
        resource_version=str(about.get("resourceVersion") or ""),
    )


def _encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in data.items()}


def _path(namespace: str, name: str = "") -> str:
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/secrets"
    return f"{path}/{quote(name, safe='')}" if name else path
