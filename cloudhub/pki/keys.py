"""Private keys in the forms that KubeEdge keeps them in: SEC 1 DER for elliptic curves (as in its Secrets), PEM files.

The exact bytes matter: the DER of the CA's key is the key of the join tokens, so a hub that takes over from a CloudCore
must use the bytes that it finds, not an equivalent form of them.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from cloudhub.pki.errors import PKIError
from shared.x509 import UNREADABLE

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
MIN_RSA_BITS: Final = 2048

_PEM_BLOCK: Final = re.compile(rb"-----BEGIN (?P<label>[A-Z0-9 ]+)-----.+?-----END (?P=label)-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A key and its DER, traditional form: SEC 1 for EC, PKCS#1 for RSA."""

    key: SigningKey = field(repr=False)
    der: bytes = field(repr=False)

    @property
    def pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())

    def matches(self, certificate: x509.Certificate) -> bool:
        return public_der(self.key.public_key()) == public_der(certificate.public_key())


def new_key() -> PrivateKey:
    return _private_key(ec.generate_private_key(ec.SECP256R1()), None, "")


def key_from_der(der: bytes, source: str) -> PrivateKey:
    """``source`` names file or Secret in errors."""
    try:
        return _private_key(load_der_private_key(der, password=None), der, source)
    except UNREADABLE:
        # The library's texts are left out: they may describe the key.
        raise PKIError(f"{source}: not a private key in DER form") from None


def key_from_pem(pem: bytes, source: str) -> PrivateKey:
    # A file of openssl's may begin with EC PARAMETERS.
    blocks = [m.group() for m in _PEM_BLOCK.finditer(pem) if m["label"].endswith(b"PRIVATE KEY")]
    if len(blocks) != 1:
        raise PKIError(f"{source}: holds {len(blocks)} private keys in PEM form, not one")
    try:
        key = load_pem_private_key(blocks[0], password=None)
    except TypeError:
        raise PKIError(f"{source}: the private key is encrypted with a password, which is not supported") from None
    except UNREADABLE:
        raise PKIError(f"{source}: not a private key in PEM form") from None
    return _private_key(key, _traditional_body(blocks[0]), source)


def certificate_from_der(der: bytes, source: str) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except UNREADABLE:
        raise PKIError(f"{source}: not a certificate in DER form") from None


def certificates_from_pem(pem: bytes, source: str) -> list[x509.Certificate]:
    """At least one; the first is the subject's own."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except UNREADABLE:
        raise PKIError(f"{source}: not a certificate in PEM form") from None


def public_der(key: object) -> bytes:
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _private_key(key: object, der: bytes | None, source: str) -> PrivateKey:
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < MIN_RSA_BITS:
            raise PKIError(f"{source}: RSA key of {key.key_size} bits, less than {MIN_RSA_BITS}")
    elif not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PKIError(f"{source}: private key is neither an elliptic-curve nor an RSA key")
    traditional = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    if der is None or _is_pkcs8(der):
        der = traditional
    return PrivateKey(key=key, der=der)


def _is_pkcs8(der: bytes) -> bool:
    """PKCS#8 begins with version 0, the traditional RSA form too but it has no AlgorithmIdentifier after it; SEC 1 has
    version 1. The identifier is a SEQUENCE, tag 0x30."""
    body = der[2:] if len(der) > 1 and der[1] < 0x80 else der[2 + (der[1] & 0x7F) :] if len(der) > 1 else b""
    return body[:3] == b"\x02\x01\x00" and body[3:4] == b"\x30"


def _traditional_body(block: bytes) -> bytes | None:
    """The very bytes of a SEC 1 or PKCS#1 block; None for PKCS#8, which is converted."""
    if b"BEGIN PRIVATE KEY" in block:
        return None
    lines = block.splitlines()[1:-1]
    if any(b":" in line for line in lines):
        return None
    return base64.b64decode(b"".join(line.strip() for line in lines))
