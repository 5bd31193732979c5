"""Requests end in a result or an error of ports, whatever the other end does."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from kubernetes_asyncio.client import Configuration

from cloudhub.kube.client import KubeClient
from cloudhub.kube.errors import Conflict, Expired, Throttled
from cloudhub.metrics import Metrics
from cloudhub.pki.ca import CertificateAuthority, utc_now
from cloudhub.pki.contexts import server_context
from cloudhub.settings import ConfigError
from cloudhub.taskmanager.ports import Forbidden, KubeError, NotFound, Rejected, Unavailable
from tests.unit.kube.apiserver import ScriptedAPI, client_of, running_api


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, Rejected),
        (401, Forbidden),
        (403, Forbidden),
        (404, NotFound),
        (405, Rejected),
        (408, Unavailable),
        (409, Conflict),
        (410, Expired),
        (413, Rejected),
        (422, Rejected),
        (429, Throttled),
        (500, Unavailable),
        (504, Unavailable),
    ],
)
async def test_each_code_has_its_class_and_the_servers_words(code: int, kind: type[KubeError]) -> None:
    async with running_api() as api, client_of(api) as client:
        api.failing = [code]
        with pytest.raises(kind, match=f"GET /api/v1/nodes: {code} as the test wants"):
            await client.request("GET", "/api/v1/nodes")


async def test_it_knows_since_when_the_api_does_not_serve() -> None:
    now = [100.0]
    async with running_api() as api, client_of(api, clock=lambda: now[0]) as client:
        await client.request("GET", "/x")
        assert client.unavailable_since is None
        await api.stop()
        with pytest.raises(Unavailable):
            await client.request("GET", "/x")
        now[0] = 140.0
        with pytest.raises(Unavailable):
            await client.request("GET", "/x")
        assert client.unavailable_since == 100.0
        assert client.check(after=41) is None
        assert "has not served for 40 s" in str(client.check(after=30))
        await api.start()
        await client.request("GET", "/x")
        assert client.unavailable_since is None
        assert client.check(after=0) is None


async def test_a_refusal_is_a_sign_of_life() -> None:
    async with running_api() as api, client_of(api) as client:
        for code in (403, 404, 409, 422):
            api.failing = [500, code]
            for _ in range(2):
                with pytest.raises(KubeError):
                    await client.request("GET", "/x")
            assert client.unavailable_since is None


async def test_a_server_that_does_not_answer_is_unavailable_in_time() -> None:
    async with running_api() as api, client_of(api) as client:
        api.hanging = True
        with pytest.raises(Unavailable, match="no answer in time"):
            await client.request("GET", "/x", timeout=0.05)


@pytest.mark.parametrize("answer", [b"", b"<html>proxy</html>", b"[1]", b"{", b"[" * 5000])
async def test_an_answer_that_is_no_json_object_is_unavailable(answer: bytes) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=answer)

    async with serving(handle) as client:
        with pytest.raises(Unavailable, match="no JSON object"):
            await client.request("GET", "/x")


@pytest.mark.parametrize("answer", [b"\x00\x01\x02garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
async def test_a_peer_that_speaks_no_http_or_breaks_off_is_unavailable(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = KubeClient(configuration, qps=100, burst=100)
        with pytest.raises(Unavailable):
            await client.request("GET", "/x")
        await client.close()


async def test_errors_about_secrets_repeat_nothing_of_the_answer() -> None:
    async def handle(_: web.Request) -> web.Response:
        body = {"kind": "Status", "reason": "Invalid", "message": "data: Invalid value: hunter2", "code": 422}
        return web.json_response(body, status=422)

    async with serving(handle) as client:
        with pytest.raises(Rejected) as caught:
            await client.request("POST", "/api/v1/namespaces/a/secrets", body={"data": {}}, sensitive=True)
        assert "Invalid" in str(caught.value)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_a_message_of_the_server_is_cut_and_on_one_line() -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response({"message": "bad\nline\x1b[31m" + "x" * 10_000}, status=400)

    async with serving(handle) as client:
        with pytest.raises(Rejected) as caught:
            await client.request("GET", "/x")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 600


async def test_answers_are_counted_by_code() -> None:
    metrics = Metrics()
    async with running_api() as api, client_of(api, metrics=metrics) as client:
        await client.request("GET", "/x")
        api.failing = [503]
        with pytest.raises(Unavailable):
            await client.request("GET", "/x")
        await api.stop()
        with pytest.raises(Unavailable):
            await client.request("GET", "/x")
    assert [metrics.api_requests_total.value(code) for code in ("200", "503", "none")] == [1, 1, 1]


async def test_requests_wait_for_their_turn_in_the_rate_limit() -> None:
    async with running_api() as api, client_of(api, qps=100, burst=2) as client:
        started = asyncio.get_running_loop().time()
        await asyncio.gather(*(client.request("GET", "/x") for _ in range(12)))
        assert asyncio.get_running_loop().time() - started >= 0.1


async def test_a_401_reads_the_credentials_again_and_tries_once_more() -> None:
    tokens = ["new"]

    async def handle(request: web.Request) -> web.Response:
        good = request.headers.get("Authorization") == f"Bearer {tokens[0]}"
        return web.json_response({"ok": good}, status=200 if good else 401)

    async def reload() -> Configuration:
        configuration = Configuration()
        configuration.api_key["BearerToken"] = "Bearer new"
        return configuration

    async with serving(handle, reload=reload) as client:
        assert await client.request("GET", "/x") == {"ok": True}
        tokens[0] = "newer"
        with pytest.raises(Forbidden):
            await client.request("GET", "/x")


class serving:
    """A client of a server that answers everything by one handler."""

    def __init__(self, handle: Any, *, tls: ssl.SSLContext | None = None, **options: Any) -> None:
        self._tls = tls
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._options = options

    async def __aenter__(self) -> KubeClient:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        configuration = Configuration()
        configuration.host = f"http{'s' if self._tls else ''}://127.0.0.1:{self._runner.addresses[0][1]}"
        self._client = KubeClient(configuration, qps=1000, burst=1000, **self._options)
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        await self._runner.cleanup()


# --- Credentials ----------------------------------------------------------------------------------------------


def kubeconfig(path: Path, server: str, **user: Any) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "k", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            }
        )
    )
    return path


async def test_a_kubeconfig_names_server_and_token(tmp_path: Path) -> None:
    seen: list[str | None] = []
    async with running_api() as api:
        api.on_request = lambda request: seen.append(request.headers.get("Authorization"))
        path = kubeconfig(tmp_path / "config", f"http://127.0.0.1:{api.port}", token="t0ken")
        client = await KubeClient.connect(kubeconfig=str(path))
        await client.request("GET", "/x")
        await client.close()
    assert seen == ["Bearer t0ken"]


async def test_master_wins_over_the_kubeconfigs_server(tmp_path: Path) -> None:
    async with running_api() as api:
        path = kubeconfig(tmp_path / "config", "http://127.0.0.1:1", token="t")
        client = await KubeClient.connect(kubeconfig=str(path), master=f"http://127.0.0.1:{api.port}/")
        await client.request("GET", "/x")
        await client.close()


@pytest.mark.parametrize(
    "content",
    ["", "nonsense", "[]", "a: b: c", "current-context: x", json.dumps({"users": [{"name": "u"}]}), "\x00"],
)
async def test_a_kubeconfig_that_is_none_is_a_clear_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"kubeAPIConfig.kubeConfig.*cannot be used"):
        await KubeClient.connect(kubeconfig=str(path))


async def test_a_kubeconfig_error_does_not_quote_its_token(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", "https://127.0.0.1:1", token="hunter2")
    path.write_text(path.read_text().replace("current-context: c", "current-context: d"))
    with pytest.raises(ConfigError) as caught:
        await KubeClient.connect(kubeconfig=str(path))
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_a_kubeconfig_that_is_not_there_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="there is no file /nowhere/config"):
        await KubeClient.connect(kubeconfig="/nowhere/config")


async def test_without_kubeconfig_and_pod_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="this is no pod with a service account"):
        await KubeClient.connect()


@pytest.mark.parametrize("by", ["certificate", "token"])
async def test_of_keys_in_a_kubeconfig_no_file_stays_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    files = tmp_path / "temporary"
    files.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(files))
    ca = CertificateAuthority.create(now=utc_now())
    chain = ca.issue_server_certificate(addresses=["127.0.0.1"], dns_names=[], now=utc_now())
    user = {"client-certificate-data": chain.chain_pem, "client-key-data": chain.key.pem}
    certificate = {name: base64.b64encode(pem).decode() for name, pem in user.items()}
    codes = [200, 401]

    async def handle(_: web.Request) -> web.Response:
        document["users"][0]["user"] |= {"token": "new"} if by == "token" else {}
        path.write_text(yaml.safe_dump(document))
        return web.json_response({}, status=codes.pop())

    serves = serving(handle, tls=server_context(ca, chain, client_certificates=ssl.CERT_NONE))
    async with serves as other:
        path = kubeconfig(
            tmp_path / "config", other.server, **(certificate if by == "certificate" else {"token": "old"})
        )
        document = yaml.safe_load(path.read_text())
        document["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(ca.certificate_pem).decode()
        path.write_text(yaml.safe_dump(document))
        client = await KubeClient.connect(kubeconfig=str(path))
        assert list(files.iterdir()) == []
        # A 401 has the kubeconfig read once more.
        await client.request("GET", "/x")
        assert (codes, list(files.iterdir())) == ([], [])
        await client.close()


async def test_connecting_speaks_to_no_one(tmp_path: Path) -> None:
    api = ScriptedAPI()
    client = await KubeClient.connect(kubeconfig=str(kubeconfig(tmp_path / "c", "http://127.0.0.1:1", token="t")))
    assert client.unavailable_since is None
    assert not api.requests
    await client.close()
