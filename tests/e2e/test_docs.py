"""Every command of README.md, run in its order as its reader would, and its output compared with what the page shows.

The page's work folder is a temporary one with `.venv` and `docker` as in the repository. What is substituted: the ports
(others may be in use), and the registry's name. What cannot be run here (`make` within `make`, Docker, a cluster) is
checked in another way, listed in `CHECKED`. README.zh.md has the same commands and outputs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.e2e.documents import ROOT, Block, blocks, missing
from tests.e2e.processes import BIN, Program, command, eventually
from tests.parts.registry import Registry, free_port

pytestmark = pytest.mark.e2e

README, CHINESE = ROOT / "README.md", ROOT / "README.zh.md"
SERVERS = {"cloudhub standalone": "cloudhub is ready", "edgehub run": "session open"}
"""Commands that run until they are stopped, and what their log says once they serve."""


def make_knows(line: str) -> None:
    # Without what a make around us says of itself.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    subprocess.run(["make", "-n", *line.split()[1:]], cwd=ROOT, env=env, check=True, capture_output=True, timeout=60)


def docker_file_is_there(line: str) -> None:
    words = line.split()
    assert (ROOT / words[words.index("-f") + 1]).is_file()


def kustomize_builds(line: str) -> None:
    folder = ROOT / line.split()[-1]
    subprocess.run([BIN / "kubectl", "kustomize", folder], check=True, capture_output=True, timeout=60)


def deployment_is_ours(line: str) -> None:
    metadata = yaml.safe_load((ROOT / "docker/kubernetes/deployment.yaml").read_text())["metadata"]
    assert f"-n {metadata['namespace']} deploy/{metadata['name']} -- cloudhub token" in line


def ports_are_the_services(line: str) -> None:
    service = yaml.safe_load((ROOT / "docker/kubernetes/service.yaml").read_text())
    ports = {port["name"]: port["nodePort"] for port in service["spec"]["ports"]}
    assert f"--server https://HOST:{ports['https']} --websocket-server HOST:{ports['websocket']} " in line


CHECKED: dict[str, Callable[[str], None]] = {
    "make ": make_knows,
    "docker build ": docker_file_is_there,
    "kubectl apply -k ": kustomize_builds,
    "kubectl exec ": deployment_is_ours,
    "edgehub join --server https://HOST:": ports_are_the_services,
}


def check_of(line: str) -> Callable[[str], None] | None:
    return next((check for start, check in CHECKED.items() if line.startswith(start)), None)


@dataclass
class Reader:
    """Someone who types what the page says: one folder, and terminals that share what was exported."""

    folder: Path
    substitutions: dict[str, str]
    servers: list[Program] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    async def type(self, text: str) -> str:
        for written, meant in self.substitutions.items():
            if written in text:
                self.used.add(written)
                text = text.replace(written, meant)
        last = text.rstrip().rpartition("\n")[2]
        for start, ready in SERVERS.items():
            if last.startswith(start):
                await self._serve(f"{text.rstrip().removesuffix(last)}exec {last}", ready)
                return ""
        return await command("bash", "-euo", "pipefail", "-c", f"{self._terminal}\n{text}\nexport -p > environment")

    async def _serve(self, script: str, ready: str) -> None:
        number = len(self.servers)
        log = self.folder / f"terminal-{number}.log"
        server = Program(f"terminal {number}", ["bash", "-euo", "pipefail", "-c", f"{self._terminal}\n{script}"], log)
        self.servers.append(server)
        server.start()

        async def serves() -> bool:
            assert server.running, server.tail()
            return ready in log.read_text()

        await eventually(f"{script} serves", serves, within=60)

    @property
    def _terminal(self) -> str:
        # Whoever runs the tests may have a kubeconfig of their own.
        return (
            f"cd '{self.folder}'; export HOME='{self.folder}'; unset KUBECONFIG\n"
            "! test -f environment || . ./environment"
        )

    async def node_is_ready(self) -> None:
        async def ready() -> bool:
            return "edge-1   Ready " in await self.type("kubectl get nodes")

        await eventually("edge-1 is Ready", ready, within=60)


@pytest_asyncio.fixture
async def reader(registry: Registry) -> AsyncIterator[Reader]:
    websocket, https = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="readme-") as name:
        folder = Path(name)
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "docker").symlink_to(ROOT / "docker")
        reader = Reader(
            folder,
            {
                "cloudhub standalone --data-dir ./cloud": "cloudhub standalone --data-dir ./cloud --api-port 0 "
                f"--websocket-port {websocket} --https-port {https} --metrics-address 127.0.0.1:0",
                "https://127.0.0.1:10002": f"https://127.0.0.1:{https} --websocket-server 127.0.0.1:{websocket}",
                "registry.example.com": registry.address,
            },
        )
        try:
            yield reader
        finally:
            # Nodes first, as they were started last.
            codes = [await server.stop() for server in reversed(reader.servers)]
        assert codes == [0] * len(codes)


def commands_and_outputs(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language in ("sh", "text", "yaml")]


async def test_every_command_of_the_readme_does_what_the_page_shows(reader: Reader, registry: Registry) -> None:
    registry.push_image("jilimoxing/test", tag="nginx", layers=(200_000, 100_000))
    printed = ""
    for block in commands_and_outputs(README):
        if block.language == "sh":
            lines = block.text.replace("\\\n", " ").splitlines()
            checks = [check_of(line) for line in lines]
            if any(checks):
                for line, check in zip(lines, checks, strict=True):
                    assert check is not None, f"a block is run as a whole or checked as a whole: {line}"
                    check(line)
                printed = ""
                continue
            printed = await reader.type(block.text)
            if "edgehub run" in block.text:
                await reader.node_is_ready()
        elif block.language == "text" and printed:
            shown = block.text.replace("registry.example.com", registry.address)
            assert missing(shown, printed) == [], printed
            printed = ""
    assert reader.used == set(reader.substitutions)
    assert len(reader.servers) == len(SERVERS)


def test_both_languages_have_the_same_commands_and_outputs() -> None:
    assert commands_and_outputs(CHINESE) == commands_and_outputs(README)
    assert f"({CHINESE.name})" in README.read_text()
    assert f"({README.name})" in CHINESE.read_text()


def test_a_line_that_was_not_printed_is_found_missing() -> None:
    printed = "NAME   AGE\nedge-1   12s\nimage  5cfafe446696  2.5 KiB\n"
    assert missing("NAME AGE\n...\nedge-1 3s\nimage  000000000001  48.2 MiB\n", printed) == []
    assert missing("NAME ROLES AGE", printed) == ["NAME ROLES AGE"]
    assert missing("edge-1 3s\nNAME AGE", printed) == ["NAME AGE"]
    assert missing("NA...GE", printed) == []


def test_the_yaml_of_the_cluster_section_is_what_the_hub_reads() -> None:
    from cloudhub.config import parse_config

    (text,) = [block.text for block in blocks(README) if block.language == "yaml"]
    document: dict[str, Any] = {"apiVersion": "cloudcore.config.kubeedge.io/v1alpha2", "kind": "CloudCore"}
    assert parse_config({**document, **yaml.safe_load(text)}).config.modules.taskManager.enable
