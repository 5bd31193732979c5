"""A filesystem of a few megabytes that a test fills and frees: what a full disk is, without one.

It is a tmpfs, so a write to it fails as on any full disk, with ENOSPC, and `fill` leaves not one page. Needs root.
"""

from __future__ import annotations

import atexit
import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.parts.process import PartError, run

_BALLAST: Final = ".ballast"
_BLOCK: Final = bytes(64 * 1024)


class SmallDisk:
    """Mounted on ``folder``, which it makes, for as long as the context lasts; what it held is gone then."""

    def __init__(self, folder: Path, *, size: int) -> None:
        """``size`` in bytes."""
        self.folder = folder
        self._size = size
        self._mounted = False

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise PartError("a small disk needs root (it is mounted): run these tests as root")
        self.folder.mkdir(parents=True, exist_ok=True)
        run(["mount", "-t", "tmpfs", "-o", f"size={self._size},mode=0700", "smalldisk", str(self.folder)])
        self._mounted = True
        atexit.register(self.unmount)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unmount()

    def unmount(self) -> None:
        if self._mounted:
            self._mounted = False
            atexit.unregister(self.unmount)
            # Lazily: a process that was not ended yet must not keep the mount for ever.
            run(["umount", "--lazy", str(self.folder)])

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Takes all the space that there is. Once more takes what became free meanwhile."""
        with (self.folder / _BALLAST).open("ab", buffering=0) as ballast:
            for size in (len(_BLOCK), 1):  # the last page too
                try:
                    while True:
                        ballast.write(_BLOCK[:size])
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self) -> None:
        """Gives back what `fill` took."""
        (self.folder / _BALLAST).unlink(missing_ok=True)
