"""The PKI's small secret files: written whole or not at all, private, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

from cloudhub.pki.errors import PKIError
from shared.files import write_atomically


def write_private(path: Path, content: bytes) -> None:
    """Replaces ``path`` in one step, mode 0600, on disk when this returns. The folder is made (0700) if need be."""
    try:
        write_atomically(path, content)
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
