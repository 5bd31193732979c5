"""A CRI server that answers as the test says, over a real unix socket and gRPC.

For what no Debian package gives: CRI-O's ways, and failures that a healthy runtime does not have."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio

from edgehub.runtime.cri import api_pb2 as cri


class FakeRuntime:
    """Holds ``images`` by reference. A pull of ``remote[reference]`` adds it, unless `pull_fails` says otherwise."""

    def __init__(self) -> None:
        self.images: dict[str, cri.Image] = {}
        self.remote: dict[str, cri.Image] = {}
        self.pull_answers: Callable[[cri.Image], str] = lambda image: image.id
        self.pull_fails: tuple[grpc.StatusCode, str] | None = None
        self.pull_hangs = False
        self.pulls: list[cri.PullImageRequest] = []
        self.pull_started = asyncio.Event()
        self.pull_cancelled = asyncio.Event()
        self.filesystems: list[str] = []
        self.query_fails: tuple[grpc.StatusCode, str] | None = None
        self.query_hangs = False

    async def version(self, request: cri.VersionRequest, context: Any) -> cri.VersionResponse:
        await self._maybe_fail(context)
        return cri.VersionResponse(version="0.1.0", runtime_name="cri-o", runtime_version="1.30.4")

    async def list_images(self, request: cri.ListImagesRequest, context: Any) -> cri.ListImagesResponse:
        await self._maybe_fail(context)
        return cri.ListImagesResponse(images=self.images.values())

    async def status(self, request: cri.ImageStatusRequest, context: Any) -> cri.ImageStatusResponse:
        await self._maybe_fail(context)
        return cri.ImageStatusResponse(image=self.images.get(request.image.image))

    async def filesystem(self, request: cri.ImageFsInfoRequest, context: Any) -> cri.ImageFsInfoResponse:
        await self._maybe_fail(context)
        usages = [cri.FilesystemUsage(fs_id=cri.FilesystemIdentifier(mountpoint=path)) for path in self.filesystems]
        return cri.ImageFsInfoResponse(image_filesystems=usages)

    async def pull(self, request: cri.PullImageRequest, context: Any) -> cri.PullImageResponse:
        self.pulls.append(request)
        self.pull_started.set()
        if self.pull_hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.pull_cancelled.set()
                raise
        if self.pull_fails is not None:
            await context.abort(*self.pull_fails)
        image = self.remote[request.image.image]
        self.images[request.image.image] = image
        return cri.PullImageResponse(image_ref=self.pull_answers(image))

    async def _maybe_fail(self, context: Any) -> None:
        if self.query_hangs:
            await asyncio.Event().wait()
        if self.query_fails is not None:
            await context.abort(*self.query_fails)


def image(*, id: str, digests: list[str], tags: list[str], size: int = 1234) -> cri.Image:
    return cri.Image(id=id, repo_digests=digests, repo_tags=tags, size=size)


@contextlib.asynccontextmanager
async def serving(fake: FakeRuntime, socket: Path, *, services: bool = True) -> AsyncIterator[None]:
    """``services=False``: gRPC answers, and knows no CRI, as a containerd whose cri plugin is disabled."""
    server = grpc.aio.server()
    if services:
        server.add_generic_rpc_handlers(_handlers(fake))
    server.add_insecure_port(f"unix://{quote(str(socket))}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


def _handlers(fake: FakeRuntime) -> tuple[grpc.GenericRpcHandler[Any, Any], ...]:
    def method(behaviour: Any, request: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=request.FromString,
            response_serializer=lambda answer: answer.SerializeToString(),
        )

    runtime = {"Version": method(fake.version, cri.VersionRequest)}
    images = {
        "ListImages": method(fake.list_images, cri.ListImagesRequest),
        "ImageStatus": method(fake.status, cri.ImageStatusRequest),
        "PullImage": method(fake.pull, cri.PullImageRequest),
        "ImageFsInfo": method(fake.filesystem, cri.ImageFsInfoRequest),
    }
    return (
        grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", runtime),
        grpc.method_handlers_generic_handler("runtime.v1.ImageService", images),
    )
