"""Whether there is space where a database lies, before a write finds out that there is none.

The problem: a hub with nothing to write does not notice a disk that is full, says that it is ready, and takes work that
it cannot keep; and SQLite goes on for a while in the space that its log has already, until it fails in the midst of
something. So whoever writes looks first.

Not seen here: quotas, and file systems that do not tell their size. There the write that fails tells.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

LEAST_FREE: Final = 256 * 1024
"""Bytes. Several transactions; less is no space to begin anything in."""


def lack_of_room(folder: Path) -> str | None:
    """None when there is enough, as far as can be told."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    # What is set aside for root is space for a hub that is root.
    blocks = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    free = blocks * found.f_frsize
    if found.f_blocks == 0 or free >= LEAST_FREE:
        return None
    return f"the disk is full: {folder} has {free // 1024} KiB free"
