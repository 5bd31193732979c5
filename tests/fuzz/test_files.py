"""Files of our own that a disk has spoiled: refused in words or put aside, never believed half, never a crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloudhub.store.engine import Schema, open_database
from cloudhub.store.errors import StoreError
from edgehub.runtime.base import ImageRuntimeError
from edgehub.runtime.oci.layout import Layout
from edgehub.runtime.oci.manifest import Descriptor, digest_of
from edgehub.runtime.oci.platforms import Platform
from edgehub.tasks.journal import JournalError, JournalFile
from edgehub.tasks.model import TaskState, check_report
from tests.fuzz.mutate import spoiled, texts_of
from tests.fuzz.runs import drawn, ran, slow_fuzzing
from tests.fuzz.targets import MANIFEST
from tests.unit.edgehub.scripted import task


@pytest.mark.parametrize("schema", ["queue", "objects"])
async def test_a_spoiled_database_is_opened_or_refused_by_name(tmp_path: Path, schema: Schema) -> None:
    sound = tmp_path / "sound" / "store.db"
    await (await open_database(sound, schema)).dispose()
    for number, data in enumerate(drawn(spoiled(sound.read_bytes()), slow_fuzzing)):
        path = tmp_path / str(number) / "store.db"
        path.parent.mkdir()
        path.write_bytes(data)
        said: str | None = None
        try:
            await (await open_database(path, schema)).dispose()
        except StoreError as error:
            said = str(error)
        if said is not None:
            assert str(path) in said
            assert path.read_bytes() == data, "a refused file was changed"
        ran(f"{schema}.db", refused=said is not None)


def test_a_spoiled_journal_is_read_or_put_aside(tmp_path: Path) -> None:
    sound = tmp_path / "journal.db"
    journal = JournalFile(sound)
    for number in range(5):
        done = task("a", uid=f"uid-{number}")
        journal.accept(done)
        journal.report(done, check_report(reason="no", extras=None), TaskState.FINISHED)
    journal.close()
    for number, data in enumerate(drawn(spoiled(sound.read_bytes()), slow_fuzzing)):
        path = tmp_path / str(number) / "journal.db"
        path.parent.mkdir()
        path.write_bytes(data)
        journal = JournalFile(path)
        refused = False
        try:
            journal.pending_reports()
            journal.latest(10)
            new = task("b", uid="uid-new")
            journal.accept(new)
            entry = journal.get(new.key)
            assert entry is not None
            assert entry.task == new
        except JournalError:
            refused = True
        journal.close()
        ran("journal", refused=refused or path.with_name("journal.db.corrupt").exists())


def test_a_spoiled_image_store_holds_the_image_or_says_that_it_does_not(tmp_path: Path) -> None:
    layout = Layout(tmp_path, platform=Platform(os="linux", architecture="amd64", variant=""))
    layout.prepare()
    manifest = json.dumps(MANIFEST).encode()
    top = Descriptor(mediaType=str(MANIFEST["mediaType"]), digest=digest_of(manifest), size=len(manifest))
    layout.put(top, manifest)
    layout.name_image("registry.example/app:v1", top)
    index = (tmp_path / "index.json").read_bytes()
    for data in [index, *drawn(spoiled(index), slow_fuzzing), *drawn(texts_of((json.loads(index),)), slow_fuzzing)]:
        (tmp_path / "index.json").write_bytes(data)
        said: str | None = None
        try:
            for name, found in layout.entries().items():
                # Its layers were never here.
                assert layout.find(name, found) is None
        except ImageRuntimeError as error:
            said = str(error)
        assert said is None or str(tmp_path) in said
        ran("image store", refused=said is not None)
    (tmp_path / "index.json").write_bytes(index)
    for data in drawn(spoiled(manifest), slow_fuzzing):
        layout.blob_path(top.digest).write_bytes(data)
        assert layout.find("registry.example/app:v1", top) is None
        ran("image store", refused=True)
