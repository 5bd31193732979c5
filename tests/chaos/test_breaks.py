"""What is broken on purpose is in the program as it is today, and whoever should notice exists."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.chaos.breaklist import BREAKS, Break, Change
from tests.chaos.breaks import IMPATIENT, ROOT, as_it_should_be, copied, main
from tests.chaos.catalogue import BY_NAME


@pytest.mark.parametrize("broken", BREAKS, ids=[broken.name for broken in BREAKS])
def test_a_break_changes_the_program_and_leaves_it_a_program(broken: Break) -> None:
    texts: dict[str, str] = {}
    for change in (*IMPATIENT, *broken.changes):
        before = texts.get(change.file) or (ROOT / change.file).read_text()
        texts[change.file] = change.applied(before)
        assert texts[change.file] != before
        ast.parse(texts[change.file])


def test_only_the_control_leaves_the_program_alone() -> None:
    assert [broken.name for broken in BREAKS if not broken.changes] == ["nothing"]
    assert len({broken.name for broken in BREAKS}) == len(BREAKS)
    assert {kind for broken in BREAKS for kind, _, _ in broken.rounds} <= set(BY_NAME)


def test_a_text_that_is_not_there_once_is_no_change() -> None:
    change = Change("file", "two", "three")
    assert change.applied("one two") == "one three"
    for text in ("one", "two two"):
        with pytest.raises(ValueError, match="not once"):
            change.applied(text)


def test_the_copy_is_broken_and_the_source_is_not(tmp_path: Path) -> None:
    broken = next(broken for broken in BREAKS if broken.name == "readyz-always-green")
    copied(tmp_path, broken)
    assert "if True:" in (tmp_path / "cloudhub/health.py").read_text()
    assert "if True:" not in (ROOT / "cloudhub/health.py").read_text()
    assert (tmp_path / "tests/chaos/__main__.py").exists()


@pytest.mark.parametrize(
    ("noticed", "of", "broken", "control"),
    [(0, 4, False, True), (1, 4, False, False), (2, 4, True, False), (4, 4, True, False), (0, 0, False, False)],
)
def test_half_of_the_rounds_must_notice(noticed: int, of: int, broken: bool, control: bool) -> None:
    tally = {"noticed": noticed, "of": of}
    nothing, something = BREAKS[0], BREAKS[1]
    assert (as_it_should_be(something, tally), as_it_should_be(nothing, tally)) == (broken, control)


def test_the_breaks_are_listed_as_in_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    rows = capsys.readouterr().out
    assert rows.count("\n") == len(BREAKS) + 1
    assert rows in (ROOT / "CONTRIBUTING.md").read_text()
