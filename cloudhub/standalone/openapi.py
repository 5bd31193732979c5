"""OpenAPI v2 and v3 documents, as far as kubectl asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class OpenAPIDocuments:
    """The documents of a server with these CRDs. Make a new one when a CRD comes, changes or goes."""

    def __init__(self, crds: Iterable[Mapping[str, Any]] = ()) -> None:
        raise NotImplementedError

    def v3_index(self) -> bytes:
        """JSON body of ``/openapi/v3``."""
        raise NotImplementedError

    def v3(self, group_version: str) -> tuple[bytes, str] | None:
        """JSON body and hash (ETag) for ``api/v1``, ``apis/apiextensions.k8s.io/v1``...; None: 404."""
        raise NotImplementedError

    def v2(self) -> tuple[bytes, str]:
        """JSON body and ETag of ``/openapi/v2``."""
        raise NotImplementedError
