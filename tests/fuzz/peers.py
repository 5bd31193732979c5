"""Peers that lie, over real connections or through the product's own loops: the Kubernetes API, the container runtime,
the registry."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import grpc.aio
from pydantic_core import from_json

from cloudhub.kube.client import KubeClient
from cloudhub.kube.informer import Informer
from cloudhub.kube.jobs import JobInformer
from cloudhub.kube.nodes import NodeInformer
from cloudhub.kube.secrets import secret_object
from cloudhub.taskmanager.ports import KubeError, Unavailable
from edgehub.runtime.base import ImageRuntimeError
from edgehub.runtime.cri import api_pb2 as cri
from edgehub.runtime.cri.runtime import CRIRuntime
from edgehub.runtime.oci import BuiltinStore, StoreSettings
from edgehub.runtime.oci.platforms import Platform
from shared.wire import Credential
from tests.fuzz.parsers import DOCKER_CONFIGS, SPECS, dump
from tests.fuzz.target import MARKER, Feed, Target, pure
from tests.unit.runtime_oci.images import image

WITHIN: Final = 30.0
"""Seconds for one input, on a machine that does other things too; what takes longer hangs."""

AsyncFeed = Callable[[bytes], Awaitable[None]]


def in_a_loop(open_async: Callable[[], Any]) -> Callable[[], AbstractContextManager[Feed]]:
    """``open`` of a target that needs an event loop: one loop for all of its inputs."""

    @contextmanager
    def opened() -> Iterator[Feed]:
        with asyncio.Runner() as runner:
            context = open_async()
            feed: AsyncFeed = runner.run(context.__aenter__())

            async def bounded(data: bytes) -> None:
                async with asyncio.timeout(WITHIN):
                    await feed(data)

            try:
                yield lambda data: runner.run(bounded(data))
            finally:
                runner.run(context.__aexit__(None, None, None))

    return opened


# --- The Kubernetes API -----------------------------------------------------------------------------------------------

_JOB: Final = {
    "metadata": {"name": "job-1", "uid": "u-1", "resourceVersion": "8", "generation": 1, "creationTimestamp": "x"},
    "spec": from_json(SPECS[0]),
    "status": {"state": "Pulling", "counts": {"total": 2}, "status": []},
}
_NODE: Final = {
    "metadata": {
        "name": "edge-1", "resourceVersion": "9", "labels": {"node-role.kubernetes.io/edge": ""},
        "annotations": {"cloudhub.kubeedge.io/managed": "true"},
    },
    "status": {"nodeInfo": {"kubeletVersion": "v1.31.0-kubeedge-v1.23.1"},
               "conditions": [{"type": "Ready", "status": "True"}]},
}  # fmt: skip
_SECRET: Final = {
    "metadata": {"name": "s"}, "type": "kubernetes.io/dockerconfigjson",
    "data": {".dockerconfigjson": "e30="}, "note": MARKER,
}  # fmt: skip
LISTS: Final = tuple(dump({"metadata": {"resourceVersion": "10"}, "items": [item]}) for item in (_JOB, _NODE))
EVENTS: Final = (
    dump({"type": "ADDED", "object": _JOB}),
    dump({"type": "DELETED", "object": _NODE}),
    dump({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "12"}}}),
    dump({"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}),
)


class _Enough(BaseException):
    """The informer waits before it goes on: it has taken, or refused, what it was given."""


class _LyingAPI:
    """As `KubeClient`, with answers that were read from no socket."""

    def __init__(self, page: bytes, line: bytes | None) -> None:
        self._page = page
        self._line = line

    async def request(self, method: str, path: str, **_: Any) -> dict[str, Any]:
        try:
            document = from_json(self._page)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise Unavailable(f"{method} {path}: the answer is no JSON object")
        return document

    @asynccontextmanager
    async def stream(self, path: str, **_: Any) -> AsyncIterator[AsyncIterator[bytes]]:
        async def lines() -> AsyncIterator[bytes]:
            for line in (self._line or b"").split(b"\n"):
                if line:
                    yield line

        yield lines()


async def _informed(page: bytes, line: bytes | None) -> None:
    for kind in (JobInformer, NodeInformer):
        told: list[str] = []
        informer = cast(
            "Informer[Any]", kind(client=cast(KubeClient, _LyingAPI(page, line)), sleep=_no_more)
        )  # fmt: skip
        informer.on_change(told.append)
        with suppress(_Enough):
            await informer.run()
        problem = informer.check(after=-1.0) or ""
        assert len(problem) < 1024
        assert all(isinstance(name, str) for name in told)


async def _no_more(_: float) -> None:
    raise _Enough


def _paged_for_ever(page: bytes) -> bool:
    """A server that says 'there is more' to every question: each page is asked for anew, by design."""
    try:
        document = from_json(page)
    except ValueError:
        return False
    about = document.get("metadata") if isinstance(document, dict) else None
    return isinstance(about, dict) and bool(about.get("continue"))


@asynccontextmanager
async def _api_list() -> AsyncIterator[AsyncFeed]:
    async def feed(data: bytes) -> None:
        if not _paged_for_ever(data):
            await _informed(data, None)

    yield feed


@asynccontextmanager
async def _api_watch() -> AsyncIterator[AsyncFeed]:
    async def feed(data: bytes) -> None:
        await _informed(LISTS[0], data)

    yield feed


def _secret(data: bytes) -> None:
    try:
        item = from_json(data)
    except ValueError:
        return
    if isinstance(item, Mapping):
        secret_object(item, "default/s")


# --- The container runtime --------------------------------------------------------------------------------------------

IMAGE_NAME: Final = "registry.example/team/app:v1"
_ID: Final = "sha256:" + "1" * 64
_HELD: Final = cri.Image(id=_ID, repo_tags=[IMAGE_NAME], repo_digests=[f"registry.example/team/app@{_ID}"], size=7)
CRI_ANSWERS: Final = tuple(
    answer.SerializeToString()
    for answer in (
        cri.VersionResponse(version="0.1.0", runtime_name="containerd", runtime_version="1.7"),
        cri.ImageStatusResponse(image=_HELD),
        cri.ListImagesResponse(images=[_HELD, _HELD]),
        cri.PullImageResponse(image_ref=_ID),
        cri.ImageFsInfoResponse(
            image_filesystems=[cri.FilesystemUsage(fs_id=cri.FilesystemIdentifier(mountpoint="/var/lib"))]
        ),
    )
)
_CREDENTIAL: Final = Credential(registry="registry.example", username="u", password=MARKER)


if TYPE_CHECKING:
    Handler = grpc.GenericRpcHandler[Any, Any]
else:
    Handler = grpc.GenericRpcHandler  # generic in its stubs alone


class _AnyMethod(Handler):
    """Answers every call with the same bytes."""

    def __init__(self) -> None:
        self.answer = b""

    def say(self, answer: bytes) -> None:
        self.answer = answer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        async def respond(_request: bytes, _context: Any) -> bytes:
            return self.answer

        return grpc.unary_unary_rpc_method_handler(respond)


@asynccontextmanager
async def runtime_behind(handler: Handler, say: Callable[[bytes], None]) -> AsyncIterator[AsyncFeed]:
    """The agent before a container runtime that is ``handler``, which ``say`` tells of each input first."""
    folder = tempfile.mkdtemp(prefix="cri-", dir="/tmp")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix://{folder}/s")
    await server.start()
    runtime = CRIRuntime(socket=Path(folder, "s"))

    async def feed(data: bytes) -> None:
        say(data)
        refused: ImageRuntimeError | None = None
        for ask in (
            runtime.version,
            runtime.list,
            lambda: runtime.status(IMAGE_NAME),
            runtime.filesystem,
            lambda: runtime.pull(IMAGE_NAME, _CREDENTIAL),  # last: it alone has a secret to tell
        ):
            try:
                await ask()
            except ImageRuntimeError as error:
                refused = error
                if MARKER in str(error):
                    raise
        if refused is not None:
            raise refused

    try:
        yield feed
    finally:
        await runtime.close()
        await server.stop(None)
        shutil.rmtree(folder)


@asynccontextmanager
async def _runtime() -> AsyncIterator[AsyncFeed]:
    liar = _AnyMethod()
    async with runtime_behind(liar, liar.say) as feed:
        yield feed


# --- The registry -----------------------------------------------------------------------------------------------------

_SERVED: Final = image(b"layer")


def _response(status: str, body: bytes, **headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body)}",
        *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


ANSWERS: Final = (
    _response("200 OK", _SERVED.content, Content_Type=_SERVED.media_type, Docker_Content_Digest=_SERVED.digest),
    _response("401 Unauthorized", b"{}", WWW_Authenticate='Bearer realm="http://127.0.0.1/token",service="r"'),
    _response("200 OK", dump({"token": "abc", "expires_in": 60})),
    _response("307 Temporary Redirect", b"", Location="http://127.0.0.1:1/x?sig=1"),
    _response("429 Too Many Requests", dump({"errors": [{"code": "TOOMANYREQUESTS", "message": ""}]}), Retry_After="1"),
    _response("200 OK", b"layer", Content_Range="bytes 0-4/5", ETag="x"),
)  # fmt: skip


async def answer_once(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Callable[[str], bytes]
) -> None:
    """Reads the head of one request, writes the answer to it, and closes the connection."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        writer.write(answer(head))
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def _registry() -> AsyncIterator[AsyncFeed]:
    """Every request is answered with the same bytes, whatever HTTP they are, and the connection closed."""
    answer = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_once(reader, writer, lambda _head: answer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="images-"))
    store = BuiltinStore(
        folder, settings=StoreSettings(idle_timeout=2.0, request_timeout=4.0), platform=Platform("linux", "amd64"),
        sleep=_at_once,
    )  # fmt: skip

    async def feed(data: bytes) -> None:
        nonlocal answer
        answer = data
        await store.pull(f"127.0.0.1:{port}/team/app:v1", _CREDENTIAL)

    try:
        yield feed
    finally:
        await store.close()
        server.close()
        await server.wait_closed()
        shutil.rmtree(folder)


async def _at_once(_: float) -> None:
    return


TARGETS: Final = (
    Target(name="api-list", open=in_a_loop(_api_list), samples=LISTS, errors=(KubeError,), cost=2),
    Target(name="api-watch", open=in_a_loop(_api_watch), samples=EVENTS, errors=(KubeError,), cost=2),
    Target(name="api-secret", open=pure(_secret), samples=(dump(_SECRET), DOCKER_CONFIGS[0]), errors=(KubeError,)),
    Target(
        name="container-runtime", open=in_a_loop(_runtime), samples=CRI_ANSWERS, errors=(ImageRuntimeError,),
        documents=False, cost=5,
    ),
    Target(
        name="registry-http", open=in_a_loop(_registry), samples=ANSWERS, errors=(ImageRuntimeError,), documents=False,
        cost=5,
    ),
)  # fmt: skip
