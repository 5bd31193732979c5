"""What a CSR may ask for."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from cloudhub.pki.ca import CertificateAuthority
from cloudhub.pki.errors import Refused
from cloudhub.pki.names import node_of
from cloudhub.pki.signing import MAX_CSR_BYTES, check_csr, check_usages, sign_node_csr
from tests.integration.certificates import csr, node_subject

NOW = datetime(2026, 11, 22, 22, 0, tzinfo=UTC)
CA = CertificateAuthority.create(now=NOW)
KEY = ec.generate_private_key(ec.SECP256R1())
GOOD = csr(node_subject("edge-1"), KEY)


def signed_by(key: CertificateIssuerPrivateKeyTypes, algorithm: hashes.HashAlgorithm | None) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(node_subject("edge-1"))
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)  # type: ignore[arg-type]


def test_edgecores_request_is_signed() -> None:
    der = sign_node_csr(CA, csr=GOOD, node="edge-1", life=timedelta(days=365), now=NOW)
    certificate = x509.load_der_x509_certificate(der)
    assert node_of(certificate) == "edge-1"
    assert CA.issued(certificate)
    assert certificate.public_key() == KEY.public_key()


def test_a_request_that_says_client_authentication_is_signed() -> None:
    asked = csr(node_subject("edge-1"), KEY, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))
    assert check_csr(asked, "edge-1") == KEY.public_key()


def test_rsa_keys_are_taken() -> None:
    key = rsa.generate_private_key(65537, 2048)
    assert check_csr(signed_by(key, hashes.SHA256()), "edge-1") == key.public_key()


@pytest.mark.parametrize(
    "extension",
    [
        x509.BasicConstraints(ca=True, path_length=None),
        x509.BasicConstraints(ca=False, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
        x509.SubjectAlternativeName([x509.DNSName("hub.example")]),
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
    ],
    ids=lambda extension: type(extension).__name__,
)
def test_a_request_for_more_than_being_a_client_is_refused(extension: x509.ExtensionType) -> None:
    with pytest.raises(Refused, match="asks for extension") as caught:
        check_csr(csr(node_subject("edge-1"), KEY, extension), "edge-1")
    assert (caught.value.status, caught.value.reason) == (403, "csr extensions")


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        (node_subject("edge-2"), "certificate request is for node 'edge-2', header NodeName says 'edge-1'"),
        (node_subject("edge-1", organization="system:masters"), "not system:nodes"),
        (node_subject("edge-1", organization="KubeEdge"), "not system:nodes"),
        (x509.Name([]), "0 values of organization"),
        (
            x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
                    x509.NameAttribute(NameOID.COMMON_NAME, "system:node:edge-1"),
                    x509.NameAttribute(NameOID.COMMON_NAME, "system:admin"),
                ]
            ),
            "2 values of common name",
        ),
        (
            x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"),
                    x509.NameAttribute(NameOID.COMMON_NAME, "system:node:edge-1"),
                ]
            ),
            "2 values of organization",
        ),
    ],
)
def test_a_request_for_another_subject_is_refused(subject: x509.Name, text: str) -> None:
    with pytest.raises(Refused, match=text) as caught:
        check_csr(csr(subject, KEY), "edge-1")
    assert (caught.value.status, caught.value.reason) == (403, "csr subject")


@pytest.mark.parametrize(
    ("request_of", "reason"),
    [
        (lambda: signed_by(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()), "csr key"),
        (lambda: signed_by(rsa.generate_private_key(65537, 1024), hashes.SHA256()), "csr key"),  # noqa: S505
        (lambda: signed_by(ed25519.Ed25519PrivateKey.generate(), None), "csr key"),
        (lambda: GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "csr signature"),
        (lambda: signed_by(KEY, hashes.SHA224()), "csr signature"),
        (lambda: b"", "csr"),
        (lambda: GOOD[:-20], "csr"),
        (lambda: b"\x30" * 100, "csr"),
        (lambda: b"x" * (MAX_CSR_BYTES + 1), "csr"),
    ],
)
def test_what_proves_no_usable_key_is_refused(request_of: object, reason: str) -> None:
    assert callable(request_of)
    with pytest.raises(Refused) as caught:
        check_csr(request_of(), "edge-1")
    assert (caught.value.status, caught.value.reason) == (400, reason)


def test_a_challenge_password_is_no_extension_and_does_no_harm() -> None:
    builder = x509.CertificateSigningRequestBuilder().subject_name(node_subject("edge-1"))
    builder = builder.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"hunter2")
    check_csr(builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER), "edge-1")


@given(st.binary(max_size=300))
@example(CA.certificate_der)
def test_any_bytes_are_refused_and_nothing_else_happens(der: bytes) -> None:
    with pytest.raises(Refused):
        check_csr(der, "edge-1")


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_no_changed_byte_of_a_request_gets_another_certificate(place: int, change: int) -> None:
    changed = bytearray(GOOD)
    changed[place] ^= change
    try:
        key = check_csr(bytes(changed), "edge-1")
    except Refused:
        key = KEY.public_key()
    assert key == KEY.public_key()


@pytest.mark.parametrize("header", [None, "", "[2]", " [2] "])
def test_client_authentication_may_be_asked_for(header: str | None) -> None:
    check_usages(header)


@pytest.mark.parametrize("header", ["[1]", "[1,2]", "[2,1]", "[]", "2", "[0]", "[true]", '["2"]', "{", "[" * 5000])
def test_no_other_usage_may_be(header: str) -> None:
    with pytest.raises(Refused) as caught:
        check_usages(header)
    assert (caught.value.status, caught.value.reason) == (403, "usages")
