"""An informer: the objects of one resource as the API server holds them, by list and watch.

What goes wrong between a client and an API server, and what is done:
- a watch ends (its time is up, a proxy closes it, the server restarts): it goes on from the last resourceVersion seen,
  bookmarks included; if the server was away meanwhile, or its resourceVersion is lower than ours (restored from a
  backup, or another cluster), everything is listed again;
- 410 Gone, a lost or unreadable event: list again. Objects missing from a list were deleted meanwhile, and are told;
- a connection that is dead without a word: TCP keepalive, and a limit on silence (bookmarks come each minute);
- failures: tried again for ever, with exponential backoff and jitter. `check` says what is wrong now.

Guarantee: after `synced` the view is complete, and later becomes right again within seconds of the API's return.
Callbacks run on the event loop after the view has changed: once for each change, and once for each object of a list
that had to be read again; never for an event that brought nothing new. Lists come in pages and are reduced to what is
kept page by page, so 10,000 objects neither stall the loop nor need memory beyond what stays.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog
from pydantic_core import from_json

from cloudhub.kube.client import KubeClient
from cloudhub.kube.errors import Expired, Throttled, from_answer
from cloudhub.metrics import Metrics
from cloudhub.taskmanager.ports import KubeError, Unavailable

log = structlog.get_logger(__name__)

_MAX_DIGITS: Final = 100
"""Of a resourceVersion that is a number; Kubernetes' have up to 20."""


class Kept(Protocol):
    """What an informer keeps of an object. Two that are equal are no change."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Kept)

Convert = Callable[[Mapping[str, Any]], T]
"""What is kept of an object; raises KeyError or TypeError when it is no object of this resource."""


class Informer(Generic[T]):
    def __init__(
        self,
        *,
        client: KubeClient,
        path: str,
        convert: Convert[T],
        page_size: int = 100,
        watch_seconds: float = 300.0,
        silence: float = 90.0,
        backoff: tuple[float, float] = (0.2, 10.0),
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._path = path
        self._resource = path.rpartition("/")[2]
        self._convert = convert
        self._page_size = page_size
        self._watch_seconds = watch_seconds
        self._silence = silence
        self._first_delay, self._longest_delay = backoff
        self._metrics = metrics
        self._clock = clock
        self._sleep = sleep
        self._objects: dict[str, T] = {}
        self._callbacks: list[Callable[[str], None]] = []
        self._synced = asyncio.Event()
        self._moved = asyncio.Event()
        self._version = ""
        """resourceVersion to watch from; empty: list first."""
        self._doubtful = False
        """The last watch ended before its time: what comes next may be another server, or an older state of it."""
        self._failures = 0
        self._expiries = 0
        self._failing_since: float | None = None
        self._problem = ""

    # --- The view ---------------------------------------------------------------------------------------------

    def get(self, name: str) -> T | None:
        return self._objects.get(name)

    def list(self) -> Iterable[T]:
        """A snapshot: the view may change while the caller awaits between two of them."""
        return tuple(self._objects.values())

    def on_change(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    def move(self, path: str) -> None:
        """The same objects from now on at another path (another version of the API): all are listed again there."""
        self._path = path
        self._moved.set()

    async def synced(self) -> None:
        await self._synced.wait()

    def check(self, *, after: float = 30.0) -> str | None:
        """For readiness: what is wrong, once it has been wrong for ``after`` seconds; None when all is well."""
        if not self._synced.is_set():
            return f"{self._resource} not listed yet" + (f": {self._problem}" if self._problem else "")
        if self._failing_since is not None and self._clock() - self._failing_since > after:
            return f"{self._resource} not watched: {self._problem}"
        return None

    # --- Keeping it -------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            # Before the path is read: one that changes from here on is seen.
            self._moved.clear()
            following = asyncio.ensure_future(self._follow())
            moving = asyncio.ensure_future(self._moved.wait())
            try:
                await asyncio.wait((following, moving), return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    await following
            finally:
                for part in (following, moving):
                    part.cancel()
                await asyncio.gather(following, moving, return_exceptions=True)
            self._version = ""

    async def _follow(self) -> None:
        while True:
            try:
                if not self._version:
                    await self._list()
                elif self._doubtful:
                    await self._confirm()
                await self._watch()
            except KubeError as error:
                await self._recover(error)

    async def _list(self) -> None:
        """Reads all pages, then replaces the view in one step."""
        fresh: dict[str, T] = {}
        version = token = ""
        while True:
            query = {"continue": token} if token else {}
            if self._expiries < 3:
                query["limit"] = str(self._page_size)
            # Pages that expire again and again (a list slower than the server's compaction) are asked for whole.
            page = await self._client.request("GET", self._path, query=query)
            items, about = page.get("items") or (), page.get("metadata") or {}
            if not isinstance(items, list | tuple) or not isinstance(about, dict):
                raise Unavailable(f"GET {self._path}: the answer is no list of objects")
            for item in items:
                kept = self._keep(item)
                if kept is not None:
                    fresh[kept.name] = kept
            version = version or str(about.get("resourceVersion") or "")
            token = str(about.get("continue") or "")
            if not token:
                break
        if not version:
            raise Unavailable(f"GET {self._path}: the list has no resourceVersion")
        if self._metrics is not None:
            self._metrics.api_lists_total.count(self._resource)
        gone = [name for name in self._objects if name not in fresh]
        self._objects = fresh
        self._version = version
        self._doubtful = False
        self._expiries = 0
        self._synced.set()
        for name in gone:
            self._tell(name)
        for name in fresh:
            self._tell(name)

    async def _watch(self) -> None:
        """Follows changes until the watch ends. Returns when it may go on at once from where it was."""
        seconds = int(self._watch_seconds * random.uniform(1.0, 2.0))  # noqa: S311 - spreads load
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(max(1, seconds)),
        }
        started = self._clock()
        self._doubtful = True
        try:
            async with self._client.stream(self._path, query=query, silence=self._silence) as lines:
                self._failing_since = None
                self._problem = ""
                async for line in lines:
                    self._event(line)
                    self._failures = 0
        finally:
            lasted = self._clock() - started
            if lasted > self._longest_delay:
                self._failures = 0
        if lasted >= seconds * 0.9:
            self._doubtful = False
            return
        # Closed early for no reason that we know: not again at once, or a server that closes all watches is hammered.
        await self._pause()

    async def _confirm(self) -> None:
        """Is this still the server, with the history, that the last watch spoke to?"""
        page = await self._client.request("GET", self._path, query={"limit": "1"})
        about = page.get("metadata")
        version = str(about.get("resourceVersion") or "") if isinstance(about, dict) else ""
        if not _is_number(version) or _earlier(version, self._version):
            raise Expired(f"GET {self._path}: resourceVersion {version[:32]} is before {self._version[:32]}")

    def _event(self, line: bytes) -> None:
        try:
            event = from_json(line)
            kind, item = event["type"], event["object"]
            version = "" if kind == "ERROR" else str(item["metadata"]["resourceVersion"])
        except (ValueError, KeyError, TypeError):
            # What it said is lost, so a list has to tell.
            raise Expired(f"GET {self._path}: an event that is none") from None
        if kind == "ERROR":
            code = item.get("code") if isinstance(item, dict) else None
            code = code if isinstance(code, int) else 500
            raise from_answer(verb="GET", path=self._path, code=max(code, 400), body=item)
        if _earlier(version, self._version):
            raise Expired(f"GET {self._path}: an event of resourceVersion {version[:32]}, before {self._version[:32]}")
        if kind == "DELETED":
            self._remove(item)
        elif kind != "BOOKMARK":
            self._put(item)
        self._version = version

    def _put(self, item: Mapping[str, Any]) -> None:
        kept = self._keep(item)
        if kept is None:
            return
        old = self._objects.get(kept.name)
        self._objects[kept.name] = kept
        if old != kept:
            self._tell(kept.name)

    def _remove(self, item: Mapping[str, Any]) -> None:
        name = item["metadata"].get("name")
        if isinstance(name, str) and self._objects.pop(name, None) is not None:
            self._tell(name)

    def _keep(self, item: Any) -> T | None:
        try:
            return self._convert(item)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
            log.warning("an object of the API cannot be read and is left out", resource=self._resource)
            return None

    def _tell(self, name: str) -> None:
        for callback in self._callbacks:
            callback(name)

    # --- When it fails ----------------------------------------------------------------------------------------

    async def _recover(self, error: KubeError) -> None:
        """Decides how to go on after a failure, and waits."""
        if isinstance(error, Expired):
            self._expiries += 1
            self._version = ""
        elif self._failures:
            # Not just a stream that broke: the API was away, or refused. What happened meanwhile a list has to tell.
            self._version = ""
        if self._failing_since is None:
            self._failing_since = self._clock()
            log.info("an informer starts over", resource=self._resource, reason=str(error))
        self._problem = str(error)
        if isinstance(error, Throttled):
            await self._sleep(error.retry_after)
        if isinstance(error, Expired) and not self._failures:
            self._failures = 1
        else:
            await self._pause()

    async def _pause(self) -> None:
        longest = min(self._longest_delay, self._first_delay * 2.0 ** min(self._failures, 16))
        self._failures += 1
        await self._sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load


def _earlier(version: str, than: str) -> bool:
    """Whether a resourceVersion is before another; they are numbers, as Kubernetes guarantees since 1.35 and etcd ever
    did. What is no number is not judged."""
    return _is_number(version) and _is_number(than) and int(version) < int(than)


def _is_number(text: str) -> bool:
    # Other scripts have digits too, and Python reads no number of thousands of them.
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
