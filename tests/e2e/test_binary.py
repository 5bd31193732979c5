"""dist/edgehub, the agent as one file: alone on a machine without Python it does what the agent from the sources does.

It is two processes, of which the first only passes on what it is told; from outside they must look like one program.
The file is made by `make binary`, which does nothing when it is newer than all that it is made of.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import types
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
import yaml
from PyInstaller.archive.readers import CArchiveReader

from tests.e2e.conftest import PASSWORD
from tests.e2e.processes import BIN, Cloud, Node, Program, command, eventually
from tests.parts.containerd import Containerd
from tests.parts.registry import Registry

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]  # the first test waits for the build

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
SIZE_LIMIT = 32 * MIB
COMMANDS: tuple[list[str], ...] = ([], ["join"], ["run"], ["status"], ["images"])
NOT_THE_AGENTS = {
    "cloudhub", "sqlalchemy", "alembic", "aiosqlite", "kubernetes_asyncio", "celpy", "re2", "prometheus_client",
    "jsonschema", "jwt", "rich", "tests", "pytest", "hypothesis", "mypy", "grpc_tools", "setuptools", "tkinter",
}  # fmt: skip


@pytest.fixture(scope="session")
def built() -> Path:
    (ROOT / "build").mkdir(exist_ok=True)
    # Without what a make around us says of itself: this is a make of its own.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    with (ROOT / "build" / "binary.lock").open("w") as lock:  # one of several pytests builds, the others wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            ["make", "--no-print-directory", f"VENV={sys.prefix}", "binary"],
            cwd=ROOT, env=env, capture_output=True, text=True, timeout=280,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "dist" / "edgehub"


@pytest.fixture
def binary(built: Path, tmp_path: Path) -> Path:
    """A copy, alone in a folder."""
    folder = tmp_path / "alone"
    folder.mkdir()
    return Path(shutil.copy(built, folder))


class BinaryNode(Node):
    """A node that has nothing but the file: no environment, no PATH, and a TMPDIR that shows what is left there."""

    def __init__(self, cloud: Cloud, name: str, binary: Path, *, runtime: str) -> None:
        super().__init__(cloud, name, runtime=runtime)
        self.temporary = cloud.folder / f"{name}-tmp"
        self.temporary.mkdir()
        self.words: list[str | Path] = ["env", "-i", f"TMPDIR={self.temporary}", binary]
        self.program = Program(
            name, [*self.words, "run", "--config", self.config], cloud.folder / f"{name}.log"
        )  # `env` becomes what it starts, so the process that is known is the file's own

    async def join(self, token: str = "") -> None:
        await self.edgehub(
            "join", "--server", f"https://127.0.0.1:{self.cloud.https_port}",
            "--token", token or await self.cloud.token("--node", self.name), "--node-name", self.name,
            "--websocket-server", f"127.0.0.1:{self.cloud.websocket_port}", "--config", self.config,
            "--data-dir", self.folder / "data", "--runtime-endpoint", self.runtime,
        )  # fmt: skip

    async def images(self) -> str:
        return await self.edgehub("images", "--config", self.config)

    async def edgehub(self, *args: str | Path, code: int = 0) -> str:
        return await command(*self.words, *args, code=code)

    async def until_ready(self) -> None:
        """And it is this process that is connected: for the hub, the one before may not have left yet."""
        status = self.folder / "data" / "status.json"

        async def connected() -> bool:
            assert self.program.running, f"{self.name} ended\n{self.program.tail()}"
            children = psutil.Process(self.program.pid).children(recursive=True)
            told = json.loads(status.read_bytes()) if status.exists() else {}
            return bool(children and told and told["pid"] == children[0].pid and told["connection"]["connected"])

        await eventually(f"{self.name} is connected", connected, within=60)
        await super().until_ready()

    def child(self) -> psutil.Process:
        children = psutil.Process(self.program.pid).children(recursive=True)
        assert len(children) == 1, children
        return children[0]

    def left(self) -> list[str]:
        """What lies in TMPDIR."""
        return os.listdir(self.temporary)

    async def until_stopped_by_itself(self, child: psutil.Process) -> None:
        async def both_gone() -> bool:
            return not self.program.running and not _lives(child)

        await eventually(f"both processes of {self.name} end", both_gone, within=60)


def _lives(process: psutil.Process) -> bool:
    """A zombie does not: some machines have no init that takes it away."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def node(built: Path, cloud: Cloud) -> AsyncIterator[BinaryNode]:
    """With the built-in image store; the tests stop, kill and start it."""
    node = BinaryNode(cloud, "binary-1", built, runtime="builtin")
    yield node
    await node.program.kill()


@pytest.fixture
def temporary() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="binary-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "edgehub")
async def test_the_file_alone_prints_the_same_help_as_the_sources(binary: Path, words: list[str]) -> None:
    printed = await command("env", "-i", binary, *words, "--help")
    assert printed == await command("env", "-i", BIN / "edgehub", *words, "--help")
    assert os.listdir(binary.parent) == [binary.name]


async def test_it_knows_its_version_and_leaves_nothing_behind(binary: Path, temporary: Path) -> None:
    printed = await command("env", "-i", f"TMPDIR={temporary}", binary, "--version")
    assert printed == f"edgehub {importlib.metadata.version('cloudhub')}\n"
    assert os.listdir(temporary) == []


async def test_errors_are_one_line_and_exit_codes_come_through(binary: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    said = await command("env", "-i", binary, "run", "--config", missing, code=1)
    assert said == f"edgehub: cannot read {missing}: No such file or directory\n"
    assert "No such command" in await command("env", "-i", binary, "pull", code=2)
    said = await command("env", "-i", binary, "status", "--data-dir", tmp_path, code=3)
    assert said == f"no agent has run on the data folder {tmp_path} yet\n"


async def test_images_of_an_empty_store_are_none_and_of_an_absent_runtime_an_error(
    binary: Path, tmp_path: Path
) -> None:
    config = tmp_path / "edgecore.yaml"

    def edgecore(runtime: str) -> None:
        edged = {"hostnameOverride": "n1", "tailoredKubeletConfig": {"containerRuntimeEndpoint": runtime}}
        modules = {"edged": edged, "taskManager": {"dataDir": str(tmp_path / "data")}}
        config.write_text(yaml.safe_dump({"modules": modules}))

    edgecore("builtin")
    words: list[str | Path] = ["env", "-i", binary, "images", "--config", config]
    assert (await command(*words)).split() == ["IMAGE", "ID", "SIZE"]
    edgecore(f"unix://{tmp_path}/no.sock")
    said = await command(*words, code=1)
    assert said.count("\n") == 1
    assert f"{tmp_path}/no.sock" in said


def test_it_holds_the_agent_and_nothing_else_and_stays_small(built: Path) -> None:
    archive = CArchiveReader(str(built))
    modules = archive.open_embedded_archive("PYZ.pyz")
    packages = {name.split(".")[0] for name in modules.toc}
    files = {name.split("/")[0].split(".")[0] for name in archive.toc}
    assert (packages | files) & NOT_THE_AGENTS == set()
    metadata = f"cloudhub-{importlib.metadata.version('cloudhub')}.dist-info/METADATA"
    assert [name for name in archive.toc if name.startswith("cloudhub")] == [metadata]
    sources = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "edgehub").rglob("*.py")
    }
    assert sources - set(modules.toc) <= {"edgehub.__main__"}  # what is started is docker/binary/main.py
    # Without its codec, Python does not even start on a node whose locale is zh_CN.GB18030.
    assert {"_codecs_cn", "_codecs_tw", "_codecs_jp", "_codecs_kr"} <= {
        name.split("/")[-1].split(".")[0] for name in archive.toc
    }
    assert built.stat().st_size <= SIZE_LIMIT


def test_it_says_nothing_of_the_machine_that_it_was_built_on(built: Path) -> None:
    archive = CArchiveReader(str(built))
    modules = archive.open_embedded_archive("PYZ.pyz")
    for name in modules.toc:
        code = modules.extract(name)
        if isinstance(code, types.CodeType):
            assert not code.co_filename.startswith("/"), name
    for name, entry in archive.toc.items():
        if entry[-1] == "x":  # a data file
            assert str(ROOT).encode() not in archive.extract(name), name


def _job(name: str, image: str, node: str) -> str:
    template: dict[str, Any] = {
        "images": [image], "nodeNames": [node], "imageSecrets": "default/registry-secret", "checkItems": ["disk"],
    }  # fmt: skip
    document = {
        "apiVersion": "operations.kubeedge.io/v1alpha1",
        "kind": "ImagePrePullJob",
        "metadata": {"name": name},
        "spec": {"imagePrePullTemplate": template},
    }
    return yaml.safe_dump(document)


async def test_it_joins_and_pulls_into_its_own_store_and_stops_on_sigterm(
    cloud: Cloud, node: BinaryNode, registry: Registry, secret: str
) -> None:
    image = registry.push_image("binary/builtin", layers=(300_000, 200_000)).reference
    await node.start()
    await cloud.apply(_job("binary-builtin", image, node.name))
    status = await cloud.finished("binary-builtin")
    assert status["state"] == "Successful", status
    assert image in await node.images()
    told = await node.edgehub("status", "--config", node.config)
    assert f"process {node.child().pid}" in told
    assert "connected to 127.0.0.1" in told

    child = node.child()
    assert await node.program.stop() == 0, node.program.tail()
    assert not _lives(child)
    assert node.left() == []
    assert PASSWORD not in node.program.tail(lines=10_000)
    await node.edgehub("status", "--config", node.config, code=3)


async def test_it_joins_and_pulls_through_containerd(
    built: Path, cloud: Cloud, containerd: Containerd, registry: Registry, secret: str
) -> None:
    image = registry.push_image("binary/cri", layers=(300_000, 200_000)).reference
    node = BinaryNode(cloud, "binary-cri", built, runtime=containerd.endpoint)
    try:
        await node.start()
        await cloud.apply(_job("binary-cri", image, node.name))
        status = await cloud.finished("binary-cri")
        assert status["state"] == "Successful", status
        assert image in containerd.ctr_images()
        assert image in await node.images()
    finally:
        assert await node.program.stop() == 0, node.program.tail()
    assert node.left() == []


async def test_control_c_which_reaches_both_processes_stops_it_cleanly(node: BinaryNode) -> None:
    await node.start()
    child = node.child()
    os.killpg(node.program.pid, signal.SIGINT)
    await node.until_stopped_by_itself(child)
    assert await node.program.stop() == 0, node.program.tail()
    assert node.left() == []


async def test_when_the_first_process_is_killed_the_agent_stops_and_tidies_up(node: BinaryNode) -> None:
    await node.start()
    child = node.child()
    await node.program.kill()

    async def gone() -> bool:
        return not _lives(child)

    await eventually("the agent follows its parent", gone, within=60)
    assert node.left() == []
    await node.start()  # the folder's lock is free
    assert await node.program.stop() == 0


async def test_when_the_agent_is_killed_the_first_process_ends_as_it_did(node: BinaryNode) -> None:
    await node.start()
    child = node.child()
    child.kill()
    await node.until_stopped_by_itself(child)
    assert await node.program.stop() == -signal.SIGKILL
    assert node.left() == []
