"""A clock that is off for one process, and that may be set while it runs: Debian's libfaketime.

Only the time of day is changed. Monotonic clocks go on, as they do when a real clock is set: event loops sleep by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.parts.process import PartError

_LIBRARIES: Final = Path("/usr/lib")
_LIBRARY: Final = "*/faketime/libfaketimeMT.so.1"


class Clock:
    """Kept in ``file``, which is read by the process about once a second."""

    def __init__(self, file: Path, offset: int = 0) -> None:
        """``offset``: seconds ahead of the real clock; less than 0: behind it."""
        self._file = file
        self._offset = 0
        self.offset = offset
        found = sorted(_LIBRARIES.glob(_LIBRARY))
        if not found:
            raise PartError("libfaketime is not there; tests/debian-packages.txt names the packages that tests need")
        self._library = found[0]

    @property
    def offset(self) -> int:
        return self._offset

    @offset.setter
    def offset(self, seconds: int) -> None:
        self._offset = seconds
        temporary = self._file.with_suffix(".new")
        temporary.write_text(f"{seconds:+d}s\n")
        temporary.replace(self._file)

    def command(self, command: Sequence[str | Path]) -> list[str]:
        """``command``, to be run by this clock; it is the process, with no other between."""
        return [
            "env",
            f"LD_PRELOAD={self._library}",
            f"FAKETIME_TIMESTAMP_FILE={self._file}",
            "FAKETIME_CACHE_DURATION=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
            *map(str, command),
        ]
