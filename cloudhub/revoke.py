"""`cloudhub revoke`: writes into the store of revocations, and waits until a hub that runs has acted.

Whoever owns the store's lock is the hub, so the command tries to take it: with it, it makes the file if need be and
there is nobody to wait for; without it, it writes beside the hub (`cloudhub.revocations`) and waits for its word. What
was written holds in any case: at the latest from the hub's next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloudhub.jointoken import PKI_FOLDER
from cloudhub.pki.names import check_node_name
from cloudhub.pki.revocation import Revocation
from cloudhub.pki.setup import CA_FILE
from cloudhub.store.engine import is_owned, open_beside, open_database
from cloudhub.store.errors import DatabaseInUse, OtherSchema
from cloudhub.store.revocations import FILE, Kept, NotRevoked, RevocationStore

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

PATIENCE: Final = 10.0
"""Seconds that the hub is given to act; it takes a quarter of one."""
ASK_EVERY: Final = 0.05
NO_HUB: Final = "no hub runs on this folder now; the next one heeds it"


class RevokeError(Exception):
    """One line for the operator."""


def data_folder(data_dir: Path | None, config: Path) -> Path:
    """The folder of a standalone, else the one that the configuration names. Raises `RevokeError`; never makes one,
    for the store in a folder of another name is heeded by nobody."""
    if data_dir is not None:
        if not (data_dir / PKI_FOLDER / CA_FILE).is_file():
            raise RevokeError(f"{data_dir} is no folder of a `cloudhub standalone`: it has no {PKI_FOLDER}/{CA_FILE}")
        return data_dir
    from cloudhub.config import load_config

    if not config.exists():
        raise RevokeError(f"there is no {config}; name it with --config, or the folder of a standalone with --data-dir")
    folder = Path(load_config(config).config.modules.taskManager.dataDir)
    if not folder.is_dir():
        raise RevokeError(f"there is no folder {folder} (modules.taskManager.dataDir): the hub makes it at its start")
    return folder


async def revoke(folder: Path, nodes: Sequence[str]) -> list[str]:
    """A line for each node."""
    now = time.time()
    async with _store(folder, nodes) as (store, shared):
        kept = await store.revoke(_unique(nodes), now)
        acted = await _acted_upon(store, folder, kept) if shared else {}
    return [_revoked(one.revocation, acted.get(one.revocation.node), now) for one in kept]


async def undo(folder: Path, nodes: Sequence[str]) -> list[str]:
    """A line for each node. Raises `RevokeError` when one is not revoked; then none is changed."""
    async with _store(folder, nodes) as (store, shared):
        try:
            kept = await store.undo(_unique(nodes), time.time())
        except NotRevoked as error:
            raise RevokeError(f"node {error.node} is not revoked; nothing was changed") from None
        acted = await _acted_upon(store, folder, kept) if shared else {}
    return [_undone(one.revocation.node, heeded=one.revocation.node in acted) for one in kept]


async def listing(folder: Path) -> list[str]:
    """A table."""
    async with _store(folder) as (store, _):
        rows = [("NODE", "REVOKED", "STATE"), *map(_row, await store.load())]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"{node:<{widths[0]}}  {since:<{widths[1]}}  {state}" for node, since, state in rows]


def _unique(nodes: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(nodes))


@contextlib.asynccontextmanager
async def _store(folder: Path, nodes: Sequence[str] = ()) -> AsyncIterator[tuple[RevocationStore, bool]]:
    """The store, and whether another process owns it: the hub, or for a moment another command."""
    for node in nodes:
        check_node_name(node)
    engine, shared = await _engine(folder / FILE)
    store = RevocationStore(engine)
    try:
        yield store, shared
    finally:
        await store.close()


async def _engine(path: Path) -> tuple[AsyncEngine, bool]:
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(DatabaseInUse):
            return await open_database(path, "revocations"), False
        try:
            return await open_beside(path, "revocations"), True
        except OtherSchema:
            # Perhaps its owner is about to make it.
            if time.monotonic() > end:
                raise
        await asyncio.sleep(ASK_EVERY)


async def _acted_upon(store: RevocationStore, folder: Path, kept: Sequence[Kept]) -> dict[str, bool]:
    """Of each node, whether its session was ended; without those that no hub has acted upon, because none runs.
    Raises `RevokeError` when one runs and does not act."""
    wanted = {one.revocation.node: one.revocation.number for one in kept}
    end = time.monotonic() + PATIENCE
    while True:
        # Before the records are read: a hub that has acted and ended since is not taken for one that has not.
        runs = await asyncio.to_thread(is_owned, folder / FILE)
        acted = {
            found.revocation.node: found.session_ended
            for found in await store.load()
            if found.applied >= wanted.get(found.revocation.node, found.applied + 1)
        }
        if len(acted) == len(wanted) or not runs:
            return acted
        if time.monotonic() > end:
            raise RevokeError(f"kept, but the hub has not acted upon it within {PATIENCE:g} s; see its log and /readyz")
        await asyncio.sleep(ASK_EVERY)


def _revoked(record: Revocation, ended: bool | None, now: float) -> str:
    if record.revoked_at != now:
        return f"node {record.node} was revoked already, at {_time(record.revoked_at)}"
    what = NO_HUB if ended is None else "its session has ended" if ended else "it had no session"
    return f"node {record.node} is revoked; {what}"


def _undone(node: str, *, heeded: bool) -> str:
    what = "" if heeded else f"; {NO_HUB}"
    return f"node {node} may join again, with a new token (cloudhub token --node {node}){what}"


def _row(kept: Kept) -> tuple[str, str, str]:
    record = kept.revocation
    if record.undone_at is None:
        state = "revoked"
    elif kept.last_signed_at is None:
        state = f"may join again since {_time(record.undone_at)}"
    else:
        state = f"has joined again, last certificate of {_time(kept.last_signed_at)}"
    return record.node, _time(record.revoked_at), state


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
