"""What the pulls of this process share: who works with which blob, how much room they will need, what may go.

Removing and pulling meet in one place, the gate: a pull claims its digests before it looks which of them are here, and
nothing that is claimed is removed. Other processes are told by the layout's lease, held while any pull runs.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from edgehub.runtime.base import NoSpace
from edgehub.runtime.oci.layout import Layout, Lease
from edgehub.runtime.oci.manifest import Descriptor
from edgehub.runtime.oci.settings import StoreSettings
from edgehub.runtime.oci.threads import in_thread

log = structlog.get_logger(__name__)

_SWEEP_INTERVAL: Final = 3600.0


class Claim:
    """The digests of one pull."""

    def __init__(self) -> None:
        self.digests: set[str] = set()
        self.unwanted: set[str] = set()
        """To be removed when the pull is over, unless wanted by others."""


class Workspace:
    def __init__(
        self,
        *,
        layout: Layout,
        settings: StoreSettings,
        free_bytes: Callable[[], int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.layout = layout
        self.slots = asyncio.Semaphore(settings.concurrent_downloads)
        self._settings = settings
        self._free_bytes = free_bytes or (lambda: shutil.disk_usage(layout.root).free)
        self._monotonic = monotonic
        self._gate = asyncio.Lock()
        self._claimed: Counter[str] = Counter()
        self._outstanding: dict[str, int] = {}
        self._blob_locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._pulls = 0
        self._lease: Lease | None = None
        self._swept: float | None = None

    @asynccontextmanager
    async def pull(self) -> AsyncIterator[Claim]:
        """For as long as a pull runs. Raises `OSError`, `RuntimeUnavailable`."""
        async with self._gate:
            if self._lease is None:
                await in_thread(self._open)
            self._pulls += 1
        claim = Claim()
        try:
            yield claim
        finally:
            self._unclaim(claim)
            try:
                if claim.unwanted:
                    await self._discard(claim.unwanted)
            finally:
                self._pulls -= 1
                if self._pulls == 0 and self._lease is not None:
                    self._lease.release()
                    self._lease = None

    async def claim(self, claim: Claim, digests: Iterable[str]) -> None:
        """From here on these are not removed, if they are here."""
        async with self._gate:
            fresh = set(digests) - claim.digests
            claim.digests |= fresh
            self._claimed.update(fresh)

    async def make_room(self, missing: Collection[Descriptor]) -> None:
        """Raises `NoSpace` unless what is missing fits beside what other pulls still fetch."""
        if not missing:
            return
        needed = await in_thread(self._needed, missing)
        short = await self._short(needed)
        if short is not None:
            # What interrupted pulls left may be worth less than this image.
            async with self._gate:
                await in_thread(self._sweep, 0.0)
            short = await self._short(needed)
        if short is not None:
            raise short
        self._outstanding |= needed

    def moved(self, descriptor: Descriptor, position: int) -> None:
        self._outstanding[descriptor.digest] = descriptor.size - position

    @asynccontextmanager
    async def blob(self, digest: str) -> AsyncIterator[None]:
        """One at a time for each blob: two pulls that share a layer fetch it once."""
        lock, users = self._blob_locks.get(digest, (asyncio.Lock(), 0))
        self._blob_locks[digest] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            users = self._blob_locks[digest][1] - 1
            if users:
                self._blob_locks[digest] = lock, users
            else:
                del self._blob_locks[digest]

    def _open(self) -> None:
        self.layout.prepare()
        if self._swept is None or self._monotonic() - self._swept > _SWEEP_INTERVAL:
            self._sweep(self._settings.keep_partial_seconds)
        self._lease = self.layout.lease()

    def _sweep(self, older_than: float) -> None:
        self.layout.sweep(older_than=older_than, keep=list(self._claimed), lease=self._lease)
        self._swept = self._monotonic()

    def _needed(self, missing: Collection[Descriptor]) -> dict[str, int]:
        return {blob.digest: max(blob.size - self.layout.partial_size(blob.digest), 0) for blob in missing}

    async def _short(self, needed: dict[str, int]) -> NoSpace | None:
        free = await in_thread(self._free_bytes)
        others = sum(size for digest, size in self._outstanding.items() if digest not in needed)
        reserve = self._settings.reserve_bytes
        wanted = sum(needed.values())
        if wanted + others + reserve <= free:
            return None
        beside = f", beside {_mib(others)} that other pulls still need" if others else ""
        return NoSpace(
            f"not enough space: {_mib(wanted)} are to be fetched{beside}, and {_mib(reserve)} must stay free; "
            f"{self.layout.root} has {_mib(free)} free"
        )

    def _unclaim(self, claim: Claim) -> None:
        self._claimed.subtract(claim.digests)
        for digest in claim.digests:
            if self._claimed[digest] <= 0:
                del self._claimed[digest]
                self._outstanding.pop(digest, None)

    async def _discard(self, digests: Collection[str]) -> None:
        try:
            async with self._gate:
                await in_thread(self.layout.discard, digests, keep=list(self._claimed), lease=self._lease)
        except Exception as error:
            # Not worth a pull's own result: the sweep takes it later.
            log.warning("garbage of a pull is left", error=type(error).__name__)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
