"""Is the registry's password anywhere but where it must be? Asked after every end-to-end test.

Searched is all that the test's processes wrote: every file below the folders of hubs and agents (data, journals, image
stores, logs at debug level, tracebacks in them, status files, SQLite's -wal), the logs of containerd, and what kubectl
and the programs' commands printed. A password hides in other spellings; `spellings` are those that the parts use.

Where it may be, and nowhere else: in the Secret's own row of the embedded API server (`objects.db`, whose other rows
are read one by one; its bytes hold old Secrets too), and in what ``kubectl get secret`` prints to who asks for that.
Not searched: what a test put into a folder and removed again itself, and memory.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

OBJECTS: Final = "objects.db"
_CHUNK: Final = 1 << 20


def spellings(password: str) -> frozenset[bytes]:
    """Clear, in a URL, in JSON (twice over: JSON in JSON), in base64 wherever in a longer text it stands (so, behind
    ``user:``, and as a Secret's data), and base64 of that (``auth`` in a Secret's data)."""
    escaped = json.dumps(password)[1:-1]
    plain = {password, quote(password, safe=""), quote_plus(password), escaped, json.dumps(escaped)[1:-1]}
    found = {text.encode() for text in plain}
    for text in list(found):
        once = _base64_anywhere(text)
        found |= once
        for encoded in once:
            found |= _base64_anywhere(encoded)
    return frozenset(found)


def _base64_anywhere(text: bytes) -> set[bytes]:
    """The characters of base64 that are the same whatever stands around ``text``, for each of three alignments."""
    found = set()
    for before in range(3):
        data = b"\0" * before + text
        first = -(-before * 8 // 6)
        last = len(data) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(data)[first:last])
    return found


@dataclass
class Written:
    """What the processes of these tests wrote."""

    folders: set[Path] = field(default_factory=set)
    printed: list[tuple[str, bytes]] = field(default_factory=list)
    """What commands printed since the last search: the command, and its output."""
    _clean: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Files that were searched, and their size and time then."""

    def leaks(self, words: frozenset[bytes]) -> list[str]:
        """Where one of ``words`` stands and must not."""
        found = [
            f"printed by: {what}"
            for what, output in self.printed
            if not shows_a_secret(what) and any(word in output for word in words)
        ]
        self.printed.clear()
        for folder in self.folders:
            for path in _files(folder):
                found += self._leaks_in(path, words)
        return found

    def _leaks_in(self, path: Path, words: frozenset[bytes]) -> list[str]:
        try:
            if path.name.startswith(OBJECTS):
                return _rows_with(path, words) if path.name == OBJECTS else []
            about = path.stat()
            state = about.st_size, about.st_mtime_ns
            if self._clean.get(path) == state:
                return []
            if _has(path, words):
                return [str(path)]
        except FileNotFoundError:  # it is gone again: a lease, a blob on its way
            return []
        self._clean[path] = state
        return []


def shows_a_secret(command: str) -> bool:
    """``kubectl get secret ... -o yaml``, asked for by a test: it prints the Secret because that is what it is for."""
    words = command.split()
    return "get" in words and any(word.split("/")[0] in ("secret", "secrets") for word in words)


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _has(path: Path, words: frozenset[bytes]) -> bool:
    overlap = max(map(len, words))
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            window = tail + chunk
            if any(word in window for word in words):
                return True
            tail = window[-overlap:]
    return False


def _rows_with(path: Path, words: frozenset[bytes]) -> list[str]:
    """All objects but Secrets: jobs with their status, events, nodes, ConfigMaps."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        rows = database.execute("SELECT resource, namespace, name, body FROM objects WHERE resource <> 'secrets'")
        return [
            f"{path}: {resource} {namespace}/{name}"
            for resource, namespace, name, body in rows
            if any(word in bytes(body) for word in words)
        ]


WRITTEN: Final = Written()
"""Of the whole run: processes outlive tests."""
