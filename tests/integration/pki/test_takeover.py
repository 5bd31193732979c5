"""From CloudCore to cloudhub and back: its Secrets are used, nodes stay joined, and what we leave it can read."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cloudhub.metrics import Metrics
from cloudhub.pki.join import JoinServer
from cloudhub.pki.refresh import TokenRefresher, secret_sink
from cloudhub.pki.setup import PKI, PKISources, open_pki
from cloudhub.sessions.server import SessionServer
from tests.integration.certificates import Key, csr, node_subject
from tests.integration.pki.cloudcore import CloudCore, new_key, parse_sec1, pem, pkcs8, sec1
from tests.integration.pki.secret_store import MemorySecrets
from tests.integration.pki.test_join import Join
from tests.integration.sessions.hub import Recorder

CA_SECRET = ("kubeedge", "casecret")
SERVER_SECRET = ("kubeedge", "cloudcoresecret")
TOKEN_SECRET = ("kubeedge", "tokensecret")


def left_by(
    cloudcore: CloudCore, *, addresses: list[str] | None = None, names: list[str] | None = None
) -> MemorySecrets:
    """The Secrets of a CloudCore that ran here."""
    store = MemorySecrets()
    server, key = cloudcore.server(addresses=addresses or ["127.0.0.1"], names=names if names is not None else [""])
    store.secrets[CA_SECRET] = {"cadata": cloudcore.ca, "cakeydata": cloudcore.ca_key}
    store.secrets[SERVER_SECRET] = {"cloudcoredata": server, "cloudcorekeydata": key}
    store.secrets[TOKEN_SECRET] = {"tokendata": cloudcore.token().encode()}
    store.types = dict.fromkeys(store.secrets, "Opaque")
    return store


async def opened(store: MemorySecrets, **files: Path) -> PKI:
    return await open_pki(sources=PKISources(store=store, **files), addresses=["127.0.0.1"], dns_names=[])


@dataclass
class Hub:
    pki: PKI
    join: Join
    sessions: SessionServer
    heard: Recorder

    def dial(self, node: str, identity: tuple[bytes, Key]) -> connect:
        return connect(
            f"wss://127.0.0.1:{self.sessions.port}/e632aba927ea4ac2b575ec1603d56f10/{node}/events",
            ssl=edge(self.pki.ca.certificate_der, identity),
            additional_headers={
                "node_id": node,
                "project_id": "e632aba927ea4ac2b575ec1603d56f10",
                "ConnectionUse": "msg",
            },
            compression=None,
            proxy=None,
            close_timeout=1,
        )


@asynccontextmanager
async def hub(store: MemorySecrets) -> AsyncIterator[Hub]:
    pki, heard, metrics = await opened(store), Recorder(), Metrics()
    sessions = SessionServer(
        host="127.0.0.1", port=0, ssl_context=pki.server_context_mtls(), metrics=metrics, listener=heard
    )
    server = JoinServer(
        ca=pki.ca,
        tokens=pki.tokens,
        ssl_context=pki.server_context_join(),
        host="127.0.0.1",
        port=0,
        metrics=metrics,
    )
    async with sessions, server:
        yield Hub(pki, Join(server, pki.ca, pki.tokens, metrics), sessions, heard)


def edge(ca: bytes, identity: tuple[bytes, Key] | None = None) -> ssl.SSLContext:
    """What a node trusts and shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca)
    if identity is not None:
        load(context, identity[0], sec1(identity[1]))
    return context


def load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(pem("CERTIFICATE", certificate) + pem("EC PRIVATE KEY", key))
        file.flush()
        context.load_cert_chain(file.name)


@pytest.mark.parametrize("key_id", ["sha1", "sha256", "none"])
async def test_nodes_that_joined_a_cloudcore_stay_joined_and_renew(key_id: str) -> None:
    cloudcore = CloudCore.fresh(key_id=key_id)
    store = left_by(cloudcore)
    before = {name: dict(data) for name, data in store.secrets.items()}
    identity = cloudcore.node("edge-1")
    async with hub(store) as taken:
        async with taken.dial("edge-1", identity):
            assert taken.sessions.get("edge-1") is not None
        renewed_key = new_key()
        answer = await taken.join.certificate(
            "edge-1", request=csr(node_subject("edge-1"), renewed_key), context=edge(cloudcore.ca, identity)
        )
        assert answer.status == 200
        async with taken.dial("edge-1", (answer.body, renewed_key)):
            assert taken.sessions.get("edge-1") is not None
    # Nothing of it was written: CA and certificate are the very bytes that CloudCore left.
    assert store.secrets == before


@pytest.mark.parametrize("key_id", ["sha1", "sha256", "none"])
async def test_a_token_that_cloudcore_issued_lets_a_node_join(key_id: str) -> None:
    cloudcore = CloudCore.fresh(key_id=key_id)
    store = left_by(cloudcore)
    token = store.secrets[TOKEN_SECRET]["tokendata"].decode()
    async with hub(store) as taken:
        assert (await taken.join.get("/ca.crt")).body == cloudcore.ca
        key = new_key()
        answer = await taken.join.certificate(
            "edge-2", token=token.split(".", 1)[1], request=csr(node_subject("edge-2"), key)
        )
        assert answer.status == 200, answer.text
        async with taken.dial("edge-2", (answer.body, key)):
            assert taken.sessions.get("edge-2") is not None


async def test_the_token_that_is_left_in_the_secret_is_one_of_cloudcores() -> None:
    cloudcore = CloudCore.fresh()
    store = left_by(cloudcore)
    pki = await opened(store)
    await TokenRefresher(tokens=pki.tokens, sink=secret_sink(store), every=timedelta(hours=12)).refresh()
    assert list(store.secrets[TOKEN_SECRET]) == ["tokendata"]
    assert set(cloudcore.takes(store.secrets[TOKEN_SECRET]["tokendata"].decode())) == {"exp"}


async def test_a_certificate_of_up_to_1_15_names_no_node_and_gets_neither_session_nor_renewal_but_may_join() -> None:
    cloudcore = CloudCore.fresh()
    identity = cloudcore.node("edge-1", before_1_16=True)
    async with hub(left_by(cloudcore)) as taken:
        with pytest.raises(InvalidStatus) as refused:
            async with taken.dial("edge-1", identity):
                pass
        assert refused.value.response.status_code == 401
        assert b"O='KubeEdge', not system:nodes" in refused.value.response.body
        assert b"of KubeEdge 1.15 or before and names no node; join again with a token" in refused.value.response.body
        request = csr(node_subject("edge-1"), new_key())
        context = edge(cloudcore.ca, identity)
        answer = await taken.join.certificate("edge-1", request=request, context=context)
        assert answer.status in (401, 403)
        token = cloudcore.token().split(".", 1)[1]
        assert (await taken.join.certificate("edge-1", token=token, request=request, context=context)).status == 200


async def test_a_server_certificate_that_lacks_an_address_is_issued_anew_for_the_same_ca() -> None:
    cloudcore = CloudCore.fresh()
    store = left_by(cloudcore, addresses=["192.0.2.1"])
    async with hub(store) as taken, taken.dial("edge-1", cloudcore.node("edge-1")):
        pass
    assert store.secrets[CA_SECRET] == {"cadata": cloudcore.ca, "cakeydata": cloudcore.ca_key}


# --- Back again -----------------------------------------------------------------------------------------------


async def test_a_cloudcore_goes_on_with_what_a_hub_made() -> None:
    store = MemorySecrets()
    async with hub(store) as made:
        await TokenRefresher(tokens=made.pki.tokens, sink=secret_sink(store), every=timedelta(hours=12)).refresh()
        key = new_key()
        token = store.secrets[TOKEN_SECRET]["tokendata"].decode()
        answer = await made.join.certificate(
            "edge-1", token=token.split(".", 1)[1], request=csr(node_subject("edge-1"), key)
        )
        assert answer.status == 200
    assert set(store.types.values()) == {"Opaque"}
    cloudcore = CloudCore(store.secrets[CA_SECRET]["cadata"], store.secrets[CA_SECRET]["cakeydata"])
    ca = x509.load_der_x509_certificate(cloudcore.ca)
    assert (ca.serial_number, ca.subject.rfc4514_string()) == (1024, "CN=KubeEdge")
    assert ca.public_key() == parse_sec1(cloudcore.ca_key).public_key()
    assert ca.not_valid_after_utc - ca.not_valid_before_utc >= timedelta(days=364 * 100)
    assert set(cloudcore.takes(token)) == {"exp"}
    # It serves TLS with what lies in the Secret; the node that joined us trusts it, and is known to it.
    server = store.secrets[SERVER_SECRET]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=cloudcore.ca)
    parse_sec1(server["cloudcorekeydata"])
    load(context, server["cloudcoredata"], server["cloudcorekeydata"])
    assert await peer_seen(context, edge(cloudcore.ca, (answer.body, key))) == answer.body
    # And a node that joins it is known to us when we are back.
    async with hub(store) as back, back.dial("edge-2", cloudcore.node("edge-2")):
        assert back.sessions.get("edge-2") is not None


async def peer_seen(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    """The certificate by which a TLS server knows the client, after both have verified each other."""
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        async with asyncio.timeout(60):
            found = await seen
        writer.close()
    return found


# --- Files ----------------------------------------------------------------------------------------------------


def write(folder: Path, **contents: bytes) -> dict[str, Path]:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


async def test_pem_files_win_over_the_secrets_and_are_copied_into_them(tmp_path: Path) -> None:
    store, local = left_by(CloudCore.fresh()), CloudCore.fresh()
    certificate, key = local.server(addresses=["127.0.0.1"], names=[])
    files = await asyncio.to_thread(
        write,
        tmp_path,
        ca_file=pem("CERTIFICATE", local.ca),
        ca_key_file=pem("EC PRIVATE KEY", local.ca_key),
        server_file=pem("CERTIFICATE", certificate),
        server_key_file=pem("EC PRIVATE KEY", key),
    )
    pki = await opened(store, **files)
    assert pki.ca.certificate_der == local.ca
    assert pki.server_certificate.public_bytes(Encoding.DER) == certificate
    assert store.secrets[CA_SECRET] == {"cadata": local.ca, "cakeydata": local.ca_key}
    assert store.secrets[SERVER_SECRET] == {"cloudcoredata": certificate, "cloudcorekeydata": key}
    pki.tokens.verify(local.token().split(".", 1)[1], "edge-1")
    writes = store.writes
    await opened(store, **files)
    assert store.writes == writes


async def test_a_pkcs8_key_file_is_copied_in_the_form_that_cloudcore_reads(tmp_path: Path) -> None:
    store, key = MemorySecrets(), new_key()
    local = CloudCore.fresh(key=key)
    files = await asyncio.to_thread(
        write, tmp_path, ca_file=pem("CERTIFICATE", local.ca), ca_key_file=pem("PRIVATE KEY", pkcs8(key))
    )
    pki = await opened(store, **files)
    assert store.secrets[CA_SECRET] == {"cadata": local.ca, "cakeydata": sec1(key)}
    assert set(local.takes(pki.tokens.issue(timedelta(hours=1)))) == {"exp"}


@pytest.mark.parametrize(
    ("label", "form"), [("RSA PRIVATE KEY", PrivateFormat.TraditionalOpenSSL), ("PRIVATE KEY", PrivateFormat.PKCS8)]
)
async def test_an_rsa_server_key_of_the_operator_serves_and_is_copied(
    tmp_path: Path, label: str, form: PrivateFormat
) -> None:
    store = MemorySecrets()
    first = await opened(store)
    own = CloudCore(first.ca.certificate_der, first.ca.key.der)
    key = await asyncio.to_thread(rsa.generate_private_key, 65537, 2048)
    certificate, _ = own.server(addresses=["127.0.0.1"], names=["hub.example"], key=key)
    private = key.private_bytes(Encoding.DER, form, NoEncryption())
    files = await asyncio.to_thread(
        write, tmp_path, server_file=pem("CERTIFICATE", certificate), server_key_file=pem(label, private)
    )
    pki = await opened(store, **files)
    assert pki.server_certificate.public_bytes(Encoding.DER) == certificate
    kept = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    assert store.secrets[SERVER_SECRET] == {"cloudcoredata": certificate, "cloudcorekeydata": kept}
    assert await peer_seen(pki.server_context_mtls(), edge(own.ca, own.node("edge-1"))) is not None
    # Without the files the next start goes on with the copy.
    assert (await opened(store)).server_certificate.public_bytes(Encoding.DER) == certificate
