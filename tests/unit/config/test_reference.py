from __future__ import annotations

from pathlib import Path

from tests.unit.config.reference import EDGE_NOTES, render

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_the_page_is_what_the_models_say() -> None:
    assert PAGE.read_text() == render(), "run: python -m tests.unit.config.reference > docs/configuration.md"


def test_every_key_is_explained_and_no_note_is_of_a_key_that_is_gone() -> None:
    rows = [line.strip("| \n").split(" | ") for line in render().splitlines() if line.startswith("| `modules")]
    assert [row[0] for row in rows if len(row) > 2 and len(row) != 4] == []
    keys = {row[0].strip("`") for row in rows}
    assert EDGE_NOTES.keys() <= keys
