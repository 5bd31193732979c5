"""A hub of the tests' own: KubeEdge's join endpoints and WebSocket, on real TLS, saying and keeping just what a test
wants. Messages stand here as KubeEdge's JSON, written out, so that a slip in the shared models cannot hide."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

JWT = "header.claims.signature"
ALL_FEATURES = "ack,cancel,credentials,progress"
PROJECT = "e632aba927ea4ac2b575ec1603d56f10"


class CA:
    """As KubeEdge makes one: no key identifiers, no key usage."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "KubeEdge")])
        self.certificate = (
            _builder(name, name, self.key.public_key(), timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def token(self) -> str:
        return f"{hashlib.sha256(self.der).hexdigest()}.{JWT}"

    def write_server(self, folder: Path, address: str = "127.0.0.1") -> Path:
        """A PEM file with a server's certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "KubeEdge"),
                x509.NameAttribute(NameOID.COMMON_NAME, "KubeEdge"),
            ]
        )
        certificate = (
            _builder(name, self.certificate.subject, key.public_key(), timedelta(days=10))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        path = folder / f"server-{address}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + pem_of(key))
        return path

    def sign(
        self,
        public_key: Any,
        subject: x509.Name,
        *,
        life: timedelta = timedelta(days=365),
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> bytes:
        certificate = (
            _builder(subject, self.certificate.subject, public_key, life)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.DER)


def _builder(subject: x509.Name, issuer: x509.Name, key: Any, life: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + life)
    )


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def node_name(node: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}"),
        ]
    )


class Session:
    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        assert socket.request is not None
        self.path = socket.request.path
        self.headers = socket.request.headers
        certificate = socket.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.certificate = x509.load_der_x509_certificate(certificate)
        self.frames: list[str] = []
        self.ended = asyncio.Event()

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(frame) for frame in self.frames]

    @property
    def reports(self) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["route"]["operation"] == "UpdateNodeActionStatus"]

    @property
    def outcomes(self) -> list[tuple[str, bool]]:
        return [(report["content"]["action"], report["content"]["succ"]) for report in self.reports]

    @property
    def keepalives(self) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["route"]["operation"] == "keepalive"]

    async def tell(self, message: dict[str, Any]) -> None:
        await self.socket.send(json.dumps(message))

    async def acknowledge(self, report: dict[str, Any]) -> None:
        await self.tell(
            message(
                resource=report["route"]["resource"],
                operation="ReportAck",
                content="OK",
                parent=report["header"]["msg_id"],
            )
        )


def message(*, resource: str, operation: str, content: Any, parent: str = "") -> dict[str, Any]:
    header: dict[str, Any] = {"msg_id": str(uuid.uuid4()), "timestamp": 1764000000000}
    if parent:
        header["parent_msg_id"] = parent
    return {
        "header": header,
        "route": {"source": "taskmanager", "group": "taskmanager", "operation": operation, "resource": resource},
        "content": content,
    }


def dispatch(
    node: str,
    *images: str,
    job: str = "example",
    uid: str | None = "uid-1",
    attempt: int = 1,
    timeout: int = 60,
    **template: Any,
) -> dict[str, Any]:
    """As CloudCore sends the job's spec; with a uid also what our hub adds."""
    content: dict[str, Any] = {"imagePrePullTemplate": {"images": list(images), "concurrency": 1, **template}}
    if uid is not None:
        content["task"] = {"job_uid": uid, "attempt": attempt, "timeout_seconds": timeout}
    resource = f"operations.kubeedge.io/v1alpha2/imageprepulljob/{job}/node/{node}"
    return message(resource=resource, operation="Check", content=content)


class Hub:
    def __init__(self, folder: Path, ca: CA | None = None) -> None:
        self._folder = folder
        self.ca = ca or CA()
        self.features: str | None = ALL_FEATURES
        """The response header; None is a CloudCore."""
        self.sessions: list[Session] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        """Join requests: path, headers, body."""
        self.sign: Callable[[web.Request, x509.CertificateSigningRequest], web.Response] = self._sign
        self.refuse: tuple[int, str] | None = None
        """Answer to each WebSocket handshake."""
        self.refused = 0
        self.silent = False
        """Sessions are accepted and nothing is read."""
        self.changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._server: Server | None = None
        self._runner: web.AppRunner | None = None
        self.port = 0
        self.join_port = 0

    @property
    def join_url(self) -> str:
        return f"https://127.0.0.1:{self.join_port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _context(self, verify: ssl.VerifyMode) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca.write_server(self._folder))
        context.load_verify_locations(cadata=self.ca.pem.decode())
        context.verify_mode = verify
        return context

    async def start(self) -> None:
        """On the ports of the last time, if there was one."""
        self._stopping.clear()
        self._server = await serve(
            self._session,
            "127.0.0.1",
            self.port,
            ssl=self._context(ssl.CERT_REQUIRED),
            process_request=self._request,
            process_response=self._response,
            compression=None,
            ping_interval=None,
            close_timeout=1,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        app = web.Application()
        app.router.add_get("/{path:.*}", self._join)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(
            self._runner, "127.0.0.1", self.join_port, ssl_context=self._context(ssl.CERT_OPTIONAL)
        ).start()
        self.join_port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self._stopping.set()
        if self._server is not None:
            self._server.close(code=1001, reason="the hub stops")
            await self._server.wait_closed()
        if self._runner is not None:
            await self._runner.cleanup()

    async def until(self, condition: Callable[[], bool], *, within: float = 60.0) -> None:
        """Returns once it holds; looked at whenever something happened here."""
        async with asyncio.timeout(within):
            while not condition():
                await self.changed.wait()
                self.changed.clear()

    async def session(self, number: int = 1) -> Session:
        await self.until(lambda: len(self.sessions) >= number)
        return self.sessions[number - 1]

    # --- WebSocket

    def _request(self, connection: ServerConnection, _request: Request) -> Response | None:
        if self.refuse is None:
            return None
        self.refused += 1
        self.changed.set()
        status, text = self.refuse
        return connection.respond(status, text)

    def _response(self, _connection: ServerConnection, _request: Request, response: Response) -> None:
        headers: Headers = response.headers
        if self.features is not None:
            headers["X-Edgehub-Features"] = self.features

    async def _session(self, socket: ServerConnection) -> None:
        session = Session(socket)
        self.sessions.append(session)
        self.changed.set()
        try:
            if self.silent:
                socket.transport.pause_reading()
                await self._stopping.wait()
                socket.transport.abort()
                return
            async for frame in socket:
                assert isinstance(frame, str)
                session.frames.append(frame)
                self.changed.set()
        except ConnectionClosed:
            pass
        finally:
            session.ended.set()
            self.changed.set()

    # --- Join

    async def _join(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append((request.path, dict(request.headers), body))
        if request.path == "/ca.crt":
            return web.Response(body=self.ca.der)
        if request.path != "/edge.crt":
            return web.Response(status=404, text="no such path")
        return self.sign(request, x509.load_der_x509_csr(body))

    def _sign(self, request: web.Request, csr: x509.CertificateSigningRequest) -> web.Response:
        assert request.transport is not None
        shown = request.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if shown is None and request.headers.get("Authorization") != f"Bearer {JWT}":
            return web.Response(status=401, text="Invalid authorization token, err: Token is expired")
        return web.Response(body=self.ca.sign(csr.public_key(), csr.subject))
