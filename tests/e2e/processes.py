"""The product as its users run it: `cloudhub standalone`, `edgehub run` and `kubectl` as processes of their own.

Nothing here imports the programs. Every process writes its log to a file, which is shown when something that a test
waited for did not come; every one is ended with the test, however that ends. Hub and agents log at debug level, and
what they write is noted for `tests.e2e.leaks`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.e2e.leaks import WRITTEN
from tests.parts.registry import free_port

T = TypeVar("T")

BIN = Path(sys.executable).parent
GRACE_SECONDS = 10.0
"""Within this a program must end after SIGTERM."""


async def eventually(what: str, probe: Callable[[], Awaitable[T | None]], *, within: float = 60.0) -> T:
    """What ``probe`` returns once it is true. Processes give no event to wait for, so this asks until a bound."""
    deadline = time.monotonic() + within
    while True:
        found = await probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within:.0f} s")
        await asyncio.sleep(0.1)


class CommandFailed(AssertionError):
    pass


async def command(
    *args: str | Path, env: dict[str, str] | None = None, stdin: str = "", code: int = 0, within: float = 90
) -> str:
    """Standard output of a program that ends by itself; its standard error is appended when ``code`` is not 0."""
    process = await asyncio.create_subprocess_exec(
        *map(str, args),
        env={**os.environ, **(env or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(within):
            out, err = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    words = " ".join(map(str, args))
    WRITTEN.note(words, stdin, out + err)
    if process.returncode != code:
        raise CommandFailed(f"{words}\nended with {process.returncode}, not {code}\n{out.decode()}{err.decode()}")
    return out.decode() + (err.decode() if code else "")


class Program:
    """A long-running program of ours; started, stopped, killed and started again on the same files."""

    def __init__(self, name: str, args: Sequence[str | Path], log: Path) -> None:
        self.name = name
        self.log = log
        WRITTEN.folders.add(log.parent)
        self._args = [str(arg) for arg in args]
        # Not asyncio's: the process outlives the test, and so the event loop, that started it.
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    async def stop(self, *, within: float = GRACE_SECONDS) -> int:
        """SIGTERM, and the exit code. Fails when it takes longer than a program of ours may."""
        return await self._end(signal.SIGTERM, within)

    async def kill(self) -> None:
        await self._end(signal.SIGKILL, GRACE_SECONDS)

    async def _end(self, number: int, within: float) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            return await asyncio.to_thread(process.wait, within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{self.name} did not end within {within} s\n{self.tail()}") from None

    def tail(self, lines: int = 60) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"--- {self.log.name}\n" + "\n".join(text.splitlines()[-lines:])


class Cloud:
    """`cloudhub standalone` on ports of its own, and kubectl to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        WRITTEN.folders.add(folder)
        self.data_dir = folder / "cloud"
        self.kubeconfig = self.data_dir / "kubeconfig"
        self.token_options: list[str | Path] = ["--data-dir", self.data_dir]
        self.websocket_port, self.https_port, self.metrics_port = free_port(), free_port(), free_port()
        self.program = Program(
            "cloudhub",
            [
                BIN / "cloudhub", "--debug", "standalone", "--data-dir", self.data_dir, "--api-port", str(free_port()),
                "--websocket-port", str(self.websocket_port), "--https-port", str(self.https_port),
                "--metrics-address", f"127.0.0.1:{self.metrics_port}",
            ],
            folder / "cloudhub.log",
        )  # fmt: skip

    async def start(self) -> None:
        self.program.start()
        await self.until_ready()

    async def until_ready(self) -> None:
        async def ready() -> bool:
            return (await self.monitor("/readyz"))[0] == 200

        await eventually("cloudhub is ready", ready, within=60)

    async def monitor(self, path: str) -> tuple[int, str]:
        """Status and body of a path of the monitor server; status 0 while nothing listens."""
        assert self.program.running, f"cloudhub ended\n{self.program.tail()}"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.metrics_port)
        except OSError:
            return 0, ""
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        return int(head.split()[1]) if head else 0, body

    async def kubectl(self, *args: str | Path, stdin: str = "", code: int = 0) -> str:
        return await command(
            BIN / "kubectl", "--kubeconfig", self.kubeconfig, "--cache-dir", self.folder / "kube-cache", *args,
            stdin=stdin, code=code,
        )  # fmt: skip

    async def apply(self, text: str, **expected: int) -> str:
        return await self.kubectl("apply", "-f", "-", stdin=text, **expected)

    async def token(self, *args: str) -> str:
        return (await command(BIN / "cloudhub", "token", *self.token_options, *args)).strip()

    async def job(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(await self.kubectl("get", "imageprepulljob", name, "-o", "json"))
        return document

    async def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = (await self.job(name)).get("status", {})
        return status

    async def finished(self, name: str, *, within: float = 90) -> dict[str, Any]:
        """The status once the job is at its end."""

        async def ended() -> dict[str, Any] | None:
            status = await self.status(name)
            return status if status.get("state") in ("Successful", "Failed") else None

        try:
            return await eventually(f"job {name} ends", ended, within=within)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(await self.status(name))}\n{self.program.tail()}") from None

    async def until(self, name: str, holds: Callable[[dict[str, Any]], bool], *, within: float = 60) -> dict[str, Any]:
        """The status once ``holds`` says so of it."""

        async def probe() -> dict[str, Any] | None:
            status = await self.status(name)
            return status if status and holds(status) else None

        return await eventually(f"job {name} comes so far", probe, within=within)


class ClusterCloud(Cloud):
    """`cloudhub run` against an API server in a process of its own. ``settings`` is laid over cloudcore.yaml;
    ``definition`` of jobs: ours, or an edition of KubeEdge's. Without ``debug`` it logs as a hub in production does."""

    def __init__(self, folder: Path, settings: dict[str, Any], definition: str = "ours", *, debug: bool = True) -> None:
        super().__init__(folder)
        self.data_dir.mkdir()
        self.config = folder / "cloudcore.yaml"
        self.token_options = ["--config", self.config]
        self.api = Program(
            "apiserver",
            [sys.executable, "-m", "tests.e2e.apiserver", self.data_dir, str(free_port()), definition],
            folder / "apiserver.log",
        )
        run: list[str | Path] = [BIN / "cloudhub", *(["--debug"] if debug else []), "run", "--config", self.config]
        self.program = Program("cloudhub", run, folder / "cloudhub.log")
        self.write_config(settings)

    def write_config(self, settings: dict[str, Any]) -> None:
        """``settings``: of modules, by module."""
        files = self.folder / "pki"
        modules: dict[str, Any] = {
            "cloudHub": {
                "advertiseAddress": ["127.0.0.1"],
                "websocket": {"address": "127.0.0.1", "port": self.websocket_port},
                "https": {"address": "127.0.0.1", "port": self.https_port},
                "tlsCAFile": str(files / "rootCA.crt"),
                "tlsCAKeyFile": str(files / "rootCA.key"),
                "tlsCertFile": str(files / "server.crt"),
                "tlsPrivateKeyFile": str(files / "server.key"),
            },
            "taskManager": {"dataDir": str(self.folder / "queue")},
        }
        for module, keys in settings.items():
            modules[module] = modules.get(module, {}) | keys
        document = {
            "apiVersion": "cloudcore.config.kubeedge.io/v1alpha2",
            "kind": "CloudCore",
            "commonConfig": {"monitorServer": {"bindAddress": f"127.0.0.1:{self.metrics_port}"}},
            "kubeAPIConfig": {"kubeConfig": str(self.kubeconfig), "unavailableAfter": 1},
            "modules": modules,
        }
        self.config.write_text(json.dumps(document))  # which is YAML too

    async def start_api(self) -> None:
        self.kubeconfig.unlink(missing_ok=True)
        self.api.start()

        async def there() -> bool:
            assert self.api.running, f"the API server ended\n{self.api.tail()}"
            return await asyncio.to_thread(self.kubeconfig.exists)

        await eventually("the API server is ready", there, within=60)


class Node:
    """One `edgehub` with its files."""

    def __init__(self, cloud: Cloud, name: str, *, runtime: str = "builtin") -> None:
        self.cloud = cloud
        self.name = name
        self.runtime = runtime
        self.folder = cloud.folder / name
        self.config = self.folder / "edgecore.yaml"
        self.program = Program(
            name, [BIN / "edgehub", "--debug", "run", "--config", self.config], cloud.folder / f"{name}.log"
        )

    async def join(self, token: str = "") -> None:
        """With a token for this node, made now, unless another is given."""
        await command(
            BIN / "edgehub", "join", "--server", f"https://127.0.0.1:{self.cloud.https_port}",
            "--token", token or await self.cloud.token("--node", self.name), "--node-name", self.name,
            "--websocket-server", f"127.0.0.1:{self.cloud.websocket_port}", "--config", self.config,
            "--data-dir", self.folder / "data", "--runtime-endpoint", self.runtime,
        )  # fmt: skip

    async def start(self, *, wait: bool = True) -> None:
        """``wait``: until its Node object is Ready."""
        if not await asyncio.to_thread(self.config.exists):
            await self.join()
        self.program.start()
        if wait:
            await self.until_ready()

    async def until_ready(self) -> None:
        await eventually(f"{self.name} is Ready", self.ready, within=60)

    async def ready(self) -> bool:
        assert self.program.running, f"{self.name} ended\n{self.program.tail()}"
        return await self.condition() == "True"

    async def condition(self) -> str:
        path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        return await self.cloud.kubectl("get", "node", self.name, "--ignore-not-found", "-o", path)

    async def images(self) -> str:
        return await command(BIN / "edgehub", "images", "--config", self.config)


def node_entry(status: dict[str, Any], node: str) -> dict[str, Any]:
    """``nodeStatus`` and ``imageStatus`` of one node in a job's status."""
    found = [entry for entry in status.get("status", []) if entry["nodeStatus"]["nodeName"] == node]
    assert len(found) == 1, f"{len(found)} entries for {node}"
    entry: dict[str, Any] = found[0]
    return entry
