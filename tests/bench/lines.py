"""A process of the bench and its master speak JSON, one document a line: requests on standard input, answers on
standard output, one answer a request, in order. What goes wrong goes to standard error and ends the process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

MAX_LINE = 64 << 20
"""Bytes. The times of some ten thousand reports are one line."""


class Worker:
    """The master's end. ``module`` is started with ``args``; its standard error goes to ``log``."""

    def __init__(self, module: str, *args: str | Path, log: Path) -> None:
        self._args = [sys.executable, "-m", module, *map(str, args)]
        self._log = log
        self._process: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._args,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=MAX_LINE,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def ask(self, do: str, **parameters: Any) -> dict[str, Any]:
        """Raises when there is no answer within ten minutes, or the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **parameters}).encode() + b"\n")
        async with asyncio.timeout(600):
            line = await self._process.stdout.readline()
        if not line:
            tail = await asyncio.to_thread(self._log.read_text)
            raise RuntimeError(f"{self._args[2]} ended at {do!r}\n{tail[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


async def serve(commands: dict[str, Callable[..., Awaitable[dict[str, Any]]]]) -> None:
    """The worker's end: until standard input ends."""
    reader = asyncio.StreamReader(limit=MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        request = json.loads(line)
        answer = await commands[request.pop("do")](**request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
