"""`make bench-quick` in the gate, and that its judgement can fail."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.bench import report
from tests.bench.cases import broken
from tests.bench.hub import Seen
from tests.e2e.processes import command

SOUND: dict[str, Any] = {
    "nodes": 1000,
    "ended": True,
    "successful": True,
    "dispatched": 1000,
    "lost": 0,
    "twice": 0,
    "pulled_twice": 0,
    "writes": 4,
    "writes_over": -1.0,
    "object_bytes": 100_000,
}


@pytest.mark.timeout(300)
async def test_a_thousand_nodes_keep_the_invariants_and_so_does_a_hub_that_is_killed() -> None:
    out = await command(sys.executable, "-m", "tests.bench", "--quick", within=280)
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["case"] for record in records] == ["quick", "quick-jobs", "quick-restart"]
    assert all(record["dispatched"] == record["nodes"] for record in records)
    # Killed in the middle: each session was lost once, and all were back.
    assert (records[2]["nodes"], records[2]["lost"], records[2]["open"]) == (300, 300, 300)


def test_a_sound_record_is_not_broken() -> None:
    assert broken(SOUND) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"ended": False},
        {"successful": False},
        {"dispatched": 999},
        {"lost": 1},
        {"twice": 1},
        {"pulled_twice": 1},
        {"writes_over": 1.5},
        {"object_bytes": 400_000},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_each_invariant_can_break(wrong: dict[str, Any]) -> None:
    assert len(broken(SOUND | wrong)) == 1


def test_a_task_asked_again_after_a_restart_is_not_broken_but_pulled_again_is() -> None:
    after_restart = SOUND | {"twice": 3, "lost": 1000, "back_s": 1.0}
    assert broken(after_restart) == []
    assert broken(after_restart | {"pulled_twice": 1})
    assert broken(after_restart | {"lost": 1001}), "a node was lost by the hub that came back"


def test_the_gap_is_that_of_the_report_that_waited_longest() -> None:
    seen = Seen(created=0.0, succeeded=[(1.0, 0), (2.0, 2), (5.0, 3)])
    assert seen.longest_gap([1.2, 1.9, 4.5]) == pytest.approx(0.8)
    assert seen.longest_gap([1.2, 1.9, 2.1]) == pytest.approx(2.9)


def test_a_figure_beyond_what_is_to_be_reached_is_missed() -> None:
    records = {
        "1000-nodes-2s": {"seconds": 1.2},
        "idle": {"nodes": 5, "minutes": 1, "core_share": 0.1, "rss_growth": 0, "lost": 1},
    }
    found = {line.figure: line.met for line in report.lines(records)}
    assert found == {
        "s beyond the edges' delay": False,
        "share of a core": True,
        "growth of memory": True,
        "sessions": False,
    }
