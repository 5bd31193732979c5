"""The demo's processes: the hub with its embedded API server, and the agents.

Guarantee: whatever ends the demo, short of SIGKILL, ends every process that it started, by SIGTERM, and by SIGKILL when
that is not heeded. Each writes its log to a file; `Failed` carries the end of the log of what failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

STOP_SECONDS: Final = 12.0
LOG_LINES: Final = 15


class Failed(Exception):
    """Something in the demo did not work; the text says what, with the end of the log that tells why."""


@dataclass
class Process:
    name: str
    log: Path
    process: asyncio.subprocess.Process

    def check(self) -> None:
        """Raises `Failed` when it has ended."""
        if self.process.returncode is not None:
            raise Failed(f"{self.name} ended with {self.process.returncode}\n{self.tail()}")

    def tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "\n".join([f"{self.log}:", *lines])

    async def stop(self) -> None:
        if self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


@dataclass
class Fleet:
    """``folder`` holds all files: ``cloud/`` of the hub, one folder a node, the logs."""

    folder: Path
    cloud: Process | None = None
    agents: dict[str, Process] = field(default_factory=dict)

    @property
    def data_dir(self) -> Path:
        return self.folder / "cloud"

    @property
    def kubeconfig(self) -> Path:
        return self.data_dir / "kubeconfig"

    def config_of(self, node: str) -> Path:
        return self.folder / node / "edgecore.yaml"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Agents first, so that they end in peace and do not log the hub's end.
        await asyncio.gather(*(agent.stop() for agent in self.agents.values()))
        if self.cloud is not None:
            await self.cloud.stop()

    async def start_cloud(self) -> dict[str, Any]:
        """The hub on free ports; returns what it says in ``endpoints.json`` once it is ready."""
        self.cloud = await self._start(
            "cloudhub", "standalone", "--data-dir", str(self.data_dir), "--api-port", "0",
            "--websocket-port", "0", "--https-port", "0", "--metrics-address", "127.0.0.1:0",
        )  # fmt: skip
        endpoints = self.data_dir / "endpoints.json"
        async with asyncio.timeout(60):
            while not endpoints.exists():
                self.cloud.check()
                await asyncio.sleep(0.05)
        document: dict[str, Any] = json.loads(endpoints.read_text())
        return document

    async def token(self) -> str:
        return (await self._run("cloudhub", "token", "--data-dir", str(self.data_dir), "--ttl", "1h")).strip()

    async def join(self, node: str, *, endpoints: dict[str, Any], token: str, runtime: str) -> None:
        await self._run(
            "edgehub", "join", "--server", endpoints["join"], "--token", token, "--node-name", node,
            "--websocket-server", endpoints["websocket"], "--config", str(self.config_of(node)),
            "--data-dir", str(self.folder / node), "--runtime-endpoint", runtime,
        )  # fmt: skip

    async def start_agent(self, node: str) -> None:
        self.agents[node] = await self._start("edgehub", "run", "--config", str(self.config_of(node)), log=node)

    async def images(self, node: str) -> str:
        return await self._run("edgehub", "images", "--config", str(self.config_of(node)))

    def check(self) -> None:
        """Raises `Failed` when any of them has ended."""
        for process in (self.cloud, *self.agents.values()):
            if process is not None:
                process.check()

    async def _start(self, program: str, *args: str, log: str = "") -> Process:
        path = self.folder / f"{log or program}.log"
        with path.open("ab") as file:
            # A session of its own: Ctrl-C on the terminal is for the demo, which then ends them in order.
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", program, *args,
                stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        return Process(log or program, path, process)

    async def _run(self, program: str, *args: str) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", program, *args,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        if process.returncode:
            # Not the arguments: a token is among them.
            raise Failed(f"{program} {args[0]} ended with {process.returncode}: {err.decode(errors='replace').strip()}")
        return out.decode()
