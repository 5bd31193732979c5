"""How many runs: few and always the same ones in the gate, as many as `FUZZ_EXAMPLES` says elsewhere.

Counted by target, for the summary that `tests/fuzz/conftest.py` prints."""

from __future__ import annotations

import os
from collections import Counter
from typing import Final, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

Drawn = TypeVar("Drawn")

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "0"))
IN_THE_GATE: Final = 120
IN_THE_GATE_SLOW: Final = 25

RUNS: Final[Counter[str]] = Counter()
REFUSED: Final[Counter[str]] = Counter()


def _settings(in_the_gate: int, share: int = 1) -> settings:
    return settings(
        max_examples=EXAMPLES // share or in_the_gate,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


fuzzing: Final = _settings(IN_THE_GATE)
slow_fuzzing: Final = _settings(IN_THE_GATE_SLOW, share=20)
"""Of targets with a server or a disk: a twentieth."""


def ran(target: str, *, refused: bool) -> None:
    RUNS[target] += 1
    REFUSED[target] += refused


def drawn(strategy: SearchStrategy[Drawn], profile: settings) -> list[Drawn]:
    """As many as the profile wants, for one server that is fed them all: a server for each would take the time."""
    found: list[Drawn] = []

    @profile
    @given(strategy)
    def collect(value: Drawn) -> None:
        found.append(value)

    collect()
    return found
