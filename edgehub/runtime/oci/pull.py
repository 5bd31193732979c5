"""One pull, from a reference to an image that the layout names: read `Pull.run` from top to bottom.

Nothing is written before the manifests are read, the platform is chosen, and the room for what is missing is there. The
config comes first: it tells an image from the other things that registries hold, before the large blobs are fetched.
The name is given last, so a layout never names an image that is not whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from edgehub.runtime.base import ImageNotFound, InvalidImage, PullError, PullProgress, TransientPullError
from edgehub.runtime.oci.download import download
from edgehub.runtime.oci.layout import Layout, Stored
from edgehub.runtime.oci.manifest import (
    MAX_CONFIG_BYTES,
    Descriptor,
    Index,
    Manifest,
    Served,
    check_config,
    parse_document,
)
from edgehub.runtime.oci.platforms import Platform
from edgehub.runtime.oci.repository import Repository
from edgehub.runtime.oci.threads import in_thread
from edgehub.runtime.oci.workspace import Claim, Workspace
from shared.images import ImageReference

_MAX_DEPTH: Final = 3


class Pull:
    def __init__(
        self,
        *,
        reference: ImageReference,
        repository: Repository,
        workspace: Workspace,
        claim: Claim,
        platform: Platform,
        progress: Callable[[PullProgress], None] | None,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._reference = reference
        self._repository = repository
        self._workspace = workspace
        self._layout: Layout = workspace.layout
        self._claim = claim
        self._platform = platform
        self._progress = progress
        self._sleep = sleep
        self._done: dict[str, int] = {}
        self._total = 0

    async def run(self) -> Stored:
        documents, manifest = await self._resolve()
        blobs = manifest.blobs()
        await self._workspace.claim(self._claim, [item.descriptor.digest for item in documents])
        await self._workspace.claim(self._claim, [blob.digest for blob in blobs])
        missing = await in_thread(lambda: [blob for blob in blobs if not self._layout.has(blob)])
        await self._workspace.make_room(missing)
        for item in documents:
            await in_thread(self._layout.put, item.descriptor, item.content)
        self._start_progress(blobs, missing)
        await self._fetch(manifest.config)
        await self._check_config(manifest)
        await self._fetch_all([blob for blob in missing if blob.digest != manifest.config.digest])
        return await in_thread(self._finish, documents[0].descriptor)

    async def _resolve(self) -> tuple[list[Served], Manifest]:
        """What the reference stands for, and the way from there to this machine's image."""
        served = await self._repository.manifest(self._reference.selector)
        documents = [served]
        while isinstance(served.document, Index):
            if len(documents) == _MAX_DEPTH:
                raise InvalidImage(f"its indexes are nested more than {_MAX_DEPTH - 1} deep")
            chosen = self._layout.choose(served.document)
            if chosen is None:
                raise ImageNotFound(f"it has no image for {self._platform}, only for {_offered(served.document)}")
            served = await self._child(chosen)
            documents.append(served)
        if served.document.config.size > MAX_CONFIG_BYTES:
            raise InvalidImage(f"its config has {served.document.config.size} bytes, more than {MAX_CONFIG_BYTES}")
        return documents, served.document

    async def _child(self, descriptor: Descriptor) -> Served:
        content = await in_thread(self._layout.read, descriptor)
        if content is None:
            return await self._repository.manifest(descriptor.digest, expected=descriptor)
        kind, document = parse_document(content, descriptor.mediaType)
        whole = Descriptor(mediaType=kind, digest=descriptor.digest, size=len(content))
        return Served(descriptor=whole, content=content, document=document)

    async def _check_config(self, manifest: Manifest) -> None:
        content = await in_thread(self._layout.read, manifest.config, limit=MAX_CONFIG_BYTES)
        if content is None:
            raise TransientPullError("the image store lost the image's config meanwhile")
        check_config(content, manifest)

    async def _fetch_all(self, blobs: list[Descriptor]) -> None:
        # No TaskGroup: before Python 3.13 one that ends in an error leaves its task counted as cancelled, and whoever
        # asks that later (`Task.cancelling`) takes a failed download for a task that was stopped.
        tasks = [asyncio.create_task(self._fetch(blob), name=f"fetch {blob.digest[:19]}") for blob in blobs]
        if not tasks:
            return
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
        if errors:
            raise _decisive(errors)

    async def _fetch(self, blob: Descriptor) -> None:
        # The blob first: who waits for another pull's download of it must not hold a slot meanwhile.
        async with self._workspace.blob(blob.digest):
            if not await in_thread(self._layout.has, blob):
                async with self._workspace.slots:
                    await download(
                        repository=self._repository,
                        layout=self._layout,
                        descriptor=blob,
                        moved=lambda position: self._moved(blob, position),
                        sleep=self._sleep,
                    )
        self._moved(blob, blob.size)

    def _finish(self, top: Descriptor) -> Stored:
        name = str(self._reference)
        stored = self._layout.find(name, top)
        if stored is None:
            raise TransientPullError("the image store lost a part of the image meanwhile")
        before = self._layout.name_image(name, top)
        if before is not None:
            old = self._layout.find(name, before)
            self._claim.unwanted |= {before.digest} if old is None else {blob.digest for blob in old.blobs}
        return stored

    def _start_progress(self, blobs: list[Descriptor], missing: list[Descriptor]) -> None:
        absent = {blob.digest for blob in missing}
        self._total = sum(blob.size for blob in blobs)
        self._done = {blob.digest: 0 if blob.digest in absent else blob.size for blob in blobs}
        self._tell()

    def _moved(self, blob: Descriptor, position: int) -> None:
        self._workspace.moved(blob, position)
        if self._done.get(blob.digest) != position:
            self._done[blob.digest] = position
            self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(PullProgress(done_bytes=sum(self._done.values()), total_bytes=self._total))


def _decisive(errors: list[BaseException]) -> BaseException:
    """Of what went wrong at once, the error that a retry would not mend."""
    final = [error for error in errors if isinstance(error, PullError) and not error.retryable]
    other = [error for error in errors if not isinstance(error, PullError)]
    return (other + final + errors)[0]


def _offered(index: Index) -> str:
    names = [str(entry.for_platform or "an unnamed platform") for entry in index.manifests[:20]]
    text = ", ".join(names) or "none"
    return "".join(character if character.isprintable() else "?" for character in text[:300])
