"""Prints how many runs each target had, when it was asked for more than the gate's."""

from __future__ import annotations

import pytest

from tests.fuzz.runs import EXAMPLES, REFUSED, RUNS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if EXAMPLES and RUNS:
        terminalreporter.section("fuzz runs")
        for target, count in sorted(RUNS.items()):
            terminalreporter.line(f"{target:28} {count:8} runs, {REFUSED[target]:8} refused")
