"""What the agent is doing, for `edgehub status` and for whoever watches (`cloudhub demo`): a file in its data folder.

Problem: it must be readable at any moment, also after the agent was killed, and must not wear out a flash disk.

Guarantee: `status.json` is replaced as a whole, at most twice a second and only when something changed, without forcing
it to the disk. Whether the agent runs is not read from the file but from the lock that only a living process holds; the
same lock keeps a second agent from the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import structlog

from shared.files import PRIVATE_FILE, private_folder, write_atomically

log = structlog.get_logger(__name__)

STATUS_FILE: Final = "status.json"
LOCK_FILE: Final = "edgehub.lock"
MIN_INTERVAL: Final = 0.5
MAX_STATUS_BYTES: Final = 8 << 20
_LOCK_TRIES: Final = 10


class StatusError(Exception):
    """The data folder cannot be used, or another agent uses it. Safe to show."""


class FolderLock:
    """Held by the one agent of a data folder until it ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._handle: int | None = None

    async def acquire(self) -> None:
        """Raises `StatusError`."""
        try:
            private_folder(self._path.parent)
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        except OSError as error:
            raise StatusError(f"the data folder {self._path.parent} cannot be used: {error.strerror}") from error
        for _ in range(_LOCK_TRIES):  # a reader of the status holds it for a moment
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(0.05)
            else:
                self._handle = handle
                return
        os.close(handle)
        raise StatusError(f"another edgehub runs on the data folder {self._path.parent}")

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def agent_runs(folder: Path) -> bool:
    try:
        handle = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def read_status(folder: Path) -> dict[str, Any]:
    """The agent's own words, with ``running`` as it is now; that alone when there was never an agent. Raises
    `StatusError`."""
    try:
        running = agent_runs(folder)
        with (folder / STATUS_FILE).open("rb") as file:
            data = file.read(MAX_STATUS_BYTES)
    except FileNotFoundError:
        return {"running": agent_runs(folder)}
    except OSError as error:
        raise StatusError(f"the status in {folder} cannot be read: {error.strerror}") from error
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StatusError(f"{folder / STATUS_FILE} is no status of an agent") from error
    if not isinstance(document, dict):
        raise StatusError(f"{folder / STATUS_FILE} is no status of an agent")
    return {**document, "running": running}


class StatusWriter:
    def __init__(
        self,
        *,
        folder: Path,
        snapshot: Callable[[], dict[str, Any]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._path = folder / STATUS_FILE
        self._snapshot = snapshot
        self._sleep = sleep
        self._dirty = asyncio.Event()
        self._failing = False

    def changed(self) -> None:
        self._dirty.set()

    async def run(self) -> None:
        self._dirty.set()
        try:
            while True:
                await self._dirty.wait()
                self._dirty.clear()
                await self._write()
                await self._sleep(MIN_INTERVAL)
        finally:
            with contextlib.suppress(OSError):
                self._write_now(self._encode())

    async def _write(self) -> None:
        try:
            await asyncio.to_thread(self._write_now, self._encode())
            self._failing = False
        except OSError as error:
            if not self._failing:  # once, not twice a second
                log.error("status not written", path=str(self._path), error=error.strerror)
            self._failing = True

    def _encode(self) -> bytes:
        return json.dumps(self._snapshot(), ensure_ascii=False).encode()

    def _write_now(self, data: bytes) -> None:
        write_atomically(self._path, data, durable=False)
