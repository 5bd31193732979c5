"""The HTTPS endpoints by which nodes join, renew certificates, and look whether they exist: KubeEdge's port 10002.

``GET /ca.crt``: the CA's certificate, DER; public. ``GET /edge.crt`` with a CSR as the body: a node certificate, for
whoever shows a token, or the certificate that is to be renewed. ``GET /node/{name}``: 200 or 404.

``POST /nodeupgrade`` and ``POST /task/...`` are reports of KubeEdge's other tasks. CloudCore believes whoever sends
them. Nothing here acts on them; they are answered ``ok``, so that an EdgeCore is content, but only to the node itself,
known by its certificate; strangers get 401.

Guarantees: nothing is signed but by the rules of `cloudhub.pki.signing`. Every refusal has a status and a text for the
peer and a log line with node and reason; no token is in either. A connection carries one request and lives for seconds
(`AcceptLimits.turn`), bodies are at most 64 KiB, one address may ask only so often, and the number of connections at a
time is bounded, so peers that send slowly or never cost a known amount.

On load: the check of a token and a CSR and the signature take half a millisecond (P-256), a TLS handshake more, all in
the event loop. With the handshakes bounded, a storm of joins delays other work by single milliseconds; handing such
small pieces to threads would cost more.
"""

from __future__ import annotations

import inspect
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

import structlog
from aiohttp import web
from cryptography import x509

from cloudhub.listen.acceptor import AcceptLimits
from cloudhub.listen.admission import address_group
from cloudhub.listen.http import HTTPListener, allowed
from cloudhub.listen.ratelimit import RateLimit
from cloudhub.metrics import Metrics
from cloudhub.pki.ca import CertificateAuthority, utc_now
from cloudhub.pki.errors import Refused
from cloudhub.pki.names import NotANode, check_node_name, is_node_name, node_of
from cloudhub.pki.revocation import NothingRevoked, Revoked
from cloudhub.pki.signing import MAX_CSR_BYTES, check_usages, sign_node_csr
from cloudhub.pki.tokens import TokenIssuer, bearer
from shared.x509 import UNREADABLE

MAX_BODY: Final = MAX_CSR_BYTES
"""KubeEdge's limit is 1 MiB. Here as many bodies as there are turns may be in the making, and no real one has 4 KiB."""
OCTETS: Final = "application/octet-stream"

NodeExists = Callable[[str], bool | Awaitable[bool]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JoinLimits:
    requests_per_second: float = 100.0
    """Of one address. A hub signs some 300 a second."""
    request_burst: int = 2000
    """A fleet behind one NAT that joins together."""
    accept: AcceptLimits = field(default_factory=lambda: AcceptLimits(turn=30.0, running=256, running_per_address=192))
    """Here a turn is the connection's whole life."""


class JoinServer:
    """``certificate_life`` is KubeEdge's edgeCertSigningDuration. ``revoked`` is asked for each certificate,
    ``node_exists`` for each ``/node/{name}``."""

    def __init__(
        self,
        *,
        ca: CertificateAuthority,
        tokens: TokenIssuer,
        ssl_context: ssl.SSLContext,
        host: str,
        port: int,
        certificate_life: timedelta = timedelta(days=365),
        node_exists: NodeExists = lambda node: False,
        metrics: Metrics,
        revoked: Revoked | None = None,
        limits: JoinLimits | None = None,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if ssl_context.verify_mode is ssl.CERT_NONE:
            raise ValueError("ssl_context does not ask for client certificates")
        limits = limits or JoinLimits()
        self._ca = ca
        self._tokens = tokens
        self._life = certificate_life
        self._node_exists = node_exists
        self._metrics = metrics
        self._revoked = revoked or NothingRevoked()
        self._now = now
        self._rate = RateLimit(per_second=limits.requests_per_second, burst=limits.request_burst, clock=clock)
        self._listener = HTTPListener(
            self._application(),
            host=host,
            port=port,
            ssl_context=ssl_context,
            limits=limits.accept,
            refused=self._connection_refused,
        )

    @property
    def port(self) -> int:
        return self._listener.port

    async def start(self) -> None:
        await self._listener.start()
        log.info("serving joins", port=self.port, ca_sha256=self._ca.fingerprint)

    async def stop(self) -> None:
        """Ends what is running, within a second or two."""
        await self._listener.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _connection_refused(self, reason: str, address: str, detail: str) -> None:
        self._metrics.joins_refused_total.count(reason)
        log.debug("join connection ended", reason=reason, address=address, detail=detail)

    # --- Requests ---------------------------------------------------------------------------------------------------

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=MAX_BODY, middlewares=[self._guard])
        application.add_routes(
            [
                web.get("/ca.crt", self._get_ca, allow_head=False),
                web.get("/edge.crt", self._get_certificate, allow_head=False),
                web.get("/node/{name}", self._get_node, allow_head=False),
                web.post("/nodeupgrade", self._post_report),
                web.post("/task/{type}/name/{task}/node/{node}/status", self._post_report),
            ]
        )
        return application

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Rate, refusals, and everything unforeseen, as texts."""
        address = address_group(request.remote or "")
        try:
            if not self._rate.allow(address):
                raise Refused(429, "rate", "too many requests from this address; try again later")
            response = await handler(request)
        except Refused as refused:
            self._metrics.joins_refused_total.count(refused.reason)
            log.warning(
                "request refused",
                path=request.path[:64],
                node=name if is_node_name(name := request.headers.get("NodeName", "")) else None,
                address=address,
                reason=refused.reason,
                detail=str(refused),
            )
            response = web.Response(status=refused.status, text=f"{refused}\n")
            if refused.status == 429:
                response.headers["Retry-After"] = "10"
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=f"{error.reason}\n", headers=allowed(error))
        except ConnectionError as error:
            # The peer went, or its turn ended, before its body was whole. Nobody reads the answer.
            log.debug("request abandoned", path=request.path[:64], address=address, error=type(error).__name__)
            response = web.Response(status=400, text="the request is not whole\n")
        except Exception:
            log.exception("request failed", path=request.path[:64])
            response = web.Response(status=500, text="internal error\n")
        response.headers["Server"] = "cloudhub"
        # Go's clients would keep the connection, and its turn, for minutes.
        response.force_close()
        return response

    async def _get_ca(self, request: web.Request) -> web.Response:
        return web.Response(body=self._ca.certificate_der, content_type=OCTETS)

    async def _get_certificate(self, request: web.Request) -> web.Response:
        node, how = self._authenticate(request)
        check_usages(request.headers.get("ExtKeyUsages"))
        # Before the body, which may take its time: what is revoked meanwhile is noticed when the signature is noted.
        number = self._revoked.number(node)
        try:
            csr = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise Refused(413, "csr", f"body of more than {MAX_BODY} bytes is no certificate request") from None
        der = sign_node_csr(self._ca, csr=csr, node=node, life=self._life, now=self._now())
        await self._revoked.note(node, x509.load_der_x509_certificate(der), number)
        log.info("node certificate signed", node=node, by=how, days=self._life.days)
        return web.Response(body=der, content_type=OCTETS)

    def _authenticate(self, request: web.Request) -> tuple[str, str]:
        """The node that asks, and by what it is known. A token counts before a certificate: a node that shows both
        joins anew."""
        try:
            node = check_node_name(request.headers.get("NodeName", ""))
        except NotANode as error:
            raise Refused(400, "node name", f"header NodeName: {error}") from None
        certificate = _peer_certificate(request)
        if "Authorization" in request.headers or certificate is None:
            issued_at = self._tokens.verify(bearer(request.headers.get("Authorization")), node)
            self._revoked.check_token(node, issued_at)
            return node, "token"
        if _node_of(certificate) != node:
            raise Refused(403, "certificate", f"the client certificate is not that of node {node}")
        self._revoked.check_certificate(node, certificate.serial_number)
        return node, "certificate"

    async def _get_node(self, request: web.Request) -> web.Response:
        try:
            name = check_node_name(request.match_info["name"])
        except NotANode as error:
            raise Refused(400, "node name", str(error)) from None
        found = self._node_exists(name)
        if inspect.isawaitable(found):
            found = await found
        return web.Response(text="Node found") if found else web.Response(status=404, text="Node not found")

    async def _post_report(self, request: web.Request) -> web.Response:
        certificate = _peer_certificate(request)
        if certificate is None:
            raise Refused(401, "no credentials", "a client certificate is required")
        node = _node_of(certificate)
        if request.match_info.get("node", node) != node:
            raise Refused(403, "certificate", "the client certificate is of another node")
        self._revoked.check_certificate(node, certificate.serial_number)
        await request.read()
        log.debug("report of another task ignored", node=node, path=request.path[:64])
        return web.Response(text="ok")


def _peer_certificate(request: web.Request) -> x509.Certificate | None:
    """TLS has checked its chain, its time and that it is for clients."""
    transport = request.transport
    ssl_object: Any = transport.get_extra_info("ssl_object") if transport is not None else None
    der = ssl_object.getpeercert(binary_form=True) if ssl_object is not None else None
    try:
        return x509.load_der_x509_certificate(der) if der else None
    except UNREADABLE:
        raise Refused(401, "certificate", "the client certificate cannot be read") from None


def _node_of(certificate: x509.Certificate) -> str:
    try:
        return node_of(certificate)
    except NotANode as error:
        raise Refused(401, "certificate", f"client certificate: {error}") from None
