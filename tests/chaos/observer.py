"""Follows all jobs by a watch of its own, past the hub, and asks the hub for /readyz all the time.

It is there before the first fault and after the last, and says nothing: what it saw is judged by `tests.chaos.verdict`.
While the API server is away it sees nothing, and goes on from the last version that it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

from pydantic_core import from_json

from cloudhub.kube.client import KubeClient
from cloudhub.kube.errors import Expired
from cloudhub.kube.jobs import JOBS_PATH
from cloudhub.taskmanager.ports import KubeError
from tests.chaos.evidence import Sample
from tests.chaos.verdict import FINAL

EVERY: Final = 0.25
"""Seconds between two questions at /readyz."""
PATIENCE: Final = 10.0
"""Seconds within which /readyz must be answered."""


class Observer:
    def __init__(self, *, api: KubeClient, monitor_port: int) -> None:
        self._api = api
        self._port = monitor_port
        self.statuses: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        """By uid."""
        self.samples: list[Sample] = []
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="chaos-watch")
            group.create_task(self._poll(), name="chaos-readyz")

    def forget(self) -> None:
        """Before a new round."""
        self.statuses.clear()
        self.samples.clear()

    def status(self, uid: str) -> dict[str, Any]:
        seen = self.statuses.get(uid)
        return seen[-1] if seen else {}

    def ended(self, uid: str) -> bool:
        return self.status(uid).get("state") in FINAL

    async def until(self, holds: Callable[[], bool], *, within: float) -> bool:
        """Whether it came to hold."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        return holds()

    async def until_sampled(self, holds: Callable[[Sample], bool], *, within: float) -> bool:
        """Whether /readyz, asked from now on, came to answer so."""
        since = time.time()
        return await self._until_sampled(lambda: any(holds(s) for s in self.samples if s.asked >= since), within)

    async def _until_sampled(self, holds: Callable[[], bool], within: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not holds():
                    self._asked.clear()
                    await self._asked.wait()
        return holds()

    # --- Jobs -------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        version = "0"
        while True:
            query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
            try:
                async with self._api.stream(JOBS_PATH, query=query, silence=600) as lines:
                    async for line in lines:
                        version = self._note(from_json(line))
            except Expired:
                version = "0"
            except KubeError:
                pass
            await asyncio.sleep(0.1)

    def _note(self, event: dict[str, Any]) -> str:
        metadata = event["object"].get("metadata")
        if event["type"] == "ERROR" or metadata is None:
            raise Expired(str(event["object"])[:200])
        if event["type"] in ("ADDED", "MODIFIED"):
            seen = self.statuses[metadata["uid"]]
            status = event["object"].get("status", {})
            # After a list they come again.
            if not seen or seen[-1] != status:
                seen.append(status)
            self._changed.set()
        return str(metadata["resourceVersion"])

    # --- /readyz ----------------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        while True:
            asked = time.time()
            code, body = await ask(self._port, "/readyz")
            self.samples.append(Sample(asked, time.time(), code, body))
            self._asked.set()
            await asyncio.sleep(EVERY)


async def ask(port: int, path: str) -> tuple[int, str]:
    """Code and body; code 0 when there is no answer."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    except (OSError, TimeoutError):
        return 0, ""
    finally:
        if writer is not None:
            writer.close()
    return (int(head.split()[1]) if head else 0), body
