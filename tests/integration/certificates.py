"""A CA and node certificates for tests that speak TLS, made as the product makes them."""

from __future__ import annotations

import ssl
import tempfile
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cloudhub.pki.ca import CertificateAuthority, utc_now
from cloudhub.pki.contexts import server_context

Key = ec.EllipticCurvePrivateKey


def new_ca() -> CertificateAuthority:
    return CertificateAuthority.create(now=utc_now())


def mtls_context(ca: CertificateAuthority) -> ssl.SSLContext:
    return _server(ca, ssl.CERT_REQUIRED)


def join_context(ca: CertificateAuthority) -> ssl.SSLContext:
    return _server(ca, ssl.CERT_OPTIONAL)


def node_subject(node: str, *, organization: str = "system:nodes") -> x509.Name:
    """As EdgeCore writes it into its CSR."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Hangzhou"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "Zhejiang"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
        ]
    )


def csr(subject: x509.Name, key: Key, *extensions: x509.ExtensionType) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def node_certificate(
    ca: CertificateAuthority, node: str, *, life: timedelta = timedelta(days=1), age: timedelta = timedelta(0)
) -> tuple[bytes, Key]:
    """DER and key; issued ``age`` ago."""
    key = ec.generate_private_key(ec.SECP256R1())
    der = ca.issue_node_certificate(node=node, public_key=key.public_key(), life=life, now=utc_now() - age)
    return der, key


def client_context(ca: CertificateAuthority, identity: tuple[bytes, Key] | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca.certificate_der)
    if identity is not None:
        certificate = x509.load_der_x509_certificate(identity[0])
        key = identity[1].private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "client.pem"
            path.write_bytes(certificate.public_bytes(Encoding.PEM) + key)
            context.load_cert_chain(path)
    return context


def node_context(ca: CertificateAuthority, node: str) -> ssl.SSLContext:
    return client_context(ca, node_certificate(ca, node))


def _server(ca: CertificateAuthority, mode: ssl.VerifyMode) -> ssl.SSLContext:
    identity = ca.issue_server_certificate(addresses=["127.0.0.1"], dns_names=["localhost"], now=utc_now())
    return server_context(ca, identity, client_certificates=mode)
