"""The agent's own files, with flipped bits and cut ends: a disk that went bad, or somebody's editor."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgehub.runtime.base import ImageRuntimeError
from edgehub.runtime.oci.platforms import Platform
from edgehub.runtime.oci.store import ImageStore
from edgehub.status import StatusError, read_status
from shared.images import parse_reference
from tests.fuzz.parsers import dump
from tests.fuzz.target import Feed, Target
from tests.unit.runtime_oci.images import image


@contextmanager
def own_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


# --- The built-in image store -----------------------------------------------------------------------------------------

_NAME: Final = "registry.example/team/app:v1"
_IMAGE: Final = image(b"layer")
_INDEX: Final = dump(
    {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": _IMAGE.media_type,
                "digest": _IMAGE.digest,
                "size": len(_IMAGE.content),
                "annotations": {"org.opencontainers.image.ref.name": _NAME, "io.containerd.image.name": _NAME},
            }
        ],
    }
)


@contextmanager
def _layout() -> Iterator[Feed]:
    """Fed as index.json, and as the manifest that a good index.json names."""
    with own_folder() as folder:
        blobs = folder / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for digest, content in _IMAGE.blobs.items():
            (blobs / digest.partition(":")[2]).write_bytes(content)
        manifest = blobs / _IMAGE.digest.partition(":")[2]
        store = ImageStore(folder, platform=Platform("linux", "amd64"))

        def feed(data: bytes) -> None:
            (folder / "index.json").write_bytes(_INDEX)
            manifest.write_bytes(data)
            store.images()
            manifest.write_bytes(_IMAGE.content)
            (folder / "index.json").write_bytes(data)
            store.images()
            store.find(parse_reference(_NAME))

        yield feed


# --- The agent's status -----------------------------------------------------------------------------------------------


@contextmanager
def _status() -> Iterator[Feed]:
    with own_folder() as folder:

        def feed(data: bytes) -> None:
            (folder / "status.json").write_bytes(data)
            assert isinstance(read_status(folder), dict)

        yield feed


TARGETS: Final = (
    Target(name="image-layout", open=_layout, samples=(_INDEX, _IMAGE.content), errors=(ImageRuntimeError,), cost=2),
    Target(name="status.json", open=_status, samples=(dump({"pid": 1, "version": "0.1.0"}),), errors=(StatusError,)),
)  # fmt: skip
