"""An agent as a process of its own, on a runtime that does what files in a folder say: for tests that kill it.

``python -m tests.integration.edgehub.agent_process EDGECORE_YAML FOLDER``: an image's pull is noted in FOLDER/pulls and
ends when FOLDER/go exists; from then on the image is present, for later lives of the agent too. With FOLDER/stuck it
ignores cancellation, as a call that hangs in the kernel would.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from edgehub.agent import run_agent
from edgehub.config import load_config
from edgehub.daemon import stop_on_signals
from edgehub.runtime.base import ImageRecord, PullProgress, RuntimeVersion
from shared.wire import Credential


class FolderRuntime:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _marker(self, image: str) -> Path:
        return self._folder / f"present-{hashlib.sha256(image.encode()).hexdigest()}"

    async def version(self) -> RuntimeVersion:
        return RuntimeVersion(name="folder", version="1.0")

    async def status(self, image: str) -> ImageRecord | None:
        if not self._marker(image).exists():
            return None
        return ImageRecord(id="sha256:" + "2" * 64, digests=(), tags=(image,), size=2000)

    async def pull(
        self,
        image: str,
        credential: Credential | None,
        *,
        progress: Callable[[PullProgress], None] | None = None,
    ) -> ImageRecord:
        with (self._folder / "pulls").open("a") as file:
            file.write(f"{image} {credential.username if credential else '-'}\n")
        if progress is not None:
            progress(PullProgress(done_bytes=500, total_bytes=2000))
        while not (self._folder / "go").exists():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                if not (self._folder / "stuck").exists():
                    raise
        self._marker(image).touch()
        record = await self.status(image)
        assert record is not None
        return record

    async def list(self) -> builtins.list[ImageRecord]:
        return []

    async def filesystem(self) -> Path | None:
        return self._folder

    async def close(self) -> None:
        return None


async def _main(config: Path, folder: Path) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop, exit_within=2)
    await run_agent(load_config(config), stop=stop, runtime=lambda _: FolderRuntime(folder), stop_within=1)


if __name__ == "__main__":
    uvloop.run(_main(Path(sys.argv[1]), Path(sys.argv[2])))
