"""The search for the password finds it: each test plants it where a fault of the product would."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.e2e.leaks import Written, spellings

PASSWORD = 'pä/ss"12+34'
WORDS = spellings(PASSWORD)


def leaks(folder: Path) -> list[str]:
    return Written(folders={folder}).leaks(WORDS)


@pytest.mark.parametrize("before", ["", "u", "ti", "tig", "tiger:"])
@pytest.mark.parametrize("after", ["", '"}', '", "x": 1'])
def test_it_is_found_in_base64_wherever_it_stands(tmp_path: Path, before: str, after: str) -> None:
    text = f"{before}{PASSWORD}{after}".encode()
    for encoded in (base64.b64encode(text), base64.urlsafe_b64encode(text), base64.b64encode(base64.b64encode(text))):
        (tmp_path / "journal.db-wal").write_bytes(b"\0\1" + encoded + b"\2")
        assert leaks(tmp_path) == [str(tmp_path / "journal.db-wal")], encoded


@pytest.mark.parametrize(
    "text",
    [
        PASSWORD,
        f"https://tiger:{quote(PASSWORD, safe='')}@registry.example/v2/",
        json.dumps({"password": PASSWORD}),
        json.dumps({"event": "x", "body": json.dumps({"auths": {"r": {"password": PASSWORD}}})}),
    ],
)
def test_it_is_found_clear_in_urls_and_in_json(tmp_path: Path, text: str) -> None:
    log = tmp_path / "data" / "edge-1.log"
    log.parent.mkdir()
    log.write_text(f"2026-11-28 [debug] something {text}\n")
    assert leaks(tmp_path) == [str(log)]


def test_it_is_found_across_the_pieces_in_which_large_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x" * ((1 << 20) - 5) + PASSWORD.encode() + b"y" * 100)
    assert len(leaks(tmp_path)) == 1


def test_a_file_is_searched_again_when_it_has_grown(tmp_path: Path) -> None:
    written = Written(folders={tmp_path})
    log = tmp_path / "log"
    log.write_text("well\n")
    assert written.leaks(WORDS) == []
    with log.open("a") as file:
        file.write(PASSWORD)
    assert written.leaks(WORDS) == [str(log)]


def test_in_the_embedded_apis_database_only_secrets_may_have_it(tmp_path: Path) -> None:
    path = tmp_path / "objects.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE objects (resource TEXT, namespace TEXT, name TEXT, body BLOB)")
        body = json.dumps({"data": {".dockerconfigjson": base64.b64encode(PASSWORD.encode()).decode()}}).encode()
        database.execute("INSERT INTO objects VALUES ('secrets', 'default', 's', ?)", (body,))
        database.commit()
        assert leaks(tmp_path) == []
        database.execute("INSERT INTO objects VALUES ('events', 'default', 'e', ?)", (body,))
        database.commit()
    assert leaks(tmp_path) == [f"{path}: events default/e"]


def test_what_a_command_printed_is_searched_unless_it_was_asked_for_a_secret() -> None:
    written = Written()
    for command in ("kubectl get secret s -o yaml", "kubectl get jobs -o yaml", "edgehub status"):
        written.printed.append((command, PASSWORD.encode()))
    assert written.leaks(WORDS) == ["printed by: kubectl get jobs -o yaml", "printed by: edgehub status"]
    assert written.leaks(WORDS) == []


def test_other_words_are_no_leak(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"pass" * 1000 + bytes(range(256)) * 100)
    assert leaks(tmp_path) == []
