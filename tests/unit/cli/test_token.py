"""`cloudhub token --ttl`: what is refused before anything is read."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cloudhub.cli import app

WRONG = 2


@pytest.mark.parametrize(
    ("ttl", "problem"),
    [
        ("3651d", "'3651d' is too long: it must be at most 3650d"),
        ("99999999d", "it must be at most 3650d"),
        ("0h", "must be a number with s, m, h or d"),
        ("24", "must be a number with s, m, h or d"),
        ("-1h", "must be a number with s, m, h or d"),
    ],
)
def test_a_life_that_no_token_can_have_is_a_wrong_call(ttl: str, problem: str) -> None:
    result = CliRunner().invoke(app, ["token", "--data-dir", "nowhere", f"--ttl={ttl}"])
    assert result.exit_code == WRONG
    assert problem in " ".join(result.output.split())


def test_the_longest_life_is_taken() -> None:
    result = CliRunner().invoke(app, ["token", "--data-dir", "nowhere", "--ttl=3650d"])
    assert "rootCA.crt is missing" in str(result.exception)
