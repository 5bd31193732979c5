"""The bench's own CA, in the files that the hub takes it from, and certificates of many nodes from it.

A session belongs to the node that its certificate names, so every simulated node needs one of its own. They share one
key, since making a key a node would take longer than the bench, and nothing that is measured depends on it.
"""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate

from cloudhub.pki.ca import CertificateAuthority, utc_now
from cloudhub.pki.keys import new_key

CA_FILE: Final = "rootCA.crt"
CA_KEY_FILE: Final = "rootCA.key"
LIFE: Final = timedelta(days=1)


def create_ca(folder: Path) -> None:
    folder.mkdir(parents=True)
    ca = CertificateAuthority.create(now=utc_now())
    (folder / CA_FILE).write_bytes(ca.certificate_pem)
    (folder / CA_KEY_FILE).write_bytes(ca.key.pem)


def load_ca(folder: Path) -> CertificateAuthority:
    return CertificateAuthority.from_pem(
        (folder / CA_FILE).read_bytes(),
        (folder / CA_KEY_FILE).read_bytes(),
        certificate_source=CA_FILE,
        key_source=CA_KEY_FILE,
        now=utc_now(),
    )


class NodeIdentities:
    """Client contexts of nodes, each with the node's certificate."""

    def __init__(self, folder: Path) -> None:
        self._ca = load_ca(folder)
        self._key = new_key()
        self._file = folder / "node.pem"

    def context(self, node: str) -> ssl.SSLContext:
        key = self._key.key
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        der = self._ca.issue_node_certificate(node=node, public_key=key.public_key(), life=LIFE, now=utc_now())
        self._file.write_bytes(load_der_x509_certificate(der).public_bytes(Encoding.PEM) + self._key.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self._ca.certificate_der)
        context.load_cert_chain(self._file)
        return context
