"""What an agent is told for a certificate: whatever it is, it is taken or refused in words."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

from cloudhub.pki.ca import CertificateAuthority, utc_now
from edgehub.link.certificates import ca_pem, checked_certificate, new_request
from edgehub.link.errors import JoinError

NOW = utc_now()
CA = CertificateAuthority.create(now=NOW)
REQUEST = new_request("edge-1")
OF_NO_VERSION = CA.certificate_der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06")


def _check(der: bytes) -> bytes:
    return checked_certificate(der=der, ca=ca_pem(CA.certificate_der), request=REQUEST, node="edge-1", now=NOW)


@pytest.mark.parametrize("der", [b"", b"no certificate", OF_NO_VERSION, CA.certificate_der[:-1]])
def test_what_is_no_certificate_is_refused_in_words(der: bytes) -> None:
    assert der != CA.certificate_der
    with pytest.raises(JoinError, match=r"the hub's CA certificate is no X\.509 certificate in DER form"):
        ca_pem(der)
    with pytest.raises(JoinError, match=r"the certificate from the hub is no X\.509 certificate in DER form"):
        _check(der)


def test_one_that_is_signed_and_has_a_part_that_cannot_be_read_is_refused_in_words() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "system:node:edge-1")])
    key = CA.key.key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(CA.certificate.subject)
        .public_key(REQUEST.key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.UnrecognizedExtension(ExtensionOID.EXTENDED_KEY_USAGE, b"no usages"), critical=False)
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(JoinError, match=r"the certificate from the hub is no X\.509 certificate in DER form"):
        _check(certificate.public_bytes(Encoding.DER))


def test_the_right_one_is_taken() -> None:
    der = CA.issue_node_certificate(node="edge-1", public_key=REQUEST.key.public_key(), life=timedelta(days=1), now=NOW)
    assert _check(der).startswith(b"-----BEGIN CERTIFICATE-----")
