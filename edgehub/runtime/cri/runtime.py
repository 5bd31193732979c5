"""`ImageRuntime` over the Container Runtime Interface: containerd and CRI-O.

Problem: a pull that CRI reports as done is not always an image that a pod could start, and the runtimes differ in
what they answer: CRI-O's ids have no ``sha256:``, PullImage answers an id here and a repository digest there, and a
reference with both tag and digest is refused by some.

Guarantee: references go out in full and in the one form that all take; ``pull`` returns what ImageStatus then says
under that very reference, and only if it agrees with PullImage's answer and with the digest that was asked for. A
credential goes out bound to the host of its image's registry: containerd gives it to no mirror and to no other host.

Limits: CRI tells no progress, and PullImage has no deadline of its own here; whoever waits sets it and cancels.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgehub.runtime.base import (
    ImageRecord,
    ImageRuntimeError,
    InvalidImage,
    PullProgress,
    RuntimeVersion,
    TransientPullError,
)
from edgehub.runtime.cri import api_pb2 as cri
from edgehub.runtime.cri.client import CallFailed, CRIClient, Method, Request, Response
from edgehub.runtime.cri.errors import peer_text, pull_error, runtime_error
from shared.images import ImageReference, InvalidReference, parse_reference
from shared.wire import Credential

VERSION: Final = Method("/runtime.v1.RuntimeService/Version", cri.VersionRequest, cri.VersionResponse)
LIST: Final = Method("/runtime.v1.ImageService/ListImages", cri.ListImagesRequest, cri.ListImagesResponse)
STATUS: Final = Method("/runtime.v1.ImageService/ImageStatus", cri.ImageStatusRequest, cri.ImageStatusResponse)
PULL: Final = Method("/runtime.v1.ImageService/PullImage", cri.PullImageRequest, cri.PullImageResponse)
FILESYSTEM: Final = Method("/runtime.v1.ImageService/ImageFsInfo", cri.ImageFsInfoRequest, cri.ImageFsInfoResponse)

_BARE_ID: Final = re.compile(r"[0-9a-f]{64}")


class CRIRuntime:
    def __init__(self, *, socket: Path, query_timeout: float = 10.0, connect_timeout: float = 5.0) -> None:
        """``query_timeout``: seconds for all calls but the pull; a runtime on a slow disk needs some.
        ``connect_timeout``: seconds until a socket that takes connections must answer in gRPC."""
        self._endpoint = f"unix://{socket}"
        self._client = CRIClient(socket=str(socket), connect_timeout=connect_timeout)
        self._query_timeout = query_timeout

    async def version(self) -> RuntimeVersion:
        answer = await self._query(VERSION, cri.VersionRequest())
        return RuntimeVersion(name=answer.runtime_name, version=answer.runtime_version)

    async def status(self, image: str) -> ImageRecord | None:
        return await self._status(_parse(image))

    async def pull(
        self,
        image: str,
        credential: Credential | None,
        *,
        progress: Callable[[PullProgress], None] | None = None,
    ) -> ImageRecord:
        reference = _parse(image)
        request = cri.PullImageRequest(image=cri.ImageSpec(image=str(reference)), auth=_auth(reference, credential))
        try:
            answer = await self._client.call(PULL, request)
        except CallFailed as failed:
            raise pull_error(
                failed.code, failed.details, endpoint=self._endpoint, reference=reference, credential=credential
            ) from None
        return _confirmed(reference, answer.image_ref, await self._status(reference))

    async def list(self) -> builtins.list[ImageRecord]:
        answer = await self._query(LIST, cri.ListImagesRequest())
        return [_record(image) for image in answer.images]

    async def filesystem(self) -> Path | None:
        answer = await self._query(FILESYSTEM, cri.ImageFsInfoRequest())
        for usage in answer.image_filesystems:
            path = Path(usage.fs_id.mountpoint)
            if path.is_absolute():
                return path
        return None

    async def close(self) -> None:
        await self._client.close()

    async def _status(self, reference: ImageReference) -> ImageRecord | None:
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=str(reference)))
        answer = await self._query(STATUS, request)
        return _record(answer.image) if answer.HasField("image") else None

    async def _query(self, method: Method[Request, Response], request: Request) -> Response:
        try:
            return await self._client.call(method, request, timeout=self._query_timeout)
        except CallFailed as failed:
            raise runtime_error(failed.code, failed.details, endpoint=self._endpoint) from None


def _parse(image: str) -> ImageReference:
    try:
        reference = parse_reference(image)
    except InvalidReference as error:
        raise InvalidImage(str(error)) from None
    # The digest says it all, and older CRI-O takes a tag beside it as an error.
    return replace(reference, tag=None) if reference.digest else reference


def _auth(reference: ImageReference, credential: Credential | None) -> cri.AuthConfig | None:
    if credential is None:
        return None
    # containerd compares the host of this URL with the one that it asks, drops the credential when they differ, and
    # sees no host at all where the scheme is missing. The scheme itself means nothing to it.
    server = f"https://{reference.api_host}"
    if credential.identity_token:
        # Given a user name as well, containerd would take name and password, and never the token.
        return cri.AuthConfig(identity_token=credential.identity_token, server_address=server)
    return cri.AuthConfig(username=credential.username, password=credential.password, server_address=server)


def _record(image: cri.Image) -> ImageRecord:
    return ImageRecord(
        id=_full_id(image.id), digests=tuple(image.repo_digests), tags=tuple(image.repo_tags), size=image.size
    )


def _full_id(text: str) -> str:
    return f"sha256:{text}" if _BARE_ID.fullmatch(text) else text


def _confirmed(reference: ImageReference, answered: str, record: ImageRecord | None) -> ImageRecord:
    if record is None:
        raise _unconfirmed(reference, "the runtime has no such image after the pull that it reported as done")
    digests = {digest.rpartition("@")[2] for digest in record.digests}
    # A bare id, or a repository digest.
    pulled = _full_id(answered.rpartition("@")[2])
    if not record.id or not digests:
        raise _unconfirmed(reference, "the runtime tells no id or no digest of it")
    if pulled not in digests | {record.id}:
        raise _unconfirmed(reference, f"the runtime pulled {peer_text(pulled)} and now holds {peer_text(record.id)}")
    if reference.digest and reference.digest not in digests:
        raise _unconfirmed(reference, f"the runtime holds {peer_text(', '.join(sorted(digests)))} instead")
    return record


def _unconfirmed(reference: ImageReference, why: str) -> ImageRuntimeError:
    return TransientPullError(f"pulling {reference} is not confirmed: {why}")
