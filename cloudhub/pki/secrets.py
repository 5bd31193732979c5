"""Where CA, server certificate and token lie in a cluster: KubeEdge's Secrets in namespace ``kubeedge``.

A hub that takes over from a CloudCore finds its ``casecret`` and goes on with it; else every node would have to join
anew. The Kubernetes adapter satisfies `SecretStore` by its shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from cloudhub.taskmanager.ports import NotFound, Rejected, SecretObject

NAMESPACE: Final = "kubeedge"
OPAQUE: Final = "Opaque"

CA_SECRET: Final = "casecret"  # noqa: S105 - the name of an object
CA_CERTIFICATE: Final = "cadata"
CA_KEY: Final = "cakeydata"
SERVER_SECRET: Final = "cloudcoresecret"  # noqa: S105 - the name of an object
SERVER_CERTIFICATE: Final = "cloudcoredata"
SERVER_KEY: Final = "cloudcorekeydata"
TOKEN_SECRET: Final = "tokensecret"  # noqa: S105 - the name of an object
TOKEN: Final = "tokendata"  # noqa: S105 - the name of a key


class SecretStore(Protocol):
    """Errors are those of `cloudhub.taskmanager.ports`."""

    async def get(self, namespace: str, name: str) -> SecretObject:
        """Raises `NotFound`."""
        ...

    async def create(self, namespace: str, name: str, *, type: str, data: Mapping[str, bytes]) -> None:
        """Makes the namespace too if need be. Raises `Rejected` when there is such a Secret already."""
        ...

    async def update(self, namespace: str, name: str, *, data: Mapping[str, bytes]) -> None:
        """Sets these keys. Raises `NotFound`."""
        ...


async def find(store: SecretStore, name: str) -> Mapping[str, bytes] | None:
    try:
        return (await store.get(NAMESPACE, name)).data
    except NotFound:
        return None


async def create_or_find(store: SecretStore, name: str, data: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Of several hubs that start at once, one creates; all go on with what it created."""
    try:
        await store.create(NAMESPACE, name, type=OPAQUE, data=data)
    except Rejected:
        found = await find(store, name)
        if found is None:
            raise
        return found
    return data


async def write(store: SecretStore, name: str, data: Mapping[str, bytes]) -> None:
    """Creates or overwrites."""
    try:
        await store.update(NAMESPACE, name, data=data)
    except NotFound:
        await store.create(NAMESPACE, name, type=OPAQUE, data=data)
