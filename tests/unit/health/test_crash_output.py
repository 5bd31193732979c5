"""What a program that crashes prints with --debug and credentials in its hands: a traceback, and no credential."""

from __future__ import annotations

import subprocess
import sys

import pytest

CRASH = """
import asyncio, sys
import structlog
from shared.cli import LogFormat, run_command
from shared.logs import configure_logs
from shared.wire import Credential, Dispatch, Message
from edgehub.config import EdgeCoreConfig

password = "hunter" + str(2)
credential = Credential(registry="r.example", username="tiger", password=password)

def held(what):
    dispatch = {
        "imagePrePullTemplate": {"images": ["a"]},
        "task": {"job_uid": "u", "attempt": 1, "timeout_seconds": 1, "credentials": {"a": credential.model_dump()}},
    }
    known = Dispatch.model_validate(dispatch)
    match what:
        case "locals":
            raise RuntimeError(f"crashed with {known!r} and {credential!r}")
        case "credential":
            Credential.model_validate(["r.example", password])
        case "dispatch":
            dispatch["imagePrePullTemplate"] = {"images": password}
            Dispatch.model_validate(dispatch)
        case "message":
            Message.model_validate({"header": dispatch})
        case "settings":
            EdgeCoreConfig.model_validate({"modules": {"edgeHub": {"token": [password]}}})

def main():
    how, form, whats = sys.argv[1], LogFormat(sys.argv[2]), sys.argv[3:]
    configure_logs(form=form, debug=True)
    if how == "logged":
        for what in whats:
            try:
                held(what)
            except Exception:
                structlog.get_logger().exception("failed", what=what)
        sys.exit(1)
    async def program():
        async def work():
            held(whats[0])
        async with asyncio.TaskGroup() as group:
            group.create_task(work())
    asyncio.run(program(), debug=True) if how == "task" else held(whats[0])

run_command(main, program="edgehub", debug=lambda: True)
"""


ALL = ("locals", "credential", "dispatch", "message", "settings")


@pytest.mark.parametrize(
    "words",
    [("logged", "json", *ALL), ("logged", "text", *ALL), ("raised", "text", "dispatch"), ("task", "text", "settings")],
    ids=lambda words: "-".join(words[:2]),
)
def test_a_crash_with_debug_shows_where_and_no_credential(words: tuple[str, ...]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CRASH, *words], capture_output=True, text=True, timeout=100, check=False
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1
    assert said.count("Traceback") >= len(words) - 2
    assert "held" in said
    assert "hunter2" not in said
