"""Small images, made in memory, valid unless a test says otherwise."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgehub.runtime.oci.manifest import OCI_INDEX, OCI_MANIFEST

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def dump(value: object) -> bytes:
    return json.dumps(value).encode()


def descriptor(content: bytes, media_type: str = LAYER_TYPE, algorithm: str = "sha256") -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(content, algorithm), "size": len(content)}


@dataclass(frozen=True)
class Image:
    content: bytes
    """The manifest or index."""
    media_type: str
    id: str
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    children: Mapping[str, bytes] = field(default_factory=dict)
    """Manifests that an index names, by digest."""

    @property
    def digest(self) -> str:
        return digest(self.content)

    @property
    def layers(self) -> list[str]:
        return [one for one in self.blobs if one != self.id]


def image(
    *layers: bytes,
    algorithm: str = "sha256",
    media_type: str = OCI_MANIFEST,
    architecture: str = "amd64",
    manifest: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Image:
    """``manifest`` and ``config`` replace keys of those documents."""
    contents = layers or (gzip.compress(b"one", mtime=0),)
    config_content = dump(
        {
            "architecture": architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in contents]},
            **(config or {}),
        }
    )
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(config_content, CONFIG_TYPE, algorithm),
        "layers": [descriptor(layer, LAYER_TYPE, algorithm) for layer in contents],
        **(manifest or {}),
    }
    blobs = {digest(content, algorithm): content for content in (config_content, *contents)}
    return Image(dump(document), media_type, digest(config_content, algorithm), blobs)


def index(entries: Sequence[tuple[Mapping[str, str] | None, Image]], *, media_type: str = OCI_INDEX) -> Image:
    """Of (platform, image); the id is the first one's."""
    manifests: list[dict[str, Any]] = []
    blobs: dict[str, bytes] = {}
    children: dict[str, bytes] = {}
    for platform, one in entries:
        extra = {} if platform is None else {"platform": dict(platform)}
        manifests.append({**descriptor(one.content, one.media_type), **extra})
        children[one.digest] = one.content
        children.update(one.children)
        blobs.update(one.blobs)
    content = dump({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests})
    return Image(content, media_type, entries[0][1].id, blobs, children)
