"""The built-in store against Debian's docker-registry, and its layout as skopeo reads it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from edgehub.runtime import open_runtime
from edgehub.runtime.base import ImageNotFound, PullDenied, TransientPullError
from edgehub.runtime.oci import BuiltinStore
from shared.wire import Credential
from tests.parts import Containerd, PushedImage, Registry, RegistryProxy
from tests.parts.images import host_platform
from tests.parts.process import run
from tests.unit.runtime_oci.registry import BadRegistry

PULLER = """
import asyncio, pathlib, sys
from edgehub.runtime.oci import BuiltinStore
from shared.wire import Credential
root, image, username, password = sys.argv[1:]
credential = Credential(registry="r", username=username, password=password)
asyncio.run(BuiltinStore(pathlib.Path(root)).pull(image, credential))
"""


def through(proxy: RegistryProxy, image: PushedImage) -> str:
    return f"{proxy.address}/{image.repository}:{image.tag}"


def verify_blobs(root: Path) -> int:
    """Every file in ``blobs`` has the bytes of its name; how many there are."""
    blobs = list((root / "blobs" / "sha256").iterdir())
    assert all(hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name for blob in blobs)
    return len(blobs)


def import_layout(root: Path) -> dict[str, str]:
    """The digests by name of what a containerd holds that imported the layout."""
    archive = root.with_suffix(".tar")
    run(["tar", "-C", str(root), "-cf", str(archive), "oci-layout", "index.json", "blobs"])
    with Containerd() as containerd:
        containerd.ctr("images", "import", str(archive))
        lines = containerd.ctr_images().splitlines()[1:]
        containerd.remove_images()
    return {line.split()[0]: line.split()[2] for line in lines}


async def skopeo(*arguments: str) -> str:
    return await asyncio.to_thread(run, ["skopeo", "--insecure-policy", *arguments])


async def inspect(root: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await skopeo("inspect", f"oci:{root}:{name}"))
    return found


async def push(registry: Registry, repository: str, **kinds: Any) -> PushedImage:
    return await asyncio.to_thread(registry.push_image, repository, **kinds)


async def test_an_image_of_a_private_registry_is_pulled_and_skopeo_reads_it(
    registry: Registry, credential: Credential, store: BuiltinStore, root: Path, tmp_path: Path
) -> None:
    image = await push(registry, "jilimoxing/test", tag="nginx", layers=(300_000, 2_000_000, 10))
    record = await store.pull(image.reference, credential)
    assert record.id == image.id
    assert record.digests == (image.by_digest,)
    assert record.tags == (image.reference,)
    assert await asyncio.to_thread(verify_blobs, root) == 5
    seen = await inspect(root, image.reference)
    assert seen["Digest"] == image.digest
    assert seen["Layers"] == list(image.layers)
    await skopeo("copy", "--preserve-digests", f"oci:{root}:{image.reference}", f"dir:{tmp_path / 'copy'}")


async def test_of_an_image_for_many_platforms_skopeo_finds_this_machines(
    registry: Registry, credential: Credential, store: BuiltinStore, root: Path, tmp_path: Path
) -> None:
    platforms = ("linux/s390x", "linux/arm64", "linux/amd64", "linux/arm")
    image = await push(registry, "many", platforms=platforms)
    record = await store.pull(image.reference, credential)
    assert record.id == image.id
    assert record.digests == (image.by_digest,)
    seen = await inspect(root, image.reference)
    assert seen["Architecture"] == host_platform().removeprefix("linux/")
    assert seen["Layers"] == list(image.layers)
    await skopeo("copy", f"oci:{root}:{image.reference}", f"dir:{tmp_path / 'copy'}")


async def test_images_in_dockers_format_too_are_imported_by_containerd(
    registry: Registry, credential: Credential, store: BuiltinStore, root: Path
) -> None:
    image = await push(registry, "oci")
    creds = f"{credential.username}:{credential.password}"
    target = f"{registry.address}/docker:v2s2"
    await skopeo(
        "copy",
        "--format=v2s2",
        f"--src-creds={creds}",
        f"--dest-creds={creds}",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        f"docker://{image.reference}",
        f"docker://{target}",
    )
    record = await store.pull(target, credential)
    assert record.id == image.id
    many = await push(registry, "many-for-ctr", platforms=("linux/arm64", "linux/amd64"))
    await store.pull(many.reference, credential)
    listed = await asyncio.to_thread(import_layout, root)
    assert listed[target] == record.digests[0].partition("@")[2]
    assert listed[many.reference] == many.digest


async def test_what_the_registry_refuses_is_told_by_class(
    registry: Registry, credential: Credential, store: BuiltinStore
) -> None:
    image = await push(registry, "refused")
    wrong = Credential(registry=registry.address, username="tiger", password="wrong-secret")
    with pytest.raises(PullDenied, match="wants a user and a password"):
        await store.pull(image.reference, None)
    with pytest.raises(PullDenied, match="denied pulling refused with the credential given") as caught:
        await store.pull(image.reference, wrong)
    assert "wrong-secret" not in str(caught.value)
    with pytest.raises(ImageNotFound, match="has no refused:other"):
        await store.pull(f"{registry.address}/refused:other", credential)
    with pytest.raises(ImageNotFound, match="has no nowhere:latest"):
        await store.pull(f"{registry.address}/nowhere", credential)
    with pytest.raises(ImageNotFound):
        await store.pull(f"{registry.address}/refused@sha256:{'0' * 64}", credential)
    assert await store.list() == []


async def test_a_credential_never_reaches_another_registry(
    registry: Registry, credential: Credential, store: BuiltinStore
) -> None:
    async with BadRegistry() as other:
        with pytest.raises(ImageNotFound):
            await store.pull(f"{other.address}/app", credential)
        assert [seen.authorization for seen in other.seen] == [None]


async def test_a_link_that_breaks_every_few_hundred_kilobytes_still_brings_the_image(
    registry: Registry, credential: Credential, proxy: RegistryProxy, root: Path
) -> None:
    image = await push(registry, "broken", layers=(1_000_000,))
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    store = BuiltinStore(root, sleep=note)
    proxy.cut_blobs_after = 300_000
    record = await store.pull(through(proxy, image), credential)
    assert record.id == image.id
    assert len(waits) >= 3
    assert proxy.blob_bytes < 1_100_000
    await store.close()


async def test_a_killed_registry_is_transient_and_the_next_pull_goes_on(
    credential: Credential, store: BuiltinStore, root: Path
) -> None:
    with Registry(username=credential.username, password=credential.password) as registry:
        image = await push(registry, "killed", layers=(3_000_000,))
        async with RegistryProxy(registry.url) as proxy:
            proxy.stall_blobs_after = 2_000_000
            task = asyncio.create_task(store.pull(through(proxy, image), credential))
            await asyncio.wait_for(proxy.blob_started.wait(), 20)
            await asyncio.to_thread(registry.kill)
            proxy.cut_blobs_after = 0
            proxy.release()
            with pytest.raises(TransientPullError):
                await task
            await asyncio.to_thread(registry.start)
            proxy.cut_blobs_after = None
            before = proxy.blob_bytes
            assert (await store.pull(through(proxy, image), credential)).id == image.id
            assert proxy.blob_bytes - before < 3_000_000
    assert await asyncio.to_thread(verify_blobs, root) == 3


async def test_a_process_killed_during_a_pull_leaves_a_store_that_goes_on(
    registry: Registry, credential: Credential, proxy: RegistryProxy, store: BuiltinStore, root: Path
) -> None:
    image = await push(registry, "sigkill", layers=(200_000, 3_000_000))
    name = through(proxy, image)
    proxy.stall_blobs_after = 2_500_000
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PULLER, str(root), name, credential.username, credential.password
    )
    try:
        async with asyncio.timeout(60):
            while not any(path.stat().st_size >= 1 << 20 for path in partials(root)):  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    assert await store.status(name) is None
    proxy.release()
    before = proxy.blob_bytes
    assert (await store.pull(name, credential)).id == image.id
    assert proxy.blob_bytes - before < 2_500_000
    assert await asyncio.to_thread(verify_blobs, root) == 4
    assert os.listdir(root / "ingest") == []


def partials(root: Path) -> list[Path]:
    return list((root / "ingest").glob("*.part"))


async def test_the_agents_way_in_opens_this_store(registry: Registry, credential: Credential, root: Path) -> None:
    image = await push(registry, "opened")
    runtime = open_runtime("builtin", image_store=root)
    assert (await runtime.pull(image.reference, credential)).id == image.id
    assert await runtime.filesystem() == root
    await runtime.close()
    copy = root.with_name("moved")
    await asyncio.to_thread(shutil.move, root, copy)
    again = open_runtime("", image_store=copy)
    assert [record.id for record in await again.list()] == [image.id]
    await again.close()
