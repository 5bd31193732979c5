"""Every log call of both programs, read and not run: a call that cannot work is met only when something goes wrong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
TAKEN = {"event", "self", "method_name", "level", "timestamp", "exception", "stack", "stack_info", "logger"}
"""Names that structlog's methods or processors have for themselves; the first three make the call raise."""


def calls() -> Iterator[tuple[str, ast.Call]]:
    for package in ("cloudhub", "edgehub", "shared"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in LEVELS
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id in ("log", "_log")
                ):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


@pytest.mark.parametrize(("where", "call"), [pytest.param(where, call, id=where) for where, call in calls()])
def test_a_log_call_has_one_constant_message_and_fields_of_free_names(where: str, call: ast.Call) -> None:
    assert len(call.args) == 1, f"{where}: values belong into fields"
    message = call.args[0]
    assert isinstance(message, ast.Constant), f"{where}: the message varies"
    assert isinstance(message.value, str), where
    assert not {keyword.arg for keyword in call.keywords} & TAKEN, where


def test_there_are_log_calls_to_look_at() -> None:
    assert len(list(calls())) > 100
