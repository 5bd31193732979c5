"""A short chaos of real agents in the gate: one round of each kind that needs no minutes, always of the same seed."""

from __future__ import annotations

import json
import sys

import pytest

from tests.e2e.processes import command

SEED = 8
KINDS = ("network-half-open", "clock-set", "registry-trouble", "hub-disk-full")


@pytest.mark.e2e
@pytest.mark.timeout(300)
async def test_agents_survive_a_round_of_each_kind() -> None:
    chosen = [option for kind in KINDS for option in ("--only", kind)]
    args = ["--seed", str(SEED), "--rounds", str(len(KINDS)), *chosen]
    lines = [
        json.loads(line)
        for line in (await command(sys.executable, "-m", "tests.chaos", *args, within=280)).splitlines()
    ]
    assert [line["round"] for line in lines] == list(KINDS)
    assert [line["problems"] for line in lines] == [[]] * len(KINDS)
