"""The real kubectl against a `StandaloneAPI` in the test's own event loop.

Each instance has its own server, HOME, cache and kubeconfig below the test's folder, so that no test sees another's
discovery cache, and none touches the developer's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from cloudhub.standalone.server import StandaloneAPI

KUBECTL = Path(sys.executable).parent / "kubectl"
_TIMEOUT = 30.0

JOB = """\
apiVersion: operations.kubeedge.io/v1alpha1
kind: ImagePrePullJob
metadata:
  name: imageprepull-example
  labels:
    team: web
spec:
  imagePrePullTemplate:
    concurrency: 1
    failureTolerate: '0.1'
    images:
      - registry.cn-hangzhou.aliyuncs.com/jilimoxing/test:nginx
    nodeNames:
      - edge.kubeedge
    imageSecrets: default/my-secret
    retryTimes: 1
    timeoutSeconds: 120
"""
"""The guide's job."""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


class Kubectl:
    def __init__(self, folder: Path, api: StandaloneAPI) -> None:
        self.api = api
        self.folder = folder
        self._kubeconfig = folder / "kubeconfig"
        api.write_kubeconfig(self._kubeconfig)

    def _command(self, args: tuple[str, ...]) -> list[str]:
        return [str(KUBECTL), f"--cache-dir={self.folder / 'cache'}", *args]

    def _environment(self, more: dict[str, str] | None) -> dict[str, str]:
        own = {"HOME": str(self.folder), "KUBECONFIG": str(self._kubeconfig), "TMPDIR": str(self.folder)}
        return {"PATH": os.environ["PATH"], **own, **(more or {})}

    async def run(self, *args: str, text: str = "", env: dict[str, str] | None = None) -> Result:
        """``text`` goes to its standard input."""
        process = await asyncio.create_subprocess_exec(
            *self._command(args),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment(env),
        )
        try:
            async with asyncio.timeout(_TIMEOUT):
                out, err = await process.communicate(text.encode())
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())

    async def ok(self, *args: str, text: str = "", env: dict[str, str] | None = None) -> str:
        """What it printed; it must succeed."""
        result = await self.run(*args, text=text, env=env)
        assert result.code == 0, f"kubectl {' '.join(args)}: {result.err}"
        return result.out

    async def fails(self, *args: str, text: str = "", env: dict[str, str] | None = None) -> str:
        """What it complained; it must fail."""
        result = await self.run(*args, text=text, env=env)
        assert result.code != 0, f"kubectl {' '.join(args)} succeeded: {result.out}"
        return result.err

    async def get(self, *args: str) -> Any:
        """An object, read back as YAML."""
        return yaml.safe_load(await self.ok("get", *args, "-o", "yaml", "--show-managed-fields"))

    @contextlib.asynccontextmanager
    async def follow(self, *args: str) -> AsyncIterator[Lines]:
        """A command that runs until the block ends, such as a watch."""
        process = await asyncio.create_subprocess_exec(
            *self._command(args),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment(None),
        )
        assert process.stdout is not None
        try:
            yield Lines(process.stdout)
        finally:
            # Not process.terminate(): that would reap a process that has ended, before asyncio does.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            await process.communicate()


class Lines:
    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream

    async def until(self, wanted: Callable[[str], bool]) -> str:
        """The next line that is wanted."""
        async with asyncio.timeout(_TIMEOUT):
            while line := (await self._stream.readline()).decode():
                if wanted(line):
                    return line
        raise AssertionError("the command ended before the line came")


def crd_text() -> str:
    return resources.files("cloudhub.kube").joinpath("crds", "imageprepulljobs.yaml").read_text()


@contextlib.asynccontextmanager
async def running_api(folder: Path, *, with_crd: bool = True) -> AsyncIterator[Kubectl]:
    async with StandaloneAPI(data_dir=folder / "data") as api:
        kubectl = Kubectl(folder, api)
        if with_crd:
            await kubectl.ok("create", "-f", "-", text=crd_text())
        yield kubectl


def table(text: str) -> list[list[str]]:
    """A printed table's rows as words."""
    return [line.split() for line in text.splitlines()]
