"""Whole conversations with a peer that lies at one place of many: a document says what it answers to which question.

One answer to all questions never gets far: the second question is about something else. Here each has its own good
answer, and what is changed is a value within one or two of them: a status, a header, a length that is wrong, a body,
the byte at which the link is cut.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import ssl
import tempfile
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import json_format
from pydantic_core import from_json
from websockets.frames import Opcode

from cloudhub.listen.acceptor import AcceptLimits
from cloudhub.pki.join import JoinLimits
from cloudhub.sessions.connection import NodeConnection
from edgehub.runtime.base import ImageRuntimeError
from edgehub.runtime.cri import api_pb2 as cri
from edgehub.runtime.oci import BuiltinStore, StoreSettings
from edgehub.runtime.oci.platforms import Platform
from shared.wire import Credential, encode_bytes, keepalive
from tests.fuzz.mutation import damaged, noise, wronged
from tests.fuzz.parsers import FROM_NODE, dump
from tests.fuzz.peers import IMAGE_NAME, AsyncFeed, Handler, answer_once, in_a_loop, runtime_behind
from tests.fuzz.target import MARKER, BrokenPromise, Target
from tests.integration.certificates import client_context, csr, node_subject
from tests.integration.pki.test_join import KEY, join
from tests.unit.runtime_oci.images import image, index
from tests.unit.sessions.test_frames import REQUEST, Plain, cut, frame_of, outcome

_CREDENTIAL: Final = Credential(registry="registry.example", username="u", password=MARKER)


def _script(data: bytes, good: Mapping[str, Any]) -> dict[str, Any]:
    """The good answers, with what the document says instead; a document that is none changes nothing."""
    try:
        document = from_json(data)
    except ValueError:
        document = {}
    return {**good, **document} if isinstance(document, dict) else dict(good)


def _number(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


# --- A registry, its token server, and the storage behind it ----------------------------------------------------------

_IMAGE: Final = image(b"first layer", b"second layer" * 500)
_INDEX: Final = index([
    ({"os": "linux", "architecture": "arm64"}, image(b"of another machine")),
    ({"os": "linux", "architecture": "amd64"}, _IMAGE),
])  # fmt: skip
_CONFIG, _FIRST, _SECOND = _IMAGE.id, *_IMAGE.layers


def _answer(body: bytes, status: int = 200, **headers: str) -> dict[str, Any]:
    """``length``: what Content-Length says, null for what it is; ``cut``: bytes after which the link breaks. A body of
    JSON stands there as what it is, and is changed as such."""
    document = {"json": from_json(body)} if body[:1] == b"{" else {"body": body.decode("latin-1")}
    return {
        "status": status, "headers": {name.replace("_", "-"): value for name, value in headers.items()},
        "length": None, "cut": None, "chunks": False, **document,
    }  # fmt: skip


REGISTRY: Final = {
    "unknown": _answer(b"{}", 401, WWW_Authenticate='Bearer realm="http://{here}/token",service="r",scope="s"'),
    "token": _answer(dump({"token": "abc", "access_token": "abc", "expires_in": 300})),
    "tag": _answer(_INDEX.content, Content_Type=_INDEX.media_type, Docker_Content_Digest=_INDEX.digest),
    "manifest": _answer(_IMAGE.content, Content_Type=_IMAGE.media_type),
    "config": _answer(_IMAGE.blobs[_CONFIG], Content_Type="application/octet-stream"),
    "first": _answer(b"", 307, Location="http://{here}/storage?sig=1"),
    "storage": _answer(_IMAGE.blobs[_FIRST]),
    "second": _answer(_IMAGE.blobs[_SECOND], ETag='"x"'),
}
REGISTRIES: Final = (
    dump(REGISTRY),
    dump({**REGISTRY, "second": {**_answer(_IMAGE.blobs[_SECOND]), "cut": 3000}}),
    dump({**REGISTRY, "tag": _answer(_IMAGE.content, Content_Type=_IMAGE.media_type), "manifest": _answer(b"", 404)}),
    dump({**REGISTRY, "tag": _answer(_INDEX.content)}),
)


class _Registry:
    def __init__(self) -> None:
        self.script: dict[str, Any] = {}
        self.asked = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        await answer_once(reader, writer, lambda head: self._bytes(self.script.get(self._question(head)), head))

    def _question(self, head: str) -> str:
        path = head.split(" ", 2)[1]
        if path.startswith("/token"):
            return "token"
        if path.startswith("/storage"):
            return "storage"
        if "authorization:" not in head.lower():
            return "unknown"
        last = path.rpartition("/")[2]
        named = {"v1": "tag", _IMAGE.digest: "manifest", _CONFIG: "config", _FIRST: "first", _SECOND: "second"}
        return named.get(last, "nothing")

    def _bytes(self, answer: Any, head: str) -> bytes:
        if not isinstance(answer, dict):
            answer = _answer(b"", 404)
        said = answer.get("body")
        # As the sample's images are written.
        body = dump(answer.get("json")) if said is None else str(said).encode("latin-1", "replace")
        found = answer.get("headers")
        headers = {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
        if answer.get("chunks"):
            headers["Transfer-Encoding"] = "chunked"
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (_number(answer.get("length"), len(body)) % 2**40, body)
        else:
            headers["Content-Length"] = str(answer["length"] if answer.get("length") is not None else len(body))
        lines = [f"HTTP/1.1 {answer.get('status')} So", *(f"{name}: {value}" for name, value in headers.items())]
        text = "\r\n".join(lines).replace("{here}", f"127.0.0.1:{self.port}") + "\r\n\r\n"
        whole = text.encode("latin-1", "replace") + body
        stop = answer.get("cut")
        return whole[: max(0, _number(stop, 0))] if stop is not None else whole


@asynccontextmanager
async def _registry() -> AsyncIterator[AsyncFeed]:
    registry = _Registry()
    server = await asyncio.start_server(registry.serve, "127.0.0.1", 0)
    registry.port = server.sockets[0].getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="images-"))

    async def feed(data: bytes) -> None:
        registry.script = _script(data, REGISTRY)
        registry.asked = 0
        store = BuiltinStore(
            folder / "own", settings=StoreSettings(idle_timeout=2.0, request_timeout=4.0, reserve_bytes=0),
            platform=Platform("linux", "amd64"), sleep=_at_once,
        )  # fmt: skip
        try:
            await store.pull(f"127.0.0.1:{registry.port}/team/app:v1", _CREDENTIAL)
        finally:
            await store.close()
            _look_at(folder / "own", registry.asked)
            shutil.rmtree(folder / "own", ignore_errors=True)

    try:
        yield feed
    finally:
        server.close()
        await server.wait_closed()
        shutil.rmtree(folder)


def _look_at(folder: Path, asked: int) -> None:
    """What stands under a digest has it; and no registry keeps an agent busy, or fills its disk."""
    if asked > 200:
        raise BrokenPromise(f"asked the registry {asked} times")
    size = 0
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            size += len(content)
            if path.parent.name == "sha256" and hashlib.sha256(content).hexdigest() != path.name:
                raise BrokenPromise(f"{path.name} holds other bytes")
    if size > 1 << 20:
        raise BrokenPromise(f"keeps {size} bytes")


async def _at_once(_: float) -> None:
    return


# --- A container runtime ----------------------------------------------------------------------------------------------

_ID: Final = "sha256:" + "1" * 64
_HELD: Final = {"id": _ID, "repoTags": [IMAGE_NAME], "repoDigests": [f"registry.example/team/app@{_ID}"], "size": "7"}
_MESSAGES: Final = {
    "Version": cri.VersionResponse, "ListImages": cri.ListImagesResponse, "ImageStatus": cri.ImageStatusResponse,
    "PullImage": cri.PullImageResponse, "ImageFsInfo": cri.ImageFsInfoResponse,
}  # fmt: skip
RUNTIME: Final = {
    "Version": {"message": {"version": "0.1.0", "runtimeName": "containerd", "runtimeVersion": "1.7"}},
    "ListImages": {"message": {"images": [_HELD, _HELD]}},
    "ImageStatus": {"message": {"image": _HELD, "info": {"a": "b"}}},
    "PullImage": {"message": {"imageRef": _ID}},
    "ImageFsInfo": {
        "message": {"imageFilesystems": [{"fsId": {"mountpoint": "/var/lib"}, "usedBytes": {"value": "1"}}]}
    },
}
_FAILED: Final = {"code": 2, "details": f"failed to pull: https://u:{MARKER}@registry.example/v2/: 401 Unauthorized"}
RUNTIMES: Final = (
    dump(RUNTIME),
    dump({**RUNTIME, "PullImage": _FAILED}),
    dump({**RUNTIME, "ImageStatus": {"code": 14, "details": "unavailable"}, "Version": {"code": 12, "details": "x"}}),
    dump({**RUNTIME, "ListImages": {"raw": "\x0a\x05hello"}, "ImageStatus": {"message": {}}}),
)


class _Runtime(Handler):
    def __init__(self) -> None:
        self.script: dict[str, Any] = {}

    def say(self, data: bytes) -> None:
        self.script = _script(data, RUNTIME)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        method = str(handler_call_details.method).rpartition("/")[2]

        async def respond(_request: bytes, context: Any) -> bytes:
            said = self.script.get(method)
            said = said if isinstance(said, dict) else {"raw": str(said)}
            code = said.get("code")
            if code is not None:
                codes = {known.value[0]: known for known in grpc.StatusCode if known is not grpc.StatusCode.OK}
                found = codes.get(_number(code, 2), grpc.StatusCode.UNKNOWN)
                await context.abort(found, str(said.get("details"))[:8000])
            return self._message(method, said)

        return grpc.unary_unary_rpc_method_handler(respond)

    def _message(self, method: str, said: Mapping[str, Any]) -> bytes:
        try:
            message = _MESSAGES[method]()
            json_format.ParseDict(said.get("message", {}), message, ignore_unknown_fields=True)
            return bytes(message.SerializeToString())
        except (json_format.ParseError, AttributeError, TypeError, ValueError):
            return str(said.get("raw")).encode("latin-1", "replace")


@asynccontextmanager
async def _runtime() -> AsyncIterator[AsyncFeed]:
    liar = _Runtime()
    async with runtime_behind(liar, liar.say) as feed:
        yield feed


# --- A node's stream of frames ----------------------------------------------------------------------------------------

_TEXTS: Final = (*FROM_NODE, encode_bytes(keepalive()), b"", b"{", b"\xff\xfe", b"\x03\xe8bye", b"x" * 70_000)
STREAMS: Final = (
    REQUEST + b"".join(frame_of(Opcode.TEXT, text) for text in FROM_NODE),
    REQUEST + frame_of(Opcode.TEXT, FROM_NODE[1][:40], fin=False) + frame_of(Opcode.CONT, FROM_NODE[1][40:])
    + frame_of(Opcode.PING, b"x") + frame_of(Opcode.CLOSE, b"\x03\xe8bye"),
)  # fmt: skip


def _stream(random: Random) -> bytes:
    """Frames of all kinds, in parts and in pieces, some of them wrong."""
    made = [REQUEST]
    for _ in range(random.randint(0, 8)):
        text = random.choice(_TEXTS) if random.randrange(3) else wronged(random, FROM_NODE)
        kind = random.choice(list(Opcode)) if random.randrange(3) == 0 else Opcode.TEXT
        frame = frame_of(kind, text, fin=random.randrange(6) > 0, mask=random.randrange(12) > 0)
        made.append(frame if random.randrange(6) else damaged(random, (frame[:300],)))
    if random.randrange(6) == 0:
        made.append(noise(random, 30))
    return b"".join(made)


@asynccontextmanager
async def _frames() -> AsyncIterator[AsyncFeed]:
    async def feed(data: bytes) -> None:
        """Read in any pieces, and by the long way byte by byte, it must come to the same."""
        random = Random(zlib.crc32(data))
        sizes = [random.randint(1, random.choice((3, 30, 3000))) for _ in range(random.randint(0, 20))]
        in_pieces = await outcome(NodeConnection, cut(data, sizes))
        assert MARKER not in str([heard for heard in in_pieces["heard"] if isinstance(heard, tuple)])
        if len(data) < 4000:
            assert in_pieces == await outcome(Plain, [data[at : at + 1] for at in range(len(data))])
        else:
            assert in_pieces == await outcome(Plain, [data])

    yield feed


# --- Who asks to join -------------------------------------------------------------------------------------------------

_CSR: Final = csr(node_subject("edge-1"), KEY)
JOINS: Final = tuple(
    dump({"method": method, "path": path, "headers": headers, "body": body})
    for method, path, headers, body in (
        ("GET", "/edge.crt", {"NodeName": "edge-1", "Authorization": "Bearer {token}", "ExtKeyUsages": "[2]"}, "{csr}"),
        ("POST", "/edge.crt", {"NodeName": "edge-1", "Authorization": "Bearer {token}"}, "{csr}"),
        ("GET", "/ca.crt", {}, ""),
    )
)  # fmt: skip


@asynccontextmanager
async def _join() -> AsyncIterator[AsyncFeed]:
    everyone = AcceptLimits(turn=20.0, running=200, running_per_address=200)
    limits = JoinLimits(accept=everyone, requests_per_second=1e6, request_burst=1_000_000)
    async with join(limits=limits) as j:
        token = j.tokens.issue(timedelta(hours=1), None).split(".", 1)[1]
        context = client_context(j.ca)

        async def feed(data: bytes) -> None:
            try:
                asked = from_json(data)
            except ValueError:
                return
            if isinstance(asked, dict):
                answer = await _ask(j.server.port, context, _request(asked, token))
                # 501 is the HTTP library's word for a Transfer-Encoding that it does not know.
                assert not answer.startswith(b"HTTP/1.1 500"), answer[:300]
                assert token.encode() not in answer
                assert len(answer) < 65_536

        yield feed


def _request(asked: Mapping[str, Any], token: str) -> bytes:
    body = str(asked.get("body", "")).encode("utf-8", "replace").replace(b"{csr}", _CSR)
    found = asked.get("headers")
    headers = {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
    lines = [
        f"{asked.get('method')} {asked.get('path')} HTTP/1.1", "Host: h", "Connection: close",
        f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items()),
    ]  # fmt: skip
    return "\r\n".join(lines).replace("{token}", token).encode("utf-8", "replace") + b"\r\n\r\n" + body


async def _ask(port: int, context: ssl.SSLContext, request: bytes) -> bytes:
    with suppress(OSError, ssl.SSLError, TimeoutError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            writer.write(request)
            # A request that waits for more of itself gets no answer.
            async with asyncio.timeout(1.0):
                return await reader.read()
        finally:
            writer.close()
    return b""


TARGETS: Final = (
    Target(
        name="registry", open=in_a_loop(_registry), samples=REGISTRIES, errors=(ImageRuntimeError,), cost=20
    ),
    Target(name="runtime", open=in_a_loop(_runtime), samples=RUNTIMES, errors=(ImageRuntimeError,), cost=10),
    Target(name="frames", open=in_a_loop(_frames), samples=STREAMS, make=_stream, documents=False, cost=10),
    Target(name="join", open=in_a_loop(_join), samples=JOINS, cost=40),
)  # fmt: skip
