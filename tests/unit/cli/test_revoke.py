"""`cloudhub revoke`: what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloudhub.cli import app

WRONG = 2


@pytest.mark.parametrize("args", [[], ["--undo"], ["--list", "edge-1"], ["--list", "--undo"]])
def test_names_or_a_list_and_not_both(args: list[str]) -> None:
    result = CliRunner().invoke(app, ["revoke", *args, "--data-dir", "nowhere"])
    assert result.exit_code == WRONG
    assert "give the names of nodes, or --list alone" in " ".join(result.output.split())


@pytest.mark.parametrize("args", [["edge-1"], ["--undo", "edge-1"], ["--list"]])
def test_a_folder_that_is_no_hubs_is_left_as_it_is(tmp_path: Path, args: list[str]) -> None:
    result = CliRunner().invoke(app, ["revoke", *args, "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "is no folder of a `cloudhub standalone`" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
