"""Where a node's images live: behind `edgehub.runtime.base.ImageRuntime`, whichever runtime the node has.

`open_runtime` is the one place that chooses. It loads only what it chooses: gRPC and protobuf cost some 15 MB of
memory that a node with the built-in store need not have. Nothing is connected or created before the first call, so
that a runtime that is away at the agent's start is an error of that call, and not of the start.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from edgehub.runtime.base import ImageRuntime

BUILTIN: Final = "builtin"
_SCHEME: Final = "unix://"
_MAX_SOCKET_PATH: Final = 107
"""Bytes of a unix socket's path, by Linux' ``sockaddr_un``."""


class InvalidEndpoint(ValueError):
    """``containerRuntimeEndpoint`` names no runtime; the text says what would be right."""


QUERY_TIMEOUT: Final = 120.0
"""kubelet's default for runtimeRequestTimeout."""


def open_runtime(
    endpoint: str,
    *,
    image_store: Path,
    insecure_registries: Collection[str] = (),
    query_timeout: float = QUERY_TIMEOUT,
) -> ImageRuntime:
    """``unix:///path`` is a CRI runtime; empty or ``builtin`` the built-in store in the folder ``image_store``, which
    asks ``insecure_registries`` over plain http. Which registries a CRI runtime trusts so is its own configuration.
    ``query_timeout``: seconds that a CRI runtime has for each answer, pulls aside. Raises `InvalidEndpoint`."""
    if endpoint in ("", BUILTIN):
        from edgehub.runtime.oci import BuiltinStore

        return BuiltinStore(image_store, insecure_registries=insecure_registries)
    socket = _socket(endpoint)
    from edgehub.runtime.cri.runtime import CRIRuntime

    return CRIRuntime(socket=socket, query_timeout=query_timeout)


def _socket(endpoint: str) -> Path:
    path = endpoint.removeprefix(_SCHEME)
    if path == endpoint or not path.startswith("/") or "\0" in path:
        raise InvalidEndpoint(
            f"container runtime endpoint {endpoint[:200]!r} must be unix:///PATH of a CRI socket, or {BUILTIN}"
        )
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise InvalidEndpoint(
            f"container runtime endpoint {endpoint[:200]!r} has a path of more than {_MAX_SOCKET_PATH} bytes, which no "
            "unix socket can have"
        )
    return Path(path)
