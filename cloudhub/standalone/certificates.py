"""The embedded API server's TLS: a CA of its own, made once, and a server certificate for the names it is reached by.

The CA is kept for good, since kubeconfigs carry it; the server certificate is issued anew when the names change, when a
third of its life is left, or when it is not of this CA. Keys are files of mode 0600 in the data directory.
This CA is not the one of the edge nodes (`cloudhub.pki`): a node's certificate opens nothing here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.files import PUBLIC_FILE, write_atomically

_CA_LIFE: Final = timedelta(days=3650)
_SERVER_LIFE: Final = timedelta(days=365)
_CLOCK_SKEW: Final = timedelta(minutes=5)
_ALWAYS: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    context: ssl.SSLContext
    ca_pem: bytes


class CertificateError(ValueError):
    """The files in the data directory are no certificate and key; the text names the file."""


def open_identity(directory: Path, names: Sequence[str]) -> ServerIdentity:
    """Reads what is there and makes what is not. Blocking: disk and key generation."""
    wanted = frozenset(names) | frozenset(_ALWAYS)
    authority, authority_key = _open_ca(directory)
    certificate_path, key_path = directory / "server.crt", directory / "server.key"
    if not _still_good(certificate_path, key_path, authority, wanted):
        _issue(certificate_path, key_path, authority, authority_key, wanted)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate_path, key_path)
    return ServerIdentity(context, authority.public_bytes(serialization.Encoding.PEM))


def _open_ca(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate_path, key_path = directory / "ca.crt", directory / "ca.key"
    if not certificate_path.exists() and not key_path.exists():
        _make_ca(certificate_path, key_path)
    certificate, key = _read_certificate(certificate_path), _read_key(key_path)
    if certificate.public_key() != key.public_key():
        raise CertificateError(f"{key_path}: is not the key of {certificate_path}")
    return certificate, key


def _make_ca(certificate_path: Path, key_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"cloudhub-standalone-ca@{int(_now().timestamp())}")])
    certificate = (
        _builder(name, name, key.public_key(), _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    # The key first: a crash in between leaves a key without a certificate, which is told, never a CA that cannot sign.
    write_atomically(key_path, _key_pem(key))
    write_atomically(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), mode=PUBLIC_FILE)


def _issue(
    certificate_path: Path,
    key_path: Path,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    names: frozenset[str],
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cloudhub-standalone")])
    certificate = (
        _builder(subject, authority.subject, key.public_key(), _SERVER_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in sorted(names)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    write_atomically(key_path, _key_pem(key))
    write_atomically(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), mode=PUBLIC_FILE)


def _still_good(certificate_path: Path, key_path: Path, authority: x509.Certificate, names: frozenset[str]) -> bool:
    try:
        certificate, key = _read_certificate(certificate_path), _read_key(key_path)
        certificate.verify_directly_issued_by(authority)
    except (CertificateError, InvalidSignature, ValueError, TypeError):
        return False
    left = certificate.not_valid_after_utc - _now()
    fresh = left > (certificate.not_valid_after_utc - certificate.not_valid_before_utc) / 3
    return fresh and certificate.public_key() == key.public_key() and _names_of(certificate) == names


def _names_of(certificate: x509.Certificate) -> frozenset[str]:
    with contextlib.suppress(x509.ExtensionNotFound):
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return frozenset(str(name.value) for name in found)
    return frozenset()


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _CLOCK_SKEW)
        .not_valid_after(_now() + life)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CertificateError(f"{path}: must be a certificate in PEM form ({type(error).__name__})") from error


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise CertificateError(f"{path}: must be a private key in PEM form ({type(error).__name__})") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{path}: must be an elliptic curve key")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
