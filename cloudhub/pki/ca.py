"""The certificate authority of the hub: who it is, and what it signs.

The certificate and its key have KubeEdge's shape (CN KubeEdge, serial 1024, P-256, 100 years), so that edges and a
CloudCore can live with it. The class only signs what it is told; what a node may be given is decided in
`cloudhub.pki.signing`. Certificates begin a little in the past, because clocks of edges are wrong.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudhub.pki.errors import PKIError
from cloudhub.pki.keys import (
    PrivateKey,
    certificate_from_der,
    certificates_from_pem,
    key_from_der,
    key_from_pem,
    new_key,
)
from cloudhub.pki.names import NODE_ORGANIZATION, NODE_PREFIX, long_names_allowed
from shared.x509 import UNREADABLE

PROJECT: Final = "KubeEdge"
CA_SERIAL: Final = 1024
CA_LIFE: Final = timedelta(days=364 * 100)
SERVER_LIFE: Final = timedelta(days=3650)
BACKDATE: Final = timedelta(days=1)
"""Of the CA and of server certificates: an edge whose clock is behind must still be able to join."""
NODE_BACKDATE: Final = timedelta(hours=2)
"""Of node certificates, but at most a tenth of their life: agents plan their renewal by it."""

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """A server's certificate chain and key, both PEM."""

    certificate: x509.Certificate
    chain_pem: bytes
    key: PrivateKey = field(repr=False)


class CertificateAuthority:
    """Loading checks that key and certificate belong together, and that it may sign, now."""

    def __init__(self, certificate: x509.Certificate, key: PrivateKey, *, source: str, now: datetime) -> None:
        _check_ca(certificate, key, source, now)
        self.certificate = certificate
        self.key = key
        self.certificate_der = certificate.public_bytes(Encoding.DER)
        self.certificate_pem = certificate.public_bytes(Encoding.PEM)

    def __repr__(self) -> str:
        return f"<CertificateAuthority {self.fingerprint[:16]}>"

    @property
    def fingerprint(self) -> str:
        """Lower-case hex SHA-256 of the certificate's DER: the first part of a join token."""
        return hashlib.sha256(self.certificate_der).hexdigest()

    @classmethod
    def create(cls, *, now: datetime, key: PrivateKey | None = None) -> Self:
        key = key or new_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, PROJECT)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.key.public_key())
            .serial_number(CA_SERIAL)
            .not_valid_before(now - BACKDATE)
            .not_valid_after(now + CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(cert_sign=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.key.public_key()), critical=False)
        )
        return cls(builder.sign(key.key, hashes.SHA256()), key, source="new CA", now=now)

    @classmethod
    def from_der(cls, certificate: bytes, key: bytes, *, source: str, now: datetime) -> Self:
        return cls(certificate_from_der(certificate, source), key_from_der(key, source), source=source, now=now)

    @classmethod
    def from_pem(
        cls, certificate: bytes, key: bytes, *, certificate_source: str, key_source: str, now: datetime
    ) -> Self:
        found = certificates_from_pem(certificate, certificate_source)
        if len(found) != 1:
            raise PKIError(f"{certificate_source}: holds {len(found)} certificates, not one")
        return cls(found[0], key_from_pem(key, key_source), source=f"{certificate_source} with {key_source}", now=now)

    def issue_server_certificate(
        self, *, addresses: Sequence[str], dns_names: Sequence[str], now: datetime
    ) -> ServerIdentity:
        """For TLS servers of the hub. Edges verify the name or address that they dial against these."""
        key = new_key()
        certificate = self._issue(
            subject=x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, PROJECT),
                    x509.NameAttribute(NameOID.COMMON_NAME, PROJECT),
                ]
            ),
            public_key=key.key.public_key(),
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
            begin=now - BACKDATE,
            end=now + SERVER_LIFE,
            names=subject_alternative_names(addresses, dns_names),
        )
        return ServerIdentity(certificate=certificate, chain_pem=certificate.public_bytes(Encoding.PEM), key=key)

    def issue_node_certificate(self, *, node: str, public_key: PublicKey, life: timedelta, now: datetime) -> bytes:
        """DER. The caller has checked that the peer is ``node`` and has the private key."""
        with long_names_allowed():
            common_name = x509.NameAttribute(NameOID.COMMON_NAME, f"{NODE_PREFIX}{node}", _validate=False)
        return self._issue(
            subject=x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, NODE_ORGANIZATION), common_name]),
            public_key=public_key,
            usage=ExtendedKeyUsageOID.CLIENT_AUTH,
            begin=now - min(NODE_BACKDATE, life / 10),
            end=now + life,
        ).public_bytes(Encoding.DER)

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether this CA signed it. Says nothing of its time."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except Exception:
            # ValueError, TypeError, InvalidSignature: whatever is wrong, it is not ours.
            return False
        return True

    def _issue(
        self,
        *,
        subject: x509.Name,
        public_key: PublicKey,
        usage: x509.ObjectIdentifier,
        begin: datetime,
        end: datetime,
        names: x509.SubjectAlternativeName | None = None,
    ) -> x509.Certificate:
        issuer = self.certificate
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(begin, issuer.not_valid_before_utc))
            .not_valid_after(min(end, issuer.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(cert_sign=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(_authority_key_identifier(issuer), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key.key, hashes.SHA256())


def subject_alternative_names(addresses: Sequence[str], dns_names: Sequence[str]) -> x509.SubjectAlternativeName:
    """Raises `PKIError` that names the value that is no address or no name."""
    names: list[x509.GeneralName] = []
    for address in addresses:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            raise PKIError(f"advertiseAddress: {address!r} is no IP address") from None
    for name in dns_names:
        try:
            names.append(x509.DNSName(name))
        except (ValueError, TypeError):
            raise PKIError(f"dnsNames: {name!r} is no DNS name (write other scripts in their xn-- form)") from None
    if not names:
        raise PKIError("advertiseAddress and dnsNames are both empty: nodes could not verify the hub's certificate")
    return x509.SubjectAlternativeName(names)


def utc_now() -> datetime:
    return datetime.now(UTC)


def _check_ca(certificate: x509.Certificate, key: PrivateKey, source: str, now: datetime) -> None:
    if not key.matches(certificate):
        raise PKIError(f"{source}: the private key does not belong to the certificate")
    check_time(certificate, source, now)
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = _optional_usage(certificate)
    except (*UNREADABLE, x509.ExtensionNotFound):
        constraints, usage = None, None
    if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
        raise PKIError(f"{source}: the certificate is not that of a CA")


def check_time(certificate: x509.Certificate, source: str, now: datetime) -> None:
    if now >= certificate.not_valid_after_utc:
        raise PKIError(f"{source}: the certificate expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}")
    if now < certificate.not_valid_before_utc:
        raise PKIError(
            f"{source}: the certificate is valid only from {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ};"
            " is the clock of this machine right?"
        )


def _optional_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _public_key(certificate: x509.Certificate) -> PublicKey:
    key = certificate.public_key()
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise PKIError("the CA's key is neither an elliptic-curve nor an RSA key")
    return key


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    # The CA's own, if it says one: how it is made differs by library and version, and a verifier compares the two.
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(_public_key(issuer))
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _key_usage(*, cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_cert_sign=cert_sign,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
