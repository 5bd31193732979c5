"""The CA: its shape, loading it, and what it signs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudhub.pki.ca import CertificateAuthority, subject_alternative_names
from cloudhub.pki.errors import PKIError
from cloudhub.pki.keys import PrivateKey, key_from_der, key_from_pem, new_key
from cloudhub.pki.names import NotANode, check_node_name, is_node_name, node_of

NOW = datetime(2026, 11, 22, 22, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def ca() -> CertificateAuthority:
    return CertificateAuthority.create(now=NOW)


class TestOwnCertificate:
    def test_it_has_kubeedges_shape(self, ca: CertificateAuthority) -> None:
        certificate = ca.certificate
        assert certificate.subject.rfc4514_string() == "CN=KubeEdge"
        assert certificate.serial_number == 1024
        assert certificate.not_valid_after_utc - NOW == timedelta(days=36400)
        assert isinstance(ca.key.key, ec.EllipticCurvePrivateKey)
        assert isinstance(ca.key.key.curve, ec.SECP256R1)
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign

    def test_the_key_is_sec1(self, ca: CertificateAuthority) -> None:
        # ECPrivateKey: SEQUENCE, version 1.
        assert ca.key.der[0] == 0x30
        assert ca.key.der[2:5] == b"\x02\x01\x01"
        assert ca.key.pem.startswith(b"-----BEGIN EC PRIVATE KEY-----")

    def test_no_repr_shows_the_key(self, ca: CertificateAuthority) -> None:
        for thing in (ca, ca.key):
            assert ca.key.der.hex() not in repr(thing)
            assert "PrivateKey object" not in repr(thing)


class TestLoading:
    def test_what_was_made_can_be_loaded_from_der_and_pem(self, ca: CertificateAuthority) -> None:
        for again in (
            CertificateAuthority.from_der(ca.certificate_der, ca.key.der, source="s", now=NOW),
            CertificateAuthority.from_pem(
                ca.certificate_pem, ca.key.pem, certificate_source="c", key_source="k", now=NOW
            ),
        ):
            assert again.fingerprint == ca.fingerprint
            assert again.key.der == ca.key.der

    def test_the_bytes_of_a_sec1_key_are_kept_as_they_are(self) -> None:
        # Go and openssl write the optional parts differently; the tokens of a CloudCore hang on these very bytes.
        key = ec.derive_private_key(7, ec.SECP256R1())
        without_public = bytes.fromhex("30310201010420" + f"{7:064x}" + "a00a06082a8648ce3d030107")
        loaded = key_from_der(without_public, "s")
        assert loaded.der == without_public
        assert loaded.key.private_numbers() == key.private_numbers()

    def test_a_pkcs8_key_gives_the_der_that_kubeedge_would_have(self, ca: CertificateAuthority) -> None:
        pkcs8_pem = ca.key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        pkcs8_der = ca.key.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        assert key_from_pem(pkcs8_pem, "s").der == key_from_der(pkcs8_der, "s").der == ca.key.der

    def test_an_rsa_key_is_taken_in_both_forms(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        traditional = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        pkcs8 = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        assert key_from_der(traditional, "s").der == key_from_der(pkcs8, "s").der == traditional

    def test_a_pem_file_of_openssl_with_parameters_is_read(self, ca: CertificateAuthority) -> None:
        parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        assert key_from_pem(parameters + ca.key.pem, "s").der == ca.key.der

    def test_what_is_wrong_is_said_with_the_file_that_it_is_wrong_in(self, ca: CertificateAuthority) -> None:
        other = new_key()
        not_a_ca = ca.issue_server_certificate(addresses=["10.0.0.1"], dns_names=[], now=NOW)
        encrypted = ca.key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"p"))
        ed = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        small = rsa.generate_private_key(65537, 1024)  # noqa: S505 - it is to be refused
        small_pem = small.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        cases = [
            (ca.certificate_pem, other.pem, NOW, "c with k: the private key does not belong to the certificate"),
            (not_a_ca.chain_pem, not_a_ca.key.pem, NOW, "c with k: the certificate is not that of a CA"),
            (ca.certificate_pem, ca.key.pem, NOW + timedelta(days=36401), "c with k: the certificate expired at 2126-"),
            (ca.certificate_pem, ca.key.pem, NOW - timedelta(days=2), "c with k: the certificate is valid only from"),
            (b"", ca.key.pem, NOW, "c: not a certificate in PEM form"),
            (ca.certificate_pem * 2, ca.key.pem, NOW, "c: holds 2 certificates, not one"),
            (ca.certificate_pem, b"nothing", NOW, "k: holds 0 private keys in PEM form, not one"),
            (ca.certificate_pem, encrypted, NOW, "k: the private key is encrypted"),
            (ca.certificate_pem, ed, NOW, "k: private key is neither an elliptic-curve nor an RSA key"),
            (ca.certificate_pem, small_pem, NOW, "k: RSA key of 1024 bits, less than 2048"),
            (
                ca.certificate_pem,
                b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
                NOW,
                "k: not a private key in PEM form",
            ),
        ]
        for certificate, key, now, text in cases:
            with pytest.raises(PKIError) as caught:
                CertificateAuthority.from_pem(certificate, key, certificate_source="c", key_source="k", now=now)
            assert str(caught.value).startswith(text)
        for certificate, key in ((b"junk", ca.key.der), (ca.certificate_der, b"junk")):
            with pytest.raises(PKIError, match="Secret x: not a"):
                CertificateAuthority.from_der(certificate, key, source="Secret x", now=NOW)


class TestServerCertificate:
    def test_it_carries_addresses_and_names_and_is_for_servers(self, ca: CertificateAuthority) -> None:
        identity = ca.issue_server_certificate(
            addresses=["10.0.0.1", "2001:db8::1"], dns_names=["hub.example", "*.hub.example"], now=NOW
        )
        certificate = identity.certificate
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1", "2001:db8::1"]
        assert names.get_values_for_type(x509.DNSName) == ["hub.example", "*.hub.example"]
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
        assert certificate.subject.rfc4514_string() == "CN=KubeEdge,O=KubeEdge"
        assert ca.issued(certificate)
        assert identity.key.matches(certificate)

    @pytest.mark.parametrize(
        ("addresses", "names", "text"),
        [
            (["hub.example"], [], "advertiseAddress: 'hub.example' is no IP address"),
            ([], ["hüb.example"], "dnsNames: 'hüb.example' is no DNS name"),
            ([], [], "are both empty"),
        ],
    )
    def test_a_wrong_address_is_named(self, addresses: list[str], names: list[str], text: str) -> None:
        with pytest.raises(PKIError, match=text):
            subject_alternative_names(addresses, names)


class TestNodeCertificate:
    def test_it_says_who_the_node_is_and_that_it_is_a_client(self, ca: CertificateAuthority) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        life = timedelta(days=365)
        der = ca.issue_node_certificate(node="edge-1", public_key=key.public_key(), life=life, now=NOW)
        certificate = x509.load_der_x509_certificate(der)
        assert node_of(certificate) == "edge-1"
        assert certificate.subject.rfc4514_string() == "CN=system:node:edge-1,O=system:nodes"
        assert certificate.not_valid_after_utc == NOW + life
        # An agent whose clock is an hour behind must find it valid already.
        assert certificate.not_valid_before_utc == NOW - timedelta(hours=2)
        extensions = {extension.oid: extension.value for extension in certificate.extensions}
        assert extensions[x509.ExtendedKeyUsage.oid] == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        assert extensions[x509.BasicConstraints.oid] == x509.BasicConstraints(ca=False, path_length=None)
        assert x509.SubjectAlternativeName.oid not in extensions

    def test_its_life_ends_with_the_cas(self, ca: CertificateAuthority) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        der = ca.issue_node_certificate(
            node="a", public_key=key.public_key(), life=timedelta(days=50_000), now=NOW + timedelta(days=1)
        )
        assert x509.load_der_x509_certificate(der).not_valid_after_utc == ca.certificate.not_valid_after_utc

    def test_a_long_node_name_fits(self, ca: CertificateAuthority) -> None:
        name = ".".join(["a" * 63] * 3)
        key = ec.generate_private_key(ec.SECP256R1())
        der = ca.issue_node_certificate(node=name, public_key=key.public_key(), life=timedelta(days=1), now=NOW)
        assert node_of(x509.load_der_x509_certificate(der)) == name

    def test_what_another_ca_of_the_same_name_signed_is_not_issued_by_this_one(self, ca: CertificateAuthority) -> None:
        other = CertificateAuthority.create(now=NOW)
        theirs = other.issue_server_certificate(addresses=["10.0.0.1"], dns_names=[], now=NOW).certificate
        assert not ca.issued(theirs)
        assert other.issued(theirs)

    def test_a_ca_with_an_rsa_key_signs_too(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        der = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        ca = CertificateAuthority.create(now=NOW, key=PrivateKey(key=key, der=der))
        assert ca.issued(ca.issue_server_certificate(addresses=["10.0.0.1"], dns_names=[], now=NOW).certificate)


class TestNames:
    @pytest.mark.parametrize("name", ["a", "edge-1", "10.0.0.1", "a.b-c.d", "x" * 63, ".".join(["y" * 63] * 3)])
    def test_kubernetes_names_are_node_names(self, name: str) -> None:
        assert check_node_name(name) == name

    @pytest.mark.parametrize(
        "name",
        ["", "-a", "a-", "A", "a_b", "a..b", ".a", "a.", "x" * 64, ".".join(["y" * 63] * 4), "a\n", "a/b", "é", "a b"],
    )
    def test_anything_else_is_none(self, name: str) -> None:
        assert not is_node_name(name)
        with pytest.raises(NotANode, match="is no node name"):
            check_node_name(name)

    def test_a_certificate_whose_name_is_no_text_is_none_of_a_node(self, ca: CertificateAuthority) -> None:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "system:node:a")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(ca.key.key.public_key())
            .serial_number(1)
            .not_valid_before(NOW)
            .not_valid_after(NOW + timedelta(days=1))
            .sign(ca.key.key, hashes.SHA256())
        )
        with pytest.raises(NotANode, match="0 values of organization"):
            node_of(certificate)
