"""A short chaos in the gate: one round of the kinds that differ most, always of the same seed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.chaos.__main__ import main, schedule
from tests.chaos.catalogue import BY_NAME, ROUNDS
from tests.e2e.processes import command

SEED = 4
KINDS = ("hub-killed", "nodes-and-hub-killed", "api-stopped")


@pytest.mark.e2e
@pytest.mark.timeout(300)
async def test_a_few_rounds_find_nothing(tmp_path: Path) -> None:
    chosen = [option for kind in KINDS for option in ("--only", kind)]
    output = tmp_path / "lines"
    out = await command(
        sys.executable, "-m", "tests.chaos", "--seed", str(SEED), "--rounds", str(len(KINDS)), *chosen,
        "--output", output, within=280,
    )  # fmt: skip
    lines = [json.loads(line) for line in out.splitlines()]
    assert sorted(line["round"] for line in lines) == sorted(KINDS)
    assert all(not line["problems"] for line in lines)
    assert output.read_text() == out


def test_the_kinds_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [kind.name for kind in ROUNDS]


def test_names_are_names_of_jobs_too() -> None:
    assert len(BY_NAME) == len(ROUNDS)
    assert all(name.replace("-", "").isalnum() and name == name.lower() for name in BY_NAME)


def test_the_hub_is_killed_in_at_least_a_hundred_rounds() -> None:
    assert BY_NAME["hub-killed"].times >= 100
    assert BY_NAME["hub-killed"].plan.nodes >= 200


def test_every_kind_has_its_turn_before_any_has_many() -> None:
    planned = schedule(ROUNDS, len(ROUNDS), 0)
    assert len(planned) == len(ROUNDS)
    assert len({kind for kind, _ in schedule(ROUNDS, 2 * len(ROUNDS), 0)}) == len(ROUNDS)


def test_without_a_number_each_is_played_as_often_as_it_says() -> None:
    planned = [kind for kind, _ in schedule(ROUNDS, None, 0)]
    assert all(planned.count(kind) == kind.times for kind in ROUNDS)


def test_a_round_can_be_played_again_by_its_number() -> None:
    kind = BY_NAME["hub-killed"]
    assert schedule([kind], 1, 57) == [(kind, 57)]
