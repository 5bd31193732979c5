"""The journal on real SQLite files: what it keeps, what it forgets, and what a broken disk does to it."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgehub.tasks.journal import KEEP_FINISHED, KEEP_SECONDS, Journal, JournalError, JournalFile
from edgehub.tasks.model import TaskState, check_report, pull_report
from shared.wire import Credential
from tests.unit.edgehub.scripted import dispatch, full_disk, task


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "journal.db"


@pytest.fixture
def journal(path: Path, clock: Clock) -> Iterator[JournalFile]:
    journal = JournalFile(path, now=clock)
    yield journal
    journal.close()


def _reopened(path: Path, clock: Clock) -> JournalFile:
    return JournalFile(path, now=clock)


def test_an_accepted_task_is_there_after_a_restart(journal: JournalFile, path: Path, clock: Clock) -> None:
    asked = task("a", "b", retries=2, checks=("disk",))
    journal.accept(asked)
    journal.close()
    again = _reopened(path, clock)
    entry = again.get("uid-1")
    again.close()
    assert entry is not None
    assert (entry.task, entry.state, entry.final) == (asked, TaskState.ACCEPTED, None)


def test_a_result_and_its_report_are_one_commit(journal: JournalFile, path: Path, clock: Clock) -> None:
    asked = task("a")
    journal.accept(asked)
    checked = check_report(extras=asked.extras)
    pulled = pull_report(reasons={"a": "denied"}, extras=asked.extras)
    journal.report(asked, checked, TaskState.PULLING)
    journal.report(asked, pulled, TaskState.FINISHED)
    journal.close()
    again = _reopened(path, clock)
    entry, pending = again.get("uid-1"), again.pending_reports()
    again.close()
    assert entry is not None
    assert (entry.state, entry.final) == (TaskState.FINISHED, pulled)
    assert [item.report for item in pending] == [checked, pulled]


def test_an_acknowledged_report_is_forgotten_and_the_result_is_not(journal: JournalFile) -> None:
    asked = task("a")
    journal.accept(asked)
    number = journal.report(asked, pull_report(reasons={"a": ""}, extras=asked.extras), TaskState.FINISHED)
    journal.forget_report(number)
    journal.forget_report(number)
    entry = journal.get("uid-1")
    assert journal.pending_reports() == []
    assert entry is not None
    assert entry.final is not None


def test_a_newer_attempt_takes_the_place_of_the_older_and_of_its_reports(journal: JournalFile) -> None:
    first, second = task("a"), task("a", attempt=2)
    journal.accept(first)
    journal.report(first, pull_report(reasons={"a": "x"}, extras=first.extras), TaskState.FINISHED)
    journal.accept(second)
    entry = journal.get("uid-1")
    assert entry is not None
    assert (entry.task.attempt, entry.state) == (2, TaskState.ACCEPTED)
    assert journal.pending_reports() == []


def test_a_result_outlives_a_journal_that_was_lost_meanwhile(journal: JournalFile) -> None:
    asked = task("a")
    journal.report(asked, pull_report(reasons={"a": ""}, extras=asked.extras), TaskState.FINISHED)
    entry = journal.get("uid-1")
    assert entry is not None
    assert entry.state is TaskState.FINISHED


def test_a_cancelled_task_has_no_reports(journal: JournalFile) -> None:
    asked = task("a")
    journal.accept(asked)
    journal.report(asked, check_report(extras=asked.extras), TaskState.PULLING)
    journal.cancel("uid-1")
    entry = journal.get("uid-1")
    assert entry is not None
    assert entry.state is TaskState.CANCELLED
    assert journal.pending_reports() == []


def test_it_never_holds_a_credential(journal: JournalFile, path: Path) -> None:
    secret = Credential(registry="r", username="tiger-user", password="sesame-open")
    asked = task("r/a", credentials={"r/a": secret}, secret="default/my-secret")
    assert dispatch("r/a", credentials={"r/a": secret}).task is not None
    journal.accept(asked)
    journal.report(asked, pull_report(reasons={"r/a": ""}, extras=asked.extras), TaskState.FINISHED)
    held = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"default/my-secret" in held
    assert b"sesame-open" not in held
    assert b"tiger-user" not in held


def test_its_files_are_private(journal: JournalFile, path: Path) -> None:
    journal.accept(task("a"))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


def test_old_entries_go(journal: JournalFile, clock: Clock) -> None:
    journal.accept(task("a", uid="old"))
    clock.now += KEEP_SECONDS + 1
    journal.accept(task("a", uid="new"))
    assert journal.get("old") is None
    assert journal.get("new") is not None


def test_it_keeps_a_bounded_number_of_entries(
    journal: JournalFile, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KEEP_FINISHED == 1000
    monkeypatch.setattr("edgehub.tasks.journal.KEEP_FINISHED", 50)
    for number in range(70):
        clock.now += 1
        asked = task("a", uid=f"uid-{number}")
        journal.accept(asked)
    entries = journal.latest(10_000)
    assert len(entries) == 50
    assert entries[0].task.key == "uid-69"


@pytest.mark.parametrize("garbage", [b"no database at all" * 1000, b"SQLite format 3\0" + b"\xff" * 8192])
def test_a_corrupt_file_is_moved_aside_and_work_goes_on(path: Path, clock: Clock, garbage: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(garbage)
    journal = JournalFile(path, now=clock)
    journal.accept(task("a"))
    assert journal.get("uid-1") is not None
    journal.close()
    assert path.with_name("journal.db.corrupt").read_bytes() == garbage


def test_corruption_in_the_middle_of_work_is_survived_too(path: Path, clock: Clock) -> None:
    journal = JournalFile(path, now=clock)
    for number in range(50):
        journal.accept(task("a" * 500, uid=f"uid-{number}"))
    journal.close()
    data = bytearray(path.read_bytes())
    data[4096:-4096] = b"\xee" * (len(data) - 8192)
    path.write_bytes(bytes(data))
    journal = JournalFile(path, now=clock)
    journal.accept(task("a", uid="after"))
    assert journal.get("after") is not None
    journal.close()
    assert path.with_name("journal.db.corrupt").exists()


def test_an_entry_that_cannot_be_read_counts_as_corruption(journal: JournalFile, path: Path) -> None:
    journal.accept(task("a"))
    journal.close()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE tasks SET template = '{}'")
    database.close()
    assert journal.get("uid-1") is None
    assert path.with_name("journal.db.corrupt").exists()


def test_a_journal_of_a_newer_agent_is_moved_aside(journal: JournalFile, path: Path) -> None:
    journal.accept(task("a"))
    journal.close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    assert journal.get("uid-1") is None
    assert path.with_name("journal.db.corrupt").exists()


def _fill(journal: JournalFile) -> None:
    for number in range(200):
        journal.accept(task("x" * 1000, uid=f"uid-{number}"))


def test_a_full_disk_is_an_error_and_heals(journal: JournalFile) -> None:
    journal.accept(task("a", uid="before"))
    with full_disk(), pytest.raises(JournalError, match="cannot be used"):
        _fill(journal)
    journal.accept(task("a", uid="after"))
    assert journal.get("after") is not None
    assert journal.get("before") is not None


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(JournalError, match="cannot be used"):
        JournalFile(tmp_path / "data" / "journal.db").accept(task("a"))


async def test_the_event_loops_journal_does_the_same_in_its_thread(path: Path) -> None:
    journal = Journal(path)
    asked = task("a")
    await journal.accept(asked)
    await journal.report(asked, pull_report(reasons={"a": ""}, extras=asked.extras), TaskState.FINISHED)
    assert [item.task for item in await journal.pending_reports()] == [asked]
    assert [entry.state for entry in await journal.latest(5)] == [TaskState.FINISHED]
    await journal.close()


def test_a_corrupt_file_that_cannot_be_moved_aside_is_a_journal_error(path: Path, clock: Clock) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 1000)
    (path.parent / "journal.db.corrupt" / "in the way").mkdir(parents=True)
    journal = JournalFile(path, now=clock)
    with pytest.raises(JournalError, match="is damaged and cannot be moved aside: Is a directory"):
        journal.accept(task("a"))
    journal.close()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param("UPDATE tasks SET job = CAST(x'ff62' AS TEXT)", id="in a value"),
        pytest.param(
            "UPDATE sqlite_master SET sql = CAST(replace(CAST(sql AS BLOB), 'NULL,', x'4e554c4cff2c') AS TEXT)",
            id="in the schema",
        ),
        pytest.param(
            "UPDATE sqlite_master SET sql = CAST(replace(CAST(sql AS BLOB), 'attempt', x'617474656dff74') AS TEXT)",
            id="in a column's name",
        ),
    ],
)
def test_letters_that_are_none_are_damage(path: Path, clock: Clock, spoil: str) -> None:
    journal = JournalFile(path, now=clock)
    journal.accept(task("a"))
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute(spoil)
        database.commit()
    journal = JournalFile(path, now=clock)
    assert journal.latest(10) == []
    journal.accept(task("a"))
    assert len(journal.latest(10)) == 1
    journal.close()
    assert (path.parent / "journal.db.corrupt").exists()


def test_a_clock_that_jumps_forgets_nothing_that_the_hub_has_not_got(journal: JournalFile, clock: Clock) -> None:
    clock.now = 0.0  # no battery
    for uid in ("told", "untold"):
        journal.accept(task("a", uid=uid))
        journal.report(task("a", uid=uid), pull_report(reasons={"a": ""}, extras=None), TaskState.FINISHED)
    journal.forget_report(1)
    clock.now = 60 * 365 * 86_400.0
    journal.accept(task("a", uid="new"))
    assert [stored.task.key for stored in journal.pending_reports()] == ["untold"]
    assert journal.get("told") is None


def test_entries_from_a_future_that_was_wrong_do_not_push_the_new_ones_out(
    journal: JournalFile, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgehub.tasks.journal.KEEP_FINISHED", 3)
    clock.now *= 1000
    for number in range(3):
        journal.accept(task("a", uid=f"future-{number}"))
    clock.now /= 1000
    journal.accept(task("a", uid="now"))
    assert journal.get("now") is not None
    assert journal.get("future-0") is None


def test_a_file_of_the_first_version_is_taken_over_with_what_it_holds(path: Path, clock: Clock) -> None:
    asked = task("a", uid=None)
    journal = JournalFile(path, now=clock)
    journal.accept(asked)
    report_id = journal.report(asked, pull_report(reasons={"a": ""}, extras=None), TaskState.FINISHED)
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE tasks DROP COLUMN dialect")
        database.execute("PRAGMA user_version = 1")
    again = _reopened(path, clock)
    (stored,) = again.pending_reports()
    again.close()
    assert (stored.id, stored.task) == (report_id, asked)
    assert not list(path.parent.glob("*.corrupt"))


@pytest.mark.parametrize("word", ["accepted", "changed_at REAL", "attempt INTEGER", "template TEXT", "dialect TEXT"])
def test_a_schema_with_a_flipped_bit_is_moved_aside(journal: JournalFile, path: Path, clock: Clock, word: str) -> None:
    journal.accept(task("a"))
    journal.close()
    data = bytearray(path.read_bytes())
    data[data.find(word.encode()) + 1] ^= 1
    path.write_bytes(data)
    again = _reopened(path, clock)
    again.get("uid-1")
    asked = task("b", uid="uid-2")
    again.accept(asked)
    entry = again.get("uid-2")
    again.close()
    assert entry is not None
    assert entry.task == asked
    assert path.with_name("journal.db.corrupt").exists()
