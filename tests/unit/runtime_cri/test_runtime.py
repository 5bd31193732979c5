"""What CRIRuntime makes of a runtime's answers: CRI-O's forms, and answers that are no confirmation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from edgehub.runtime.base import (
    ImageNotFound,
    InvalidImage,
    NoSpace,
    PullDenied,
    RuntimeUnavailable,
    TransientPullError,
)
from edgehub.runtime.cri.runtime import CRIRuntime
from shared.wire import Credential
from tests.unit.runtime_cri.fake import FakeRuntime, image, serving

NAME = "registry.example:5000/team/app"
TAGGED = f"{NAME}:v1"
ID = "1" * 64
DIGEST = "sha256:" + "2" * 64
OTHER = "sha256:" + "3" * 64
CRIO_IMAGE = image(id=ID, digests=[f"{NAME}@{DIGEST}", f"{NAME}@{OTHER}"], tags=[TAGGED])
CREDENTIAL = Credential(registry="registry.example:5000", username="tiger", password="s3cret-word")


async def test_an_id_of_cri_o_gets_its_algorithm(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    fake.images[TAGGED] = CRIO_IMAGE
    record = await runtime.status(TAGGED)
    assert record is not None
    assert record.id == f"sha256:{ID}"
    assert [known.id for known in await runtime.list()] == [f"sha256:{ID}"]


@pytest.mark.parametrize("answer", [ID, f"sha256:{ID}", f"{NAME}@{DIGEST}", f"{NAME}@{OTHER}"])
async def test_each_form_of_pull_images_answer_is_a_confirmation(
    runtime: CRIRuntime, fake: FakeRuntime, answer: str
) -> None:
    fake.remote[TAGGED] = CRIO_IMAGE
    fake.pull_answers = lambda _: answer
    record = await runtime.pull(TAGGED, None)
    assert record.id == f"sha256:{ID}"
    assert record.digests == (f"{NAME}@{DIGEST}", f"{NAME}@{OTHER}")


async def test_another_id_than_the_pulled_one_is_no_confirmation(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    fake.remote[TAGGED] = CRIO_IMAGE
    fake.pull_answers = lambda _: "4" * 64
    with pytest.raises(TransientPullError, match="not confirmed"):
        await runtime.pull(TAGGED, None)


async def test_another_digest_than_the_asked_one_is_no_confirmation(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    asked = f"{NAME}@sha256:{'5' * 64}"
    fake.remote[asked] = CRIO_IMAGE
    with pytest.raises(TransientPullError, match="not confirmed"):
        await runtime.pull(asked, None)


async def test_an_image_that_is_gone_after_its_pull_is_no_success(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    fake.remote[TAGGED] = CRIO_IMAGE

    def forget(pulled: object) -> str:
        fake.images.clear()
        return ID

    fake.pull_answers = forget
    with pytest.raises(TransientPullError, match="no such image"):
        await runtime.pull(TAGGED, None)


async def test_an_image_without_any_digest_is_no_success(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    fake.remote[TAGGED] = image(id=ID, digests=[], tags=[TAGGED])
    with pytest.raises(TransientPullError, match="no id or no digest"):
        await runtime.pull(TAGGED, None)


async def test_a_tag_beside_a_digest_is_left_out(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    fake.remote[f"{NAME}@{DIGEST}"] = CRIO_IMAGE
    await runtime.pull(f"{TAGGED}@{DIGEST}", None)
    assert [pull.image.image for pull in fake.pulls] == [f"{NAME}@{DIGEST}"]


async def test_short_names_go_out_in_full(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    fake.remote["docker.io/library/nginx:latest"] = CRIO_IMAGE
    await runtime.pull("nginx", None)
    assert [pull.image.image for pull in fake.pulls] == ["docker.io/library/nginx:latest"]
    assert not fake.pulls[0].HasField("auth")


async def test_a_credential_names_the_host_it_is_for(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    fake.remote[TAGGED] = fake.remote["docker.io/team/app:latest"] = CRIO_IMAGE
    await runtime.pull(TAGGED, CREDENTIAL)
    await runtime.pull("team/app", CREDENTIAL)
    first, second = (pull.auth for pull in fake.pulls)
    assert (first.username, first.password) == ("tiger", "s3cret-word")
    assert first.server_address == "https://registry.example:5000"
    assert second.server_address == "https://registry-1.docker.io"


async def test_of_an_identity_token_only_the_token_goes_out(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    fake.remote[TAGGED] = CRIO_IMAGE
    token = Credential(registry="registry.example:5000", username="00000000-0000", identity_token="refresh-token")
    await runtime.pull(TAGGED, token)
    auth = fake.pulls[0].auth
    assert (auth.username, auth.password, auth.identity_token) == ("", "", "refresh-token")


async def test_failures_of_cri_o_come_out_by_class(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    for text, kind in (
        ("reading manifest v1 in registry.example:5000/team/app: manifest unknown", ImageNotFound),
        ("reading manifest v1 in registry.example:5000/team/app: authentication required", PullDenied),
        ('storing blob to file "/var/tmp/storage1/2": write: no space left on device', NoSpace),
        ("reading manifest v1 in registry.example:5000/team/app: received unexpected HTTP status: 502 Bad Gateway",
         TransientPullError),
    ):  # fmt: skip
        fake.pull_fails = (grpc.StatusCode.UNKNOWN, text)
        with pytest.raises(kind):
            await runtime.pull(TAGGED, CREDENTIAL)


async def test_no_secret_of_the_credential_comes_back_in_an_error(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    fake.pull_fails = (grpc.StatusCode.UNKNOWN, "GET https://tiger:s3cret-word@registry.example: unauthorized")
    with pytest.raises(PullDenied) as denied:
        await runtime.pull(TAGGED, CREDENTIAL)
    assert "s3cret-word" not in str(denied.value)
    assert denied.value.__context__ is None or denied.value.__suppress_context__


async def test_a_pull_that_the_runtime_cancels_is_no_cancellation_of_ours(
    runtime: CRIRuntime, fake: FakeRuntime
) -> None:
    fake.pull_fails = (grpc.StatusCode.CANCELLED, "failed to pull and unpack image: context canceled")
    with pytest.raises(TransientPullError, match="context canceled"):
        await runtime.pull(TAGGED, None)


async def test_cancelling_the_task_cancels_the_rpc(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    fake.pull_hangs = True
    pull = asyncio.create_task(runtime.pull(TAGGED, None))
    await asyncio.wait_for(fake.pull_started.wait(), 5)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    await asyncio.wait_for(fake.pull_cancelled.wait(), 5)


async def test_the_first_absolute_mountpoint_is_the_filesystem(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    assert await runtime.filesystem() is None
    fake.filesystems = ["", "relative", "/var/lib/containers/storage/overlay-images", "/other"]
    assert await runtime.filesystem() == Path("/var/lib/containers/storage/overlay-images")


@pytest.mark.parametrize("name", ["a b", "100%20", "what?", "#1"])
async def test_any_path_of_a_socket_will_do(socket: Path, name: str) -> None:
    runtime = CRIRuntime(socket=socket.with_name(name))
    async with serving(FakeRuntime(), socket.with_name(name)):
        await runtime.version()
        await runtime.close()


async def test_no_socket_is_told_in_the_systems_words(runtime: CRIRuntime, socket: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=rf"unix://{socket} does not answer: No such file or directory"):
        await runtime.version()


async def test_a_socket_that_is_no_socket_is_told(runtime: CRIRuntime, socket: Path) -> None:
    socket.write_text("")  # noqa: ASYNC240 - a moment, in a test
    with pytest.raises(RuntimeUnavailable, match="Connection refused"):
        await runtime.version()


async def test_a_socket_that_speaks_no_grpc_is_told_after_the_connect_timeout(socket: Path) -> None:
    server = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), socket)
    runtime = CRIRuntime(socket=socket, connect_timeout=0.3)
    with pytest.raises(RuntimeUnavailable, match="no gRPC"):
        await runtime.version()
    await runtime.close()
    server.close()
    await server.wait_closed()


async def test_a_runtime_without_its_cri_plugin_is_told_what_to_look_at(runtime: CRIRuntime, socket: Path) -> None:
    async with serving(FakeRuntime(), socket, services=False):
        with pytest.raises(RuntimeUnavailable, match="cri plugin disabled"):
            await runtime.version()
        with pytest.raises(RuntimeUnavailable, match="cri plugin disabled"):
            await runtime.pull(TAGGED, None)


async def test_a_runtime_that_still_starts_is_worth_another_try(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    starting = (grpc.StatusCode.UNKNOWN, "server is not initialized yet")
    fake.pull_fails = fake.query_fails = starting
    with pytest.raises(RuntimeUnavailable, match="not initialized"):
        await runtime.version()
    with pytest.raises(RuntimeUnavailable, match="not initialized"):
        await runtime.pull(TAGGED, None)


async def test_one_runtime_is_met_again_after_any_number_of_failures(runtime: CRIRuntime, socket: Path) -> None:
    for _ in range(30):
        with pytest.raises(RuntimeUnavailable):
            await runtime.version()
    async with serving(FakeRuntime(), socket):
        assert str(await runtime.version()) == "cri-o 1.30.4"
    with pytest.raises(RuntimeUnavailable):
        await runtime.version()
    async with serving(FakeRuntime(), socket):
        await runtime.version()


async def test_a_runtime_that_was_away_for_seconds_is_met_at_the_first_call_all_the_same(socket: Path) -> None:
    """gRPC's own backoff would wait some seconds now, after minutes two minutes."""
    runtime = CRIRuntime(socket=socket, connect_timeout=1.5)
    away_until = asyncio.get_running_loop().time() + 3.3
    while asyncio.get_running_loop().time() < away_until:
        with pytest.raises(RuntimeUnavailable):
            await runtime.version()
        await asyncio.sleep(0.05)
    async with serving(FakeRuntime(), socket):
        await runtime.version()
        await runtime.close()


async def test_the_authority_is_localhost_since_go_refuses_a_path_as_host(socket: Path) -> None:
    settings = bytes(3) + b"\x04" + bytes(5)
    sent, writers, complete = bytearray(), list[asyncio.StreamWriter](), asyncio.Event()

    async def http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(settings)
        while b"RuntimeService/Version" not in sent and (chunk := await reader.read(65536)):
            sent.extend(chunk)
        if b"RuntimeService/Version" in sent:
            complete.set()

    server = await asyncio.start_unix_server(http2, socket)
    runtime = CRIRuntime(socket=socket)
    call = asyncio.create_task(runtime.version())
    await asyncio.wait_for(complete.wait(), 5)
    for writer in writers:
        writer.close()
    with pytest.raises(RuntimeUnavailable):
        await call
    await runtime.close()
    server.close()
    await server.wait_closed()
    assert b"localhost" in sent
    assert str(socket).encode() not in sent
    assert b"%2F" not in sent.upper()


async def test_closing_twice_and_before_any_call_is_fine(socket: Path) -> None:
    runtime = CRIRuntime(socket=socket)
    await runtime.close()
    await runtime.close()


async def test_a_malformed_reference_never_reaches_the_runtime(runtime: CRIRuntime, fake: FakeRuntime) -> None:
    with pytest.raises(InvalidImage):
        await runtime.pull("UPPER CASE", None)
    assert fake.pulls == []


async def test_an_answer_that_is_no_message_of_cri_is_a_clear_error(socket: Path) -> None:
    async def respond(_request: bytes, _context: Any) -> bytes:
        return b"\x0a\xff\xff"

    handlers = {name: grpc.unary_unary_rpc_method_handler(respond) for name in ("ListImages", "PullImage")}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("runtime.v1.ImageService", handlers),))
    server.add_insecure_port(f"unix://{socket}")
    await server.start()
    runtime = CRIRuntime(socket=socket)
    with pytest.raises(RuntimeUnavailable, match="no message of CRI"):
        await runtime.list()
    with pytest.raises(TransientPullError, match="no message of CRI"):
        await runtime.pull("registry.example/a:v1", None)
    await runtime.close()
    await server.stop(None)
