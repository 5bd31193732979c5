"""What a file holds is looked at before it is used: what SQLite's own check lets pass is refused in words."""

# ruff: noqa: S608 - the statements are ours
from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from cloudhub.store.engine import Schema, open_beside, open_database
from cloudhub.store.errors import CorruptDatabase, words_of
from cloudhub.store.objects import ObjectRow, ObjectStore
from cloudhub.store.revocations import RevocationStore
from cloudhub.taskmanager.lifecycle import TaskEvent
from cloudhub.taskmanager.spec import JobSpec
from tests.unit.store.factory import change, new_job, open_queue

SECRET = "S3cr3tM4rk3r"


_kept: dict[Schema, bytes] = {}


async def _made(path: Path, schema: Schema) -> None:
    """With rows in every table."""
    if schema not in _kept:
        await _fill(path, schema)
        await (await open_database(path, schema)).dispose()
        _kept[schema] = _read(path)
    _write(path, _kept[schema])


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


async def _fill(path: Path, schema: Schema) -> None:
    if schema == "queue":
        async with open_queue(path) as queue:
            await queue.admit(new_job())
            for event in (TaskEvent.DISPATCHED, TaskEvent.CHECK_SUCCEEDED):
                await queue.apply([change("n0", event, attempt=1)])
            pulled = change("n0", TaskEvent.PULL_SUCCEEDED, images=[("registry.example/a:v1", True, "")], attempt=1)
            await queue.apply([pulled])
    elif schema == "objects":
        store = ObjectStore(await open_database(path, "objects"))
        await store.write(revision=1, puts=[ObjectRow("secrets", "default", "s", 1, b'{"metadata":{}}')], deletes=[])
        await store.close()
    else:
        revocations = RevocationStore(await open_database(path, "revocations"))
        await revocations.revoke(["edge-1"], 1.0)
        await revocations.undo(["edge-1"], 2.0)
        assert await revocations.add_certificate("edge-1", number=2, serial=255, signed_at=3.0, expires_at=5e9)
        await revocations.close()


async def test_a_job_that_was_refused_has_neither_spec_nor_tasks_and_is_sound(tmp_path: Path) -> None:
    async with open_queue(tmp_path / "queue.db") as queue:
        await queue.admit(new_job(nodes=[], spec="", refusal="spec.images is missing"))
    async with open_queue(tmp_path / "queue.db") as queue:
        assert (await queue.job("u1")) is not None


@contextmanager
def _by_hand(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as database:
        for pragma in ("ignore_check_constraints = ON", "writable_schema = ON", "foreign_keys = OFF"):
            database.execute(f"PRAGMA {pragma}")
        yield database
        database.commit()


def _schema(right: str, wrong: str) -> str:
    right, wrong = (text.replace("'", "''") for text in (right, wrong))
    return f"UPDATE sqlite_master SET sql = replace(sql, '{right}', '{wrong}') WHERE type = 'table'"


@pytest.mark.parametrize(
    ("schema", "spoil", "words"),
    [
        ("queue", "UPDATE jobs SET spec = '{'", "column spec of jobs does not hold"),
        ("queue", "UPDATE jobs SET spec = '[]'", "column spec of jobs does not hold"),
        (
            "queue",
            f"UPDATE jobs SET name = CAST('{SECRET}' || x'ff' AS TEXT)",
            "table jobs holds a text that is no UTF-8",
        ),
        ("queue", "UPDATE jobs SET reason = x'00'", "column reason of jobs does not hold"),
        ("queue", "UPDATE jobs SET concurrency = 'many'", "column concurrency of jobs does not hold"),
        ("queue", "UPDATE jobs SET failure_tolerate = '0.1.1'", "column failure_tolerate of jobs does not hold"),
        ("queue", "UPDATE jobs SET failure_tolerate = 'half'", "column failure_tolerate of jobs does not hold"),
        ("queue", "UPDATE jobs SET failure_tolerate = ''", "column failure_tolerate of jobs does not hold"),
        ("queue", "UPDATE jobs SET created_at = 1e300", "column created_at of jobs does not hold"),
        ("queue", "UPDATE jobs SET stopped = 7", "column stopped of jobs does not hold"),
        ("queue", "UPDATE jobs SET state = 'Lost'", "constraint ck_jobs_state of jobs does not hold"),
        ("queue", "UPDATE jobs SET pending = pending - 1, waiting = 1", "a job's counts are not those of its tasks"),
        ("queue", "DELETE FROM node_tasks WHERE node = 'n2'", "a job's counts are not those of its tasks"),
        ("queue", "DELETE FROM jobs", "a row of node_tasks belongs to none that is there"),
        ("queue", "UPDATE node_tasks SET images = '[[\"a\", true]]'", "column images of node_tasks does not hold"),
        ("queue", "UPDATE node_tasks SET images = '{}'", "column images of node_tasks does not hold"),
        ("queue", "ALTER TABLE node_tasks RENAME COLUMN images TO imagef", "table node_tasks lacks column images"),
        (
            "queue",
            _schema("'Failure'", "'Failuse'"),
            "constraint ck_jobs_action of jobs is another than this program made",
        ),
        ("queue", _schema("CASCADE", "RESTRICT"), "a foreign key of node_tasks is another than this program made"),
        (
            "queue",
            _schema("reason TEXT DEFAULT '' NOT NULL", "reason TEXT DEFAULT ''"),
            "column reason of jobs is another",
        ),
        ("queue", "DROP TABLE node_tasks", "table node_tasks lacks column job_uid"),
        ("objects", f"UPDATE objects SET body = CAST('{SECRET}{{' AS BLOB)", "column body of objects does not hold"),
        ("objects", "UPDATE revisions SET last = 0", "an object is of a later revision than was given"),
        ("objects", "UPDATE objects SET body = '{}'", "column body of objects does not hold"),
        ("revocations", "UPDATE certificates SET serial = 'xyz'", "column serial of certificates does not hold"),
        ("revocations", "UPDATE revocations SET number = 0", "constraint ck_revocations_applied of revocations"),
    ],
)
async def test_what_cannot_be_there_is_told_by_its_place(
    tmp_path: Path, schema: Schema, spoil: str, words: str
) -> None:
    path = tmp_path / "x.db"
    await _made(path, schema)
    with _by_hand(path) as database:
        database.execute(spoil)
    before = _read(path)
    for refused in (open_database, open_beside):
        with pytest.raises(CorruptDatabase, match=r"x\.db is damaged \(.*\); restore it or move it away") as told:
            await refused(path, schema)
        assert words in str(told.value)
        assert SECRET not in str(told.value)
    assert _read(path) == before


async def test_of_a_damaged_schema_not_all_is_repeated(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    await _made(path, "queue")
    with _by_hand(path) as database:
        database.execute(_schema("created_at DOUBLE", '"reated_at DOUBLE'))
    with pytest.raises(CorruptDatabase, match="malformed database schema") as told:
        await open_database(path, "queue")
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 350 + len(str(path))


async def test_the_revision_of_the_objects_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    await _made(path, "objects")
    with _by_hand(path) as database:
        database.execute("DELETE FROM revisions")
    store = ObjectStore(await open_database(path, "objects"))
    with pytest.raises(CorruptDatabase, match="has lost its revision"):
        await store.load()
    await store.close()


@pytest.mark.parametrize("text", ["{}", "[]", '{"label_selector": 1, "image_secrets": null}', "[" * 100_000])
def test_a_spec_of_another_shape_is_damage(text: str) -> None:
    with pytest.raises(CorruptDatabase, match=r"spec in queue\.db is not of the shape"):
        JobSpec.from_json(text)


def test_a_text_that_cannot_be_read_is_not_repeated(tmp_path: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as database, pytest.raises(sqlite3.OperationalError) as told:
        database.execute(f"SELECT CAST('{SECRET}' || x'ff' AS TEXT)").fetchone()
    assert SECRET in str(told.value)
    wrapped = OperationalError("SELECT", {}, told.value)
    assert words_of(wrapped) == words_of(told.value) == "a text in it is no UTF-8"
