"""The image store of nodes without a container runtime: an `ImageRuntime` that pulls into an OCI image layout.

`ImageStore` is the reading half, on files alone and without a change to them: `edgehub images` uses it while the agent
runs. `BuiltinStore` adds pulling. Nothing is made on disk, and no connection opened, before the first pull.

What a pull leaves behind, by how it ends: done: the image, and what its name stood for before is removed if nothing
else needs it; failed for good: nothing; failed for now, cancelled or killed: complete blobs and partial ones, which the
next pull goes on with, and which are swept a day later if there is none.
"""

from __future__ import annotations

import asyncio
import builtins
import errno
import ssl
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import structlog

from edgehub.runtime.base import (
    ImageRecord,
    InvalidImage,
    NoSpace,
    PullError,
    PullProgress,
    RuntimeUnavailable,
    RuntimeVersion,
    TransientPullError,
)
from edgehub.runtime.oci.layout import Layout, Stored, unusable
from edgehub.runtime.oci.platforms import Platform, this_machine
from edgehub.runtime.oci.pull import Pull
from edgehub.runtime.oci.repository import Repository
from edgehub.runtime.oci.settings import StoreSettings
from edgehub.runtime.oci.threads import in_thread
from edgehub.runtime.oci.transport import Transport
from edgehub.runtime.oci.workspace import Claim, Workspace
from edgehub.version import VERSION
from shared.images import ImageReference, InvalidReference, parse_reference
from shared.wire import Credential

log = structlog.get_logger(__name__)

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class ImageStore:
    """What a layout holds; blocking. Raises `RuntimeUnavailable` when the layout cannot be read."""

    def __init__(self, root: Path, *, platform: Platform | None = None) -> None:
        self.root = root
        self.platform = platform or this_machine()
        self.layout = Layout(root, platform=self.platform)

    def find(self, reference: ImageReference) -> ImageRecord | None:
        """The image of this name, or of this digest under another tag of the repository, if all of it is here."""
        entries = self.layout.entries()
        name = str(reference)
        if name not in entries and reference.digest is not None:
            name = next((other for other in entries if _same(other, entries[other].digest, reference)), name)
        top = entries.get(name)
        stored = None if top is None else self.layout.find(name, top)
        if stored is None:
            return None
        names = [other for other, descriptor in entries.items() if descriptor == top]
        return _record(stored, [(other, stored.top.digest) for other in names])

    def images(self) -> list[ImageRecord]:
        """One record for each image, under all its names; what is not whole is no image."""
        found: dict[str, tuple[Stored, list[tuple[str, str]]]] = {}
        for name, top in self.layout.entries().items():
            stored = self.layout.find(name, top)
            if stored is not None:
                found.setdefault(stored.config.digest, (stored, []))[1].append((name, top.digest))
        return [_record(stored, names) for stored, names in found.values()]


class BuiltinStore:
    """``insecure_registries``: ``host`` or ``host:port`` that may be asked over plain http."""

    def __init__(
        self,
        root: Path,
        *,
        insecure_registries: Collection[str] = (),
        settings: StoreSettings | None = None,
        platform: Platform | None = None,
        ssl_context: ssl.SSLContext | None = None,
        free_bytes: Callable[[], int] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        settings = settings or StoreSettings()
        self._images = ImageStore(root, platform=platform)
        self._version = RuntimeVersion(name="builtin", version=VERSION)
        self._transport = Transport(
            insecure_registries=insecure_registries,
            settings=settings,
            user_agent=f"edgehub/{self._version.version}",
            ssl_context=ssl_context,
        )
        self._workspace = Workspace(layout=self._images.layout, settings=settings, free_bytes=free_bytes)
        self._sleep = sleep

    async def version(self) -> RuntimeVersion:
        return self._version

    async def status(self, image: str) -> ImageRecord | None:
        return await in_thread(self._images.find, _reference(image))

    async def list(self) -> builtins.list[ImageRecord]:
        return await in_thread(self._images.images)

    async def filesystem(self) -> Path | None:
        return await in_thread(_nearest_folder, self._images.root)

    async def close(self) -> None:
        await self._transport.close()

    async def pull(
        self,
        image: str,
        credential: Credential | None,
        *,
        progress: Callable[[PullProgress], None] | None = None,
    ) -> ImageRecord:
        reference = _reference(image)
        try:
            if reference.digest is not None and (record := await self._named(reference)) is not None:
                return record  # a digest does not move
            async with self._workspace.pull() as claim:
                return await self._pull(reference, credential, claim, progress)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise NoSpace(f"the filesystem of {self._images.root} is full") from None
            raise unusable(self._images.root, error) from error

    async def _pull(
        self,
        reference: ImageReference,
        credential: Credential | None,
        claim: Claim,
        progress: Callable[[PullProgress], None] | None,
    ) -> ImageRecord:
        started = time.monotonic()
        work = Pull(
            reference=reference,
            repository=Repository(transport=self._transport, reference=reference, credential=credential),
            workspace=self._workspace,
            claim=claim,
            platform=self._images.platform,
            progress=progress,
            sleep=self._sleep,
        )
        try:
            stored = await work.run()
        except (PullError, OSError) as error:
            final = not error.retryable if isinstance(error, PullError) else error.errno in _NO_SPACE
            if final:
                claim.unwanted |= claim.digests
            raise
        log.info("image pulled", image=str(reference), digest=stored.top.digest, seconds=time.monotonic() - started)
        record = await in_thread(self._images.find, reference)
        if record is None:
            raise TransientPullError("the image store lost a part of the image meanwhile")
        return record

    async def _named(self, reference: ImageReference) -> ImageRecord | None:
        entries = await in_thread(self._images.layout.entries)
        return await in_thread(self._images.find, reference) if str(reference) in entries else None


def _reference(image: str) -> ImageReference:
    try:
        return parse_reference(image)
    except InvalidReference as error:
        raise InvalidImage(str(error)) from None


def _same(name: str, digest: str, wanted: ImageReference) -> bool:
    if digest != wanted.digest:
        return False
    try:
        return parse_reference(name).name == wanted.name
    except InvalidReference:
        return False


def _record(stored: Stored, names: list[tuple[str, str]]) -> ImageRecord:
    digests: dict[str, None] = {}
    tags: dict[str, None] = {}
    for name, digest in names:
        try:
            reference = parse_reference(name)
        except InvalidReference:
            continue
        digests[f"{reference.name}@{digest}"] = None
        if reference.digest is None:
            tags[name] = None
    return ImageRecord(
        id=stored.config.digest,
        digests=tuple(digests),
        tags=tuple(tags),
        size=sum({blob.digest: blob.size for blob in stored.blobs}.values()),
    )


def _nearest_folder(path: Path) -> Path:
    """The store's folder or, before the first pull makes it, the nearest above that is there."""
    for candidate in (path, *path.absolute().parents):
        if candidate.is_dir():
            return candidate
    raise RuntimeUnavailable(f"image store {path}: no such folder, and none above it")
