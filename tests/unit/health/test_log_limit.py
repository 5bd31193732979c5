"""How much of one message is logged."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from cloudhub.loglimit import MAX_MESSAGES, LogLimit
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


def passed(limit: LogLimit, message: str, times: int = 1) -> list[object]:
    """``left_out`` of the lines that came through; None where there is none."""
    found: list[object] = []
    for _ in range(times):
        try:
            found.append(limit(None, "info", {"event": message}).get("left_out"))
        except structlog.DropEvent:
            continue
    return found


def test_a_flood_is_logged_down_to_a_trickle_and_the_rest_is_counted() -> None:
    now = [0.0]
    limit = LogLimit(burst=3, per_second=2.0, clock=lambda: now[0])
    assert passed(limit, "a", 10) == [None, None, None]
    now[0] = 1.0
    assert passed(limit, "a", 10) == [7, None]
    now[0] = 100.0
    assert passed(limit, "a", 3) == [8, None, None]


def test_a_flood_of_one_message_hides_no_other() -> None:
    limit = LogLimit(burst=1, per_second=0.0, clock=lambda: 0.0)
    assert passed(limit, "flood", 100) == [None]
    assert passed(limit, "another") == [None]


def test_messages_beyond_count_share_one_bucket_so_that_memory_is_bounded() -> None:
    limit = LogLimit(burst=1, per_second=0.0, clock=lambda: 0.0)
    for number in range(MAX_MESSAGES + 500):
        passed(limit, f"message {number}")
    assert len(limit._buckets) == MAX_MESSAGES + 1
    assert passed(limit, "one more") == []


def test_the_hubs_log_is_limited_at_every_level(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(form=LogFormat.JSON, first=(LogLimit(burst=2, per_second=0.0),))
    log = structlog.get_logger()
    for _ in range(5):
        log.info("secret refused", node="edge-1")
        log.error("cannot accept connections", port=1)
    lines = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert sorted(lines) == ["cannot accept connections"] * 2 + ["secret refused"] * 2
