"""Servers that are sent nonsense, inside of TLS and before it: they refuse it, go on, and serve the next good peer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs
from websockets.frames import Frame, Opcode

from cloudhub.listen.acceptor import AcceptLimits
from cloudhub.pki.join import JoinLimits
from cloudhub.sessions.server import SessionLimits
from cloudhub.standalone.server import StandaloneAPI
from shared.wire import encode_bytes, keepalive
from tests.fuzz.drawn import drawn
from tests.fuzz.mutation import damaged, letters, noise, wronged
from tests.fuzz.parsers import FROM_NODE, SPECS
from tests.fuzz.target import MARKER
from tests.integration.certificates import client_context, csr, node_context, node_subject
from tests.integration.pki.test_join import KEY, join
from tests.integration.sessions.hub import Hub, closed, dispatch, eventually, hub
from tests.integration.standalone.rest import CONFIG_MAPS, CRDS, JOBS, NODES, SECRETS, Rest, connected, job_crd

OPEN = AcceptLimits(turn=20.0, running=200, running_per_address=200)
"""Here one address stands for all."""


async def _say(port: int, data: bytes, context: ssl.SSLContext | None, head: bytes = b"") -> bytes:
    """Sends, and returns what came back until the server closed, or for as long as it says nothing more."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    except (OSError, ssl.SSLError):
        return b""
    try:
        writer.write(head + data)
        writer.write_eof() if writer.can_write_eof() else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                return await reader.read()
        return b""
    except (OSError, ssl.SSLError):
        return b""
    finally:
        writer.close()


def _faults(logs: Iterable[Any]) -> list[Any]:
    return [entry for entry in logs if entry.get("exc_info")]


# --- Sessions ---------------------------------------------------------------------------------------------------


def _handshake(node: str) -> bytes:
    lines = [
        f"GET /e632aba927ea4ac2b575ec1603d56f10/{node}/events HTTP/1.1", "Host: hub", "Upgrade: websocket",
        "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13",
        f"node_id: {node}", "project_id: p", "ConnectionUse: msg", "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode()


def _frames() -> bytes:
    texts = (*FROM_NODE, encode_bytes(keepalive()))
    frames = [Frame(Opcode.TEXT, text) for text in texts] + [Frame(Opcode.PING, b"x"), Frame(Opcode.CLOSE, b"\x03\xe8")]
    return b"".join(frame.serialize(mask=True) for frame in frames)


@contextlib.asynccontextmanager
async def _hub() -> AsyncIterator[Hub]:
    async with hub(limits=SessionLimits(session_burst=10_000), accept_limits=OPEN, node_limit=500) as h:
        yield h


async def test_sessions_outlive_whatever_a_peer_sends() -> None:
    async with _hub() as h:
        with capture_logs() as logs:
            context = node_context(h.ca, "edge-1")
            for data in drawn(lambda random: damaged(random, (_frames(),))):
                await _say(h.server.port, data, context, _handshake("edge-1"))
            for data in drawn(lambda random: damaged(random, (_handshake("edge-1"),))):
                await _say(h.server.port, data, context)
            for data in drawn(lambda random: noise(random, 300)):
                await _say(h.server.port, data, None)
        assert _faults(logs) == []
        async with h.connect("edge-2") as socket:
            await eventually(lambda: h.server.get("edge-2"))
            assert h.server.send("edge-2", dispatch("edge-2"))
            assert "taskmanager" in str(await socket.recv())
            h.server.disconnect("edge-2", "a test")
            assert (await closed(socket))[0] == 1008


# --- Joining ----------------------------------------------------------------------------------------------------


async def test_the_join_server_outlives_whatever_a_peer_sends() -> None:
    limits = JoinLimits(accept=OPEN, requests_per_second=10_000, request_burst=10_000)
    async with join(limits=limits) as j:
        body = csr(node_subject("edge-1"), KEY)
        token = j.tokens.issue(timedelta(hours=1), None).split(".", 1)[1]
        head = f"GET /edge.crt HTTP/1.1\r\nHost: h\r\nNodeName: edge-1\r\nAuthorization: Bearer {token}\r\n"
        good = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        context = client_context(j.ca)
        with capture_logs() as logs:
            for data in drawn(lambda random: damaged(random, (good,))):
                answer = await _say(j.server.port, data, context)
                assert not answer.startswith(b"HTTP/1.1 5")
            for data in drawn(lambda random: noise(random, 300)):
                await _say(j.server.port, data, None)
        assert _faults(logs) == []
        assert token not in str(logs)
        assert (await j.certificate("edge-2", token=j.token())).status == 200
        # aiohttp ends its task of a connection that broke off in the next turns of the loop.
        await eventually(lambda: not any("RequestHandler" in repr(task) for task in asyncio.all_tasks()))


# --- The embedded API server ------------------------------------------------------------------------------------

_OBJECTS: dict[str, Any] = {
    JOBS: {
        "apiVersion": "operations.kubeedge.io/v1alpha1", "kind": "ImagePrePullJob",
        "metadata": {"name": "job", "labels": {"a": "b"}}, "spec": json.loads(SPECS[0]),
    },
    SECRETS: {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque", "stringData": {"p": MARKER},
    },
    CONFIG_MAPS: {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}},
    NODES: {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge-1"}, "spec": {"taints": [{"key": "a"}]}},
    CRDS: {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.io"},
        "spec": {
            "group": "example.io", "scope": "Cluster", "names": {"plural": "things", "kind": "Thing"},
            "versions": [
                {
                    "name": "v1", "served": True, "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                }
            ],
        },
    },
}  # fmt: skip
_PATCHES: dict[str, Any] = {
    "application/merge-patch+json": {"metadata": {"labels": {"x": None}}, "spec": {"a": 1}},
    "application/json-patch+json": [{"op": "replace", "path": "/metadata/labels/a", "value": "c"}],
    "application/strategic-merge-patch+json": {"metadata": {"annotations": {"a": "b"}, "$patch": "merge"}},
    "application/apply-patch+yaml": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {}},
}


async def test_the_embedded_api_answers_nonsense_with_a_status(tmp_path: Path) -> None:
    async with StandaloneAPI(data_dir=tmp_path / "data") as api, connected(api) as rest:
        assert (await rest.post(CRDS, job_crd())).code == 201
        for path, sample in _OBJECTS.items():
            wrong = partial(wronged, samples=(json.dumps(sample).encode(),))
            for document in drawn(wrong):
                await _refused_or_done(rest, "POST", path, document)
                await _refused_or_done(rest, "PUT", f"{path}/{sample['metadata']['name']}", document)
        for kind, sample in _PATCHES.items():
            wrong = partial(wronged, samples=(json.dumps(sample).encode(),))
            for document in drawn(wrong):
                await _refused_or_done(rest, "PATCH", f"{CONFIG_MAPS}/c", document, kind, fieldManager="fuzz")
        for data in drawn(lambda random: damaged(random, (json.dumps(_OBJECTS[CONFIG_MAPS]).encode(),))):
            await _refused_or_done(rest, "POST", CONFIG_MAPS, data)
        for text in drawn(letters):
            for option in ("labelSelector", "fieldSelector", "continue", "limit", "resourceVersion", "timeoutSeconds"):
                answer = await rest.get(CONFIG_MAPS, **{option: text})
                assert answer.code < 500
        assert (await rest.get(CONFIG_MAPS)).code == 200


async def _refused_or_done(
    rest: Rest, method: str, path: str, body: Any, kind: str = "application/json", **query: Any
) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode("utf-8", "surrogatepass")
    answer = await rest.call(method, path, data, content_type=kind, **query)
    assert answer.code < 500, (method, path, data[:500], answer)
    if answer.code >= 400:
        assert answer.body["kind"] == "Status"
        assert answer.message
        assert MARKER not in answer.message
