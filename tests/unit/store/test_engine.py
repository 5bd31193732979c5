"""Opening database files: what is refused is refused in clear words and left as it was."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, inspect, text
from sqlalchemy.schema import CheckConstraint, Table

from cloudhub.store import engine as engine_module
from cloudhub.store.engine import Schema, metadata_of, open_database
from cloudhub.store.errors import (
    CorruptDatabase,
    DatabaseInUse,
    ForeignDatabase,
    NewerSchema,
    ReadOnlyDatabase,
    StoreError,
)


def _digests(folder: Path) -> dict[str, str]:
    """Every file of the folder and its content, but for what SQLite makes to read a database in WAL mode."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if not file.name.endswith(("-shm", "-wal"))
    }


@pytest.mark.parametrize("schema", ["queue", "objects", "revocations"])
async def test_a_new_database_has_exactly_the_tables_of_the_metadata(tmp_path: Path, schema: Schema) -> None:
    engine = await open_database(tmp_path / "new.db", schema)

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata_of(schema)))

    def checks(connection: Connection) -> dict[str, set[tuple[str | None, str]]]:
        inspector = inspect(connection)
        return {
            name: {(check["name"], _words(check["sqltext"])) for check in inspector.get_check_constraints(name)}
            for name in metadata_of(schema).tables
        }

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        # Alembic compares no CHECK constraints.
        assert await connection.run_sync(checks) == {
            name: _declared_checks(table) for name, table in metadata_of(schema).tables.items()
        }
    await engine.dispose()


def _declared_checks(table: Table) -> set[tuple[str | None, str]]:
    return {
        (str(constraint.name), _words(str(constraint.sqltext)))
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }


def _words(sql: str) -> str:
    return " ".join(sql.split())


async def test_a_commit_is_made_to_last_and_foreign_keys_hold(tmp_path: Path) -> None:
    engine = await open_database(tmp_path / "queue.db", "queue")
    async with engine.connect() as connection:
        found = {
            pragma: (await connection.exec_driver_sql(f"PRAGMA {pragma}")).scalar_one()
            for pragma in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    await engine.dispose()
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10000}


async def test_the_file_is_its_owners_alone_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "queue.db"
    engine = await open_database(path, "queue")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    await engine.dispose()
    assert set(modes) >= {"queue.db", "queue.db.lock"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["a b%20c", "%(here)s", "q?mode=ro#x", "ü:1;2,3"])
async def test_any_folder_name_works(tmp_path: Path, name: str) -> None:
    for _ in range(2):
        engine = await open_database(tmp_path / name / "queue.db", "queue")
        await engine.dispose()
    assert (tmp_path / name / "queue.db").stat().st_size > 0


async def test_what_was_committed_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    engine = await open_database(path, "objects")
    async with engine.execution_options(sqlite_begin="IMMEDIATE").begin() as connection:
        await connection.execute(text("UPDATE revisions SET last = 7"))
    await engine.dispose()
    engine = await open_database(path, "objects")
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT last FROM revisions"))).scalar_one() == 7
    await engine.dispose()


async def test_a_transaction_rolls_back_tables_as_well_as_rows(tmp_path: Path) -> None:
    engine = await open_database(tmp_path / "queue.db", "queue")
    async with engine.connect() as connection:
        await connection.execute(text("CREATE TABLE half_a_migration (x)"))
        await connection.rollback()
        names = await connection.run_sync(lambda found: inspect(found).get_table_names())
    await engine.dispose()
    assert "half_a_migration" not in names


async def test_a_failing_migration_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "migrations"
    (folder / "queue" / "versions").mkdir(parents=True)
    source = Path(engine_module.__file__).parent / "migrations"
    (folder / "env.py").write_text((source / "env.py").read_text())
    for number, body in (("0001", "op.execute('CREATE TABLE one (x)')"), ("0002", "op.execute('CREATE TABEL two')")):
        before = "None" if number == "0001" else "'0001'"
        (folder / "queue" / "versions" / f"{number}.py").write_text(
            f"from alembic import op\nrevision = '{number}'\ndown_revision = {before}\ndef upgrade():\n    {body}\n"
        )
    monkeypatch.setattr(engine_module, "_MIGRATIONS", folder)
    path = tmp_path / "data" / "queue.db"
    with pytest.raises(StoreError, match=r"queue.db cannot be opened: .*TABEL"):
        await open_database(path, "queue")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()


async def test_a_newer_schema_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    await (await open_database(path, "queue")).dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9042'")
    connection.close()
    before = _digests(tmp_path)
    with pytest.raises(NewerSchema, match=r"queue\.db has schema revision 9042, .* newer"):
        await open_database(path, "queue")
    assert _digests(tmp_path) == before


async def test_a_database_of_another_program_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    connection.close()
    before = _digests(tmp_path)
    with pytest.raises(ForeignDatabase, match="another program"):
        await open_database(path, "queue")
    assert _digests(tmp_path) == before


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda data: b"not a database at all, but long enough" * 100, id="text"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut"),
        pytest.param(lambda data: data[:4096] + b"\xff" * 8192 + data[12288:], id="pages overwritten"),
    ],
)
async def test_a_damaged_file_is_refused_and_nothing_is_changed(tmp_path: Path, spoil: object) -> None:
    path = tmp_path / "queue.db"
    await (await open_database(path, "queue")).dispose()
    assert callable(spoil)
    path.write_bytes(spoil(path.read_bytes()))
    before = _digests(tmp_path)
    with pytest.raises(CorruptDatabase, match=r"queue\.db is damaged"):
        await open_database(path, "queue")
    assert _digests(tmp_path) == before


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(0, 60_000), junk=st.binary(min_size=1, max_size=64))
async def test_any_bytes_in_the_file_are_opened_or_refused_in_words(tmp_path: Path, offset: int, junk: bytes) -> None:
    path = tmp_path / "fuzz" / "queue.db"
    if not path.exists():
        await (await open_database(path, "queue")).dispose()
        (tmp_path / "sound").write_bytes(path.read_bytes())
    data = bytearray((tmp_path / "sound").read_bytes())
    offset %= len(data)
    data[offset : offset + len(junk)] = junk
    for leftover in path.parent.iterdir():
        leftover.unlink()
    path.write_bytes(data)
    try:
        engine = await open_database(path, "queue")
    except StoreError as error:
        refusal: StoreError | None = error
    else:
        refusal = None
        await engine.dispose()
    assert refusal is None or str(path) in str(refusal)


_OPEN_AS_ANOTHER_USER = """
import asyncio, os, sys
from pathlib import Path
from cloudhub.store.engine import open_database
from cloudhub.store.errors import ReadOnlyDatabase

async def main():
    # Everything is imported before the user is changed: the new one may not be allowed to read this program.
    await (await open_database(Path(sys.argv[2]), "queue")).dispose()
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    try:
        await open_database(Path(sys.argv[1]), "queue")
    except ReadOnlyDatabase as error:
        print(error)

asyncio.run(main())
"""


def _open_as_another_user(path: Path, own: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", _OPEN_AS_ANOTHER_USER, str(path), str(own)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(engine_module.__file__).parents[2],
    ).stdout


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """pytest's own folders are closed to other users."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("what", ["folder", "file"])
async def test_what_cannot_be_written_is_refused_and_nothing_is_changed(open_folder: Path, what: str) -> None:
    path = open_folder / "data" / "queue.db"
    await (await open_database(path, "queue")).dispose()
    if what == "folder":
        path.parent.chmod(0o555)
    else:
        path.parent.chmod(0o777)
        path.chmod(0o444)
    before = _digests(path.parent)
    said = await asyncio.to_thread(_open_as_another_user, path, open_folder / "other" / "queue.db")
    assert "cannot be written" in said
    assert str(path if what == "file" else path.parent) in said
    assert _digests(path.parent) == before
    path.parent.chmod(0o755)


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReadOnlyDatabase, match="cannot be made"):
        await open_database(tmp_path / "file" / "queue.db", "queue")


async def test_a_folder_in_the_files_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "queue.db").mkdir()
    with pytest.raises(StoreError, match="no regular file"):
        await open_database(tmp_path / "queue.db", "queue")


async def test_one_owner_at_a_time_and_the_next_when_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    first = await open_database(path, "queue")
    with pytest.raises(DatabaseInUse, match="another process"):
        await open_database(path, "queue")
    await first.dispose()
    second = await open_database(path, "queue")
    await second.dispose()


async def test_a_refused_database_is_not_left_locked(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(CorruptDatabase):
        await open_database(path, "queue")
    os.unlink(path)
    await (await open_database(path, "queue")).dispose()
