"""Is any secret anywhere but where it must be? Asked after every end-to-end test.

Searched is all that the test's processes wrote: every file below the folders of hubs and agents (data, journals, image
stores, logs at debug level, tracebacks in them, status files, SQLite's -wal), the logs of containerd, and what kubectl
and the programs' commands printed. What is secret, and in how many spellings, `tests.e2e.secretwords` learns by itself:
registries' passwords, ``auth`` and identity tokens, join tokens, the embedded API's token, private keys. Besides these,
whatever looks like a join token or a private key is a leak, whosever it is.

Where they may be, and nowhere else: in the Secret's own row of the embedded API server (`objects.db`, whose other rows
are read one by one; its bytes hold old Secrets too), in what ``kubectl get secret`` and ``cloudhub token`` print to who
asks for that, and keys and tokens, but no password, in the files that are made for them (`secretwords.is_home`).
Not searched: what a test put into a folder and removed again itself, and memory.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.e2e import secretwords
from tests.e2e.secretwords import Secret

OBJECTS: Final = "objects.db"
_CHUNK: Final = 1 << 20
_OVERLAP: Final = 4096
"""More than the longest word."""
_LOOKS_SECRET: Final = (("what looks like a join token", secretwords.JWT), ("a private key", secretwords.PEM_KEY))
_LONG: Final = 20
_LONG_RUN: Final = re.compile(rb"[\w+/=-]{%d,}" % _LONG)


class _Words:
    """All words of many secrets at once. Most are long and of few characters; what of a text could be one of those is
    a small part of it, so only that is searched for each of the hundreds."""

    def __init__(self) -> None:
        self._long: dict[bytes, str] = {}
        self._others: dict[bytes, str] = {}

    def __bool__(self) -> bool:
        return bool(self._long or self._others)

    def add(self, secret: Secret) -> None:
        for word in secret.words:
            words = self._long if _LONG_RUN.fullmatch(word) else self._others
            words.setdefault(word, secret.what)

    def found_in(self, text: bytes) -> set[str]:
        """What each of them is of."""
        found = {what for word, what in self._others.items() if word in text}
        if self._long and (runs := b" ".join(_LONG_RUN.findall(text))):
            found |= {what for word, what in self._long.items() if word in runs}
        return found


@dataclass
class Written:
    """What the processes of these tests wrote."""

    folders: set[Path] = field(default_factory=set)
    _printed: list[tuple[str, bytes]] = field(default_factory=list)
    """What commands printed since the last search: the command, and its output."""
    _homeless: _Words = field(default_factory=_Words)
    _at_home: _Words = field(default_factory=_Words)
    """Of secrets that have files made for them."""
    _clean: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Files that were searched, and their size and time then. Of a file that has not changed since, nothing that became
    known later can be in it: secrets are learnt before each search."""
    _learnt: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def know(self, text: str, what: str) -> None:
        """A password that nothing else tells of."""
        self._know(secretwords.password(text, what))

    def note(self, command: str, stdin: str, output: bytes) -> None:
        """A command that ended."""
        self._printed.append((command, output))
        self._know(secretwords.of_command(command, stdin, output))

    def learn(self) -> None:
        """What is secret by now in files and in the embedded APIs' Secrets. Done with each search; a test that ends a
        hub and removes its files calls it before."""
        for folder in self.folders:
            for path in _files(folder):
                if not secretwords.is_home(path) and path.name != OBJECTS:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    state = _state(path)
                    if path.name == OBJECTS:
                        for document in _secrets_in(path):
                            self._know(secretwords.of_object(document))
                    elif self._learnt.get(path) != state:
                        self._know(secretwords.of_file(path))
                        self._learnt[path] = state

    def leaks(self) -> list[str]:
        """Where a secret stands and must not; which one it is, and never the secret itself."""
        self.learn()
        found: list[str] = []
        for command, output in self._printed:
            if not shows_a_secret(command):
                found += [f"printed by {_short(command)}: {what}" for what in self._found_in(output)]
        self._printed.clear()
        for folder in self.folders:
            for path in _files(folder):
                found += [f"{path}: {what}" for what in self._leaks_in(path)]
        return found

    def _know(self, secrets: Iterable[Secret]) -> None:
        for secret in secrets:
            (self._at_home if secret.has_home else self._homeless).add(secret)

    def _found_in(self, text: bytes, *, at_home: bool = False) -> list[str]:
        found = self._homeless.found_in(text)
        if not at_home:
            found |= self._at_home.found_in(text)
            found |= {what for what, pattern in _LOOKS_SECRET if pattern.search(text)}
        return sorted(found)

    def _leaks_in(self, path: Path) -> list[str]:
        try:
            if path.name.startswith(OBJECTS):
                return self._leaks_in_rows(path) if path.name == OBJECTS else []
            state = _state(path)
            before = self._clean.get(path)
            if before == state:
                return []
            # A log only grows.
            begin = before[0] - _OVERLAP if before and path.suffix == ".log" and state[0] > before[0] else 0
            found = self._search(path, max(0, begin))
        except FileNotFoundError:  # it is gone again: a lease, a blob on its way
            return []
        if not found:
            self._clean[path] = state
        return found

    def _search(self, path: Path, begin: int) -> list[str]:
        tail = b""
        with path.open("rb") as file:
            file.seek(begin)
            while chunk := file.read(_CHUNK):
                window = tail + chunk
                if found := self._found_in(window, at_home=secretwords.is_home(path)):
                    return found
                tail = window[-_OVERLAP:]
        return []

    def _leaks_in_rows(self, path: Path) -> list[str]:
        """All objects but Secrets: jobs with their status, events, nodes, ConfigMaps."""
        rows = _rows(path, "SELECT resource, namespace, name, body FROM objects WHERE resource <> 'secrets'")
        return [
            f"{resource} {namespace}/{name}: {what}"
            for resource, namespace, name, body in rows
            for what in self._found_in(bytes(body))
        ]


def shows_a_secret(command: str) -> bool:
    """``kubectl get secret ... -o yaml`` and ``cloudhub token``, asked for by a test: they print what they are for."""
    words = command.split()
    if "get" in words and any(word.split("/")[0] in ("secret", "secrets") for word in words):
        return True
    return words[0].endswith("cloudhub") and words[1:2] == ["token"]


def _short(command: str) -> str:
    """Without its options, which may hold a secret."""
    return " ".join(itertools.takewhile(lambda word: not word.startswith("-"), command.split()[:4]))


def _state(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _secrets_in(path: Path) -> Iterator[dict[str, object]]:
    for (body,) in _rows(path, "SELECT body FROM objects WHERE resource = 'secrets'"):
        yield json.loads(body)


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        return database.execute(query).fetchall()


WRITTEN: Final = Written()
"""Of the whole run: processes outlive tests."""
