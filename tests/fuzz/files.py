"""The programs' own files, with flipped bits and cut ends: a disk that went bad, or somebody's editor."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from cloudhub.store.engine import Schema, open_database
from cloudhub.store.errors import StoreError
from cloudhub.store.queue import TaskQueue
from edgehub.runtime.base import ImageRuntimeError
from edgehub.runtime.oci.platforms import Platform
from edgehub.runtime.oci.store import ImageStore
from edgehub.status import StatusError, read_status
from edgehub.tasks.journal import JournalError, JournalFile
from edgehub.tasks.model import TaskState, check_report
from shared.images import parse_reference
from tests.fuzz.parsers import dump
from tests.fuzz.peers import AsyncFeed, in_a_loop
from tests.fuzz.target import Feed, Target
from tests.unit.edgehub.scripted import task
from tests.unit.runtime_oci.images import image


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


# --- The agent's journal ----------------------------------------------------------------------------------------------


def _journal_sample() -> bytes:
    with _folder() as folder:
        journal = JournalFile(folder / "journal.db")
        for number in range(3):
            asked = task("a:v1", "b:v1", uid=f"uid-{number}")
            journal.accept(asked)
            journal.report(asked, check_report(extras=asked.extras), TaskState.PULLING)
        journal.close()
        return (folder / "journal.db").read_bytes()


@contextmanager
def _journal() -> Iterator[Feed]:
    """A damaged journal is moved aside, and the agent goes on: after it, the journal works."""
    with _folder() as folder:

        def feed(data: bytes) -> None:
            _emptied(folder)
            (folder / "journal.db").write_bytes(data)
            journal = JournalFile(folder / "journal.db")
            try:
                journal.get("uid-1")
                journal.pending_reports()
                journal.latest(10)
                asked = task("c:v1", uid="uid-9")
                journal.accept(asked)
                entry = journal.get("uid-9")
                assert entry is not None
                assert entry.task == asked
            finally:
                journal.close()

        yield feed


# --- The hub's databases ----------------------------------------------------------------------------------------------


def _database_sample(schema: Schema) -> bytes:
    import asyncio

    async def made(path: Path) -> None:
        await (await open_database(path, schema)).dispose()

    with _folder() as folder:
        asyncio.run(made(folder / "x.db"))
        return (folder / "x.db").read_bytes()


@asynccontextmanager
async def _queue() -> AsyncIterator[AsyncFeed]:
    with _folder() as folder:

        async def feed(data: bytes) -> None:
            _emptied(folder)
            (folder / "queue.db").write_bytes(data)
            queue = TaskQueue(engine=await open_database(folder / "queue.db", "queue"))
            try:
                await queue.unfinished()
                await queue.unpublished()
                await queue.names()
                await queue.late(1.0)
            finally:
                await queue.close()

        yield feed


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
    with _folder() as folder:
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
    with _folder() as folder:

        def feed(data: bytes) -> None:
            (folder / "status.json").write_bytes(data)
            assert isinstance(read_status(folder), dict)

        yield feed


TARGETS: Final = (
    Target(
        name="journal", open=_journal, samples=(_journal_sample(),), errors=(JournalError,), documents=False, cost=5
    ),
    Target(
        name="queue.db", open=in_a_loop(_queue), samples=(_database_sample("queue"),), errors=(StoreError,),
        documents=False, cost=20,
    ),
    Target(name="image-layout", open=_layout, samples=(_INDEX, _IMAGE.content), errors=(ImageRuntimeError,), cost=2),
    Target(name="status.json", open=_status, samples=(dump({"pid": 1, "version": "0.1.0"}),), errors=(StatusError,)),
)  # fmt: skip
