"""A hub of the tests' own, and a node that has joined it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from edgehub.link.identity import IdentityFiles
from tests.integration.edgehub.hub import CA, Hub, node_name, pem_of

NODE = "edge.kubeedge"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with Hub(tmp_path) as hub:
        yield hub


@pytest.fixture
def files(tmp_path: Path) -> IdentityFiles:
    """Of a node that has not joined yet."""
    certs = tmp_path / "node" / "certs"
    return IdentityFiles(ca=certs / "rootCA.crt", certificate=certs / "server.crt", key=certs / "server.key")


def give_identity(ca: CA, files: IdentityFiles, node: str = NODE) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = x509.load_der_x509_certificate(ca.sign(key.public_key(), node_name(node)))
    files.store_ca(ca.pem)
    files.store(certificate_pem=certificate.public_bytes(Encoding.PEM), key_pem=pem_of(key))
