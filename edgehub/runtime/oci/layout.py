"""The OCI image layout on disk: what is kept where, and how it stays whole.

    oci-layout, index.json     the specification's; index.json names images by their full reference
    blobs/<algorithm>/<hex>    complete and verified, always: they get their names by rename after fsync
    ingest/                    what is on its way: partial blobs, files about to be renamed, leases of pulling processes
    .lock                      held while index.json is changed or anything is removed

Any crash leaves a layout that other tools read: ``ctr images import`` all of it, skopeo the images in OCI's format.
(Those in Docker's it does not look for in a layout; to rewrite them would change their digests, so they stay.)
Readers take no lock: index.json is replaced as a whole, and an image of which a blob went missing since is none. Two
processes may work on one folder: the lock orders their writes, and nothing is removed that a living process's pull
might count on, which it says by a lease.

An index (multi-platform image) is kept under its own digest, as the registry serves it, with the blobs of this
machine's image only; the specification allows blobs to be elsewhere.

Everything here is file work and blocks: callers on an event loop use a thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgehub.runtime.base import InvalidImage, RuntimeUnavailable
from edgehub.runtime.oci.manifest import (
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    Descriptor,
    Index,
    Manifest,
    digest_of,
    parse_document,
)
from edgehub.runtime.oci.platforms import Platform, choose

log = structlog.get_logger(__name__)

REF_NAME: Final = "org.opencontainers.image.ref.name"
CONTAINERD_NAME: Final = "io.containerd.image.name"
_LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_MAX_INDEX_BYTES: Final = 64 << 20
_LOCK_TIMEOUT: Final = 10.0
_MAX_DEPTH: Final = 3
_PARTIAL: Final = ".part"
_LEASE: Final = "lease-"


class _Annotations(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str = Field(default="", alias=REF_NAME)


class _Entry(Descriptor):
    annotations: _Annotations = _Annotations()


class _IndexFile(BaseModel):
    manifests: list[_Entry]


@dataclass(frozen=True, slots=True)
class Stored:
    """One image of the layout, as one of its names has it."""

    name: str
    top: Descriptor
    """What the name stands for: an image or an index."""
    config: Descriptor
    blobs: tuple[Descriptor, ...]
    """All of it, documents and config included."""


class Layout:
    """``platform``: which image of an index is meant."""

    def __init__(self, root: Path, *, platform: Platform) -> None:
        self.root = root
        self._platform = platform
        self._blobs = root / "blobs"
        self._ingest = root / "ingest"
        self._index = root / "index.json"

    # --- Reading: no locks, no changes ------------------------------------------------------------------------

    def entries(self) -> dict[str, Descriptor]:
        """By full reference. Raises `RuntimeUnavailable` when index.json cannot be read or is none."""
        try:
            content = _read_bounded(self._index, _MAX_INDEX_BYTES)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise unusable(self.root, error) from None
        try:
            index = _IndexFile.model_validate_json(content)
        except ValidationError:
            raise RuntimeUnavailable(f"image store: {self._index} is damaged") from None
        return {
            entry.annotations.name: Descriptor(mediaType=entry.mediaType, digest=entry.digest, size=entry.size)
            for entry in index.manifests
            if entry.annotations.name
        }

    def find(self, name: str, top: Descriptor) -> Stored | None:
        """The image, if all of it is here."""
        documents: list[Descriptor] = []
        descriptor: Descriptor | None = top
        while descriptor is not None and len(documents) < _MAX_DEPTH:
            document = self.document(descriptor)
            if document is None:
                return None
            documents.append(descriptor)
            if isinstance(document, Manifest):
                blobs = document.blobs()
                if not all(self.has(blob) for blob in blobs):
                    return None
                return Stored(name=name, top=top, config=document.config, blobs=(*documents, *blobs))
            descriptor = self.choose(document)
        return None

    def choose(self, index: Index) -> Descriptor | None:
        position = choose(self._platform, [entry.for_platform for entry in index.manifests])
        return None if position is None else index.manifests[position]

    def document(self, descriptor: Descriptor) -> Manifest | Index | None:
        """A manifest or index, verified; None when it is not here or spoilt."""
        content = self.read(descriptor)
        try:
            return None if content is None else parse_document(content, descriptor.mediaType)[1]
        except InvalidImage:
            return None

    def read(self, descriptor: Descriptor, *, limit: int = MAX_MANIFEST_BYTES) -> bytes | None:
        """A small blob, verified; None when it is not here or spoilt."""
        try:
            content = _read_bounded(self.blob_path(descriptor.digest), limit)
        except OSError:
            return None
        return content if digest_of(content, descriptor.digest.partition(":")[0]) == descriptor.digest else None

    def has(self, descriptor: Descriptor) -> bool:
        try:
            return self.blob_path(descriptor.digest).stat().st_size == descriptor.size
        except OSError:
            return False

    def blob_path(self, digest: str) -> Path:
        algorithm, _, encoded = digest.partition(":")
        return self._blobs / algorithm / encoded

    def partial_path(self, digest: str) -> Path:
        return self._ingest / (digest.replace(":", "-") + _PARTIAL)

    def partial_size(self, digest: str) -> int:
        try:
            return self.partial_path(digest).stat().st_size
        except OSError:
            return 0

    # --- Writing ----------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Makes the folders. A damaged index.json is set aside: the images are pulled again, their blobs are here."""
        if not self.root.exists():
            self.root.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._ingest.mkdir(exist_ok=True)
        for algorithm in ("sha256", "sha512"):
            (self._blobs / algorithm).mkdir(parents=True, exist_ok=True)
        marker = self.root / "oci-layout"
        if not marker.exists():
            self._replace(marker, _LAYOUT)
        with self.locked():
            try:
                self.entries()
            except RuntimeUnavailable:
                aside = self._index.with_name(f"index.json.damaged-{int(time.time())}")
                log.warning("index of the image store is damaged, set aside", path=str(aside))
                self._index.replace(aside)

    def put(self, descriptor: Descriptor, content: bytes) -> None:
        """A small blob whose digest the caller has verified."""
        if self.read(descriptor) is None:
            self._replace(self.blob_path(descriptor.digest), content)

    def commit(self, partial: Path, digest: str) -> None:
        """Makes a partial file, whole, verified and synced, the blob."""
        target = self.blob_path(digest)
        partial.replace(target)
        _sync_folder(target.parent)

    def name_image(self, name: str, top: Descriptor) -> Descriptor | None:
        """Lets ``name`` stand for ``top``; returns what it stood for before, if that was another."""
        with self.locked():
            entries = self.entries()
            before = entries.get(name)
            if before == top:
                return None
            entries[name] = top
            self._write_index(entries)
            return before

    def discard(self, digests: Collection[str], *, keep: Collection[str], lease: Lease | None) -> None:
        """Removes those of the blobs and partials that no image refers to and no pull works with: ``keep`` are those
        of this process, and while another process has a lease, nothing is removed."""
        with self.locked():
            if self._others_pull(lease):
                return
            unwanted = set(digests) - set(keep) - self._referenced()
            for digest in unwanted:
                self._remove_partial(self.partial_path(digest))
                with contextlib.suppress(FileNotFoundError):
                    self.blob_path(digest).unlink()

    def sweep(self, *, older_than: float, keep: Collection[str], lease: Lease | None) -> None:
        """Removes what nobody went on with: partials, files about to be renamed, and blobs without an image, when
        they were last touched more than ``older_than`` seconds ago."""
        before = time.time() - older_than
        with self.locked():
            if self._others_pull(lease):
                return
            wanted = self._referenced() | set(keep)
            working = {self.partial_path(digest).name for digest in keep}
            for path in self._ingest.iterdir():
                if not path.name.startswith(_LEASE) and path.name not in working and _older(path, before):
                    self._remove_partial(path)
            for folder in self._blobs.iterdir():
                for path in folder.iterdir():
                    if f"{folder.name}:{path.name}" not in wanted and _older(path, before):
                        path.unlink(missing_ok=True)

    def lease(self) -> Lease:
        """Says to other processes that this one pulls, until it is released or the process dies."""
        with self.locked():
            return Lease(self._ingest / f"{_LEASE}{secrets.token_hex(8)}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The lock of the layout, between processes and between threads. Raises `RuntimeUnavailable`."""
        file = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + _LOCK_TIMEOUT
            while not try_lock(file):
                if time.monotonic() > deadline:
                    raise RuntimeUnavailable(f"image store: {self.root}/.lock is held by another process")
                time.sleep(0.01)
            yield
        finally:
            os.close(file)

    def _write_index(self, entries: dict[str, Descriptor]) -> None:
        manifests: list[dict[str, Any]] = []
        for name, descriptor in entries.items():
            keys = descriptor.model_dump(include={"mediaType", "digest", "size"})
            manifests.append({**keys, "annotations": {REF_NAME: name, CONTAINERD_NAME: name}})
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
        self._replace(self._index, json.dumps(document, separators=(",", ":")).encode())

    def _replace(self, path: Path, content: bytes) -> None:
        temporary = self._ingest / f"new-{secrets.token_hex(8)}"
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)

    def _referenced(self) -> set[str]:
        """The digests of all that the images need; of a damaged image, what can be read of it."""
        found: set[str] = set()
        for top in self.entries().values():
            descriptor: Descriptor | None = top
            while descriptor is not None and descriptor.digest not in found:
                found.add(descriptor.digest)
                document = self.document(descriptor)
                if isinstance(document, Manifest):
                    found.update(blob.digest for blob in document.blobs())
                descriptor = self.choose(document) if isinstance(document, Index) else None
        return found

    def _others_pull(self, own: Lease | None) -> bool:
        for path in self._ingest.glob(f"{_LEASE}*"):
            if own is not None and path == own.path:
                continue
            try:
                file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                if not try_lock(file):
                    return True
                path.unlink(missing_ok=True)  # its process died
            finally:
                os.close(file)
        return False

    def _remove_partial(self, path: Path) -> None:
        """Unless somebody writes to it."""
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if try_lock(file):
                path.unlink(missing_ok=True)
        finally:
            os.close(file)


class Lease:
    """A locked file; made by `Layout.lease`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self._file)


def unusable(root: Path, error: OSError) -> RuntimeUnavailable:
    return RuntimeUnavailable(
        f"image store {root}: {os.strerror(error.errno) if error.errno else 'input/output error'}"
    )


def try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_bounded(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        # By the file's own size: for read(limit) Python sets aside the whole limit.
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, "too large")
        return file.read(size)


def _older(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:
        return False


def _sync_folder(path: Path) -> None:
    """Without it, a power cut can undo the rename."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
