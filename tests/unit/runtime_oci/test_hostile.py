"""Registries that lie, break, hang or are no registries: each is an error of the right class, soon, with a clear text,
and nothing wrong gets into the layout."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edgehub.runtime.base import ImageNotFound, InvalidImage, PullDenied, PullError, TransientPullError
from edgehub.runtime.oci import BuiltinStore
from shared.wire import Credential
from tests.unit.runtime_oci.conftest import HASTY, MakeStore
from tests.unit.runtime_oci.images import CONFIG_TYPE, descriptor, dump, image, index
from tests.unit.runtime_oci.registry import Answer, BadRegistry, body, redirect, status

LAYER = bytes(range(256)) * 4096
CREDENTIAL = Credential(registry="r", username="tiger", password="pass1234")


def size_of_ingest(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / "ingest").iterdir())


def no_blobs(root: Path) -> bool:
    return not list(root.glob("blobs/*/*"))


async def pull(store: BuiltinStore, registry: BadRegistry) -> PullError:
    """The error that pulling from this registry ends in."""
    with pytest.raises(PullError) as caught:
        await store.pull(f"{registry.address}/team/app", CREDENTIAL)
    assert "pass1234" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert await store.status(f"{registry.address}/team/app") is None
    return caught.value


# --- Answers by status ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (401, PullDenied),
        (403, PullDenied),
        (404, ImageNotFound),
        (408, TransientPullError),
        (429, TransientPullError),
        (500, TransientPullError),
        (502, TransientPullError),
        (503, TransientPullError),
        (400, InvalidImage),
        (405, InvalidImage),
        (451, InvalidImage),
        (204, InvalidImage),
        (304, InvalidImage),
    ],
)
@pytest.mark.parametrize("part", ["manifest", "blob"])
async def test_each_status_is_an_error_of_its_class(
    registry: BadRegistry, store: BuiltinStore, code: int, kind: type[PullError], part: str
) -> None:
    one = image(LAYER)
    registry.add(one)
    registry.answers["/manifests/latest" if part == "manifest" else one.layers[0]] = status(code)
    error = await pull(store, registry)
    assert type(error) is kind
    assert registry.address in str(error)


@pytest.mark.parametrize("code", [429, 503])
async def test_how_long_a_busy_registry_wants_to_be_left_alone_is_on_the_error(
    registry: BadRegistry, store: BuiltinStore, code: int
) -> None:
    registry.answers["/manifests/latest"] = status(code, Retry_After="17")
    error = await pull(store, registry)
    assert isinstance(error, TransientPullError)
    assert error.retry_after == 17.0


# --- Hanging and endless --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["manifest", "config", "layer", "body"])
async def test_a_registry_that_hangs_is_given_up(registry: BadRegistry, make_store: MakeStore, part: str) -> None:
    one = image(LAYER)
    registry.add(one)
    path = {"manifest": "/manifests/latest", "config": one.id}.get(part, one.layers[0])
    stall = registry.once(registry.stall_after(1000), then=registry.hang)
    registry.answers[path] = stall if part == "body" else registry.hang
    assert isinstance(await pull(make_store(settings=HASTY), registry), TransientPullError)


async def test_a_manifest_that_comes_drop_by_drop_is_given_up(registry: BadRegistry, make_store: MakeStore) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    registry.answers["/manifests/latest"] = drip
    error = await pull(make_store(settings=HASTY), registry)
    assert isinstance(error, TransientPullError)
    assert "in time" in str(error)


async def test_a_connection_that_is_cut_before_an_answer_is_transient(
    registry: BadRegistry, store: BuiltinStore
) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    registry.answers["/manifests/latest"] = cut
    assert isinstance(await pull(store, registry), TransientPullError)


async def test_nobody_at_the_address_is_transient(store: BuiltinStore, registry: BadRegistry) -> None:
    async with BadRegistry() as gone:
        pass
    error = await pull(store, gone)
    assert isinstance(error, TransientPullError)
    assert f"no connection to {gone.address}: connection refused" in str(error).lower()


async def test_what_speaks_no_http_is_transient(store: BuiltinStore) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TransientPullError, match="does not speak HTTP as we do"):
            await store.pull(f"127.0.0.1:{port}/app", None)


@pytest.mark.parametrize("endless", ["manifest", "layer", "config"])
async def test_an_endless_body_is_cut_off(registry: BadRegistry, store: BuiltinStore, root: Path, endless: str) -> None:
    one = image(LAYER)
    registry.add(one)
    path = {"manifest": "/manifests/latest", "layer": one.layers[0], "config": one.id}[endless]
    registry.answers[path] = registry.endless
    error = await pull(store, registry)
    assert "more than" in str(error)
    assert size_of_ingest(root) <= len(LAYER)


@pytest.mark.parametrize("length", [True, False])
async def test_a_giant_manifest_is_refused(registry: BadRegistry, store: BuiltinStore, length: bool) -> None:
    huge = b'{"schemaVersion": 2, "x": "' + b"x" * (5 << 20) + b'"}'

    async def chunked(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(huge), 65536):
            await response.write(huge[start : start + 65536])
        return response

    registry.answers["/manifests/latest"] = body(huge) if length else chunked
    error = await pull(store, registry)
    assert isinstance(error, InvalidImage)
    assert "more than 4194304" in str(error)


# --- Bytes that are not those of their digest -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [LAYER[:-1] + b"?", LAYER[:-1], LAYER + b"!", b""],
    ids=["corrupt", "short", "long", "empty"],
)
async def test_a_blob_with_other_bytes_is_refused_and_fetched_anew_next_time(
    registry: BadRegistry, store: BuiltinStore, root: Path, wrong: bytes
) -> None:
    one = image(LAYER)
    registry.add(one)
    registry.answers[one.layers[0]] = body(wrong)
    error = await pull(store, registry)
    assert isinstance(error, TransientPullError)
    assert not (root / "blobs" / one.layers[0].replace(":", "/")).exists()
    registry.answers.clear()
    assert (await store.pull(f"{registry.address}/team/app", None)).id == one.id


async def test_a_blob_of_unknown_length_that_ends_early_is_interrupted(
    registry: BadRegistry, store: BuiltinStore
) -> None:
    async def short(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(LAYER[:1000])
        return response

    one = image(LAYER)
    registry.add(one)
    registry.answers[one.layers[0]] = registry.once(short, then=status(500))
    assert isinstance(await pull(store, registry), TransientPullError)
    registry.answers.clear()
    assert (await store.pull(f"{registry.address}/team/app", None)).id == one.id


@pytest.mark.parametrize(
    "content_range",
    ["bytes 0-9/10", "bytes 5-{last}/{size}", "bytes {at}-{last}/7", "nonsense", "", "bytes 99999999999999999999-1/*"],
)
async def test_a_wrong_answer_to_a_range_is_not_used(
    registry: BadRegistry, store: BuiltinStore, content_range: str
) -> None:
    one = image(LAYER)
    registry.add(one)
    at, size = 1000, len(LAYER)

    async def wrong(request: web.Request) -> web.StreamResponse:
        if "Range" not in request.headers:
            return await registry.serve(request)
        text = content_range.format(at=at, last=size - 1, size=size)
        return web.Response(status=206, body=b"wrong", headers={"Content-Range": text})

    registry.answers[one.layers[0]] = registry.once(registry.broken_after(at), then=wrong)
    assert (await store.pull(f"{registry.address}/team/app", None)).id == one.id


async def test_a_range_that_the_registry_cannot_satisfy_is_read_from_the_start(
    registry: BadRegistry, store: BuiltinStore
) -> None:
    one = image(LAYER)
    registry.add(one)

    async def refuse(request: web.Request) -> web.StreamResponse:
        return await (status(416) if "Range" in request.headers else registry.serve)(request)

    registry.answers[one.layers[0]] = registry.once(registry.broken_after(1000), then=refuse)
    assert (await store.pull(f"{registry.address}/team/app", None)).id == one.id


async def test_a_partial_answer_to_a_whole_request_is_refused(registry: BadRegistry, store: BuiltinStore) -> None:
    one = image(LAYER)
    registry.add(one)

    async def partial(_: web.Request) -> web.StreamResponse:
        return web.Response(status=206, body=LAYER[:10], headers={"Content-Range": f"bytes 0-9/{len(LAYER)}"})

    registry.answers[one.layers[0]] = partial
    assert "206" in str(await pull(store, registry))


async def test_a_manifest_that_is_not_the_one_of_its_digest_is_refused(
    registry: BadRegistry, store: BuiltinStore
) -> None:
    one, other = image(b"one"), image(b"other")
    registry.add(other)
    registry.manifests[one.digest] = other.content, other.media_type
    with pytest.raises(TransientPullError, match="not the one of its digest"):
        await store.pull(f"{registry.address}/app@{one.digest}", None)


async def test_a_manifest_that_is_not_the_one_that_the_registry_names_is_refused(
    registry: BadRegistry, store: BuiltinStore
) -> None:
    one = image()
    registry.answers["/manifests/latest"] = body(
        one.content, one.media_type, Docker_Content_Digest="sha256:" + "0" * 64
    )
    assert "not the one of its digest" in str(await pull(store, registry))


async def test_a_child_of_an_index_of_another_size_is_refused(registry: BadRegistry, store: BuiltinStore) -> None:
    one = image()
    many = json.loads(index([({"os": "linux", "architecture": "amd64"}, one)]).content)
    many["manifests"][0]["size"] += 1
    registry.add(one)
    registry.manifests["latest"] = dump(many), many["mediaType"]
    assert isinstance(await pull(store, registry), TransientPullError)


# --- Documents that are no image ------------------------------------------------------------------------------------

SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"
GOOD = json.loads(image(LAYER).content)


def changed(**keys: Any) -> bytes:
    return dump({key: value for key, value in {**GOOD, **keys}.items() if value is not None})


@pytest.mark.parametrize(
    ("content", "media_type", "word"),
    [
        (b"<html>Please log in</html>", "text/html", "malformed"),
        (b"[]", "", "malformed"),
        (b"[" * 100_000, "", "malformed"),
        (b"\xff", "", "malformed"),
        (b"{}", "application/json", "no manifest"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "application/vnd.docker.distribution.manifest.v1+json", "schema 1"),
        (
            b'{"schemaVersion": 1, "fsLayers": []}',
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "schema 1",
        ),
        (b'{"schemaVersion": 1, "fsLayers": []}', "text/plain", "schema 1"),
        (changed(mediaType="application/vnd.example+json"), "", "is no image"),
        (changed(), "application/vnd.oci.image.index.v1+json", "says that it is"),
        (changed(manifests=[]), "", "both an index and an image"),
        (changed(config=None), "", "lacks the key"),
        (changed(layers=None), "", "lacks the key"),
        (changed(layers=[{"digest": "sha256:../../../../etc/passwd", "size": 1}]), "", "no sha256 or sha512 digest"),
        (changed(layers=[{"digest": "md5:" + "0" * 32, "size": 1}]), "", "no sha256 or sha512 digest"),
        (changed(layers=[{"digest": "sha256:" + "0" * 64, "size": -1}]), "", "size"),
        (changed(layers=[{"digest": "sha256:" + "0" * 64, "size": 1 << 60}]), "", "size"),
        (changed(layers=[{"digest": "sha256:" + "0" * 64, "size": "1"}]), "", "size"),
        (changed(layers=[{"digest": "sha256:" + "0" * 64, "size": 1.5}]), "", "size"),
        (changed(layers=[{"digest": "sha256:" + "0" * 64}]), "", "size"),
        (changed(layers=[descriptor(b"x")] * 1001), "", "1000"),
        (changed(layers=[descriptor(b"x"), {**descriptor(b"x"), "size": 2}]), "", "two sizes"),
        (changed(config={**GOOD["config"], "size": 9 << 20}), "", "config has 9437184 bytes"),
    ],
)
async def test_a_document_that_is_no_image_is_invalid(
    registry: BadRegistry, store: BuiltinStore, root: Path, content: bytes, media_type: str, word: str
) -> None:
    registry.add(image(LAYER))
    registry.answers["/manifests/latest"] = body(content, media_type or GOOD["mediaType"])
    error = await pull(store, registry)
    assert isinstance(error, InvalidImage)
    assert word in str(error)
    assert registry.paths("/blobs/") == []
    assert no_blobs(root)


@pytest.mark.parametrize(
    "config",
    [
        b"{}",
        b"[]",
        b"no json",
        dump({"architecture": "amd64", "os": "linux"}),
        dump({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}),
        dump({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ["x"]}}),
        dump({"name": "chart", "version": "1.0.0"}),
    ],
)
async def test_a_chart_or_another_thing_is_told_from_an_image_before_its_layers_are_fetched(
    registry: BadRegistry, store: BuiltinStore, config: bytes
) -> None:
    one = image(LAYER, manifest={"config": descriptor(config, CONFIG_TYPE)})
    registry.add(one)
    registry.blobs[descriptor(config)["digest"]] = config
    error = await pull(store, registry)
    assert isinstance(error, InvalidImage)
    assert registry.paths(descriptor(LAYER)["digest"]) == []


async def test_a_large_layer_needs_little_memory(registry: BadRegistry, store: BuiltinStore) -> None:
    layer = bytes(24 << 20)
    registry.add(image(layer))
    one = f"{registry.address}/app"

    # The registry of this test shares the process, and what it sends is buffered there: it is asked to send little.
    async def slices(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(layer)
        await response.prepare(request)
        view = memoryview(layer)
        for start in range(0, len(layer), 65536):
            await response.write(view[start : start + 65536])
        return response

    registry.answers[descriptor(layer)["digest"]] = slices
    tracemalloc.start()
    try:
        await store.pull(one, None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


# --- Redirects ------------------------------------------------------------------------------------------------------


async def test_a_blob_behind_a_redirect_to_another_host_is_fetched_without_the_credential(
    registry: BadRegistry, elsewhere: BadRegistry, store: BuiltinStore
) -> None:
    one = image(LAYER)
    registry.add(one)
    elsewhere.add(one)
    basic = status(401, WWW_Authenticate='Basic realm="x"')

    def guarded(answer: Answer) -> Answer:
        async def respond(request: web.Request) -> web.StreamResponse:
            return await (answer if "Authorization" in request.headers else basic)(request)

        return respond

    target = f"{elsewhere.url}/v2/x/blobs/{one.layers[0]}?signature=a%2Fb%3D"
    registry.answers = {one.layers[0]: guarded(redirect(target)), "": guarded(registry.serve)}
    await store.pull(f"{registry.address}/team/app", CREDENTIAL)
    assert [seen.authorization for seen in elsewhere.seen] == [None]
    assert elsewhere.seen[0].query == "signature=a%2Fb%3D"
    assert any(seen.authorization for seen in registry.seen)


async def test_a_redirect_to_the_same_host_keeps_the_credential(registry: BadRegistry, store: BuiltinStore) -> None:
    one = image(LAYER)
    registry.add(one)

    async def guarded(request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return await status(401, WWW_Authenticate='Basic realm="x"')(request)
        if "elsewhere" not in request.path:
            return await redirect(f"/v2/elsewhere/blobs/{one.layers[0]}")(request)
        return await registry.serve(request)

    registry.answers[one.layers[0]] = guarded
    await store.pull(f"{registry.address}/team/app", CREDENTIAL)
    assert registry.seen[-1].authorization is not None


async def test_a_user_in_a_redirects_address_is_dropped(
    registry: BadRegistry, elsewhere: BadRegistry, store: BuiltinStore
) -> None:
    one = image(LAYER)
    registry.add(one)
    elsewhere.add(one)
    registry.answers[one.layers[0]] = redirect(f"http://a:b@{elsewhere.address}/v2/x/blobs/{one.layers[0]}")
    await store.pull(f"{registry.address}/team/app", None)
    assert [seen.authorization for seen in elsewhere.seen] == [None]


async def test_redirects_in_a_circle_end(registry: BadRegistry, store: BuiltinStore) -> None:
    registry.answers["/manifests/latest"] = redirect("/v2/team/app/manifests/latest")
    error = await pull(store, registry)
    assert isinstance(error, TransientPullError)
    assert "redirects more than 5 times" in str(error)
    assert len(registry.seen) == 6


@pytest.mark.parametrize("target", ["", "http://[::1", "ftp://127.0.0.1/x", "http://registry.example/secret?sig=1"])
async def test_a_redirect_to_where_we_must_not_go_is_not_followed(
    registry: BadRegistry, store: BuiltinStore, target: str
) -> None:
    registry.answers["/manifests/latest"] = redirect(target)
    error = await pull(store, registry)
    assert isinstance(error, TransientPullError)
    assert "sig=" not in str(error)
    assert len(registry.seen) == 1


@pytest.mark.parametrize("code", [400, 401, 403, 404])
async def test_a_storage_that_refuses_its_signed_address_is_tried_again_later(
    registry: BadRegistry, elsewhere: BadRegistry, store: BuiltinStore, code: int
) -> None:
    one = image(LAYER)
    registry.add(one)
    registry.answers[one.layers[0]] = redirect(f"{elsewhere.url}/storage?sig=secret")
    elsewhere.answers[""] = status(code, WWW_Authenticate='Basic realm="x"')
    error = await pull(store, registry)
    assert isinstance(error, TransientPullError)
    assert "sig=" not in str(error)
    assert [seen.authorization for seen in elsewhere.seen] == [None]
