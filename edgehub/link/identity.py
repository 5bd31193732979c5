"""Who this node is: the CA certificate, the node's certificate and its key, as three PEM files.

Problem: certificate and key are two files (KubeEdge's layout) and no rename replaces two files at once; a crash
between them must not leave a node that can never connect again.

Guarantee: `store` puts the new certificate beside the old one first, then replaces the key, then the certificate;
`load` finishes what a crash left half done. What `load` returns works: it proves key, certificate, CA and dates by a
TLS handshake in memory, in which the node is the client that the hub will see.

That rehearsal is also how the dates are read: the ssl module shows the fields of a verified peer's certificate only,
and loading the `cryptography` package for two dates would cost each node 8 MB of memory.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from edgehub.link.errors import IdentityError, IdentityMissing
from shared.files import PRIVATE_FILE, PUBLIC_FILE, sync_folder, write_atomically

NODE_PREFIX = "system:node:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the agent needs to know of its own certificate."""

    common_name: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityFiles:
    ca: Path
    certificate: Path
    key: Path

    @property
    def _next_certificate(self) -> Path:
        return self.certificate.with_name(f"{self.certificate.name}.next")

    def store_ca(self, pem: bytes) -> None:
        write_atomically(self.ca, pem, mode=PUBLIC_FILE)

    def store(self, *, certificate_pem: bytes, key_pem: bytes) -> None:
        """Replaces the pair. Raises OSError."""
        write_atomically(self._next_certificate, certificate_pem, mode=PUBLIC_FILE)
        write_atomically(self.key, key_pem, mode=PRIVATE_FILE)
        # From here on the old certificate has no key; `load` takes the new one should we die now.
        os.replace(self._next_certificate, self.certificate)
        sync_folder(self.certificate.parent)

    def load(self, node: str) -> Certificate:
        """Raises `IdentityMissing` when there is no pair, `IdentityError` when it is of no use."""
        if not self.certificate.exists() and not self._next_certificate.exists():
            raise IdentityMissing(f"{self.certificate} does not exist: this node has not joined yet")
        self._finish_store()
        certificate = _rehearse(self._context(ssl.PROTOCOL_TLS_CLIENT), self._context(ssl.PROTOCOL_TLS_SERVER))
        if certificate.common_name != NODE_PREFIX + node:
            raise IdentityError(
                f"{self.certificate} is for {certificate.common_name!r}, this node is {NODE_PREFIX + node!r}: "
                f"join again or mend hostnameOverride"
            )
        return certificate

    def client_context(self) -> ssl.SSLContext:
        """For connections to the hub: verifies it by our CA, presents our certificate. Raises `IdentityError`."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _finish_store(self) -> None:
        waiting = self._next_certificate
        if not waiting.exists():
            return
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(waiting, self.key)
        except (OSError, ssl.SSLError):
            waiting.unlink(missing_ok=True)  # died before the key was replaced: the old pair is still whole
        else:
            os.replace(waiting, self.certificate)

    def _context(self, side: Any) -> ssl.SSLContext:
        # Not ssl.create_default_context: since Python 3.13 it refuses CAs without a key identifier, such as KubeEdge's.
        context = ssl.SSLContext(side)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise IdentityError(f"{self.ca} cannot be used as CA certificate: {_what(error)}") from error
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise IdentityError(
                f"{self.certificate} and {self.key} are no certificate with its key: {_what(error)}"
            ) from error
        return context


def _what(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not of the right form").replace("_", " ").lower()
    return error.strerror or type(error).__name__


def _rehearse(client_context: ssl.SSLContext, server_context: ssl.SSLContext) -> Certificate:
    """Both ends of a handshake with the node's certificate, without a socket."""
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE  # the server's part is played by the node, and is not the question
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for _ in range(4):  # a TLS 1.3 handshake needs two rounds
            for end in (client, server):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        peer = cast("dict[str, Any]", server.getpeercert())
    except ssl.SSLCertVerificationError as error:
        raise IdentityError(
            f"the node's certificate is of no use: {error.verify_message}; join again, or mend this machine's clock"
        ) from error
    except (ssl.SSLError, ValueError) as error:
        raise IdentityError("the node's certificate is of no use in TLS") from error
    subject = {name: value for part in peer.get("subject", ()) for name, value in part}
    return Certificate(
        common_name=str(subject.get("commonName", "")),
        not_before=_moment(str(peer["notBefore"])),
        not_after=_moment(str(peer["notAfter"])),
    )


def _moment(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
