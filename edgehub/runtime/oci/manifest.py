"""Manifests, indexes and configs as registries serve them: typed, bounded, checked.

A registry is not trusted: its documents say how many bytes we fetch, and under which names we keep them. Digests are
of the two known forms before they become file names, sizes are whole numbers within reason, and a document that could
be read as two kinds of thing is refused, so that no two readers of our layout see different images.

Understood: OCI image manifests and indexes, Docker's schema 2 manifests and manifest lists. Docker's schema 1 is
refused by name. Extra keys mean nothing here; the bytes are kept as they came.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from edgehub.runtime.base import InvalidImage
from edgehub.runtime.oci.platforms import Platform
from shared.images import is_digest
from shared.wire import first_problem

MAX_MANIFEST_BYTES: Final = 4 << 20
MAX_CONFIG_BYTES: Final = 8 << 20
MAX_BLOB_BYTES: Final = 1 << 40
MAX_LAYERS: Final = 1000
MAX_PLATFORMS: Final = 1000

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+"
ACCEPT: Final = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST))


def _checked_digest(text: str) -> str:
    if not is_digest(text):
        raise ValueError("is no sha256 or sha512 digest")
    return text


Digest = Annotated[str, StringConstraints(max_length=256), AfterValidator(_checked_digest)]
_Name = Annotated[str, StringConstraints(max_length=128)]
MediaType = Annotated[str, StringConstraints(max_length=255)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, hide_input_in_errors=True)


class _PlatformKeys(_Document):
    os: _Name = ""
    architecture: _Name = ""
    variant: _Name = ""


class Descriptor(_Document):
    """A blob by its digest: what it is, and how many bytes."""

    mediaType: MediaType = ""
    digest: Digest
    size: Annotated[int, Field(ge=0, le=MAX_BLOB_BYTES)]
    platform: _PlatformKeys | None = None

    @property
    def for_platform(self) -> Platform | None:
        keys = self.platform
        if keys is None or not (keys.os or keys.architecture):
            return None
        return Platform(keys.os, keys.architecture, keys.variant)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    def blobs(self) -> list[Descriptor]:
        """Config first, then the layers, each digest once."""
        found: dict[str, Descriptor] = {}
        for descriptor in (self.config, *self.layers):
            if found.setdefault(descriptor.digest, descriptor).size != descriptor.size:
                raise InvalidImage(f"its manifest gives {descriptor.digest} two sizes")
        return list(found.values())


@dataclass(frozen=True, slots=True)
class Index:
    """The same image for several platforms."""

    manifests: tuple[Descriptor, ...]


class _Either(_Document):
    """The keys of both kinds. What else a document has is never made into objects, however much it is."""

    schemaVersion: int | None = None
    mediaType: MediaType | None = None
    config: Descriptor | None = None
    layers: Annotated[list[Descriptor], Field(max_length=MAX_LAYERS)] | None = None
    manifests: Annotated[list[Descriptor], Field(max_length=MAX_PLATFORMS)] | None = None


class _RootFS(_Document):
    diff_ids: Annotated[list[Digest], Field(max_length=MAX_LAYERS)] | None = None


class _Config(_Document):
    architecture: _Name
    os: _Name
    rootfs: _RootFS


@dataclass(frozen=True, slots=True)
class Served:
    """A manifest or an index, and the bytes that it is."""

    descriptor: Descriptor
    content: bytes
    document: Manifest | Index


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()}"


def parse_document(content: bytes, media_type: str) -> tuple[str, Manifest | Index]:
    """The document and its media type. ``media_type`` is what the sender said, and may be empty. Raises
    `InvalidImage`."""
    try:
        keys = _Either.model_validate_json(content)
    except ValidationError as error:
        raise InvalidImage(f"its manifest is malformed: {first_problem(error)}") from None
    if media_type.startswith(_SCHEMA1) or keys.schemaVersion == 1:
        raise InvalidImage(
            "its manifest is of Docker's schema 1, which is out of use; push the image again with a present-day tool"
        )
    kind = _kind(media_type, keys)
    if kind in INDEX_TYPES:
        if keys.manifests is None:
            raise InvalidImage("its index has no key 'manifests'")
        return kind, Index(tuple(keys.manifests))
    if keys.config is None or keys.layers is None:
        raise InvalidImage("its manifest lacks the key 'config' or 'layers'")
    return kind, Manifest(keys.config, tuple(keys.layers))


def check_config(content: bytes, manifest: Manifest) -> None:
    """Raises `InvalidImage` unless this is the config of a container image with the manifest's layers: registries
    hold charts, signatures and more under manifests that look just the same."""
    try:
        config = _Config.model_validate_json(content)
    except ValidationError as error:
        raise InvalidImage(f"it is no container image: its config is malformed: {first_problem(error)}") from None
    layers = len(config.rootfs.diff_ids or ())
    if layers != len(manifest.layers):
        raise InvalidImage(f"its config speaks of {layers} layers, its manifest of {len(manifest.layers)}")


def _kind(said: str, keys: _Either) -> str:
    if keys.manifests is not None and (keys.layers is not None or keys.config is not None):
        raise InvalidImage("its manifest is both an index and an image")
    known = MANIFEST_TYPES | INDEX_TYPES
    inner = keys.mediaType or ""
    if inner and inner not in known:
        raise InvalidImage(f"its manifest is of media type {inner[:100]!r}, which is no image")
    if said in known:
        if inner and said != inner:
            raise InvalidImage(f"its manifest says that it is {inner}, the registry says {said}")
        return said
    if inner:
        return inner
    # Neither says: a file of a simple web server. The shape decides.
    if keys.manifests is not None:
        return OCI_INDEX
    if keys.config is not None:
        return OCI_MANIFEST
    raise InvalidImage("what the registry serves under it is no manifest")
