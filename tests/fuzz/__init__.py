"""Everything that enters the programs from outside, fed with what no honest peer sends.

A `Target` is one way in. Whatever its bytes, it may succeed or raise its documented error, whose text is short and
holds no secret; it may neither crash, nor hang, nor grow. `tests.fuzz.test_targets` runs all of them briefly and always
alike; ``make fuzz`` runs them for as long as wanted, with coverage as the guide where atheris is installed.
"""

from __future__ import annotations

from tests.fuzz.target import Target


def all_targets() -> tuple[Target, ...]:
    """Imported late: the targets import both programs."""
    from tests.fuzz import databases, files, parsers, peers, scripts

    return (*parsers.TARGETS, *peers.TARGETS, *scripts.TARGETS, *files.TARGETS, *databases.TARGETS)
