"""The search for secrets finds them: each test plants one where a fault of the product would."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.e2e.leaks import Written

PASSWORD = 'pä/ss"12+34'
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjE3OTYwMDU0MDYsImlzc3VlZCI6MX0."
SIGNATURES = [letter * 10 + "8Fr48CN3YFX4Fxx45icIRPvfku8DGi3z0" for letter in "abc"]
KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
API_TOKEN = "Vb3cUkq0Nq2fXtR7yT1u9wLxZs8dEaG4hJmP6oKiB5A"


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, form: PrivateFormat) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def _der(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, form: PrivateFormat) -> bytes:
    return key.private_bytes(Encoding.DER, form, NoEncryption())


def leaks(folder: Path) -> list[str]:
    written = Written(folders={folder})
    written.know(PASSWORD, "the password")
    return written.leaks()


def placed(path: Path) -> list[str]:
    return [f"{path}: the password"]


@pytest.mark.parametrize("before", ["", "u", "ti", "tig", "tiger:"])
@pytest.mark.parametrize("after", ["", '"}', '", "x": 1'])
def test_it_is_found_in_base64_wherever_it_stands(tmp_path: Path, before: str, after: str) -> None:
    text = f"{before}{PASSWORD}{after}".encode()
    for encoded in (base64.b64encode(text), base64.urlsafe_b64encode(text), base64.b64encode(base64.b64encode(text))):
        (tmp_path / "journal.db-wal").write_bytes(b"\0\1" + encoded + b"\2")
        assert leaks(tmp_path) == placed(tmp_path / "journal.db-wal"), encoded


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
    assert leaks(tmp_path) == placed(log)


def test_it_is_found_across_the_pieces_in_which_large_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"x" * ((1 << 20) - 5) + PASSWORD.encode() + b"y" * 100)
    assert len(leaks(tmp_path)) == 1


@pytest.mark.parametrize("name", ["hub.log", "journal.db-wal"])
def test_a_file_is_searched_again_when_it_has_changed(tmp_path: Path, name: str) -> None:
    written = Written(folders={tmp_path})
    written.know(PASSWORD, "the password")
    log = tmp_path / name
    log.write_text("well\n" * 2000 + PASSWORD[:5])
    assert written.leaks() == []
    with log.open("a") as file:
        file.write(PASSWORD[5:])
    assert written.leaks() == placed(log)
    assert written.leaks() == placed(log), "and what was found stays found"


# --- What is secret is learnt ---------------------------------------------------------------------------------------


def _secret(data: dict[str, bytes]) -> dict[str, object]:
    encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
    return {"kind": "Secret", "metadata": {"namespace": "default", "name": "s"}, "data": encoded}


def _docker(**entry: str) -> dict[str, bytes]:
    return {".dockerconfigjson": json.dumps({"auths": {"registry.example": entry}}).encode()}


def _database(folder: Path, data: dict[str, bytes]) -> None:
    with contextlib.closing(sqlite3.connect(folder / "objects.db")) as database:
        database.execute("CREATE TABLE objects (resource TEXT, namespace TEXT, name TEXT, body BLOB)")
        body = json.dumps(_secret(data)).encode()
        database.execute("INSERT INTO objects VALUES ('secrets', 'default', 's', ?)", (body,))
        database.commit()


@pytest.mark.parametrize(
    ("data", "leaked", "what"),
    [
        (_docker(username="tiger", password="hunter22"), "hunter22", "password in .dockerconfigjson"),
        (_docker(auth=base64.b64encode(b"tiger:hunter22").decode()), "hunter22", "auth in .dockerconfigjson"),
        (_docker(auth=base64.b64encode(b"tiger:hunter22").decode()), "dGlnZXI6aHVudGVyMjI=", "auth in"),
        (_docker(identitytoken="0a1b2c3d-identity"), "0a1b2c3d-identity", "identitytoken in .dockerconfigjson"),
        ({"key": b"whatever it is"}, "whatever it is", "key of Secret default/s"),
        ({"tokendata": f"aa.{JWT}{SIGNATURES[0]}".encode()}, SIGNATURES[0], "tokendata of Secret default/s"),
        ({"cakeydata": _der(KEY, PrivateFormat.TraditionalOpenSSL)}, "KEY", "cakeydata of Secret default/s"),
    ],
)
def test_each_value_of_a_secret_is_searched_for(tmp_path: Path, data: dict[str, bytes], leaked: str, what: str) -> None:
    _database(tmp_path, data)
    log = tmp_path / "hub.log"
    log.write_text("nothing\n")
    assert leaks(tmp_path) == []
    text = base64.b64encode(_der(KEY, PrivateFormat.PKCS8)).decode() if leaked == "KEY" else leaked
    log.write_text(f"[warning] refused value={text!r}\n")
    (found,) = leaks(tmp_path)
    assert found.startswith(f"{log}: {what}")
    assert leaked not in found


def test_what_a_test_gives_to_a_command_is_searched_for(tmp_path: Path) -> None:
    written = Written(folders={tmp_path})
    manifest = yaml.safe_dump_all([{"kind": "ConfigMap", "data": {"a": "innocent"}}, _secret({"k": b"hunter22"})])
    written.note("kubectl create secret docker-registry s --docker-password=tiger-1", "", b"")
    written.note("kubectl create secret generic s --from-literal=key=tiger-2 --from-literal k=tiger-3", "", b"")
    written.note("kubectl apply -f -", manifest, b"")
    words = ["tiger-1", "tiger-2", "tiger-3", "hunter22", "innocent"]
    for word in words:
        (tmp_path / f"{word}.log").write_text(f"x {word}")
    found = {Path(line.split(": ")[0]).stem for line in written.leaks()}
    assert found == set(words) - {"innocent"}


@pytest.mark.parametrize("key", [KEY, RSA_KEY], ids=["P-256", "RSA"])
@pytest.mark.parametrize("form", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
@pytest.mark.parametrize(
    "written_as",
    [
        lambda pem, der: pem,
        lambda pem, der: der,
        lambda pem, der: repr(der).encode(),
        lambda pem, der: der.hex().encode(),
        lambda pem, der: base64.b64encode(der),
        lambda pem, der: base64.b64encode(pem),
        lambda pem, der: json.dumps(pem.decode()).encode(),
        lambda pem, der: b"\n".join(pem.splitlines()[1:-1]),
    ],
    ids=["PEM", "DER", "as Python shows it", "hex", "base64", "PEM in base64", "JSON", "without its first line"],
)
def test_a_key_is_searched_for_in_every_form_but_in_its_file(
    tmp_path: Path,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    form: PrivateFormat,
    written_as: Callable[[bytes, bytes], bytes],
) -> None:
    (tmp_path / "server.key").write_bytes(_pem(key, PrivateFormat.TraditionalOpenSSL))
    assert leaks(tmp_path) == []
    (tmp_path / "status.json").write_bytes(b"{" + written_as(_pem(key, form), _der(key, form)) + b"}")
    assert leaks(tmp_path)
    assert all(line.startswith(f"{tmp_path / 'status.json'}: ") for line in leaks(tmp_path))


def test_a_key_that_nobody_knows_is_a_leak_too(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(_pem(KEY, PrivateFormat.PKCS8))
    assert leaks(tmp_path) == [f"{tmp_path / 'log'}: a private key"]


def test_tokens_are_searched_for_but_in_their_files(tmp_path: Path) -> None:
    standing, printed, unknown = SIGNATURES
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "token").write_text(f"aa.{JWT}{standing}\n")
    (tmp_path / "token").write_text(f"{API_TOKEN}\n")
    (tmp_path / "kubeconfig").write_text(f"token: {API_TOKEN}\n")
    written = Written(folders={tmp_path})
    written.note("/bin/cloudhub token --data-dir x", "", f"aa.{JWT}{printed}\n".encode())
    assert written.leaks() == []
    (tmp_path / "1.log").write_text(f"signature {standing}")
    (tmp_path / "2.log").write_text(f"signature {base64.b64encode(printed.encode()).decode()}")
    (tmp_path / "3.log").write_text(f"Authorization: Bearer {JWT}{unknown}")
    (tmp_path / "4.log").write_text(f"Authorization: Bearer {API_TOKEN}")
    assert sorted(line.removeprefix(f"{tmp_path}/") for line in written.leaks()) == [
        "1.log: the standing join token",
        "2.log: a join token",
        "3.log: what looks like a join token",
        "4.log: the embedded API's token",
    ]


def test_no_password_has_a_file_made_for_it(tmp_path: Path) -> None:
    for name in ("server.key", "token", "kubeconfig", "node.pem"):
        (tmp_path / name).write_text(f"x {PASSWORD}")
    assert len(leaks(tmp_path)) == 4


# --- Where it may be ------------------------------------------------------------------------------------------------


def test_in_the_embedded_apis_database_only_secrets_may_have_it(tmp_path: Path) -> None:
    _database(tmp_path, {"k": PASSWORD.encode()})
    assert leaks(tmp_path) == []
    with contextlib.closing(sqlite3.connect(tmp_path / "objects.db")) as database:
        body = json.dumps({"note": base64.b64encode(PASSWORD.encode()).decode()}).encode()
        database.execute("INSERT INTO objects VALUES ('events', 'default', 'e', ?)", (body,))
        database.commit()
    assert leaks(tmp_path) == [f"{tmp_path / 'objects.db'}: events default/e: the password"]


def test_what_a_command_printed_is_searched_unless_it_was_asked_for_a_secret() -> None:
    written = Written()
    written.know(PASSWORD, "the password")
    for command in ("kubectl get secret s -o yaml", "kubectl get jobs -o yaml", "edgehub join --token x"):
        written.note(command, "", PASSWORD.encode())
    assert written.leaks() == ["printed by kubectl get jobs: the password", "printed by edgehub join: the password"]
    assert written.leaks() == []


def test_other_words_are_no_leak(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"pass" * 1000 + bytes(range(256)) * 100)
    assert leaks(tmp_path) == []
