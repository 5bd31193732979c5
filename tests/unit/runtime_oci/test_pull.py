"""Pulling: what is fetched, what is kept, and what a pull that does not come to its end leaves behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgehub.runtime.base import (
    ImageNotFound,
    ImageRecord,
    InvalidImage,
    NoSpace,
    PullProgress,
    RuntimeUnavailable,
    TransientPullError,
)
from edgehub.runtime.oci import BuiltinStore, ImageStore
from edgehub.runtime.oci.manifest import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from edgehub.runtime.oci.platforms import Platform
from edgehub.tasks.live import LiveTask
from edgehub.tasks.pulls import Puller
from edgehub.tasks.secrets import Credentials
from shared.images import parse_reference
from tests.unit.edgehub.scripted import task as task_of_hub
from tests.unit.runtime_oci.conftest import HASTY, PATIENT, MakeStore
from tests.unit.runtime_oci.images import image, index
from tests.unit.runtime_oci.registry import BadRegistry, status

BIG = random.Random(1).randbytes(3 << 20)
OTHER = random.Random(2).randbytes(1 << 20)


def blobs(root: Path) -> set[str]:
    return {f"{path.parent.name}:{path.name}" for path in (root / "blobs").glob("*/*")}


def leftovers(root: Path) -> list[str]:
    """Of ingest: partials, temporary files, leases."""
    return sorted(path.name for path in (root / "ingest").iterdir())


def refs(root: Path) -> set[str]:
    entries = json.loads((root / "index.json").read_bytes())["manifests"]
    return {entry["annotations"]["org.opencontainers.image.ref.name"] for entry in entries}


def age(root: Path, seconds: float) -> None:
    """Lets everything look older."""
    for path in (*root.glob("ingest/*"), *root.glob("blobs/*/*")):
        os.utime(path, (time.time() - seconds, time.time() - seconds))


# --- What is pulled ---------------------------------------------------------------------------------------------


async def test_a_pulled_image_is_in_the_layout_whole_and_confirmed(
    registry: BadRegistry, store: BuiltinStore, root: Path
) -> None:
    one = image(BIG, OTHER)
    registry.add(one, "v1")
    name = f"{registry.address}/team/app:v1"
    record = await store.pull(name, None)
    assert record == ImageRecord(
        id=one.id,
        digests=(f"{registry.address}/team/app@{one.digest}",),
        tags=(name,),
        size=len(one.content) + sum(map(len, one.blobs.values())),
    )
    assert await store.status(name) == record
    assert await store.list() == [record]
    assert blobs(root) == {one.digest, *one.blobs}
    assert leftovers(root) == []
    assert json.loads((root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    entry = json.loads((root / "index.json").read_bytes())["manifests"][0]
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
    for digest, content in one.blobs.items():
        assert (root / "blobs" / digest.replace(":", "/")).read_bytes() == content


async def test_the_same_image_is_known_by_its_digest_under_any_tag(registry: BadRegistry, store: BuiltinStore) -> None:
    one = image()
    registry.add(one, "v1")
    await store.pull(f"{registry.address}/app:v1", None)
    found = await store.status(f"{registry.address}/app@{one.digest}")
    assert found is not None
    assert found.id == one.id
    assert await store.status(f"{registry.address}/other@{one.digest}") is None
    assert await store.status(f"{registry.address}/app:v2") is None


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_an_image_is_pulled_by_digest_of_both_algorithms(
    registry: BadRegistry, store: BuiltinStore, algorithm: str
) -> None:
    one = image(OTHER, algorithm=algorithm)
    registry.add(one)
    digest = f"{algorithm}:{hashlib.new(algorithm, one.content).hexdigest()}"
    registry.manifests[digest] = one.content, one.media_type
    record = await store.pull(f"{registry.address}/app@{digest}", None)
    assert record.id == one.id
    assert record.digests == (f"{registry.address}/app@{digest}",)
    assert record.tags == ()


async def test_a_digest_that_is_here_is_not_asked_for_again(registry: BadRegistry, store: BuiltinStore) -> None:
    one = image()
    registry.add(one)
    name = f"{registry.address}/app@{one.digest}"
    first = await store.pull(name, None)
    asked = len(registry.seen)
    assert await store.pull(name, None) == first
    assert len(registry.seen) == asked


@pytest.mark.parametrize(("manifest_type", "index_type"), [(DOCKER_MANIFEST, DOCKER_LIST), (OCI_MANIFEST, OCI_INDEX)])
async def test_of_an_index_only_this_machines_image_is_fetched_and_the_index_digest_kept(
    registry: BadRegistry, store: BuiltinStore, root: Path, manifest_type: str, index_type: str
) -> None:
    arm = image(b"arm", architecture="arm64", media_type=manifest_type)
    own = image(b"own", media_type=manifest_type)
    many = index(
        [({"os": "linux", "architecture": "arm64"}, arm), ({"os": "linux", "architecture": "amd64"}, own)],
        media_type=index_type,
    )
    registry.add(many)
    record = await store.pull(f"{registry.address}/app", None)
    assert record.id == own.id
    assert record.digests == (f"{registry.address}/app@{many.digest}",)
    assert blobs(root) == {many.digest, own.digest, *own.blobs}
    assert record == await store.status(f"{registry.address}/app")


async def test_an_index_in_an_index_is_followed_and_deeper_ones_are_not(
    registry: BadRegistry, store: BuiltinStore
) -> None:
    own = image()
    platform = {"os": "linux", "architecture": "amd64"}
    nested = index([(None, index([(platform, own)]))])
    registry.add(nested, "two")
    registry.add(index([(None, nested)]), "three")
    assert (await store.pull(f"{registry.address}/app:two", None)).id == own.id
    with pytest.raises(InvalidImage, match="nested"):
        await store.pull(f"{registry.address}/app:three", None)


async def test_an_index_without_this_machines_platform_says_what_it_has(
    registry: BadRegistry, make_store: MakeStore
) -> None:
    registry.add(index([({"os": "linux", "architecture": "arm64", "variant": "v8"}, image())]))
    store = make_store(platform=Platform("linux", "riscv64"))
    with pytest.raises(ImageNotFound, match="no image for linux/riscv64, only for linux/arm64/v8"):
        await store.pull(f"{registry.address}/app", None)


async def test_blobs_that_are_here_are_not_fetched(registry: BadRegistry, store: BuiltinStore) -> None:
    registry.add(image(BIG), "v1")
    registry.add(image(BIG, OTHER), "v2")
    await store.pull(f"{registry.address}/app:v1", None)
    before = len(registry.seen)
    seen: list[PullProgress] = []
    await store.pull(f"{registry.address}/app:v2", None, progress=seen.append)
    big = next(digest for digest, content in registry.blobs.items() if content == BIG)
    assert not any(big in one.path for one in registry.seen[before:])
    assert seen[0].done_bytes == len(BIG)


async def test_progress_goes_from_nothing_to_all(registry: BadRegistry, store: BuiltinStore) -> None:
    one = image(BIG, OTHER)
    registry.add(one)
    seen: list[PullProgress] = []
    await store.pull(f"{registry.address}/app", None, progress=seen.append)
    total = sum(map(len, one.blobs.values()))
    assert {now.total_bytes for now in seen} == {total}
    positions = [now.done_bytes for now in seen]
    assert positions == sorted(positions)
    assert positions[0] == 0
    assert positions[-1] == total
    assert len(positions) > 4


async def test_two_pulls_at_once_fetch_a_shared_layer_once(registry: BadRegistry, store: BuiltinStore) -> None:
    registry.add(image(BIG, b"a"), "a")
    registry.add(image(BIG, b"b"), "b")
    async with asyncio.TaskGroup() as group:
        for tag in ("a", "b", "a"):
            group.create_task(store.pull(f"{registry.address}/app:{tag}", None))
    assert all(registry.paths("/blobs/").count(path) == 1 for path in registry.paths("/blobs/"))
    assert len(await store.list()) == 2


async def test_no_more_blobs_are_fetched_at_once_than_is_set(registry: BadRegistry, make_store: MakeStore) -> None:
    store = make_store(settings=replace(PATIENT, concurrent_downloads=2))
    one = image(*(bytes([number]) * 5000 for number in range(6)))
    registry.add(one)
    running = most = 0

    async def slow(request: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return await registry.serve(request)

    registry.answers = dict.fromkeys(one.layers, slow)
    await store.pull(f"{registry.address}/app", None)
    assert most == 2


async def test_an_image_with_the_same_layer_twice_is_pulled(registry: BadRegistry, store: BuiltinStore) -> None:
    one = image(OTHER, b"x", OTHER)
    registry.add(one)
    assert (await store.pull(f"{registry.address}/app", None)).id == one.id


async def test_an_empty_layer_is_pulled_without_a_request(registry: BadRegistry, store: BuiltinStore) -> None:
    one = image(b"", b"x")
    registry.add(one)
    assert (await store.pull(f"{registry.address}/app", None)).id == one.id


async def test_a_tag_that_moved_is_fetched_and_what_it_was_goes(
    registry: BadRegistry, store: BuiltinStore, root: Path
) -> None:
    old, new = image(BIG, b"old"), image(BIG, b"new")
    registry.add(old)
    await store.pull(f"{registry.address}/app", None)
    registry.add(new)
    record = await store.pull(f"{registry.address}/app", None)
    assert record.id == new.id
    assert blobs(root) == {new.digest, *new.blobs}


async def test_a_tag_that_moved_leaves_the_old_image_to_its_other_name(
    registry: BadRegistry, store: BuiltinStore, root: Path
) -> None:
    old, new = image(BIG, b"old"), image(BIG, b"new")
    registry.add(old)
    await store.pull(f"{registry.address}/app", None)
    await store.pull(f"{registry.address}/app@{old.digest}", None)
    registry.add(new)
    await store.pull(f"{registry.address}/app", None)
    assert blobs(root) == {old.digest, new.digest, *old.blobs, *new.blobs}
    assert {record.id for record in await store.list()} == {old.id, new.id}


async def test_an_image_that_is_no_reference_is_invalid(store: BuiltinStore) -> None:
    with pytest.raises(InvalidImage, match="upper-case"):
        await store.status("Nginx")
    with pytest.raises(InvalidImage, match="upper-case"):
        await store.pull("Nginx", None)


# --- Resuming -----------------------------------------------------------------------------------------------------


async def test_a_connection_that_breaks_is_gone_on_with_behind_what_came(
    registry: BadRegistry, store: BuiltinStore
) -> None:
    one = image(BIG)
    registry.add(one)
    registry.answers[one.layers[0]] = registry.once(registry.broken_after(2 << 20))
    await store.pull(f"{registry.address}/app", None)
    ranges = [seen.headers.get("Range") for seen in registry.seen if seen.path.endswith(one.layers[0])]
    assert ranges[0] is None
    assert len(ranges) == 2
    assert ranges[1] is not None
    start = int(ranges[1].removeprefix("bytes=").partition("-")[0])
    assert 0 < start <= 2 << 20


async def test_a_pull_that_failed_for_now_is_resumed_by_the_next_one_also_of_a_new_process(
    registry: BadRegistry, make_store: MakeStore, root: Path
) -> None:
    one = image(BIG)
    registry.add(one)
    registry.answers[one.layers[0]] = registry.once(registry.stall_after(2 << 20), then=status(503))
    with pytest.raises(TransientPullError, match="answered 503"):
        await make_store(settings=HASTY).pull(f"{registry.address}/app", None)
    (partial,) = leftovers(root)
    size = (root / "ingest" / partial).stat().st_size
    assert size == 2 << 20
    registry.answers.clear()
    seen: list[PullProgress] = []
    await make_store().pull(f"{registry.address}/app", None, progress=seen.append)
    assert registry.seen[-1].headers["Range"] == f"bytes={size}-{len(BIG) - 1}"
    assert leftovers(root) == []


async def test_a_cancelled_pull_stops_at_once_and_is_resumed(
    registry: BadRegistry, make_store: MakeStore, root: Path
) -> None:
    store = make_store()
    one = image(BIG)
    registry.add(one)
    registry.answers[one.layers[0]] = registry.stall_after(2 << 20)
    reached = asyncio.Event()

    def follow(progress: PullProgress) -> None:
        if progress.done_bytes >= 1 << 20:
            reached.set()

    task = asyncio.create_task(store.pull(f"{registry.address}/app", None, progress=follow))
    await asyncio.wait_for(reached.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [name for name in leftovers(root) if name.startswith("lease")] == []
    assert await store.status(f"{registry.address}/app") is None
    registry.answers.clear()
    assert (await store.pull(f"{registry.address}/app", None)).id == one.id
    assert "Range" in registry.seen[-1].headers


async def test_a_server_that_ignores_ranges_is_read_from_the_start(registry: BadRegistry, store: BuiltinStore) -> None:
    one = image(BIG)
    registry.add(one)
    registry.ranges = False
    registry.answers[one.layers[0]] = registry.once(registry.broken_after(2 << 20))
    assert (await store.pull(f"{registry.address}/app", None)).id == one.id


async def test_a_link_that_breaks_again_and_again_is_given_up_when_it_brings_little(
    registry: BadRegistry, store: BuiltinStore, root: Path
) -> None:
    one = image(BIG)
    registry.add(one)
    registry.answers[one.layers[0]] = registry.broken_after(1000)
    with pytest.raises(TransientPullError):
        await store.pull(f"{registry.address}/app", None)
    assert len(registry.paths(one.layers[0])) <= 7
    assert len(leftovers(root)) == 1


async def test_a_layer_that_fails_leaves_its_task_as_one_that_nobody_cancelled(
    registry: BadRegistry, store: BuiltinStore
) -> None:
    one = image(BIG, OTHER)
    registry.add(one)
    registry.answers[one.layers[0]] = status(503)
    with pytest.raises(TransientPullError, match="answered 503"):
        await store.pull(f"{registry.address}/app", None)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("layers", [1, 2])
async def test_a_task_whose_layers_fail_is_tried_again_and_is_a_success_only_with_its_image(
    registry: BadRegistry, store: BuiltinStore, layers: int
) -> None:
    one = image(BIG, OTHER)
    registry.add(one)
    for digest in one.layers[:layers]:
        registry.answers[digest] = registry.once(status(503), then=status(500))
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            registry.answers.clear()

    puller = Puller(runtime=store, credentials=Credentials(query_timeout=60), parallel=2, sleep=sleep)
    name = f"{registry.address}/app"

    def live(retries: int) -> LiveTask:
        deadline = asyncio.get_running_loop().time() + 60
        return LiveTask(task=task_of_hub(name, retries=retries), deadline=deadline)

    reasons = await puller.pull(live(1))
    assert "answered 50" in reasons[name]
    assert await store.status(name) is None
    assert await puller.pull(live(3)) == {name: ""}
    assert await store.status(name) is not None
    assert len(waits) == 2


async def test_a_partial_file_that_is_spoilt_is_thrown_away(
    registry: BadRegistry, store: BuiltinStore, root: Path
) -> None:
    one = image(BIG)
    registry.add(one)
    partial = root / "ingest" / (one.layers[0].replace(":", "-") + ".part")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"spoilt")
    with pytest.raises(TransientPullError, match="not those of that digest"):
        await store.pull(f"{registry.address}/app", None)
    assert (await store.pull(f"{registry.address}/app", None)).id == one.id


async def test_a_partial_file_that_is_too_long_is_thrown_away(
    registry: BadRegistry, store: BuiltinStore, root: Path
) -> None:
    one = image(OTHER)
    registry.add(one)
    partial = root / "ingest" / (one.layers[0].replace(":", "-") + ".part")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(OTHER + b"more")
    assert (await store.pull(f"{registry.address}/app", None)).id == one.id


async def test_a_partial_file_that_is_whole_needs_no_request(
    registry: BadRegistry, store: BuiltinStore, root: Path
) -> None:
    one = image(OTHER)
    registry.add(one)
    partial = root / "ingest" / (one.layers[0].replace(":", "-") + ".part")
    partial.parent.mkdir(parents=True)
    partial.write_bytes(OTHER)
    assert (await store.pull(f"{registry.address}/app", None)).id == one.id
    assert registry.paths(one.layers[0]) == []


# --- What is left behind ------------------------------------------------------------------------------------------


async def test_a_pull_that_failed_for_good_leaves_nothing(
    registry: BadRegistry, store: BuiltinStore, root: Path
) -> None:
    one = image(BIG, OTHER, b"gone")
    registry.add(one)
    registry.answers[one.layers[2]] = status(404)
    with pytest.raises(ImageNotFound, match=one.layers[2]):
        await store.pull(f"{registry.address}/app", None)
    assert blobs(root) == set()
    assert leftovers(root) == []


async def test_a_pull_that_failed_for_good_leaves_what_other_images_need(
    registry: BadRegistry, store: BuiltinStore, root: Path
) -> None:
    good, bad = image(BIG), image(BIG, b"gone")
    registry.add(good, "good")
    registry.add(bad, "bad")
    registry.answers[bad.layers[1]] = status(404)
    await store.pull(f"{registry.address}/app:good", None)
    with pytest.raises(ImageNotFound):
        await store.pull(f"{registry.address}/app:bad", None)
    assert blobs(root) == {good.digest, *good.blobs}
    assert await store.status(f"{registry.address}/app:good") is not None


async def test_a_pull_that_failed_for_good_leaves_what_a_running_pull_works_with(
    registry: BadRegistry, make_store: MakeStore, root: Path
) -> None:
    store = make_store()
    slow, bad = image(OTHER, BIG), image(OTHER, b"gone")
    registry.add(slow, "slow")
    registry.add(bad, "bad")
    release = asyncio.Event()

    async def wait(request: Any) -> Any:
        registry.waiting.set()
        await release.wait()
        return await registry.serve(request)

    registry.answers = {slow.layers[1]: wait, bad.layers[1]: status(404)}
    task = asyncio.create_task(store.pull(f"{registry.address}/app:slow", None))
    await asyncio.wait_for(registry.waiting.wait(), 10)
    with pytest.raises(ImageNotFound):
        await store.pull(f"{registry.address}/app:bad", None)
    release.set()
    assert (await task).id == slow.id
    assert registry.paths(slow.layers[0]).count(f"/v2/app/blobs/{slow.layers[0]}") == 1
    assert blobs(root) == {slow.digest, *slow.blobs}


async def test_nothing_is_removed_while_another_process_pulls(
    registry: BadRegistry, make_store: MakeStore, root: Path
) -> None:
    other, store = make_store(), make_store()
    slow, bad = image(OTHER, BIG), image(OTHER, b"gone")
    registry.add(slow, "slow")
    registry.add(bad, "bad")
    registry.answers = {slow.layers[1]: registry.stall_after(5), bad.layers[1]: status(404)}
    task = asyncio.create_task(other.pull(f"{registry.address}/app:slow", None))
    await asyncio.wait_for(registry.waiting.wait(), 10)
    with pytest.raises(ImageNotFound):
        await store.pull(f"{registry.address}/app:bad", None)
    assert slow.layers[0] in blobs(root)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_nobody_went_on_with_is_swept_after_a_day(
    registry: BadRegistry, make_store: MakeStore, root: Path
) -> None:
    kept, lost = image(OTHER), image(BIG, b"gone")
    registry.add(kept, "kept")
    registry.add(lost, "lost")

    async def busy_when_the_other_is_here(request: Any) -> Any:
        while lost.layers[0] not in blobs(root):  # noqa: ASYNC110 - a file tells no event
            await asyncio.sleep(0.01)
        return await status(503)(request)

    registry.answers[lost.layers[1]] = busy_when_the_other_is_here
    first = make_store()
    await first.pull(f"{registry.address}/app:kept", None)
    with pytest.raises(TransientPullError):
        await first.pull(f"{registry.address}/app:lost", None)
    (root / "ingest" / "new-abandoned").write_bytes(b"x")
    (root / "ingest" / f"{lost.layers[1].replace(':', '-')}.part").write_bytes(b"g")
    assert lost.layers[0] in blobs(root)
    age(root, 23 * 3600)
    await make_store().pull(f"{registry.address}/app:kept", None)
    assert lost.layers[0] in blobs(root)
    age(root, 25 * 3600)
    await make_store().pull(f"{registry.address}/app:kept", None)
    assert blobs(root) == {kept.digest, *kept.blobs}
    assert leftovers(root) == []


async def test_a_lease_of_a_process_that_died_holds_nothing_up(
    registry: BadRegistry, store: BuiltinStore, root: Path
) -> None:
    one = image(OTHER, b"gone")
    registry.add(one)
    registry.answers[one.layers[1]] = status(404)
    (root / "ingest").mkdir(parents=True)
    (root / "ingest" / "lease-dead").touch()
    with pytest.raises(ImageNotFound):
        await store.pull(f"{registry.address}/app", None)
    assert blobs(root) == set()
    assert leftovers(root) == []


# --- Space --------------------------------------------------------------------------------------------------------


async def test_without_room_no_byte_of_a_blob_is_fetched(
    registry: BadRegistry, make_store: MakeStore, root: Path
) -> None:
    registry.add(image(BIG))
    store = make_store(free_bytes=lambda: (64 << 20) + (2 << 20))
    with pytest.raises(NoSpace, match=r"3\.0 MiB are to be fetched, and 64\.0 MiB must stay free; .* has 66\.0 MiB"):
        await store.pull(f"{registry.address}/app", None)
    assert registry.paths("/blobs/") == []
    assert blobs(root) == set()


async def test_only_what_is_missing_needs_room(registry: BadRegistry, make_store: MakeStore) -> None:
    registry.add(image(BIG), "a")
    registry.add(image(BIG, b"small"), "b")
    free = 1 << 30
    store = make_store(free_bytes=lambda: free)
    await store.pull(f"{registry.address}/app:a", None)
    free = (64 << 20) + (1 << 20)
    await store.pull(f"{registry.address}/app:b", None)


async def test_two_pulls_are_not_promised_the_same_room(registry: BadRegistry, make_store: MakeStore) -> None:
    store = make_store(free_bytes=lambda: (64 << 20) + (4 << 20))
    slow, second = image(BIG), image(OTHER, OTHER[:-1] + b"x")
    registry.add(slow, "slow")
    registry.add(second, "second")
    registry.answers[slow.layers[0]] = registry.stall_after(10)
    task = asyncio.create_task(store.pull(f"{registry.address}/app:slow", None))
    await asyncio.wait_for(registry.waiting.wait(), 10)
    with pytest.raises(NoSpace, match=r"2\.0 MiB are to be fetched, beside 3\.0 MiB that other pulls still need"):
        await store.pull(f"{registry.address}/app:second", None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.pull(f"{registry.address}/app:second", None)


async def test_leftovers_give_way_when_room_is_short(registry: BadRegistry, make_store: MakeStore, root: Path) -> None:
    free = 1 << 30
    store = make_store(free_bytes=lambda: free if (root / "ingest" / "old.part").exists() else 1 << 30)
    registry.add(image(BIG))
    (root / "ingest").mkdir(parents=True)
    (root / "ingest" / "old.part").write_bytes(b"x")
    free = 1 << 20
    await store.pull(f"{registry.address}/app", None)
    assert leftovers(root) == []


async def test_a_disk_that_fills_up_meanwhile_is_no_space_and_nothing_is_left(
    registry: BadRegistry, store: BuiltinStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add(image(BIG))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NoSpace, match="is full"):
        await store.pull(f"{registry.address}/app", None)
    monkeypatch.undo()
    assert blobs(root) == set()
    assert leftovers(root) == []


async def test_a_folder_that_cannot_be_written_is_the_runtime_away(
    registry: BadRegistry, make_store: MakeStore, tmp_path: Path
) -> None:
    registry.add(image())
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RuntimeUnavailable, match="Not a directory"):
        await make_store("file/images").pull(f"{registry.address}/app", None)


# --- The layout ---------------------------------------------------------------------------------------------------


async def test_an_image_with_a_missing_or_cut_blob_is_no_image_and_is_healed_by_a_pull(
    registry: BadRegistry, store: BuiltinStore, root: Path
) -> None:
    one = image(OTHER, b"x")
    registry.add(one)
    name = f"{registry.address}/app"
    spoils: list[Callable[[Path], object]] = [Path.unlink, lambda path: path.write_bytes(b"")]
    for digest in (one.digest, one.id, one.layers[0]):
        for spoil in spoils:
            await store.pull(name, None)
            spoil(root / "blobs" / digest.replace(":", "/"))
            assert await store.status(name) is None
            assert await store.list() == []
    assert (await store.pull(name, None)).id == one.id


async def test_a_damaged_index_is_set_aside_and_the_blobs_are_used_again(
    registry: BadRegistry, make_store: MakeStore, root: Path
) -> None:
    one = image(OTHER)
    registry.add(one)
    await make_store().pull(f"{registry.address}/app", None)
    (root / "index.json").write_bytes(b'{"manifests": [{"dig')
    store = make_store()
    with pytest.raises(RuntimeUnavailable, match=r"index\.json is damaged"):
        await store.status(f"{registry.address}/app")
    asked = len(registry.paths("/blobs/"))
    await store.pull(f"{registry.address}/app", None)
    assert len(registry.paths("/blobs/")) == asked
    assert sum(name.startswith("index.json.damaged-") for name in os.listdir(root)) == 1


async def test_the_reading_half_changes_nothing_and_sees_images_while_others_are_pulled(
    registry: BadRegistry, make_store: MakeStore, tmp_path: Path, root: Path
) -> None:
    assert ImageStore(tmp_path / "none").images() == []
    assert not (tmp_path / "none").exists()
    store = make_store()
    done, running = image(OTHER), image(BIG)
    registry.add(done, "done")
    registry.add(running, "running")
    await store.pull(f"{registry.address}/app:done", None)
    registry.answers[running.layers[0]] = registry.stall_after(10)
    task = asyncio.create_task(store.pull(f"{registry.address}/app:running", None))
    await asyncio.wait_for(registry.waiting.wait(), 10)
    reader = ImageStore(root, platform=Platform("linux", "amd64"))
    assert [record.id for record in reader.images()] == [done.id]
    assert reader.find(parse_reference(f"{registry.address}/app:running")) is None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_two_processes_that_pull_into_one_folder_lose_nothing(
    registry: BadRegistry, make_store: MakeStore, root: Path
) -> None:
    images = {f"t{number}": image(BIG, bytes([number])) for number in range(4)}
    for tag, one in images.items():
        registry.add(one, tag)
    stores = [make_store(), make_store()]
    async with asyncio.TaskGroup() as group:
        for store in stores:
            for tag in images:
                group.create_task(store.pull(f"{registry.address}/app:{tag}", None))
    assert refs(root) == {f"{registry.address}/app:{tag}" for tag in images}
    assert {record.id for record in await stores[0].list()} == {one.id for one in images.values()}
    assert leftovers(root) == []


async def test_one_image_under_two_names_is_listed_once(registry: BadRegistry, store: BuiltinStore) -> None:
    one = image()
    registry.add(one, "a")
    registry.add(one, "b")
    for tag in ("a", "b"):
        await store.pull(f"{registry.address}/app:{tag}", None)
    (record,) = await store.list()
    assert record.tags == (f"{registry.address}/app:a", f"{registry.address}/app:b")
    assert record.digests == (f"{registry.address}/app@{one.digest}",)
    assert await store.status(f"{registry.address}/app:b") == record


async def test_the_stores_filesystem_is_known_before_its_folder_is_made(store: BuiltinStore, root: Path) -> None:
    assert await store.filesystem() == root.parent
    os.mkdir(root)
    assert await store.filesystem() == root


async def test_the_version_names_the_store_and_the_project(store: BuiltinStore) -> None:
    version = await store.version()
    assert version.name == "builtin"
    assert version.version[0].isdigit()
