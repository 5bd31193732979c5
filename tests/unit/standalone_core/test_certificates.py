"""The server's own CA and certificate, and its token."""

from __future__ import annotations

import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from cloudhub.standalone import certificates
from cloudhub.standalone.auth import Authenticator, load_token
from cloudhub.standalone.certificates import CertificateError, open_identity
from shared.files import write_atomically


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_same_names_keep_the_same_certificate(tmp_path: Path) -> None:
    first = open_identity(tmp_path, ["hub.example.com"])
    before = (tmp_path / "server.crt").read_bytes()
    second = open_identity(tmp_path, ["hub.example.com", "localhost"])
    assert second.ca_pem == first.ca_pem
    assert (tmp_path / "server.crt").read_bytes() == before
    assert second.context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_keys_are_the_owners_alone(tmp_path: Path) -> None:
    open_identity(tmp_path, [])
    load_token(tmp_path / "token")
    for name in ("ca.key", "server.key", "token"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_other_names_get_a_new_certificate_of_the_same_ca(tmp_path: Path) -> None:
    first = open_identity(tmp_path, [])
    before = read(tmp_path / "server.crt")
    assert open_identity(tmp_path, ["10.0.0.7"]).ca_pem == first.ca_pem
    after = read(tmp_path / "server.crt")
    assert after.serial_number != before.serial_number
    after.verify_directly_issued_by(x509.load_pem_x509_certificate(first.ca_pem))


def test_a_certificate_near_its_end_is_issued_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_identity(tmp_path, [])
    before = read(tmp_path / "server.crt").serial_number
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=200)
    monkeypatch.setattr(certificates, "_now", lambda: later)
    open_identity(tmp_path, [])
    assert read(tmp_path / "server.crt").serial_number == before
    monkeypatch.setattr(certificates, "_now", lambda: later + timedelta(days=60))
    open_identity(tmp_path, [])
    assert read(tmp_path / "server.crt").serial_number != before


def test_a_damaged_server_certificate_is_replaced_and_a_damaged_ca_is_told(tmp_path: Path) -> None:
    open_identity(tmp_path, [])
    (tmp_path / "server.crt").write_text("nonsense")
    open_identity(tmp_path, [])
    read(tmp_path / "server.crt")
    (tmp_path / "ca.key").write_text("nonsense")
    with pytest.raises(CertificateError, match=r"ca\.key: must be a private key in PEM form"):
        open_identity(tmp_path, [])
    (tmp_path / "ca.key").unlink()
    with pytest.raises(CertificateError, match=r"ca\.key"):
        open_identity(tmp_path, [])


def test_the_key_of_another_ca_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        open_identity(tmp_path / name, [])
    (tmp_path / "a" / "ca.key").write_bytes((tmp_path / "b" / "ca.key").read_bytes())
    with pytest.raises(CertificateError, match="is not the key of"):
        open_identity(tmp_path / "a", [])


def test_the_token_is_made_once(tmp_path: Path) -> None:
    token = load_token(tmp_path / "token")
    assert len(token) >= 32
    assert load_token(tmp_path / "token") == token
    (tmp_path / "token").write_text("short")
    with pytest.raises(ValueError, match="must hold a token of at least 32 characters"):
        load_token(tmp_path / "token")


def test_only_the_token_is_let_in() -> None:
    authenticator = Authenticator(token="t" * 32)
    assert authenticator.admits("/api", "Bearer " + "t" * 32)
    assert authenticator.admits("/api", "bearer " + "t" * 32)
    for header in ("", "Bearer", "Bearer x", "Basic " + "t" * 32, "t" * 32, "Bearer \udce9"):
        assert not authenticator.admits("/api", header)
    assert authenticator.admits("/readyz", "")
    assert not authenticator.admits("/readyz", "Bearer x")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(source: str, target: Path) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
