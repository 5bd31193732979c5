from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from shared.cli import LogFormat
from shared.logs import configure_logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_lines_have_message_level_time_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(form=LogFormat.JSON)
    structlog.get_logger().info("a node connected", node="edge-1")
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["node"]) == ("a node connected", "info", "edge-1")
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize("form", list(LogFormat))
def test_a_secret_is_never_written_nor_the_locals_of_a_traceback(
    form: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(form=form, debug=True)
    password = "hunter" + str(2)
    structlog.get_logger().info("joined", token=password, Password=password, node="edge-1")
    try:
        raise ValueError("wrong")
    except ValueError:
        structlog.get_logger().exception("failed")
    said = capsys.readouterr().err
    assert "hunter2" not in said
    assert "edge-1" in said
    assert "ValueError" in said


@pytest.mark.parametrize("debug", [True, False])
def test_libraries_are_heard_from_warnings_on(debug: bool, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(form=LogFormat.JSON, debug=debug)
    logging.getLogger("kubernetes_asyncio.client.rest").debug("response body: hunter2")
    logging.getLogger("aiohttp").warning("slow")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["slow"]


def test_debug_shows_our_own_debug(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(form=LogFormat.TEXT, debug=True)
    structlog.get_logger().debug("seen")
    configure_logs(form=LogFormat.TEXT)
    structlog.get_logger().debug("unseen")
    said = capsys.readouterr().err
    assert "seen" in said
    assert "unseen" not in said
