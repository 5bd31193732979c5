"""The hub's store, read as a stranger would: the file, for reading only, with SQL of our own."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos.evidence import FINAL_STATES, Row


@dataclass(frozen=True, slots=True)
class Known:
    """What the store knows of a node task, in short."""

    asked: bool
    ended: bool


NOTHING: Final = Known(asked=False, ended=False)


def known_tasks(path: Path) -> dict[str, dict[str, Known]]:
    """By uid and node, of all jobs that the store has."""
    found: dict[str, dict[str, Known]] = {}
    if not path.exists():
        return found
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'node_tasks'").fetchone() is None:
            # It was just about to be made.
            return found
        for uid, node, attempt, state in db.execute("SELECT job_uid, node, attempt, state FROM node_tasks"):
            found.setdefault(uid, {})[node] = Known(asked=attempt > 0, ended=state in FINAL_STATES)
    return found


def rows_of(path: Path, uids: Collection[str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {uid: [] for uid in uids}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        for uid in uids:
            query = "SELECT node, state, attempt, event, reason, changed_at, images FROM node_tasks WHERE job_uid = ?"
            for node, state, attempt, event, reason, changed_at, images in db.execute(query, (uid,)):
                results = tuple((image, ok, why) for image, ok, why in json.loads(images or "[]"))
                found[uid].append(Row(node, state, attempt, event or "", reason, changed_at, results))
    return found
