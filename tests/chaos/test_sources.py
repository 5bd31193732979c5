"""What the observer reads of agents and nodes: it believes the bytes on the disk, and nothing that is not whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from edgehub.tasks.journal import JournalFile
from edgehub.tasks.model import TaskState, pull_report, task_of
from shared.wire import Dispatch, Operation, PullTemplate, TaskExtras
from tests.chaos.agents import acknowledged, asked_for, held_images, journal_deeds, unacknowledged
from tests.chaos.apiproxy import is_before
from tests.chaos.edges import DeedLog, count_asked, read_deeds
from tests.chaos.image import failure_of, image, seconds_of
from tests.chaos.store import known_tasks
from tests.chaos.world import FleetProcess, Plan, World
from tests.parts.images import write_layout


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "store", tag="app:v1", layers=(2000, 1000)).path


def blobs(store: Path) -> list[Path]:
    return sorted((store / "blobs" / "sha256").iterdir())


def test_an_image_is_held_when_every_byte_of_it_is_there(store: Path, tmp_path: Path) -> None:
    assert held_images(store) == {"app:v1"}
    assert held_images(tmp_path / "none") == frozenset()


@pytest.mark.parametrize("number", range(4))
def test_a_blob_that_is_missing_short_or_altered_spoils_it(store: Path, number: int) -> None:
    blob = blobs(store)[number]
    content = blob.read_bytes()
    for spoilt in (content[:-1], bytes([content[0] ^ 1]) + content[1:], content + b"\n"):
        blob.write_bytes(spoilt)
        assert held_images(store) == frozenset()
    blob.unlink()
    assert held_images(store) == frozenset()
    blob.write_bytes(content)
    assert held_images(store) == {"app:v1"}


def test_of_a_journal_what_has_ended_counts(tmp_path: Path) -> None:
    journal = JournalFile(tmp_path / "journal.db", now=lambda: 7.0)
    for number, reason in enumerate(("", "no such image", None)):
        template = PullTemplate(images=["app:v1"])
        extras = TaskExtras(job_uid=f"uid-{number}", attempt=1, timeout_seconds=60)
        dispatch = Dispatch(imagePrePullTemplate=template, task=extras)
        task = task_of(job=f"job-{number}", node="n-1", operation=Operation.CHECK, dispatch=dispatch)
        journal.accept(task)
        if reason is not None:
            journal.report(task, pull_report(reasons={"app:v1": reason}, extras=task.extras), TaskState.FINISHED)
    path = tmp_path / "journal.db"
    found = list(journal_deeds(path, "n-1"))
    assert asked_for(path) == {"uid-0", "uid-1", "uid-2"}
    assert (acknowledged(path), unacknowledged(path)) == (frozenset(), 2)
    journal.forget_report(journal.pending_reports()[0].id)
    assert (acknowledged(path), unacknowledged(path)) == (frozenset({"uid-0"}), 1)
    journal.close()
    assert [(deed.kind, deed.job, deed.uid, deed.at) for deed in found] == [
        ("finished", "job-0", "uid-0", 7.0),
        ("failed", "job-1", "uid-1", 7.0),
    ]
    assert "no such image" in found[1].reason


def write_store(path: Path, *tasks: tuple[str, str, int, str]) -> None:
    """``tasks``: uid, node, attempt, state."""
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE node_tasks (job_uid TEXT, node TEXT, attempt INTEGER, state TEXT)")
        db.executemany("INSERT INTO node_tasks VALUES (?, ?, ?, ?)", tasks)
        db.commit()


def test_of_a_store_each_task_is_known_as_asked_or_ended(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    assert known_tasks(path) == {}
    path.touch()
    assert known_tasks(path) == {}, "it has no tables yet"
    states = {"Pending": 0, "Waiting": 1, "Pulling": 1, "Successful": 1, "Failed": 2, "NotStarted": 0}
    write_store(path, *(("uid", state, attempt, state) for state, attempt in states.items()))
    found = known_tasks(path)["uid"]
    assert {node for node, known in found.items() if known.asked} == {"Waiting", "Pulling", "Successful", "Failed"}
    assert {node for node, known in found.items() if known.ended} == {"Successful", "Failed", "NotStarted"}


def a_world(folder: Path) -> World:
    """With a fleet that nobody runs, and a store."""
    world = World(Plan(), folder)
    (folder / "fleet").mkdir()
    world.fleets.append(FleetProcess(folder / "fleet", "s0-", 1))
    write_store(world.store, ("uid", "s0-0", 0, "Pending"), ("uid", "s0-1", 1, "Pulling"), ("uid", "s0-2", 1, "Failed"))
    return world


def test_what_nodes_were_told_is_looked_for_in_the_store(tmp_path: Path) -> None:
    world = a_world(tmp_path)
    log = DeedLog(world.fleets[0].log)
    for node in ("s0-1", "s0-2"):
        log.write("asked", node, job="job", uid="uid")
    log.write("acked", "s0-2", job="job", uid="uid")
    # Its rows are gone, so it was deleted.
    log.write("asked", "s0-1", job="job", uid="another-uid")
    log.write("acked", "s0-1", job="job", uid="another-uid")
    # A stock node is told no uid.
    log.write("asked", "s0-0", job="job", uid="")
    world.look_at_promises()
    assert world.problems == []
    log.write("asked", "s0-0", job="job", uid="uid")
    log.write("acked", "s0-1", job="job", uid="uid")
    world.look_at_promises()
    assert world.problems == [
        "1 nodes were asked, s0-0 first, and the store knows nothing of it",
        "1 nodes were told that their end is stored, s0-1 first, and it is not in the store",
    ]


def test_what_was_compacted_is_gone_for_watches_that_name_it() -> None:
    def watch(query: str) -> bool:
        return is_before(make_mocked_request("GET", f"/apis/jobs?watch=true{query}"), 100)

    assert watch("&resourceVersion=99")
    assert not any(watch(query) for query in ("&resourceVersion=100", "&resourceVersion=0", "&resourceVersion=x", ""))


def test_a_node_that_has_ended_waits_for_its_acknowledgement(tmp_path: Path) -> None:
    world = a_world(tmp_path)
    log = DeedLog(world.fleets[0].log)
    log.write("finished", "s0-1", job="job", uid="uid")
    log.write("failed", "s0-2", job="job", uid="uid", reason="layer is unreadable")
    log.write("finished", "s0-3", job="job", uid="")
    assert world.unacknowledged() == {"s0-1": 1, "s0-2": 1}
    for node in ("s0-1", "s0-2"):
        log.write("acked", node, job="job", uid="uid")
    assert world.unacknowledged() == {}


def test_a_deed_counts_when_its_line_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deeds.jsonl"
    assert list(read_deeds(path)) == []
    log = DeedLog(path)
    log.write("asked", "n-1", job="job", uid="uid", images=["app:v1"])
    size = path.stat().st_size
    log.write("finished", "n-1", job="job", uid="uid", images=["app:v1"])
    assert [deed.kind for deed in read_deeds(path)] == ["asked", "finished"]
    assert [deed.kind for deed in read_deeds(path, size)] == ["finished"]
    assert (count_asked(path, 0), count_asked(path, size)) == (1, 0)
    path.write_bytes(path.read_bytes()[:-1])
    assert [deed.kind for deed in read_deeds(path)] == ["asked"]


def test_an_images_name_says_how_its_pull_goes() -> None:
    good, bad = image("a", seconds=0.3), image("a", failing=2)
    assert (seconds_of(good), seconds_of("registry.example/other:v1")) == (0.3, 0.25)
    nodes = [f"n-{number}" for number in range(100)]
    assert not any(failure_of(good, node) for node in nodes)
    assert 30 < sum(failure_of(bad, node) != "" for node in nodes) < 70
