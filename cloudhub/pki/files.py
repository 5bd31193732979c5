"""Writing small secret files: whole or not at all, readable by their owner alone."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from cloudhub.pki.errors import PKIError


def write_private(path: Path, content: bytes) -> None:
    """Replaces ``path`` in one step, mode 0600, on disk when this returns. The folder is made (0700) if need be."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes the file 0600 whatever the umask; it is never readable by others, not even for a moment.
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise PKIError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_private(path: Path) -> bytes | None:
    """The content, None when there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PKIError(f"{path}: cannot be read: {error.strerror or error}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
