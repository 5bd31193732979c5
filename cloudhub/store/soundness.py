"""What a database holds, looked at before it is used: the damage that SQLite's own check does not see.

The problem: ``PRAGMA quick_check`` looks at pages and at NOT NULL; at CHECK constraints too, but not through a
read-only connection, which ours is. A bit that flipped, or a hand that helped, leaves a column of another name, a
number where a text was, letters that are no UTF-8, JSON without its end, a task without its job, a time in the year
four million. The hub would start, and break on it in the midst of its work, each time anew.

Guarantee: in a file that passes, every column of the schema is there and can be read as what it is; the constraints
hold, as this program has them, and not as the file's own text does; foreign keys lead somewhere. JSON of a column with
``info={"json": TYPE}`` parses and is of that type, with ``"width"`` besides a list of lists of that length, or with
``"may_be_empty"`` is no text at all; a text with ``"letters"`` has no others. Times lie before the year 10000, so that
each can be written as one. A table's ``info={"odd": {what: statement}}`` finds no row. An error names table and column,
and nothing of what is in them. It takes some seconds a million rows.

Not seen: other values of the right kind; damage to indexes, which makes a file slow.
"""

# ruff: noqa: S608 - the names in the statements are ours
from __future__ import annotations

import sqlite3
from collections import deque
from typing import Any, Final

from sqlalchemy import Boolean, CheckConstraint, Column, Double, Integer, LargeBinary, MetaData, Table, Text

_LAST_SECOND: Final = 253_402_300_799
"""Of the year 9999; `datetime` knows none after it."""


class Unsound(Exception):
    """One line, safe to show."""


def check_contents(connection: sqlite3.Connection, metadata: MetaData) -> None:
    """Raises `Unsound`."""
    for table in metadata.sorted_tables:
        _check_columns(connection, table)
        _check_constraints(connection, table)
    for table in metadata.sorted_tables:
        _check_values(connection, table)
        _check_letters(connection, table)
        if connection.execute(f"PRAGMA foreign_key_check({table.name})").fetchone() is not None:
            raise Unsound(f"a row of {table.name} belongs to none that is there")
        for what, statement in table.info.get("odd", {}).items():
            if connection.execute(statement).fetchone() is not None:
                raise Unsound(what)


def _check_columns(connection: sqlite3.Connection, table: Table) -> None:
    # The letters of the schema may be damaged too.
    connection.text_factory = bytes
    found = {row[1]: row for row in connection.execute(f"PRAGMA table_info({table.name})")}
    for column in table.columns:
        row = found.get(column.name.encode())
        if row is None:
            raise Unsound(f"table {table.name} lacks column {column.name}")
        if bool(row[3]) is column.nullable:
            raise Unsound(f"column {column.name} of {table.name} is another than this program made")


def _check_constraints(connection: sqlite3.Connection, table: Table) -> None:
    """A damaged one would refuse what is right. By their own words, not by the whole text of the table: how that is
    written is the business of libraries, and may change."""
    connection.text_factory = bytes
    (text,) = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (table.name,)
    ).fetchone()
    written = b"".join(bytes(text).split())
    for check in _checks(table):
        if "".join(str(check.sqltext).split()).encode() not in written:
            raise Unsound(f"constraint {check.name} of {table.name} is another than this program made")
    keys = {(row[2], row[3], row[6]) for row in connection.execute(f"PRAGMA foreign_key_list({table.name})")}
    wanted = {
        (key.column.table.name.encode(), key.parent.name.encode(), (key.ondelete or "NO ACTION").encode())
        for key in table.foreign_keys
    }
    if keys != wanted:
        raise Unsound(f"a foreign key of {table.name} is another than this program made")


def _checks(table: Table) -> list[CheckConstraint]:
    return [constraint for constraint in table.constraints if isinstance(constraint, CheckConstraint)]


def _check_values(connection: sqlite3.Connection, table: Table) -> None:
    wrong = {f"column {column.name} of {table.name}": _is_wrong(column) for column in table.columns}
    wrong |= {f"constraint {check.name} of {table.name}": f"NOT ({check.sqltext})" for check in _checks(table)}
    row = connection.execute(
        f"SELECT {', '.join(wrong.values())} FROM {table.name} WHERE {' OR '.join(wrong.values())} LIMIT 1"
    ).fetchone()
    if row is not None:
        raise Unsound(f"{next(what for what, is_wrong in zip(wrong, row, strict=True) if is_wrong)} does not hold")


def _is_wrong(column: Column[Any]) -> str:
    kinds, right = _rule(column)
    name = column.name
    # COALESCE: what comes to NULL is no agreement.
    wrong = f"{name} IS NOT NULL AND NOT (typeof({name}) IN ({kinds}) AND coalesce({right}, 0))"
    return f"({wrong})" if column.nullable else f"({name} IS NULL OR {wrong})"


def _rule(column: Column[Any]) -> tuple[str, str]:
    """SQLite's names of the types that a value may have, and what else must hold of it."""
    name = column.name
    match column.type:
        case Boolean():
            return "'integer'", f"{name} IN (0, 1)"
        case Integer():
            return "'integer'", "1"
        case Double():  # each of them is a time
            return "'real', 'integer'", f"{name} BETWEEN 0 AND {_LAST_SECOND}"
        case LargeBinary():
            return "'blob'", _text_rule(column)
        case Text():
            return "'text'", _text_rule(column)
        case _:
            raise TypeError(f"no rule for column {column}")


def _text_rule(column: Column[Any]) -> str:
    kind, width, letters = (column.info.get(key) for key in ("json", "width", "letters"))
    if letters is not None:
        return f"{column.name} NOT GLOB '*[^{letters}]*'"
    if column.info.get("decimal"):
        name = column.name
        return f"{name} GLOB '*[0-9]*' AND {name} NOT GLOB '*[^0-9.]*' AND {name} NOT GLOB '*.*.*'"
    if kind is None:
        return "1"
    # As text: a blob would be taken for SQLite's own binary JSON.
    text = f"CAST({column.name} AS TEXT)"
    rule = f"json_type({text}) = '{kind}'"
    if width is not None:
        odd = f"type <> 'array' OR json_array_length(value) <> {width}"
        rule += f" AND NOT EXISTS (SELECT 1 FROM json_each({text}) WHERE {odd})"
    whole = f"CASE WHEN json_valid({text}) THEN {rule} END"
    return f"({column.name} = '' OR {whole})" if column.info.get("may_be_empty") else whole


def _check_letters(connection: sqlite3.Connection, table: Table) -> None:
    connection.text_factory = str
    texts = [column.name for column in table.columns if isinstance(column.type, Text)]
    if not texts:
        return
    try:
        deque(connection.execute(f"SELECT {', '.join(texts)} FROM {table.name}"), maxlen=0)
    except sqlite3.OperationalError as error:
        if hasattr(error, "sqlite_errorcode"):
            raise
        # The driver's own, and its words repeat the text.
        raise Unsound(f"table {table.name} holds a text that is no UTF-8") from None
