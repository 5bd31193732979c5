"""Small valid images, made here: an OCI image layout on disk with layers of random bytes.

Random bytes do not compress, so a layer of n bytes is n bytes on the wire. The same ``seed`` makes the same image, byte
for byte; by default each image is another one.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import random
import secrets
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, slots=True)
class PushedImage:
    """An image as it lies in a registry."""

    reference: str
    """``host:port/repository:tag``."""
    repository: str
    tag: str
    digest: str
    """Of what the tag names: the manifest, or the index of an image for several platforms."""
    id: str
    """Of the config for this machine: what runtimes call the image's id."""
    layers: tuple[str, ...]
    """Digests of the layers for this machine."""

    @property
    def by_digest(self) -> str:
        return f"{self.reference.removesuffix(f':{self.tag}')}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Layout:
    """An OCI image layout with one image, named by ``tag``."""

    path: Path
    digest: str
    id: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Built:
    descriptor: dict[str, Any]
    id: str
    layers: tuple[str, ...]


def host_platform() -> str:
    """``os/architecture`` of this machine in Go's words."""
    machine = platform.machine()
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


def write_layout(
    path: Path,
    *,
    tag: str,
    layers: Sequence[int],
    platforms: Sequence[str] | None = None,
    seed: str | None = None,
) -> Layout:
    """``layers``: sizes in bytes. ``platforms`` (``linux/arm64``, ...) makes an index of one image for each."""
    seed = seed if seed is not None else secrets.token_hex(8)
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    built = {name: _image(blobs, layers, name, f"{seed}/{name}") for name in platforms or [host_platform()]}
    if platforms:
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [image.descriptor for image in built.values()]}
        top = _blob(blobs, INDEX, _json(index))
    else:
        top = {key: value for key, value in built[host_platform()].descriptor.items() if key != "platform"}
    named = {**top, "annotations": {"org.opencontainers.image.ref.name": tag}}
    (path / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [named]}))
    here = built.get(host_platform()) or next(iter(built.values()))
    return Layout(path=path, digest=top["digest"], id=here.id, layers=here.layers)


def _image(blobs: Path, sizes: Sequence[int], platform_name: str, seed: str) -> _Built:
    system, _, architecture = platform_name.partition("/")
    layers, unpacked = [], []
    for number, size in enumerate(sizes):
        content = _layer(f"data-{number}", size, f"{seed}/{number}")
        unpacked.append(f"sha256:{hashlib.sha256(content).hexdigest()}")
        # Stored, not deflated: the bytes are random, and tests are to be quick. mtime 0: the same in, the same out.
        layers.append(_blob(blobs, LAYER, gzip.compress(content, compresslevel=0, mtime=0)))
    config = {
        "architecture": architecture,
        "os": system,
        "created": "2024-01-01T00:00:00Z",
        "config": {"Cmd": ["/data-0"], "Labels": {"seed": seed}},
        "rootfs": {"type": "layers", "diff_ids": unpacked},
        "history": [
            {"created": "2024-01-01T00:00:00Z", "created_by": f"layer {number}"} for number in range(len(sizes))
        ],
    }
    config_blob = _blob(blobs, CONFIG, _json(config))
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config_blob, "layers": layers}
    descriptor = _blob(blobs, MANIFEST, _json(manifest))
    descriptor["platform"] = {"os": system, "architecture": architecture}
    return _Built(descriptor, config_blob["digest"], tuple(layer["digest"] for layer in layers))


def _layer(name: str, size: int, seed: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo(name)
        entry.size = size
        archive.addfile(entry, io.BytesIO(random.Random(seed).randbytes(size)))
    return out.getvalue()


def _blob(blobs: Path, media_type: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
