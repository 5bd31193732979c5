"""Who gets a session, over real TLS sockets."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from cloudhub.listen.acceptor import AcceptLimits
from cloudhub.pki.ca import CertificateAuthority, utc_now
from cloudhub.pki.errors import Refused
from cloudhub.pki.revocation import NothingRevoked
from cloudhub.sessions.server import SessionLimits, SessionServer
from shared.wire import HEADER_FEATURES, HEADER_NODE_INFO, Feature
from tests.integration.certificates import Key, client_context, mtls_context, new_ca, node_certificate, node_subject
from tests.integration.sessions.hub import Hub, closed, eventually, hub

REFUSED_BY_TLS = (ssl.SSLError, ConnectionError, ConnectionClosed, EOFError, InvalidMessage)


async def test_a_node_gets_a_session_and_the_listener_hears_of_it() -> None:
    async with hub() as h, h.connect("edge-1") as socket:
        await eventually(lambda: h.server.get("edge-1"))
        session = h.server.get("edge-1")
        assert session is not None
        assert (session.node, session.features, session.info) == ("edge-1", frozenset(), None)
        assert h.heard.calls == [("opened", "edge-1", session.serial)]
        assert list(h.server.connected()) == ["edge-1"]
        assert socket.response is not None
        assert socket.response.headers[HEADER_FEATURES] == "ack,cancel,credentials,progress"
        await socket.close()
        await eventually(lambda: h.heard.of("closed"))
        assert h.server.get("edge-1") is None


async def test_our_agent_tells_what_it_understands_and_what_machine_it_is() -> None:
    headers = {HEADER_FEATURES: "ack,cancel,credentials,progress", HEADER_NODE_INFO: '{"architecture":"arm64"}'}
    async with hub() as h, h.connect("edge-1", headers=headers):
        session = h.server.get("edge-1")
        assert session is not None
        assert session.features == frozenset(Feature)
        assert session.info is not None
        assert session.info.architecture == "arm64"


async def test_a_session_under_another_nodes_name_is_refused_with_a_reason() -> None:
    async with hub() as h:
        own = client_context(h.ca, node_certificate(h.ca, "edge-1"))
        for node, url in (("edge-2", ""), ("edge-2", h.url("edge-1")), ("edge-1", h.url("edge-2"))):
            with pytest.raises(InvalidStatus) as caught:
                await h.connect(node, context=own, url=url)
            assert caught.value.response.status_code == 403
            assert b"the certificate is of 'edge-1'" in caught.value.response.body
        assert h.heard.calls == []
        assert h.metrics.handshakes_refused_total.value("identity") == 3


async def test_a_certificate_of_the_ca_that_names_no_node_is_refused() -> None:
    async with hub() as h:
        key = ec.generate_private_key(ec.SECP256R1())
        der = _certificate(h.ca, node_subject("edge-1", organization="system:masters"), key)
        with pytest.raises(InvalidStatus) as caught:
            await h.connect("edge-1", context=client_context(h.ca, (der, key)))
        assert caught.value.response.status_code == 401
        assert b"not system:nodes" in caught.value.response.body


async def test_a_foreign_an_expired_and_no_certificate_do_not_get_through_tls() -> None:
    async with hub() as h:
        other = new_ca()
        server_only = ec.generate_private_key(ec.SECP256R1())
        contexts = {
            "another CA of the same name": client_context(h.ca, node_certificate(other, "edge-1")),
            "expired": client_context(
                h.ca, node_certificate(h.ca, "edge-1", life=timedelta(hours=1), age=timedelta(hours=3))
            ),
            "none": client_context(h.ca),
            "for servers": client_context(
                h.ca, (_certificate(h.ca, node_subject("edge-1"), server_only, server=True), server_only)
            ),
        }
        for name, context in contexts.items():
            with pytest.raises(REFUSED_BY_TLS):
                await _open_and_read(h, context)
            assert h.server.get("edge-1") is None, name
        await eventually(lambda: h.metrics.handshakes_refused_total.value("tls") == len(contexts))
        assert h.heard.calls == []


async def test_a_certificate_that_expires_ends_the_session() -> None:
    async with hub(keepalive_interval=1e6) as h:
        short = client_context(h.ca, node_certificate(h.ca, "edge-1", life=timedelta(seconds=100)))
        async with h.connect("edge-1", context=short) as socket, h.connect("edge-2"):
            await h.pass_time(90)
            assert h.server.get("edge-1") is not None
            await h.pass_time(15)
            assert h.server.get("edge-1") is None
            assert h.server.get("edge-2") is not None
            assert await closed(socket) == (1008, "client certificate has expired")
            # It cannot come back with the same one, though this machine's clock has not moved for TLS.
            with pytest.raises(InvalidStatus, match="401"):
                await h.connect("edge-1", context=short)


class _Revoked(NothingRevoked):
    def __init__(self) -> None:
        self.nodes: set[str] = set()

    def check_certificate(self, node: str, serial: int) -> None:
        if node in self.nodes:
            raise Refused(403, "revoked", f"node {node} is revoked")


async def test_a_revoked_node_gets_no_session_and_loses_the_one_it_has() -> None:
    revoked = _Revoked()
    async with hub(revoked=revoked) as h, h.connect("edge-1") as socket:
        await eventually(lambda: h.server.get("edge-1"))
        revoked.nodes.add("edge-1")
        assert h.server.disconnect("edge-1", "revoked")
        assert await closed(socket) == (1008, "revoked")
        with pytest.raises(InvalidStatus) as caught:
            await h.connect("edge-1")
        assert caught.value.response.status_code == 403
        assert h.metrics.handshakes_refused_total.value("revoked") == 1
        assert not h.server.disconnect("edge-1", "revoked")


async def test_beyond_the_node_limit_a_node_is_told_so_and_its_socket_is_closed() -> None:
    async with hub(node_limit=2) as h, h.connect("edge-1"), h.connect("edge-2"):
        await eventually(lambda: len(list(h.server.connected())) == 2)
        with pytest.raises(InvalidStatus) as caught:
            await h.connect("edge-3")
        assert caught.value.response.status_code == 503
        assert b"limit of 2 nodes" in caught.value.response.body
        assert h.metrics.handshakes_refused_total.value("node limit") == 1
        # A node that is connected may connect again.
        async with h.connect("edge-2"):
            assert len(list(h.server.connected())) == 2


async def test_what_is_no_websocket_request_is_answered_and_closed() -> None:
    async with hub() as h:
        context = client_context(h.ca, node_certificate(h.ca, "edge-1"))
        for request, answer in (
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 426"),
            (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 405"),
            (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n", b"HTTP/1.1 414"),
            (b"\x00" * 100 + b"\r\n", b""),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", h.server.port, ssl=context)
            writer.write(request)
            got = await asyncio.wait_for(reader.read(), 10)
            assert got.startswith(answer)
            writer.close()
        assert h.heard.calls == []


async def test_half_finished_handshakes_end_and_meanwhile_others_get_in() -> None:
    limits = AcceptLimits(turn=0.5, running=4, running_per_address=2, waiting=100, waiting_per_address=3)
    async with hub(accept_limits=limits) as h:
        silent = [await asyncio.open_connection("127.0.0.1", h.server.port) for _ in range(2)]
        # Both turns of this address are taken by connections that say nothing; the node waits for one of them to end.
        async with asyncio.timeout(8), h.connect("edge-1"):
            assert h.server.get("edge-1") is not None
        for reader, writer in silent:
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        assert h.metrics.handshakes_refused_total.value("timeout") == 2


async def test_a_request_that_never_ends_is_cut_too() -> None:
    async with hub(accept_limits=AcceptLimits(turn=0.5)) as h:
        context = client_context(h.ca, node_certificate(h.ca, "edge-1"))
        reader, writer = await asyncio.open_connection("127.0.0.1", h.server.port, ssl=context)
        writer.write(b"GET /p/edge-1/events HTTP/1.1\r\nHost: x\r\n")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
        writer.close()
        assert h.metrics.handshakes_refused_total.value("timeout") == 1


async def test_more_connections_than_may_wait_are_refused_at_once() -> None:
    limits = AcceptLimits(turn=5.0, running=1, running_per_address=1, waiting=2, waiting_per_address=2)
    async with hub(accept_limits=limits) as h:
        held = [await asyncio.open_connection("127.0.0.1", h.server.port) for _ in range(3)]
        reader, writer = await asyncio.open_connection("127.0.0.1", h.server.port)
        assert await asyncio.wait_for(reader.read(), 3) == b""
        assert h.metrics.handshakes_refused_total.value("too many") == 1
        for _, other in [*held, (reader, writer)]:
            other.close()


async def test_an_address_that_fills_all_places_cannot_keep_another_out() -> None:
    limits = AcceptLimits(turn=30.0, running=3, running_per_address=2, waiting=20, waiting_per_address=20)
    async with hub(accept_limits=limits) as h, contextlib.AsyncExitStack() as stack:
        for _ in range(60):
            _, writer = await asyncio.open_connection("127.0.0.1", h.server.port, local_addr=("127.0.0.2", 0))
            stack.callback(writer.close)
        await eventually(lambda: h.metrics.handshakes_refused_total.value("too many") == 60 - 2 - 20)
        # One of another address gets in at once, and many of it one after the other, each over a place of the flood's.
        for number in range(5):
            async with h.connect(f"edge-{number}"):
                pass
        assert len(h.heard.of("opened")) == 5
        waiting = [asyncio.create_task(h.connect(f"edge-{n}").__aenter__()) for n in range(10, 18)]
        for socket in await asyncio.wait_for(asyncio.gather(*waiting), 60):
            await socket.close()
        assert h.server._acceptor.waiting <= 20


async def test_a_node_that_comes_and_goes_all_the_time_is_slowed_down_and_no_other_is() -> None:
    async with hub(limits=SessionLimits(session_burst=3, sessions_per_second=1.0)) as h:
        for _ in range(3):
            async with h.connect("edge-1"):
                pass
        with pytest.raises(InvalidStatus) as caught:
            await h.connect("edge-1")
        assert caught.value.response.status_code == 429
        assert caught.value.response.body == b"node edge-1 connects too often; try again later\n"
        assert h.metrics.handshakes_refused_total.value("rate") == 1
        async with h.connect("edge-2"):
            pass
        h.clock.seconds += 1
        async with h.connect("edge-1"):
            await eventually(lambda: h.server.get("edge-1"))


async def test_a_context_that_lets_in_strangers_is_a_fault() -> None:
    async with hub() as h:
        context = mtls_context(h.ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        with pytest.raises(ValueError, match="does not require client certificates"):
            SessionServer(host="127.0.0.1", port=0, ssl_context=context, metrics=h.metrics)


async def test_an_address_that_is_taken_is_named() -> None:
    async with hub() as h:
        second = SessionServer(
            host="127.0.0.1", port=h.server.port, ssl_context=mtls_context(h.ca), metrics=h.metrics, listener=h.heard
        )
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {h.server.port}"):
            await second.start()


def _certificate(ca: CertificateAuthority, subject: x509.Name, key: Key, *, server: bool = False) -> bytes:
    """What no rule of the hub would sign."""
    usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(utc_now() - timedelta(hours=1))
        .not_valid_after(utc_now() + timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    return builder.sign(ca.key.key, hashes.SHA256()).public_bytes(Encoding.DER)


async def _open_and_read(h: Hub, context: ssl.SSLContext) -> None:
    """With TLS 1.3 a client learns of its refusal only when it reads."""
    socket = await h.connect("edge-1", context=context)
    await socket.recv()
