"""The node's key, its signing request, and what is checked of a certificate before it is kept.

The only module of the agent that needs the `cryptography` package, and so it is imported when a node joins or renews,
never by an agent that just runs: it costs 8 MB of memory. Names and key type are KubeEdge's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgehub.link.errors import JoinError
from edgehub.link.identity import NODE_PREFIX
from shared.x509 import UNREADABLE

ORGANIZATION = "system:nodes"
MAX_NODE_NAME = 64 - len(NODE_PREFIX)
"""X.520 bounds a common name at 64 characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """A fresh key and the request for its certificate."""

    key: ec.EllipticCurvePrivateKey
    csr_der: bytes

    @property
    def key_pem(self) -> bytes:
        # SEC 1 ("EC PRIVATE KEY"), as KubeEdge writes it: an EdgeCore can take this node over with the same files.
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )


def new_request(node: str) -> KeyRequest:
    """Raises `JoinError` for a name that does not fit a certificate."""
    if len(node) > MAX_NODE_NAME:
        raise JoinError(f"node name {node!r} has {len(node)} characters; a certificate has room for {MAX_NODE_NAME}")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Hangzhou"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "Zhejiang"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, NODE_PREFIX + node),
        ]
    )
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return KeyRequest(key=key, csr_der=csr.public_bytes(serialization.Encoding.DER))


def ca_pem(der: bytes) -> bytes:
    """The CA certificate as PEM. Raises `JoinError`."""
    try:
        return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
    except UNREADABLE:
        raise JoinError("the hub's CA certificate is no X.509 certificate in DER form") from None


def checked_certificate(*, der: bytes, ca: bytes, request: KeyRequest, node: str, now: datetime) -> bytes:
    """The certificate as PEM, when it is what was asked for. ``ca`` is PEM. Raises `JoinError`."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        _check(certificate, ca=ca, request=request, node=node, now=now)
    except UNREADABLE:
        raise JoinError("the certificate from the hub is no X.509 certificate in DER form") from None
    return certificate.public_bytes(serialization.Encoding.PEM)


def _check(certificate: x509.Certificate, *, ca: bytes, request: KeyRequest, node: str, now: datetime) -> None:
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))
    except (InvalidSignature, *UNREADABLE):
        raise JoinError("the certificate from the hub is not signed by the hub's CA") from None
    if certificate.public_key() != request.key.public_key():
        raise JoinError("the certificate from the hub is for another key than this node's")
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [name.value for name in names] != [NODE_PREFIX + node]:
        given = str(names[0].value)[:100] if names else ""
        raise JoinError(f"the certificate from the hub is for {given!r}, not for {NODE_PREFIX + node!r}")
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usages:
        raise JoinError("the certificate from the hub is not for client authentication")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise JoinError(
            f"the certificate from the hub holds from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M}Z to "
            f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M}Z, this machine's clock says {now:%Y-%m-%d %H:%M}Z"
        )
