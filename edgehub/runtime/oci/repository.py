"""One repository of one registry, by the OCI distribution API: its manifests, whole and verified, and its blobs as
streams that can start in the middle.

Every manifest is checked against the digest by which it was asked for; for a tag, against the digest that the registry
says it has. Bytes that are not those of their digest were spoilt on the way, so that is a `TransientPullError`.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from yarl import URL

from edgehub.runtime.base import ImageNotFound, PullDenied, PullError, TransientPullError
from edgehub.runtime.oci.auth import Authorizer, parse_challenges
from edgehub.runtime.oci.manifest import (
    ACCEPT,
    MAX_MANIFEST_BYTES,
    Descriptor,
    Served,
    digest_of,
    parse_document,
)
from edgehub.runtime.oci.transport import Transport, failure
from shared.images import ImageReference, is_digest
from shared.wire import Credential

Read = Callable[[], Awaitable[bytes]]
"""The next bytes, none at the end; raises `Interrupted`."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")
_RANGE_NOT_SATISFIABLE: Final = 416


class Repository:
    def __init__(self, *, transport: Transport, reference: ImageReference, credential: Credential | None) -> None:
        self._transport = transport
        self._reference = reference
        self._credential = credential
        self._registry = transport.registry_url(reference.api_host)
        self._where = f"registry {reference.registry}"
        self._authorizer = Authorizer(
            transport=transport, registry=self._registry, repository=reference.repository, credential=credential
        )

    async def manifest(self, selector: str, *, expected: Descriptor | None = None) -> Served:
        """What the repository has under a tag or digest. ``expected``: what the index says of it."""
        try:
            async with asyncio.timeout(self._transport.request_timeout):
                content, media_type, digest = await self._fetch_manifest(selector)
        except TimeoutError:
            raise TransientPullError(f"{self._where} did not serve the manifest in time") from None
        if is_digest(selector):
            digest = selector
        algorithm = digest.partition(":")[0] if digest else "sha256"
        actual = digest_of(content, algorithm)
        if digest not in ("", actual) or (expected is not None and expected.size != len(content)):
            raise TransientPullError(f"{self._where} served a manifest that is not the one of its digest")
        if expected is not None and expected.mediaType:
            media_type = expected.mediaType
        kind, document = parse_document(content, media_type)
        descriptor = Descriptor(mediaType=kind, digest=actual, size=len(content))
        return Served(descriptor=descriptor, content=content, document=document)

    @asynccontextmanager
    async def blob(self, descriptor: Descriptor, *, offset: int) -> AsyncIterator[tuple[int, Read]]:
        """The position at which the stream starts, and what reads the next of it: ``offset`` or, from a server that
        knows no ranges or answers with another one, 0."""
        response = await self._open_blob(descriptor, offset)
        try:
            start = _start(response, descriptor, offset) if offset else 0
            if start is None or response.status == _RANGE_NOT_SATISFIABLE:
                response.close()
                start, response = 0, await self._open_blob(descriptor, 0)
            expected = 200 if start == 0 else 206
            if response.status != expected:
                raise self._failure(response, f"blob {descriptor.digest}")
            length = response.content_length
            if length is not None and length != descriptor.size - start:
                raise TransientPullError(
                    f"{self._where} has {length + start} bytes for {descriptor.digest}, its manifest says "
                    f"{descriptor.size}"
                )
            yield start, functools.partial(self._transport.read, self._where, response)
        finally:
            response.close()

    async def _fetch_manifest(self, selector: str) -> tuple[bytes, str, str]:
        response = await self._send(f"manifests/{selector}", {"Accept": ACCEPT})
        try:
            if response.status != 200:
                colon = "@" if is_digest(selector) else ":"
                raise self._failure(response, f"{self._reference.repository}{colon}{selector}")
            content = await self._transport.read_all(self._where, response, limit=MAX_MANIFEST_BYTES)
            digest = response.headers.get("Docker-Content-Digest", "")
            return content, response.content_type.lower(), digest if is_digest(digest) else ""
        finally:
            response.close()

    async def _open_blob(self, descriptor: Descriptor, offset: int) -> aiohttp.ClientResponse:
        headers = {"Range": f"bytes={offset}-{descriptor.size - 1}"} if offset else {}
        return await self._send(f"blobs/{descriptor.digest}", headers)

    async def _send(self, path: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """The answer; a 401 is answered once, with what it asks for."""
        url = self._registry.with_path(f"/v2/{self._reference.repository}/{path}", encoded=True)
        used = self._authorizer.header
        response = await self._transport.open("GET", url, headers=headers, authorization=used)
        if response.status != 401 or not self._is_ours(response.url):
            return response
        challenges = parse_challenges(response.headers.getall("WWW-Authenticate", ()))
        response.close()
        await self._authorizer.renew(challenges, used)
        return await self._transport.open("GET", url, headers=headers, authorization=self._authorizer.header)

    def _failure(self, response: aiohttp.ClientResponse, what: str) -> PullError:
        if not self._is_ours(response.url) and response.status < 500:
            # A storage that the registry redirected to: its signed addresses age, the next try gets a new one.
            return TransientPullError(
                f"the storage of {self._where}, {response.url.authority}, answered {response.status}"
            )
        error = failure(self._where, response)
        if isinstance(error, PullDenied):
            how = "without a credential" if self._credential is None else "with the credential given"
            return PullDenied(f"{self._where} denied pulling {self._reference.repository} {how} ({response.status})")
        if isinstance(error, ImageNotFound):
            return ImageNotFound(f"{self._where} has no {what}")
        return error

    def _is_ours(self, url: URL) -> bool:
        return url.origin() == self._registry.origin()


def _start(response: aiohttp.ClientResponse, descriptor: Descriptor, offset: int) -> int | None:
    """Where the body of an answer to a range request starts; None when that is of no use to us."""
    if response.status != 206:
        return 0
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None or int(match[1]) != offset or match[3] not in ("*", str(descriptor.size)):
        return None
    return offset
