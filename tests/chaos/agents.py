"""What real agents did, read from their disks and not from their mouths.

The journal is opened for reading only. An image counts as held when `index.json` names it and every blob of it has the
digest that it is named by: the bytes are hashed here, with none of the agent's code.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.chaos.evidence import Deed

_NAME = "org.opencontainers.image.ref.name"


def journal_deeds(path: Path, node: str) -> Iterator[Deed]:
    """What the journal says has ended."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        rows = db.execute("SELECT job, job_uid, final, changed_at FROM tasks WHERE state = 'finished'").fetchall()
    for job, uid, final, changed_at in rows:
        report = json.loads(final)
        kind = "finished" if report["succ"] and report["action"] == "Pull" else "failed"
        reasons = [report.get("reason", ""), *(entry["reason"] for entry in json.loads(report.get("extend") or "[]"))]
        yield Deed(changed_at, node, kind, job, uid, reason=next(filter(None, reasons), ""))


def unacknowledged(path: Path) -> int:
    """Reports in the journal that wait for the hub."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        (count,) = db.execute("SELECT count(*) FROM reports").fetchone()
    return int(count)


def asked_for(path: Path) -> frozenset[str]:
    """The uids of the jobs that it was asked for."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        return frozenset(uid for (uid,) in db.execute("SELECT job_uid FROM tasks"))


def acknowledged(path: Path) -> frozenset[str]:
    """The uids of the jobs whose last report the hub has acknowledged: of those the journal keeps none to be sent."""
    query = "SELECT job_uid FROM tasks WHERE state = 'finished' AND key NOT IN (SELECT key FROM reports)"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        return frozenset(uid for (uid,) in db.execute(query))


def held_images(store: Path) -> frozenset[str]:
    """Of an OCI image layout: the names of images that are whole."""
    try:
        index = json.loads((store / "index.json").read_bytes())
    except FileNotFoundError:
        return frozenset()
    return frozenset(
        entry["annotations"][_NAME]
        for entry in index["manifests"]
        if _NAME in entry.get("annotations", {}) and _whole(store, entry)
    )


def _whole(store: Path, descriptor: dict[str, Any]) -> bool:
    algorithm, _, encoded = descriptor["digest"].partition(":")
    path = store / "blobs" / algorithm / encoded
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    if hashlib.new(algorithm, content).hexdigest() != encoded or len(content) != descriptor["size"]:
        return False
    if not {"manifest", "index"} & set(re.split(r"[.+]", descriptor.get("mediaType", ""))):
        return True
    document = json.loads(content)
    if "manifests" in document:
        # Of an image for many platforms, this machine's alone is kept.
        return any(_whole(store, part) for part in document["manifests"])
    return all(_whole(store, part) for part in (document["config"], *document["layers"]))
