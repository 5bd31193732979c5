"""A container runtime that answers with anything: an error of its kind, never a success that was not confirmed."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio

from edgehub.runtime.base import ImageRuntimeError
from edgehub.runtime.cri import api_pb2 as cri
from edgehub.runtime.cri.runtime import CRIRuntime
from shared.wire import Credential
from tests.fuzz.mutate import SECRET, spoiled
from tests.fuzz.runs import drawn, ran, slow_fuzzing

DIGEST = "sha256:" + "1" * 64
IMAGE = f"registry.example/app@{DIGEST}"
_HELD = cri.Image(id="sha256:" + "2" * 64, repo_digests=[f"registry.example/app@sha256:{'3' * 64}"], size=10)
ANSWERS = {
    "Version": cri.VersionResponse(version="0.1.0", runtime_name="cri-o", runtime_version="1.30.4"),
    "ListImages": cri.ListImagesResponse(images=[_HELD]),
    "ImageStatus": cri.ImageStatusResponse(image=_HELD),
    "PullImage": cri.PullImageResponse(image_ref=_HELD.id),
    "ImageFsInfo": cri.ImageFsInfoResponse(
        image_filesystems=[cri.FilesystemUsage(fs_id=cri.FilesystemIdentifier(mountpoint="/"))]
    ),
}
LONG = {
    "ImageStatus": [
        cri.ImageStatusResponse(image=cri.Image(id=text, repo_digests=[text, f"a@{text}"])).SerializeToString()
        for text in ("x" * 100_000, "a\nb\x1b[31m", "\u202e" * 1000)
    ],
    "PullImage": [cri.PullImageResponse(image_ref="x" * 100_000).SerializeToString()],
}


async def test_whatever_the_runtime_answers_nothing_false_is_believed() -> None:
    answers = {name: answer.SerializeToString() for name, answer in ANSWERS.items()}
    with tempfile.TemporaryDirectory(prefix="cri-", dir="/tmp") as folder:
        socket = Path(folder) / "s"
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(_handlers(answers))
        server.add_insecure_port(f"unix://{quote(str(socket))}")
        await server.start()
        runtime = CRIRuntime(socket=socket)
        sound = dict(answers)
        try:
            for name in ANSWERS:
                for data in [*drawn(spoiled(sound[name]), slow_fuzzing), *LONG.get(name, ())]:
                    answers |= sound | {name: data}
                    await _ask(runtime)
        finally:
            await runtime.close()
            await server.stop(None)


async def _ask(runtime: CRIRuntime) -> None:
    credential = Credential(registry="registry.example", username="tiger", password=SECRET)
    questions: tuple[Callable[[], Awaitable[Any]], ...] = (
        runtime.version,
        runtime.list,
        partial(runtime.status, IMAGE),
        runtime.filesystem,
    )
    for question in questions:
        await _refusal(question())
    said = await _refusal(runtime.pull(IMAGE, credential))
    assert said is not None, "the image asked for has another digest than any that is held"


async def _refusal(answer: Awaitable[Any]) -> str | None:
    """What is said of the answer. Any other exception than the runtime's own is the test's failure."""
    said: str | None = None
    try:
        await answer
    except ImageRuntimeError as error:
        said = str(error)
    ran("container runtime", refused=said is not None)
    if said is not None:
        assert len(said) < 2048
        assert said.isprintable()
        assert SECRET not in said
    return said


def _handlers(answers: dict[str, bytes]) -> tuple[grpc.GenericRpcHandler[Any, Any], ...]:
    def method(name: str) -> Any:
        async def behaviour(request: bytes, context: Any) -> bytes:
            return answers[name]

        return grpc.unary_unary_rpc_method_handler(behaviour)

    return (
        grpc.method_handlers_generic_handler("runtime.v1.RuntimeService", {"Version": method("Version")}),
        grpc.method_handlers_generic_handler(
            "runtime.v1.ImageService", {name: method(name) for name in ANSWERS if name != "Version"}
        ),
    )
