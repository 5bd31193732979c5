"""Joining and renewing over real TLS: what is asked, what is believed, and what is written."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgehub.config import ConfigError, load_config
from edgehub.identity import ensure_identity, identity_files, without_token
from edgehub.joining import JoinOptions, join_node
from edgehub.link.errors import HubUnreachable, IdentityError, IdentityMissing, JoinError
from edgehub.link.identity import IdentityFiles
from edgehub.link.join import join, parse_token, renew
from tests.integration.edgehub.conftest import NODE
from tests.integration.edgehub.hub import CA, JWT, Hub, node_name, pem_of


async def _join(hub: Hub, files: IdentityFiles, *, token: str | None = None) -> None:
    await join(server=hub.join_url, token=parse_token(token or hub.ca.token), node=NODE, files=files, timeout=5)


async def test_a_join_asks_as_kubeedge_does(hub: Hub, files: IdentityFiles) -> None:
    await _join(hub, files)
    (ca_path, ca_headers, _), (path, headers, body) = hub.requests
    assert (ca_path, path) == ("/ca.crt", "/edge.crt")
    assert "Authorization" not in ca_headers
    assert (headers["Authorization"], headers["NodeName"]) == (f"Bearer {JWT}", NODE)
    csr = x509.load_der_x509_csr(body)
    subject = {attribute.oid: attribute.value for attribute in csr.subject}
    assert subject == {
        NameOID.COUNTRY_NAME: "CN",
        NameOID.LOCALITY_NAME: "Hangzhou",
        NameOID.STATE_OR_PROVINCE_NAME: "Zhejiang",
        NameOID.ORGANIZATION_NAME: "system:nodes",
        NameOID.COMMON_NAME: f"system:node:{NODE}",
    }
    assert isinstance(csr.public_key(), ec.EllipticCurvePublicKey)


async def test_what_is_written_works_and_is_private(hub: Hub, files: IdentityFiles) -> None:
    await _join(hub, files)
    certificate = files.load(NODE)
    assert certificate.common_name == f"system:node:{NODE}"
    assert timedelta(days=364) < certificate.not_after - datetime.now(UTC) < timedelta(days=366)
    assert files.ca.read_bytes() == hub.ca.pem
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.key.parent.stat().st_mode) == 0o700
    assert files.key.read_bytes().startswith(b"-----BEGIN EC PRIVATE KEY-----")
    assert sorted(path.name for path in files.key.parent.iterdir()) == ["rootCA.crt", "server.crt", "server.key"]


async def test_another_hub_than_the_tokens_is_not_believed(hub: Hub, files: IdentityFiles) -> None:
    with pytest.raises(JoinError, match="not the hub that the token is for") as caught:
        await _join(hub, files, token=CA().token)
    assert JWT not in str(caught.value)
    assert [path for path, _, _ in hub.requests] == ["/ca.crt"]
    assert not files.key.exists()


async def test_a_hub_that_shows_the_ca_but_is_not_of_it_gets_no_token(
    hub: Hub, files: IdentityFiles, tmp_path: Path
) -> None:
    other = CA()
    (tmp_path / "other").mkdir()
    async with Hub(tmp_path / "other") as thief:

        class _Fake(CA):
            der = other.der

        thief.ca.__class__ = _Fake
        with pytest.raises(JoinError, match="not of the CA that this node trusts"):
            await join(server=thief.join_url, token=parse_token(other.token), node=NODE, files=files, timeout=5)
        assert [path for path, _, _ in thief.requests] == ["/ca.crt"]


async def test_the_hubs_words_are_shown_and_the_token_is_not(hub: Hub, files: IdentityFiles) -> None:
    def refuse(_request: web.Request, _csr: Any) -> web.Response:
        return web.Response(status=401, text=f"token {JWT} is expired\n")

    hub.sign = refuse
    with pytest.raises(JoinError, match=r"/edge\.crt answered 401: token <token> is expired$"):
        await _join(hub, files)
    assert not files.certificate.exists()


async def test_a_hub_in_trouble_is_one_to_ask_again(hub: Hub, files: IdentityFiles) -> None:
    hub.sign = lambda _request, _csr: web.Response(status=503, text="starting")
    with pytest.raises(HubUnreachable, match="503: starting"):
        await _join(hub, files)


async def test_a_hub_that_is_not_there_is_named(files: IdentityFiles, tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    await hub.start()
    await hub.stop()
    with pytest.raises(HubUnreachable, match=r"cannot reach https://127\.0\.0\.1:\d+/ca\.crt: Connection refused"):
        await _join(hub, files)


async def test_a_hub_that_never_answers_is_left(files: IdentityFiles) -> None:
    left = asyncio.Event()

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        left.set()

    server = await asyncio.start_server(nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(HubUnreachable, match=r"did not answer within 0\.3 s"):
        await join(
            server=f"https://127.0.0.1:{port}", token=parse_token(CA().token), node=NODE, files=files, timeout=0.3
        )
    async with asyncio.timeout(60):
        await left.wait()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("other CA", "not signed by the hub's CA"),
        ("other key", "for another key"),
        ("other name", "is for 'system:node:other', not for 'system:node:edge.kubeedge'"),
        ("other usage", "not for client authentication"),
        ("ended", "this machine's clock says"),
        ("garbage", "no X.509 certificate"),
        ("too long", "more than 1048576 bytes"),
    ],
)
async def test_a_certificate_that_is_not_what_was_asked_for_is_refused(
    hub: Hub, files: IdentityFiles, case: str, words: str
) -> None:
    def sign(_request: web.Request, csr: x509.CertificateSigningRequest) -> web.Response:
        key: Any = csr.public_key()
        answers: dict[str, Callable[[], bytes]] = {
            "other CA": lambda: CA().sign(key, csr.subject),
            "other key": lambda: hub.ca.sign(ec.generate_private_key(ec.SECP256R1()).public_key(), csr.subject),
            "other name": lambda: hub.ca.sign(key, node_name("other")),
            "other usage": lambda: hub.ca.sign(key, csr.subject, usage=ExtendedKeyUsageOID.SERVER_AUTH),
            "ended": lambda: hub.ca.sign(key, csr.subject, life=timedelta(minutes=-1)),
            "garbage": lambda: b"no certificate",
            "too long": lambda: b"x" * ((1 << 20) + 1),
        }
        return web.Response(body=answers[case]())

    hub.sign = sign
    with pytest.raises(JoinError) as caught:
        await _join(hub, files)
    assert words in str(caught.value)
    assert not files.certificate.exists()
    assert not files.key.exists()


@pytest.mark.parametrize("text", ["", "abc", "a.b.c.d", f"{'A' * 64}.a.b.c", f"{'a' * 64}.a.b", f"{'a' * 64}.a.b.c.d"])
def test_what_is_no_token_is_said_to_be_none(text: str) -> None:
    with pytest.raises(JoinError, match="not of the form") as caught:
        parse_token(text)
    assert text == "" or text not in str(caught.value)


def test_a_token_hides_itself() -> None:
    assert JWT not in repr(parse_token(CA().token))


async def test_a_name_too_long_for_a_certificate_is_refused_before_the_hub_is_asked_to_sign(
    hub: Hub, files: IdentityFiles
) -> None:
    with pytest.raises(JoinError, match="a certificate has room for 52"):
        await join(server=hub.join_url, token=parse_token(hub.ca.token), node="n" * 53, files=files)


# --- Renewal


async def test_a_renewal_shows_the_certificate_and_replaces_key_and_certificate(hub: Hub, files: IdentityFiles) -> None:
    await _join(hub, files)
    before = files.key.read_bytes(), files.certificate.read_bytes()
    await renew(server=hub.join_url, node=NODE, files=files, timeout=5)
    path, headers, _ = hub.requests[-1]
    assert (path, headers["NodeName"], "Authorization" in headers) == ("/edge.crt", NODE, False)
    assert files.key.read_bytes() != before[0]
    assert files.certificate.read_bytes() != before[1]
    files.load(NODE)


async def test_a_renewal_that_is_refused_leaves_the_pair_as_it_was(hub: Hub, files: IdentityFiles) -> None:
    await _join(hub, files)
    before = files.key.read_bytes(), files.certificate.read_bytes()
    hub.sign = lambda _request, _csr: web.Response(status=403, text="node is banned")
    with pytest.raises(JoinError, match="403: node is banned"):
        await renew(server=hub.join_url, node=NODE, files=files, timeout=5)
    assert (files.key.read_bytes(), files.certificate.read_bytes()) == before


# --- The files


def _pair(ca: CA, node: str = NODE, life: timedelta = timedelta(days=1)) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = x509.load_der_x509_certificate(ca.sign(key.public_key(), node_name(node), life=life))
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM), pem_of(key)


@pytest.mark.parametrize("died_after", ["next certificate", "key", "certificate"])
def test_a_crash_in_the_middle_of_a_replacement_leaves_a_pair_that_works(files: IdentityFiles, died_after: str) -> None:
    ca = CA()
    files.store_ca(ca.pem)
    old, new = _pair(ca), _pair(ca)
    files.store(certificate_pem=old[0], key_pem=old[1])
    following = files.certificate.with_name("server.crt.next")
    following.write_bytes(new[0])
    if died_after != "next certificate":
        files.key.write_bytes(new[1])
    if died_after == "certificate":
        following.rename(files.certificate)
    files.load(NODE)
    expected = old if died_after == "next certificate" else new
    assert (files.certificate.read_bytes(), files.key.read_bytes()) == expected
    assert not following.exists()


def test_files_that_are_of_no_use_say_why(files: IdentityFiles) -> None:
    ca = CA()
    with pytest.raises(IdentityMissing, match="not joined yet"):
        files.load(NODE)
    files.store_ca(ca.pem)
    certificate, key = _pair(ca)
    files.store(certificate_pem=certificate, key_pem=_pair(ca)[1])
    with pytest.raises(IdentityError, match="no certificate with its key"):
        files.load(NODE)
    files.store(certificate_pem=certificate, key_pem=key)
    with pytest.raises(IdentityError, match=r"is for 'system:node:edge\.kubeedge', this node is 'system:node:other'"):
        files.load("other")
    files.store_ca(CA().pem)
    with pytest.raises(IdentityError, match="of no use"):
        files.load(NODE)
    ended = _pair(ca, life=timedelta(minutes=-1))
    files.store_ca(ca.pem)
    files.store(certificate_pem=ended[0], key_pem=ended[1])
    with pytest.raises(IdentityError, match="certificate has expired; join again"):
        files.load(NODE)
    files.store_ca(b"no PEM")
    with pytest.raises(IdentityError, match="cannot be used as CA"):
        files.load(NODE)


# --- edgehub join


async def test_edgehub_join_writes_a_configuration_without_the_token(hub: Hub, tmp_path: Path) -> None:
    path = await join_node(
        JoinOptions(
            server=hub.join_url,
            token=hub.ca.token,
            node=NODE,
            data_dir=tmp_path / "n1",
            runtime_endpoint="builtin",
            websocket_server=f"127.0.0.1:{hub.port}",
        )
    )
    assert path == tmp_path / "n1" / "edgecore.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert JWT not in path.read_text()
    config = load_config(path).config
    assert config.node == NODE
    assert config.websocket_address == ("127.0.0.1", hub.port)
    assert config.modules.taskManager.enable
    assert config.data_dir == tmp_path / "n1"
    identity_files(config).load(NODE)


async def test_edgehub_join_keeps_what_else_is_in_the_file(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "edgecore.yaml"
    path.write_text("modules: {edgeHub: {heartbeat: 7}, deviceTwin: {enable: true}, edged: {imageStore: /big}}\n")
    await join_node(
        JoinOptions(server=hub.join_url, token=hub.ca.token, node=NODE, config=path, data_dir=tmp_path / "d")
    )
    document = yaml.safe_load(path.read_text())
    assert document["modules"]["deviceTwin"] == {"enable": True}
    config = load_config(path).config
    assert (config.modules.edgeHub.heartbeat, str(config.image_store), config.node) == (7, "/big", NODE)


async def test_a_join_that_fails_writes_no_configuration(hub: Hub, tmp_path: Path) -> None:
    options = JoinOptions(server=hub.join_url, token=CA().token, node=NODE, data_dir=tmp_path / "n1")
    with pytest.raises(JoinError):
        await join_node(options)
    assert not (tmp_path / "n1" / "edgecore.yaml").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"server": "http://x"}, "--server is 'http://x'; it must be https://HOST:10002"),
        ({"node": "Edge_1"}, "--node-name is 'Edge_1'"),
        ({"websocket_server": "h:x"}, "--websocket-server is 'h:x'"),
        ({"runtime_endpoint": "tcp://x"}, "containerRuntimeEndpoint"),
    ],
)
async def test_wrong_options_are_named_before_the_hub_is_asked(
    hub: Hub, tmp_path: Path, change: dict[str, str], words: str
) -> None:
    values = {"server": hub.join_url, "token": hub.ca.token, "node": NODE, **change}
    with pytest.raises(ConfigError) as caught:
        await join_node(JoinOptions(data_dir=tmp_path / "n1", **values))  # type: ignore[arg-type]
    assert words in str(caught.value)
    assert hub.requests == []


# --- edgehub run with a token


def _config_text(hub: Hub, folder: Path) -> str:
    return (
        "# made by hand\n"
        "apiVersion: edgecore.config.kubeedge.io/v1alpha2\nkind: EdgeCore\nmodules:\n  edgeHub:\n"
        f"    httpServer: {hub.join_url}\n    token: {hub.ca.token}  # from keadm\n"
        f"    tlsCaFile: {folder}/ca.crt\n    tlsCertFile: {folder}/node.crt\n"
        f"    tlsPrivateKeyFile: {folder}/node.key\n"
        f"  edged: {{hostnameOverride: {NODE}}}\n  taskManager: {{dataDir: {json.dumps(str(folder))}}}\n"
    )


async def test_an_agent_with_a_token_joins_and_forgets_it(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "edgecore.yaml"
    path.write_text(_config_text(hub, tmp_path))
    loaded = load_config(path)
    await ensure_identity(loaded)
    text = path.read_text()
    assert JWT not in text
    assert text.startswith("# made by hand\n")
    assert load_config(path).config.modules.edgeHub.token == ""
    identity_files(loaded.config).load(NODE)


async def test_an_agent_waits_for_a_hub_that_is_not_up_yet(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "edgecore.yaml"
    path.write_text(_config_text(hub, tmp_path))
    await hub.stop()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await hub.start()

    await ensure_identity(load_config(path), sleep=sleep)
    assert len(slept) == 1
    assert slept[0] >= 1


async def test_an_agent_with_a_good_certificate_asks_nobody(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "edgecore.yaml"
    path.write_text(_config_text(hub, tmp_path))
    await ensure_identity(load_config(path))
    asked = len(hub.requests)
    await ensure_identity(load_config(path))
    assert len(hub.requests) == asked


async def test_an_agent_with_neither_certificate_nor_token_says_what_to_do(hub: Hub, tmp_path: Path) -> None:
    path = tmp_path / "edgecore.yaml"
    path.write_text(without_token(_config_text(hub, tmp_path)))
    with pytest.raises(IdentityMissing, match=r"run edgehub join, or set modules\.edgeHub\.token"):
        await ensure_identity(load_config(path))


@pytest.mark.parametrize(
    "text",
    [
        "modules:\n  edgeHub:\n    token: abc # x\n    heartbeat: 15\n",
        'modules:\n  edgeHub:\n    "token": "abc"\n',
        "modules: {edgeHub: {token: abc, heartbeat: 15}}\n",
        "modules:\n  edgeHub:\n    token: >-\n      abc\n    heartbeat: 15\n",
        "other:\n  token: keep\nmodules:\n  edgeHub:\n    token: abc\n",
    ],
)
def test_the_token_goes_whatever_the_form_of_the_file(text: str) -> None:
    expected = yaml.safe_load(text)
    expected["modules"]["edgeHub"]["token"] = ""
    assert yaml.safe_load(without_token(text)) == expected
    assert "abc" not in without_token(text)
