"""What goes wrong with a store, by what its owner does next.

Everything but `StoreUnavailable` is raised while a database is opened: the start is refused, the text says what to do,
and the file is as it was. `StoreUnavailable` comes from a database that worked and may work again: wait and try again.
"""

from __future__ import annotations

import sqlite3


class StoreError(Exception):
    """Base; its text is one clear line for an operator and holds no data of the store."""


class CorruptDatabase(StoreError):
    """The file is no SQLite database, or a damaged one."""


class ForeignDatabase(StoreError):
    """A SQLite database, but of another program."""


class NewerSchema(StoreError):
    """Written by a later version of this program."""


class OtherSchema(StoreError):
    """Kept by a running process of another version of this program, or not yet made by it."""


class ReadOnlyDatabase(StoreError):
    """The folder or the file cannot be written."""


class DatabaseInUse(StoreError):
    """Another process has this database open as its owner."""


class StoreUnavailable(StoreError):
    """Nothing can be committed now: disk full, file system read-only, I/O error. It is tried again by itself."""


class StoreClosed(StoreUnavailable):
    """This process is ending: it is not tried again."""


def words_of(error: Exception) -> str:
    """Why the database could not be used, in the driver's words; SQLAlchemy's own would repeat the statement."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.OperationalError) and str(cause).startswith("Could not decode"):
        return "a text in it is no UTF-8"  # the driver repeats that text, which may be a Secret's
    # In one line, and short: of a damaged schema the driver repeats all that is left.
    return " ".join(str(cause).split())[:200] or type(cause).__name__
