"""Joining: from a token to a certificate, and from one certificate to the next.

Problem: at first the node trusts nobody. The token is ``<sha256 of the CA certificate>.<JWT>``: its first part lets the
node recognise the hub's CA, its second lets the hub recognise the node.

Guarantee: the JWT is sent only over TLS verified by a CA whose hash the token names, and only the JWT, as KubeEdge
does it; nothing is written unless the certificate that came back is signed by that CA, for our key, in our name.
Errors never hold the token.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgehub.link import http
from edgehub.link.errors import JoinError
from edgehub.link.identity import IdentityFiles

if TYPE_CHECKING:
    from edgehub.link.certificates import KeyRequest

CA_PATH = "/ca.crt"
CERTIFICATE_PATH = "/edge.crt"
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class JoinToken:
    ca_hash: str
    jwt: str = field(repr=False)


def parse_token(text: str) -> JoinToken:
    """Raises `JoinError`."""
    ca_hash, _, jwt = text.strip().partition(".")
    if not _HASH.fullmatch(ca_hash) or len(jwt.split(".")) != 3 or not jwt.isascii() or not jwt.isprintable():
        raise JoinError("the token is not of the form <64 hex digits>.<JWT>: copy it whole, it has three dots")
    return JoinToken(ca_hash=ca_hash, jwt=jwt)


def _now() -> datetime:
    return datetime.now(UTC)


async def join(
    *,
    server: str,
    token: JoinToken,
    node: str,
    files: IdentityFiles,
    now: Callable[[], datetime] = _now,
    timeout: float = 30.0,
) -> None:
    """Fetches CA and certificate and writes the three files. Raises `JoinError`, `HubUnreachable`, OSError."""
    from edgehub.link import certificates  # late: see its docstring

    der = await http.get(server, CA_PATH, context=_unverified_context(), timeout=timeout)
    digest = hashlib.sha256(der).hexdigest()
    if not hmac.compare_digest(digest, token.ca_hash):
        raise JoinError(
            f"{server} is not the hub that the token is for: its CA certificate has sha256 {digest[:16]}..., "
            f"the token names {token.ca_hash[:16]}..."
        )
    ca = certificates.ca_pem(der)
    request = certificates.new_request(node)
    headers = {"Authorization": f"Bearer {token.jwt}", "NodeName": node}
    signed = await http.get(
        server,
        CERTIFICATE_PATH,
        context=_context_of(ca),
        headers=headers,
        body=request.csr_der,
        timeout=timeout,
        secret=token.jwt,
    )
    pem = certificates.checked_certificate(der=signed, ca=ca, request=request, node=node, now=now())
    await asyncio.to_thread(_store, files, ca, pem, request)


async def renew(
    *, server: str, node: str, files: IdentityFiles, now: Callable[[], datetime] = _now, timeout: float = 30.0
) -> None:
    """Replaces the certificate by one for a fresh key, shown the present one. Raises as `join`, and `IdentityError`."""
    from edgehub.link import certificates  # late: see its docstring

    request = certificates.new_request(node)
    signed = await http.get(
        server,
        CERTIFICATE_PATH,
        context=files.client_context(),
        headers={"NodeName": node},
        body=request.csr_der,
        timeout=timeout,
    )
    ca = await asyncio.to_thread(files.ca.read_bytes)
    pem = certificates.checked_certificate(der=signed, ca=ca, request=request, node=node, now=now())
    await asyncio.to_thread(_store, files, None, pem, request)


def _store(files: IdentityFiles, ca: bytes | None, certificate: bytes, request: KeyRequest) -> None:
    if ca is not None:
        files.store_ca(ca)
    files.store(certificate_pem=certificate, key_pem=request.key_pem)


def _unverified_context() -> ssl.SSLContext:
    """For `/ca.crt` alone: what comes back is public, and is compared with the token's hash before it is used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context_of(ca: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=ca.decode("ascii"))
    except ssl.SSLError:
        raise JoinError("the hub's CA certificate cannot be used") from None
    return context
