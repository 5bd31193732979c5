"""The demo's image is valid and always the same, and its registry serves it to those who know the password only."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import json
import tarfile
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from cloudhub.demo.image import TAG, DemoImage, demo_image
from cloudhub.demo.registry import DemoRegistry

USER = {"Authorization": aiohttp.encode_basic_auth("tiger", "pass1234")}


@functools.cache
def image() -> DemoImage:
    return demo_image()


@pytest.fixture
async def registry() -> AsyncIterator[DemoRegistry]:
    async with DemoRegistry(username="tiger", password="pass1234") as one:
        one.add(image(), TAG)
        yield one


@pytest.fixture
async def client(registry: DemoRegistry) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{registry.address}", headers=USER, auto_decompress=False) as session:
        yield session


def test_the_image_is_valid_and_some_megabytes() -> None:
    one = image()
    manifest = json.loads(one.manifest)
    assert manifest["mediaType"] == one.media_type
    for blob in (manifest["config"], *manifest["layers"]):
        content = one.blobs[blob["digest"]]
        assert blob["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert blob["size"] == len(content)
    config = json.loads(one.blobs[manifest["config"]["digest"]])
    assert len(manifest["layers"]) >= 3
    assert len(config["history"]) == len(manifest["layers"])
    unpacked = [gzip.decompress(one.blobs[layer["digest"]]) for layer in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in unpacked]
    names: set[str] = set()
    for layer in unpacked:
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            names.update(archive.getnames())
    assert {"etc/passwd", "usr/sbin/nginx", "usr/share/nginx/html/index.html"} <= names
    assert 4 << 20 < one.size < 32 << 20


def test_the_image_is_the_same_each_time() -> None:
    assert demo_image() == image()


@pytest.mark.parametrize("user", [None, ("tiger", "wrong"), ("lion", "pass1234")])
async def test_without_the_password_nothing_is_served(registry: DemoRegistry, user: tuple[str, str] | None) -> None:
    headers = {} if user is None else {"Authorization": aiohttp.encode_basic_auth(*user)}
    async with aiohttp.ClientSession(f"http://{registry.address}", headers=headers) as client:
        for path in ("/v2/", "/v2/jilimoxing/test/manifests/nginx", "/v2/x/blobs/y"):
            async with client.get(path) as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize("by_tag", [True, False])
async def test_the_manifest_is_served_by_tag_and_digest(client: aiohttp.ClientSession, by_tag: bool) -> None:
    reference = "nginx" if by_tag else image().digest
    async with client.get(f"/v2/jilimoxing/test/manifests/{reference}") as response:
        assert response.status == 200
        assert response.content_type == image().media_type
        assert response.headers["Docker-Content-Digest"] == image().digest
        assert await response.read() == image().manifest


@pytest.mark.parametrize(
    "path",
    [
        "/v2/jilimoxing/test/manifests/other",
        "/v2/jilimoxing/other/manifests/nginx",
        "/v2/jilimoxing/test/blobs/sha256:00",
        "/v2/jilimoxing/test",
        "/v2/../etc/passwd",
    ],
)
async def test_what_is_not_there_is_404(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get(path) as response:
        assert response.status == 404


@pytest.mark.parametrize(
    ("header", "status", "part"),
    [
        (None, 200, slice(None)),
        ("bytes=5-9", 206, slice(5, 10)),
        ("bytes=5-", 206, slice(5, None)),
        ("bytes=-5", 206, slice(-5, None)),
        ("bytes=0-99999999999", 206, slice(0, None)),
        ("bytes=99999999999-", 416, slice(0, 0)),
        ("nonsense", 200, slice(None)),
    ],
)
async def test_a_blob_is_served_whole_or_in_part(
    client: aiohttp.ClientSession, header: str | None, status: int, part: slice
) -> None:
    digest, content = next(iter(image().blobs.items()))
    headers = {} if header is None else {"Range": header}
    async with client.get(f"/v2/jilimoxing/test/blobs/{digest}", headers=headers) as response:
        assert response.status == status
        assert await response.read() == content[part]
        if status == 206:
            first, end, _ = part.indices(len(content))
            assert response.headers["Content-Range"] == f"bytes {first}-{end - 1}/{len(content)}"


async def test_a_slowed_registry_takes_its_time(registry: DemoRegistry, client: aiohttp.ClientSession) -> None:
    digest, content = max(image().blobs.items(), key=lambda blob: len(blob[1]))
    registry.bytes_per_second = len(content) * 2
    started = time.monotonic()
    async with client.get(f"/v2/jilimoxing/test/blobs/{digest}") as response:
        assert await response.read() == content
    assert 0.4 < time.monotonic() - started < 5


async def test_a_speed_below_one_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="bytes_per_second is 0"):
        DemoRegistry(username="a", password="b", bytes_per_second=0)


async def test_stopping_ends_transfers_soon() -> None:
    registry = DemoRegistry(username="tiger", password="pass1234", bytes_per_second=1000)
    registry.add(image(), TAG)
    await registry.start()
    digest = max(image().blobs, key=lambda one: len(image().blobs[one]))
    async with (
        aiohttp.ClientSession(f"http://{registry.address}", headers=USER) as client,
        client.get(f"/v2/jilimoxing/test/blobs/{digest}") as response,
    ):
        await response.content.readany()
        started = time.monotonic()
        await registry.stop()
        assert time.monotonic() - started < 5
