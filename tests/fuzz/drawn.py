"""Inputs for one server that is fed them all: a server for each would take the time. In the gate the same each time."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

Value = TypeVar("Value")


def drawn(strategy: st.SearchStrategy[Value], examples: int = 25) -> list[Value]:
    found: list[Value] = []

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def collect(value: Value) -> None:
        found.append(value)

    collect()
    return found
