"""The join endpoints, asked by a raw client that does what an EdgeCore does, and by others."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from websockets.asyncio.client import connect

from cloudhub.listen.acceptor import AcceptLimits
from cloudhub.metrics import Metrics
from cloudhub.pki.ca import CertificateAuthority, utc_now
from cloudhub.pki.join import JoinLimits, JoinServer
from cloudhub.pki.names import node_of
from cloudhub.pki.tokens import TokenIssuer
from cloudhub.sessions.server import SessionServer
from tests.integration.certificates import (
    Key,
    client_context,
    csr,
    join_context,
    mtls_context,
    new_ca,
    node_certificate,
    node_subject,
)
from tests.integration.sessions.hub import Recorder, eventually


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Join:
    server: JoinServer
    ca: CertificateAuthority
    tokens: TokenIssuer
    metrics: Metrics

    async def raw(self, request: bytes, context: ssl.SSLContext | None = None) -> Answer:
        """The bytes of a request, and what comes back until the hub closes."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.server.port, ssl=context or client_context(self.ca)
        )
        try:
            writer.write(request)
            async with asyncio.timeout(60):
                return _answer(await reader.read())
        finally:
            writer.close()

    async def get(
        self,
        path: str,
        *,
        body: bytes = b"",
        context: ssl.SSLContext | None = None,
        method: str = "GET",
        **headers: str,
    ) -> Answer:
        """As Go's client writes it: Content-Length with a GET."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.server.port}", "User-Agent: Go-http-client/1.1"]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return await self.raw(("\r\n".join(lines) + "\r\n\r\n").encode() + body, context)

    async def certificate(
        self, node: str, *, token: str | None = None, request: bytes | None = None, **more: Any
    ) -> Answer:
        if token is not None:
            more["Authorization"] = f"Bearer {token}"
        body = request if request is not None else csr(node_subject(node), KEY)
        return await self.get("/edge.crt", body=body, NodeName=node, **more)

    def token(self, node: str | None = None, ttl: timedelta = timedelta(hours=1)) -> str:
        return self.tokens.issue(ttl, node).split(".", 1)[1]


KEY = ec.generate_private_key(ec.SECP256R1())


@contextlib.asynccontextmanager
async def join(
    *, ca: CertificateAuthority | None = None, metrics: Metrics | None = None, **settings: Any
) -> AsyncIterator[Join]:
    ca = ca or new_ca()
    tokens = TokenIssuer(ca)
    metrics = metrics or Metrics()
    server = JoinServer(
        ca=ca,
        tokens=tokens,
        ssl_context=join_context(ca),
        host="127.0.0.1",
        port=0,
        metrics=metrics,
        **settings,
    )
    async with server:
        yield Join(server, ca, tokens, metrics)


def _answer(data: bytes) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(status=int(first.split(" ")[1]), headers=headers, body=body)


async def test_a_node_joins_as_edgecore_does_and_gets_a_session_with_its_certificate() -> None:
    async with join() as j:
        token = j.tokens.issue(timedelta(hours=1))
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE
        ca = await j.get("/ca.crt", context=unverified)
        assert ca.status == 200
        assert hashlib.sha256(ca.body).hexdigest() == token.split(".")[0]
        assert x509.load_der_x509_certificate(ca.body) == j.ca.certificate

        key = ec.generate_private_key(ec.SECP256R1())
        answer = await j.certificate(
            "edge-1", token=token.split(".", 1)[1], request=csr(node_subject("edge-1"), key), ExtKeyUsages="[2]"
        )
        assert answer.status == 200
        certificate = x509.load_der_x509_certificate(answer.body)
        assert node_of(certificate) == "edge-1"
        assert certificate.public_key() == key.public_key()
        assert timedelta(days=364) < certificate.not_valid_after_utc - utc_now() <= timedelta(days=365)
        await _session(j.ca, "edge-1", (answer.body, key))


async def test_a_node_with_a_name_longer_than_a_common_name_joins_and_connects() -> None:
    name = ".".join(["edge-with-a-long-name"] * 6)
    async with join() as j:
        key = ec.generate_private_key(ec.SECP256R1())
        der = j.ca.issue_node_certificate(node=name, public_key=key.public_key(), life=timedelta(days=1), now=utc_now())
        # A renewal: what Go would put into the CSR our own library does not write, but what it reads it can renew.
        await _session(j.ca, name, (der, key))


async def test_a_certificate_is_renewed_by_showing_it() -> None:
    async with join(certificate_life=timedelta(days=10)) as j:
        old = node_certificate(j.ca, "edge-1")
        key = ec.generate_private_key(ec.SECP256R1())
        answer = await j.certificate(
            "edge-1", context=client_context(j.ca, old), request=csr(node_subject("edge-1"), key)
        )
        assert answer.status == 200
        renewed = x509.load_der_x509_certificate(answer.body)
        assert renewed.not_valid_after_utc - utc_now() > timedelta(days=9)
        await _session(j.ca, "edge-1", (answer.body, key))


async def test_a_certificate_renews_no_other_node() -> None:
    async with join() as j:
        own = client_context(j.ca, node_certificate(j.ca, "edge-1"))
        answer = await j.certificate("edge-2", context=own)
        assert (answer.status, answer.text) == (403, "the client certificate is not that of node edge-2\n")


async def test_a_certificate_of_another_ca_or_that_is_over_renews_nothing() -> None:
    async with join() as j:
        for identity in (
            node_certificate(new_ca(), "edge-1"),
            node_certificate(j.ca, "edge-1", life=timedelta(hours=1), age=timedelta(hours=2)),
        ):
            with pytest.raises((OSError, IndexError)):
                await j.certificate("edge-1", context=client_context(j.ca, identity))


async def test_who_shows_both_joins_by_the_token() -> None:
    async with join() as j:
        own = client_context(j.ca, node_certificate(j.ca, "edge-1"))
        assert (await j.certificate("edge-2", token=j.token("edge-2"), context=own)).status == 200
        assert (await j.certificate("edge-1", token=j.token("edge-2"), context=own)).status == 403


def _unsigned(j: Join) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part({'exp': 9e9})}."


@pytest.mark.parametrize(
    ("token", "status", "text"),
    [
        (lambda j: j.token("edge-2"), 403, "token is not for node edge-1"),
        (lambda j: TokenIssuer(new_ca()).issue(timedelta(hours=1)).split(".", 1)[1], 401, "token is not valid here"),
        (_unsigned, 401, "token is not valid here"),
        (lambda j: j.token()[:-10], 401, "token is not valid here"),
        (lambda j: j.tokens.issue(timedelta(hours=1)), 401, "token is not valid here"),
        (
            lambda j: TokenIssuer(j.ca, now=lambda: utc_now() - timedelta(hours=2)).issue(timedelta(hours=1))[65:],
            401,
            "token has expired",
        ),
        (lambda j: "", 401, "not of the form 'Bearer <token>'"),
        (lambda j: "x" * 5000, 401, "token is too long"),
    ],
)
async def test_a_token_that_is_no_good_gets_nothing_and_is_in_no_log(
    token: Callable[[Join], str], status: int, text: str
) -> None:
    async with join() as j:
        sent = token(j)
        with structlog.testing.capture_logs() as logs:
            answer = await j.certificate("edge-1", token=sent)
        assert answer.status == status
        assert text in answer.text
        refusal = next(entry for entry in logs if entry["event"] == "request refused")
        assert refusal["node"] == "edge-1"
        assert refusal["reason"] in ("token", "token expired", "token of another node")
        for piece in sent.split("."):
            assert len(piece) < 8 or piece not in f"{logs}{answer.headers}{answer.text}"


async def test_without_a_name_or_credentials_there_is_a_text_that_says_so() -> None:
    async with join() as j:
        body = csr(node_subject("edge-1"), KEY)
        bearer = f"Bearer {j.token()}"
        no_name = await j.get("/edge.crt", body=body, Authorization=bearer)
        assert (no_name.status, no_name.text[:16]) == (400, "header NodeName:")
        bad_name = await j.get("/edge.crt", body=body, Authorization=bearer, NodeName="../../etc")
        assert bad_name.status == 400
        nothing = await j.get("/edge.crt", body=body, NodeName="edge-1")
        assert nothing.status == 401
        assert "neither a token" in nothing.text
        basic = await j.get("/edge.crt", body=body, NodeName="edge-1", Authorization="Basic eDp5")
        assert basic.status == 401


async def test_a_csr_for_more_than_being_that_node_is_refused() -> None:
    async with join() as j:
        key: Key = ec.generate_private_key(ec.SECP256R1())
        for request, status, text in (
            (csr(node_subject("edge-2"), key), 403, "is for node 'edge-2'"),
            (csr(node_subject("edge-1", organization="system:masters"), key), 403, "not system:nodes"),
            (
                csr(node_subject("edge-1"), key, x509.BasicConstraints(ca=True, path_length=None)),
                403,
                "asks for extension basicConstraints",
            ),
            (
                csr(node_subject("edge-1"), key, x509.SubjectAlternativeName([x509.DNSName("hub")])),
                403,
                "asks for extension subjectAltName",
            ),
            (
                csr(node_subject("edge-1"), key, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])),
                403,
                "asks for extension extendedKeyUsage",
            ),
            (csr(node_subject("EDGE-1"), key), 403, "is no node name"),
            (csr(node_subject("edge-1\u200b"), key), 403, "is no node name"),
            (csr(node_subject("\u0435dge-1"), key), 403, "is no node name"),
            (b"", 400, "is no certificate request"),
            (b"{}", 400, "is no certificate request"),
        ):
            token = j.token()
            with structlog.testing.capture_logs() as logs:
                answer = await j.certificate("edge-1", token=token, request=request)
            assert answer.status == status
            assert text in answer.text
            _assert_logged(logs, token, "csr")
        token = j.token()
        with structlog.testing.capture_logs() as logs:
            server = await j.certificate("edge-1", token=token, ExtKeyUsages="[1, 2]")
        assert (server.status, "clientAuth" in server.text) == (403, True)
        _assert_logged(logs, token, "usages")


def _assert_logged(logs: list[Any], token: str, reason: str) -> None:
    """The refusal, with its node and its reason, and without the good token that came with it."""
    (refusal,) = [entry for entry in logs if entry["event"] == "request refused"]
    assert (refusal["node"], refusal["log_level"]) == ("edge-1", "warning")
    assert refusal["reason"].startswith(reason)
    assert refusal["address"] == "127.0.0.1"
    assert token.rpartition(".")[2] not in str(logs)


def _signed_by_ca(j: Join, *, usage: x509.ObjectIdentifier, node: str = "edge-1") -> ssl.SSLContext:
    """A client with a certificate of the hub's CA that names the node, but is for another use."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = utc_now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(node_subject(node))
        .issuer_name(j.ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(j.ca.key.key, hashes.SHA256())
    )
    return client_context(j.ca, (certificate.public_bytes(Encoding.DER), key))


async def test_a_certificate_of_the_ca_for_another_use_renews_nothing() -> None:
    async with join() as j:
        for usage in (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CODE_SIGNING):
            with pytest.raises((OSError, IndexError)):
                await j.certificate("edge-1", context=_signed_by_ca(j, usage=usage))
        # The same one for clients would do; what is refused is the use.
        good = _signed_by_ca(j, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
        assert (await j.certificate("edge-1", context=good)).status == 200
        await eventually(lambda: j.metrics.joins_refused_total.value("tls") == 2)


async def test_neither_the_cas_own_certificate_nor_the_hubs_renews_anything() -> None:
    async with join() as j:
        identity = j.ca.issue_server_certificate(addresses=["127.0.0.1"], dns_names=[], now=utc_now())
        for certificate, key in ((j.ca.certificate, j.ca.key.key), (identity.certificate, identity.key.key)):
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            context = client_context(j.ca, (certificate.public_bytes(Encoding.DER), key))
            try:
                answer = await j.certificate("edge-1", context=context)
            except (OSError, IndexError):
                continue
            assert (answer.status, "subject has" in answer.text) == (401, True)


async def test_a_request_with_a_key_that_is_no_good_is_refused() -> None:
    def request(key: Any) -> bytes:
        return (
            x509.CertificateSigningRequestBuilder()
            .subject_name(node_subject("edge-1"))
            .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
            .public_bytes(Encoding.DER)
        )

    async with join() as j:
        for body, text in (
            (request(rsa.generate_private_key(65537, 1024)), "RSA key has 1024 bits"),  # noqa: S505 - it is refused
            (request(ec.generate_private_key(ec.SECP384R1())), "key is on curve secp384r1"),
            (request(ec.generate_private_key(ec.SECP256K1())), "key is on curve secp256k1"),
            (request(ed25519.Ed25519PrivateKey.generate()), "key is neither P-256 nor RSA"),
            (_huge_key(), "RSA key has 16384 bits"),
        ):
            with structlog.testing.capture_logs() as logs:
                answer = await j.certificate("edge-1", token=j.token(), request=body)
            assert (answer.status, text in answer.text) == (400, True), answer.text
            refusal = next(entry for entry in logs if entry["event"] == "request refused")
            assert (refusal["node"], refusal["reason"]) == ("edge-1", "csr key")
        assert j.metrics.joins_refused_total.value("csr key") == 5


def _huge_key() -> bytes:
    """A request about an RSA key of 16384 bits, made by hand: to generate one takes minutes. Its signature is none,
    and must not be looked at: that is what takes time."""
    public = rsa.RSAPublicNumbers(65537, (1 << 16383) | 1).public_key()
    info = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    name = node_subject("edge-1").public_bytes()
    body = _der(0x30, b"\x02\x01\x00" + name + info + b"\xa0\x00")
    algorithm = bytes.fromhex("300d06092a864886f70d01010b0500")  # sha256WithRSAEncryption
    return _der(0x30, body + algorithm + _der(0x03, b"\x00" + b"\x01" * 2048))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


async def test_a_body_beyond_the_limit_is_refused() -> None:
    async with join() as j:
        token = j.token()
        with structlog.testing.capture_logs() as logs:
            answer = await j.certificate("edge-1", token=token, request=b"x" * ((64 << 10) + 1))
        assert (answer.status, answer.text) == (413, "body of more than 65536 bytes is no certificate request\n")
        refusal = next(entry for entry in logs if entry["event"] == "request refused")
        assert (refusal["node"], refusal["reason"], token in str(logs)) == ("edge-1", "csr", False)
        assert j.metrics.joins_refused_total.value("csr") == 1


async def test_a_token_in_the_place_of_the_name_is_in_no_log() -> None:
    async with join() as j:
        signature = j.token().rpartition(".")[2]
        with structlog.testing.capture_logs() as logs:
            for headers in ({"NodeName": j.token()}, {"NodeName": "edge-1", "Authorization": j.token()}):
                assert (await j.get("/edge.crt", **headers)).status in (400, 401)  # type: ignore[arg-type]
            for path in (f"/node/{j.token()}", f"/edge.crt/{j.token()}", f"/edge.crt?token={j.token()}"):
                assert (await j.get(path)).status in (400, 401, 404)
        assert [entry["node"] for entry in logs if entry["event"] == "request refused"] == [None, "edge-1", None, None]
        assert signature not in str(logs)


async def test_peers_that_vanish_in_the_middle_of_a_body_leave_no_error_and_no_memory_behind() -> None:
    async with join() as j:
        head = f"GET /edge.crt HTTP/1.1\r\nHost: x\r\nNodeName: edge-1\r\nAuthorization: Bearer {j.token()}\r\n"
        server = j.server._listener._runner.server
        assert server is not None
        with structlog.testing.capture_logs() as logs:
            for count in range(1, 11):
                _, writer = await asyncio.open_connection("127.0.0.1", j.server.port, ssl=client_context(j.ca))
                writer.write(f"{head}Content-Length: 60000\r\n\r\n".encode() + b"x" * 30_000)
                await writer.drain()
                await eventually(lambda count=count: server.requests_count == count)  # type: ignore[misc]
                writer.transport.abort()
            await eventually(lambda: [entry["event"] for entry in logs].count("request abandoned") == 10)
            await eventually(lambda: j.server._listener._acceptor.running == 0)
        assert [entry for entry in logs if entry["log_level"] in ("error", "warning")] == []
        assert len(server.connections) == 0


async def test_bodies_without_end_are_cut_at_the_limit_however_they_are_sent() -> None:
    async with join() as j:
        head = f"GET /edge.crt HTTP/1.1\r\nHost: x\r\nNodeName: edge-1\r\nAuthorization: Bearer {j.token()}\r\n"
        chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        for how, piece in (("Transfer-Encoding: chunked", chunk), ("Content-Length: 1000000000", b"x" * 0x4000)):
            reader, writer = await asyncio.open_connection("127.0.0.1", j.server.port, ssl=client_context(j.ca))
            writer.write(f"{head}{how}\r\n\r\n".encode())
            # It is answered at the limit; what comes after is thrown away for a second, then the link is cut.
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(60):
                    while not reader.at_eof():
                        writer.write(piece)
                        await writer.drain()
                        await asyncio.sleep(0)
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 413 ") or not answer, answer[:100]
            writer.transport.abort()
        await eventually(lambda: j.server._listener._acceptor.running == 0)


async def test_a_flood_of_requests_with_bad_tokens_leaves_no_turn_taken_and_every_one_counted() -> None:
    async with join() as j:
        context = client_context(j.ca)
        head = b"GET /edge.crt HTTP/1.1\r\nHost: x\r\nNodeName: edge-1\r\nAuthorization: Bearer a.b.c\r\n\r\n"
        answers = await asyncio.gather(*(j.raw(head, context) for _ in range(200)))
        assert {answer.status for answer in answers} == {401}
        assert j.metrics.joins_refused_total.value("token") == 200
        await eventually(lambda: j.server._listener._acceptor.running == 0)
        assert (await j.certificate("edge-1", token=j.token())).status == 200


async def test_nodes_can_be_looked_up() -> None:
    async def exists(node: str) -> bool:
        return node == "edge-1"

    async with join(node_exists=exists) as j:
        assert [(a.status, a.text) for a in (await j.get("/node/edge-1"), await j.get("/node/edge-2"))] == [
            (200, "Node found"),
            (404, "Node not found"),
        ]
        assert (await j.get("/node/EDGE")).status == 400


async def test_reports_of_other_tasks_are_believed_of_nobody_and_answered_to_the_node_itself() -> None:
    async with join() as j:
        own = client_context(j.ca, node_certificate(j.ca, "edge-1"))
        path = "/task/prepull/name/job/node/edge-1/status"
        for context, where, status in (
            (None, path, 401),
            (None, "/nodeupgrade", 401),
            (own, path, 200),
            (own, "/nodeupgrade", 200),
            (own, path.replace("edge-1", "edge-2"), 403),
        ):
            answer = await j.get(where, method="POST", body=b"{}", context=context)
            assert answer.status == status
            assert (answer.text == "ok") == (status == 200)


async def test_other_paths_and_methods_are_errors_with_a_text() -> None:
    async with join() as j:
        assert [(await j.get(path)).status for path in ("/", "/ca.key", "/edge.crt/", "/../etc/passwd")] == [404] * 4
        assert (await j.get("/ca.crt", method="POST", body=b"x")).status == 405
        assert (await j.raw(b"\x00\x01\x02\r\n\r\n")).status == 400
        assert (
            await j.raw(b"GET /ca.crt HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n")
        ).status == 400


async def test_what_cannot_be_parsed_is_not_logged_with_its_headers(caplog: pytest.LogCaptureFixture) -> None:
    async with join() as j:
        with caplog.at_level("DEBUG"), structlog.testing.capture_logs() as logs:
            answer = await j.raw(b"GET /edge.crt HTTP/1.1\r\nAuthorization: Bearer hunter2\x00\r\n\r\n")
        assert answer.status == 400
        assert "hunter2" not in caplog.text + str(logs)


async def test_one_address_may_ask_only_so_often() -> None:
    clock = [0.0]
    limits = JoinLimits(requests_per_second=1, request_burst=3)
    async with join(limits=limits, clock=lambda: clock[0]) as j:
        statuses = [(await j.get("/ca.crt")).status for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        answer = await j.get("/ca.crt")
        assert answer.headers["retry-after"] == "10"
        clock[0] = 1.0
        assert (await j.get("/ca.crt")).status == 200


async def test_a_connection_that_says_nothing_or_dribbles_is_cut() -> None:
    limits = JoinLimits(accept=AcceptLimits(turn=0.5, running=2, running_per_address=2))
    async with join(limits=limits) as j:
        context = client_context(j.ca)
        silent = await asyncio.open_connection("127.0.0.1", j.server.port)
        dribbling = await asyncio.open_connection("127.0.0.1", j.server.port, ssl=context)
        dribbling[1].write(b"GET /ca.crt HTTP/1.1\r\nHost: x\r\n")
        # Both turns are taken; this one waits for the end of one of them.
        assert (await j.get("/ca.crt")).status == 200
        for reader, writer in (silent, dribbling):
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()


async def test_a_body_that_never_comes_is_cut_too_and_stop_does_not_wait_for_it() -> None:
    async with join() as j:
        reader, writer = await asyncio.open_connection("127.0.0.1", j.server.port, ssl=client_context(j.ca))
        head = f"GET /edge.crt HTTP/1.1\r\nHost: x\r\nNodeName: edge-1\r\nAuthorization: Bearer {j.token()}\r\n"
        writer.write(f"{head}Content-Length: 500\r\n\r\nabc".encode())
        await writer.drain()
        await eventually(lambda: j.server._listener._runner.server and j.server._listener._runner.server.requests_count)
        async with asyncio.timeout(5):
            await j.server.stop()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_many_nodes_join_at_once_while_the_loop_stays_responsive() -> None:
    async with join() as j:
        token, context = j.token(), client_context(j.ca)
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                # Of this thread alone: what other programs take meanwhile is not this loop's.
                before = time.thread_time()
                await asyncio.sleep(0.001)
                longest = max(longest, time.thread_time() - before)

        watching = asyncio.create_task(watch())
        requests = {f"edge-{n}": csr(node_subject(f"edge-{n}"), KEY) for n in range(150)}
        answers = await asyncio.gather(
            *(j.certificate(node, token=token, request=request, context=context) for node, request in requests.items())
        )
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert {answer.status for answer in answers} == {200}
        names = {node_of(x509.load_der_x509_certificate(answer.body)) for answer in answers}
        assert names == set(requests)
        # Client and server share this loop and machine; a second would be a fault, milliseconds are not promised here.
        assert longest < 1.0


async def _session(ca: CertificateAuthority, node: str, identity: tuple[bytes, Key]) -> None:
    """The certificate opens a session: TLS and the hub's own rules take it."""
    heard = Recorder()
    async with (
        SessionServer(
            host="127.0.0.1", port=0, ssl_context=mtls_context(ca), metrics=Metrics(), listener=heard
        ) as server,
        connect(
            f"wss://127.0.0.1:{server.port}/p/{node}/events",
            ssl=client_context(ca, identity),
            additional_headers={"node_id": node},
            compression=None,
            proxy=None,
        ),
    ):
        assert list(server.connected()) == [node]
