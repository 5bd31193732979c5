"""An image to pull in the demo: made here, so that the demo needs no network.

It is a valid Docker image (schema 2) of some MB in layers of different sizes, with the files that one expects in an
nginx image, though nothing in it runs: large files hold random bytes, which do not compress, so that there is something
to transfer. The same version of this project makes the same image, byte for byte, on machines of one architecture.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import random
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

TAG: Final = "jilimoxing/test:nginx"
"""Repository and tag: the guide's."""

MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_CREATED: Final = "2024-01-01T00:00:00Z"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20

_INDEX_HTML: Final = (
    "<!DOCTYPE html>\n<title>cloudhub demo</title>\n<h1>This page was pulled before it was needed.</h1>\n"
)
_NGINX_CONF: Final = (
    "events {}\nhttp {\n    server {\n        listen 80;\n        root /usr/share/nginx/html;\n    }\n}\n"
)

# What made the layer, and its files: text, or a number of random bytes.
_LAYERS: Final[Sequence[tuple[str, Mapping[str, str | int]]]] = (
    (
        "ADD rootfs.tar.gz /",
        {
            "etc/os-release": 'NAME="cloudhub demo"\nID=demo\nVERSION_ID=1\n',
            "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnginx:x:101:101:nginx:/nonexistent:/bin/false\n",
            "lib/libc.so.6": 5 * _MIB,
            "bin/busybox": 2 * _MIB,
        },
    ),
    ("RUN apk add nginx", {"usr/sbin/nginx": 4 * _MIB, "usr/lib/libssl.so.3": 700 * _KIB}),
    ("COPY nginx.conf /etc/nginx/", {"etc/nginx/nginx.conf": _NGINX_CONF}),
    (
        "COPY html /usr/share/nginx/html",
        {"usr/share/nginx/html/index.html": _INDEX_HTML, "usr/share/nginx/html/logo.png": 300 * _KIB},
    ),
)


@dataclass(frozen=True, slots=True)
class DemoImage:
    manifest: bytes
    media_type: str
    blobs: Mapping[str, bytes] = field(repr=False)
    """Config and layers, by digest."""

    @property
    def digest(self) -> str:
        return _digest(self.manifest)

    @property
    def size(self) -> int:
        """Bytes that a pull transfers."""
        return len(self.manifest) + sum(map(len, self.blobs.values()))


def demo_image() -> DemoImage:
    blobs: dict[str, bytes] = {}
    layers, diff_ids = [], []
    for _, files in _LAYERS:
        archive = _tar(files)
        diff_ids.append(_digest(archive))
        layers.append(_blob(blobs, _LAYER_TYPE, gzip.compress(archive, compresslevel=1, mtime=0)))
    machine = platform.machine()
    config = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "created": _CREATED,
        "config": {
            "Cmd": ["nginx", "-g", "daemon off;"],
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "ExposedPorts": {"80/tcp": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created": _CREATED, "created_by": made_by} for made_by, _ in _LAYERS],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": _blob(blobs, _CONFIG_TYPE, _json(config)),
        "layers": layers,
    }
    return DemoImage(manifest=_json(manifest), media_type=MANIFEST_TYPE, blobs=blobs)


def _tar(files: Mapping[str, str | int]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        folders: set[str] = set()
        for name, content in files.items():
            parts = name.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                _add_folder(archive, "/".join(parts[:depth]), folders)
            data = content.encode() if isinstance(content, str) else _noise(name, content)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755 if isinstance(content, int) else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _add_folder(archive: tarfile.TarFile, name: str, known: set[str]) -> None:
    if name in known:
        return
    known.add(name)
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    archive.addfile(entry)


def _noise(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)  # noqa: S311 - filling, not secret


def _blob(blobs: dict[str, bytes], media_type: str, content: bytes) -> dict[str, Any]:
    digest = _digest(content)
    blobs[digest] = content
    return {"mediaType": media_type, "size": len(content), "digest": digest}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, indent=3).encode()
