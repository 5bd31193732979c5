"""One blob from a repository into the layout: resumed, verified, renamed.

The bytes go to a partial file that outlives the process; whoever wants the blob next goes on behind them with a range
request. A connection that breaks is taken up again at once, here, as long as each try brings something: on a bad link a
large layer comes through that would never come in one piece, and the job's retries are not spent on it.

Memory is one buffer, whatever the blob's size; hashing and writing happen in a thread, a buffer at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from edgehub.runtime.base import TransientPullError
from edgehub.runtime.oci.layout import Layout, try_lock
from edgehub.runtime.oci.manifest import Descriptor
from edgehub.runtime.oci.repository import Repository
from edgehub.runtime.oci.threads import in_thread
from edgehub.runtime.oci.transport import Interrupted

log = structlog.get_logger(__name__)

_BUFFER: Final = 1 << 20
_FLUSH_SECONDS: Final = 1.0
"""On a slow link the buffer is written before it is full: what is on disk survives a crash, and is progress."""
_REHASH: Final = 1 << 20
MAX_RESUMES: Final = 5
"""In a row, with less than `_PROGRESS` bytes in each."""
_PROGRESS: Final = 1 << 20


class Partial:
    """The file of a blob on its way, locked against other processes, with the hash of what is in it.

    Opening and closing are quick and done on the loop: a lock that was taken in a thread of a cancelled task would be
    nobody's."""

    def __init__(self, layout: Layout, descriptor: Descriptor) -> None:
        self._layout = layout
        self._digest = descriptor.digest
        self._algorithm = descriptor.digest.partition(":")[0]
        self._path = layout.partial_path(descriptor.digest)
        self._file = self._open()
        self._hash = self._new_hash()
        self._committed = False
        self.size = 0
        """Bytes that are written and hashed."""
        self._found = os.fstat(self._file).st_size
        if self._found > descriptor.size:
            self.restart()

    def absorb(self) -> bool:
        """Hashes the next of what an earlier pull left; False when all is hashed."""
        content = os.pread(self._file, min(_REHASH, self._found - self.size), self.size)
        self._hash.update(content)
        self.size += len(content)
        return bool(content)

    def write(self, content: bytes | bytearray) -> None:
        view = memoryview(content)
        while view:
            written = os.pwrite(self._file, view, self.size)
            self._hash.update(view[:written])
            self.size += written
            view = view[written:]

    def restart(self) -> None:
        os.ftruncate(self._file, 0)
        self._hash = self._new_hash()
        self.size = self._found = 0

    def commit(self) -> bool:
        """False, and nothing is left, when the bytes are not those of the digest."""
        if f"{self._algorithm}:{self._hash.hexdigest()}" != self._digest:
            self.restart()
            return False
        os.fsync(self._file)
        self._layout.commit(self._path, self._digest)
        self._committed = True
        return True

    def close(self) -> None:
        if not self._committed and os.fstat(self._file).st_size == 0:
            self._path.unlink(missing_ok=True)
        os.close(self._file)

    def _open(self) -> int:
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if not try_lock(file):
                # Another process fetches the same blob; who is first has it, and neither waits for the other.
                os.close(file)
                self._path = self._path.with_name(f"{self._path.stem}-{secrets.token_hex(4)}{self._path.suffix}")
            elif self._still_named(file):
                return file
            else:
                os.close(file)  # it was renamed or removed between opening and locking

    def _still_named(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False

    def _new_hash(self) -> hashlib._Hash:
        return hashlib.new(self._algorithm, usedforsecurity=False)


async def download(
    *,
    repository: Repository,
    layout: Layout,
    descriptor: Descriptor,
    moved: Callable[[int], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Returns when the blob is in the layout. ``moved`` is told how many bytes of it are on disk. Raises `PullError`,
    and `OSError` of the disk."""
    with contextlib.closing(Partial(layout, descriptor)) as partial:
        while await in_thread(partial.absorb):
            moved(partial.size)
        resumes = 0
        while partial.size < descriptor.size:
            before = partial.size
            try:
                await _stream(repository, descriptor, partial, moved)
            except Interrupted as error:
                gained = partial.size - before
                resumes = 0 if gained >= _PROGRESS else resumes + 1
                if gained <= 0 or resumes > MAX_RESUMES:
                    raise
                log.info("download interrupted, going on", blob=descriptor.digest, at=partial.size, reason=str(error))
                await sleep(0.2 * 2**resumes)
        if not await in_thread(partial.commit):
            moved(0)
            raise TransientPullError(f"the bytes that came for {descriptor.digest} are not those of that digest")


async def _stream(
    repository: Repository, descriptor: Descriptor, partial: Partial, moved: Callable[[int], None]
) -> None:
    """What one answer of the registry brings. Raises `Interrupted` when that is not all."""
    async with repository.blob(descriptor, offset=partial.size) as (start, read):
        if start != partial.size:
            partial.restart()
        ended: Interrupted | bool = False
        while not ended:
            buffer = bytearray()
            written = time.monotonic()
            while len(buffer) < _BUFFER and time.monotonic() - written < _FLUSH_SECONDS and not ended:
                try:
                    chunk = await read()
                except Interrupted as error:
                    ended = error  # what came before is good: the next try goes on behind it
                else:
                    buffer += chunk
                    ended = not chunk
            if partial.size + len(buffer) > descriptor.size:
                partial.restart()
                raise TransientPullError(
                    f"the registry sends more than the {descriptor.size} bytes of {descriptor.digest}"
                )
            await in_thread(partial.write, buffer)
            moved(partial.size)
    if isinstance(ended, Interrupted):
        raise ended
    if partial.size < descriptor.size:
        raise Interrupted(f"the registry ended {descriptor.digest} at {partial.size} of {descriptor.size} bytes")
