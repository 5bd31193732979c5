"""docs/standalone.md's list of differences, written from the docstring of `cloudhub.standalone`.

python -m tests.unit.docs.differences
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import cloudhub.standalone

PAGE: Final = Path(__file__).parents[3] / "docs" / "standalone.md"
_SECTION: Final = re.compile(r"(<!-- written from [^\n]*-->\n).*(<!-- end -->)", re.DOTALL)


def rendered() -> str:
    """The page's text as it should be."""
    docstring = cloudhub.standalone.__doc__ or ""
    _, _, differences = docstring.partition("as far as is known:\n")
    # A line without a mark begins a chapter of its own.
    chapters = re.sub(r"(?m)^(\w.*)\n(?=- )", r"### \1\n\n", differences.strip())
    return _SECTION.sub(lambda found: f"{found[1]}\n{chapters}\n\n{found[2]}", PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(rendered())
