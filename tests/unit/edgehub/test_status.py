"""The status file, the lock beside it, and what is printed of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgehub.show import size_text, status_text
from edgehub.status import FolderLock, StatusError, StatusWriter, agent_runs, read_status
from shared.files import remove_leftovers, write_atomically
from tests.unit.edgehub.scripted import until


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[Path]:
    lock = FolderLock(tmp_path)
    await lock.acquire()
    yield tmp_path
    lock.release()


async def test_the_lock_tells_whether_an_agent_runs(tmp_path: Path) -> None:
    assert not agent_runs(tmp_path)
    lock = FolderLock(tmp_path)
    await lock.acquire()
    assert agent_runs(tmp_path)
    lock.release()
    assert not agent_runs(tmp_path)


async def test_a_second_agent_is_refused(locked: Path) -> None:
    with pytest.raises(StatusError, match="another edgehub runs on the data folder"):
        await FolderLock(locked).acquire()


async def test_a_reader_does_not_keep_an_agent_from_starting(tmp_path: Path) -> None:
    (tmp_path / "edgehub.lock").touch()
    import fcntl

    reader = os.open(tmp_path / "edgehub.lock", os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    lock = FolderLock(tmp_path)
    acquiring = asyncio.create_task(lock.acquire())
    await asyncio.sleep(0)
    os.close(reader)
    await acquiring
    lock.release()


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StatusError, match=r"the data folder .*/file/data cannot be used: Not a directory"):
        await FolderLock(tmp_path / "file" / "data").acquire()


async def test_it_is_written_when_something_changed_and_not_more_often_than_allowed(tmp_path: Path) -> None:
    written: list[int] = []
    slept: list[float] = []
    go_on = asyncio.Event()

    def snapshot() -> dict[str, Any]:
        written.append(len(written))
        return {"node": "n", "number": len(written)}

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        go_on.clear()
        await go_on.wait()

    writer = StatusWriter(folder=tmp_path, snapshot=snapshot, sleep=sleep)
    running = asyncio.create_task(writer.run())
    await until(lambda: len(slept) == 1)
    for _ in range(100):
        writer.changed()
    assert len(written) == 1
    go_on.set()
    await until(lambda: len(slept) == 2)
    assert len(written) == 2
    go_on.set()
    await asyncio.sleep(0.02)
    assert len(written) == 2  # nothing changed
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    document = read_status(tmp_path)
    assert document == {"node": "n", "number": 3, "running": False}
    assert stat.S_IMODE((tmp_path / "status.json").stat().st_mode) == 0o600


async def test_a_status_that_cannot_be_written_does_not_end_the_agent(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    writer = StatusWriter(folder=folder, snapshot=lambda: {"node": "n"}, sleep=lambda _: asyncio.sleep(0))
    (folder / "status.json").mkdir()
    running = asyncio.create_task(writer.run())
    for _ in range(3):
        writer.changed()
        await asyncio.sleep(0.01)
    (folder / "status.json").rmdir()
    writer.changed()
    await until(lambda: (folder / "status.json").exists())
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def test_what_is_no_status_is_said_to_be_none(tmp_path: Path) -> None:
    assert read_status(tmp_path) == {"running": False}
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(StatusError, match="no status of an agent"):
        read_status(tmp_path)


DOCUMENT: dict[str, Any] = {
    "node": "edge-1",
    "version": "0.1.0",
    "pid": 7,
    "running": True,
    "startedAt": "2026-01-01T00:00:00Z",
    "updatedAt": "2026-01-01T01:00:00Z",
    "connection": {
        "connected": False,
        "server": "hub:10000",
        "since": "2026-01-01T00:00:00Z",
        "features": [],
        "failures": 3,
        "lastError": "cannot connect: Connection refused",
    },
    "certificate": {"notAfter": "2027-01-01T00:00:00Z", "renewAt": None},
    "runtime": {"endpoint": "unix:///x", "name": None, "version": None, "error": "containerd does not answer"},
    "unacknowledgedReports": 2,
    "tasks": [],
    "finished": [{"time": "2026-01-01T00:30:00Z", "job": "j", "state": "Failed", "reason": "disk: full"}],
}


def test_what_is_wrong_is_shown() -> None:
    text = status_text(DOCUMENT, Path("/d"))
    assert "hub          not connected to hub:10000, 3 attempts failed: cannot connect: Connection refused" in text
    assert "runtime      unix:///x: containerd does not answer" in text
    assert "2 reports on their way" in text
    assert "2026-01-01T00:30:00Z j Failed: disk: full" in text


def test_an_agent_that_does_not_run_shows_what_it_last_did() -> None:
    text = status_text({**DOCUMENT, "running": False}, Path("/d"))
    assert "agent        not running (last seen 2026-01-01T01:00:00Z)" in text
    assert "not connected" not in text
    assert "j Failed" in text


def test_sizes_are_readable() -> None:
    assert [size_text(size) for size in (0, 1023, 2048, 5 << 20, 3 << 30, 5 << 40)] == [
        "0 B",
        "1023 B",
        "2.0 KiB",
        "5.0 MiB",
        "3.0 GiB",
        "5.0 TiB",
    ]


def test_an_atomic_write_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old", mode=0o644)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    left, fresh, other = (tmp_path / name for name in (f".status.json.{'0' * 16}", f".status.json.{'1' * 16}", ".x"))
    for path in (status, left, fresh, other):
        path.write_text("")
    for path in (status, left, other):
        os.utime(path, (1, 1))
    remove_leftovers(status, tmp_path / "no such folder" / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(p.name for p in (status, fresh, other))


@pytest.mark.parametrize("content", [b"", b"null", b"[1]", b'"x"', b"[" * 100_000, b"\xff", b'{"pid": 1'])
def test_a_status_file_that_is_none_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "status.json").write_bytes(content)
    with pytest.raises(StatusError, match="is no status of an agent"):
        read_status(tmp_path)
