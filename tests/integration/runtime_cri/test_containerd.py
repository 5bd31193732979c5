"""Pulls through a real containerd from real registries."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import uvloop

from edgehub.runtime.base import (
    ImageNotFound,
    ImageRecord,
    InvalidImage,
    PullDenied,
    RuntimeUnavailable,
    TransientPullError,
)
from edgehub.runtime.cri.runtime import CRIRuntime
from shared.wire import Credential
from tests.integration.runtime_cri.conftest import PASSWORD
from tests.parts import Containerd, PushedImage, Registry, RegistryProxy

MiB = 1 << 20


def through(proxy: RegistryProxy, image: PushedImage) -> str:
    return f"{proxy.address}/{image.repository}:{image.tag}"


async def until(condition: asyncio.Event, *, within: float = 60) -> None:
    async with asyncio.timeout(within):
        await condition.wait()


async def test_it_tells_who_the_runtime_is(runtime: CRIRuntime) -> None:
    version = await runtime.version()
    assert version.name == "containerd"
    assert version.version.startswith("1.6.")
    assert version.node_info == f"containerd://{version.version}"


async def test_a_pulled_image_is_confirmed_by_id_and_digest_and_shows_everywhere(
    runtime: CRIRuntime, containerd: Containerd, public_registry: Registry
) -> None:
    image = public_registry.push_image("library/nginx", tag="1.27", layers=(5000, 3000, 1000))
    assert await runtime.status(image.reference) is None

    record = await runtime.pull(image.reference, None)

    assert record.id == image.id
    assert record.digests == (image.by_digest,)
    assert record.tags == (image.reference,)
    assert record.size > 9000
    assert await runtime.status(image.reference) == record
    assert record in await runtime.list()
    line = next(line for line in containerd.ctr_images().splitlines() if line.startswith(f"{image.reference} "))
    assert image.digest in line


async def test_a_short_name_means_the_image_of_docker_hub(
    runtime: CRIRuntime, containerd: Containerd, public_registry: Registry
) -> None:
    image = public_registry.push_image("library/short")
    containerd.trust("docker.io", url=public_registry.url)
    record = await runtime.pull("short", None)
    assert record.id == image.id
    assert record.tags == ("docker.io/library/short:latest",)
    assert await runtime.status("short") == record


async def test_a_private_image_is_pulled_with_its_own_credential(
    runtime: CRIRuntime, private_registry: Registry, credential: Credential
) -> None:
    image = private_registry.push_image("team/secret-app")
    assert (await runtime.pull(image.reference, credential)).id == image.id


async def test_a_private_image_without_a_credential_is_denied_and_the_reason_says_so(
    runtime: CRIRuntime, private_registry: Registry
) -> None:
    image = private_registry.push_image("team/secret-app")
    with pytest.raises(PullDenied, match=r"refuses .* \(no credential was given\): .*401 Unauthorized"):
        await runtime.pull(image.reference, None)
    assert await runtime.status(image.reference) is None


async def test_a_wrong_password_is_denied_and_never_shown(
    runtime: CRIRuntime, private_registry: Registry, credential: Credential
) -> None:
    image = private_registry.push_image("team/secret-app")
    wrong = credential.model_copy(update={"password": "no-such-password"})
    with pytest.raises(PullDenied, match=r"with the credential given") as denied:
        await runtime.pull(image.reference, wrong)
    assert "no-such-password" not in str(denied.value)
    assert PASSWORD not in str(denied.value)


async def test_a_credential_is_not_given_to_the_mirror_of_its_registry(
    runtime: CRIRuntime, containerd: Containerd, private_registry: Registry, credential: Credential
) -> None:
    image = private_registry.push_image("team/secret-app")
    containerd.trust("registry.example", url=private_registry.url)
    with pytest.raises(PullDenied):
        await runtime.pull(f"registry.example/{image.repository}:{image.tag}", credential)


async def test_credentials_of_two_registries_do_not_mix(
    runtime: CRIRuntime, containerd: Containerd, private_registry: Registry, credential: Credential
) -> None:
    with Registry(username="lion", password="another-password") as other:
        containerd.trust(other.address)
        ours, theirs = private_registry.push_image("team/a"), other.push_image("team/b")
        lion = Credential(registry=other.address, username="lion", password="another-password")
        with pytest.raises(PullDenied):
            await runtime.pull(theirs.reference, credential)
        pulled = await asyncio.gather(runtime.pull(ours.reference, credential), runtime.pull(theirs.reference, lion))
    assert [record.id for record in pulled] == [ours.id, theirs.id]


async def test_a_missing_tag_is_not_found(runtime: CRIRuntime, public_registry: Registry) -> None:
    image = public_registry.push_image("team/app")
    with pytest.raises(ImageNotFound, match=r"has no .*/team/app:9\.9"):
        await runtime.pull(f"{public_registry.address}/{image.repository}:9.9", None)


async def test_a_missing_repository_is_not_found(runtime: CRIRuntime, public_registry: Registry) -> None:
    with pytest.raises(ImageNotFound):
        await runtime.pull(f"{public_registry.address}/no/such/repository", None)


async def test_an_image_of_other_platforms_only_is_not_found(runtime: CRIRuntime, public_registry: Registry) -> None:
    image = public_registry.push_image("team/foreign", platforms=["linux/s390x", "linux/ppc64le"])
    with pytest.raises(ImageNotFound, match="no match for platform"):
        await runtime.pull(image.reference, None)


async def test_of_an_index_the_image_of_this_platform_is_pulled(runtime: CRIRuntime, public_registry: Registry) -> None:
    image = public_registry.push_image("team/many", platforms=["linux/s390x", "linux/amd64", "linux/arm64"])
    record = await runtime.pull(image.reference, None)
    assert record.id == image.id
    assert record.digests == (image.by_digest,)


async def test_a_malformed_reference_is_told_without_asking_the_runtime(runtime: CRIRuntime) -> None:
    with pytest.raises(InvalidImage, match="Upper"):
        await runtime.pull("registry.example/Upper/case", None)
    with pytest.raises(InvalidImage):
        await runtime.status("registry.example/Upper/case")


@pytest.mark.parametrize("with_tag", [False, True], ids=["digest", "tag and digest"])
async def test_a_reference_by_digest_pulls_just_that(
    runtime: CRIRuntime, public_registry: Registry, with_tag: bool
) -> None:
    image = public_registry.push_image("team/pinned", tag="v1")
    public_registry.push_image("team/pinned", tag="v1")
    reference = f"{image.reference}@{image.digest}" if with_tag else image.by_digest
    record = await runtime.pull(reference, None)
    assert record.id == image.id
    assert record.digests == (image.by_digest,)
    assert await runtime.status(reference) == record


async def test_a_tag_that_moved_is_pulled_again(runtime: CRIRuntime, public_registry: Registry) -> None:
    first = public_registry.push_image("team/moving")
    await runtime.pull(first.reference, None)
    second = public_registry.push_image("team/moving")
    assert (await runtime.pull(second.reference, None)).id == second.id != first.id


async def test_two_pulls_at_once_both_succeed(runtime: CRIRuntime, public_registry: Registry) -> None:
    images = [public_registry.push_image(f"team/app-{number}", layers=(MiB, MiB)) for number in range(2)]
    records = await asyncio.gather(*(runtime.pull(image.reference, None) for image in images))
    assert [record.id for record in records] == [image.id for image in images]


async def test_cancelling_the_task_stops_the_transfer_in_the_runtime(
    runtime: CRIRuntime, containerd: Containerd, public_registry: Registry, proxy: RegistryProxy
) -> None:
    image = public_registry.push_image("team/huge", layers=(8 * MiB,))
    proxy.bytes_per_second = 0.5 * MiB
    pull = asyncio.create_task(runtime.pull(through(proxy, image), None))
    await until(proxy.blob_started)

    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull

    async with asyncio.timeout(60):
        await proxy.until_idle()
    assert proxy.blob_bytes < 8 * MiB
    assert await runtime.status(through(proxy, image)) is None
    assert image.layers[0] not in containerd.content()

    proxy.bytes_per_second = None
    assert (await runtime.pull(through(proxy, image), None)).id == image.id


async def test_a_deadline_of_the_caller_stops_the_transfer_too(
    runtime: CRIRuntime, public_registry: Registry, proxy: RegistryProxy
) -> None:
    image = public_registry.push_image("team/stalled", layers=(2 * MiB,))
    proxy.stall_blobs_after = MiB
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await runtime.pull(through(proxy, image), None)
    async with asyncio.timeout(60):
        await proxy.until_idle()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
async def test_a_registry_in_trouble_is_worth_another_try(
    runtime: CRIRuntime, public_registry: Registry, proxy: RegistryProxy, status: int
) -> None:
    image = public_registry.push_image("team/app")
    proxy.answer_with = status
    with pytest.raises(TransientPullError, match=str(status)):
        await runtime.pull(through(proxy, image), None)
    proxy.answer_with = None
    assert (await runtime.pull(through(proxy, image), None)).id == image.id


@pytest.mark.parametrize("status", [401, 403])
async def test_a_registry_that_forbids_is_not_asked_again(
    runtime: CRIRuntime, public_registry: Registry, proxy: RegistryProxy, status: int
) -> None:
    image = public_registry.push_image("team/app")
    proxy.answer_with = status
    with pytest.raises(PullDenied):
        await runtime.pull(through(proxy, image), None)


async def test_a_connection_that_breaks_in_a_layer_is_worth_another_try(
    runtime: CRIRuntime, public_registry: Registry, proxy: RegistryProxy
) -> None:
    image = public_registry.push_image("team/app", layers=(2 * MiB,))
    proxy.cut_blobs_after = 0
    with pytest.raises(TransientPullError):
        await runtime.pull(through(proxy, image), None)
    # With some bytes each time, containerd goes on by itself where the connection broke.
    proxy.cut_blobs_after = MiB // 2
    assert (await runtime.pull(through(proxy, image), None)).id == image.id
    assert sum(image.layers[0] in request for request in proxy.requests) > 2


async def test_a_registry_that_is_down_is_worth_another_try(runtime: CRIRuntime, containerd: Containerd) -> None:
    with Registry() as registry:
        image = registry.push_image("team/app")
        containerd.trust(registry.address)
        registry.stop()
        with pytest.raises(TransientPullError, match="connection refused"):
            await runtime.pull(image.reference, None)
        registry.start()
        assert (await runtime.pull(image.reference, None)).id == image.id


async def test_https_to_a_plain_registry_is_an_error_that_no_try_mends(
    runtime: CRIRuntime, containerd: Containerd, public_registry: Registry
) -> None:
    image = public_registry.push_image("team/app")
    name = f"plain.example:{public_registry.port}"
    containerd.trust(name, url=f"https://{public_registry.address}")
    with pytest.raises(Exception, match="server gave HTTP response to HTTPS client") as error:
        await runtime.pull(f"{name}/{image.repository}", None)
    assert getattr(error.value, "retryable", None) is False


async def test_the_filesystem_of_the_images_is_a_real_path(runtime: CRIRuntime, containerd: Containerd) -> None:
    path = await runtime.filesystem()
    assert isinstance(path, Path)
    assert path.is_dir()
    assert path.is_relative_to(containerd.root)


async def test_a_runtime_that_is_down_is_told_at_once_and_met_again_at_the_next_call(
    runtime: CRIRuntime, containerd: Containerd, public_registry: Registry
) -> None:
    image = public_registry.push_image("team/app")
    record = await runtime.pull(image.reference, None)
    containerd.kill()
    for _ in range(20):
        # So many failures would bring gRPC's own backoff to a minute and more.
        started = time.monotonic()
        with pytest.raises(RuntimeUnavailable, match=str(containerd.socket)):
            await runtime.status(image.reference)
        assert time.monotonic() - started < 5
    with pytest.raises(RuntimeUnavailable):
        await runtime.pull(image.reference, None)

    containerd.start()
    started = time.monotonic()
    assert await runtime.status(image.reference) == record
    assert time.monotonic() - started < 5


async def test_a_runtime_that_dies_during_a_pull_is_told_and_the_next_pull_succeeds(
    runtime: CRIRuntime, containerd: Containerd, public_registry: Registry, proxy: RegistryProxy
) -> None:
    image = public_registry.push_image("team/app", layers=(2 * MiB,))
    proxy.stall_blobs_after = MiB
    pull = asyncio.create_task(runtime.pull(through(proxy, image), None))
    await until(proxy.blob_started)
    containerd.kill()
    with pytest.raises(RuntimeUnavailable):
        await pull
    proxy.release()
    containerd.start()
    assert (await runtime.pull(through(proxy, image), None)).id == image.id


async def test_a_runtime_that_hangs_is_told_after_the_timeout(containerd: Containerd) -> None:
    runtime = CRIRuntime(socket=containerd.socket, query_timeout=0.5)
    await runtime.version()
    containerd.process.pause()
    try:
        with pytest.raises(RuntimeUnavailable):
            await runtime.version()
    finally:
        containerd.process.resume()
    await runtime.version()
    await runtime.close()


async def test_closing_ends_a_pull_that_still_runs_as_a_runtime_that_is_away(
    containerd: Containerd, public_registry: Registry, proxy: RegistryProxy
) -> None:
    image = public_registry.push_image("team/app", layers=(2 * MiB,))
    proxy.stall_blobs_after = MiB
    runtime = CRIRuntime(socket=containerd.socket)
    pull = asyncio.create_task(runtime.pull(through(proxy, image), None))
    await until(proxy.blob_started)
    await runtime.close()
    with pytest.raises(RuntimeUnavailable, match="closed"):
        await pull


def test_it_works_on_the_agents_event_loop(containerd: Containerd, public_registry: Registry) -> None:
    image = public_registry.push_image("team/app", layers=(MiB,))

    async def pull() -> ImageRecord:
        runtime = CRIRuntime(socket=containerd.socket)
        try:
            return await runtime.pull(image.reference, None)
        finally:
            await runtime.close()

    assert uvloop.run(pull()).id == image.id
