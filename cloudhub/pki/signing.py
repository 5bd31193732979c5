"""What a node may be given a certificate for: being that node, as a TLS client, and nothing else.

A CSR is signed only when it names the node that was authenticated (by token or by its old certificate), proves that the
sender has the private key, and asks for no more than KubeEdge's edges ask for. KubeEdge signs whatever name, names and
usages the caller wants; a CA that does so lets any holder of a token be any node, or the hub.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloudhub.pki.ca import CertificateAuthority, PublicKey
from cloudhub.pki.errors import Refused
from cloudhub.pki.keys import MIN_RSA_BITS
from cloudhub.pki.names import NotANode, long_names_allowed, node_of_subject
from shared.x509 import UNREADABLE

MAX_CSR_BYTES: Final = 64 * 1024
MAX_RSA_BITS: Final = 8192
"""Checking a signature of a larger one takes too long for somebody who is nobody yet."""
CLIENT_AUTH: Final = 2
"""Go's number of x509.ExtKeyUsageClientAuth."""
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


def sign_node_csr(ca: CertificateAuthority, *, csr: bytes, node: str, life: timedelta, now: datetime) -> bytes:
    """The certificate in DER for a CSR in DER. Raises `Refused`."""
    public_key = check_csr(csr, node)
    return ca.issue_node_certificate(node=node, public_key=public_key, life=life, now=now)


def check_csr(der: bytes, node: str) -> PublicKey:
    """The key that the CSR is about. Raises `Refused` with status 400, or 403 when it is about somebody else."""
    if not der or len(der) > MAX_CSR_BYTES:
        raise Refused(400, "csr", f"body of {len(der)} bytes is no certificate request (PKCS#10, DER)")
    try:
        csr = x509.load_der_x509_csr(der)
        public_key = csr.public_key()
    except UNREADABLE:
        raise Refused(400, "csr", "body is no certificate request (PKCS#10, DER)") from None
    checked = _check_key(public_key)
    _check_signature(csr)
    _check_extensions(csr)
    try:
        with long_names_allowed():
            named = node_of_subject(csr.subject)
    except NotANode as error:
        raise Refused(403, "csr subject", f"certificate request: {error}") from None
    except UNREADABLE:
        raise Refused(400, "csr", "certificate request has a subject that cannot be read") from None
    if named != node:
        raise Refused(403, "csr subject", f"certificate request is for node {named!r}, header NodeName says {node!r}")
    return checked


def check_usages(header: str | None) -> None:
    """Header ``ExtKeyUsages``: absent, or a JSON list that holds just clientAuth."""
    if header is None or header == "":
        return
    try:
        usages = json.loads(header[:1024])
    except (ValueError, RecursionError):
        usages = None
    if usages != [CLIENT_AUTH]:
        raise Refused(403, "usages", f"header ExtKeyUsages must be [{CLIENT_AUTH}] (clientAuth) or absent")


def _check_key(key: object) -> PublicKey:
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1):
            raise Refused(400, "csr key", f"key is on curve {key.curve.name}, not P-256")
        return key
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise Refused(400, "csr key", f"RSA key has {key.key_size} bits, not {MIN_RSA_BITS} to {MAX_RSA_BITS}")
        return key
    raise Refused(400, "csr key", "key is neither P-256 nor RSA")


def _check_signature(csr: x509.CertificateSigningRequest) -> None:
    try:
        good = isinstance(csr.signature_hash_algorithm, _HASHES) and csr.is_signature_valid
    except UNREADABLE:
        good = False
    if not good:
        raise Refused(400, "csr signature", "certificate request is not signed (SHA-256 or better) with its own key")


def _check_extensions(csr: x509.CertificateSigningRequest) -> None:
    try:
        extensions = list(csr.extensions)
    except UNREADABLE:
        raise Refused(400, "csr extensions", "certificate request has extensions that cannot be read") from None
    for extension in extensions:
        usage = extension.value
        if isinstance(usage, x509.ExtendedKeyUsage) and list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]:
            continue
        name = getattr(extension.oid, "_name", "") or extension.oid.dotted_string
        raise Refused(403, "csr extensions", f"certificate request asks for extension {name}, which no node gets")
