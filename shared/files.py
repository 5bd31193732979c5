"""Files that hold keys, configuration and status: written whole or not at all, and private from their first byte."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
PUBLIC_FILE = 0o644


def write_atomically(path: Path, data: bytes, *, mode: int = PRIVATE_FILE, durable: bool = True) -> None:
    """After it returns, and after a crash at any moment, ``path`` holds the old bytes or the new ones. Not
    ``durable`` leaves it to the kernel when they reach the disk: for what a restart writes anew anyway."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    name = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    if durable:
        sync_folder(path.parent)


def remove_leftovers(*paths: Path, older_than: float = 60.0) -> None:
    """Removes what `write_atomically` left beside ``paths`` when its process was killed. ``older_than``: seconds; what
    is younger may be of a process that writes now. Never fails."""
    before = time.time() - older_than
    for path in paths:
        pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}")
        with contextlib.suppress(OSError):
            for entry in os.scandir(path.parent):
                if pattern.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < before:
                    os.unlink(entry)


def sync_folder(folder: Path) -> None:
    """Makes a rename in ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def private_folder(path: Path) -> None:
    """Creates ``path`` with mode 0700; one that exists keeps its mode."""
    path.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
