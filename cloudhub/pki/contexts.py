"""TLS contexts of the hub's two servers for nodes, and how a certificate and key get into them.

Python loads keys from files only. A key that lies in a Secret is handed over through an anonymous file in memory, so
that it never touches a disk. A context is loaded anew when the server's certificate is renewed: connections go on, new
handshakes use the new one.

The join endpoints ask for a client certificate and do without (``CERT_OPTIONAL``). Python's TLS cannot ask for one and
leave the judging to the handler, as Go does in CloudCore: one that does not chain to the CA, or has expired, fails the
handshake. That costs nothing real: an EdgeCore that joins presents no certificate, one that renews has no token, and
CloudCore answers 401 to a renewal with a foreign certificate. Whoever joins with a token must just not present a
certificate of another CA with it.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator

from cloudhub.pki.ca import CertificateAuthority, ServerIdentity
from cloudhub.pki.errors import PKIError


def server_context(
    ca: CertificateAuthority, identity: ServerIdentity, *, client_certificates: ssl.VerifyMode
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    # No resumption: it would skip the check of the client's certificate, and a ticket costs each handshake two writes.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.verify_mode = client_certificates
    context.load_verify_locations(cadata=ca.certificate_der)
    load_identity(context, identity)
    return context


def load_identity(context: ssl.SSLContext, identity: ServerIdentity) -> None:
    with _readable_once(identity.chain_pem + identity.key.pem) as path:
        try:
            context.load_cert_chain(path)
        except ssl.SSLError as error:
            raise PKIError(f"the server's certificate cannot be used for TLS: {error.reason or error}") from None


@contextlib.contextmanager
def _readable_once(content: bytes) -> Iterator[str]:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("cloudhub-key", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(content)
            file.flush()
            yield file.name
