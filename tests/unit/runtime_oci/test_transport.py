"""Where plain http is allowed, what TLS refuses, proxies, and Retry-After."""

from __future__ import annotations

import datetime
import email.utils
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from yarl import URL

from edgehub.runtime.base import TransientPullError
from edgehub.runtime.oci import BuiltinStore, StoreSettings
from edgehub.runtime.oci.transport import Transport, is_loopback, retry_after
from tests.unit.runtime_oci.images import image
from tests.unit.runtime_oci.registry import BadRegistry


def transport(*insecure: str, context: ssl.SSLContext | None = None) -> Transport:
    return Transport(
        insecure_registries=insecure, settings=StoreSettings(), user_agent="edgehub/test", ssl_context=context
    )


@pytest.mark.parametrize(
    ("host", "insecure", "scheme"),
    [
        ("registry-1.docker.io", (), "https"),
        ("r.io:5000", (), "https"),
        ("r.io:80", (), "https"),
        ("r.io:5000", ("r.io:5000",), "http"),
        ("r.io:5000", ("r.io",), "http"),
        ("R.io:5000", ("r.IO",), "http"),
        ("r.io", ("r.io:80",), "http"),
        ("r.io:5001", ("r.io:5000",), "https"),
        ("sub.r.io", ("r.io",), "https"),
        ("r.io:443", ("r.io",), "https"),
        ("10.0.0.1:5000", (), "https"),
        ("10.0.0.1:5000", ("10.0.0.1:5000",), "http"),
        ("localhost", (), "http"),
        ("localhost:5000", (), "http"),
        ("127.0.0.1:5000", (), "http"),
        ("127.9.9.9:5000", (), "http"),
        ("[::1]:5000", (), "http"),
        ("[2001:db8::1]:5000", (), "https"),
        ("[2001:db8::1]:5000", ("[2001:db8::1]:5000",), "http"),
        ("[2001:db8::1]:5000", ("[2001:db8::1]",), "http"),
        ("localhost:443", (), "https"),
        ("localhost.evil.io", (), "https"),
        ("127.0.0.1.evil.io", (), "https"),
    ],
)
def test_plain_http_is_for_loopback_and_listed_hosts(host: str, insecure: tuple[str, ...], scheme: str) -> None:
    assert transport(*insecure).registry_url(host) == URL(f"{scheme}://{host}")


def test_https_never_sends_on_to_plain_http() -> None:
    plain, secure = URL("http://127.0.0.1:5000"), URL("https://r.io")
    assert transport().may_open(plain, after=plain)
    assert transport().may_open(secure, after=plain)
    assert not transport("127.0.0.1").may_open(plain, after=secure)
    assert not transport().may_open(URL("http://r.io"), after=plain)
    assert not transport().may_open(URL("file:///etc/passwd"), after=plain)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("")


def test_retry_after_is_read_in_both_forms_and_bounded() -> None:
    assert retry_after("17") == 17.0
    assert retry_after(" 0 ") == 0.0
    assert retry_after("999999") == 3600.0
    assert retry_after("9" * 500) is None
    assert retry_after("") is None
    assert retry_after("-5") is None
    assert retry_after("soon") is None
    assert retry_after("١٧") is None
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    found = retry_after(email.utils.format_datetime(later, usegmt=True))
    assert found is not None
    assert 90 < found <= 100
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 -0000") == 0.0
    assert retry_after("Wed, 99 Oct 2015 99:28:00 GMT") is None
    assert retry_after(f"Wed, 21 Oct {10**30} 07:28:00 GMT") is None
    assert retry_after(f"Wed, 21 Oct 2015 07:28:00 +{10**20}") is None


# --- TLS --------------------------------------------------------------------------------------------------------------


class SecureServer:
    """A TLS server on loopback with a certificate of its own."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "server.pem"
        self.port = 0
        self._write_certificate()

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    async def start(self) -> web.AppRunner:
        async def leave(request: web.Request) -> web.StreamResponse:
            target = request.query.get("to")
            return web.Response(status=307, headers={"Location": target}) if target else web.Response(body=b"here")

        application = web.Application()
        application.router.add_get("/{path:.*}", leave)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self.port = int(runner.addresses[0][1])
        return runner

    def _write_certificate(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .sign(key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[SecureServer]:
    server = SecureServer(tmp_path)
    runner = await server.start()
    yield server
    await runner.cleanup()


async def test_a_certificate_that_nobody_vouches_for_is_refused(secure: SecureServer) -> None:
    client = transport(context=ssl.create_default_context())
    with pytest.raises(TransientPullError, match="its certificate is not trusted") as caught:
        await client.open("GET", URL(f"https://127.0.0.1:{secure.port}/?sig=secret"))
    assert "sig=" not in str(caught.value)
    assert caught.value.__cause__ is None
    await client.close()


async def test_a_redirect_from_https_to_plain_http_is_refused_also_to_loopback(
    secure: SecureServer, registry: BadRegistry
) -> None:
    client = transport(context=secure.client_context())
    response = await client.open("GET", URL(f"https://127.0.0.1:{secure.port}/"))
    assert response.status == 200
    response.close()
    url = URL(f"https://127.0.0.1:{secure.port}/").with_query(to=f"{registry.url}/x")
    with pytest.raises(TransientPullError, match="without TLS"):
        await client.open("GET", url, authorization="Basic x")
    assert registry.seen == []
    await client.close()


async def test_a_registry_that_speaks_plain_http_where_tls_is_due_gets_a_hint(registry: BadRegistry) -> None:
    client = transport()
    with pytest.raises(TransientPullError, match="must be listed in insecureRegistries"):
        await client.open("GET", URL(f"https://{registry.address}/"))
    await client.close()


# --- Proxies ----------------------------------------------------------------------------------------------------------


async def test_a_proxy_is_used_for_others_than_loopback(
    registry: BadRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add(image())
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", registry.url)
    store = BuiltinStore(tmp_path / "images", insecure_registries=["registry.example"])
    record = await store.pull("registry.example/app", None)
    assert record.tags == ("registry.example/app:latest",)
    assert {seen.headers["Host"] for seen in registry.seen} == {"registry.example"}
    monkeypatch.setenv("http_proxy", "http://user:hunter2@127.0.0.1:1")
    await store.pull(f"{registry.address}/app", None)
    with pytest.raises(TransientPullError, match=r"no connection to registry\.example:80: the HTTP proxy") as caught:
        await store.pull("registry.example/other", None)
    assert "hunter2" not in str(caught.value)
    await store.close()
