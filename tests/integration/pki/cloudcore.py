"""A CloudCore's certificates, Secrets and tokens, made and read the way its Go code does it.

Nothing of the product is used here: keys go through SEC 1 DER as Go's `x509.MarshalECPrivateKey` writes it, tokens
through a JWT of our own, certificates through the templates of KubeEdge's ``pkg/security/certs``. Reading is as strict
as CloudCore's: what it could not parse is an error here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey
REGISTERED = ("iss", "sub", "aud", "exp", "nbf", "iat", "jti")
"""RFC 7519's."""
YEARS_100 = timedelta(days=364 * 100)


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def sec1(key: Key) -> bytes:
    """ECPrivateKey of RFC 5915, as Go writes it: version, 32 bytes, curve, public point."""
    number = key.private_numbers().private_value.to_bytes(32, "big")
    public = key.public_key().public_numbers()
    point = b"\x04" + public.x.to_bytes(32, "big") + public.y.to_bytes(32, "big")
    curve = bytes.fromhex("06082a8648ce3d030107")
    body = b"\x02\x01\x01" + b"\x04\x20" + number + _tag(0xA0, curve) + _tag(0xA1, _tag(0x03, b"\x00" + point))
    return _tag(0x30, body)


def parse_sec1(der: bytes) -> Key:
    """Go's `x509.ParseECPrivateKey`: nothing but SEC 1."""
    key = load_der_private_key(der, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or der != sec1(key):
        raise ValueError("CloudCore cannot parse this key")
    return key


def _tag(tag: int, body: bytes) -> bytes:
    length = bytes([len(body)]) if len(body) < 0x80 else b"\x81" + bytes([len(body)])
    return bytes([tag]) + length + body


def pem(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()


# --- Certificates ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CloudCore:
    """The CA of one, as bytes: what its ``casecret`` holds."""

    ca: bytes
    ca_key: bytes

    @classmethod
    def fresh(cls, *, key_id: str = "sha1", key: Key | None = None) -> CloudCore:
        """``key_id``: how its Go made the subject key identifier; before 1.25 by SHA-1, from then on by SHA-256 cut
        to 20 bytes, and none in hand-made ones."""
        key = key or new_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "KubeEdge")])
        now = datetime.now(UTC).replace(microsecond=0)
        builder = (
            x509.CertificateBuilder()
            .serial_number(1024)
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .not_valid_before(now)
            .not_valid_after(now + YEARS_100)
            .add_extension(_usage(sign=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        if key_id == "sha256":
            identifier = x509.SubjectKeyIdentifier(hashlib.sha256(identifier.digest).digest()[:20])
        if key_id != "none":
            builder = builder.add_extension(identifier, critical=False)
        return cls(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER), sec1(key))

    def server(
        self, *, addresses: list[str], names: list[str], key: rsa.RSAPrivateKey | None = None
    ) -> tuple[bytes, bytes]:
        """What ``cloudcoresecret`` holds. The default file's ``dnsNames: [""]`` becomes an empty name in it. With
        ``key``, an operator's own, the second part is empty."""
        own = new_key()
        alternative = x509.SubjectAlternativeName(
            [
                *(x509.DNSName(name) for name in names),
                *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
            ]
        )
        subject = _subject(organization="KubeEdge", common_name="KubeEdge")
        der = self._sign(subject, (key or own).public_key(), ExtendedKeyUsageOID.SERVER_AUTH, YEARS_100, alternative)
        return der, b"" if key is not None else sec1(own)

    def node(self, name: str, *, before_1_16: bool = False) -> tuple[bytes, Key]:
        """What an edge got at ``/edge.crt``; up to 1.15 it was nobody's in particular."""
        key = new_key()
        subject = _subject(organization="system:nodes", common_name=f"system:node:{name}")
        if before_1_16:
            subject = _subject(organization="KubeEdge", common_name="kubeedge.io")
        return self._sign(subject, key.public_key(), ExtendedKeyUsageOID.CLIENT_AUTH, timedelta(days=365)), key

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        usage: x509.ObjectIdentifier,
        life: timedelta,
        names: x509.SubjectAlternativeName | None = None,
    ) -> bytes:
        ca = x509.load_der_x509_certificate(self.ca)
        now = datetime.now(UTC).replace(microsecond=0)
        builder = (
            x509.CertificateBuilder()
            .serial_number(secrets.randbelow((1 << 63) - 2) + 1)
            .subject_name(subject)
            .issuer_name(ca.subject)
            .public_key(key)
            .not_valid_before(now)
            .not_valid_after(now + life)
            .add_extension(_usage(sign=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        try:
            own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            pass
        else:
            identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
            builder = builder.add_extension(identifier, critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(parse_sec1(self.ca_key), hashes.SHA256()).public_bytes(Encoding.DER)

    # --- Tokens -----------------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.ca).hexdigest()

    def token(self, *, hours: float = 24) -> str:
        head = _segment({"alg": "HS256", "typ": "JWT"})
        claims = _segment({"exp": int((datetime.now(UTC) + timedelta(hours=hours)).timestamp())})
        return f"{self.fingerprint}.{head}.{claims}.{self._mac(f'{head}.{claims}')}"

    def takes(self, token: str) -> dict[str, object]:
        """The claims that Go's JWT library looks at, when CloudCore would let a node join by this token and
        `keadm join` would use it. It reads claims into a map and leaves those that it does not know alone."""
        parts = token.split(".")
        if len(parts) != 4 or parts[0] != self.fingerprint:
            raise ValueError("not four parts, or of another CA")
        head, claims = (json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[1:3])
        if head["alg"] != "HS256" or parts[3] != self._mac(f"{parts[1]}.{parts[2]}"):
            raise ValueError("not signed with the CA's key")
        if claims["exp"] <= datetime.now(UTC).timestamp():
            raise ValueError("expired")
        return {name: claims[name] for name in REGISTERED if name in claims}

    def _mac(self, text: str) -> str:
        digest = hmac.new(self.ca_key, text.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _segment(document: dict[str, object]) -> str:
    text = json.dumps(document, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _subject(*, organization: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_cert_sign=sign,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def pkcs8(key: Key) -> bytes:
    """As openssl's newer commands write it; CloudCore signs with no such key."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
