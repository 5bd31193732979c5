"""The hub's side of `cloudhub revoke`: heeds the store of revocations, at once, while the hub runs.

The command writes into the store, whether a hub runs or not (`cloudhub.revoke`). The hub looks every `LOOK_EVERY`
whether somebody has written, which reads no table; if so, it takes the records over, ends the sessions of the names
that changed, and writes into the store that it has, for which the command waits.

Guarantees: the records are there before the first node is let in. A change is acted upon before it is confirmed.
While the store cannot be read, the last records hold; what is signed for a name that was once revoked is not handed out
while it cannot be noted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from cryptography import x509

from cloudhub.metrics import Metrics
from cloudhub.pki.errors import Refused
from cloudhub.pki.revocation import REVOKED, RevocationList
from cloudhub.store.errors import StoreClosed, StoreUnavailable
from cloudhub.store.revocations import Kept, RevocationStore

LOOK_EVERY: Final = 0.25

log = structlog.get_logger(__name__)

Disconnect = Callable[[str, str], bool]
"""Ends the session of a node, for a reason; whether it had one."""


class Revocations:
    """A `cloudhub.pki.revocation.Revoked`. `load` before anything else."""

    def __init__(
        self,
        *,
        store: RevocationStore,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._sleep = sleep
        self._list = RevocationList()
        self._changes: int | None = None
        self._unconfirmed: dict[str, tuple[int, bool]] = {}
        """Numbers that were acted upon, and whether a session ended; not written yet."""
        self._problem: str | None = None
        self.check_certificate = self._list.check_certificate
        self.check_token = self._list.check_token

    def problem(self) -> str | None:
        """Why revocations cannot be heeded or kept now."""
        return self._problem

    async def load(self) -> None:
        """Raises `StoreUnavailable`."""
        self._changes = await self._store.change_count()
        self._take(await self._store.load(), lambda node, reason: False)

    async def run(self, disconnect: Disconnect) -> None:
        """Until cancelled, or the store is closed."""
        while True:
            try:
                await self._look(disconnect)
            except StoreClosed:
                return
            except StoreUnavailable as error:
                if self._problem is None:
                    log.error("revocations cannot be heeded", reason=str(error))
                self._problem = f"revocations cannot be heeded: {error}"
            else:
                self._problem = None
            await self._sleep(LOOK_EVERY)

    async def _look(self, disconnect: Disconnect) -> None:
        # The count first: what is written between the two is taken over now or at the next look, never missed.
        changes = await self._store.change_count()
        if changes != self._changes:
            self._take(await self._store.load(), disconnect)
            self._changes = changes
        for node, (number, ended) in tuple(self._unconfirmed.items()):
            await self._store.applied(node, number, session_ended=ended)
            if self._unconfirmed.get(node) == (number, ended):
                del self._unconfirmed[node]

    def _take(self, records: list[Kept], disconnect: Disconnect) -> None:
        before = {node: record.number for node, record in self._list.records.items()}
        self._list.replace(kept.revocation for kept in records)
        self._metrics.revoked_nodes.set(self._list.revoked())
        for kept in records:
            record = kept.revocation
            if kept.is_applied or before.get(record.node) == record.number:
                continue
            # Also when it is undone: that it was revoked for a moment between two looks ends the session all the same.
            ended = disconnect(record.node, "this node is revoked")
            log.warning("revocation heeded", node=record.node, revoked=record.undone_at is None, session_ended=ended)
            self._unconfirmed[record.node] = (record.number, ended)

    # --- For those who let nodes in -------------------------------------------------------------------------------

    def number(self, node: str) -> int | None:
        record = self._list.get(node)
        return record.number if record is not None else None

    async def note(self, node: str, certificate: x509.Certificate, number: int | None) -> None:
        if self.number(node) != number:
            raise Refused(403, REVOKED, f"node {node} is revoked")
        if number is None:
            return
        try:
            kept = await self._store.add_certificate(
                node,
                number=number,
                serial=certificate.serial_number,
                signed_at=self._clock(),
                expires_at=certificate.not_valid_after_utc.timestamp(),
            )
        except StoreUnavailable as error:
            log.error("revocations cannot be kept", reason=str(error))
            raise Refused(503, "store", "the hub cannot keep what it signs now; try again later") from None
        if not kept:
            raise Refused(403, REVOKED, f"node {node} is revoked")
        # Not before the next look: the node connects at once.
        self._list.add_certificate(node, number, certificate.serial_number)
