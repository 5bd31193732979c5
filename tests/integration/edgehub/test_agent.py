"""The agent as a process: what it does when it is killed, stopped, started twice, and asked how it is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edgehub.joining import JoinOptions, join_node
from edgehub.status import read_status
from tests.integration.edgehub.conftest import NODE
from tests.integration.edgehub.hub import JWT, Hub, Session, dispatch

IMAGE = "registry.example/team/app:1"
CHECKED, PULLED = ("Check", True), ("Pull", True)


class Node:
    """One data folder, and the agent that runs on it now."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub = hub
        self.folder = folder
        self.config = folder / "edgecore.yaml"
        self.process: asyncio.subprocess.Process | None = None
        self.log = folder / "log"

    async def join(self, *, runtime: str = "builtin", node: str = NODE) -> None:
        await join_node(
            JoinOptions(
                server=self.hub.join_url,
                token=self.hub.ca.token,
                node=node,
                data_dir=self.folder,
                runtime_endpoint=runtime,
                websocket_server=f"127.0.0.1:{self.hub.port}",
            )
        )
        text = self.config.read_text()  # a quick way back, so that tests are quick
        self.config.write_text(text.replace("  edgeHub:\n", "  edgeHub:\n    reconnect: {firstDelay: 0.2}\n"))

    async def start(self, *arguments: str) -> None:
        command = arguments or ("-m", "tests.integration.edgehub.agent_process", str(self.config), str(self.folder))
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *command, stdout=log, stderr=log, env={**os.environ, "NO_COLOR": "1"}
            )

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self, *, within: float = 10.0) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(within):
            return await self.process.wait()

    def pulls(self) -> list[str]:
        path = self.folder / "pulls"
        return path.read_text().splitlines() if path.exists() else []

    async def pulling(self, times: int = 1) -> None:
        async with asyncio.timeout(60):
            while len(self.pulls()) < times:  # noqa: ASYNC110 - another process' file
                await asyncio.sleep(0.01)

    def go(self) -> None:
        (self.folder / "go").touch()

    async def status_with(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """As a watcher reads it: the file itself, which is written twice a second at most."""
        async with asyncio.timeout(60):
            while True:
                status = read_status(self.folder)
                if "tasks" in status and condition(status):
                    return status
                await asyncio.sleep(0.02)

    async def status(self) -> tuple[int, dict[str, Any]]:
        code, out, _ = await edgehub("status", "--config", str(self.config), "-o", "json")
        return code, json.loads(out)


def _images(status: dict[str, Any]) -> list[dict[str, Any]]:
    return [image for task in status["tasks"] for image in task["images"]]


async def edgehub(*arguments: str, stdin: str = "", **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "edgehub",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    async with asyncio.timeout(60):
        out, error = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), error.decode()


@pytest.fixture
async def node(hub: Hub, tmp_path: Path) -> AsyncIterator[Node]:
    node = Node(hub, tmp_path / "node")
    await node.join()
    yield node
    if node.process is not None and node.process.returncode is None:
        await node.kill()


async def _asked(node: Node, **options: Any) -> Session:
    """A session in which the hub asked for the image, at the pull."""
    session = await node.hub.session()
    await session.tell(dispatch(NODE, IMAGE, checkItems=["disk"], **options))
    await node.pulling()
    return session


async def _acknowledge_all(session: Session) -> None:
    for report in session.reports:
        await session.acknowledge(report)


async def test_killed_during_a_pull_it_goes_on_when_it_is_asked_again(node: Node) -> None:
    await node.start()
    session = await _asked(node)
    await node.hub.until(lambda: session.outcomes == [CHECKED])
    await _acknowledge_all(session)
    await node.kill()
    await node.start()
    again = await node.hub.session(2)
    await again.tell(dispatch(NODE, IMAGE, checkItems=["disk"]))
    await node.pulling(2)
    node.go()
    await node.hub.until(lambda: PULLED in again.outcomes)
    content = again.reports[-1]["content"]
    assert content["task"] == {"job_uid": "uid-1", "attempt": 1}
    assert json.loads(content["extend"]) == [{"image": IMAGE, "status": "True", "reason": ""}]
    assert await node.stop() == 0


async def test_killed_after_the_result_and_before_its_acknowledgement_it_tells_it_again_unasked(node: Node) -> None:
    await node.start()
    session = await _asked(node)
    node.go()
    await node.hub.until(lambda: session.outcomes == [CHECKED, PULLED])
    await node.kill()
    await node.start()
    again = await node.hub.session(2)
    await node.hub.until(lambda: again.outcomes == [CHECKED, PULLED])
    assert [report["content"] for report in again.reports] == [report["content"] for report in session.reports]
    await _acknowledge_all(again)
    await again.tell(dispatch(NODE, IMAGE))
    await node.hub.until(lambda: again.outcomes == [CHECKED, PULLED, PULLED])
    assert len(node.pulls()) == 1
    assert await node.stop() == 0


async def test_a_result_made_while_the_hub_is_away_is_told_when_it_is_back(node: Node) -> None:
    await node.start()
    session = await _asked(node)
    await node.hub.until(lambda: session.outcomes == [CHECKED])
    await _acknowledge_all(session)
    await node.hub.stop()
    node.go()
    await node.hub.start()
    again = await node.hub.session(2)
    await node.hub.until(lambda: again.outcomes == [PULLED])
    assert await node.stop() == 0


async def test_cancel_stops_the_pull(node: Node) -> None:
    await node.start()
    session = await _asked(node)
    cancel = dispatch(NODE, IMAGE)
    cancel["route"]["operation"] = "Cancel"
    cancel["content"] = {"job_uid": "uid-1", "attempt": 1, "reason": "the job was deleted"}
    await session.tell(cancel)
    await session.tell(dispatch(NODE, IMAGE, uid="uid-2", job="next"))
    await node.pulling(2)
    status = await node.status_with(lambda status: [task["job"] for task in status["tasks"]] == ["next"])
    assert [(task["job"], task["state"]) for task in status["finished"]] == [("example", "Cancelled")]
    assert await node.stop() == 0


async def test_the_deadline_ends_the_pull_with_a_report(node: Node) -> None:
    await node.start()
    session = await _asked(node, timeout=1)
    await node.hub.until(lambda: session.outcomes == [CHECKED, ("Pull", False)])
    assert "time is up" in session.reports[1]["content"]["reason"]
    assert await node.stop() == 0


async def test_a_cloudcore_gets_kubeedges_reports_and_nothing_else(node: Node) -> None:
    node.hub.features = None
    node.go()
    await node.start()
    session = await node.hub.session()
    await session.tell(dispatch(NODE, IMAGE, uid=None, retryTimes=1, timeoutSeconds=120))
    await node.hub.until(lambda: session.outcomes == [CHECKED, PULLED])
    report = session.reports[1]
    assert report["route"] == {
        "source": "websocket",
        "group": "hub",
        "operation": "UpdateNodeActionStatus",
        "resource": f"operations.kubeedge.io/v1alpha2/imageprepulljob/example/node/{NODE}",
    }
    assert set(report["content"]) == {"action", "succ", "finishTime", "reason", "extend"}
    assert {message["route"]["operation"] for message in session.messages} == {"keepalive", "UpdateNodeActionStatus"}
    assert await node.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_cleanly_in_the_middle_of_a_pull(node: Node, number: signal.Signals) -> None:
    await node.start()
    session = await _asked(node)
    assert node.process is not None
    node.process.send_signal(number)
    assert await node.stop(within=5) == 0
    await session.ended.wait()
    assert session.socket.close_code == 1000
    assert "Traceback" not in node.log.read_text()


async def test_even_a_runtime_that_hangs_does_not_keep_it_beyond_its_time(node: Node) -> None:
    (node.folder / "stuck").touch()
    await node.start()
    await _asked(node)
    assert await node.stop(within=5) == 1  # agent_process allows it 2 s, the command line 9
    log = node.log.read_text()
    assert "still running" in log
    assert "task example" in log


async def test_a_second_agent_on_the_same_folder_is_refused(node: Node) -> None:
    await node.start()
    await node.hub.session()
    code, _, error = await edgehub("run", "--config", str(node.config))
    assert code == 1
    assert error.splitlines()[-1] == f"edgehub: another edgehub runs on the data folder {node.folder}"
    assert await node.stop() == 0


async def test_the_status_shows_the_session_the_certificate_and_how_far_a_pull_is(node: Node) -> None:
    await node.start()
    await _asked(node)
    status = await node.status_with(lambda status: [image["bytesDone"] for image in _images(status)] == [500])
    assert (status["running"], status["node"]) == (True, NODE)
    assert status["connection"]["connected"]
    assert status["connection"]["server"] == f"127.0.0.1:{node.hub.port}"
    assert status["connection"]["features"] == ["ack", "cancel", "credentials", "progress"]
    assert status["certificate"]["notAfter"] > status["certificate"]["renewAt"] > status["updatedAt"]
    assert (status["runtime"]["name"], status["runtime"]["version"]) == ("folder", "1.0")
    task = status["tasks"][0]
    assert (task["job"], task["state"]) == ("example", "Pulling")
    assert task["images"] == [
        {"image": IMAGE, "state": "Pulling", "tries": 1, "bytesDone": 500, "bytesTotal": 2000, "reason": None}
    ]
    code, printed = await node.status()
    assert (code, printed["tasks"]) == (0, status["tasks"])
    code, text, _ = await edgehub("status", "--config", str(node.config))
    assert code == 0
    assert f"connected to 127.0.0.1:{node.hub.port}" in text
    assert f"{IMAGE}: Pulling, 500 B of 2.0 KiB" in text
    assert (node.folder / "status.json").stat().st_mode & 0o077 == 0
    node.go()
    assert await node.stop() == 0


async def test_the_status_of_an_agent_that_was_killed_says_that_it_does_not_run(node: Node) -> None:
    await node.start()
    await node.hub.session()
    await node.status_with(lambda status: status["running"])
    await node.kill()
    code, status = await node.status()
    assert (code, status["running"]) == (3, False)
    code, text, _ = await edgehub("status", "--data-dir", str(node.folder))
    assert code == 3
    assert "not running" in text


async def test_the_status_before_the_first_start_says_so(node: Node) -> None:
    code, text, _ = await edgehub("status", "--config", str(node.config))
    assert (code, text) == (3, f"no agent has run on the data folder {node.folder} yet\n")


async def test_a_certificate_near_its_end_is_renewed_and_the_session_opened_anew(hub: Hub, tmp_path: Path) -> None:
    # Begun five minutes ago, so that nine tenths of its life are over.
    hub.sign = lambda _request, csr: web.Response(
        body=hub.ca.sign(csr.public_key(), csr.subject, life=timedelta(seconds=33))
    )
    node = Node(hub, tmp_path / "node")
    await node.join()
    hub.sign = lambda _request, csr: web.Response(body=hub.ca.sign(csr.public_key(), csr.subject))
    await node.start()
    a_day_on = datetime.now(UTC) + timedelta(days=1)
    await hub.until(lambda: any(session.certificate.not_valid_after_utc > a_day_on for session in hub.sessions))
    path, headers, _ = hub.requests[-1]
    assert (path, "Authorization" in headers) == ("/edge.crt", False)
    assert await node.stop() == 0


# --- The command line


async def test_edgehub_join_and_run_by_hand(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "by hand"
    code, out, error = await edgehub(
        "join", "--server", hub.join_url, "--token-file", "-", "--node-name", NODE, "--data-dir", str(folder),
        "--runtime-endpoint", "builtin", "--websocket-server", f"127.0.0.1:{hub.port}",
        stdin=hub.ca.token + "\n",
    )  # fmt: skip
    assert code == 0, error
    assert out == f"node {NODE} has joined; start it with: edgehub run --config {folder}/edgecore.yaml\n"
    node = Node(hub, folder)
    await node.start("-m", "edgehub", "--log-format", "json", "run", "--config", str(node.config))
    session = await hub.session()
    info = json.loads(session.headers["X-Edgehub-Node-Info"])
    assert (info["operatingSystem"], info["kubeletVersion"][:9]) == ("linux", "edgehub-v")
    assert info["containerRuntimeVersion"]
    assert await node.stop() == 0
    assert [json.loads(line)["level"] for line in node.log.read_text().splitlines()]
    code, out, _ = await edgehub("images", "--config", str(node.config))
    assert (code, out.split()) == (0, ["IMAGE", "ID", "SIZE"])


async def test_the_token_may_come_from_the_environment(hub: Hub, tmp_path: Path) -> None:
    code, _, error = await edgehub(
        "join", "--server", hub.join_url, "--node-name", NODE, "--data-dir", str(tmp_path / "n"),
        EDGEHUB_TOKEN=hub.ca.token,
    )  # fmt: skip
    assert code == 0, error


async def test_an_agent_with_a_token_in_its_file_joins_by_itself(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "n"
    folder.mkdir()
    node = Node(hub, folder)
    node.config.write_text(
        f"modules:\n  edgeHub:\n    httpServer: {hub.join_url}\n    token: {hub.ca.token}\n"
        f"    tlsCaFile: {folder}/ca.crt\n    tlsCertFile: {folder}/node.crt\n"
        f"    tlsPrivateKeyFile: {folder}/node.key\n"
        f"    websocket: {{server: '127.0.0.1:{hub.port}'}}\n  edged: {{hostnameOverride: {NODE}}}\n"
        f"  taskManager: {{dataDir: '{folder}'}}\n  deviceTwin: {{enable: true}}\n"
    )
    await node.start()
    await hub.session()
    assert JWT not in node.config.read_text()
    assert await node.stop() == 0
    log = node.log.read_text()
    assert JWT not in log
    assert log.count("modules.deviceTwin") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "--config", "/none/edgecore.yaml"), "cannot read /none/edgecore.yaml: No such file or directory"),
        (("status", "--config", "/none/edgecore.yaml"), "cannot read /none/edgecore.yaml"),
        (("images", "--config", "/none/edgecore.yaml"), "cannot read /none/edgecore.yaml"),
        (("join", "--server", "https://127.0.0.1:1", "--node-name", "n"), "a token is needed"),
        (("join", "--server", "http://x", "--node-name", "n", "--token", "t"), "--server is 'http://x'"),
        (("join", "--server", "https://x", "--node-name", "n", "--token", "t"), "the token is not of the form"),
        (
            ("join", "--server", "https://127.0.0.1:1", "--node-name", "n", "--token", f"{'a' * 64}.b.c.d"),
            "cannot reach https://127.0.0.1:1/ca.crt: Connection refused",
        ),
    ],
)
async def test_an_error_is_one_line_and_not_zero(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    more = ("--data-dir", str(tmp_path / "d")) if arguments[0] == "join" else ()
    code, out, error = await edgehub(*arguments, *more)
    assert (code, out) == (1, "")
    assert len(error.splitlines()) == 1
    assert error.startswith("edgehub: ")
    assert words in error


async def test_debug_shows_the_traceback() -> None:
    code, _, error = await edgehub("--debug", "run", "--config", "/none/edgecore.yaml")
    assert code == 1
    assert "Traceback" in error


async def test_the_version_is_the_packages() -> None:
    assert (await edgehub("--version"))[1] == f"edgehub {version('cloudhub')}\n"


@pytest.mark.parametrize("command", [(), ("join",), ("run",), ("status",), ("images",)])
async def test_help_has_examples(command: tuple[str, ...]) -> None:
    code, out, _ = await edgehub(*command, "--help")
    assert code == 0
    assert "Usage: " in out
    assert not command or "Example" in out


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("edgehub.cli", {"rich", "aiohttp", "grpc", "pydantic", "asyncio", "structlog"}),
        (
            "edgehub.daemon",
            {"rich", "aiohttp", "grpc", "cryptography", "typer", "psutil", "greenlet", "uvloop"}
            | {"importlib.metadata", "urllib.request", "http.client", "email", "zipfile", "tempfile"},
        ),
    ],
)
async def test_help_and_a_running_agent_do_not_load_what_they_do_not_need(module: str, spared: set[str]) -> None:
    code = f"import sys; import {module}; print(sorted({spared!r} & set(sys.modules)))"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode() == "[]\n"
